//! The whole of a simulated cluster, and its scheduler: every step lets one part of it do one thing, by chance.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::Connection;
use super::faults::Faults;
use super::judge::Judge;
use super::leader::Coordinator;
use super::plan::Plan;
use super::raft::Raft;
use super::random::{Random, Trace};
use super::store::{Effect, Store};
use super::worker::Worker;
use crate::checkpoint::CheckpointEvent;
use crate::cluster::messages::{AttemptOrder, WorkerId};
use crate::ids::JobId;
use crate::protocol::Committable;

/// Steps with faults, and steps after which every job must have finished; 5,000 seeds need at most half of them.
const FAULTS_UNTIL: u64 = 2_500;
const STEPS_MAX: u64 = 30_000;
/// Effects of processes that were given up, and reports of earlier attempts, that are kept.
const LEFT_MAX: usize = 40;

pub(super) struct World {
    pub(super) random: Random,
    /// Milliseconds, of a clock that never steps back.
    pub(super) now: i64,
    pub(super) trace: Trace,
    pub(super) faults: Faults,
    pub(super) raft: Raft,
    pub(super) coordinators: Vec<Coordinator>,
    pub(super) workers: Vec<Worker>,
    /// Workers that no coordinator can be reached from.
    pub(super) cut_off: Vec<bool>,
    /// Pairs of workers that do not reach each other.
    pub(super) data_cuts: BTreeSet<(usize, usize)>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) last_connection: u64,
    pub(super) store: Store,
    pub(super) judge: Judge,
    pub(super) plans: BTreeMap<JobId, Plan>,
    /// What processes that were given up may still do.
    left_behind: Vec<Effect>,
    /// Reports of attempts, for those who come later.
    old_reports: Vec<(JobId, CheckpointEvent)>,
    /// Orders that processes of workers were given.
    pub(super) old_orders: Vec<(WorkerId, Box<AttemptOrder>)>,
    /// How often something has happened that must happen in some run.
    pub(super) seen: BTreeMap<&'static str, u64>,
}

/// What a run came to.
pub(super) struct Run {
    pub(super) hash: u64,
    pub(super) lines: Vec<String>,
    pub(super) steps: u64,
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) fn new(seed: u64, with_text: bool) -> World {
        let mut random = Random::new(seed);
        let faults = Faults::new(&mut random);
        let jobs = if random.one_in(4) { ["a", "b"].as_slice() } else { &["a"] };
        let plans: BTreeMap<JobId, Plan> =
            jobs.iter().map(|name| (JobId::new(*name).expect("a legal name"), faults.plan(&mut random))).collect();
        World {
            random,
            now: 1_000,
            trace: Trace::new(with_text),
            faults,
            raft: Raft::new(3),
            coordinators: (0..3).map(|_| Coordinator::default()).collect(),
            workers: (0..3).map(Worker::new).collect(),
            cut_off: vec![false; 3],
            data_cuts: BTreeSet::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            store: Store::default(),
            judge: Judge::new(plans.clone()),
            plans,
            left_behind: Vec::new(),
            old_reports: Vec::new(),
            old_orders: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Runs until every job has finished and nothing of it runs any more.
    pub(super) fn run(mut self) -> Run {
        for step in 0..STEPS_MAX {
            match step {
                0..FAULTS_UNTIL => self.fault_turn(),
                FAULTS_UNTIL => self.heal(),
                _ if self.is_over() => return self.conclude(step),
                _ => {}
            }
            self.step();
        }
        let jobs: Vec<_> =
            self.judge.state.jobs.iter().map(|(job, e)| format!("{job} {:?} {:?}", e.active, e.wish)).collect();
        panic!("{} steps after the last fault the jobs have not finished: {jobs:?}", STEPS_MAX - FAULTS_UNTIL);
    }

    fn is_over(&self) -> bool {
        let finished = self.plans.keys().all(|job| self.judge.is_finished(job));
        finished && self.left_behind.is_empty() && self.workers.iter().all(Worker::is_quiet)
    }

    fn conclude(mut self, steps: u64) -> Run {
        let (epochs, replays, leaders) = (self.judge.epochs, self.judge.replays, self.raft.leaders);
        for (what, times) in [("epochs", epochs), ("epochs run again", replays), ("leaders", leaders)] {
            self.seen.insert(what, times);
        }
        self.seen.extend(self.judge.ends.iter().map(|(end, times)| (*end, *times)));
        let published: Vec<u64> = self.store.published.values().map(|rows| rows.len() as u64).collect();
        published.into_iter().for_each(|rows| self.trace.mark(rows));
        Run { hash: self.trace.hash(), lines: self.trace.lines().to_vec(), steps, seen: self.seen }
    }

    fn step(&mut self) {
        let action = self.random.below(32);
        match action {
            0..=9 => {
                let worker = self.random.below(self.workers.len());
                self.subtask_turn(worker);
            }
            10..=14 => (0..3).for_each(|_| self.connection_turn()),
            15..=18 => self.driver_turn(),
            19..=23 => self.raft_turn(),
            24 | 25 => {
                let worker = self.random.below(self.workers.len());
                self.worker_turn(worker);
            }
            26 | 27 => self.coordinator_turn(),
            28 => self.user_turn(),
            29 => self.left_behind_turn(),
            _ => self.now += 1 + self.random.below(12) as i64,
        }
        self.trace.mark(action as u64);
        self.trace.mark(self.now as u64);
        self.trace.mark(self.random.next());
    }

    fn raft_turn(&mut self) {
        let members = self.coordinators.len();
        let leader = (0..members).filter(|at| self.raft.claims(*at)).nth(usize::from(self.random.one_in(3)));
        let member = self.random.below(members);
        if self.coordinators[member].stalled_until > self.now {
            return;
        }
        if let Some(leader) = leader.filter(|at| self.coordinators[*at].stalled_until <= self.now) {
            self.raft.replicate(leader, member);
        }
        for member in leader.into_iter().chain([member]) {
            while self.raft.apply(member) {}
        }
        if !self.raft.is_led() && self.random.one_in(6) {
            self.raft.elect(member);
        }
        for command in self.raft.fresh() {
            self.say(|| format!("decided {command:?}"));
            self.judge.on_decided(&command, &self.store);
        }
    }

    /// Does something to the outside, now.
    pub(super) fn apply(&mut self, effect: &Effect) {
        self.say(|| format!("does {effect:?}"));
        self.judge.on_effect(effect, &self.store);
        match effect {
            Effect::Put { path, object } => _ = self.store.objects.insert(path.clone(), object.clone()),
            Effect::Stage { name, staged } => {
                if !self.store.published.contains_key(name) {
                    self.store.staged.insert(name.clone(), staged.clone());
                }
            }
            Effect::Publish { committables, .. } => {
                for Committable { payload } in committables.values().flatten() {
                    if let Some(staged) = self.store.staged.remove(payload) {
                        self.store.published.insert(payload.clone(), staged.rows);
                    }
                    let shown = self.store.published.contains_key(payload);
                    assert!(shown, "I2: {payload} is to be published and is nowhere");
                }
            }
            Effect::CleanUp { job, below } => {
                self.store.staged.retain(|_, staged| staged.job != *job || staged.generation >= *below);
            }
            Effect::RemoveOrphans { job, named, below } => {
                for path in self.store.orphans(job, named, *below) {
                    self.store.objects.remove(&path);
                }
            }
            Effect::Delete { paths } => paths.iter().for_each(|path| _ = self.store.objects.remove(path)),
        }
    }

    /// A process was given up while it did something: perhaps it is done later.
    pub(super) fn leave_behind(&mut self, effect: Effect) {
        if self.left_behind.len() < LEFT_MAX && self.random.one_in(2) {
            self.left_behind.push(effect);
        }
    }

    fn left_behind_turn(&mut self) {
        if self.left_behind.is_empty() || !self.random.one_in(3) {
            return;
        }
        let choice = self.random.below(self.left_behind.len());
        let effect = self.left_behind.swap_remove(choice);
        self.saw("something was done late");
        self.apply(&effect);
    }

    /// Keeps a report, to come again when it is old.
    pub(super) fn remember(&mut self, job: &JobId, event: CheckpointEvent) {
        if self.old_reports.len() == LEFT_MAX {
            let choice = self.random.below(LEFT_MAX);
            self.old_reports.swap_remove(choice);
        }
        self.old_reports.push((job.clone(), event));
    }

    /// Some report of any attempt of the job.
    pub(super) fn old_report(&mut self, job: &JobId) -> Option<CheckpointEvent> {
        if self.old_reports.is_empty() {
            return None;
        }
        let (of, event) = &self.old_reports[self.random.below(self.old_reports.len())];
        (of == job).then(|| event.clone())
    }

    pub(super) fn data_cut(&self, a: usize, b: usize) -> bool {
        self.data_cuts.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }
}
