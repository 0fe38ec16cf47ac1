//! Rows that are to be written, as an operator keeps them: in batches, with the order in which they go into the file.

use std::ops::Range;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::error::ArrowError;

use super::TableDelta;

/// Rows of one table of an operator's state that were added or changed in an epoch, grouped by key group. They stay in the
/// batches in which they are until a block of the file is made of them.
#[derive(Clone, Debug)]
pub struct GroupedTable {
    /// Name of the table, the operator's own.
    pub table: String,
    /// Version of the table's layout, the operator's own.
    pub version: u32,
    /// Positions of the columns that decide a row's key group; none: all rows lie in one, or nobody said so. Told to users;
    /// nothing is decided by it.
    pub key: Vec<usize>,
    /// Key group of each row in the order of the file, ascending.
    pub key_groups: Vec<u16>,
    /// The rows; all batches have one schema.
    pub batches: Vec<RecordBatch>,
    /// Where each row lies, in the order of the file: number of the batch, position in it. None: the rows of the only batch,
    /// as they stand.
    pub places: Option<Vec<(u32, u32)>>,
}

impl From<TableDelta> for GroupedTable {
    fn from(delta: TableDelta) -> Self {
        let TableDelta { table, version, key, key_groups, rows } = delta;
        GroupedTable { table, version, key, key_groups, batches: vec![rows], places: None }
    }
}

impl GroupedTable {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.places {
            Some(places) => places.len(),
            None => self.batches.first().map_or(0, RecordBatch::num_rows),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is wrong with it, where something is.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.key_groups.len() != self.len() || !self.key_groups.is_sorted() {
            return Err("it is not sorted by key group".to_owned());
        }
        if self.places.is_none() && self.batches.len() != 1 {
            return Err("several batches and no order of their rows".to_owned());
        }
        Ok(())
    }

    /// Bytes of the rows, about; batches may hold others.
    pub(super) fn bytes(&self) -> usize {
        let column = |column: &dyn Array| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        };
        let columns = self.batches.iter().flat_map(RecordBatch::columns);
        let bytes: usize = columns.map(|array| column(array.as_ref())).sum();
        let held: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        (bytes as u128 * self.len() as u128 / held.max(1) as u128) as usize
    }

    /// Some rows in the order of the file.
    ///
    /// # Errors
    /// What Arrow says of batches that do not belong together.
    pub fn rows(&self, range: Range<usize>) -> Result<RecordBatch, ArrowError> {
        let Some(places) = &self.places else { return Ok(self.batches[0].slice(range.start, range.len())) };
        let places = &places[range];
        match &self.batches[..] {
            [only] => take_record_batch(only, &UInt32Array::from_iter_values(places.iter().map(|(_, row)| *row))),
            batches => {
                let batches: Vec<&RecordBatch> = batches.iter().collect();
                let places: Vec<_> = places.iter().map(|(batch, row)| (*batch as usize, *row as usize)).collect();
                interleave_record_batch(&batches, &places)
            }
        }
    }
}
