//! What a worker keeps of the reports of an attempt's subtasks, to repeat it to a leader that was not there when they
//! came: the parts of checkpoints that are not known to be complete, and how subtasks have ended. What source subtasks
//! wait for they say again themselves ([`crate::protocol::ToSubtask::Resume`]).

use std::collections::BTreeMap;

use crate::ids::{Epoch, Generation, SubtaskId};
use crate::protocol::FromSubtask;

/// Parts of checkpoints that are kept for each subtask; a coordinator has fewer in flight.
const EPOCHS_MAX: usize = 64;

/// See the module. One for each attempt on a worker.
#[derive(Clone, Debug)]
pub struct KeptReports {
    generation: Generation,
    complete: Epoch,
    snapshots: BTreeMap<(Epoch, SubtaskId), FromSubtask>,
    ended: BTreeMap<SubtaskId, FromSubtask>,
    /// Whether something had to be dropped that may be asked for.
    has_lost: bool,
}

impl KeptReports {
    /// Nothing has been reported.
    #[must_use]
    pub fn new(generation: Generation) -> KeptReports {
        let (snapshots, ended) = (BTreeMap::new(), BTreeMap::new());
        KeptReports { generation, complete: Epoch(0), snapshots, ended, has_lost: false }
    }

    /// A subtask reports. What is of another attempt is not kept.
    pub fn note(&mut self, report: &FromSubtask) {
        match report {
            FromSubtask::SnapshotDone { generation, .. } | FromSubtask::Failed { generation, .. }
                if *generation != self.generation => {}
            FromSubtask::SnapshotDone { subtask, epoch, .. } if *epoch > self.complete => {
                self.snapshots.entry((*epoch, *subtask)).or_insert_with(|| report.clone());
                let of_subtask = self.snapshots.keys().filter(|(_, of)| of == subtask);
                if of_subtask.clone().count() > EPOCHS_MAX {
                    let oldest = of_subtask.min().copied();
                    self.has_lost = oldest.and_then(|oldest| self.snapshots.remove(&oldest)).is_some();
                }
            }
            FromSubtask::Finished { subtask } | FromSubtask::Failed { subtask, .. } => {
                self.ended.entry(*subtask).or_insert_with(|| report.clone());
            }
            FromSubtask::SnapshotDone { .. }
            | FromSubtask::Restored { .. }
            | FromSubtask::RequestSplit { .. }
            | FromSubtask::SourceWatermark { .. }
            | FromSubtask::MarkersArrived { .. }
            | FromSubtask::InputExhausted { .. } => {}
        }
    }

    /// An epoch is complete.
    pub fn on_complete(&mut self, epoch: Epoch) {
        self.complete = self.complete.max(epoch);
        self.snapshots.retain(|(of, _), _| *of > epoch);
    }

    /// Everything that a new leader has to hear, oldest first; none where something of it is gone.
    #[must_use]
    pub fn repeat(&self) -> Option<Vec<FromSubtask>> {
        let all = || self.snapshots.values().chain(self.ended.values()).cloned().collect();
        (!self.has_lost).then(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OperatorId;
    use crate::protocol::{Failure, SubtaskSnapshot};

    fn subtask(index: u32) -> SubtaskId {
        SubtaskId { operator: OperatorId(0), index }
    }

    fn done(index: u32, epoch: u64) -> FromSubtask {
        let (subtask, snapshot) = (subtask(index), SubtaskSnapshot::new());
        FromSubtask::SnapshotDone { subtask, generation: Generation(1), epoch: Epoch(epoch), snapshot }
    }

    #[test]
    fn parts_of_checkpoints_are_kept_until_they_are_complete_and_ends_for_ever() {
        let mut kept = KeptReports::new(Generation(1));
        let failure = Failure { message: "disk full".to_owned(), retryable: true, consequence: false };
        let failed = FromSubtask::Failed { subtask: subtask(1), generation: Generation(1), failure };
        let finished = FromSubtask::Finished { subtask: subtask(0) };
        let request = FromSubtask::RequestSplit { subtask: subtask(0) };
        for report in [done(0, 1), done(1, 1), done(0, 2), request, failed.clone(), finished.clone(), done(0, 2)] {
            kept.note(&report);
        }
        assert_eq!(kept.repeat().unwrap().len(), 5);
        let FromSubtask::SnapshotDone { subtask, epoch, snapshot, .. } = done(1, 2) else { unreachable!() };
        kept.note(&FromSubtask::SnapshotDone { subtask, generation: Generation(0), epoch, snapshot });
        kept.on_complete(Epoch(1));
        kept.on_complete(Epoch(0));
        kept.note(&done(1, 1));
        assert_eq!(kept.repeat().unwrap(), [done(0, 2), finished, failed]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_loss_is_not_hidden() {
        let mut kept = KeptReports::new(Generation(1));
        (1..=EPOCHS_MAX as u64).for_each(|epoch| kept.note(&done(0, epoch)));
        kept.note(&done(1, 1));
        assert_eq!(kept.repeat().unwrap().len(), EPOCHS_MAX + 1);
        kept.note(&done(0, EPOCHS_MAX as u64 + 1));
        assert_eq!((kept.snapshots.len(), kept.repeat()), (EPOCHS_MAX + 1, None));
    }
}
