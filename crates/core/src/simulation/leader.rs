//! A coordinator while it leads: its workers, and a driver for each job that has not ended. What it decides about
//! workers is decided by the real fleet; the rest mirrors the coordinator's own code step by step.

use std::collections::BTreeMap;

use super::driver::Driver;
use super::world::World;
use crate::cluster::messages::{AttemptId, FromWorker, ToWorker, WorkerId, WorkerOffer};
use crate::cluster::{Fleet, FleetConfig, Lost};
use crate::ids::{Generation, JobId, OperatorId, SubtaskId};
use crate::protocol::{Failure, FromSubtask};
use crate::time::Timestamp;

/// A worker is lost after so long a silence.
const SILENCE_MS: i64 = 400;
/// Wait before a job whose driver has ended before its time is driven again.
const DRIVE_AGAIN_MS: i64 = 20;

#[derive(Default)]
pub(super) struct Coordinator {
    /// Counts its processes.
    pub(super) boot: u64,
    pub(super) stalled_until: i64,
    /// How far its time of day is from that of the others.
    pub(super) skew_ms: i64,
    pub(super) leading: Option<Leading>,
}

pub(super) struct Leading {
    term: u64,
    pub(super) fleet: Fleet,
    /// The newest connection of each worker.
    pub(super) links: BTreeMap<WorkerId, u64>,
    /// Where the attempts run whose words are heard.
    pub(super) routes: BTreeMap<AttemptId, Vec<WorkerOffer>>,
    fences: BTreeMap<JobId, Generation>,
    /// The attempt that has a job's slots.
    pub(super) holders: BTreeMap<JobId, Generation>,
    pub(super) drivers: BTreeMap<JobId, Driver>,
    not_before: BTreeMap<JobId, i64>,
}

impl World {
    pub(super) fn leading(&mut self, at: usize) -> &mut Leading {
        self.coordinators[at].leading.as_mut().expect("only a leader does this")
    }

    /// Follows what the agreement says of who leads, and sees to it that every job is driven.
    pub(super) fn coordinator_turn(&mut self) {
        let at = self.random.below(self.coordinators.len());
        if !self.raft.members[at].up || self.coordinators[at].stalled_until > self.now {
            return;
        }
        // One that reaches nobody finds out some time.
        if self.raft.claims(at) && !self.raft.is_led() && self.random.one_in(15) {
            self.raft.give_up_lead(at);
        }
        let leads = self.raft.leads(at);
        // Drivers may go on for a while before it notices that it leads no longer, or leads again.
        let notices = self.random.one_in(3);
        if notices && self.coordinators[at].leading.as_ref().map(|leading| leading.term) != leads {
            self.stand_down(at);
            if let Some(term) = leads {
                self.lead(at, term);
            }
        }
        if leads.is_some() && self.coordinators[at].leading.is_some() {
            let now = Timestamp(self.now);
            let lost = self.leading(at).fleet.on_tick(now);
            for lost in lost {
                self.saw("a worker was silent for too long");
                self.on_lost(at, &lost);
            }
            self.reconcile(at);
            self.move_drained(at);
        }
    }

    fn lead(&mut self, at: usize, term: u64) {
        self.say(|| format!("c{at} leads in term {term}"));
        let fences = self.raft.members[at].state.fences();
        self.coordinators[at].leading = Some(Leading {
            term,
            fleet: Fleet::new(FleetConfig { silence_ms: SILENCE_MS }),
            links: BTreeMap::new(),
            routes: BTreeMap::new(),
            fences,
            holders: BTreeMap::new(),
            drivers: BTreeMap::new(),
            not_before: BTreeMap::new(),
        });
    }

    /// It leads no longer: connections end, drivers are dropped wherever they stand.
    pub(super) fn stand_down(&mut self, at: usize) {
        let Some(leading) = self.coordinators[at].leading.take() else { return };
        self.say(|| format!("c{at} leads no longer"));
        self.connections.values_mut().filter(|c| c.coordinator == at).for_each(|c| c.coordinator_closed = true);
        for driver in leading.drivers.into_values() {
            self.drop_driver(driver);
        }
    }

    pub(super) fn drop_driver(&mut self, driver: Driver) {
        if driver.is_waiting() {
            self.saw("a record's fate was unknown to its proposer");
        }
        driver.into_unfinished().for_each(|effect| self.leave_behind(effect));
    }

    fn reconcile(&mut self, at: usize) {
        let now = self.now;
        let jobs = self.raft.members[at].state.jobs.iter().filter(|(_, entry)| entry.active);
        let active: Vec<_> = jobs.map(|(job, entry)| (job.clone(), entry.wish, entry.submission.parallelism)).collect();
        let leading = self.leading(at);
        leading.not_before.retain(|_, until| *until > now);
        for (job, wish, parallelism) in active {
            match leading.drivers.get_mut(&job) {
                Some(driver) => driver.tell(wish, parallelism),
                None if leading.not_before.contains_key(&job) => {}
                None => _ = leading.drivers.insert(job.clone(), Driver::new(job, parallelism)),
            }
        }
    }

    /// A user has a worker drained.
    pub(super) fn drain(&mut self, at: usize, worker: usize) {
        let name = self.workers[worker].id.0.clone();
        let Some(leading) = &mut self.coordinators[at].leading else { return };
        for worker in leading.fleet.drain(&name) {
            if let Some(link) = leading.links.get(&worker).copied() {
                self.saw("a worker was drained");
                return self.send(link, ToWorker::Drain);
            }
        }
    }

    /// Jobs move away from workers that are drained: a last checkpoint, and on from it where there is room.
    fn move_drained(&mut self, at: usize) {
        let leading = self.leading(at);
        for job in leading.fleet.to_move() {
            let Some(generation) = leading.holders.get(&job).copied() else { continue };
            if let Some(driver) = leading.drivers.get_mut(&job) {
                driver.tell_to_move(generation);
            }
        }
    }

    /// A driver has ended, as it should or before its time.
    pub(super) fn on_driver_over(&mut self, at: usize, driver: Driver) {
        let until = self.now + DRIVE_AGAIN_MS;
        if driver.has_slots() {
            self.release(at, &driver.attempt());
        }
        if let Some(leading) = &mut self.coordinators[at].leading {
            leading.not_before.insert(driver.job.clone(), until);
        }
        self.drop_driver(driver);
    }

    pub(super) fn is_linked(&self, at: usize, connection: u64) -> bool {
        let leading = self.coordinators[at].leading.as_ref();
        leading.is_some_and(|leading| leading.links.values().any(|link| *link == connection))
    }

    /// A word of a worker.
    pub(super) fn hear_worker(&mut self, at: usize, connection: u64, message: FromWorker) {
        if let FromWorker::Register(offer) = message {
            return self.join(at, connection, offer);
        }
        let now = Timestamp(self.now);
        let leading = self.coordinators[at].leading.as_mut();
        let linked = leading.and_then(|l| Some((l.links.iter().find(|(_, link)| **link == connection)?.0.clone(), l)));
        let Some((worker, leading)) = linked else {
            // It counts as lost.
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.coordinator_closed = true;
            }
            return;
        };
        leading.fleet.on_heard(now, &worker);
        match message {
            // Workers here have no network of their own between them.
            FromWorker::Register(_) | FromWorker::Heartbeat { .. } | FromWorker::Unreachable { .. } => {}
            FromWorker::Deployed { attempt, result } => {
                if let Some(driver) = leading.listener(&attempt) {
                    driver.deployed.push_back((worker, result));
                }
            }
            FromWorker::Report { attempt, event } => {
                if let Some(driver) = leading.listener(&attempt) {
                    driver.events.push_back(event);
                }
            }
        }
    }

    fn join(&mut self, at: usize, connection: u64, offer: WorkerOffer) {
        if self.coordinators[at].leading.is_none() {
            let leader = (0..self.coordinators.len()).find(|other| self.raft.claims(*other));
            self.send(connection, ToWorker::NotLeader { leader: leader.map(|leader| leader.to_string()) });
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.coordinator_closed = true;
            }
            return;
        }
        self.close_link(at, &offer.worker, "it has connected anew");
        let now = Timestamp(self.now);
        let leading = self.leading(at);
        let (term, silence_ms) = (leading.term, SILENCE_MS as u64);
        let fences = leading.fences.iter().map(|(job, least)| (job.clone(), *least)).collect();
        leading.links.insert(offer.worker.clone(), connection);
        leading.fleet.on_joined(now, offer);
        self.send(connection, ToWorker::Welcome { term, silence_ms, fences });
    }

    /// The connection of a worker has ended.
    pub(super) fn link_closed(&mut self, at: usize, connection: u64, reason: &str) {
        let leading = self.coordinators[at].leading.as_ref();
        let worker = leading.and_then(|l| Some(l.links.iter().find(|(_, link)| **link == connection)?.0.clone()));
        if let Some(worker) = worker {
            self.close_link(at, &worker, reason);
        }
    }

    fn close_link(&mut self, at: usize, worker: &WorkerId, reason: &str) {
        if let Some(lost) = self.leading(at).fleet.on_closed(worker, reason) {
            self.on_lost(at, &lost);
        }
    }

    fn on_lost(&mut self, at: usize, lost: &Lost) {
        let leading = self.leading(at);
        let link = leading.links.remove(&lost.worker);
        let routes: Vec<_> = leading.routes.iter().map(|(attempt, slots)| (attempt.clone(), slots.clone())).collect();
        for (attempt, slots) in routes {
            let Some(index) = slots.iter().position(|slot| slot.worker == lost.worker) else { continue };
            let Some(driver) = leading.listener(&attempt) else { continue };
            let failure = Failure { message: lost.reason.clone(), retryable: true, consequence: false };
            driver.deployed.push_back((lost.worker.clone(), Err(failure.clone())));
            let subtask = SubtaskId { operator: OperatorId(0), index: index as u32 };
            driver.events.push_back(FromSubtask::Failed { subtask, generation: attempt.generation, failure });
        }
        if let Some(connection) = link.and_then(|link| self.connections.get_mut(&link)) {
            connection.coordinator_closed = true;
        }
    }

    /// Nothing of the job below the generation may run anywhere.
    pub(super) fn fence(&mut self, at: usize, job: &JobId, generation: Generation) {
        let leading = self.leading(at);
        let least = leading.fences.entry(job.clone()).or_default();
        *least = generation.max(*least);
        let word = ToWorker::Fence { job: job.clone(), generation: *least };
        let links: Vec<u64> = leading.links.values().copied().collect();
        links.into_iter().for_each(|link| self.send(link, word.clone()));
    }

    /// An attempt gives up its slots; what of it still runs is stopped.
    pub(super) fn release(&mut self, at: usize, attempt: &AttemptId) {
        let leading = self.leading(at);
        leading.routes.remove(attempt);
        if leading.holders.get(&attempt.job) == Some(&attempt.generation) {
            leading.holders.remove(&attempt.job);
            leading.fleet.release(&attempt.job);
        }
        self.fence(at, &attempt.job, attempt.generation.next());
    }

    /// Slots for an attempt, if there are enough.
    pub(super) fn place(&mut self, at: usize, attempt: &AttemptId, needed: u32) -> Option<Vec<WorkerOffer>> {
        let leading = self.leading(at);
        let slots = leading.fleet.place(&attempt.job, needed);
        if slots.is_ok() {
            leading.holders.insert(attempt.job.clone(), attempt.generation);
        }
        let drained = slots.iter().flatten().find(|offer| offer.draining);
        assert_eq!(drained, None, "a drained worker gets something new");
        let overfull = leading.fleet.workers().find(|(offer, used)| *used > offer.slots).map(|(o, _)| o.worker.clone());
        assert_eq!(overfull, None, "a slot is used twice");
        if slots.is_err() {
            self.saw("a job waited for slots");
        }
        slots.ok()
    }
}

impl Leading {
    /// The driver that runs the attempt.
    fn listener(&mut self, attempt: &AttemptId) -> Option<&mut Driver> {
        self.routes.get(attempt)?;
        self.drivers.get_mut(&attempt.job)
    }
}
