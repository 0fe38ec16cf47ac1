//! Turns the graph of a job into running subtasks. Called once an attempt.

mod build;
mod operators;
mod restoring;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream};
use mainstem_core::alignment::{AlignmentConfig, BarrierMark, RESUME};
use mainstem_core::cluster::messages::{AttemptId, WorkerId, WorkerOffer};
use mainstem_core::graph::Chain as ChainShape;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId, SubtaskId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::latency::MarkerOptions;
use mainstem_core::protocol::{Barrier, Failure, FromSubtask, OperatorSnapshot, StateHandle, ToSubtask};
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::{JobGraph, OperatorKind, source_groups};
use mainstem_rt::Clock;
use mainstem_state::{CheckpointStore, TableDelta};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, Span, error_span};

use self::build::{Builder, BuiltTask};
use self::restoring::Restoring;
use crate::budget::MemoryBudget;
use crate::error::EngineError;
use crate::exchange::DataPlane;
use crate::metrics::JobMetrics;
use crate::operator::{Operator, Restored};
use crate::watermark_alignment::AlignmentGroups;

/// Messages that may wait for a subtask.
const CONTROL_MAX: usize = 64;
/// Messages that may wait for the coordinator.
const EVENTS_MAX: usize = 1024;
/// State files of an operator that are read ahead of the one that it takes back. Each is in memory whole.
const FILES_AHEAD: usize = 2;

/// An attempt to run a job: what to run and where to go on.
pub struct Deployment {
    /// The job.
    pub job: JobId,
    /// Its dataflow.
    pub graph: Arc<JobGraph>,
    /// The attempt.
    pub generation: Generation,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// Key groups of the job.
    pub key_groups: u16,
    /// What the clock says in the first epoch.
    pub first_epoch_now: Timestamp,
    /// Snapshots to restore, by operator, with the index of the subtask that made them.
    pub restore: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
    /// Epochs up to this one are replayed as they were recorded.
    pub replay_until: Option<Epoch>,
    /// So long after it has left the sources a barrier no longer waits for what is in flight, in milliseconds; none: it
    /// always waits.
    pub aligned_timeout_ms: Option<u64>,
    /// Which latency markers its sources send.
    pub markers: MarkerOptions,
    /// The time of day, for the markers.
    pub clock: Arc<dyn Clock>,
    /// Relative paths of the user start here.
    pub working_dir: PathBuf,
    /// Checkpoint files.
    pub store: Arc<CheckpointStore>,
    /// Counters.
    pub metrics: Arc<JobMetrics>,
    /// The memory of this worker.
    pub memory: Arc<MemoryBudget>,
    /// Which of the subtasks run here.
    pub placement: Placement,
}

/// Where the subtasks of an attempt run.
pub enum Placement {
    /// All in this process.
    Alone,
    /// On the workers of a cluster: subtask `i` of every task on slot `i`.
    Cluster {
        /// This worker.
        worker: WorkerId,
        /// The worker of each slot.
        slots: Vec<WorkerOffer>,
        /// The way to the others.
        data: Arc<DataPlane>,
    },
}

/// Where a subtask runs.
pub(crate) enum Place<'a> {
    Here,
    There { data: &'a DataPlane, on: &'a WorkerOffer },
}

impl Placement {
    pub(crate) fn place(&self, index: u32) -> Place<'_> {
        match self {
            Placement::Alone => Place::Here,
            Placement::Cluster { worker, slots, data } => match &slots[index as usize] {
                slot if slot.worker == *worker => Place::Here,
                slot => Place::There { data, on: slot },
            },
        }
    }
}

impl Deployment {
    pub(crate) fn attempt(&self) -> AttemptId {
        AttemptId { job: self.job.clone(), generation: self.generation }
    }

    /// When an epoch is no longer aligned. Windows over processing time take it that no row of an epoch comes after its
    /// barrier, so a job that has them is always aligned.
    pub(crate) fn alignment(&self) -> AlignmentConfig {
        let by_clock = self.graph.nodes.iter().any(|node| node.op.kind.closes_by_clock());
        AlignmentConfig {
            timeout_ms: self.aligned_timeout_ms.filter(|_| !by_clock),
            aligned_until: self.replay_until.unwrap_or(RESUME),
        }
    }

    /// The barrier to begin with where the restored checkpoint holds elements in flight.
    pub(crate) fn resume(&self) -> Option<BarrierMark> {
        let barrier = Barrier { epoch: RESUME, next_epoch_now: self.first_epoch_now };
        self.overtook().then(|| BarrierMark::new(barrier, false))
    }

    /// Whether the barrier of the restored checkpoint has overtaken anything. Then its subtasks stand at different
    /// watermarks, and each takes back what the one in its place gave and nothing else: such a checkpoint is restored at
    /// the parallelism at which it was taken.
    fn overtook(&self) -> bool {
        self.restore.values().flatten().any(|(_, part)| part.in_flight.is_some())
    }

    /// Nothing may be lost where a checkpoint with elements in flight meets another parallelism.
    fn check_places(&self, chains: &[ChainShape]) -> Result<(), EngineError> {
        let parts = |chain: &ChainShape| self.restore.get(&chain.head()).map_or(0, Vec::len);
        let moved =
            |chain: &&ChainShape| parts(chain) != self.graph.parallelism(chain.head(), self.parallelism) as usize;
        match chains.iter().find(moved).filter(|_| self.overtook()) {
            None => Ok(()),
            Some(chain) => Err(EngineError::Bug(format!(
                "a checkpoint with rows in flight has {} parts of '{}' and meets another parallelism",
                parts(chain),
                self.graph.node(chain.head()).name
            ))),
        }
    }

    /// The rows of a state file for the key groups for which it counts, which an operator begins with.
    pub(crate) async fn read_state(
        &self,
        operator: OperatorId,
        handle: &StateHandle,
    ) -> Result<Vec<TableDelta>, EngineError> {
        let read = self.store.read_state(&self.job, handle, handle.key_groups).await?;
        self.metrics.operator(operator).count_restored(handle.size, read.origin);
        Ok(read.tables)
    }

    /// The files that hold what was in flight to a subtask.
    pub(crate) fn in_flight_of(&self, subtask: SubtaskId) -> &[StateHandle] {
        let parts = self.restore.get(&subtask.operator).into_iter().flatten();
        let mut own = parts.filter(|(index, _)| *index == subtask.index);
        own.find_map(|(_, part)| part.in_flight.as_ref()).map_or(&[], |in_flight| &in_flight.files)
    }
}

/// The subtasks of an attempt. Dropping it stops them without a checkpoint.
pub struct RunningAttempt {
    /// The way to each subtask.
    pub subtasks: BTreeMap<SubtaskId, mpsc::Sender<ToSubtask>>,
    /// What the subtasks have to say.
    pub events: mpsc::Receiver<FromSubtask>,
    /// The tasks themselves.
    pub tasks: JoinSet<()>,
}

/// Builds and starts all subtasks that run here, on the current runtime. State is restored inside the subtasks.
pub fn deploy(deployment: Deployment) -> Result<RunningAttempt, EngineError> {
    let (events_sender, events) = mpsc::channel(EVENTS_MAX);
    let chains = deployment.graph.chains();
    let aligned = AlignmentGroups::of(&deployment.graph, deployment.parallelism)?;
    let mut wiring = wiring::wire(&deployment, &chains, &aligned);
    let reporting = reporting_sources(&deployment.graph)?;
    deployment.check_places(&chains)?;
    deployment.metrics.begin_attempt();
    let deployment = Arc::new(deployment);
    let mut subtasks = BTreeMap::new();
    let mut built = Vec::new();
    for chain in &chains {
        let parallelism = deployment.graph.parallelism(chain.head(), deployment.parallelism);
        let here = (0..parallelism).filter(|index| matches!(deployment.placement.place(*index), Place::Here));
        for index in here {
            let subtask = SubtaskId { operator: chain.head(), index };
            let (control_sender, control) = mpsc::channel(CONTROL_MAX);
            subtasks.insert(subtask, control_sender);
            let builder = Builder {
                deployment: &deployment,
                chain,
                subtask,
                parallelism,
                reporting: &reporting,
                aligned: &aligned,
            };
            built.push((
                subtask,
                builder.build(&mut wiring)?,
                control,
                restore_of(&deployment, chain, subtask, parallelism),
            ));
        }
    }
    let mut tasks = JoinSet::new();
    let restoring = Arc::new(Restoring::of(built.len()));
    for (subtask, task, control, restore) in built {
        let state = TaskState { restores: restore, restoring: restoring.clone() };
        let supervised = supervise(deployment.clone(), subtask, task, control, state, events_sender.clone());
        tasks.spawn(supervised.instrument(span(&deployment, subtask)));
    }
    Ok(RunningAttempt { subtasks, events, tasks })
}

/// What each log line of a subtask names, whatever runs around it. Of the highest level, so that no filter leaves it out.
fn span(deployment: &Deployment, subtask: SubtaskId) -> Span {
    let task = deployment.graph.node(subtask.operator).name.as_str();
    let (job, generation) = (&deployment.job, deployment.generation.0);
    error_span!(parent: None, "subtask", %job, task, subtask = subtask.index, generation)
}

/// Sources whose subtasks tell the coordinator their watermarks: those of every group of which some source may
/// have idle subtasks, because of an idle time-out, or because it waits for splits to come.
fn reporting_sources(graph: &JobGraph) -> Result<BTreeSet<OperatorId>, EngineError> {
    let groups = source_groups(graph);
    let mut idle_groups = BTreeSet::new();
    for (source, group) in &groups {
        let OperatorKind::Source(spec) = &graph.node(*source).op.kind else { continue };
        let has_timeout = spec.watermark.as_ref().is_some_and(|watermark| watermark.idle_timeout_ms.is_some());
        let connector = mainstem_connectors::source(&spec.table);
        let connector = connector.map_err(|error| EngineError::Connector { table: spec.table.name.clone(), error })?;
        if has_timeout || connector.monitor_interval().is_some() {
            idle_groups.insert(*group);
        }
    }
    Ok(groups.into_iter().filter(|(_, group)| idle_groups.contains(group)).map(|(source, _)| source).collect())
}

/// Runs a subtask and reports how it ended. A panic takes down the subtask only (C5).
async fn supervise(
    deployment: Arc<Deployment>,
    subtask: SubtaskId,
    task: BuiltTask,
    control: mpsc::Receiver<ToSubtask>,
    state: TaskState,
    events: mpsc::Sender<FromSubtask>,
) {
    let running = std::panic::AssertUnwindSafe(task.run(&deployment, control, events.clone(), state));
    let generation = deployment.generation;
    let event = match running.catch_unwind().await {
        Ok(Ok(true)) => FromSubtask::Finished { subtask },
        Ok(Ok(false)) => return,
        Ok(Err(error)) => FromSubtask::Failed { subtask, generation, failure: error.into_failure() },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let name = &deployment.graph.node(subtask.operator).name;
            let message = format!("bug: '{name}' panicked: {}; please report it", text.unwrap_or("no message"));
            FromSubtask::Failed {
                subtask,
                generation,
                failure: Failure { message, retryable: true, consequence: false },
            }
        }
    };
    // Without a coordinator the whole attempt is being torn down.
    let _ = events.send(event).await;
}

/// What a subtask takes back, and whom it tells when it has.
pub(crate) struct TaskState {
    /// Of its operators.
    pub(crate) restores: Vec<OperatorRestore>,
    /// Is told.
    pub(crate) restoring: Arc<Restoring>,
}

/// What one operator of a subtask takes back.
pub(crate) struct OperatorRestore {
    /// Which operator.
    pub(crate) operator: OperatorId,
    /// Unkeyed state of every subtask that there was.
    pub(crate) metas: Vec<String>,
    /// Files that hold some of the subtask's key groups, oldest first, see [`files_of`].
    pub(crate) handles: Vec<StateHandle>,
    /// Bytes of memory that its key groups took, about; none where nobody has said so.
    pub(crate) memory_bytes: Option<u64>,
}

fn restore_of(
    deployment: &Deployment,
    chain: &ChainShape,
    subtask: SubtaskId,
    parallelism: u32,
) -> Vec<OperatorRestore> {
    let range = KeyGroupRange::of_subtask(deployment.key_groups, parallelism, subtask.index);
    let own_only = deployment.overtook();
    let mut restores = Vec::new();
    for operator in &chain.operators {
        let Some(snapshots) = deployment.restore.get(operator) else { continue };
        let taken = snapshots.iter().filter(|(index, _)| !own_only || *index == subtask.index);
        let metas = taken.clone().filter_map(|(_, s)| s.meta.clone()).collect();
        let bytes = taken.clone().map(|(_, snapshot)| snapshot.memory_bytes);
        let bytes = bytes.reduce(|all, more| all?.checked_add(more?)).flatten();
        let (own, all) = (u64::from(range.end - range.start), u64::from(deployment.key_groups.max(1)));
        let memory_bytes = bytes.map(|bytes| if own_only { bytes } else { (bytes / all).saturating_mul(own) });
        let handles = files_of(taken.map(|(_, snapshot)| snapshot), range);
        restores.push(OperatorRestore { operator: *operator, metas, handles, memory_bytes });
    }
    restores
}

/// The files that hold state of the key groups in `range`, oldest first, each narrowed to those of them for which it
/// counts. A file may be older than a change of parallelism: then it holds key groups of several subtasks, and one of
/// them may have written its own anew since. So what a subtask takes back, and names in its next checkpoint, is only
/// ever the part for its own key groups; otherwise what was replaced would come back with the next change.
pub(crate) fn files_of<'a>(
    snapshots: impl Iterator<Item = &'a OperatorSnapshot>,
    range: KeyGroupRange,
) -> Vec<StateHandle> {
    let mut seen = BTreeSet::new();
    let mut handles = Vec::new();
    for handle in snapshots.flat_map(|snapshot| &snapshot.state) {
        if !handle.key_groups.overlaps(&range) {
            continue;
        }
        let key_groups = handle.key_groups.intersection(&range);
        if seen.insert((handle.path.clone(), key_groups.start)) {
            handles.push(StateHandle { key_groups, ..handle.clone() });
        }
    }
    // Stable: files of one epoch hold disjoint key groups, or are of parts of one subtask, which has them in order.
    handles.sort_by_key(|handle| handle.epoch);
    handles
}

/// Gives an operator its state back. Files are read while those before them are taken in.
pub(crate) async fn restore(
    deployment: &Deployment,
    operator: &mut dyn Operator,
    state: OperatorRestore,
) -> Result<(), EngineError> {
    operator.restore_meta(&state.metas)?;
    let id = state.operator;
    let read = |handle: StateHandle| async move {
        let tables = deployment.read_state(id, &handle).await?;
        Ok::<_, EngineError>((handle, tables))
    };
    let mut files = stream::iter(state.handles).map(read).buffered(FILES_AHEAD);
    while let Some(file) = files.next().await {
        let (handle, tables) = file?;
        let tables = tables.into_iter().map(|table| (table.table, table.version, table.rows));
        operator.restore(Restored::decoded(handle, tables))?;
    }
    operator.restored()
}
