//! How windowed state becomes durable. The state of a window is the merge of the partial aggregates that came
//! for it, so the change of an epoch is just what came in it: the log of the epoch's partial aggregates is
//! written, and a restore merges the logs again, oldest first. A file is dropped when all of its windows have
//! closed. When the files become many, or an epoch's log outgrows its bound, the whole state is written
//! instead and replaces them.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use mainstem_core::protocol::StateHandle;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::memory;
use crate::operator::{Capture, PendingHandle, Restored, TableRows};

/// Name and version of the table of partial aggregates.
const TABLE: (&str, u32) = ("partials", 1);
/// Bytes of partial aggregates kept for the next checkpoint; beyond it the whole state is written.
const LOG_BYTES_MAX: usize = 128 << 20;
/// Files that a restore may have to merge; beyond it the whole state is written.
const FILES_MAX: usize = 32;

/// The changes of the running epoch and the files of earlier ones.
#[derive(Default)]
pub(crate) struct PartialLog {
    entries: Vec<(RecordBatch, i64)>,
    bytes: usize,
    overflowed: bool,
    files: Vec<(PendingHandle, i64)>,
}

/// What every windowed operator keeps besides its keyed state.
#[derive(Serialize, Deserialize)]
pub(crate) struct WindowMeta {
    /// The watermark (ms) up to which windows have been emitted.
    pub(crate) watermark: i64,
}

impl WindowMeta {
    /// The watermark of a restored operator out of what its subtasks kept. They have all seen the same
    /// watermarks before the barrier; were one ever behind, then the least is the safe one.
    pub(crate) fn watermark_of(metas: &[String]) -> Result<i64, EngineError> {
        let parse = |meta: &String| serde_json::from_str::<WindowMeta>(meta).map(|m| m.watermark);
        let watermarks = metas.iter().map(parse).collect::<Result<Vec<_>, _>>();
        let watermarks = watermarks.map_err(|e| EngineError::Bug(format!("window state cannot be read: {e}")))?;
        Ok(watermarks.into_iter().min().unwrap_or(i64::MIN))
    }
}

impl PartialLog {
    /// Bytes of memory of what the next checkpoint is to write.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes partial aggregates that have come, the last of whose windows ends at `last_end`.
    pub(crate) fn append(&mut self, partial: &RecordBatch, last_end: i64) {
        if self.overflowed {
            return;
        }
        self.bytes += memory::of_rows(partial);
        self.entries.push((partial.clone(), last_end));
        if self.bytes > LOG_BYTES_MAX {
            self.overflowed = true;
            self.entries = Vec::new();
        }
    }

    /// The partial aggregates of a file.
    pub(crate) fn restored_rows(state: &Restored) -> impl Iterator<Item = Result<RecordBatch, EngineError>> {
        state.rows(TABLE.0, TABLE.1)
    }

    /// Notes a file that the state was restored from.
    pub(crate) fn restored(&mut self, handle: StateHandle, last_end: i64) {
        let pending = PendingHandle::default();
        pending.set(handle).expect("new");
        self.files.push((pending, last_end));
    }

    /// Forgets what only windows need for which `is_closed` (of their end) holds.
    pub(crate) fn forget_closed(&mut self, is_closed: impl Fn(i64) -> bool) {
        self.files.retain(|(_, last_end)| !is_closed(*last_end));
        let mut freed = 0;
        self.entries.retain(|(partial, last_end)| {
            let keep = !is_closed(*last_end);
            freed += if keep { 0 } else { memory::of_rows(partial) };
            keep
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// Whether the next capture must hold the whole state.
    pub(crate) fn wants_whole_state(&self) -> bool {
        self.overflowed || self.files.len() >= FILES_MAX
    }

    /// Ends the epoch. `whole` holds all of the state, with the end of each part's last window, where
    /// [`PartialLog::wants_whole_state`] asked for it. `live_rows`: see [`Capture`].
    pub(crate) fn capture(
        &mut self,
        whole: Option<Vec<(RecordBatch, i64)>>,
        key_count: usize,
        meta: &WindowMeta,
        live_rows: u64,
    ) -> Capture {
        if let Some(whole) = whole {
            self.entries = whole;
            self.files.clear();
            self.overflowed = false;
        }
        let retained = self.files.iter().map(|(handle, _)| handle.clone()).collect();
        let handle: PendingHandle = Arc::new(OnceLock::new());
        if let Some(last_end) = self.entries.iter().map(|(_, end)| *end).max() {
            self.files.push((handle.clone(), last_end));
        }
        self.bytes = 0;
        let rows = std::mem::take(&mut self.entries).into_iter().map(|(partial, _)| partial).collect();
        let meta = serde_json::to_string(meta).expect("a number");
        let key = (0..key_count).collect();
        let tables = vec![TableRows { name: TABLE.0, version: TABLE.1, key, rows }];
        Capture { retained, tables, handle, meta, live_rows, memory_bytes: 0, merge: None }
    }
}
