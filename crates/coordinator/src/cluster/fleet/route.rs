//! Where the words of an attempt's subtasks go.

use std::collections::BTreeMap;

use mainstem_core::cluster::messages::{AttemptId, WorkerId, WorkerOffer};
use mainstem_core::ids::SubtaskId;
use mainstem_core::protocol::{Failure, FromSubtask, SourceStatus};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Hold;

/// See the module.
pub(super) struct Route {
    /// Of which hold.
    pub(super) hold: u64,
    pub(super) events: mpsc::Sender<FromSubtask>,
    pub(super) deployed: mpsc::Sender<(WorkerId, Result<(), Failure>)>,
    pub(super) slots: Vec<WorkerOffer>,
    /// What subtasks have said of their watermarks while there was no room for it: the newest of each.
    put_off: BTreeMap<SubtaskId, SourceStatus>,
}

impl Route {
    pub(super) fn new(
        hold: &Hold,
        events: mpsc::Sender<FromSubtask>,
        deployed: mpsc::Sender<(WorkerId, Result<(), Failure>)>,
        slots: Vec<WorkerOffer>,
    ) -> Route {
        Route { hold: hold.number(), events, deployed, slots, put_off: BTreeMap::new() }
    }

    /// Passes on what a subtask has said. Of its watermark only the newest counts, so that waits where others have much to
    /// say; that markers have arrived need not be known.
    pub(super) fn pass_on(&mut self, attempt: &AttemptId, event: FromSubtask) {
        match event {
            FromSubtask::SourceWatermark { subtask, status } => {
                self.put_off.insert(subtask, status);
                self.pass_on_put_off();
            }
            FromSubtask::MarkersArrived { .. } if !self.has_room() => {}
            event => {
                if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
                    // What is lost cannot be made good: the attempt ends for want of an answer, which its time-out notices.
                    tracing::error!(%attempt, "the coordinator does not keep up with the job's messages");
                }
            }
        }
    }

    /// Passes on what was put off, as far as there is room. Called now and then: a subtask that is idle says so once.
    pub(super) fn pass_on_put_off(&mut self) {
        while self.has_room()
            && let Some((subtask, status)) = self.put_off.pop_first()
        {
            // It fails where nobody listens any more.
            let _ = self.events.try_send(FromSubtask::SourceWatermark { subtask, status });
        }
    }

    /// Half of the room is for what must not be lost.
    fn has_room(&self) -> bool {
        self.events.capacity() > self.events.max_capacity() / 2
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::{Generation, JobId, OperatorId};
    use mainstem_core::time::Timestamp;

    use super::*;

    fn subtask(index: u32) -> SubtaskId {
        SubtaskId { operator: OperatorId(1), index }
    }

    fn idle(greatest: i64) -> SourceStatus {
        SourceStatus::Idle { greatest: Timestamp(greatest) }
    }

    #[test]
    fn the_newest_watermark_waits_for_room_and_is_not_lost() {
        let attempt = AttemptId { job: JobId::new("j").unwrap(), generation: Generation(1) };
        let (events, mut said) = mpsc::channel(4);
        let deployed = mpsc::channel(1).0;
        let mut route = Route { hold: 1, events, deployed, slots: Vec::new(), put_off: BTreeMap::new() };
        let ended = || FromSubtask::InputExhausted { subtask: subtask(9) };
        (0..2).for_each(|_| route.pass_on(&attempt, ended()));
        for (index, status) in [(0, SourceStatus::Active { watermark: Timestamp(5) }), (0, idle(7)), (1, idle(3))] {
            route.pass_on(&attempt, FromSubtask::SourceWatermark { subtask: subtask(index), status });
        }
        route.pass_on_put_off();
        route.pass_on(&attempt, ended());
        let mut taken = Vec::new();
        for _ in 0..3 {
            while let Ok(event) = said.try_recv() {
                taken.push(event);
            }
            route.pass_on_put_off();
        }
        let watermark = |index, status| FromSubtask::SourceWatermark { subtask: subtask(index), status };
        let expected = [ended(), ended(), ended(), watermark(0, idle(7)), watermark(1, idle(3))];
        assert_eq!(format!("{taken:?}"), format!("{expected:?}"));
    }
}
