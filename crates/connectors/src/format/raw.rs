//! `raw`: a file of lines, each of which is the value of the one column of a table, as it is. For STRING or BYTES. Called by
//! the block decoder and by the filesystem sink. In Kafka a message is such a value by itself (`kafka::decode`).

use arrow::array::{Array, AsArray, Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::block::{RecordDecoder, RecordEnd, line_end};
use super::column::ScalarColumn;
use super::encode::TextEncoder;
use super::fault::Faulty;
use super::options::TimestampFormat;
use crate::error::ConnectorError;

/// Refuses a table that is not one column of text or bytes.
pub(super) fn check(table: &str, schema: &Schema) -> Result<(), ConnectorError> {
    match schema.fields().as_ref() {
        [field] if matches!(field.data_type(), DataType::Utf8 | DataType::Binary) => Ok(()),
        _ => Err(ConnectorError::option(format!(
            "option 'format' of table '{table}' has the value 'raw', which holds one column of type STRING or BYTES and no other"
        ))),
    }
}

/// Lines to values.
pub(super) struct RawDecoder {
    schema: SchemaRef,
    /// None where nobody asks for the column.
    column: Option<ScalarColumn>,
}

impl RawDecoder {
    /// A decoder of the schema's column, which may have none.
    pub(super) fn new(schema: SchemaRef) -> RawDecoder {
        let field = schema.fields().first();
        let column = field.and_then(|field| ScalarColumn::new(field.data_type(), true, TimestampFormat::Sql));
        RawDecoder { schema, column }
    }
}

impl RecordDecoder for RawDecoder {
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        line_end(rest)
    }

    fn takes_any_bytes(&self) -> bool {
        self.column.as_ref().is_none_or(|column| !column.is_text())
    }

    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        if record.is_empty() {
            return Ok(0);
        }
        match &mut self.column {
            Some(column) if column.is_text() => column.append_text(record)?,
            Some(column) => column.append_bytes(record)?,
            None => {}
        }
        Ok(1)
    }

    fn truncate(&mut self, rows: usize) {
        if let Some(column) = &mut self.column {
            column.truncate(rows);
        }
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.column.iter_mut().map(ScalarColumn::finish).collect::<Result<Vec<_>, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }
}

/// Values to lines. A NULL gives no line.
pub(crate) struct RawEncoder;

impl TextEncoder for RawEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        _changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        let column = rows.column(0);
        for row in (0..rows.num_rows()).filter(|row| column.is_valid(*row)) {
            match column.data_type() {
                DataType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
                _ => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
            }
            out.push(b'\n');
            each(row, out.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;
    use crate::format::block::TextDecoder;
    use crate::format::options::FormatOptions;

    #[test]
    fn lines_are_values_and_come_back() {
        let text = b"a b\n\n\xff{\r\nlast";
        for (data_type, expected) in [(DataType::Binary, 3), (DataType::Utf8, 1)] {
            let schema = Arc::new(Schema::new(vec![Field::new("v", data_type.clone(), true)]));
            let mut decoder = TextDecoder::new(&FormatOptions::Raw, &schema, &[0], None).unwrap();
            let decoded = decoder.decode(text, 0, 10);
            assert_eq!(decoded.fault.is_some(), data_type == DataType::Utf8);
            let rows = &decoded.batches[0].rows;
            assert_eq!(rows.num_rows(), expected);
            let mut written = Vec::new();
            RawEncoder.encode(rows, None, &mut written).unwrap();
            let whole: &[u8] = b"a b\n\xff{\nlast\n";
            assert_eq!(written, if expected == 3 { whole } else { b"a b\n" });
        }
        let two = Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)]);
        assert!(check("t", &two).unwrap_err().message.contains("holds one column of type STRING or BYTES"));
    }
}
