//! `upsert-json`: `{"key":{...},"value":{...}}` says which row is now there for a key, `{"key":{...},"value":null}`
//! that none is. It is what a compacted topic holds, key and value of a message side by side. The columns of the
//! primary key are read from `key`, all others from `value`. Called by the block decoder.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mainstem_core::change::ChangeKind;

use super::keyed::{KeyedRows, Kinds, Member, locate, object_at, open_record};
use crate::format::block::{RecordDecoder, RecordEnd, line_end};
use crate::format::fault::{Fault, Faulty};
use crate::format::options::ChangelogOptions;

/// Decodes upserts: `+U` with a whole row, `-D` with a key.
pub(crate) struct UpsertDecoder {
    rows: KeyedRows,
    kinds: Kinds,
}

impl UpsertDecoder {
    /// A decoder of the schema's columns; an error names the column whose type JSON cannot hold.
    pub(crate) fn new(schema: SchemaRef, options: &ChangelogOptions) -> Result<UpsertDecoder, String> {
        Ok(UpsertDecoder { rows: KeyedRows::new(&schema, &options.key, &options.json)?, kinds: Kinds::default() })
    }
}

impl RecordDecoder for UpsertDecoder {
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        line_end(rest)
    }

    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        let Some(mut cursor) = open_record(record)? else { return Ok(0) };
        let [key, value] = locate(&mut cursor, [b"key", b"value"])?;
        if cursor.at < cursor.bytes.len() {
            return Err(Fault::new(cursor.at, "there is more text after the object"));
        }
        let Some(key) = key.value() else { return Err(Fault::new(0, "the record has no 'key'")) };
        let mut key = object_at(cursor.bytes, key, "key")?;
        let (mut value, kind) = match value {
            Member::At(at) => (Some(object_at(cursor.bytes, at, "value")?), ChangeKind::UpdateAfter),
            Member::Null => (None, ChangeKind::Delete),
            Member::Missing => {
                return Err(Fault::new(0, "the record has no 'value'; a key that is deleted has the value null"));
            }
        };
        self.rows.read(&mut key, value.as_mut())?;
        self.kinds.push(kind);
        Ok(1)
    }

    fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
        self.kinds.truncate(rows);
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        self.rows.finish(rows)
    }

    fn finish_changes(&mut self) -> Option<Int8Array> {
        self.kinds.finish()
    }
}

#[cfg(test)]
mod tests;
