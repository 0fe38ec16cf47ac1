//! `debezium-json`: `{"before":{...},"after":{...},"op":"u"}`, the envelope in which Debezium sends the changes of a
//! database's table. An update gives two rows, what was there and what is there now. Called by the block decoder.

use arrow::array::{Int8Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mainstem_core::change::ChangeKind;

use super::keyed::{KeyedRows, Kinds, Member, locate, object_at, open_record};
use super::object::ObjectReader;
use super::scan::Cursor;
use crate::format::block::{RecordDecoder, RecordEnd, line_end};
use crate::format::fault::{Fault, Faulty, excerpt};
use crate::format::options::ChangelogOptions;

/// Decodes envelopes.
pub(crate) struct DebeziumDecoder {
    schema: SchemaRef,
    rows: Rows,
    kinds: Kinds,
    schema_include: bool,
}

enum Rows {
    /// What stood before is part of the changelog.
    Whole(ObjectReader),
    /// Rows replace each other by key.
    Keyed(Box<KeyedRows>),
}

/// An envelope: where its parts begin.
struct Envelope {
    before: Option<usize>,
    after: Option<usize>,
    op: usize,
}

impl DebeziumDecoder {
    /// A decoder of the schema's columns; an error names the column whose type JSON cannot hold.
    pub(crate) fn new(schema: SchemaRef, options: &ChangelogOptions) -> Result<DebeziumDecoder, String> {
        let rows = match options.upsert {
            true => Rows::Keyed(Box::new(KeyedRows::new(&schema, &options.key, &options.json)?)),
            false => Rows::Whole(ObjectReader::new(schema.fields(), &options.json)?),
        };
        Ok(DebeziumDecoder { schema, rows, kinds: Kinds::default(), schema_include: options.schema_include })
    }

    /// Reads the row that begins at a place of the record; only its key, if `key_only` and rows are by key.
    fn row(&mut self, record: &[u8], at: usize, side: &str, key_only: bool) -> Faulty<()> {
        let mut cursor = object_at(record, at, side)?;
        let read = match &mut self.rows {
            Rows::Whole(reader) => reader.read(&mut cursor),
            Rows::Keyed(rows) => {
                let mut rest = Cursor { bytes: record, at };
                rows.read(&mut cursor, (!key_only).then_some(&mut rest))
            }
        };
        read.map_err(|fault| fault.inside(side))
    }

    fn rows_of(&mut self, record: &[u8], envelope: &Envelope) -> Faulty<usize> {
        let op = Cursor { bytes: record, at: envelope.op }.string()?.0;
        let after = || envelope.after.ok_or_else(|| lacks(envelope, op, "after", ""));
        let before = || envelope.before.ok_or_else(|| lacks(envelope, op, "before", FULL_IDENTITY));
        match (op, &self.rows) {
            (b"c" | b"r", _) => {
                self.row(record, after()?, "after", false)?;
                self.kinds.push(ChangeKind::Insert);
                Ok(1)
            }
            (b"u", Rows::Keyed(_)) => {
                self.row(record, after()?, "after", false)?;
                self.kinds.push(ChangeKind::UpdateAfter);
                Ok(1)
            }
            (b"u", Rows::Whole(_)) => {
                self.row(record, before()?, "before", false)?;
                self.kinds.push(ChangeKind::UpdateBefore);
                self.row(record, after()?, "after", false)?;
                self.kinds.push(ChangeKind::UpdateAfter);
                Ok(2)
            }
            (b"d", _) => {
                self.row(record, before()?, "before", true)?;
                self.kinds.push(ChangeKind::Delete);
                Ok(1)
            }
            (other, _) => {
                let other = excerpt(other, 0, 20);
                Err(Fault::new(envelope.op, format!("the 'op' is '{other}', expected c, r, u or d")))
            }
        }
    }

    /// Finds the parts of the envelope; none where the record only follows up a deleted key.
    fn envelope(&self, cursor: &mut Cursor<'_>) -> Faulty<Option<Envelope>> {
        let mut start = cursor.at;
        if self.schema_include {
            let [payload] = locate(cursor, [b"payload"])?;
            start = match payload {
                Member::At(at) => object_at(cursor.bytes, at, "payload")?.at,
                Member::Null => return Ok(None),
                Member::Missing => {
                    return Err(Fault::new(
                        0,
                        "the record has no 'payload'; set 'debezium-json.schema-include' = 'false'",
                    ));
                }
            };
        }
        let mut inner = Cursor { bytes: cursor.bytes, at: start };
        let [before, after, op, payload] = locate(&mut inner, [b"before", b"after", b"op", b"payload"])?;
        if !self.schema_include {
            cursor.at = inner.at;
        }
        match op.value() {
            Some(op) if cursor.bytes[op] == b'"' => {
                Ok(Some(Envelope { before: before.value(), after: after.value(), op }))
            }
            Some(op) => Err(Cursor { bytes: cursor.bytes, at: op }.unexpected("a text as 'op'")),
            None if payload != Member::Missing => Err(Fault::new(
                start,
                "the record has a 'payload' but no 'op'; set 'debezium-json.schema-include' = 'true'",
            )),
            None => Err(Fault::new(start, "the record has no 'op'; is it a change in Debezium's envelope?")),
        }
    }
}

/// What helps where a database does not send what stood before.
const FULL_IDENTITY: &str = "; make the database send whole rows (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL), or \
     declare the table's PRIMARY KEY and set 'debezium-json.upsert' = 'true'";

#[cold]
fn lacks(envelope: &Envelope, op: &[u8], side: &str, help: &str) -> Box<Fault> {
    let what = match op {
        b"u" => "an update",
        b"d" => "a delete",
        _ => "an insert",
    };
    Fault::new(envelope.op, format!("{what} has no '{side}'{help}"))
}

impl RecordDecoder for DebeziumDecoder {
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        line_end(rest)
    }

    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        let Some(mut cursor) = open_record(record)? else { return Ok(0) };
        let envelope = self.envelope(&mut cursor)?;
        if cursor.at < cursor.bytes.len() {
            return Err(Fault::new(cursor.at, "there is more text after the object"));
        }
        match envelope {
            Some(envelope) => self.rows_of(record, &envelope),
            None => Ok(0),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.rows {
            Rows::Whole(reader) => reader.truncate(rows),
            Rows::Keyed(keyed) => keyed.truncate(rows),
        }
        self.kinds.truncate(rows);
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        match &mut self.rows {
            Rows::Keyed(keyed) => keyed.finish(rows),
            Rows::Whole(reader) => {
                let columns = reader.finish()?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
            }
        }
    }

    fn finish_changes(&mut self) -> Option<Int8Array> {
        self.kinds.finish()
    }
}

#[cfg(test)]
mod tests;
