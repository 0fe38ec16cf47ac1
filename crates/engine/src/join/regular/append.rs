//! One side of a join whose rows stay: the batches that brought them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::rings::{NONE, Rings};
use super::table::stored_schema;
use crate::join::kept_rows::KeptRows;

/// See the module. Rows are numbered as they come.
pub(super) struct AppendSide {
    stored_schema: SchemaRef,
    rows: KeptRows,
    pub(super) rings: Rings,
    /// The first row that no checkpoint has.
    unsaved: u32,
}

impl AppendSide {
    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes() + self.rings.bytes()
    }

    /// A side without rows.
    pub(super) fn new(schema: &SchemaRef) -> AppendSide {
        let rows = KeptRows::new(schema.clone());
        AppendSide { stored_schema: stored_schema(schema), rows, rings: Rings::new(false), unsaved: 0 }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len() as usize
    }

    /// Adds rows with these keys.
    pub(super) fn push(&mut self, rows: &RecordBatch, keys: &[u32]) -> Result<(), ArrowError> {
        let first = self.rows.len();
        if rows.num_rows() >= (NONE - first) as usize {
            return Err(ArrowError::MemoryError(
                "one side of the join has more than four billion rows on one subtask; raise the parallelism or set a \
                 time to live"
                    .to_owned(),
            ));
        }
        self.rows.push(rows)?;
        for (row, key) in (first..).zip(keys) {
            self.rings.push(*key, row);
        }
        Ok(())
    }

    /// The columns of rows, in that order; NULLs for [`NONE`].
    pub(super) fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows: Vec<Option<u32>> = rows.iter().map(|row| Some(*row).filter(|row| *row != NONE)).collect();
        self.rows.columns(&rows)
    }

    /// Ends the epoch: all rows if `whole`, else those that have come since the last call, as rows of the state table.
    pub(super) fn capture(&mut self, whole: bool) -> Result<Vec<RecordBatch>, ArrowError> {
        let from = if whole { 0 } else { self.unsaved };
        self.unsaved = self.rows.len();
        let stored = self.rows.since(from).into_iter().map(|rows| {
            let numbers = |number: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![number; rows.num_rows()])) };
            let mut columns = rows.columns().to_vec();
            columns.extend([numbers(1), numbers(0), numbers(0)]);
            RecordBatch::try_new(self.stored_schema.clone(), columns)
        });
        stored.collect()
    }

    /// Takes back rows of the state table, whose keys have these numbers.
    pub(super) fn restore(&mut self, stored: &RecordBatch, keys: &[u32]) -> Result<(), ArrowError> {
        let width = self.stored_schema.fields().len() - 3;
        let rows = stored.project(&(0..width).collect::<Vec<_>>())?;
        self.push(&rows, keys)?;
        self.unsaved = self.rows.len();
        Ok(())
    }
}
