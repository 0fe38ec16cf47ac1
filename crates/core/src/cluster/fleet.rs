//! The leader's view of its workers: who is there, who counts as lost, and on which slots a job runs.

mod following;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::cuts::Cuts;
use super::messages::{Followed, WorkerId, WorkerOffer};
use super::placement;
use super::standby::Standbys;
use crate::ids::JobId;
use crate::time::Timestamp;

/// When a worker counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// After so many milliseconds without a word. A closed connection counts at once.
    pub silence_ms: i64,
}

impl Default for FleetConfig {
    /// Three seconds.
    fn default() -> Self {
        FleetConfig { silence_ms: 3_000 }
    }
}

/// A worker that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who.
    pub worker: WorkerId,
    /// Why, for the user.
    pub reason: String,
    /// The jobs that ran on it.
    pub jobs: BTreeSet<JobId>,
}

/// Why a job cannot run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Slots that it needs.
    pub needed: u32,
    /// Slots that nobody uses.
    pub free: u32,
    /// Slots that there are.
    pub total: u32,
    /// Workers that there are.
    pub workers: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { needed, free, total, workers } = self;
        write!(
            f,
            "waits for slots: it needs {needed}, {free} of {total} on {workers} workers are free; \
             start workers, stop other jobs, or rescale the job"
        )
    }
}

struct Known {
    offer: WorkerOffer,
    heard_at: Timestamp,
}

/// The workers of a cluster and the slots in use. Nothing of it is durable: workers tell a new leader anew.
#[derive(Default)]
pub struct Fleet {
    config: FleetConfig,
    workers: BTreeMap<WorkerId, Known>,
    /// The worker of each slot of each job that runs.
    used: BTreeMap<JobId, Vec<WorkerId>>,
    /// Where jobs ran before; there lie copies of their state.
    before: BTreeMap<JobId, Vec<WorkerId>>,
    /// Names that several workers have had at a time, so that they do not tell the next life of one.
    shared_names: BTreeSet<String>,
    cuts: Cuts,
    /// Who stands by for the slots of jobs that want it.
    standbys: BTreeMap<JobId, Standbys>,
    /// Workers that keep local copies, so that they can stand by, with what they said last of what they follow.
    keepers: BTreeMap<WorkerId, Vec<Followed>>,
}

impl Fleet {
    /// Nobody is there.
    #[must_use]
    pub fn new(config: FleetConfig) -> Fleet {
        Fleet { config, ..Fleet::default() }
    }

    /// A worker registers.
    pub fn on_joined(&mut self, now: Timestamp, offer: WorkerOffer) {
        let name = offer.worker.name();
        if self.workers.keys().any(|other| *other != offer.worker && other.name() == name) {
            self.shared_names.insert(name.to_owned());
        }
        self.workers.insert(offer.worker.clone(), Known { offer, heard_at: now });
    }

    /// A worker has said something.
    pub fn on_heard(&mut self, now: Timestamp, worker: &WorkerId) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.heard_at = now;
        }
    }

    /// A worker could not reach another one.
    pub fn on_unreachable(&mut self, now: Timestamp, from: &WorkerId, to: &WorkerId) {
        if self.workers.contains_key(from) && self.workers.contains_key(to) {
            self.cuts.note(now, from, to);
        }
    }

    /// The connection to a worker has ended. Nothing where it was lost before.
    pub fn on_closed(&mut self, worker: &WorkerId, reason: &str) -> Option<Lost> {
        self.workers.remove(worker)?;
        self.cuts.on_lost(worker);
        self.keepers.remove(worker);
        self.standbys.values_mut().for_each(|standbys| standbys.on_gone(worker));
        let jobs = self.used.iter().filter(|(_, slots)| slots.contains(worker)).map(|(job, _)| job.clone()).collect();
        Some(Lost { worker: worker.clone(), reason: format!("worker {worker} is lost: {reason}"), jobs })
    }

    /// Workers that have been silent for too long.
    pub fn on_tick(&mut self, now: Timestamp) -> Vec<Lost> {
        self.cuts.on_tick(now);
        let limit = self.config.silence_ms;
        let silent = self.workers.iter().filter(|(_, known)| now.since_ms(known.heard_at) >= limit);
        let silent: Vec<WorkerId> = silent.map(|(id, _)| id.clone()).collect();
        let reason = format!("nothing was heard of it for {limit} ms");
        silent.iter().filter_map(|worker| self.on_closed(worker, &reason)).collect()
    }

    /// No new subtasks for the workers of this name ([`WorkerId::is_named`]), and the jobs there move away as soon as there
    /// is room for them. Gives the workers that it means.
    pub fn drain(&mut self, name: &str) -> Vec<WorkerId> {
        let mut drained = Vec::new();
        for (id, known) in self.workers.iter_mut().filter(|(id, _)| id.is_named(name)) {
            known.offer.draining = true;
            drained.push(id.clone());
        }
        drained
    }

    /// Jobs that run on workers which are drained and for whose subtasks there is room on others: all that move at once
    /// fit in beside each other.
    #[must_use]
    pub fn to_move(&self) -> Vec<JobId> {
        let is_draining = |worker: &WorkerId| self.workers.get(worker).is_some_and(|known| known.offer.draining);
        let mut free: usize = self.free_slots().values().map(|slots| *slots as usize).sum();
        let mut moving = Vec::new();
        for (job, slots) in &self.used {
            let leaving = slots.iter().filter(|worker| is_draining(worker)).count();
            if leaving > 0 && leaving <= free {
                free -= leaving;
                moving.push(job.clone());
            }
        }
        moving
    }

    /// Finds slots for a job and takes them; those that it had before are free again. Slots go to where the job's state
    /// lies or is followed ([`placement::choose`]), and otherwise to the workers with most free slots, so that jobs spread. Workers of
    /// which it is known that they cannot reach each other do not come together where that can be avoided.
    ///
    /// # Errors
    /// What is missing. The job has no slots then.
    pub fn place(&mut self, job: &JobId, needed: u32) -> Result<Vec<WorkerOffer>, Shortage> {
        self.release(job);
        let mut free = self.free_slots();
        let sum: u32 = free.values().sum();
        if sum < needed {
            let total = self.workers.values().map(|known| known.offer.slots).sum();
            return Err(Shortage { needed, free: sum, total, workers: self.workers.len() });
        }
        free = self.cuts.avoid(&free, needed);
        let before = self.before.get(job).map(Vec::as_slice).unwrap_or_default();
        let heir = |worker| placement::heir(worker, self.workers.keys(), &self.shared_names);
        let before: Vec<Option<WorkerId>> = before.iter().map(heir).collect();
        let standbys = self.standbys.get(job).map(Standbys::by_slot).unwrap_or_default();
        let slots = placement::choose(&before, &standbys, needed, free);
        let offers = slots.iter().map(|worker| self.workers[worker].offer.clone()).collect();
        self.before.insert(job.clone(), slots.clone());
        self.used.insert(job.clone(), slots);
        Ok(offers)
    }

    /// The job runs on these slots already, whether their workers are there yet or not: nobody else gets them.
    pub fn occupy(&mut self, job: &JobId, slots: Vec<WorkerId>) {
        self.before.insert(job.clone(), slots.clone());
        self.used.insert(job.clone(), slots);
    }

    /// The job runs no longer; its slots are free.
    pub fn release(&mut self, job: &JobId) {
        self.used.remove(job);
        if let Some(standbys) = self.standbys.get_mut(job) {
            standbys.on_released();
        }
    }

    /// The job is gone for good.
    pub fn forget(&mut self, job: &JobId) {
        self.release(job);
        self.before.remove(job);
        self.standbys.remove(job);
    }

    /// Every worker with its slots in use.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerOffer, u32)> {
        self.workers.values().map(|known| (&known.offer, self.in_use(&known.offer.worker)))
    }

    fn in_use(&self, worker: &WorkerId) -> u32 {
        let slots = self.used.values().flatten().filter(|slot| *slot == worker).count();
        u32::try_from(slots).unwrap_or(u32::MAX)
    }

    fn free_slots(&self) -> BTreeMap<WorkerId, u32> {
        let open = self.workers.iter().filter(|(_, known)| !known.offer.draining);
        open.map(|(id, known)| (id.clone(), known.offer.slots.saturating_sub(self.in_use(id)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(slots: &[u32]) -> Fleet {
        let mut fleet = Fleet::new(FleetConfig { silence_ms: 1_000 });
        for (index, slots) in slots.iter().enumerate() {
            fleet.on_joined(Timestamp(0), offer(index, *slots));
        }
        fleet
    }

    fn offer(index: usize, slots: u32) -> WorkerOffer {
        WorkerOffer { worker: worker(index), data_address: format!("host{index}:1"), slots, draining: false }
    }

    fn worker(index: usize) -> WorkerId {
        WorkerId(format!("w{index}"))
    }

    fn job(name: &str) -> JobId {
        JobId::new(name).unwrap()
    }

    fn names(offers: &[WorkerOffer]) -> String {
        offers.iter().map(|offer| offer.worker.0.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn subtasks_spread_and_no_slot_is_used_twice() {
        let mut fleet = fleet(&[2, 2, 1]);
        assert_eq!(names(&fleet.place(&job("a"), 3).unwrap()), "w0 w1 w0");
        assert_eq!(names(&fleet.place(&job("b"), 2).unwrap()), "w1 w2");
        let shortage = fleet.place(&job("c"), 1).unwrap_err();
        assert_eq!(shortage, Shortage { needed: 1, free: 0, total: 5, workers: 3 });
        fleet.release(&job("a"));
        assert_eq!(names(&fleet.place(&job("c"), 2).unwrap()), "w0 w0");
    }

    #[test]
    fn a_job_goes_back_to_where_it_was_and_only_lost_slots_move() {
        let mut fleet = fleet(&[2, 2, 2]);
        assert_eq!(names(&fleet.place(&job("a"), 3).unwrap()), "w0 w1 w2");
        let lost = fleet.on_closed(&worker(1), "connection closed").unwrap();
        assert_eq!(lost.jobs, BTreeSet::from([job("a")]));
        assert_eq!(fleet.on_closed(&worker(1), "again"), None);
        assert_eq!(names(&fleet.place(&job("a"), 3).unwrap()), "w0 w0 w2");
        assert_eq!(fleet.place(&job("a"), 5).unwrap_err().free, 4);
        assert_eq!(names(&fleet.place(&job("a"), 2).unwrap()), "w0 w2", "the memory outlives a shortage");
        fleet.forget(&job("a"));
        assert_eq!(names(&fleet.place(&job("a"), 3).unwrap()), "w0 w2 w0", "another job of this name");
    }

    #[test]
    fn the_next_life_of_a_worker_gets_what_it_had() {
        let mut fleet = Fleet::new(FleetConfig::default());
        let life = |name: &str, life| {
            let worker = WorkerId(format!("{name}@host:{life}#{life}"));
            WorkerOffer { worker, data_address: format!("host:{life}"), slots: 2, draining: false }
        };
        for name in ["a", "b", "c"] {
            fleet.on_joined(Timestamp(0), life(name, 1));
        }
        assert_eq!(names(&fleet.place(&job("j"), 3).unwrap()), "a@host:1#1 b@host:1#1 c@host:1#1");
        for name in ["a", "b"] {
            fleet.on_closed(&life(name, 1).worker, "killed");
        }
        for name in ["b", "a"] {
            fleet.on_joined(Timestamp(0), life(name, 2));
        }
        assert_eq!(names(&fleet.place(&job("j"), 3).unwrap()), "a@host:2#2 b@host:2#2 c@host:1#1");
        // Two of one name at a time: it says nothing any more.
        fleet.on_joined(Timestamp(0), life("a", 3));
        fleet.on_closed(&life("a", 2).worker, "killed");
        fleet.on_joined(Timestamp(0), WorkerOffer { slots: 4, ..life("d", 4) });
        assert_eq!(names(&fleet.place(&job("j"), 3).unwrap()), "d@host:4#4 b@host:2#2 c@host:1#1");
    }

    #[test]
    fn slots_of_a_job_that_runs_already_are_nobody_elses() {
        let mut fleet = fleet(&[2]);
        fleet.occupy(&job("a"), vec![worker(0), worker(1)]);
        assert_eq!(fleet.place(&job("b"), 2).unwrap_err().free, 1);
        fleet.on_joined(Timestamp(0), offer(1, 2));
        assert_eq!(names(&fleet.place(&job("b"), 2).unwrap()), "w0 w1");
        assert_eq!(names(&fleet.place(&job("a"), 2).unwrap()), "w0 w1", "where it was");
    }

    #[test]
    fn silence_is_loss_and_a_word_is_life() {
        let mut fleet = fleet(&[1, 1]);
        fleet.place(&job("a"), 1).unwrap();
        fleet.on_heard(Timestamp(600), &worker(1));
        assert_eq!(fleet.on_tick(Timestamp(999)), []);
        let lost = fleet.on_tick(Timestamp(1_000));
        assert_eq!(lost.iter().map(|l| &l.worker).collect::<Vec<_>>(), [&worker(0)]);
        assert_eq!(lost[0].jobs, BTreeSet::from([job("a")]));
        assert_eq!(fleet.on_tick(Timestamp(1_599)), []);
        fleet.on_heard(Timestamp(1_000), &worker(0));
        assert_eq!(fleet.workers().count(), 1, "who is lost must register anew");
        assert_eq!(fleet.on_tick(Timestamp(1_600)).len(), 1);
    }

    #[test]
    fn workers_that_cannot_reach_each_other_do_not_come_together_where_there_are_others() {
        let mut fleet = fleet(&[2, 2, 2]);
        assert_eq!(names(&fleet.place(&job("a"), 4).unwrap()), "w0 w1 w2 w0");
        fleet.on_unreachable(Timestamp(0), &worker(1), &worker(0));
        fleet.on_unreachable(Timestamp(0), &worker(1), &worker(9));
        assert_eq!(names(&fleet.place(&job("a"), 4).unwrap()), "w0 w2 w2 w0");
        assert_eq!(fleet.place(&job("a"), 5).unwrap().len(), 5, "there are none to spare");
        fleet.on_unreachable(Timestamp(10), &worker(1), &worker(2));
        let free = fleet.place(&job("a"), 3).unwrap();
        assert!(!names(&free).contains("w1"), "{}", names(&free));
        for index in 0..3 {
            fleet.on_heard(Timestamp(70_000), &worker(index));
        }
        fleet.on_tick(Timestamp(70_000));
        fleet.release(&job("a"));
        assert_eq!(names(&fleet.place(&job("b"), 4).unwrap()), "w0 w1 w2 w0", "it is tried again");
    }

    #[test]
    fn a_drained_worker_keeps_what_it_runs_and_gets_nothing_new() {
        let mut fleet = fleet(&[2, 2]);
        fleet.place(&job("a"), 2).unwrap();
        assert_eq!(fleet.drain("w0"), [worker(0)]);
        assert_eq!(names(&fleet.place(&job("b"), 1).unwrap()), "w1");
        assert_eq!(fleet.place(&job("a"), 2).unwrap_err().free, 1);
        assert_eq!(fleet.drain("w9"), []);
    }

    #[test]
    fn jobs_move_away_from_a_drained_worker_when_there_is_room_for_them() {
        let mut fleet = fleet(&[2, 1]);
        fleet.place(&job("b"), 1).unwrap();
        fleet.place(&job("a"), 2).unwrap();
        assert_eq!(fleet.to_move(), [], "nothing is drained");
        fleet.drain("w0");
        assert_eq!(fleet.to_move(), [], "there is no room");
        fleet.on_joined(Timestamp(0), offer(2, 1));
        assert_eq!(fleet.to_move(), [job("a")], "one slot is enough for the subtask that was on it");
        assert_eq!(names(&fleet.place(&job("a"), 2).unwrap()), "w2 w1");
        assert_eq!(fleet.to_move(), [], "there is no room for the other one");
        // The worker tells a new leader.
        let offers: Vec<WorkerOffer> = fleet.workers().map(|(offer, _)| offer.clone()).collect();
        let mut next = Fleet::new(FleetConfig::default());
        offers.into_iter().for_each(|offer| next.on_joined(Timestamp(0), offer));
        assert_eq!(next.place(&job("c"), 3).unwrap_err().free, 2);
    }

    #[test]
    fn jobs_that_move_at_once_have_room_beside_each_other() {
        let mut fleet = fleet(&[2]);
        fleet.place(&job("a"), 1).unwrap();
        fleet.place(&job("b"), 1).unwrap();
        fleet.drain("w0");
        fleet.on_joined(Timestamp(0), offer(1, 1));
        assert_eq!(fleet.to_move(), [job("a")]);
        fleet.on_joined(Timestamp(0), offer(2, 1));
        assert_eq!(fleet.to_move(), [job("a"), job("b")]);
    }
}
