//! How state that is a table becomes durable: each checkpoint writes the rows that have changed, as one file,
//! and a restore applies the files again, oldest first, later rows replacing earlier ones of the same key. When
//! the files hold much more than what is alive, the whole state is written instead and replaces them.
//! A file whose rows have all been released, because time has passed them, is forgotten.
//! Which rows have changed, and how a row says that its key is gone, is the operator's own business.

use mainstem_core::protocol::StateHandle;

use crate::operator::{Capture, PendingHandle, TableRows};

/// Files that a restore may have to apply; beyond it the whole state is written.
const FILES_MAX: usize = 32;
/// The files may hold so many times the rows that are alive.
const ROWS_PER_LIVE_ROW_MAX: usize = 2;
/// Below so many rows nothing is gained by fewer of them.
const ROWS_MIN: usize = 1 << 16;

/// The files that hold the state of one operator as of the last checkpoint.
#[derive(Default)]
pub(crate) struct DeltaFiles {
    files: Vec<DeltaFile>,
    /// Rows that were alive when the epoch ended.
    live_rows: usize,
}

struct DeltaFile {
    handle: PendingHandle,
    rows: usize,
    /// No row of it is needed once the watermark (ms) is there.
    needed_until: i64,
}

/// For [`DeltaFiles::capture`]: rows that no watermark releases.
pub(crate) const NEEDED_FOR_EVER: i64 = i64::MAX;

impl DeltaFiles {
    /// Notes a file that the state was restored from, with the number of rows that were read from it.
    pub(crate) fn restored(&mut self, handle: StateHandle, rows: usize) {
        self.restored_until(handle, rows, NEEDED_FOR_EVER);
    }

    /// The same for a file whose rows are released when the watermark (ms) is there.
    pub(crate) fn restored_until(&mut self, handle: StateHandle, rows: usize, needed_until: i64) {
        let pending = PendingHandle::default();
        pending.set(handle).expect("new");
        self.files.push(DeltaFile { handle: pending, rows, needed_until });
    }

    /// Forgets the files of which the watermark (ms) has released all rows.
    pub(crate) fn forget_released(&mut self, watermark: i64) {
        self.files.retain(|file| file.needed_until == NEEDED_FOR_EVER || file.needed_until > watermark);
    }

    /// Whether the next capture must hold the whole state, of which `live_rows` rows are alive. Asked once for each
    /// capture, just before it.
    pub(crate) fn wants_whole_state(&mut self, live_rows: usize) -> bool {
        self.live_rows = live_rows;
        let rows_max = live_rows.saturating_mul(ROWS_PER_LIVE_ROW_MAX).max(ROWS_MIN);
        self.files.len() >= FILES_MAX || self.files.iter().map(|file| file.rows).sum::<usize>() > rows_max
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
            self.files.clear();
        }
        let retained = self.files.iter().map(|file| file.handle.clone()).collect();
        let handle = PendingHandle::default();
        let rows: usize = tables.iter().flat_map(|table| &table.rows).map(|rows| rows.num_rows()).sum();
        if rows > 0 {
            self.files.push(DeltaFile { handle: handle.clone(), rows, needed_until });
        }
        Capture { retained, tables, handle, meta, live_rows: self.live_rows as u64 }
    }
}
