//! What a simulation of whole clusters turns on for the nodes of its thread.

use std::cell::Cell;

pub use crate::disk::Disk;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static FORGETS_SYNCS: Cell<bool> = const { Cell::new(false) };
}

/// From here on this thread's nodes do everything on it. Those that forget syncs acknowledge entries that a power cut may
/// lose: a bug that was put back, to be found.
pub fn begin(forgets_syncs: bool) {
    ON.set(true);
    FORGETS_SYNCS.set(forgets_syncs);
}

pub(crate) fn is_on() -> bool {
    ON.get()
}

pub(crate) fn forgets_syncs() -> bool {
    FORGETS_SYNCS.get()
}
