//! Second step of a windowed aggregation over slices: merges partial aggregates and emits each window once,
//! when the watermark has passed its end.
//!
//! A slice that is needed by several windows is sealed when the first of them closes: from then on no row can
//! come for it (later rows are late for that window and travel for single windows), so that its state can be
//! merged into each of its windows without being kept as accumulators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::WindowProperty;

use super::aggregation::{Aggregation, Groups};
use super::partial::{SliceKey, partial_batch};
use super::partial_log::{PartialLog, WindowMeta};
use super::slicing::{Slicing, Span};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, Release, Restored};

/// Rows of an emitted batch.
const EMIT_ROWS_MAX: usize = 8192;

/// What has come for a slice.
enum Slice {
    /// Still collecting.
    Open(Groups),
    /// As rows of the partial schema.
    Sealed(Vec<RecordBatch>),
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
    output: WindowOutput,
    watermark: i64,
    slices: BTreeMap<SliceKey, Slice>,
    /// Windows that have rows and are not closed, by end.
    windows: BTreeSet<Span>,
    log: PartialLog,
}

impl FinalAggregate {
    /// An operator without state.
    pub(crate) fn new(aggregation: Arc<Aggregation>, slicing: Slicing, output: WindowOutput) -> Self {
        FinalAggregate {
            aggregation,
            slicing,
            output,
            watermark: i64::MIN,
            slices: BTreeMap::new(),
            windows: BTreeSet::new(),
            log: PartialLog::default(),
        }
    }

    /// End of the last window that partial aggregates with this key count for.
    fn last_end(&self, key: SliceKey) -> i64 {
        if key.one_window { key.span.end } else { self.slicing.last_end(key.span) }
    }

    /// Adds partial aggregates of one slice, unless all of its windows are closed.
    fn add(&mut self, key: SliceKey, partial: &RecordBatch) -> Result<(), EngineError> {
        if self.last_end(key) - 1 <= self.watermark {
            return Ok(());
        }
        if !self.slices.contains_key(&key) {
            self.slices.insert(key, Slice::Open(self.aggregation.groups()?));
            if key.one_window {
                self.windows.insert(key.span);
            } else {
                let watermark = self.watermark;
                self.windows.extend(self.slicing.windows_of(key.span).filter(|w| !w.is_closed_at(watermark)));
            }
        }
        match self.slices.get_mut(&key).expect("inserted above") {
            Slice::Open(groups) => groups.merge(&self.aggregation, partial)?,
            Slice::Sealed(parts) => parts.push(partial.clone()),
        }
        Ok(())
    }

    /// Closes a window: merges its slices and emits the results.
    fn close(&mut self, window: Span, out: &mut Collector) -> Result<(), EngineError> {
        let in_window = |key: &SliceKey| {
            if key.one_window {
                key.span == window
            } else {
                key.span.start >= window.start && key.span.end <= window.end
            }
        };
        let keys: Vec<SliceKey> = self.slices_between(window).filter(in_window).collect();
        let groups = match keys.as_slice() {
            // The usual case, tumbling windows: nothing to merge, nothing to keep.
            [only] if self.last_end(*only) == window.end => match self.slices.remove(only) {
                Some(Slice::Open(groups)) => groups,
                Some(Slice::Sealed(parts)) => self.merged(&parts)?,
                None => return Ok(()),
            },
            many => {
                let mut parts = Vec::new();
                for key in many {
                    parts.extend_from_slice(self.seal(*key)?);
                }
                let merged = self.merged(&parts)?;
                self.slices.retain(|key, _| {
                    let last_end = if key.one_window { key.span.end } else { self.slicing.last_end(key.span) };
                    last_end > window.end
                });
                merged
            }
        };
        let (mut columns, results) = groups.into_results(&self.aggregation)?;
        columns.extend(results);
        emit(&self.aggregation.name, &self.output, columns, &[window], out)
    }

    /// Slices that end within a window.
    fn slices_between(&self, window: Span) -> impl Iterator<Item = SliceKey> + '_ {
        let from = SliceKey { span: Span { end: window.start, start: i64::MIN }, one_window: false };
        let to = SliceKey { span: Span { end: window.end, start: i64::MAX }, one_window: true };
        self.slices.range(from..=to).map(|(key, _)| *key)
    }

    fn merged(&self, parts: &[RecordBatch]) -> Result<Groups, EngineError> {
        let mut groups = self.aggregation.groups()?;
        for part in parts {
            groups.merge(&self.aggregation, part)?;
        }
        Ok(groups)
    }

    fn seal(&mut self, key: SliceKey) -> Result<&[RecordBatch], EngineError> {
        let slice = self.slices.get_mut(&key).expect("the caller has listed it");
        if let Slice::Open(_) = slice {
            let Slice::Open(groups) = std::mem::replace(slice, Slice::Sealed(Vec::new())) else { unreachable!() };
            *slice = Slice::Sealed(vec![partial_batch(&self.aggregation, key, groups)?]);
        }
        match slice {
            Slice::Sealed(parts) => Ok(parts),
            Slice::Open(_) => unreachable!("sealed above"),
        }
    }

    /// All of the state as rows, each part with the end of its last window.
    fn whole_state(&mut self) -> Result<Vec<(RecordBatch, i64)>, EngineError> {
        let keys: Vec<SliceKey> = self.slices.keys().copied().collect();
        let mut whole = Vec::with_capacity(keys.len());
        for key in keys {
            let last_end = self.last_end(key);
            let was_open = matches!(self.slices[&key], Slice::Open(_));
            let parts = self.seal(key)?.to_vec();
            if was_open {
                let groups = self.merged(&parts)?;
                self.slices.insert(key, Slice::Open(groups));
            }
            whole.extend(parts.into_iter().map(|part| (part, last_end)));
        }
        Ok(whole)
    }
}

/// The runs of rows that belong to one slice.
pub(crate) fn slice_runs(partial: &RecordBatch, key_count: usize) -> Vec<(SliceKey, RecordBatch)> {
    let starts = partial.column(key_count).as_primitive::<Int64Type>();
    let ends = partial.column(key_count + 1).as_primitive::<Int64Type>();
    let one_window = partial.column(key_count + 2).as_boolean();
    let key = |row: usize| SliceKey {
        span: Span { start: starts.value(row), end: ends.value(row) },
        one_window: one_window.value(row),
    };
    let mut runs = Vec::new();
    let mut begin = 0;
    for row in 1..=partial.num_rows() {
        if row == partial.num_rows() || key(row) != key(begin) {
            runs.push((key(begin), partial.slice(begin, row - begin)));
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
        .map(|(column, field)| arrow::compute::cast(&column, field.data_type()))
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
    fn process(&mut self, _input: usize, batch: StreamBatch, _out: &mut Collector) -> Result<(), EngineError> {
        for (key, partial) in slice_runs(&batch.rows, self.aggregation.key_count()) {
            // Lateness is judged at the source, against a watermark that is never behind this one.
            if key.span.is_closed_at(self.watermark) {
                let Span { start, end } = key.span;
                let (name, watermark) = (&self.aggregation.name, self.watermark);
                return Err(EngineError::Bug(format!(
                    "{name}: rows for {start}..{end} came after watermark {watermark}"
                )));
            }
            self.add(key, &partial)?;
            self.log.append(&partial, self.last_end(key));
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        match self.windows.first().copied() {
            Some(window) if window.is_closed_at(self.watermark) => {
                self.windows.pop_first();
                self.close(window, out)?;
                Ok(Release::Continue)
            }
            _ => Ok(Release::Done),
        }
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let watermark = self.watermark;
        // A file that held nothing of this subtask's key groups is of no window: its end is the least there is.
        self.log.forget_closed(|end| end.saturating_sub(1) <= watermark);
        let whole = if self.log.wants_whole_state() { Some(self.whole_state()?) } else { None };
        let live_rows = self.slices.values().map(|slice| match slice {
            Slice::Open(groups) => groups.len(),
            Slice::Sealed(parts) => parts.iter().map(RecordBatch::num_rows).sum(),
        });
        let live_rows = live_rows.sum::<usize>() as u64;
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
                self.add(key, &partial)?;
                last_end = last_end.max(self.last_end(key));
            }
        }
        self.log.restored(state.handle, last_end);
        Ok(())
    }
}
