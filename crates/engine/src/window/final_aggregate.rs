//! Second step of a windowed aggregation over slices: merges partial aggregates and emits each window once,
//! when the watermark has passed its end. How windows are merged of slices is up to [`SingleSlices`], where each window
//! is one slice, and [`SharedSlices`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::WindowProperty;

use super::aggregation::Aggregation;
use super::partial::SliceKey;
use super::partial_log::{PartialLog, WindowMeta};
use super::shared_slices::SharedSlices;
use super::single_slices::SingleSlices;
use super::slicing::{Slicing, Span};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::keys::typed;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored};

/// Rows of an emitted batch.
pub(super) const EMIT_ROWS_MAX: usize = 8192;

/// What has come for slices, and the windows that it makes.
pub(super) trait Slices: Send {
    /// Adds partial aggregates, which count for a window that is not closed.
    fn add(&mut self, key: SliceKey, partial: Piece) -> Result<(), EngineError>;

    /// All of the state has been taken back; windows are closed up to this watermark.
    fn restored(&mut self, watermark: i64);

    /// Closes one or some of the windows that the watermark has passed and gives their results.
    fn close(&mut self, watermark: i64, out: &mut Collector) -> Result<Release, EngineError>;

    /// All of it as rows of the partial schema, each part with the end of its last window.
    fn whole(&mut self) -> Result<Vec<(RecordBatch, i64)>, EngineError>;

    /// Number of rows that are kept.
    fn rows(&self) -> usize;

    /// Bytes of memory that all of it takes, about.
    fn bytes(&self) -> usize;

    /// The first window that has rows and is not closed.
    fn next_window(&self) -> Option<Span>;
}

/// How results become output rows: results, then properties of the window.
pub(crate) struct WindowOutput {
    /// Columns of the output.
    pub(crate) schema: SchemaRef,
    /// Which properties follow keys and aggregates.
    pub(crate) properties: Vec<WindowProperty>,
}

/// See the module.
pub(crate) struct FinalAggregate {
    aggregation: Arc<Aggregation>,
    slicing: Slicing,
    watermark: i64,
    slices: Box<dyn Slices>,
    log: PartialLog,
}

impl FinalAggregate {
    /// An operator without state.
    pub(crate) fn new(aggregation: Arc<Aggregation>, slicing: Slicing, output: WindowOutput) -> Self {
        let slices: Box<dyn Slices> = match slicing.is_single() {
            true => Box::new(SingleSlices::new(aggregation.clone(), output)),
            false => Box::new(SharedSlices::new(aggregation.clone(), slicing, output)),
        };
        FinalAggregate { aggregation, slicing, watermark: i64::MIN, slices, log: PartialLog::default() }
    }

    /// End of the last window that partial aggregates with this key count for.
    fn last_end(&self, key: SliceKey) -> i64 {
        if key.one_window { key.span.end } else { self.slicing.last_end(key.span) }
    }
}

/// Rows of a batch of partial aggregates, which is shared: to make a batch of each of many short slices would cost more than
/// to merge them.
#[derive(Clone)]
pub(super) struct Piece {
    batch: Arc<RecordBatch>,
    /// Where they begin.
    pub(super) begin: usize,
    pub(super) rows: usize,
    /// Of memory, about.
    pub(super) bytes: usize,
}

impl Piece {
    /// All rows of a batch.
    pub(super) fn whole(batch: RecordBatch) -> Piece {
        Piece { begin: 0, rows: batch.num_rows(), bytes: memory::of_rows(&batch), batch: Arc::new(batch) }
    }

    /// The rows alone.
    pub(super) fn to_batch(&self) -> RecordBatch {
        self.batch.slice(self.begin, self.rows)
    }

    /// The key columns of the rows alone.
    pub(super) fn keys(&self, count: usize) -> Vec<ArrayRef> {
        self.batch.columns()[..count].iter().map(|column| column.slice(self.begin, self.rows)).collect()
    }

    /// The states of all rows of the batch.
    pub(super) fn states(&self, aggregation: &Aggregation) -> &[ArrayRef] {
        aggregation.state_columns(&self.batch)
    }
}

/// The runs of rows that belong to one slice.
fn slice_runs(partial: RecordBatch, key_count: usize) -> Vec<(SliceKey, Piece)> {
    let partial = Arc::new(partial);
    let starts = partial.column(key_count).as_primitive::<Int64Type>();
    let ends = partial.column(key_count + 1).as_primitive::<Int64Type>();
    let one_window = partial.column(key_count + 2).as_boolean();
    let key = |row: usize| SliceKey {
        span: Span { start: starts.value(row), end: ends.value(row) },
        one_window: one_window.value(row),
    };
    // To ask each piece would cost more than to make it.
    let bytes = memory::of_rows(&partial);
    let mut runs = Vec::new();
    let mut begin = 0;
    for row in 1..=partial.num_rows() {
        if row == partial.num_rows() || key(row) != key(begin) {
            let rows = row - begin;
            let bytes = bytes * rows / partial.num_rows();
            runs.push((key(begin), Piece { batch: partial.clone(), begin, rows, bytes }));
            begin = row;
        }
    }
    runs
}

/// Gives out result columns with the properties of their windows: of one window for all rows, or one a row.
pub(crate) fn emit(
    operator: &str,
    output: &WindowOutput,
    mut columns: Vec<ArrayRef>,
    windows: &[Span],
    out: &mut Collector,
) -> Result<(), EngineError> {
    let rows = columns.first().map_or(windows.len(), |c| c.len());
    for property in &output.properties {
        let value = |window: &Span| match property {
            WindowProperty::Start => window.start,
            WindowProperty::End => window.end,
            WindowProperty::Time => window.end - 1,
        };
        let times: Int64Array = match windows {
            [one] => Int64Array::from_value(value(one), rows),
            many => many.iter().map(value).collect::<Vec<_>>().into(),
        };
        columns.push(Arc::new(TimestampMillisecondArray::new(times.values().clone(), None)));
    }
    let columns = columns
        .into_iter()
        .zip(output.schema.fields())
        .map(|(column, field)| typed(&column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| EngineError::arrow(operator, &e))?;
    let batch = RecordBatch::try_new(output.schema.clone(), columns)
        .map_err(|e| EngineError::Bug(format!("{operator}: results: {e}")))?;
    for begin in (0..rows).step_by(EMIT_ROWS_MAX) {
        out.main.push(StreamBatch::on_time(batch.slice(begin, EMIT_ROWS_MAX.min(rows - begin))));
    }
    Ok(())
}

impl Operator for FinalAggregate {
    fn state_bytes(&self) -> usize {
        self.slices.bytes() + self.log.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        Some(self.slices.next_window().map_or(Timestamp::MAX, |window| Timestamp(window.end - 1)))
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, _out: &mut Collector) -> Result<(), EngineError> {
        let mut last_end = i64::MIN;
        for (key, partial) in slice_runs(batch.rows.clone(), self.aggregation.key_count()) {
            // Lateness is judged at the source, against a watermark that is never behind this one.
            if key.span.is_closed_at(self.watermark) {
                let Span { start, end } = key.span;
                let (name, watermark) = (&self.aggregation.name, self.watermark);
                return Err(EngineError::Bug(format!(
                    "{name}: rows for {start}..{end} came after watermark {watermark}"
                )));
            }
            self.slices.add(key, partial)?;
            last_end = last_end.max(self.last_end(key));
        }
        self.log.append(&batch.rows, last_end);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        self.slices.close(self.watermark, out)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let watermark = self.watermark;
        // A file that held nothing of this subtask's key groups is of no window: its end is the least there is.
        self.log.forget_closed(|end| end.saturating_sub(1) <= watermark);
        let whole = if self.log.wants_whole_state() { Some(self.slices.whole()?) } else { None };
        let live_rows = self.slices.rows() as u64;
        Ok(Some(self.log.capture(whole, self.aggregation.key_count(), &WindowMeta { watermark }, live_rows)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut last_end = i64::MIN;
        for rows in PartialLog::restored_rows(&state) {
            for (key, partial) in slice_runs(rows?, self.aggregation.key_count()) {
                let end = self.last_end(key);
                if end - 1 > self.watermark {
                    self.slices.add(key, partial)?;
                    last_end = last_end.max(end);
                }
            }
        }
        self.log.restored(state.handle, last_end);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.slices.restored(self.watermark);
        Ok(())
    }
}
