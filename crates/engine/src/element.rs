//! What flows between operators.

use arrow::array::{Array, AsArray, BooleanArray, Int8Array, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Int8Type, Int64Type};
use arrow::error::ArrowError;
use mainstem_core::alignment::BarrierMark;
use mainstem_core::change::ChangeKind;
use mainstem_core::latency::LatencyMarker;
use mainstem_core::time::Timestamp;

/// One element of a stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamElement {
    /// Rows.
    Batch(StreamBatch),
    /// No row with an event time at or below it is still to come, except late ones.
    Watermark(Timestamp),
    /// See [`LatencyMarker`]. It is no row: nothing of it is stored, counted or aligned.
    Marker(Box<LatencyMarker>),
    /// The end of an epoch.
    Barrier(BarrierMark),
    /// The end of the stream.
    End,
}

/// Rows, what they do to the table that the stream describes, and what lateness needs to know of them.
#[derive(Clone, Debug)]
pub(crate) struct StreamBatch {
    /// The rows.
    pub(crate) rows: RecordBatch,
    /// For each row the watermark (ms) of its own source split just before the row, against which lateness is
    /// judged (I6). Absent where no row of the batch is at or behind it, which is nearly always.
    pub(crate) own_watermark: Option<Int64Array>,
    /// For each row its [`ChangeKind`], without nulls. Absent: all rows are inserts.
    pub(crate) changes: Option<Int8Array>,
}

impl StreamBatch {
    /// Inserts of which none is behind its own split's watermark.
    pub(crate) fn on_time(rows: RecordBatch) -> Self {
        StreamBatch { rows, own_watermark: None, changes: None }
    }

    /// Changes, with one kind for each row.
    pub(crate) fn changelog(rows: RecordBatch, changes: Int8Array) -> Self {
        debug_assert_eq!(rows.num_rows(), changes.len());
        let only_inserts = changes.values().iter().all(|kind| *kind == ChangeKind::Insert as i8);
        StreamBatch { rows, own_watermark: None, changes: (!only_inserts).then_some(changes) }
    }

    /// Whether the row adds to the table; otherwise it takes away.
    pub(crate) fn is_addition(&self, row: usize) -> bool {
        let Some(changes) = &self.changes else { return true };
        let kind = changes.value(row);
        kind == ChangeKind::Insert as i8 || kind == ChangeKind::UpdateAfter as i8
    }

    /// The rows for which the mask is true.
    pub(crate) fn filter(&self, mask: &BooleanArray) -> Result<StreamBatch, ArrowError> {
        let rows = compute::filter_record_batch(&self.rows, mask)?;
        self.beside(rows, |column| compute::filter(column, mask))
    }

    /// The rows at the given positions, in that order.
    pub(crate) fn take(&self, positions: &UInt32Array) -> Result<StreamBatch, ArrowError> {
        let rows = match self.rows.num_columns() {
            // Where only the number of rows counts, they have no columns, which `take` does not know.
            0 => {
                let count = RecordBatchOptions::new().with_row_count(Some(positions.len()));
                RecordBatch::try_new_with_options(self.rows.schema(), vec![], &count)?
            }
            _ => compute::take_record_batch(&self.rows, positions)?,
        };
        self.beside(rows, |column| compute::take(column, positions, None))
    }

    /// `rows` with what `pick` makes of the columns beside the rows.
    fn beside(
        &self,
        rows: RecordBatch,
        pick: impl Fn(&dyn Array) -> Result<arrow::array::ArrayRef, ArrowError>,
    ) -> Result<StreamBatch, ArrowError> {
        let own_watermark = self.own_watermark.as_ref().map(|w| pick(w)).transpose()?;
        let changes = self.changes.as_ref().map(|c| pick(c)).transpose()?;
        Ok(StreamBatch {
            rows,
            own_watermark: own_watermark.map(|w| w.as_primitive::<Int64Type>().clone()),
            changes: changes.map(|c| c.as_primitive::<Int8Type>().clone()),
        })
    }

    /// Some of the rows in a row, without copying them.
    pub(crate) fn slice(&self, from: usize, rows: usize) -> StreamBatch {
        StreamBatch {
            rows: self.rows.slice(from, rows),
            own_watermark: self.own_watermark.as_ref().map(|column| column.slice(from, rows)),
            changes: self.changes.as_ref().map(|column| column.slice(from, rows)),
        }
    }

    /// The same rows with other columns.
    pub(crate) fn with_rows(&self, rows: RecordBatch) -> StreamBatch {
        StreamBatch { rows, own_watermark: self.own_watermark.clone(), changes: self.changes.clone() }
    }

    /// Bytes that the rows take, for credit. Slices count what they show, not what they share.
    pub(crate) fn size_bytes(&self) -> usize {
        self.rows
            .columns()
            .iter()
            .map(|c| c.to_data().get_slice_memory_size().unwrap_or(c.get_array_memory_size()))
            .sum()
    }
}
