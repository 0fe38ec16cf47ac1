//! What has happened to workers and is not in the audit trail yet. Workers are not agreed on, so the leader proposes this.

use std::collections::{BTreeSet, VecDeque};

use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::cluster::proposal::Note;

use super::FleetService;

/// Notes that may wait. More come only where workers come and go all the time while nothing can be agreed on.
const NOTES_MAX: usize = 1024;
/// Notes that are agreed on at once.
const BATCH_MAX: usize = 128;

/// Notes in the order of what happened.
#[derive(Default)]
pub(super) struct Notes {
    waiting: VecDeque<Note>,
}

impl Notes {
    pub(super) fn push(&mut self, note: Note) {
        if self.waiting.len() >= NOTES_MAX {
            tracing::error!(?note, "it is not in the audit trail: too much is waiting to be agreed on");
            return;
        }
        self.waiting.push_back(note);
    }
}

impl FleetService {
    /// The oldest notes that wait; they wait no longer.
    pub(crate) fn take_notes(&self) -> Vec<Note> {
        let mut inner = self.lock();
        let count = inner.notes.waiting.len().min(BATCH_MAX);
        inner.notes.waiting.drain(..count).collect()
    }

    /// Notes the loss of those of the workers that are not here: they were lost while nobody led, or with who did.
    pub(crate) fn note_missing(&self, known: BTreeSet<WorkerId>) {
        let mut inner = self.lock();
        let here: BTreeSet<WorkerId> = inner.fleet.workers().map(|(offer, _)| offer.worker.clone()).collect();
        for worker in known.difference(&here) {
            let reason = format!("worker {worker} has not come to the coordinator that leads now");
            inner.notes.push(Note::WorkerLost { worker: worker.clone(), reason });
        }
    }
}
