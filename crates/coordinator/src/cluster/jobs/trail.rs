//! The audit trail, as the leader adds to it what is no decision about a job, and as users see it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mainstem_consensus::ProposeError;
use mainstem_core::audit::{AuditRecord, Head, decisions};
use mainstem_core::cluster::proposal::Note;
use mainstem_core::cluster::state::Command;

use super::{ClusterJobs, JobFactory};

/// Wait before notes that could not be agreed on are proposed again.
const NOTE_AGAIN: Duration = Duration::from_millis(500);

impl<F: JobFactory> ClusterJobs<F> {
    /// The newest decisions that are wanted, oldest first and at most so many, and how far the chain of all has come. May be
    /// old where this coordinator does not lead.
    pub fn decisions(&self, limit: usize, wanted: impl Fn(&AuditRecord) -> bool) -> (Head, Vec<AuditRecord>) {
        self.consensus.read_stale(|state| (state.audit.head(), state.audit.newest(limit, wanted)))
    }

    /// Notes the loss of workers that should have come to this leader by now.
    pub(super) fn note_missing(&self) {
        let known = self.consensus.read_stale(|state| state.audit.workers().cloned().collect());
        self.fleet.note_missing(known);
    }

    /// Has agreed on what has happened to workers, so that it is in the audit trail.
    pub(super) fn note_news(self: &Arc<Self>) {
        let mut noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        if noting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let mut notes = self.fleet.take_notes();
        if !self.consensus.read_stale(|state| state.audit.knows_members()) {
            notes.insert(0, Note::Members { members: self.consensus.status().members });
        }
        if notes.is_empty() {
            return;
        }
        let command = Command::Notes { notes };
        // After a change of leaders all workers come, and are known.
        if self.consensus.read_stale(|state| decisions::of_command(state, &command).is_empty()) {
            return;
        }
        let proposer = self.proposer.clone();
        *noting = Some(tokio::spawn(async move {
            // What was agreed on after all is no news the second time.
            while let Err(error) = proposer.propose(command.clone()).await {
                match error {
                    ProposeError::NoQuorum { .. } => tokio::time::sleep(NOTE_AGAIN).await,
                    ProposeError::Refused { .. } => {
                        tracing::error!(%error, "what has happened to workers is not in the audit trail");
                        return;
                    }
                    // The next leader takes stock.
                    ProposeError::NotLeader { .. } | ProposeError::Stopped { .. } => return,
                }
            }
        }));
    }
}
