//! The leader's connections to its workers. Who is there, who is lost and where a job runs is decided by
//! [`mainstem_core::cluster::Fleet`].

mod adoption;
mod hold;
mod notes;
mod route;
mod standby;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_core::cluster::messages::{
    AttemptCounters, AttemptId, AttemptOrder, FromWorker, OperatorCounters, ToWorker, WorkerId, WorkerOffer,
};
use mainstem_core::cluster::proposal::Note;
use mainstem_core::cluster::{Fleet, FleetConfig, Lost, Shortage};
use mainstem_core::ids::{Generation, JobId, OperatorId, SubtaskId};
use mainstem_core::protocol::{Failure, FromSubtask};
use mainstem_net::{Connection, FrameReader, FrameWriter, Transport};
use mainstem_rt::{Clock, bug};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

pub(crate) use self::hold::Hold;
use self::notes::Notes;
use self::route::Route;

/// Messages that may wait for a worker.
const OUTBOX_MAX: usize = 4096;
/// How often a worker hears that the coordinator is alive.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// A worker says first who it is; it has so long for it.
const REGISTER_WITHIN: Duration = Duration::from_secs(3);

/// What is shown of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who it is and what it brings.
    pub offer: WorkerOffer,
    /// Its slots in use.
    pub used: u32,
}

/// The workers of the coordinator that leads.
pub struct FleetService {
    clock: Arc<dyn Clock>,
    config: FleetConfig,
    transport: Transport,
    inner: Mutex<Inner>,
    /// Counts changes of what is free.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// The term in which this coordinator leads, if it does.
    term: Option<u64>,
    /// Whom workers are to ask instead, while it does not, where that is known.
    instead: Option<String>,
    fleet: Fleet,
    /// The newest connection of each worker, with its number.
    links: BTreeMap<WorkerId, (u64, mpsc::Sender<ToWorker>)>,
    /// How many connections there have been, and holds.
    connections: u64,
    holds: u64,
    routes: BTreeMap<AttemptId, Route>,
    /// The least generation of each job that may run.
    fences: BTreeMap<JobId, Generation>,
    /// The hold that has a job's slots, and the attempt that runs on them.
    holders: BTreeMap<JobId, (u64, Generation)>,
    counters: BTreeMap<WorkerId, AttemptCounters>,
    /// What the last attempt of a job had counted when it gave its slots back; taken by who ends the job, or replaced by
    /// the next attempt's.
    last_counters: BTreeMap<JobId, BTreeMap<OperatorId, OperatorCounters>>,
    notes: Notes,
}

impl FleetService {
    /// Without workers, and not leading.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, config: FleetConfig, transport: Transport) -> Arc<FleetService> {
        let inner = Inner { fleet: Fleet::new(config), ..Inner::default() };
        Arc::new(FleetService { clock, config, transport, inner: Mutex::new(inner), changed: watch::Sender::new(0) })
    }

    /// This coordinator leads from here on, with the least generation of each job that may run, and the slots on which jobs
    /// run already.
    pub(crate) fn lead(&self, term: u64, fences: BTreeMap<JobId, Generation>, used: BTreeMap<JobId, Vec<WorkerId>>) {
        let mut inner = self.lock();
        let mut fleet = Fleet::new(self.config);
        used.into_iter().for_each(|(job, slots)| fleet.occupy(&job, slots));
        let (connections, holds) = (inner.connections, inner.holds);
        // As when it stood down: who drove jobs until now may not be gone yet.
        let routes = std::mem::take(&mut inner.routes);
        *inner = Inner { term: Some(term), fleet, fences, connections, holds, routes, ..Inner::default() };
    }

    /// It leads no longer: all connections to workers end, and those that come are told whom to ask.
    pub(crate) fn stand_down(&self, instead: Option<String>) {
        let mut inner = self.lock();
        // Those who drive jobs are about to be dropped, and must not take the end of all words for the end of all subtasks.
        let routes = std::mem::take(&mut inner.routes);
        *inner = Inner { instead, connections: inner.connections, holds: inner.holds, routes, ..Inner::default() };
    }

    /// Every worker.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let inner = self.lock();
        inner.fleet.workers().map(|(offer, used)| WorkerStatus { offer: offer.clone(), used }).collect()
    }

    /// The workers of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<WorkerId>, String> {
        let inner = self.lock();
        let workers = inner.fleet.workers().map(|(offer, _)| &offer.worker);
        let named: Vec<WorkerId> = workers.filter(|worker| worker.is_named(name)).cloned().collect();
        if named.is_empty() { Err(no_worker(name)) } else { Ok(named) }
    }

    /// Drains the workers of this name ([`Fleet::drain`]).
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) fn drain(&self, name: &str) -> Result<(), String> {
        let mut inner = self.lock();
        let drained = inner.fleet.drain(name);
        for worker in &drained {
            // One that cannot be told is about to be lost.
            let _ = inner.links.get(worker).map(|(_, outbox)| outbox.try_send(ToWorker::Drain));
        }
        drop(inner);
        self.note_change();
        if drained.is_empty() { Err(no_worker(name)) } else { Ok(()) }
    }

    /// The attempts that are to move away from workers which are drained, and can.
    pub(crate) fn to_move(&self) -> Vec<AttemptId> {
        let inner = self.lock();
        let attempt = |job: JobId| Some(AttemptId { generation: inner.holders.get(&job)?.1, job });
        inner.fleet.to_move().into_iter().filter_map(attempt).collect()
    }

    /// The counters of a job by operator, over all workers.
    pub(crate) fn counters(&self, job: &JobId) -> BTreeMap<OperatorId, OperatorCounters> {
        self.lock().counters_of(job)
    }

    /// What the job's attempt has counted, or its last one, where none runs any more.
    pub(crate) fn final_counters(&self, job: &JobId) -> BTreeMap<OperatorId, OperatorCounters> {
        let inner = self.lock();
        let now = if inner.holders.contains_key(job) { inner.counters_of(job) } else { BTreeMap::new() };
        let mut last = if now.is_empty() { inner.last_counters.get(job).cloned().unwrap_or_default() } else { now };
        // What is kept with a job's records is what its users look at afterwards.
        last.values_mut().for_each(|counters| counters.subtasks.clear());
        last
    }

    /// The job has ended, or its driver has.
    pub(crate) fn forget_counters(&self, job: &JobId) {
        self.lock().last_counters.remove(job);
    }

    /// The job is known no more.
    pub(crate) fn forget(&self, job: &JobId) {
        self.lock().fleet.forget(job);
    }

    /// Nothing of the job below the generation may run, here or anywhere.
    pub(crate) fn fence(&self, job: &JobId, generation: Generation) {
        self.lock().fence(job, generation);
    }

    /// Ends silence: call it often.
    pub(crate) fn tick(&self) {
        let now = self.clock.monotonic();
        let mut inner = self.lock();
        let lost = inner.fleet.on_tick(now);
        lost.iter().for_each(|lost| inner.on_lost(lost));
        inner.routes.values_mut().for_each(Route::pass_on_put_off);
        inner.tell_standbys();
        drop(inner);
        if !lost.is_empty() {
            self.note_change();
        }
    }

    /// Takes slots for an attempt.
    pub(crate) fn place(
        self: &Arc<Self>,
        attempt: &AttemptId,
        needed: u32,
    ) -> Result<(Hold, Vec<WorkerOffer>), Shortage> {
        let mut inner = self.lock();
        let slots = inner.fleet.place(&attempt.job, needed)?;
        let hold = Hold::new(self, &mut inner, attempt);
        inner.holders.insert(attempt.job.clone(), (hold.number(), attempt.generation));
        Ok((hold, slots))
    }

    /// When something may have changed for who waits for slots.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sends the order to each worker of the attempt. What its subtasks say goes to `events`, the workers' answers
    /// to the order go to `deployed`.
    pub(crate) fn deploy(
        &self,
        order: &AttemptOrder,
        hold: &Hold,
        events: mpsc::Sender<FromSubtask>,
        deployed: mpsc::Sender<(WorkerId, Result<(), Failure>)>,
    ) -> Result<BTreeMap<WorkerId, mpsc::Sender<ToWorker>>, Failure> {
        let mut inner = self.lock();
        inner.fence(&order.attempt.job, order.attempt.generation);
        let workers: BTreeSet<&WorkerId> = order.slots.iter().map(|slot| &slot.worker).collect();
        let mut outboxes = BTreeMap::new();
        for worker in workers {
            let Some((_, outbox)) = inner.links.get(worker).cloned() else { return Err(gone(worker)) };
            if outbox.try_send(ToWorker::Deploy(Box::new(order.clone()))).is_err() {
                return Err(gone(worker));
            }
            outboxes.insert(worker.clone(), outbox);
        }
        let route = Route::new(hold, events, deployed, order.slots.clone());
        inner.routes.insert(order.attempt.clone(), route);
        Ok(outboxes)
    }

    /// Serves the connection of a worker until it ends.
    pub async fn serve(self: Arc<Self>, connection: Connection) {
        let Connection { mut reader, mut writer, peer, .. } = connection;
        let first = tokio::time::timeout(REGISTER_WITHIN, reader.read_message::<FromWorker>()).await;
        let Ok(Ok(Some(FromWorker::Register(offer)))) = first else {
            tracing::warn!(peer, "a worker connected and did not say who it is");
            return;
        };
        let worker = offer.worker.clone();
        let (number, outbox) = match self.join(offer) {
            Ok(joined) => joined,
            Err(instead) => {
                // It asks another coordinator, whether it reads this or not.
                let _ = writer.write_message(&ToWorker::NotLeader { leader: instead }).await;
                return;
            }
        };
        tracing::info!(%worker, peer, "worker joined");
        let reason = tokio::select! {
            reason = self.listen(&worker, number, &mut reader) => reason,
            reason = speak(&mut writer, outbox) => reason,
        };
        let mut inner = self.lock();
        // It may have come back by another connection.
        if inner.links.get(&worker).is_none_or(|(newest, _)| *newest == number) {
            inner.on_closed(&worker, &reason);
        }
        drop(inner);
        self.note_change();
        tracing::warn!(%worker, peer, reason, "worker left");
    }

    /// Takes a worker in; gives its connection's number and the messages for it, or whom it is to ask instead.
    fn join(&self, offer: WorkerOffer) -> Result<(u64, mpsc::Receiver<ToWorker>), Option<String>> {
        let mut inner = self.lock();
        let Some(term) = inner.term else { return Err(inner.instead.clone()) };
        let (sender, outbox) = mpsc::channel(OUTBOX_MAX);
        let silence_ms = u64::try_from(self.config.silence_ms).unwrap_or(u64::MAX);
        let fences = inner.fences.iter().map(|(job, least)| (job.clone(), *least)).collect();
        sender.try_send(ToWorker::Welcome { term, silence_ms, fences }).map_err(|_| None)?;
        // What ran on it was told over the connection of before.
        inner.on_closed(&offer.worker, "it has connected anew");
        inner.connections += 1;
        let number = inner.connections;
        inner.links.insert(offer.worker.clone(), (number, sender));
        let WorkerOffer { worker, data_address, slots, .. } = offer.clone();
        inner.notes.push(Note::WorkerJoined { worker, address: data_address, slots });
        inner.fleet.on_joined(self.clock.monotonic(), offer);
        drop(inner);
        self.note_change();
        Ok((number, outbox))
    }

    async fn listen(&self, worker: &WorkerId, number: u64, reader: &mut FrameReader) -> String {
        loop {
            let message = match reader.read_message::<FromWorker>().await {
                Ok(Some(message)) => message,
                Ok(None) => return "its connection was closed".to_owned(),
                Err(error) => return error.to_string(),
            };
            let mut inner = self.lock();
            if inner.links.get(worker).is_none_or(|(newest, _)| *newest != number) {
                return "it counts as lost".to_owned();
            }
            inner.fleet.on_heard(self.clock.monotonic(), worker);
            match message {
                FromWorker::Register(_) => {}
                FromWorker::Heartbeat { counters, followed } => {
                    inner.counters.insert(worker.clone(), counters);
                    inner.fleet.on_followed(worker, followed.as_deref());
                }
                FromWorker::Deployed { attempt, result } => {
                    if let Some(route) = inner.routes.get(&attempt) {
                        // Nobody listens any more where the deployment was given up.
                        let _ = route.deployed.try_send((worker.clone(), result));
                    }
                }
                FromWorker::Unreachable { worker: other } => {
                    tracing::warn!(%worker, %other, "a worker cannot reach another");
                    inner.fleet.on_unreachable(self.clock.monotonic(), worker, &other);
                }
                FromWorker::Report { attempt, event } => {
                    if let Some(route) = inner.routes.get_mut(&attempt) {
                        route.pass_on(&attempt, event);
                    }
                }
            }
        }
    }

    fn note_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes messages to a worker, and now and then that the coordinator is alive. Gives the reason of its end.
async fn speak(writer: &mut FrameWriter, mut outbox: mpsc::Receiver<ToWorker>) -> String {
    loop {
        let message = match tokio::time::timeout(ALIVE_EVERY, outbox.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return "this coordinator gives it up".to_owned(),
            Err(_) => ToWorker::Alive,
        };
        if let Err(error) = writer.write_message(&message).await {
            return error.to_string();
        }
    }
}

fn no_worker(name: &str) -> String {
    format!("there is no worker '{name}'; see `mainstem jobs` for those that there are")
}

fn gone(worker: &WorkerId) -> Failure {
    let message = format!("worker {worker} is lost while the job is deployed");
    Failure { message, retryable: true, consequence: false }
}

impl Inner {
    fn counters_of(&self, job: &JobId) -> BTreeMap<OperatorId, OperatorCounters> {
        let mut sums = BTreeMap::<OperatorId, OperatorCounters>::new();
        let of_job = self.counters.values().flatten().filter(|(attempt, _)| attempt.job == *job);
        for (operator, counters) in of_job.flat_map(|(_, operators)| operators) {
            let sum = sums.entry(*operator).or_default();
            sum.rows_in += counters.rows_in;
            sum.rows_out += counters.rows_out;
            sum.late_rows += counters.late_rows;
            sum.dropped_records += counters.dropped_records;
            sum.dead_letters += counters.dead_letters;
            sum.unmatched_changes += counters.unmatched_changes;
            sum.bytes_read += counters.bytes_read;
            sum.restored_local_bytes += counters.restored_local_bytes;
            sum.restored_store_bytes += counters.restored_store_bytes;
            sum.memory.add(&counters.memory);
            sum.watermarks.extend(&counters.watermarks);
            sum.subtasks.extend(&counters.subtasks);
            if let Some(latency) = &counters.latency {
                sum.latency.get_or_insert_default().add(latency);
            }
            match (&mut sum.lag, &counters.lag) {
                (Some(lag), Some(more)) => lag.add(more),
                (lag @ None, more) => lag.clone_from(more),
                (Some(_), None) => {}
            }
        }
        sums
    }

    fn fence(&mut self, job: &JobId, generation: Generation) {
        let least = self.fences.entry(job.clone()).or_default();
        *least = generation.max(*least);
        let word = ToWorker::Fence { job: job.clone(), generation: *least };
        let stuck = |(_, outbox): &(u64, mpsc::Sender<ToWorker>)| outbox.try_send(word.clone()).is_err();
        let stuck: Vec<WorkerId> = self.links.iter().filter(|(_, link)| stuck(link)).map(|(w, _)| w.clone()).collect();
        for worker in stuck {
            self.on_closed(&worker, "it does not take its messages");
        }
    }

    fn on_closed(&mut self, worker: &WorkerId, reason: &str) {
        if let Some(lost) = self.fleet.on_closed(worker, reason) {
            self.on_lost(&lost);
        }
    }

    fn on_lost(&mut self, lost: &Lost) {
        self.links.remove(&lost.worker);
        self.counters.remove(&lost.worker);
        self.notes.push(Note::WorkerLost { worker: lost.worker.clone(), reason: lost.reason.clone() });
        if bug::is_put_back(bug::LOSS_UNTOLD) {
            return;
        }
        for (attempt, route) in &self.routes {
            let on_it = |slot: &WorkerOffer| slot.worker == lost.worker;
            let Some(index) = route.slots.iter().position(on_it) else { continue };
            let failure = Failure { message: lost.reason.clone(), retryable: true, consequence: false };
            // Nobody waits for one of these where the other is read.
            let _ = route.deployed.try_send((lost.worker.clone(), Err(failure.clone())));
            let subtask = SubtaskId { operator: OperatorId::NONE, index: index as u32 };
            let generation = attempt.generation;
            let _ = route.events.try_send(FromSubtask::Failed { subtask, generation, failure });
        }
    }
}
