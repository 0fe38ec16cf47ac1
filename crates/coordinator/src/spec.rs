//! What the coordinator is given and what it gives: the words between it and whoever starts a job (`server`)
//! or deploys its attempts (the engine, through [`Deployer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstem_connectors::{Committer, SplitEnumerator};
use mainstem_core::checkpoint::{CadenceChoice, CheckpointOptions};
use mainstem_core::cluster::messages::{OperatorCounters, SlotFiles, WorkerOffer};
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId, SubtaskId};
use mainstem_core::job::JobState;
use mainstem_core::latency::MarkerOptions;
use mainstem_core::protocol::{Failure, FromSubtask, OperatorSnapshot, ToSubtask};
use mainstem_core::time::Timestamp;
use mainstem_state::{SavepointProgress, StateSize};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use mainstem_core::job_record::{RestoreFrom, SavepointRequest};

use crate::history::JobHistory;
use crate::meta_log::{DeployedAttempt, SavepointRecord};

/// A job to run.
pub struct JobSpec {
    /// The name under which its state is kept.
    pub job: JobId,
    /// Its dataflow, carried unread and stored with it. Where the job is stored already: the stored one.
    pub graph_json: String,
    /// Of the SQL text, stored with the job.
    pub sql_hash: String,
    /// Key groups; fixed for the life of the job.
    pub key_groups: u16,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// Every task of the dataflow.
    pub tasks: Vec<TaskSpec>,
    /// How the splits of each source operator are found.
    pub sources: BTreeMap<OperatorId, SourceSpec>,
    /// What publishes the output of each sink operator that needs it.
    pub committers: BTreeMap<OperatorId, Box<dyn Committer>>,
    /// When checkpoints are taken.
    pub options: CheckpointOptions,
    /// The savepoint with which a job begins that does not exist yet.
    pub restore: Option<RestoreFrom>,
    /// Where its driver notes what happens.
    pub history: Arc<JobHistory>,
}

/// A savepoint that is being taken, for those who look on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointStatus {
    /// What was asked for.
    pub request: SavepointRequest,
    /// Its epoch; none before that is published.
    pub epoch: Option<Epoch>,
    /// How much of it is copied.
    pub copied: SavepointProgress,
}

impl JobSpec {
    /// The subtasks that read each source.
    pub(crate) fn source_subtasks(&self) -> BTreeMap<OperatorId, BTreeSet<SubtaskId>> {
        let mut subtasks = BTreeMap::<OperatorId, BTreeSet<SubtaskId>>::new();
        for task in &self.tasks {
            let Some(source) = task.source else { continue };
            let of_task = (0..task.parallelism).map(|index| SubtaskId { operator: task.head, index });
            subtasks.entry(source).or_default().extend(of_task);
        }
        subtasks
    }
}

/// A chain of operators that runs as one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Its first operator, which names its subtasks.
    pub head: OperatorId,
    /// All of its operators.
    pub operators: Vec<OperatorId>,
    /// Its subtasks.
    pub parallelism: u32,
    /// Whether their number follows the job's parallelism.
    pub scales: bool,
    /// Its source operator (then the head), if it reads a source.
    pub source: Option<OperatorId>,
}

/// How the splits of a source are found.
pub struct SourceSpec {
    /// Looks for splits.
    pub enumerator: Box<dyn SplitEnumerator>,
    /// How often; none: once, the source is bounded.
    pub monitor_interval: Option<Duration>,
    /// Whether a subtask reads many splits side by side.
    pub side_by_side: bool,
    /// Sources of one group hold each other's windows back, so an idle one follows the others. None: no window
    /// depends on it.
    pub group: Option<OperatorId>,
}

/// Starts the subtasks of an attempt.
#[async_trait]
pub trait Deployer: Send + Sync {
    /// Starts every subtask of the job. Dropped where the user cancels the job meanwhile. Called once an attempt; the attempt before has been cancelled, and
    /// whatever of it still runs where this one will run must be gone when this returns. A failure fails the attempt.
    async fn deploy(&mut self, deployment: Deployment) -> Result<Attempt, Failure>;

    /// Goes on with an attempt that another coordinator has deployed, whose newest complete epoch is given. Its subtasks
    /// report again what no complete epoch covers; source subtasks wait for [`ToSubtask::Resume`] with what else there is.
    ///
    /// # Errors
    /// Why it cannot be gone on with; a new attempt follows then.
    async fn adopt(&mut self, running: &DeployedAttempt, complete: Epoch) -> Result<Attempt, String> {
        let _ = (running, complete);
        Err("its subtasks ended with the coordinator".to_owned())
    }

    /// What the last attempt has counted, by operator, as far as that is known here; asked when the job ends.
    fn counters(&self) -> BTreeMap<OperatorId, OperatorCounters> {
        BTreeMap::new()
    }
}

/// An attempt to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Its number.
    pub generation: Generation,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// What the clock says in its first epoch.
    pub first_epoch_now: Timestamp,
    /// What it starts from.
    pub restore: RestorePlan,
    /// Epochs up to this one are replayed as they were recorded ([`ToSubtask::ReplayTo`]): until then source
    /// subtasks read only what they are told.
    pub replay_until: Option<Epoch>,
    /// See [`CheckpointOptions::aligned_timeout_ms`].
    pub aligned_timeout_ms: Option<u64>,
    /// Which latency markers its sources send.
    pub markers: MarkerOptions,
}

/// The checkpoint that an attempt starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestorePlan {
    /// Its epoch; none: the job starts from nothing.
    pub epoch: Option<Epoch>,
    /// Snapshots by operator, each with the index of the subtask that made it. Splits are not in them: they
    /// come as assignments.
    pub operators: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
}

/// The subtasks of an attempt.
pub struct Attempt {
    /// The way to each subtask. Bounded; a subtask whose channel is full counts as stuck.
    pub subtasks: BTreeMap<SubtaskId, mpsc::Sender<ToSubtask>>,
    /// What the subtasks have to say; ends when all of them have ended.
    pub events: mpsc::Receiver<FromSubtask>,
    /// The worker of each slot, where the subtasks outlive this coordinator; none where they end with it.
    pub slots: Option<Vec<WorkerOffer>>,
    /// What the deployer keeps as long as the attempt lasts.
    pub hold: Box<dyn AttemptHold>,
}

/// A deployer's hold on an attempt. Dropping it without more leaves subtasks that outlive this coordinator to the next one.
pub trait AttemptHold: Send + Sync {
    /// An epoch is complete. `files`: what restores each slot, where the job wants standbys.
    fn complete(&self, _epoch: Epoch, _files: &SlotFiles) {}

    /// Nothing of the attempt may go on.
    fn end(&mut self) {}
}

/// Where dropping the channels to the subtasks ends them.
impl AttemptHold for () {}

/// What the user wants of a running job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Take a last checkpoint, publish its output, and stop.
    Stop,
    /// Stop at once; what is not in a checkpoint is read again at the next start.
    Cancel,
    /// Go on at another parallelism, from a checkpoint that is taken for it.
    Rescale(u32),
    /// Take a savepoint. One at a time: the outcome of the one before is recorded.
    Savepoint(SavepointRequest),
}

/// What a job shows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Where it stands.
    pub state: JobState,
    /// The running attempt, or the last one.
    pub generation: Generation,
    /// The newest complete checkpoint.
    pub last_complete: Option<Epoch>,
    /// The newest epoch whose output is visible.
    pub last_committed: Option<Epoch>,
    /// When the newest checkpoint became complete, by the time of day.
    pub last_checkpoint_at: Option<Timestamp>,
    /// How long it took, from the barrier to the record of its completion.
    pub last_checkpoint_duration_ms: Option<i64>,
    /// The time between checkpoints as it was chosen last; none: it is set.
    #[serde(default)]
    pub cadence: Option<CadenceChoice>,
    /// Bytes of state that it refers to.
    pub last_checkpoint_bytes: Option<u64>,
    /// The longest that one of its subtasks aligned the barrier.
    pub last_checkpoint_alignment_ms: Option<u64>,
    /// Bytes of rows in flight that it holds; none: its barrier was aligned everywhere.
    pub last_checkpoint_in_flight_bytes: Option<u64>,
    /// Checkpoints of this process that were not aligned everywhere.
    pub unaligned_checkpoints: u64,
    /// How large the state of each operator is in it.
    pub state_sizes: BTreeMap<OperatorId, StateSize>,
    /// Attempts of this process that were followed by another one.
    pub restarts: u32,
    /// Why the last one failed.
    pub last_failure: Option<String>,
    /// What it waits for before an attempt can run.
    pub waiting: Option<String>,
    /// Records that the outside has refused when they were published, and that were dropped as the user chose, in this
    /// process.
    #[serde(default)]
    pub rejected_records: u64,
    /// Splits that wait for a reader.
    pub splits_waiting: usize,
    /// Splits of monitored sources that are remembered only because they are finished and still exist.
    pub splits_finished: usize,
    /// Damaged checkpoint files that were passed over at the last restore, by name.
    pub damaged: Vec<String>,
    /// The savepoint that is being taken.
    pub savepoint: Option<SavepointStatus>,
    /// What became of the last one that was asked for in this process.
    pub last_savepoint: Option<SavepointRecord>,
}

impl Default for JobStatus {
    fn default() -> Self {
        JobStatus {
            state: JobState::Created,
            generation: Generation(0),
            last_complete: None,
            last_committed: None,
            last_checkpoint_at: None,
            last_checkpoint_duration_ms: None,
            cadence: None,
            last_checkpoint_bytes: None,
            last_checkpoint_alignment_ms: None,
            last_checkpoint_in_flight_bytes: None,
            unaligned_checkpoints: 0,
            state_sizes: BTreeMap::new(),
            restarts: 0,
            last_failure: None,
            waiting: None,
            rejected_records: 0,
            splits_waiting: 0,
            splits_finished: 0,
            damaged: Vec::new(),
            savepoint: None,
            last_savepoint: None,
        }
    }
}

/// How a run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// All input has been read, all output is visible.
    Finished,
    /// It had finished in an earlier run; nothing was done.
    AlreadyFinished,
    /// Stopped on request; the next run goes on from the last checkpoint.
    Stopped,
    /// It cannot go on by itself.
    Failed(Failure),
}
