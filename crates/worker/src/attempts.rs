//! The attempts that have subtasks on this worker.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstem_core::cluster::messages::{AttemptCounters, AttemptId, AttemptOrder, FollowOrder, FromWorker, WorkerId};
use mainstem_core::cluster::{FenceCommand, Fences, KeptReports};
use mainstem_core::ids::{Epoch, Generation, JobId, SubtaskId};
use mainstem_core::protocol::{Failure, FromSubtask, ToSubtask};
use mainstem_engine::{DataPlane, Deployment, JobMetrics, MemoryBudget, Placement, RunningAttempt};
use mainstem_plan::operator::JobGraph;
use mainstem_rt::{Clock, failpoint};
use mainstem_state::{CheckpointStore, LocalCopies};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::following::Following;
use crate::uplink::Uplink;

/// Subtasks that were told to end have so long before nobody waits for them any more. What they may still write lies
/// under their own generation.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What runs on this worker.
pub(crate) struct Attempts {
    worker: WorkerId,
    data: Arc<DataPlane>,
    uplink: Uplink,
    data_runtime: Handle,
    fences: Fences,
    running: BTreeMap<AttemptId, Running>,
    /// Attempts that were told to end, by their job.
    stopping: BTreeMap<JobId, Vec<JoinHandle<()>>>,
    /// Checkpoint stores by their directory.
    stores: BTreeMap<PathBuf, Arc<CheckpointStore>>,
    copies: Option<LocalCopies>,
    memory: Arc<MemoryBudget>,
    clock: Arc<dyn Clock>,
    counters: Counters,
    /// What it stands by for; none where it keeps no copies.
    following: Option<Following>,
    /// Fetches what is followed, and ends with this.
    _fetching: JoinSet<()>,
}

/// What the attempts of a worker run with.
pub(crate) struct AttemptsOptions {
    pub(crate) worker: WorkerId,
    pub(crate) copies: Option<LocalCopies>,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data_runtime: Handle,
    pub(crate) counters: Counters,
}

struct Running {
    subtasks: BTreeMap<SubtaskId, mpsc::Sender<ToSubtask>>,
    tasks: JoinSet<()>,
    kept: Kept,
}

/// What the next leader may have to hear again.
type Kept = Arc<Mutex<KeptReports>>;

/// The counters of all attempts, for heartbeats. Cheap to clone.
#[derive(Clone, Default)]
pub struct Counters {
    of: Arc<Mutex<BTreeMap<AttemptId, Counted>>>,
}

struct Counted {
    metrics: Arc<JobMetrics>,
    /// Indexes of the subtasks that run here.
    here: BTreeSet<u32>,
}

impl Counters {
    /// The counters of each attempt, by operator.
    #[must_use]
    pub fn read(&self) -> AttemptCounters {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.iter().map(|(attempt, counted)| (attempt.clone(), counted.metrics.counters(&counted.here))).collect()
    }
}

impl Attempts {
    pub(crate) fn new(options: AttemptsOptions, data: Arc<DataPlane>, uplink: Uplink) -> Attempts {
        let AttemptsOptions { worker, copies, memory, clock, data_runtime, counters } = options;
        let following = copies.as_ref().map(|_| Following::default());
        let mut fetching = JoinSet::new();
        if let Some(following) = &following {
            // Beside the subtasks, so that it does not keep the worker from its heartbeats.
            fetching.spawn_on(following.clone().run(), &data_runtime);
        }
        Attempts {
            worker,
            data,
            uplink,
            data_runtime,
            fences: Fences::default(),
            running: BTreeMap::new(),
            stopping: BTreeMap::new(),
            stores: BTreeMap::new(),
            copies,
            memory,
            clock,
            counters,
            following,
            _fetching: fetching,
        }
    }

    /// A coordinator leads in `term`; refused where a newer one is known.
    pub(crate) fn on_leader(&mut self, term: u64) -> Result<(), String> {
        self.fences.on_leader(term)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// What it stands by for, where it can.
    pub(crate) fn following(&self) -> Option<Following> {
        self.following.clone()
    }

    /// Stands by for slots that run elsewhere.
    pub(crate) fn follow(&mut self, order: FollowOrder) {
        let Some(following) = self.following.clone() else { return };
        match self.store(&order.store) {
            Ok(store) => following.follow(order, store),
            Err(failure) => tracing::warn!(attempt = %order.attempt, reason = failure.message, "cannot stand by"),
        }
    }

    /// Ends what is older.
    pub(crate) fn fence(&mut self, job: &JobId, generation: Generation) {
        self.data.fence(job, generation);
        if let Some(following) = &self.following {
            following.fence(job, generation);
        }
        let commands = self.fences.on_fence(job, generation);
        for command in commands {
            if let FenceCommand::Stop(attempt) = command {
                self.stop(&attempt);
            }
        }
    }

    /// Starts this worker's part of an attempt and tells the coordinator.
    pub(crate) async fn deploy(&mut self, order: AttemptOrder) {
        let attempt = order.attempt.clone();
        self.data.fence(&attempt.job, attempt.generation);
        let commands = self.fences.on_deploy(&attempt);
        let mut order = Some(order);
        for command in commands {
            let result = match command {
                FenceCommand::Stop(older) => {
                    self.stop(&older);
                    continue;
                }
                FenceCommand::Refuse { reason } => Err(Failure { message: reason, retryable: true, consequence: true }),
                FenceCommand::Start(_) => match order.take() {
                    Some(order) => {
                        failpoint::hit(failpoint::ORDER_RECEIVED);
                        self.await_stopped(&attempt.job).await;
                        let started = self.start(order);
                        if started.is_err() {
                            self.fences.on_ended(&attempt);
                        }
                        started
                    }
                    None => continue,
                },
            };
            self.uplink.send(FromWorker::Deployed { attempt: attempt.clone(), result }).await;
        }
    }

    /// A new leader goes on with an attempt: tells it again what it may have missed.
    pub(crate) async fn adopt(&mut self, attempt: &AttemptId, subtasks: &BTreeSet<SubtaskId>, complete: Epoch) {
        let (result, reports) = match self.reports_for(attempt, subtasks, complete) {
            Ok(reports) => (Ok(()), reports),
            Err(message) => (Err(Failure { message, retryable: true, consequence: true }), Vec::new()),
        };
        self.uplink.send(FromWorker::Deployed { attempt: attempt.clone(), result }).await;
        for event in reports {
            self.uplink.send(FromWorker::Report { attempt: attempt.clone(), event }).await;
        }
    }

    fn reports_for(
        &self,
        attempt: &AttemptId,
        subtasks: &BTreeSet<SubtaskId>,
        complete: Epoch,
    ) -> Result<Vec<FromSubtask>, String> {
        let running = self.running.get(attempt).ok_or_else(|| "it does not run here".to_owned())?;
        if !running.subtasks.keys().eq(subtasks) {
            return Err("other subtasks of it run here".to_owned());
        }
        let mut kept = running.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.on_complete(complete);
        kept.repeat().ok_or_else(|| "it has reported more than is kept".to_owned())
    }

    /// An epoch is complete.
    pub(crate) fn complete(&mut self, attempt: &AttemptId, epoch: Epoch) {
        if let Some(running) = self.running.get(attempt) {
            running.kept.lock().unwrap_or_else(PoisonError::into_inner).on_complete(epoch);
        }
    }

    /// Hands a message to a subtask. One that has ended has said why.
    pub(crate) async fn tell(&mut self, attempt: &AttemptId, subtask: SubtaskId, message: ToSubtask) {
        let Some(running) = self.running.get(attempt) else { return };
        let Some(sender) = running.subtasks.get(&subtask) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(message) {
            let message = format!("subtask {subtask} does not take its messages: it is stuck");
            let failure = Failure { message, retryable: true, consequence: false };
            let event = FromSubtask::Failed { subtask, generation: attempt.generation, failure };
            running.kept.lock().unwrap_or_else(PoisonError::into_inner).note(&event);
            self.uplink.send(FromWorker::Report { attempt: attempt.clone(), event }).await;
        }
    }

    fn start(&mut self, order: AttemptOrder) -> Result<(), Failure> {
        let fatal = |message: String| Failure { message, retryable: false, consequence: false };
        let graph: JobGraph = serde_json::from_str(&order.graph_json)
            .map_err(|error| fatal(format!("this worker's version cannot read the job's plan: {error}")))?;
        let store = self.store(&order.store)?;
        let metrics = Arc::new(JobMetrics::of(&graph, order.parallelism));
        let here = (0_u32..).zip(&order.slots).filter(|(_, slot)| slot.worker == self.worker).map(|(i, _)| i).collect();
        let attempt = order.attempt;
        let _entered = self.data_runtime.enter();
        let deployment = Deployment {
            job: attempt.job.clone(),
            graph: Arc::new(graph),
            generation: attempt.generation,
            parallelism: order.parallelism,
            key_groups: order.key_groups,
            first_epoch_now: order.first_epoch_now,
            restore: order.restore,
            replay_until: order.replay_until,
            aligned_timeout_ms: order.aligned_timeout_ms,
            markers: order.markers,
            clock: self.clock.clone(),
            working_dir: order.working_dir.into(),
            store,
            metrics: metrics.clone(),
            memory: self.memory.clone(),
            placement: Placement::Cluster { worker: self.worker.clone(), slots: order.slots, data: self.data.clone() },
        };
        // A mistake in one job's plan must not take the others down (C5).
        let deployed = std::panic::catch_unwind(AssertUnwindSafe(|| mainstem_engine::deploy(deployment)));
        let running = deployed.map_err(|_| fatal("bug: the plan cannot be built; please report it".to_owned()))?;
        let RunningAttempt { subtasks, events, tasks } = running.map_err(mainstem_engine::EngineError::into_failure)?;
        tracing::info!(job = %attempt.job, generation = %attempt.generation, subtasks = subtasks.len(), "subtasks start");
        let counted = Counted { metrics, here };
        self.counters.of.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.clone(), counted);
        let kept = Arc::new(Mutex::new(KeptReports::new(attempt.generation)));
        tokio::spawn(pass_on(attempt.clone(), events, kept.clone(), self.uplink.clone()));
        self.running.insert(attempt, Running { subtasks, tasks, kept });
        failpoint::hit(failpoint::SUBTASKS_STARTED);
        Ok(())
    }

    /// Has an attempt end, and does not wait for it: what other jobs are told must not stand behind it.
    fn stop(&mut self, attempt: &AttemptId) {
        self.counters.of.lock().unwrap_or_else(PoisonError::into_inner).remove(attempt);
        self.data.forget(attempt);
        let Some(Running { subtasks, mut tasks, .. }) = self.running.remove(attempt) else { return };
        drop(subtasks);
        failpoint::hit(failpoint::SUBTASKS_STOP);
        tracing::info!(job = %attempt.job, generation = %attempt.generation, "subtasks stop");
        let name = attempt.clone();
        let stopping = tokio::spawn(async move {
            if tokio::time::timeout(STOP_WITHIN, tasks.shutdown()).await.is_err() {
                let AttemptId { job, generation } = name;
                tracing::warn!(%job, %generation, "subtasks do not end; they go on by themselves, without effect");
            }
        });
        let of_job = self.stopping.entry(attempt.job.clone()).or_default();
        of_job.retain(|stopping| !stopping.is_finished());
        of_job.push(stopping);
    }

    /// Waits until nothing of the job runs here any more: the next attempt uses the same memory.
    async fn await_stopped(&mut self, job: &JobId) {
        for stopping in self.stopping.remove(job).unwrap_or_default() {
            // Its only way to fail is a panic, after which nothing of it runs either.
            let _ = stopping.await;
        }
    }

    fn store(&mut self, directory: &str) -> Result<Arc<CheckpointStore>, Failure> {
        let directory = Path::new(directory);
        if let Some(store) = self.stores.get(directory) {
            return Ok(store.clone());
        }
        let opened = CheckpointStore::open(directory).map_err(|error| {
            let message = format!("{error}; checkpoints must lie where every node reaches them under one path");
            Failure { message, retryable: true, consequence: false }
        })?;
        let store = Arc::new(opened.with_copies(self.copies.clone()));
        self.stores.insert(directory.to_owned(), store.clone());
        Ok(store)
    }
}

/// Passes on what the subtasks of an attempt have to say.
async fn pass_on(attempt: AttemptId, mut events: mpsc::Receiver<FromSubtask>, kept: Kept, uplink: Uplink) {
    while let Some(event) = events.recv().await {
        if matches!(event, FromSubtask::SnapshotDone { .. }) {
            failpoint::hit(failpoint::SNAPSHOT_DURABLE);
        }
        // Before it is sent: a connection that ends in between takes it along.
        kept.lock().unwrap_or_else(PoisonError::into_inner).note(&event);
        uplink.send(FromWorker::Report { attempt: attempt.clone(), event }).await;
    }
}
