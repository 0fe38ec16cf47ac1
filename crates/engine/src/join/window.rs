//! Joins rows of the same window. The rows of a window wait until the watermark passes its end; then they are joined
//! and forgotten. A row whose window its own split's watermark had closed is late: dropped and counted, whatever
//! the other splits have done by then (I6).

mod closing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{JoinKind, WindowJoin as Spec};

use self::closing::{Closing, Joiner};
use super::kept_rows::KeptRows;
use super::key_index::KeyFormat;
use super::pairs::PairRows;
use super::row_room::RowRoom;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::late::LateRows;
use crate::operator::{Capture, Collector, Operator, Release, Restored, TableRows};
use crate::window::WindowMeta;

/// Names of the tables of left and right rows; their columns are those of the inputs.
const TABLES: [&str; 2] = ["left", "right"];
const VERSION: u32 = 1;

/// The rows of a window.
struct Window {
    sides: [KeptRows; 2],
    /// Rows of lower number are in a checkpoint.
    captured: [u32; 2],
}

/// See the module.
pub(crate) struct WindowJoin {
    ends: [usize; 2],
    schemas: [SchemaRef; 2],
    key_columns: [Vec<usize>; 2],
    joiner: Joiner,
    late: LateRows,
    watermark: i64,
    /// Windows that are not closed, by end.
    windows: BTreeMap<i64, Window>,
    /// The window that is being given out.
    closing: Option<Closing>,
    files: DeltaFiles,
}

/// Whether no row of a window with that end is still to come.
fn is_closed(end: i64, watermark: i64) -> bool {
    end.saturating_sub(1) <= watermark
}

impl WindowJoin {
    /// An operator without rows, whose output has the columns of `output`.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        output: SchemaRef,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        if spec.kind == (JoinKind::Anti { null_aware: true }) {
            return Err(EngineError::Bug(format!("'{name}': NOT IN has no window join")));
        }
        // All rows of a window have the same end.
        let keys = KeyFormat::of_pairs(name, &spec.on, &|pair| pair != (spec.left_end, spec.right_end))?;
        let pairs = PairRows::new(name, &spec.on, output, context)?;
        let room = RowRoom::new(name, size_of::<(u32, u32)>(), context);
        Ok(WindowJoin {
            ends: [spec.left_end, spec.right_end],
            schemas: [spec.on.left_schema.clone(), spec.on.right_schema.clone()],
            key_columns: [spec.on.left_keys.clone(), spec.on.right_keys.clone()],
            joiner: Joiner { name: name.to_owned(), kind: spec.kind, keys, pairs, room },
            late,
            watermark: i64::MIN,
            windows: BTreeMap::new(),
            closing: None,
            files: DeltaFiles::default(),
        })
    }

    fn window(&mut self, end: i64) -> &mut Window {
        let schemas = &self.schemas;
        self.windows.entry(end).or_insert_with(|| Window {
            sides: [KeptRows::new(schemas[0].clone()), KeptRows::new(schemas[1].clone())],
            captured: [0, 0],
        })
    }

    /// Adds rows to their windows. Gives the number of those whose windows are closed.
    fn add(&mut self, side: usize, rows: &RecordBatch) -> Result<u64, EngineError> {
        let name = self.joiner.name.clone();
        let failed = |e| EngineError::arrow(&name, &e);
        let ends = event_times(&name, rows, self.ends[side])?;
        let mut by_end = BTreeMap::<i64, Vec<u32>>::new();
        for run in (0..rows.num_rows() as u32)
            .collect::<Vec<_>>()
            .chunk_by(|a, b| ends.value(*a as usize) == ends.value(*b as usize))
        {
            by_end.entry(ends.value(run[0] as usize)).or_default().extend_from_slice(run);
        }
        let mut closed = 0;
        for (end, positions) in by_end {
            if is_closed(end, self.watermark) {
                closed += positions.len() as u64;
            } else if positions.len() == rows.num_rows() {
                self.window(end).sides[side].push(rows).map_err(failed)?;
            } else {
                let of_window = compute::take_record_batch(rows, &UInt32Array::from(positions)).map_err(failed)?;
                self.window(end).sides[side].push(&of_window).map_err(failed)?;
            }
        }
        Ok(closed)
    }

    #[cfg(test)]
    pub(super) fn kept_rows(&self) -> usize {
        self.windows.values().flat_map(|window| &window.sides).map(|side| side.len() as usize).sum()
    }
}

impl Operator for WindowJoin {
    fn state_bytes(&self) -> usize {
        self.windows.values().flat_map(|window| &window.sides).map(KeptRows::bytes).sum()
    }

    fn next_due(&self) -> Option<Timestamp> {
        Some(self.windows.first_key_value().map_or(Timestamp::MAX, |(end, _)| Timestamp(end - 1)))
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let name = &self.joiner.name;
        let mut rows = batch.rows.clone();
        if let Some(own_watermark) = &batch.own_watermark {
            let ends = event_times(name, &rows, self.ends[input])?;
            let is_late = |row: &u32| is_closed(ends.value(*row as usize), own_watermark.value(*row as usize));
            let (late, on_time): (Vec<u32>, Vec<u32>) = (0..rows.num_rows() as u32).partition(is_late);
            self.late.take(&batch, self.ends[input], own_watermark, &late, out)?;
            rows = compute::take_record_batch(&rows, &UInt32Array::from(on_time))
                .map_err(|e| EngineError::arrow(name, &e))?;
        }
        // Lateness is judged at the source, against a watermark that is never behind this one.
        match self.add(input, &rows)? {
            0 => Ok(()),
            closed => {
                let (name, watermark) = (&self.joiner.name, self.watermark);
                Err(EngineError::Bug(format!("{name}: {closed} rows came after watermark {watermark}, their end")))
            }
        }
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        if self.closing.is_none()
            && let Some(first) = self.windows.first_entry()
            && is_closed(*first.key(), self.watermark)
        {
            self.closing = Some(self.joiner.close(first.remove().sides)?);
        }
        let Some(closing) = &mut self.closing else { return Ok(Release::Done) };
        if self.joiner.step(closing, out)? {
            self.closing = None;
        }
        Ok(Release::Continue)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        assert!(self.closing.is_none(), "a watermark is dealt with before a barrier");
        self.files.forget_released(self.watermark);
        let live = self.windows.values().flat_map(|window| &window.sides).map(|side| side.len() as usize).sum();
        let whole = self.files.wants_whole_state(live);
        let mut rows = [Vec::new(), Vec::new()];
        for window in self.windows.values_mut() {
            for (side, rows) in rows.iter_mut().enumerate() {
                rows.extend(window.sides[side].since(if whole { 0 } else { window.captured[side] }));
                window.captured[side] = window.sides[side].len();
            }
        }
        let needed_until = self.windows.last_key_value().map_or(i64::MIN, |(end, _)| end - 1);
        let keys = self.key_columns.iter().cloned();
        let tables = TABLES.into_iter().zip(keys).zip(rows);
        let tables = tables.map(|((name, key), rows)| TableRows { name, version: VERSION, key, rows }).collect();
        let meta = serde_json::to_string(&WindowMeta { watermark: self.watermark }).expect("a number");
        Ok(Some(self.files.capture_until(whole, tables, meta, needed_until)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        let mut needed_until = i64::MIN;
        for (side, name) in TABLES.into_iter().enumerate() {
            for rows in state.rows(name, VERSION) {
                let rows = rows?;
                count += rows.num_rows();
                let ends = event_times(&self.joiner.name, &rows, self.ends[side])?;
                needed_until = needed_until.max(ends.values().iter().copied().max().map_or(i64::MIN, |end| end - 1));
                // Those whose windows are closed have been given out before the checkpoint.
                self.add(side, &rows)?;
            }
        }
        self.files.restored_until(state.handle, count, needed_until);
        for window in self.windows.values_mut() {
            window.captured = [window.sides[0].len(), window.sides[1].len()];
        }
        Ok(())
    }
}
