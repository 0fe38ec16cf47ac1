//! Rows that are kept: numbered from 0 in the order in which they came, held as the Arrow batches that brought
//! them. Small batches are put together, so that a slow stream does not leave thousands of them.

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::memory;

/// Batches of fewer rows are put together with their neighbours.
const CHUNK_ROWS: usize = 8192;

/// See the module.
pub(crate) struct KeptRows {
    schema: SchemaRef,
    chunks: Vec<RecordBatch>,
    /// The number of the first row of each chunk.
    starts: Vec<u32>,
    len: u32,
    /// What the rows take.
    bytes: usize,
}

impl KeptRows {
    /// Bytes of memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + memory::of_vec(&self.chunks)
    }

    /// No rows.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        KeptRows { schema, chunks: Vec::new(), starts: Vec::new(), len: 0, bytes: 0 }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The batches that hold the rows.
    pub(crate) fn chunks(&self) -> &[RecordBatch] {
        &self.chunks
    }

    /// Adds rows; they get the next numbers.
    pub(crate) fn push(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut last = rows.clone();
        let mut start = self.len;
        self.len += u32::try_from(rows.num_rows()).expect("a batch has few rows");
        // Each row is copied only when its chunk at least half doubles: a logarithm of times.
        while let Some(before) = self.chunks.last()
            && before.num_rows() < CHUNK_ROWS
            && before.num_rows() <= last.num_rows() * 2
        {
            last = compute::concat_batches(&self.schema, [before, &last])?;
            self.bytes -= memory::of_rows(before);
            self.chunks.pop();
            start = self.starts.pop().expect("one for each chunk");
        }
        self.bytes += memory::of_rows(&last);
        self.chunks.push(last);
        self.starts.push(start);
        Ok(())
    }

    /// Which chunk holds the row, and where in it.
    pub(crate) fn locate(&self, row: u32) -> (usize, usize) {
        let chunk = match self.starts.last() {
            // Most questions are for new rows.
            Some(start) if row >= *start => self.starts.len() - 1,
            _ => self.starts.partition_point(|start| *start <= row) - 1,
        };
        (chunk, (row - self.starts[chunk]) as usize)
    }

    /// The rows from a number on.
    pub(crate) fn since(&self, from: u32) -> Vec<RecordBatch> {
        let chunks = self.chunks.iter().zip(&self.starts);
        chunks
            .filter(|(chunk, start)| *start + chunk.num_rows() as u32 > from)
            .map(|(chunk, start)| {
                let skip = from.saturating_sub(*start) as usize;
                chunk.slice(skip, chunk.num_rows() - skip)
            })
            .collect()
    }

    /// The columns of the rows with these numbers, in that order; NULLs for none.
    pub(crate) fn columns(&self, rows: &[Option<u32>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let nowhere = (self.chunks.len(), 0);
        let places: Vec<(usize, usize)> = rows.iter().map(|row| row.map_or(nowhere, |row| self.locate(row))).collect();
        let with_null = places.contains(&nowhere);
        gather(&self.schema, self.chunks.iter(), &places, with_null)
    }
}

/// The columns of the rows at (batch, row). A row of NULLs follows the last batch if `with_null`.
pub(crate) fn gather<'a>(
    schema: &SchemaRef,
    batches: impl Iterator<Item = &'a RecordBatch> + Clone,
    places: &[(usize, usize)],
    with_null: bool,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let column = |(column, field): (usize, &arrow::datatypes::FieldRef)| {
        let null = with_null.then(|| new_null_array(field.data_type(), 1));
        let arrays = batches.clone().map(|batch| batch.column(column).as_ref()).chain(null.as_deref());
        let arrays: Vec<&dyn Array> = arrays.collect();
        match places {
            [] => Ok(arrow::array::new_empty_array(field.data_type())),
            _ => compute::interleave(&arrays, places),
        }
    };
    schema.fields().iter().enumerate().map(column).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn rows_keep_their_numbers_however_they_came() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let mut store = KeptRows::new(schema.clone());
        let mut next = 0_i64;
        for size in (0..400).map(|i: i64| (i * 7919) % 97) {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(next..next + size));
            store.push(&RecordBatch::try_new(schema.clone(), vec![column]).unwrap()).unwrap();
            next += size;
        }
        assert_eq!(i64::from(store.len()), next);
        assert!(store.chunks().len() < 20, "{} chunks", store.chunks().len());
        let asked: Vec<Option<u32>> = (0..next).rev().step_by(3).map(|n| (n % 5 != 0).then_some(n as u32)).collect();
        let columns = store.columns(&asked).unwrap();
        let found: Vec<Option<u32>> =
            columns[0].as_primitive::<Int64Type>().iter().map(|n| n.map(|n| n as u32)).collect();
        assert_eq!(found, asked);
        let since: Vec<i64> = store
            .since(5000)
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(since, (5000..next).collect::<Vec<_>>());
    }
}
