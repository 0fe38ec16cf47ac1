//! Attempts that run already when this coordinator comes to lead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstem_core::cluster::messages::{AttemptId, ToWorker, WorkerId, WorkerOffer};
use mainstem_core::ids::{Generation, JobId};
use mainstem_core::protocol::{Failure, FromSubtask};
use mainstem_core::time::Timestamp;
use mainstem_net::Transport;
use mainstem_rt::Clock;
use tokio::sync::mpsc;

use super::{FleetService, Hold, Route};

/// How much longer than a worker needs to give up a silent leader it may take to find the next one.
const SEARCH_MS: i64 = 1_000;

impl FleetService {
    /// What the attempt's subtasks say goes to `events` from here on, its workers' answers to `deployed`.
    pub(crate) fn take_over(
        self: &Arc<Self>,
        attempt: &AttemptId,
        slots: Vec<WorkerOffer>,
        events: mpsc::Sender<FromSubtask>,
        deployed: mpsc::Sender<(WorkerId, Result<(), Failure>)>,
    ) -> Hold {
        let mut inner = self.lock();
        let hold = Hold::new(self, &mut inner, attempt);
        inner.fleet.occupy(&attempt.job, slots.iter().map(|slot| slot.worker.clone()).collect());
        inner.routes.insert(attempt.clone(), Route::new(&hold, events, deployed, slots));
        hold.stay()
    }

    /// The job does not run any more: its slots are free, and nothing below the generation may run.
    pub(crate) fn retire(&self, job: &JobId, generation: Generation) {
        let mut inner = self.lock();
        inner.holders.remove(job);
        inner.fleet.release(job);
        inner.fleet.on_ended(job);
        inner.fence(job, generation);
        drop(inner);
        self.note_change();
    }

    /// When workers that have not come to this leader by now will not come in time.
    pub(crate) fn adopt_until(&self) -> Timestamp {
        self.clock.monotonic().plus_ms(self.config.silence_ms + SEARCH_MS)
    }

    /// How workers are reached.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The ways to those of the workers that are there.
    pub(crate) fn outboxes(&self, workers: &BTreeSet<WorkerId>) -> BTreeMap<WorkerId, mpsc::Sender<ToWorker>> {
        let inner = self.lock();
        let outbox = |worker: &WorkerId| Some((worker.clone(), inner.links.get(worker)?.1.clone()));
        workers.iter().filter_map(outbox).collect()
    }
}
