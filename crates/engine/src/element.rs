//! What flows between operators.

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::error::ArrowError;
use mainstem_core::protocol::Barrier;
use mainstem_core::watermark::WatermarkStatus;

/// One element of a stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamElement {
    /// Rows.
    Batch(StreamBatch),
    /// News of the event time.
    Watermark(WatermarkStatus),
    /// The end of an epoch; `last` when the stream ends after it.
    Barrier {
        /// The barrier.
        barrier: Barrier,
        /// Whether nothing but the end of the stream follows.
        last: bool,
    },
    /// The end of the stream.
    End,
}

/// Rows, and what lateness needs to know of them.
#[derive(Clone, Debug)]
pub(crate) struct StreamBatch {
    /// The rows.
    pub(crate) rows: RecordBatch,
    /// For each row the watermark (ms) of its own source split just before the row, against which lateness is
    /// judged (I6). Absent where no row of the batch is at or behind it, which is nearly always.
    pub(crate) own_watermark: Option<Int64Array>,
}

impl StreamBatch {
    /// Rows of which none is behind its own split's watermark.
    pub(crate) fn on_time(rows: RecordBatch) -> Self {
        StreamBatch { rows, own_watermark: None }
    }

    /// The rows for which the mask is true.
    pub(crate) fn filter(&self, mask: &BooleanArray) -> Result<StreamBatch, ArrowError> {
        let rows = compute::filter_record_batch(&self.rows, mask)?;
        let own_watermark = self.own_watermark.as_ref().map(|w| compute::filter(w, mask)).transpose()?;
        Ok(StreamBatch { rows, own_watermark: own_watermark.map(|w| Int64Array::from(w.to_data())) })
    }

    /// The rows at the given positions, in that order.
    pub(crate) fn take(&self, positions: &UInt32Array) -> Result<StreamBatch, ArrowError> {
        let rows = compute::take_record_batch(&self.rows, positions)?;
        let own_watermark = self.own_watermark.as_ref().map(|w| compute::take(w, positions, None)).transpose()?;
        Ok(StreamBatch { rows, own_watermark: own_watermark.map(|w| Int64Array::from(w.to_data())) })
    }

    /// The same rows with other columns.
    pub(crate) fn with_rows(&self, rows: RecordBatch) -> StreamBatch {
        StreamBatch { rows, own_watermark: self.own_watermark.clone() }
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
