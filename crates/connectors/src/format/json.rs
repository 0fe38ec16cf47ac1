//! JSON lines: one object a line, keys by the names of the columns. Made for speed, since this is how most
//! benchmarks and most users feed the engine: one pass over the bytes, no tree in between, no allocation a
//! record. Called by the block decoder with blocks of valid UTF-8.
//!
//! Coercions are Flink's: a string that holds a number is taken for a number, a number in a STRING column for
//! its text, nested JSON in a STRING column for its text. A key that is missing reads as NULL, of a key that
//! comes twice the last counts.

mod column;
mod debezium;
mod keyed;
mod object;
mod scan;
mod upsert;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use self::object::ObjectReader;
use self::scan::Cursor;
use super::block::{RecordDecoder, RecordEnd, line_end};
use super::fault::{Fault, Faulty};
use super::options::JsonOptions;

pub(super) use self::debezium::DebeziumDecoder;
pub(super) use self::keyed::Kinds;
pub(super) use self::upsert::UpsertDecoder;

/// Decodes JSON objects into the columns of a schema.
pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    record: ObjectReader,
}

impl JsonDecoder {
    /// A decoder of the schema's columns; an error names the column whose type JSON cannot hold.
    pub(crate) fn new(schema: SchemaRef, options: &JsonOptions) -> Result<JsonDecoder, String> {
        let record = ObjectReader::new(schema.fields(), options)?;
        Ok(JsonDecoder { schema, record })
    }
}

impl RecordDecoder for JsonDecoder {
    #[inline]
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        line_end(rest)
    }

    #[inline]
    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        let mut cursor = Cursor { bytes: record, at: 0 };
        cursor.skip_space();
        if cursor.peek() != b'{' {
            // A line without anything is no record.
            return if cursor.at == record.len() { Ok(0) } else { Err(cursor.unexpected("a JSON object")) };
        }
        self.record.read(&mut cursor)?;
        cursor.skip_space();
        if cursor.at < record.len() {
            return Err(Fault::new(cursor.at, "there is more text after the object"));
        }
        Ok(1)
    }

    fn truncate(&mut self, rows: usize) {
        self.record.truncate(rows);
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.record.finish()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }
}

#[cfg(test)]
mod tests;
