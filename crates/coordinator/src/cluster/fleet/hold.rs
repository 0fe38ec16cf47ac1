//! A job's hold on the slots of its attempt.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstem_core::cluster::messages::{AttemptId, SlotFiles, ToWorker, WorkerId};
use mainstem_core::ids::{Epoch, SubtaskId};
use mainstem_core::protocol::ToSubtask;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{FleetService, Inner};
use crate::spec::AttemptHold;

/// Messages that may wait for a subtask.
const CONTROL_MAX: usize = 64;

/// An attempt's hold on its slots, while a coordinator drives it. Until the attempt was handed over, dropping it stops
/// whatever runs of it and frees the slots. From then on only [`AttemptHold::end`] does: a driver that is dropped leaves the
/// attempt to the next one.
pub(crate) struct Hold {
    service: Arc<FleetService>,
    attempt: AttemptId,
    /// Tells it apart from those of earlier and later drivers of the same attempt.
    number: u64,
    stays: bool,
    /// Carry messages to the subtasks; they end with the hold, so that none is overtaken by those of the next driver.
    relays: JoinSet<()>,
}

impl Hold {
    /// Another one than all before.
    pub(super) fn new(service: &Arc<FleetService>, inner: &mut Inner, attempt: &AttemptId) -> Hold {
        inner.holds += 1;
        Hold {
            service: service.clone(),
            attempt: attempt.clone(),
            number: inner.holds,
            stays: false,
            relays: JoinSet::new(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The attempt is driven from here: it has its job's slots.
    pub(crate) fn take_slots(&self) {
        let held = (self.number, self.attempt.generation);
        self.service.lock().holders.insert(self.attempt.job.clone(), held);
    }

    /// The attempt runs, and so many workers are to follow the state of each slot.
    pub(crate) fn stand_by(&self, wanted: u32, store: &str) {
        self.service.lock().fleet.on_attempt(&self.attempt, wanted, store);
    }

    /// The way to a subtask through the connection of its worker.
    pub(crate) fn relay(&mut self, subtask: SubtaskId, outbox: mpsc::Sender<ToWorker>) -> mpsc::Sender<ToSubtask> {
        let (sender, mut messages) = mpsc::channel(CONTROL_MAX);
        let attempt = self.attempt.clone();
        self.relays.spawn(async move {
            while let Some(message) = messages.recv().await {
                let tell = ToWorker::Tell { attempt: attempt.clone(), subtask, message };
                if outbox.send(tell).await.is_err() {
                    // The worker is lost, which the attempt is told.
                    return;
                }
            }
        });
        sender
    }

    /// The attempt runs: it goes on without this coordinator if need be.
    pub(crate) fn stay(mut self) -> Hold {
        self.stays = true;
        self
    }
}

impl AttemptHold for Hold {
    fn complete(&self, epoch: Epoch, files: &SlotFiles) {
        let mut inner = self.service.lock();
        inner.fleet.on_complete(&self.attempt, epoch, files);
        inner.tell_standbys();
        let Some(route) = inner.routes.get(&self.attempt) else { return };
        let workers: BTreeSet<&WorkerId> = route.slots.iter().map(|slot| &slot.worker).collect();
        for (_, outbox) in workers.into_iter().filter_map(|worker| inner.links.get(worker)) {
            // Where it is missed the worker keeps a little more, until it hears of the next one.
            let _ = outbox.try_send(ToWorker::Complete { attempt: self.attempt.clone(), epoch });
        }
    }

    fn end(&mut self) {
        let mut inner = self.service.lock();
        let counted = inner.counters_of(&self.attempt.job);
        if !counted.is_empty() {
            inner.last_counters.insert(self.attempt.job.clone(), counted);
        }
        // A later attempt may have them by now.
        if inner.holders.get(&self.attempt.job).is_some_and(|(number, _)| *number == self.number) {
            inner.holders.remove(&self.attempt.job);
            inner.fleet.release(&self.attempt.job);
        }
        inner.fence(&self.attempt.job, self.attempt.generation.next());
        drop(inner);
        self.service.note_change();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.service.lock();
        if inner.routes.get(&self.attempt).is_some_and(|route| route.hold == self.number) {
            inner.routes.remove(&self.attempt);
        }
        drop(inner);
        if !self.stays {
            self.end();
        }
    }
}
