//! Checkpoints of a temporal join: left rows that came in the epoch and wait still, and versions in the order in
//! which they came. Versions that are released need no word: the watermark says so at a restore.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;

use super::TemporalJoin;
use super::versions::Version;
use crate::delta_files::NEEDED_FOR_EVER;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::memory;
use crate::operator::{Capture, Restored, TableRows};
use crate::window::WindowMeta;

/// The table of left rows, with the columns of the left input.
const LEFT: (&str, u32) = ("left", 1);
/// The table of versions: columns of the right input, from which time the version is valid, from which and until
/// which it counts (Int64, ms), whether it is a deletion (Boolean).
const RIGHT: (&str, u32) = ("right", 1);
/// Versions of an epoch that are noted, beside twice as many as there are; beyond it the next checkpoint holds all.
const NOTED_MIN: usize = 1 << 16;

/// Versions that came since the last checkpoint.
#[derive(Default)]
pub(super) struct Changed {
    parts: Vec<(RecordBatch, Vec<Version>)>,
    rows: usize,
    overflowed: bool,
}

impl Changed {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let of_part = |(rows, versions): &(RecordBatch, Vec<Version>)| memory::of_rows(rows) + memory::of_vec(versions);
        self.parts.iter().map(of_part).sum()
    }

    /// Notes versions with their rows; `live`: how many versions there are.
    pub(super) fn note(&mut self, rows: &RecordBatch, versions: impl Iterator<Item = Version>, live: usize) {
        if self.overflowed {
            return;
        }
        self.rows += rows.num_rows();
        self.parts.push((rows.clone(), versions.collect()));
        if self.rows > NOTED_MIN.max(live.saturating_mul(2)) {
            *self = Changed { overflowed: true, ..Changed::default() };
        }
    }
}

impl TemporalJoin {
    pub(super) fn capture_state(&mut self) -> Result<Capture, EngineError> {
        let failed = |e| EngineError::arrow(&self.name, &e);
        self.files.forget_released(self.watermark);
        let waiting: usize = self.waiting.values().map(|waiting| waiting.times.len() - waiting.from).sum();
        let changed = std::mem::take(&mut self.changed);
        let whole = self.files.wants_whole_state(self.versions.len() + waiting) || changed.overflowed;
        let parts = if whole { vec![self.versions.all().map_err(failed)?] } else { changed.parts };
        let right: Vec<RecordBatch> =
            parts.iter().map(|(rows, versions)| stored(rows, versions)).collect::<Result<_, _>>().map_err(failed)?;
        let mut needed_until = i64::MIN;
        let mut left = Vec::new();
        for waiting in self.waiting.values_mut().filter(|waiting| whole || !waiting.captured) {
            waiting.captured = true;
            left.push(waiting.rows.slice(waiting.from, waiting.times.len() - waiting.from));
            needed_until = needed_until.max(waiting.times.value(waiting.times.len() - 1));
        }
        if right.iter().any(|rows| rows.num_rows() > 0) {
            needed_until = NEEDED_FOR_EVER;
        }
        let [left_key, right_key] = self.key_columns.clone();
        let tables = vec![
            TableRows { name: LEFT.0, version: LEFT.1, key: left_key, rows: left },
            TableRows { name: RIGHT.0, version: RIGHT.1, key: right_key, rows: right },
        ];
        let meta = serde_json::to_string(&WindowMeta { watermark: self.watermark }).expect("a number");
        Ok(self.files.capture_until(whole, tables, meta, needed_until))
    }

    pub(super) fn restore_state(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        let mut needed_until = i64::MIN;
        if let Some((time, _)) = self.times {
            for rows in state.rows(LEFT.0, LEFT.1) {
                let rows = rows?;
                count += rows.num_rows();
                let times = event_times(&self.name, &rows, time)?;
                let of_rows = times.values().iter().copied();
                needed_until = needed_until.max(of_rows.clone().max().unwrap_or(i64::MIN));
                let waits = (0..).zip(of_rows).filter(|(_, time)| *time > self.watermark).map(|(row, _)| row).collect();
                let rows = self.taken(&rows, waits)?;
                self.wait(&rows, time, true)?;
            }
        }
        for rows in state.rows(RIGHT.0, RIGHT.1) {
            let rows = rows?;
            count += rows.num_rows();
            needed_until = NEEDED_FOR_EVER;
            let width = rows.num_columns() - 4;
            let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>();
            let (times, counts_from, counts_until) = (numbers(width), numbers(width + 1), numbers(width + 2));
            let deleted = rows.column(width + 3).as_boolean();
            let version = |row: usize| Version {
                row: 0,
                time: times.value(row),
                counts_from: counts_from.value(row),
                counts_until: counts_until.value(row),
                deleted: deleted.value(row),
            };
            let changes = (0..rows.num_rows()).map(|row| (row, version(row))).collect();
            let failed = |e: ArrowError| EngineError::arrow(&self.name, &e);
            let right = rows.project(&(0..width).collect::<Vec<_>>()).map_err(failed)?;
            let keys = self.keys[1].of(&right).map_err(failed)?;
            self.add_versions(&right, &keys, changes, false)?;
        }
        self.files.restored_until(state.handle, count, needed_until);
        Ok(())
    }
}

fn stored(rows: &RecordBatch, versions: &[Version]) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<_> = rows.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("__time", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("__counts_from", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("__counts_until", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("__deleted", DataType::Boolean, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| version.time))));
    columns.push(Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| version.counts_from))));
    columns.push(Arc::new(Int64Array::from_iter_values(versions.iter().map(|version| version.counts_until))));
    columns.push(Arc::new(BooleanArray::from_iter(versions.iter().map(|version| Some(version.deleted)))));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
