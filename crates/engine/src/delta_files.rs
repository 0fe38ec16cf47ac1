//! How state that is a table becomes durable: each checkpoint writes the rows that have changed, as one file,
//! and a restore applies the files again, oldest first, later rows replacing earlier ones of the same key.
//! Files that have become many, or hold much more than what is alive, are merged beside processing where the operator
//! has said how its rows replace each other ([`crate::merging`]); otherwise the whole state is written and replaces them.
//! A file whose rows have all been released, because time has passed them, is forgotten.
//! Which rows have changed, and how a row says that its key is gone, is the operator's own business.
//!
//! Which files are merged when is that of log-structured merge trees with tiers of a fixed fan-out (O'Neil et al., "The
//! Log-Structured Merge-Tree", 1996): each row is written again once for each power of the fan-out.

use std::sync::{Arc, OnceLock};

use mainstem_core::protocol::StateHandle;

use crate::merging::{MergeOrder, MergeRule, Merged};
use crate::operator::{Capture, PendingHandle, TableRows, written};

/// Files of about the same size that become one.
const FAN_IN: usize = 8;
/// Runs that a restore may have to apply; beyond it the whole state is written.
const RUNS_MAX: usize = 32;
/// Up to so many fewer, by the number of rows: parts of a state, and subtasks, would write all of it in the same epoch otherwise.
const RUNS_SPREAD: usize = 8;
/// The files may hold so many times the rows that are alive.
const ROWS_PER_LIVE_ROW_MAX: usize = 2;
/// The same two while files are being merged: what comes meanwhile waits for the next merge.
const RUNS_MAX_MERGING: usize = 256;
const ROWS_PER_LIVE_ROW_MAX_MERGING: usize = 6;
/// Below so many rows nothing is gained by fewer of them.
const ROWS_MIN: usize = 1 << 16;

/// The files that hold the state of one operator as of the last checkpoint.
#[derive(Default)]
pub(crate) struct DeltaFiles {
    /// Oldest first.
    runs: Vec<Run>,
    /// How rows replace each other; none: files are not merged.
    rules: Option<Arc<[MergeRule]>>,
    merging: Option<Merging>,
    /// The last merge came to nothing: the next time the whole state is written.
    alone: bool,
    /// Rows that were alive when the epoch ended.
    live_rows: usize,
}

/// What one checkpoint or one merge has written: files that hold different key groups.
struct Run {
    handles: Vec<PendingHandle>,
    rows: usize,
    /// No row of it is needed once the watermark (ms) is there.
    needed_until: i64,
}

/// A merge of all runs from the `first` one, as they were when it was asked for.
struct Merging {
    first: usize,
    runs: usize,
    /// Who merges holds it too.
    merged: Arc<OnceLock<Merged>>,
}

/// For [`DeltaFiles::capture`]: rows that no watermark releases.
pub(crate) const NEEDED_FOR_EVER: i64 = i64::MAX;

impl DeltaFiles {
    /// No files yet. They may be merged by these rules, one for each table.
    pub(crate) fn merged_by(rules: Vec<MergeRule>) -> DeltaFiles {
        DeltaFiles { rules: Some(rules.into()), ..DeltaFiles::default() }
    }

    /// Notes a file that the state was restored from, with the number of rows that were read from it.
    pub(crate) fn restored(&mut self, handle: StateHandle, rows: usize) {
        self.restored_until(handle, rows, NEEDED_FOR_EVER);
    }

    /// The same for a file whose rows are released when the watermark (ms) is there.
    pub(crate) fn restored_until(&mut self, handle: StateHandle, rows: usize, needed_until: i64) {
        let pending = written(handle.clone());
        match self.runs.last_mut() {
            Some(run) if run.needed_until == needed_until && run.goes_with(&handle) => {
                run.handles.push(pending);
                run.rows += rows;
            }
            _ => self.runs.push(Run { handles: vec![pending], rows, needed_until }),
        }
    }

    /// Forgets the files of which the watermark (ms) has released all rows.
    pub(crate) fn forget_released(&mut self, watermark: i64) {
        self.runs.retain(|run| run.needed_until == NEEDED_FOR_EVER || run.needed_until > watermark);
    }

    /// Whether the next capture must hold the whole state, of which `live_rows` rows are alive. Asked once for each
    /// capture, just before it.
    pub(crate) fn wants_whole_state(&mut self, live_rows: usize) -> bool {
        self.live_rows = live_rows;
        self.take_merged();
        let (runs_max, times) = match self.merging.is_some() || self.first_to_merge().is_some() {
            true => (RUNS_MAX_MERGING, ROWS_PER_LIVE_ROW_MAX_MERGING),
            false if live_rows < ROWS_MIN => (RUNS_MAX, ROWS_PER_LIVE_ROW_MAX),
            false => (RUNS_MAX - live_rows % RUNS_SPREAD, ROWS_PER_LIVE_ROW_MAX),
        };
        self.runs.len() >= runs_max || self.rows() > rows_max(live_rows, times)
    }

    /// Ends the epoch. `tables` hold the whole state if `whole`, else what has changed in the epoch. Nothing in
    /// them: no file is written.
    pub(crate) fn capture(&mut self, whole: bool, tables: Vec<TableRows>, meta: String) -> Capture {
        self.capture_until(whole, tables, meta, NEEDED_FOR_EVER)
    }

    /// The same where the watermark `needed_until` (ms) releases all rows of `tables`.
    pub(crate) fn capture_until(
        &mut self,
        whole: bool,
        tables: Vec<TableRows>,
        meta: String,
        needed_until: i64,
    ) -> Capture {
        if whole {
            self.runs.clear();
            (self.merging, self.alone) = (None, false);
        }
        let retained = self.runs.iter().flat_map(|run| &run.handles).cloned().collect();
        let merge = self.order();
        let handle = PendingHandle::default();
        let rows: usize = tables.iter().flat_map(|table| &table.rows).map(|rows| rows.num_rows()).sum();
        if rows > 0 {
            self.runs.push(Run { handles: vec![handle.clone()], rows, needed_until });
        }
        Capture { retained, tables, handle, meta, live_rows: self.live_rows as u64, memory_bytes: 0, merge }
    }

    fn rows(&self) -> usize {
        self.runs.iter().map(|run| run.rows).sum()
    }

    /// Takes over what a merge has given. Nobody has it any more and it is not there: it came to nothing.
    fn take_merged(&mut self) {
        let Some(Merging { first, runs, merged }) = self.merging.take() else { return };
        match merged.get() {
            Some(Merged { files, rows }) => {
                let handles: Vec<_> = files.iter().cloned().map(written).collect();
                let run = Run { handles, rows: *rows, needed_until: NEEDED_FOR_EVER };
                // All of them may have been gone.
                self.runs.splice(first..first + runs, (*rows > 0).then_some(run));
            }
            None if Arc::strong_count(&merged) == 1 => self.alone = true,
            None => self.merging = Some(Merging { first, runs, merged }),
        }
    }

    /// From which run on they are to become one.
    fn first_to_merge(&self) -> Option<usize> {
        if self.rules.is_none() || self.alone || self.merging.is_some() || self.runs.len() < 2 {
            return None;
        }
        if self.rows() > rows_max(self.live_rows, ROWS_PER_LIVE_ROW_MAX) {
            return Some(0);
        }
        let highest = self.runs.iter().map(Run::tier).max()?;
        (0..=highest).rev().find_map(|tier| {
            let first = self.runs.iter().rposition(|run| run.tier() > tier).map_or(0, |larger| larger + 1);
            let of_tier = self.runs[first..].iter().filter(|run| run.tier() == tier).count();
            (of_tier >= FAN_IN).then_some(first)
        })
    }

    /// Orders what is to be merged, all of which is written when the capture is.
    fn order(&mut self) -> Option<MergeOrder> {
        let first = self.first_to_merge()?;
        let rules = self.rules.clone()?;
        let merged = Arc::new(OnceLock::new());
        let inputs = self.runs[first..].iter().flat_map(|run| &run.handles).cloned().collect();
        self.merging = Some(Merging { first, runs: self.runs.len() - first, merged: merged.clone() });
        Some(MergeOrder { inputs, rules, from_start: first == 0, merged })
    }
}

fn rows_max(live_rows: usize, times: usize) -> usize {
    live_rows.saturating_mul(times).max(ROWS_MIN)
}

impl Run {
    /// By how many times the fan-out it is larger than the least.
    fn tier(&self) -> u32 {
        self.rows.max(1).ilog(FAN_IN)
    }

    /// Whether a file is of the same checkpoint and holds other key groups.
    fn goes_with(&self, file: &StateHandle) -> bool {
        let mut handles = self.handles.iter().filter_map(|handle| handle.get());
        handles.all(|known| known.epoch == file.epoch && !known.key_groups.overlaps(&file.key_groups))
    }
}

#[cfg(test)]
mod tests;
