//! A worker: obeys whom its real fences tell it to obey, and runs subtasks.

use std::collections::{BTreeMap, VecDeque};

use super::counter::CounterTask;
use super::plan::{COUNTER, SOURCE};
use super::source::{Io, SourceTask, restored_watermark};
use super::store::Effect;
use super::subtask::{Role, Subtask};
use super::world::World;
use crate::checkpoint::CheckpointEvent;
use crate::cluster::messages::{AttemptId, AttemptOrder, FromWorker, ToWorker, WorkerId, WorkerOffer};
use crate::cluster::{FenceCommand, Fences};
use crate::ids::{Generation, JobId, SubtaskId};
use crate::protocol::{Failure, FromSubtask, ToSubtask};

/// Slots of a worker.
const SLOTS: u32 = 2;
/// Elements of one sender that may wait at a receiver.
const RECEIVED_MAX: usize = 5;

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
    fences: Fences,
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
        WorkerOffer { worker: self.id.clone(), data_address: String::new(), slots: SLOTS }
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
    pub(super) fn to_worker(&mut self, at: usize, message: ToWorker) {
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
            ToWorker::Alive => {}
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
            self.pass_on(at, &order.attempt, reports);
        }
        Some(subtasks)
    }

    fn pass_on(&mut self, at: usize, attempt: &AttemptId, reports: Vec<FromSubtask>) {
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
                    self.report(at, FromWorker::Heartbeat { counters: Vec::new() });
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
            self.to_worker(at, ToWorker::Deploy(order));
        }
    }

    /// Some subtask of the worker takes a step.
    pub(super) fn subtask_turn(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !worker.up || worker.stalled_until > self.now || worker.attempts.is_empty() {
            return;
        }
        let choice = self.random.below(worker.attempts.len());
        let (attempt, local) = worker.attempts.iter_mut().nth(choice).expect("below their number");
        let attempt = attempt.clone();
        let choice = self.random.below(local.subtasks.len());
        let subtask = &mut local.subtasks[choice];
        if subtask.gone {
            return;
        }
        let mut reports = Vec::new();
        let Subtask { control, out, uploads, role, .. } = subtask;
        match role {
            Role::Source(source) => {
                let mut io = Io { random: &mut self.random, out, reports: &mut reports, uploads };
                (0..3).for_each(|_| source.step(control, &mut io));
            }
            Role::Counter(counter) => (0..4).for_each(|_| counter.step(&mut self.random, uploads)),
        }
        if subtask.is_done() && subtask.out.iter().all(VecDeque::is_empty) {
            subtask.gone = true;
            reports.push(FromSubtask::Finished { subtask: subtask.id });
        }
        self.pass_on(at, &attempt, reports);
        self.upload(at, &attempt, choice);
        for receiver in 0..self.receivers(at, &attempt, choice) {
            self.transport(at, &attempt, choice, receiver);
        }
    }

    fn receivers(&self, at: usize, attempt: &AttemptId, subtask: usize) -> usize {
        let local = self.workers[at].attempts.get(attempt);
        local.and_then(|local| local.subtasks.get(subtask)).map_or(0, |subtask| subtask.out.len())
    }

    /// Makes the next part of a checkpoint durable, or reports it.
    fn upload(&mut self, at: usize, attempt: &AttemptId, subtask: usize) {
        let Some(local) = self.workers[at].attempts.get_mut(attempt) else { return };
        let Subtask { id, uploads, gone: false, .. } = &mut local.subtasks[subtask] else { return };
        let Some(upload) = uploads.front_mut() else { return };
        if let Some(effect) = upload.effects.pop() {
            // A write that seems to fail, and has taken place, is written again.
            let again = self.faults.store && self.random.one_in(6);
            if again {
                upload.effects.push(effect.clone());
            }
            return self.apply(&effect);
        }
        if self.random.one_in(3) {
            return;
        }
        let (subtask, generation) = (*id, attempt.generation);
        let upload = uploads.pop_front().expect("looked at above");
        let done = FromSubtask::SnapshotDone { subtask, generation, epoch: upload.epoch, snapshot: upload.snapshot };
        if let FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot } = done.clone()
            && self.faults.duplicates
        {
            let old = CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot };
            self.remember(&attempt.job, old);
        }
        let times = if self.faults.duplicates && self.random.one_in(5) { 2 } else { 1 };
        self.pass_on(at, attempt, vec![done; times]);
    }

    /// Moves elements to a receiver, where there is one and it has room.
    fn transport(&mut self, at: usize, attempt: &AttemptId, subtask: usize, receiver: usize) {
        let Some(local) = self.workers[at].attempts.get(attempt) else { return };
        let sender = &local.subtasks[subtask];
        if sender.gone || sender.out[receiver].is_empty() {
            return;
        }
        let (index, target) = (sender.id.index as usize, &local.order.slots[receiver].worker);
        let Some(to) = self.workers.iter().position(|worker| worker.up && worker.id == *target) else {
            return self.fail(at, attempt, subtask, "its neighbour is gone");
        };
        if self.data_cut(at, to) {
            return self.fail(at, attempt, subtask, "its neighbour cannot be reached");
        }
        if !self.workers[to].fences.may_run(attempt) {
            self.saw("rows of an older attempt were refused");
            return self.fail(at, attempt, subtask, "its neighbour takes nothing of it");
        }
        let there = |local: &Local| {
            local.subtasks.iter().position(|s| s.id == SubtaskId { operator: COUNTER, index: receiver as u32 })
        };
        // It has not started there yet.
        let Some(place) = self.workers[to].attempts.get(attempt).and_then(there) else { return };
        let room = match &self.workers[to].attempts[attempt].subtasks[place].role {
            Role::Counter(counter) => RECEIVED_MAX.saturating_sub(counter.inputs[index].len()),
            Role::Source(_) => 0,
        };
        let out = &mut self.workers[at].attempts.get_mut(attempt).expect("looked at above").subtasks[subtask].out;
        let count = room.min(out[receiver].len());
        let moved: Vec<_> = out[receiver].drain(..count).collect();
        let target = &mut self.workers[to].attempts.get_mut(attempt).expect("looked at above").subtasks[place];
        if let Role::Counter(counter) = &mut target.role {
            counter.inputs[index].extend(moved);
        }
    }

    fn fail(&mut self, at: usize, attempt: &AttemptId, subtask: usize, reason: &str) {
        let subtask = &mut self.workers[at].attempts.get_mut(attempt).expect("runs here").subtasks[subtask];
        subtask.gone = true;
        let failure = Failure { message: reason.to_owned(), retryable: true, consequence: true };
        let event = FromSubtask::Failed { subtask: subtask.id, generation: attempt.generation, failure };
        self.pass_on(at, attempt, vec![event]);
    }
}
