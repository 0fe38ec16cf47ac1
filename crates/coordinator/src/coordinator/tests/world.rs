//! A tiny job for the driver's tests: two source subtasks that count, one sink subtask that passes rows on and
//! keeps a running count as its state, and an outside world that sees what is published. Reads a few rows an
//! epoch, so that checkpoints fall in the middle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use mainstem_connectors::{Committer, ConnectorError, ErrorKind, SplitEnumerator};
use mainstem_core::checkpoint::CheckpointOptions;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId, SplitId, SubtaskId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::{
    Barrier, Committable, Failure, FromSubtask, InFlight, OperatorSnapshot, SourceSplit, SplitProgress, SplitState,
    ToSubtask,
};
use mainstem_core::retry::RetryPolicy;
use mainstem_core::time::Timestamp;
use mainstem_rt::SystemClock;
use mainstem_state::{CheckpointStore, TableDelta};
use object_store::local::LocalFileSystem;
use tokio::sync::{mpsc, watch};

use super::cluster::{Cluster, CountingLog, Step, Steps};
use super::flaky::FlakyStore;
use crate::history::JobHistory;
use crate::meta_log::DeployedAttempt;
use crate::spec::{
    Attempt, Control, Deployer, Deployment, JobOutcome, JobSpec, JobStatus, RestoreFrom, SourceSpec, TaskSpec,
};
use crate::{JobCoordinator, JobStore};

pub(super) const SOURCE: OperatorId = OperatorId(0);
pub(super) const SINK: OperatorId = OperatorId(1);
const SOURCES: u32 = 2;
/// Splits of the job and rows of each.
const SPLITS: u64 = 5;
const ROWS: u64 = 17;
/// Rows that a source subtask reads in an epoch.
const ROWS_PER_EPOCH: u64 = 5;

/// Where the process stops, as far as the test is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The sink has the barrier of the epoch and has not taken its snapshot.
    BeforeSnapshot(u64),
    /// The epoch is complete, nothing of it is visible.
    BeforeCommit(u64),
    /// The epoch is visible, that it is was not recorded.
    AfterCommit(u64),
}

/// A file, and what is done to it.
pub(super) type Damage = (PathBuf, fn(&Path));

/// Everything outside the coordinator.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Hidden output, by name.
    staged: BTreeMap<String, Vec<String>>,
    /// Visible output, by name.
    published: BTreeMap<String, Vec<String>>,
    /// Each publication that had an effect.
    pub(super) publications: Vec<Epoch>,
    /// Commits to come that fail in a way that passes.
    pub(super) failing_commits: u32,
    /// Commits to come that never answer.
    pub(super) hanging_commits: u32,
    /// What commits have achieved, and whether those that never answer achieve something.
    pub(super) progress: u64,
    pub(super) hanging_commits_get_further: bool,
    /// Commits wait until it says yes.
    pub(super) commit_gate: Option<watch::Receiver<bool>>,
    /// Commits that have begun, and those that run.
    pub(super) commits_begun: u32,
    pub(super) committing: u32,
    /// Writes of manifests to come that fail.
    pub(super) failing_manifests: u32,
    /// Searches for splits so far, and the one that never answers.
    pub(super) discoveries: u32,
    pub(super) hanging_discovery: Option<u32>,
    /// A split that no search finds.
    pub(super) gone_split: Option<u64>,
    /// Ends the process once.
    pub(super) crash: Option<Crash>,
    /// Fails the sink once, at this epoch.
    pub(super) failure: Option<(u64, Failure)>,
    /// It waits until so many commits have begun.
    pub(super) failure_after_commits: u32,
    /// Is done to this file when the sink fails.
    pub(super) damage: Option<Damage>,
    /// The barrier of this epoch overtakes something at the sink.
    pub(super) unaligned: Option<u64>,
    /// Attempts so far.
    pub(super) deployments: Vec<Deployment>,
    /// Whether subtasks outlive the process that drives them, and those that have.
    pub(super) outlives: bool,
    pub(super) cluster: Arc<Cluster>,
    /// Ends the process at this step, counted over the process's life.
    pub(super) crash_at_step: Option<Step>,
}

/// A job with its world and its state directory.
pub(super) struct Job {
    world: Arc<Mutex<World>>,
    pub(super) directory: PathBuf,
    pub(super) options: CheckpointOptions,
    /// Source subtasks.
    pub(super) parallelism: u32,
    pub(super) monitor_interval: Option<Duration>,
    /// The savepoint with which the job begins.
    pub(super) restore: Option<RestoreFrom>,
    status: watch::Sender<JobStatus>,
}

impl Job {
    pub(super) fn new(directory: &Path) -> Job {
        let restart = RetryPolicy { first_delay_ms: 0, delay_ms_max: 0, retries_max: 5, quiet_ms: 60_000 };
        let options = CheckpointOptions { interval_ms: 1, restart, operation: restart, ..CheckpointOptions::default() };
        let (directory, status) = (directory.to_owned(), watch::Sender::new(JobStatus::default()));
        Job {
            world: Arc::default(),
            directory,
            options,
            parallelism: SOURCES,
            monitor_interval: None,
            restore: None,
            status,
        }
    }

    /// Another job in the same world, with a state directory of its own.
    pub(super) fn beside(&self, directory: &Path) -> Job {
        Job { world: self.world.clone(), ..Job::new(directory) }
    }

    /// What the job shows of itself.
    pub(super) fn status(&self) -> JobStatus {
        self.status.borrow().clone()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Runs the job until it ends, or until the crash that is planned: then nothing.
    pub(super) async fn run(&self) -> (Option<JobOutcome>, JobStatus) {
        let (_keep, control) = mpsc::channel(1);
        self.run_with(control).await
    }

    pub(super) async fn run_with(&self, control: mpsc::Receiver<Control>) -> (Option<JobOutcome>, JobStatus) {
        let id = JobId::new("j").unwrap();
        let clock = Arc::new(SystemClock::new());
        let inner = LocalFileSystem::new_with_prefix(&self.directory).unwrap();
        let objects = CheckpointStore::new(Arc::new(FlakyStore { inner, world: self.world.clone() }));
        let store = JobStore::open_with(&self.directory, &id, clock.clone(), objects).await.unwrap();
        let (crash_sender, mut crash) = mpsc::channel(1);
        let task = |head, parallelism, source: Option<OperatorId>| {
            let scales = source.is_some();
            TaskSpec { head, operators: vec![head], parallelism, scales, source }
        };
        let committer = FakeCommitter { world: self.world.clone(), crash: crash_sender.clone() };
        let enumerator = Box::new(FakeEnumerator { world: self.world.clone() });
        let source =
            SourceSpec { enumerator, monitor_interval: self.monitor_interval, side_by_side: false, group: None };
        let spec = JobSpec {
            job: id.clone(),
            graph_json: "{}".to_owned(),
            sql_hash: "hash".to_owned(),
            key_groups: 4,
            parallelism: self.parallelism,
            tasks: vec![task(SOURCE, self.parallelism, Some(SOURCE)), task(SINK, 1, None)],
            sources: BTreeMap::from([(SOURCE, source)]),
            committers: BTreeMap::from([(SINK, Box::new(committer) as Box<dyn Committer>)]),
            options: self.options.clone(),
            restore: self.restore.clone(),
            history: JobHistory::new(clock.clone()),
        };
        let steps = self.world().crash_at_step.take().map(|step| Arc::new(Steps::new(step, crash_sender.clone())));
        let deployer = FakeDeployer {
            job: id,
            store: store.checkpoints(),
            world: self.world.clone(),
            crash: crash_sender,
            steps: steps.clone(),
        };
        self.status.send_replace(JobStatus::default());
        let mut home = store.into_home().await.unwrap();
        let state = home.log.state().clone();
        let log = Arc::new(tokio::sync::Mutex::new(home.log));
        home.log = Box::new(CountingLog { inner: log.clone(), state, steps });
        let run = JobCoordinator::new(spec, home, clock).run(deployer, control, self.status.clone());
        let outcome = tokio::select! {
            biased;
            _ = crash.recv() => None,
            outcome = Box::pin(run) => Some(outcome),
        };
        // What a dropped process still does ends when it is looked at next, and what it writes when it is written.
        drop(log.lock().await);
        while self.world().committing > 0 {
            tokio::task::yield_now().await;
        }
        (outcome, self.status())
    }

    /// How often the world sees a row.
    pub(super) fn times_seen(&self, row: &str) -> usize {
        self.world().published.values().flatten().filter(|r| *r == row).count()
    }

    /// What the world sees, checked: every row once, and running counts that fit.
    pub(super) fn assert_exactly_once(&self) {
        self.assert_seen(|_| 1);
    }

    /// Checks that the world sees every row of a split so often, and running counts that fit.
    pub(super) fn assert_seen(&self, times: fn(u64) -> usize) {
        let world = self.world();
        let mut rows: Vec<&String> = world.published.values().flatten().filter(|r| !r.starts_with('#')).collect();
        rows.sort_unstable();
        let mut expected: Vec<String> = (0..SPLITS)
            .flat_map(|s| (0..ROWS).flat_map(move |row| vec![format!("split{s}:{row}"); times(s)]))
            .collect();
        expected.sort_unstable();
        assert_eq!(rows, expected.iter().collect::<Vec<_>>());
        // The names begin with the epoch in a fixed width.
        let mut seen = 0;
        for (name, rows) in &world.published {
            let (counts, data): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r.starts_with('#'));
            seen += data.len();
            assert_eq!(counts, vec![&format!("#{seen}")], "{name}");
        }
        let mut epochs = world.publications.clone();
        epochs.dedup();
        assert_eq!(epochs, world.publications, "each epoch has one effect");
        assert!(epochs.is_sorted(), "in their order");
    }

    /// Hidden output that nobody will publish.
    pub(super) fn staged(&self) -> usize {
        self.world().staged.len()
    }

    /// Files of the job in one of its directories, oldest epoch first.
    pub(super) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.join("jobs/j").join(directory)).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        let epoch = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.split('-').next().unwrap().parse::<u64>().unwrap()
        };
        files.sort_by_key(epoch);
        files
    }
}

struct FakeEnumerator {
    world: Arc<Mutex<World>>,
}

#[async_trait]
impl SplitEnumerator for FakeEnumerator {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        let hangs = {
            let mut world = self.world.lock().unwrap();
            world.discoveries += 1;
            world.hanging_discovery == Some(world.discoveries)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let gone = self.world.lock().unwrap().gone_split;
        let split = |s| SourceSplit { id: SplitId(format!("split{s}")), payload: ROWS.to_string() };
        Ok((0..SPLITS).filter(|s| Some(*s) != gone).map(split).collect())
    }
}

struct FakeCommitter {
    world: Arc<Mutex<World>>,
    crash: mpsc::Sender<()>,
}

/// A commit that runs; there is never a second one.
struct Committing<'a>(&'a Mutex<World>);

impl<'a> Committing<'a> {
    fn begin(world: &'a Mutex<World>) -> Committing<'a> {
        let mut held = world.lock().unwrap();
        held.commits_begun += 1;
        held.committing += 1;
        assert_eq!(held.committing, 1, "two commits at a time");
        Committing(world)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().committing -= 1;
    }
}

impl FakeCommitter {
    /// Holds the commit up where the test wants it.
    async fn hold_up(&self) {
        let (hangs, gate) = {
            let mut world = self.world.lock().unwrap();
            let hangs = world.hanging_commits > 0;
            world.hanging_commits -= u32::from(hangs);
            world.progress += u64::from(hangs && world.hanging_commits_get_further);
            (hangs, world.commit_gate.clone())
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.unwrap();
        }
    }
}

#[async_trait]
impl Committer for FakeCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        let _committing = Committing::begin(&self.world);
        self.hold_up().await;
        crash_at(&self.world, &self.crash, Crash::BeforeCommit(epoch.0)).await;
        {
            let mut world = self.world.lock().unwrap();
            if world.failing_commits > 0 {
                world.failing_commits -= 1;
                return Err(ConnectorError::new(ErrorKind::Transient, "busy"));
            }
            for Committable { payload: name } in committables {
                match world.staged.remove(name) {
                    Some(rows) => {
                        world.published.insert(name.clone(), rows);
                        world.publications.push(epoch);
                    }
                    None if world.published.contains_key(name) => {}
                    None => return Err(ConnectorError::new(ErrorKind::Lost, format!("output '{name}' is gone"))),
                }
            }
        }
        crash_at(&self.world, &self.crash, Crash::AfterCommit(epoch.0)).await;
        Ok(())
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        let generation = |name: &str| Generation(name.rsplit('g').next().unwrap().parse().unwrap());
        let of_earlier = |name: &str| generations.contains(&generation(name));
        self.world.lock().unwrap().staged.retain(|name, _| !of_earlier(name));
        Ok(())
    }

    fn progress(&self) -> u64 {
        self.world.lock().unwrap().progress
    }
}

/// Where the crash is planned for this place: ends the process, that is, never returns.
async fn crash_at(world: &Mutex<World>, crash: &mpsc::Sender<()>, here: Crash) {
    let is_here = {
        let mut world = world.lock().unwrap();
        let is_here = world.crash == Some(here);
        if is_here {
            world.crash = None;
        }
        is_here
    };
    if is_here {
        crash.send(()).await.unwrap();
        let is_subtask = matches!(here, Crash::BeforeSnapshot(_));
        if is_subtask && world.lock().unwrap().outlives {
            return;
        }
        std::future::pending::<()>().await;
    }
}

struct FakeDeployer {
    job: JobId,
    store: Arc<CheckpointStore>,
    world: Arc<Mutex<World>>,
    crash: mpsc::Sender<()>,
    steps: Option<Arc<Steps>>,
}

#[async_trait]
impl Deployer for FakeDeployer {
    async fn deploy(&mut self, deployment: Deployment) -> Result<Attempt, Failure> {
        let (outlives, cluster) = {
            let world = self.world.lock().unwrap();
            (world.outlives, world.cluster.clone())
        };
        let attempt = self.start(deployment.clone());
        if !outlives {
            return Ok(attempt);
        }
        cluster.take_in(deployment.generation, attempt);
        Ok(cluster.lend(deployment.generation, self.steps.clone()).unwrap())
    }

    async fn adopt(&mut self, running: &DeployedAttempt, complete: Epoch) -> Result<Attempt, String> {
        let cluster = self.world.lock().unwrap().cluster.clone();
        cluster.complete(complete);
        cluster.lend(running.generation, self.steps.clone())
    }
}

impl FakeDeployer {
    fn start(&self, deployment: Deployment) -> Attempt {
        self.world.lock().unwrap().deployments.push(deployment.clone());
        let (events_sender, events) = mpsc::channel(64);
        let mut subtasks = BTreeMap::new();
        let mut inputs = Vec::new();
        for index in 0..deployment.parallelism {
            let (control_sender, control) = mpsc::channel(64);
            let (output, input) = mpsc::channel(64);
            inputs.push(input);
            let id = SubtaskId { operator: SOURCE, index };
            subtasks.insert(id, control_sender);
            let (generation, replay_until) = (deployment.generation, deployment.replay_until);
            let source = FakeSource {
                id,
                generation,
                replay_until,
                events: events_sender.clone(),
                output,
                splits: BTreeMap::new(),
                budget: ROWS_PER_EPOCH,
                last_barrier: Epoch(0),
                requested: false,
                no_more: false,
                exhausted: false,
            };
            tokio::spawn(source.run(control));
        }
        let (control_sender, _control) = mpsc::channel(64);
        subtasks.insert(SubtaskId { operator: SINK, index: 0 }, control_sender);
        let (job, store) = (self.job.clone(), self.store.clone());
        let (world, crash) = (self.world.clone(), self.crash.clone());
        let sink = FakeSink { job, store, world, crash, deployment, events: events_sender, count: 0 };
        tokio::spawn(sink.run(inputs));
        Attempt { subtasks, events, slots: None, hold: Box::new(()) }
    }
}

enum Element {
    Row(String),
    Barrier(Barrier, bool),
}

struct FakeSource {
    id: SubtaskId,
    generation: Generation,
    replay_until: Option<Epoch>,
    events: mpsc::Sender<FromSubtask>,
    output: mpsc::Sender<Element>,
    splits: BTreeMap<SplitId, SplitState>,
    budget: u64,
    last_barrier: Epoch,
    requested: bool,
    no_more: bool,
    exhausted: bool,
}

impl FakeSource {
    async fn run(mut self, mut control: mpsc::Receiver<ToSubtask>) {
        while let Some(message) = self.read(&mut control).await {
            match message {
                // Of a leader that does not know what the one before has told.
                ToSubtask::AssignSplits { after, .. } if after < self.last_barrier => {}
                ToSubtask::InjectBarrier { barrier, .. } if barrier.epoch <= self.last_barrier => {}
                ToSubtask::Resume => {
                    if self.requested {
                        let _ = self.events.send(FromSubtask::RequestSplit { subtask: self.id }).await;
                    }
                    if self.exhausted {
                        let _ = self.events.send(FromSubtask::InputExhausted { subtask: self.id }).await;
                    }
                }
                ToSubtask::AssignSplits { mut splits, .. } => {
                    splits.retain(|s| !self.splits.contains_key(&s.split.id));
                    self.requested &= splits.is_empty();
                    self.splits.extend(splits.into_iter().map(|s| (s.split.id.clone(), s)));
                }
                ToSubtask::InjectBarrier { barrier, last } => {
                    if !self.barrier(barrier, last).await || last {
                        break;
                    }
                }
                ToSubtask::ReplayTo { barrier, part } => {
                    for end in part.splits {
                        while self.splits[&end.split.id].progress != end.progress {
                            self.next_row(&end.split.id).await;
                        }
                    }
                    if self.replay_until == Some(barrier.epoch) {
                        self.replay_until = None;
                    }
                    self.barrier(barrier, false).await;
                }
                ToSubtask::NoMoreSplits => self.no_more = true,
                ToSubtask::UnassignedWatermark { .. }
                | ToSubtask::FollowWatermark { .. }
                | ToSubtask::Retired { .. } => {}
                ToSubtask::Cancel => return,
            }
        }
    }

    /// Reads what the epoch still allows, says what is to be said, and waits for a message.
    async fn read(&mut self, control: &mut mpsc::Receiver<ToSubtask>) -> Option<ToSubtask> {
        while self.replay_until.is_none() {
            if let Ok(message) = control.try_recv() {
                return Some(message);
            }
            let finished = Some(SplitProgress::Finished);
            let next = self.splits.values().find(|s| s.progress != finished).map(|s| s.split.id.clone());
            match next {
                Some(split) if self.budget > 0 => {
                    self.budget -= 1;
                    self.next_row(&split).await;
                    tokio::task::yield_now().await;
                    continue;
                }
                None if self.no_more && !self.exhausted => {
                    self.exhausted = true;
                    self.events.send(FromSubtask::InputExhausted { subtask: self.id }).await.ok()?;
                }
                None if !self.requested && !self.no_more => {
                    self.requested = true;
                    self.events.send(FromSubtask::RequestSplit { subtask: self.id }).await.ok()?;
                }
                _ => {}
            }
            break;
        }
        control.recv().await
    }

    async fn next_row(&mut self, split: &SplitId) {
        let state = self.splits.get_mut(split).unwrap();
        let rows: u64 = state.split.payload.parse().unwrap();
        let position = match &state.progress {
            Some(SplitProgress::Reading { position, .. }) => position.parse::<u64>().unwrap(),
            _ => 0,
        };
        assert_ne!(state.progress, Some(SplitProgress::Finished), "read beyond the end of {split}");
        state.progress = Some(if position + 1 == rows {
            SplitProgress::Finished
        } else {
            SplitProgress::Reading { position: (position + 1).to_string(), watermark: Timestamp::MIN }
        });
        // A sink that is gone is noticed at the barrier.
        let _ = self.output.send(Element::Row(format!("{split}:{position}"))).await;
    }

    /// False where the neighbour is gone.
    async fn barrier(&mut self, barrier: Barrier, last: bool) -> bool {
        self.budget = ROWS_PER_EPOCH;
        self.last_barrier = barrier.epoch;
        let (subtask, generation, epoch) = (self.id, self.generation, barrier.epoch);
        if self.output.send(Element::Barrier(barrier, last)).await.is_err() {
            let failure = Failure { message: "the neighbour is gone".to_owned(), retryable: true, consequence: true };
            let _ = self.events.send(FromSubtask::Failed { subtask, generation, failure }).await;
            return false;
        }
        let part = OperatorSnapshot { splits: self.splits.values().cloned().collect(), ..OperatorSnapshot::default() };
        self.splits.retain(|_, split| !split.is_finished());
        let snapshot = BTreeMap::from([(SOURCE, part)]);
        let done = FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot };
        // Said twice: a duplicate changes nothing.
        let sent = self.events.send(done.clone()).await.is_ok() && self.events.send(done).await.is_ok();
        if last {
            let _ = self.events.send(FromSubtask::Finished { subtask }).await;
        }
        sent
    }
}

struct FakeSink {
    job: JobId,
    store: Arc<CheckpointStore>,
    world: Arc<Mutex<World>>,
    crash: mpsc::Sender<()>,
    deployment: Deployment,
    events: mpsc::Sender<FromSubtask>,
    count: i64,
}

impl FakeSink {
    async fn run(mut self, mut inputs: Vec<mpsc::Receiver<Element>>) {
        if let Err(failure) = self.restore().await {
            self.fail(failure).await;
            return;
        }
        loop {
            let mut rows = Vec::new();
            let mut end = None;
            for input in &mut inputs {
                loop {
                    match input.recv().await {
                        Some(Element::Row(row)) => rows.push(row),
                        Some(Element::Barrier(barrier, last)) => {
                            end = Some((barrier, last));
                            break;
                        }
                        None => return,
                    }
                }
            }
            let (barrier, last) = end.expect("there are sources");
            if let Some(failure) = self.planned_failure(barrier.epoch) {
                while self.is_failure_early() {
                    tokio::task::yield_now().await;
                }
                if let Some((file, damage)) = self.world.lock().unwrap().damage.take() {
                    damage(&file);
                }
                drop(inputs);
                // The neighbours notice first.
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                self.fail(failure).await;
                return;
            }
            crash_at(&self.world, &self.crash, Crash::BeforeSnapshot(barrier.epoch.0)).await;
            self.snapshot(barrier.epoch, rows).await;
            if last {
                let subtask = SubtaskId { operator: SINK, index: 0 };
                let _ = self.events.send(FromSubtask::Finished { subtask }).await;
                return;
            }
        }
    }

    fn is_failure_early(&self) -> bool {
        let world = self.world.lock().unwrap();
        world.commits_begun < world.failure_after_commits
    }

    fn planned_failure(&self, epoch: Epoch) -> Option<Failure> {
        let mut world = self.world.lock().unwrap();
        let is_now = world.failure.as_ref().is_some_and(|(at, _)| *at == epoch.0);
        if is_now { world.failure.take().map(|(_, failure)| failure) } else { None }
    }

    async fn restore(&mut self) -> Result<(), Failure> {
        let snapshots = self.deployment.restore.operators.get(&SINK).cloned().unwrap_or_default();
        for handle in snapshots.into_iter().flat_map(|(_, snapshot)| snapshot.state) {
            let all = KeyGroupRange { start: 0, end: 4 };
            let read = self.store.read_state(&self.job, &handle, all).await;
            let read =
                read.map_err(|e| Failure { message: e.to_string(), retryable: e.is_retryable(), consequence: false })?;
            self.count = read.tables[0].rows.column(0).as_primitive::<Int64Type>().value(0);
        }
        Ok(())
    }

    async fn snapshot(&mut self, epoch: Epoch, mut rows: Vec<String>) {
        let generation = self.deployment.generation;
        self.count += rows.len() as i64;
        rows.push(format!("#{}", self.count));
        let name = format!("{:05}-g{generation}", epoch.0);
        self.world.lock().unwrap().staged.insert(name.clone(), rows);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![self.count]));
        let rows = RecordBatch::try_from_iter([("count", column)]).unwrap();
        let table = TableDelta { table: "count".to_owned(), version: 1, key: vec![0], key_groups: vec![0], rows };
        let handle =
            self.store.write_state(&self.job, generation, epoch, SINK, 0, "", vec![table.into()]).await.unwrap();
        let committables = vec![Committable { payload: name }];
        let overtakes = self.world.lock().unwrap().unaligned == Some(epoch.0);
        let in_flight = overtakes.then(InFlight::default);
        let part = OperatorSnapshot { state: vec![handle], committables, in_flight, ..OperatorSnapshot::default() };
        let subtask = SubtaskId { operator: SINK, index: 0 };
        let snapshot = BTreeMap::from([(SINK, part)]);
        let stale = Generation(generation.0.wrapping_sub(1));
        for generation in [stale, generation] {
            // What an earlier attempt says is refused.
            let snapshot = if generation == stale { BTreeMap::new() } else { snapshot.clone() };
            let _ = self.events.send(FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot }).await;
        }
    }

    async fn fail(&self, failure: Failure) {
        let (subtask, generation) = (SubtaskId { operator: SINK, index: 0 }, self.deployment.generation);
        let _ = self.events.send(FromSubtask::Failed { subtask, generation, failure }).await;
    }
}
