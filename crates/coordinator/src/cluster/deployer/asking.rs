//! Asks the workers of an attempt whether they still run it. What follows from their answers is decided by
//! [`mainstem_core::cluster::Adoption`].

use std::collections::{BTreeMap, BTreeSet};

use mainstem_core::cluster::messages::{AttemptId, ToWorker, WorkerId, WorkerOffer};
use mainstem_core::cluster::{Adoption, AdoptionCommand, AdoptionEvent};
use mainstem_core::ids::{Epoch, SubtaskId};
use mainstem_core::protocol::Failure;
use tokio::sync::mpsc;

use super::FleetService;

/// How often workers that have not come are looked for, in milliseconds.
const LOOK_EVERY_MS: i64 = 300;

/// An attempt whose workers are asked.
pub(super) struct Asking<'a> {
    pub(super) fleet: &'a FleetService,
    pub(super) attempt: &'a AttemptId,
    /// The worker of each slot.
    pub(super) slots: &'a [WorkerOffer],
    /// The newest complete epoch.
    pub(super) complete: Epoch,
}

impl Asking<'_> {
    /// Waits until every worker has said that it runs its part; gives the ways to them.
    ///
    /// # Errors
    /// Why a new attempt must be begun.
    pub(super) async fn until_all_run(
        &self,
        subtasks: &[SubtaskId],
        mut answers: mpsc::Receiver<(WorkerId, Result<(), Failure>)>,
    ) -> Result<BTreeMap<WorkerId, mpsc::Sender<ToWorker>>, String> {
        let workers: BTreeSet<WorkerId> = self.slots.iter().map(|slot| slot.worker.clone()).collect();
        let mut adoption = Adoption::new(workers.clone(), self.fleet.adopt_until());
        let mut changes = self.fleet.changes();
        let clock = self.fleet.clock();
        let mut look_at = clock.monotonic().plus_ms(LOOK_EVERY_MS);
        loop {
            changes.mark_unchanged();
            let outboxes = self.fleet.outboxes(&workers);
            for (worker, outbox) in &outboxes {
                let joined = AdoptionEvent::Joined { worker: worker.clone() };
                if let Some(AdoptionCommand::Ask { worker }) = adoption.on(clock.monotonic(), joined) {
                    self.ask(subtasks, outbox, &worker);
                }
            }
            let event = tokio::select! {
                biased;
                Some((worker, result)) = answers.recv() => {
                    AdoptionEvent::Answered { worker, runs: result.map_err(|failure| failure.message) }
                }
                // The sender lives in the fleet.
                _ = changes.changed() => continue,
                () = clock.sleep_until(adoption.deadline().min(look_at)) => {
                    look_at = clock.monotonic().plus_ms(LOOK_EVERY_MS);
                    self.look_for(adoption.missing()).await.unwrap_or(AdoptionEvent::Tick)
                }
            };
            match adoption.on(clock.monotonic(), event) {
                // One that has gone since has a failure on its way to the driver, but a way to all of them is needed.
                Some(AdoptionCommand::Adopt) if outboxes.len() < workers.len() => {
                    return Err("one of its workers has just left".to_owned());
                }
                Some(AdoptionCommand::Adopt) => return Ok(outboxes),
                Some(AdoptionCommand::Restart { reason }) => return Err(reason),
                Some(AdoptionCommand::Ask { .. }) | None => {}
            }
        }
    }

    fn ask(&self, subtasks: &[SubtaskId], outbox: &mpsc::Sender<ToWorker>, worker: &WorkerId) {
        let is_there = |subtask: &&SubtaskId| self.slots[subtask.index as usize].worker == *worker;
        let subtasks = subtasks.iter().filter(is_there).copied().collect();
        let adopt = ToWorker::Adopt { attempt: self.attempt.clone(), subtasks, complete: self.complete };
        // A worker that takes nothing is given up soon, and its answer does not come.
        let _ = outbox.try_send(adopt);
    }

    /// Finds out whether one of the workers has certainly ended: nobody, or another one, listens where it did.
    async fn look_for(&self, missing: impl Iterator<Item = &WorkerId>) -> Option<AdoptionEvent> {
        for worker in missing {
            let slot = self.slots.iter().find(|slot| slot.worker == *worker)?;
            let address = &slot.data_address;
            let is_there = |other: &WorkerOffer| other.data_address == *address && other.worker != *worker;
            let reason = match self.fleet.workers().iter().find(|other| is_there(&other.offer)) {
                Some(other) => format!("{} is in its place", other.offer.worker),
                None if self.fleet.transport().is_refused(address).await => format!("nobody listens at {address}"),
                None => continue,
            };
            return Some(AdoptionEvent::Gone { worker: worker.clone(), reason });
        }
        None
    }
}
