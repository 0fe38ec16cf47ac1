//! The table of operators that keep all rows of an input that takes rows away: each row once, with how many equal ones
//! there are.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::operator::TableRows;
use crate::row_codec::{RowBytes, RowCodec};

/// Name and version of the table: the input's columns, how many equal rows there are (Int64; 0: none any more), the
/// time of the epoch in which the partition last changed (Int64, ms).
pub(crate) const TABLE: (&str, u32) = ("all rows", 1);

/// A row to store.
pub(crate) struct CountedRow {
    pub(crate) row: RowBytes,
    /// How many equal ones there are.
    pub(crate) count: u64,
    /// When its partition last changed.
    pub(crate) changed_ms: i64,
}

/// The table of these rows, which have the given schema; `key` is the columns of their partition.
pub(crate) fn table(
    rows: &[CountedRow],
    codec: &RowCodec,
    schema: &Schema,
    key: &[usize],
) -> Result<TableRows, ArrowError> {
    let mut batches = Vec::new();
    if !rows.is_empty() {
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("__count", DataType::Int64, false)));
        fields.push(Arc::new(Field::new("__changed", DataType::Int64, false)));
        let mut columns = codec.decode(rows.iter().map(|row| &row.row))?;
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.count as i64))));
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.changed_ms))));
        batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
    }
    Ok(TableRows { name: TABLE.0, version: TABLE.1, key: key.to_vec(), rows: batches })
}

/// A batch of the table.
pub(crate) struct Stored {
    /// The rows as they came in.
    pub(crate) rows: RecordBatch,
    counts: Int64Array,
    changed: Int64Array,
}

impl Stored {
    /// Reads a batch of rows of the given schema.
    pub(crate) fn new(stored: &RecordBatch, schema: &SchemaRef) -> Result<Stored, ArrowError> {
        let width = schema.fields().len();
        Ok(Stored {
            rows: RecordBatch::try_new(schema.clone(), stored.columns()[..width].to_vec())?,
            counts: stored.column(width).as_primitive::<Int64Type>().clone(),
            changed: stored.column(width + 1).as_primitive::<Int64Type>().clone(),
        })
    }

    /// How many rows are equal to this one.
    pub(crate) fn count(&self, row: usize) -> u64 {
        u64::try_from(self.counts.value(row)).unwrap_or(0)
    }

    /// When the row's partition last changed.
    pub(crate) fn changed_ms(&self, row: usize) -> i64 {
        self.changed.value(row)
    }
}
