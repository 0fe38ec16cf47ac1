//! A worker: obeys whom its real fences tell it to obey, and runs subtasks.

use std::collections::{BTreeMap, VecDeque};

use super::counter::CounterTask;
use super::plan::{COUNTER, SOURCE};
use super::source::{Io, SourceTask, restored_watermark};
use super::store::Effect;
use super::subtask::{Role, Subtask};
use super::world::World;
use crate::cluster::messages::{AttemptId, AttemptOrder, FromWorker, ToWorker, WorkerId, WorkerOffer};
use crate::cluster::{FenceCommand, Fences};
use crate::ids::{Generation, JobId, SubtaskId};
use crate::protocol::{Failure, FromSubtask, ToSubtask};

/// Slots of a worker.
const SLOTS: u32 = 2;

pub(super) struct Local {
    pub(super) order: AttemptOrder,
    pub(super) subtasks: Vec<Subtask>,
}

pub(super) struct Session {
    pub(super) connection: u64,
    pub(super) welcomed: bool,
}

pub(super) struct Worker {
    node: usize,
    /// Counts its processes.
    pub(super) life: u64,
    pub(super) id: WorkerId,
    pub(super) up: bool,
    pub(super) stalled_until: i64,
    /// It was told to take nothing new.
    pub(super) draining: bool,
    pub(super) fences: Fences,
    pub(super) session: Option<Session>,
    /// Who is said to lead.
    pub(super) hint: Option<usize>,
    pub(super) attempts: BTreeMap<AttemptId, Local>,
    /// Attempts that were told to end, with what they may still write.
    stopping: BTreeMap<JobId, Vec<Effect>>,
    /// An order that waits until older attempts have ended.
    blocked: Option<Box<AttemptOrder>>,
    /// The newest that it was told, in the judge's own books.
    newest: BTreeMap<JobId, Generation>,
    newest_term: u64,
}

impl Worker {
    pub(super) fn new(node: usize) -> Worker {
        Worker {
            node,
            life: 0,
            id: WorkerId(format!("w{node}.0")),
            up: true,
            stalled_until: 0,
            draining: false,
            fences: Fences::default(),
            session: None,
            hint: None,
            attempts: BTreeMap::new(),
            stopping: BTreeMap::new(),
            blocked: None,
            newest: BTreeMap::new(),
            newest_term: 0,
        }
    }

    /// The process dies; gives what it was writing.
    pub(super) fn crash(&mut self) -> Vec<Effect> {
        let dead = std::mem::replace(self, Worker::new(self.node));
        (self.life, self.up) = (dead.life + 1, false);
        self.id = WorkerId(format!("w{}.{}", self.node, self.life));
        let stopping = dead.stopping.into_values().flatten();
        stopping.chain(dead.attempts.into_values().flat_map(unwritten)).collect()
    }

    pub(super) fn offer(&self) -> WorkerOffer {
        let (worker, draining) = (self.id.clone(), self.draining);
        WorkerOffer { worker, data_address: String::new(), slots: SLOTS, draining }
    }

    /// Whether it takes messages of the connection now.
    pub(super) fn listens(&self, connection: u64, now: i64) -> bool {
        let on_it = self.session.as_ref().is_some_and(|session| session.connection == connection);
        self.up && self.stalled_until <= now && on_it && self.blocked.is_none()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.stopping.is_empty() && self.attempts.values().all(|local| local.subtasks.iter().all(|s| s.gone))
    }

    fn tell_newest(&mut self, job: &JobId, generation: Generation) {
        let newest = self.newest.entry(job.clone()).or_default();
        *newest = generation.max(*newest);
    }

    /// I3, by the judge's own books.
    fn check(&self) {
        for attempt in self.attempts.keys() {
            let newest = self.newest[&attempt.job];
            assert!(attempt.generation >= newest, "I3: {attempt} runs on {} after attempt {newest} was known", self.id);
        }
    }
}

/// What the subtasks of an attempt have not written yet.
fn unwritten(local: Local) -> impl Iterator<Item = Effect> {
    local.subtasks.into_iter().flat_map(|s| s.uploads).flat_map(|upload| upload.effects)
}

impl World {
    /// A word of a coordinator.
    pub(super) fn tell_worker(&mut self, at: usize, message: ToWorker) {
        self.say(|| format!("w{at} <- {message:?}"));
        let worker = &mut self.workers[at];
        match message {
            ToWorker::Welcome { term, fences, .. } => {
                if worker.fences.on_leader(term).is_err() {
                    worker.session = None;
                    self.saw("an older leader was refused");
                    return;
                }
                assert!(term >= worker.newest_term, "I3: a worker obeys term {term} after {}", worker.newest_term);
                worker.newest_term = term;
                worker.session.as_mut().expect("listens").welcomed = true;
                fences.into_iter().for_each(|(job, generation)| self.fence_worker(at, &job, generation));
            }
            ToWorker::NotLeader { leader } => {
                worker.session = None;
                worker.hint = leader.and_then(|leader| leader.parse().ok());
            }
            // No leader goes on with an attempt of another one here.
            ToWorker::Alive | ToWorker::Adopt { .. } | ToWorker::Complete { .. } | ToWorker::Follow(_) => {}
            ToWorker::Drain => worker.draining = true,
            ToWorker::Fence { job, generation } => self.fence_worker(at, &job, generation),
            ToWorker::Deploy(order) => {
                if self.faults.duplicates {
                    self.old_orders.push((self.workers[at].id.clone(), order.clone()));
                }
                self.on_deploy(at, order);
            }
            ToWorker::Tell { attempt, subtask, message } => {
                let Some(local) = worker.attempts.get_mut(&attempt) else { return };
                let Some(told) = local.subtasks.iter_mut().find(|s| s.id == subtask && !s.gone) else { return };
                if message == ToSubtask::Cancel {
                    told.gone = true;
                } else {
                    told.control.push_back(message);
                }
            }
        }
        self.workers[at].check();
    }

    fn fence_worker(&mut self, at: usize, job: &JobId, generation: Generation) {
        let worker = &mut self.workers[at];
        worker.tell_newest(job, generation);
        for command in worker.fences.on_fence(job, generation) {
            self.obey_fence(at, command);
        }
    }

    /// Does what the fences say, but for a start.
    fn obey_fence(&mut self, at: usize, command: FenceCommand) {
        let FenceCommand::Stop(attempt) = command else { return };
        self.saw("an attempt was stopped by a newer one");
        let worker = &mut self.workers[at];
        if let Some(local) = worker.attempts.remove(&attempt) {
            worker.stopping.entry(attempt.job).or_default().extend(unwritten(local));
        }
    }

    fn on_deploy(&mut self, at: usize, order: Box<AttemptOrder>) {
        let attempt = order.attempt.clone();
        let worker = &mut self.workers[at];
        let is_old = worker.newest.get(&attempt.job).is_some_and(|newest| attempt.generation < *newest);
        worker.tell_newest(&attempt.job, attempt.generation);
        let mut order = Some(order);
        for command in worker.fences.on_deploy(&attempt) {
            match command {
                FenceCommand::Start(_) => {
                    assert!(!is_old, "I3: {attempt} starts on {}", self.workers[at].id);
                    self.workers[at].blocked = order.take();
                    self.start_blocked(at);
                }
                FenceCommand::Refuse { reason } => {
                    self.saw("an order was refused");
                    let result = Err(Failure { message: reason, retryable: true, consequence: true });
                    self.report(at, FromWorker::Deployed { attempt: attempt.clone(), result });
                }
                stop => self.obey_fence(at, stop),
            }
        }
    }

    /// Starts what was ordered once nothing older of the job runs here.
    fn start_blocked(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.blocked.as_ref().is_none_or(|order| worker.stopping.contains_key(&order.attempt.job)) {
            return;
        }
        let order = *worker.blocked.take().expect("looked at above");
        let attempt = order.attempt.clone();
        let result = match self.build(at, &order) {
            Some(subtasks) => {
                let before = self.workers[at].attempts.insert(attempt.clone(), Local { order, subtasks });
                assert!(before.is_none(), "{attempt} starts twice");
                Ok(())
            }
            None => {
                let newest = self.judge.generation(&attempt.job);
                assert!(attempt.generation < newest, "I4: a file that {attempt} restores is gone");
                self.workers[at].fences.on_ended(&attempt);
                let message = "a file is gone".to_owned();
                Err(Failure { message, retryable: true, consequence: false })
            }
        };
        self.report(at, FromWorker::Deployed { attempt, result });
    }

    fn build(&mut self, at: usize, order: &AttemptOrder) -> Option<Vec<Subtask>> {
        let plan = self.plans[&order.attempt.job].clone();
        let own = self.workers[at].id.clone();
        let sources = order.restore.get(&SOURCE).map(Vec::as_slice).unwrap_or_default();
        let start = restored_watermark(sources);
        let mut subtasks = Vec::new();
        for (index, _) in (0_u32..).zip(&order.slots).filter(|(_, slot)| slot.worker == own) {
            let out = || (0..order.parallelism).map(|_| VecDeque::new()).collect();
            let id = SubtaskId { operator: COUNTER, index };
            let counter = CounterTask::start(&order.attempt, index, order.parallelism, &order.restore, &self.store)?;
            let role = Role::Counter(Box::new(counter));
            let (control, uploads) = (VecDeque::new(), VecDeque::new());
            subtasks.push(Subtask { id, control, out: Vec::new(), uploads, role, gone: false });

            let id = SubtaskId { operator: SOURCE, index };
            let (mut out, mut uploads, mut reports): (Vec<_>, _, _) = (out(), VecDeque::new(), Vec::new());
            let mut io = Io { random: &mut self.random, out: &mut out, reports: &mut reports, uploads: &mut uploads };
            let source = SourceTask::start(id, &plan, start, order.replay_until, &mut io);
            let role = Role::Source(Box::new(source));
            subtasks.push(Subtask { id, control: VecDeque::new(), out, uploads, role, gone: false });
            let of_slot =
                [COUNTER, SOURCE].map(|operator| FromSubtask::Restored { subtask: SubtaskId { operator, index } });
            reports.extend(of_slot);
            self.pass_on(at, &order.attempt, reports);
        }
        Some(subtasks)
    }

    pub(super) fn pass_on(&mut self, at: usize, attempt: &AttemptId, reports: Vec<FromSubtask>) {
        for event in reports {
            self.report(at, FromWorker::Report { attempt: attempt.clone(), event });
        }
    }

    /// Sends a message to whom the worker obeys; nobody keeps it where there is no such.
    fn report(&mut self, at: usize, message: FromWorker) {
        self.say(|| format!("w{at} -> {message:?}"));
        let Some(Session { connection, welcomed: true }) = self.workers[at].session else { return };
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.up.push_back(message);
        }
    }

    /// What a worker does beside its subtasks.
    pub(super) fn worker_turn(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !worker.up || worker.stalled_until > self.now {
            return;
        }
        if let Some((job, effects)) = worker.stopping.pop_first() {
            // Told to end: it may still write what it had begun, then or later.
            if self.random.one_in(3) {
                self.workers[at].stopping.insert(job, effects);
            } else {
                effects.into_iter().for_each(|effect| self.leave_behind(effect));
                self.start_blocked(at);
            }
        }
        if self.workers[at].blocked.is_none() && self.random.one_in(40) {
            self.repeat_order(at);
        }
        match &self.workers[at].session {
            None => self.connect(at),
            Some(session) if session.welcomed && self.random.one_in(2) => {
                let waits = self.connections.get(&session.connection).map_or(0, |c| c.up.len());
                if waits < 3 {
                    self.report(at, FromWorker::Heartbeat { counters: Vec::new(), followed: None });
                }
            }
            Some(_) => {}
        }
    }

    /// An order comes once more, however old it is.
    fn repeat_order(&mut self, at: usize) {
        let worker = &self.workers[at];
        let welcomed = worker.session.as_ref().is_some_and(|session| session.welcomed);
        let mut to_it = self.old_orders.iter().rev().filter(|(id, _)| *id == worker.id);
        let choice = self.random.below(4);
        if let Some((_, order)) = to_it.nth(choice).filter(|_| welcomed) {
            let order = order.clone();
            self.tell_worker(at, ToWorker::Deploy(order));
        }
    }
}
