//! Rows that came too late, for every window or for some of what they were for: counted, and those of windows given out as a table
//! where the job wants them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::compute::filter_record_batch;
use arrow::json::LineDelimitedWriter;
use mainstem_plan::operator::LATE_ROW_COLUMNS;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::operator::Collector;

/// Counts the rows that an operator drops.
pub(crate) struct DroppedRows {
    /// Rows that came too late.
    pub(crate) late: LateRows,
    /// Rows that were to be taken away and were not there.
    pub(crate) unmatched: Arc<AtomicU64>,
}

/// Counts late rows and gives them out.
pub(crate) struct LateRows {
    operator: String,
    counter: Arc<AtomicU64>,
    wanted: bool,
}

impl LateRows {
    /// For the named operator; `wanted` when the rows go to a table.
    pub(crate) fn new(operator: &str, counter: Arc<AtomicU64>, wanted: bool) -> Self {
        LateRows { operator: operator.to_owned(), counter, wanted }
    }

    /// So many rows are late and are kept all the same, for what they still count for.
    pub(crate) fn count(&self, rows: u64) {
        self.counter.fetch_add(rows, Ordering::Relaxed);
    }

    /// The rows that neither the watermark (ms) nor that of their own split has passed, with their times (ms); the
    /// others are late.
    pub(crate) fn on_time(
        &self,
        batch: StreamBatch,
        time: usize,
        watermark: i64,
        out: &mut Collector,
    ) -> Result<(RecordBatch, Int64Array), EngineError> {
        let times = event_times(&self.operator, &batch.rows, time)?;
        let own = |row: usize| batch.own_watermark.as_ref().map_or(i64::MIN, |own| own.value(row)).max(watermark);
        let is_late = |row: usize| times.value(row) <= own(row);
        let late: Vec<u32> = (0..times.len()).filter(|row| is_late(*row)).map(|row| row as u32).collect();
        if late.is_empty() {
            return Ok((batch.rows, times));
        }
        let judged = Int64Array::from_iter_values((0..times.len()).map(own));
        self.take(&batch, time, &judged, &late, out)?;
        let kept: BooleanArray = (0..times.len()).map(|row| Some(!is_late(row))).collect();
        let rows = filter_record_batch(&batch.rows, &kept).map_err(|e| EngineError::arrow(&self.operator, &e))?;
        let times = event_times(&self.operator, &rows, time)?;
        Ok((rows, times))
    }

    /// Takes the rows of the batch at the given positions.
    pub(crate) fn take(
        &self,
        batch: &StreamBatch,
        time: usize,
        own_watermark: &Int64Array,
        positions: &[u32],
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        if positions.is_empty() {
            return Ok(());
        }
        self.count(positions.len() as u64);
        if !self.wanted {
            return Ok(());
        }
        let failed = |e| EngineError::arrow(&self.operator, &e);
        let positions = UInt32Array::from(positions.to_vec());
        let late = batch.take(&positions).map_err(failed)?;
        let watermarks = arrow::compute::take(own_watermark, &positions, None).map_err(failed)?;
        let times = event_times(&self.operator, &late.rows, time)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.operator.as_str(); positions.len()])),
            Arc::new(TimestampMillisecondArray::new(times.values().clone(), None)),
            arrow::compute::cast(
                &watermarks,
                &arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None),
            )
            .map_err(failed)?,
            Arc::new(StringArray::from(json_rows(&late.rows).map_err(failed)?)),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            LATE_ROW_COLUMNS.into_iter().zip(columns).map(|(n, c)| (n, c, true)),
        );
        out.late.push(StreamBatch::on_time(rows.map_err(failed)?));
        Ok(())
    }
}

fn json_rows(rows: &RecordBatch) -> Result<Vec<String>, arrow::error::ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(String::from_utf8_lossy(&writer.into_inner()).lines().map(str::to_owned).collect())
}
