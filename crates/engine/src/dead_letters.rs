//! Rejected records as rows of the table that takes them. Called by the screen of a source.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use mainstem_connectors::{DeadLetter, TableSpec};
use mainstem_plan::operator::DeadLetterColumn;
use mainstem_plan::sql_type_name;

use crate::error::EngineError;

/// Makes rows of rejected records.
pub(crate) struct LetterFormat {
    operator: String,
    source: String,
    row_schema: String,
    /// Columns of the table that takes them.
    schema: SchemaRef,
    raw_bytes_max: usize,
}

impl LetterFormat {
    /// For records of a source; a letter keeps at most so many bytes of its record.
    pub(crate) fn new(operator: &str, source: &TableSpec, schema: SchemaRef, raw_bytes_max: usize) -> LetterFormat {
        let row_schema = declared(&source.schema);
        LetterFormat { operator: operator.to_owned(), source: source.name.clone(), row_schema, schema, raw_bytes_max }
    }

    /// Rows for records of a split that were rejected at a time (ms).
    pub(crate) fn rows(&self, split: &str, letters: &[DeadLetter], now_ms: i64) -> Result<RecordBatch, EngineError> {
        let columns = self.schema.fields().iter().map(|field| {
            let column = DeadLetterColumn::of_name(field.name())
                .ok_or_else(|| EngineError::Bug(format!("dead letters have no '{}'", field.name())))?;
            self.column(column, field.data_type(), split, letters, now_ms)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| EngineError::arrow(&self.operator, &e))
    }

    fn column(
        &self,
        column: DeadLetterColumn,
        data_type: &DataType,
        split: &str,
        letters: &[DeadLetter],
        now_ms: i64,
    ) -> Result<ArrayRef, EngineError> {
        let same = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(|_| text))) };
        Ok(match column {
            DeadLetterColumn::Raw => self.bytes(data_type, letters.iter().map(|letter| letter.raw.as_deref())),
            DeadLetterColumn::RawKey => self.bytes(data_type, letters.iter().map(|letter| letter.raw_key.as_deref())),
            DeadLetterColumn::Source => same(&self.source),
            DeadLetterColumn::Split => same(split),
            DeadLetterColumn::Position => Arc::new(Int64Array::from_iter_values(letters.iter().map(|l| l.position))),
            DeadLetterColumn::Line => Arc::new(letters.iter().map(|letter| letter.line).collect::<Int64Array>()),
            DeadLetterColumn::Reason => {
                Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| self.reason(letter))))
            }
            DeadLetterColumn::RowSchema => same(&self.row_schema),
            DeadLetterColumn::RejectedAt => {
                let times = TimestampMillisecondArray::from_value(now_ms, letters.len()).with_timezone("UTC");
                compute::cast(&times, data_type).map_err(|e| EngineError::arrow(&self.operator, &e))?
            }
        })
    }

    fn bytes<'a>(&self, data_type: &DataType, values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
        let values = values.map(|bytes| bytes.map(|bytes| &bytes[..bytes.len().min(self.raw_bytes_max)]));
        match data_type {
            DataType::Utf8 => Arc::new(values.map(|bytes| bytes.map(String::from_utf8_lossy)).collect::<StringArray>()),
            _ => Arc::new(values.collect::<BinaryArray>()),
        }
    }

    /// Why the record was rejected, and that not all of it is there.
    fn reason(&self, letter: &DeadLetter) -> String {
        let length = letter.raw.as_ref().map_or(0, Vec::len);
        match length > self.raw_bytes_max {
            false => letter.reason.clone(),
            true => format!("{} (raw holds the first {} of {length} bytes)", letter.reason, self.raw_bytes_max),
        }
    }
}

/// What a table declares, in SQL.
fn declared(schema: &Schema) -> String {
    let columns = schema.fields().iter().map(|field| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", field.name(), sql_type_name(field.data_type()))
    });
    columns.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Field, Int64Type, TimeUnit, TimestampMicrosecondType};

    use super::*;

    fn letter(raw: Option<&[u8]>, reason: &str) -> DeadLetter {
        let raw = raw.map(<[u8]>::to_vec);
        DeadLetter { position: 7, line: Some(2), raw, raw_key: None, reason: reason.to_owned() }
    }

    #[test]
    fn columns_are_those_of_the_table_in_its_order_and_types() {
        let source = TableSpec {
            name: "t".to_owned(),
            schema: Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, false),
                Field::new("v", DataType::Utf8, true),
            ])),
            primary_key: vec![],
            partition_keys: vec![],
            options: BTreeMap::new(),
        };
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let fields = [
            ("rejected_at", time),
            ("raw", DataType::Utf8),
            ("position", DataType::Int64),
            ("row_schema", DataType::Utf8),
            ("reason", DataType::Utf8),
        ];
        let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec());
        let format = LetterFormat::new("source t", &source, Arc::new(schema), 3);
        let letters = [letter(Some(b"a\xff"), "wrong"), letter(None, "none"), letter(Some(b"abcd"), "long")];
        let rows = format.rows("f.json", &letters, 5).unwrap();
        assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(2), 5_000);
        let raw: Vec<_> = rows.column(1).as_string::<i32>().iter().collect();
        assert_eq!(raw, [Some("a\u{fffd}"), None, Some("abc")]);
        assert_eq!(rows.column(2).as_primitive::<Int64Type>().value(0), 7);
        assert_eq!(rows.column(3).as_string::<i32>().value(0), "id BIGINT NOT NULL, v STRING");
        let reasons = rows.column(4).as_string::<i32>();
        assert_eq!((reasons.value(0), reasons.len()), ("wrong", 3));
        assert_eq!(reasons.value(2), "long (raw holds the first 3 of 4 bytes)");
    }
}
