//! The fleet's part in standbys: which workers could stand by, and what they are told.

use std::collections::BTreeMap;

use super::Fleet;
use crate::cluster::messages::{AttemptId, FollowOrder, Followed, SlotFiles, WorkerId, WorkerOffer};
use crate::cluster::standby::{Candidate, StandbyStatus, Standbys};
use crate::ids::{Epoch, JobId};

impl Fleet {
    /// An attempt runs on the slots that its job has, and wants so many standbys for each.
    pub fn on_attempt(&mut self, attempt: &AttemptId, wanted: u32, store: &str) {
        let slots = self.used.get(&attempt.job).map_or(0, Vec::len);
        if wanted == 0 || slots == 0 {
            self.standbys.remove(&attempt.job);
            return;
        }
        let standbys = self.standbys.entry(attempt.job.clone()).or_insert_with(|| Standbys::new(wanted, store));
        standbys.on_attempt(attempt.generation, slots, wanted, store);
        for (worker, followed) in &self.keepers {
            hear(standbys, &attempt.job, worker, followed);
        }
    }

    /// An epoch of an attempt is complete, and these files restore it.
    pub fn on_complete(&mut self, attempt: &AttemptId, epoch: Epoch, files: &SlotFiles) {
        if let Some(standbys) = self.standbys.get_mut(&attempt.job) {
            standbys.on_complete(attempt.generation, epoch, files.clone());
        }
    }

    /// A worker says what it follows; none: it keeps no copies.
    pub fn on_followed(&mut self, worker: &WorkerId, followed: Option<&[Followed]>) {
        if !self.workers.contains_key(worker) {
            return;
        }
        let Some(followed) = followed else {
            self.keepers.remove(worker);
            return;
        };
        for (job, standbys) in &mut self.standbys {
            hear(standbys, job, worker, followed);
        }
        self.keepers.insert(worker.clone(), followed.to_vec());
    }

    /// Sees to it that slots have their standbys, and gives what workers have to be told.
    pub fn stand_by(&mut self) -> Vec<(WorkerId, FollowOrder)> {
        if self.standbys.is_empty() {
            return Vec::new();
        }
        let free =
            self.free_slots().into_iter().filter(|(worker, free)| *free > 0 && self.keepers.contains_key(worker));
        let candidate = |(worker, free): (WorkerId, u32)| {
            let host = host(&self.workers[&worker].offer).to_owned();
            (worker, Candidate { free, host })
        };
        let candidates: BTreeMap<WorkerId, Candidate> = free.map(candidate).collect();
        let mut orders = Vec::new();
        for (job, standbys) in &mut self.standbys {
            let slots = self.used.get(job).map(Vec::as_slice).unwrap_or_default();
            let with_host = |worker: &WorkerId| {
                let host = self.workers.get(worker).map(|known| host(&known.offer).to_owned());
                (worker.clone(), host)
            };
            let running: Vec<_> = slots.iter().map(with_host).collect();
            standbys.review(&running, &candidates);
            orders.extend(standbys.orders(job));
        }
        orders
    }

    /// The job has ended: nobody stands by for it any more.
    pub fn on_ended(&mut self, job: &JobId) {
        self.standbys.remove(job);
    }

    /// A worker did not take an order: it is told again.
    pub fn on_untold(&mut self, worker: &WorkerId, job: &JobId) {
        if let Some(standbys) = self.standbys.get_mut(job) {
            standbys.on_untold(worker);
        }
    }

    /// Who stands by for a job; none where nobody is to.
    #[must_use]
    pub fn standbys(&self, job: &JobId) -> Option<StandbyStatus> {
        self.standbys.get(job).map(Standbys::status)
    }
}

/// Tells the standbys of a job what a worker says of it.
fn hear(standbys: &mut Standbys, job: &JobId, worker: &WorkerId, followed: &[Followed]) {
    for Followed { attempt, slots } in followed.iter().filter(|followed| followed.attempt.job == *job) {
        standbys.on_followed(worker, attempt.generation, slots);
    }
}

/// The machine of a worker, as others reach it.
fn host(offer: &WorkerOffer) -> &str {
    offer.data_address.rsplit_once(':').map_or(offer.data_address.as_str(), |(host, _)| host)
}
