//! Joins each left row with the version of the right row that was valid at its time.
//!
//! **By event time.** A left row waits until the watermark is at its time: then every version up to it has come. It
//! meets the version with the greatest time at or below its own, or none if that version says that the row was
//! deleted. A left row behind its own split's watermark is late: the version that it needs may be gone or not, as
//! the race between splits has it, so it is dropped and counted (I6). A version that comes behind its own split's
//! watermark counts for left rows after that watermark only, because earlier ones may have been joined already. The rows of one key must come from one split, in which their order is kept.
//!
//! **By processing time.** A left row meets the newest version at once. Which one that is depends on the order in
//! which rows of the two inputs arrive; no replay can promise the same.
//!
//! `-U` says nothing that the `+U` behind it does not say, and is passed over.

mod state;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{JoinKind, TemporalJoin as Spec};

use self::state::Changed;
use self::versions::{KeyBytes, NEWEST, Version, Versions};
use super::pairs::{PairRows, filtered};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::late::LateRows;
use crate::operator::{Capture, Collector, Operator, Release, Restored};
use crate::window::WindowMeta;

/// Left rows that wait, by time.
struct Waiting {
    rows: RecordBatch,
    times: Int64Array,
    /// Rows before it have left.
    from: usize,
    /// Whether a checkpoint holds them.
    captured: bool,
}

/// See the module.
pub(crate) struct TemporalJoin {
    name: String,
    outer: bool,
    times: Option<(usize, usize)>,
    key_columns: [Vec<usize>; 2],
    keys: [KeyBytes; 2],
    pairs: PairRows,
    late: LateRows,
    watermark: i64,
    /// By the time of the next row to leave, and a number that tells them apart.
    waiting: BTreeMap<(i64, u64), Waiting>,
    next_number: u64,
    versions: Versions,
    changed: Changed,
    files: DeltaFiles,
}

impl TemporalJoin {
    /// An operator without rows, whose output has the columns of `output`.
    pub(crate) fn new(
        name: &str,
        spec: &Spec,
        output: SchemaRef,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let outer = match spec.kind {
            JoinKind::Inner => false,
            JoinKind::Left => true,
            other => return Err(EngineError::Bug(format!("'{name}': a temporal join cannot be {other:?}"))),
        };
        let on = &spec.on;
        let failed = |e| EngineError::arrow(name, &e);
        Ok(TemporalJoin {
            name: name.to_owned(),
            outer,
            times: spec.times,
            key_columns: [on.left_keys.clone(), on.right_keys.clone()],
            keys: [
                KeyBytes::new(&on.left_schema, &on.left_keys, &on.null_equal).map_err(failed)?,
                KeyBytes::new(&on.right_schema, &on.right_keys, &on.null_equal).map_err(failed)?,
            ],
            pairs: PairRows::new(name, on, output, context)?,
            late,
            watermark: i64::MIN,
            waiting: BTreeMap::new(),
            next_number: 0,
            versions: Versions::new(on.right_schema.clone()),
            changed: Changed::default(),
            files: DeltaFiles::default(),
        })
    }

    fn take_left(&mut self, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let Some((time, _)) = self.times else {
            let joined = self.joined(&batch, None)?;
            out.main.extend(joined);
            return Ok(());
        };
        let mut rows = batch.rows.clone();
        if let Some(own_watermark) = &batch.own_watermark {
            let times = event_times(&self.name, &rows, time)?;
            let is_late = |row: &u32| times.value(*row as usize) <= own_watermark.value(*row as usize);
            let (late, on_time): (Vec<u32>, Vec<u32>) = (0..rows.num_rows() as u32).partition(is_late);
            self.late.take(&batch, time, own_watermark, &late, out)?;
            rows = self.taken(&rows, on_time)?;
        }
        self.wait(&rows, time, false)
    }

    fn taken(&self, rows: &RecordBatch, positions: Vec<u32>) -> Result<RecordBatch, EngineError> {
        compute::take_record_batch(rows, &UInt32Array::from(positions)).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// Puts left rows by until the watermark is there.
    fn wait(&mut self, rows: &RecordBatch, time: usize, captured: bool) -> Result<(), EngineError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut times = event_times(&self.name, rows, time)?;
        let mut rows = rows.clone();
        if !times.values().is_sorted() {
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.sort_by_key(|row| times.value(*row as usize));
            rows = self.taken(&rows, order)?;
            times = event_times(&self.name, &rows, time)?;
        }
        self.next_number += 1;
        let key = (times.value(0), self.next_number);
        self.waiting.insert(key, Waiting { rows, times, from: 0, captured });
        Ok(())
    }

    fn take_right(&mut self, batch: &StreamBatch) -> Result<(), EngineError> {
        let rows = batch.rows.num_rows();
        let keys = self.keys[1].of(&batch.rows).map_err(|e| EngineError::arrow(&self.name, &e))?;
        let times = match self.times {
            Some((_, time)) => Some(event_times(&self.name, &batch.rows, time)?),
            None => None,
        };
        let kind = |row: usize| batch.changes.as_ref().map_or(ChangeKind::Insert as i8, |changes| changes.value(row));
        let counts = |row: usize| kind(row) != ChangeKind::UpdateBefore as i8 && !keys.is_never_equal(row);
        let positions: Vec<u32> = (0..rows).filter(|row| counts(*row)).map(|row| row as u32).collect();
        if positions.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::with_capacity(positions.len());
        let mut late = 0;
        for row in positions.iter().map(|row| *row as usize) {
            let deleted = kind(row) == ChangeKind::Delete as i8;
            let (time, counts_from) = match &times {
                None => (0, i64::MIN),
                Some(times) => {
                    let own = batch.own_watermark.as_ref().map_or(i64::MIN, |own| own.value(row));
                    late += u64::from(!deleted && own >= times.value(row));
                    (times.value(row), times.value(row).max(own.saturating_add(1)))
                }
            };
            changes.push((row, Version { row: 0, time, counts_from, counts_until: i64::MAX, deleted }));
        }
        self.late.count(late);
        let kept = if positions.len() == rows { batch.rows.clone() } else { self.taken(&batch.rows, positions)? };
        self.add_versions(&kept, &keys, changes, true)
    }

    /// Adds versions, the rows of which are `rows`; each comes with its position among `keys`.
    fn add_versions(
        &mut self,
        rows: &RecordBatch,
        keys: &versions::BatchKeys,
        changes: Vec<(usize, Version)>,
        new: bool,
    ) -> Result<(), EngineError> {
        let first = self.versions.push(rows).map_err(|e| EngineError::arrow(&self.name, &e))?;
        if new {
            let live = self.versions.len();
            self.changed.note(rows, changes.iter().map(|(_, version)| *version), live);
        }
        for (at, (row, version)) in changes.into_iter().enumerate() {
            let version = Version { row: first + at as u32, ..version };
            match self.times {
                Some(_) => self.versions.add(keys.of(row), version),
                None => self.versions.replace(keys.of(row), version),
            }
        }
        self.versions.tidy().map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// Left rows with their versions: those at their times, or the newest.
    fn joined(&self, batch: &StreamBatch, times: Option<&[i64]>) -> Result<Option<StreamBatch>, EngineError> {
        let failed = |e| EngineError::arrow(&self.name, &e);
        let rows = batch.rows.num_rows();
        let keys = self.keys[0].of(&batch.rows).map_err(failed)?;
        let at = |row: usize| times.map_or(NEWEST, |times| times[row]);
        let find = |row: usize| if keys.is_never_equal(row) { None } else { self.versions.at(keys.of(row), at(row)) };
        let mut found: Vec<Option<u32>> = (0..rows).map(find).collect();
        let mut right = self.versions.columns(&found).map_err(failed)?;
        if let Some(holds) = self.pairs.holding(batch.rows.columns(), &right, rows)? {
            found.iter_mut().zip(holds.values()).filter(|(_, holds)| !holds).for_each(|(found, _)| *found = None);
            // Where the condition fails, an outer row has NULLs.
            right = if self.outer { self.versions.columns(&found).map_err(failed)? } else { right };
        }
        let mut left = batch.clone();
        let mask: BooleanArray = found.iter().map(|found| Some(found.is_some())).collect();
        if !self.outer && mask.true_count() < rows {
            left = batch.filter(&mask).map_err(failed)?;
            right = filtered(&self.name, right, &mask)?;
        }
        let rows = left.rows.num_rows();
        if rows == 0 {
            return Ok(None);
        }
        let left_columns: Vec<ArrayRef> = left.rows.columns().to_vec();
        Ok(Some(left.with_rows(self.pairs.pairs(left_columns, right, rows)?)))
    }

    /// Left rows that wait, and versions.
    #[cfg(test)]
    fn kept(&self) -> (usize, usize) {
        (self.waiting.values().map(|waiting| waiting.times.len() - waiting.from).sum(), self.versions.len())
    }
}

impl Operator for TemporalJoin {
    fn state_bytes(&self) -> usize {
        let waiting = self.waiting.values().map(|waiting| crate::memory::of_rows(&waiting.rows)).sum::<usize>();
        waiting + self.versions.bytes() + self.changed.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.times?;
        // Versions that no row needs any more may as well be released later.
        Some(self.waiting.first_key_value().map_or(Timestamp::MAX, |((time, _), _)| Timestamp(*time)))
    }

    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        if input == 0 { self.take_left(batch, out) } else { self.take_right(&batch) }
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        if self.times.is_none() {
            return Ok(Release::Done);
        }
        if let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= self.watermark
        {
            let number = entry.key().1;
            let mut waiting = entry.remove();
            let due = waiting.times.values().partition_point(|time| *time <= self.watermark);
            let rows = waiting.rows.slice(waiting.from, due - waiting.from);
            let times = &waiting.times.values()[waiting.from..due];
            let joined = self.joined(&StreamBatch::on_time(rows), Some(times))?;
            out.main.extend(joined);
            if due < waiting.times.len() {
                waiting.from = due;
                self.waiting.insert((waiting.times.value(due), number), waiting);
            }
            return Ok(Release::Continue);
        }
        self.versions.release(self.watermark);
        self.versions.tidy().map_err(|e| EngineError::arrow(&self.name, &e))?;
        Ok(Release::Done)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.capture_state().map(Some)
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        self.restore_state(state)
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        if self.times.is_some() {
            self.versions.release(self.watermark);
        }
        Ok(())
    }
}
