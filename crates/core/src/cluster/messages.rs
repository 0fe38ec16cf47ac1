//! The words between the leading coordinator and its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Generation, JobId, OperatorId, SubtaskId};
use crate::lag::SourceLag;
use crate::latency::{LatencyHistogram, MarkerOptions};
use crate::protocol::{Failure, FromSubtask, OperatorSnapshot, StateHandle, ToSubtask};
use crate::time::Timestamp;

/// One life of a worker process; a process that is started again has another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl WorkerId {
    /// Whether a user means this worker: by its whole id, or by the part in front of its `@`.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.0 == name || self.0.split_once('@').is_some_and(|(front, _)| front == name)
    }

    /// The name that its user gave it: the part in front of its `@`.
    pub(crate) fn name(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(name, _)| name)
    }

    /// Name and address: what another life of it at the same place has too.
    pub(crate) fn place(&self) -> &str {
        self.0.rsplit_once('#').map_or(&self.0, |(place, _)| place)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt of one job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub generation: Generation,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} of job '{}'", self.generation, self.job)
    }
}

/// What a worker brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerOffer {
    /// Who.
    pub worker: WorkerId,
    /// Where other workers reach it for rows.
    pub data_address: String,
    /// How many subtasks of each task of a job it runs at a time, over all jobs.
    pub slots: u32,
    /// Whether it was told to take nothing new; it remembers that for a leader to come.
    #[serde(default)]
    pub draining: bool,
}

/// A worker's part of an attempt. Every worker of the attempt gets the same order and runs the subtasks that are
/// placed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptOrder {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The job's dataflow.
    pub graph_json: String,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// Key groups of the job.
    pub key_groups: u16,
    /// What the clock says in the first epoch.
    pub first_epoch_now: Timestamp,
    /// Epochs up to this one are replayed.
    pub replay_until: Option<Epoch>,
    /// So long after it has left the sources a barrier no longer waits for what is in flight, in milliseconds; none: it
    /// always waits.
    pub aligned_timeout_ms: Option<u64>,
    /// Which latency markers the sources send.
    #[serde(default)]
    pub markers: MarkerOptions,
    /// Snapshots to restore, by operator, with the index of the subtask that made them.
    pub restore: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
    /// Where relative paths of the user start.
    pub working_dir: String,
    /// Directory of the checkpoint store, which every node reaches under this path.
    pub store: String,
    /// The worker of each slot; subtask `i` of every task runs on slot `i`.
    pub slots: Vec<WorkerOffer>,
}

impl AttemptOrder {
    /// Where a subtask runs.
    #[must_use]
    pub fn place(&self, subtask: SubtaskId) -> Option<&WorkerOffer> {
        self.slots.get(subtask.index as usize)
    }
}

/// State files by slot.
pub type SlotFiles = BTreeMap<u32, Vec<StateHandle>>;

/// What a worker that stands by for slots of a job is to have copies of. It says all, so it may come twice, and one that
/// was lost is made good by the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowOrder {
    /// The attempt that runs.
    pub attempt: AttemptId,
    /// Its newest complete epoch.
    pub epoch: Epoch,
    /// Directory of the checkpoint store.
    pub store: String,
    /// The slots that the worker stands by for, each with every file that a restore of this epoch needs. None: it stands by
    /// for nothing of the job any more.
    pub slots: SlotFiles,
}

/// How far a worker has followed the slots of a job that it stands by for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The attempt of the order.
    pub attempt: AttemptId,
    /// Each of the slots.
    pub slots: BTreeMap<u32, FollowedSlot>,
}

/// How far a worker has followed a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedSlot {
    /// The newest epoch of which it has had every file; none yet.
    pub epoch: Option<Epoch>,
    /// Files of the newest order that it does not have.
    pub files_waiting: u64,
    /// Their bytes.
    pub bytes_waiting: u64,
}

/// What the state of an operator takes in memory, over the subtasks on a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMemory {
    /// Bytes, with rows that wait for state.
    pub bytes: u64,
    /// Parts that are in memory.
    pub parts_hot: u64,
    /// Parts that are not.
    pub parts_cold: u64,
    /// Parts that were read again since the process started.
    pub part_loads: u64,
    /// Rows that had to wait for a part since the process started.
    pub deferred_rows: u64,
}

impl StateMemory {
    /// Adds what it takes on another worker.
    pub fn add(&mut self, other: &StateMemory) {
        self.bytes += other.bytes;
        self.parts_hot += other.parts_hot;
        self.parts_cold += other.parts_cold;
        self.part_loads += other.part_loads;
        self.deferred_rows += other.deferred_rows;
    }
}

/// Counters of an operator on one worker, for those who look on. Watermarks by subtask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCounters {
    /// Rows that came in; for a source, rows read.
    pub rows_in: u64,
    /// Rows that went out; for a sink, rows written.
    pub rows_out: u64,
    /// Rows that were late: dropped, or versions of a temporal join that count later than their times say.
    pub late_rows: u64,
    /// Records that were wrong and were dropped as the user chose.
    pub dropped_records: u64,
    /// Records that were wrong and went to the table that takes them.
    #[serde(default)]
    pub dead_letters: u64,
    /// Changes that were to take away a row that was not there, and were dropped.
    pub unmatched_changes: u64,
    /// Bytes read from outside.
    pub bytes_read: u64,
    /// Bytes of state files that the attempt has begun with and read from local copies.
    #[serde(default)]
    pub restored_local_bytes: u64,
    /// The same, read from the store.
    #[serde(default)]
    pub restored_store_bytes: u64,
    /// What its state takes in memory.
    #[serde(default)]
    pub memory: StateMemory,
    /// Watermark of each subtask that runs on the worker.
    pub watermarks: Vec<(u32, Timestamp)>,
    /// The same counts by subtask, for those that run on the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtasks: Vec<SubtaskCounters>,
    /// For a sink: how long rows took from where they were read until they came there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyHistogram>,
    /// For a source: how far it is behind, as far as its readers know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<SourceLag>,
}

/// Counters of one subtask of an operator. How its time was spent is told at the first operator of its task only; times
/// are in microseconds and only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskCounters {
    /// Which.
    pub index: u32,
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Time in which the task worked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub busy_us: u64,
    /// Time in which it waited until receivers had room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backpressured_us: u64,
    /// Time in which it waited for something to do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_us: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Counters of the attempts on a worker, by operator.
pub type AttemptCounters = Vec<(AttemptId, BTreeMap<OperatorId, OperatorCounters>)>;

/// From the leading coordinator to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The worker is taken in; sent first.
    Welcome {
        /// The term in which this coordinator leads.
        term: u64,
        /// A worker is given up when nothing has been heard of it for so long.
        silence_ms: u64,
        /// The least generation of each job that may run.
        fences: Vec<(JobId, Generation)>,
    },
    /// This coordinator does not lead; the connection ends.
    NotLeader {
        /// Who does, or at least is a member where this one is none; as far as it knows: an address.
        leader: Option<String>,
    },
    /// Nothing new; the coordinator is alive.
    Alive,
    /// Stop every attempt of the job below the generation, and refuse such from now on (I3).
    Fence {
        /// The job.
        job: JobId,
        /// The least generation that may run.
        generation: Generation,
    },
    /// Take nothing new, and say so to each leader to come.
    Drain,
    /// Run a part of an attempt. Answered by [`FromWorker::Deployed`].
    Deploy(Box<AttemptOrder>),
    /// A new leader goes on with an attempt: report to it from here on, and first repeat what it may have missed. Answered
    /// by [`FromWorker::Deployed`].
    Adopt {
        /// Which attempt.
        attempt: AttemptId,
        /// The subtasks that should run on the worker.
        subtasks: BTreeSet<SubtaskId>,
        /// The newest complete epoch.
        complete: Epoch,
    },
    /// An epoch of an attempt is complete: nobody will ask again what its subtasks reported of it.
    Complete {
        /// Which attempt.
        attempt: AttemptId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Stand by for slots of an attempt that run elsewhere: keep copies of their state files. What comes of it is told with
    /// each [`FromWorker::Heartbeat`].
    Follow(Box<FollowOrder>),
    /// For a subtask.
    Tell {
        /// Of which attempt.
        attempt: AttemptId,
        /// Which subtask.
        subtask: SubtaskId,
        /// What.
        message: ToSubtask,
    },
}

/// From a worker to the leading coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// What the worker brings; sent first, answered by [`ToWorker::Welcome`].
    Register(WorkerOffer),
    /// The worker is alive; with the counters of what it runs, and how far it follows what it stands by for.
    Heartbeat {
        /// For each attempt that runs.
        counters: AttemptCounters,
        /// What it follows; none: it keeps no local copies, and so can follow nothing.
        #[serde(default)]
        followed: Option<Vec<Followed>>,
    },
    /// The answer to [`ToWorker::Deploy`] and [`ToWorker::Adopt`]: its subtasks run, or why not.
    Deployed {
        /// Which attempt.
        attempt: AttemptId,
        /// Whether it runs.
        result: Result<(), Failure>,
    },
    /// Another worker could not be reached for rows. The attempt that needed it fails by itself; this is for where the
    /// next one runs.
    Unreachable {
        /// The other worker.
        worker: WorkerId,
    },
    /// What a subtask has to say.
    Report {
        /// Of which attempt.
        attempt: AttemptId,
        /// What.
        event: FromSubtask,
    },
}
