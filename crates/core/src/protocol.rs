//! The words that coordinator and workers exchange. `engine` and `coordinator` never import each other: they
//! meet here. In one process the messages travel over channels; between processes they are framed.
//!
//! Payloads that only a connector or an operator understands are text (JSON) and are carried unread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Generation, OperatorId, SplitId, SubtaskId};
use crate::key_group::KeyGroupRange;
use crate::latency::EpochArrivals;
use crate::time::Timestamp;

/// The marker that travels in-band from the sources and cuts the stream into epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Everything before the barrier belongs to this epoch or an earlier one.
    pub epoch: Epoch,
    /// What the clock says for all of the *next* epoch: `NOW()`, `PROCTIME()`. Recorded with the checkpoint,
    /// so that a replay reads the same time (I6).
    pub next_epoch_now: Timestamp,
}

/// A part of a source. The payload is the connector's own (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSplit {
    /// Its identity within the source.
    pub id: SplitId,
    /// What the reader needs to open it. Empty where the split is finished and only its name is remembered.
    pub payload: String,
}

/// How far a split has been read, as of some checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitProgress {
    /// Read up to the position (the connector's own, JSON), whose watermark is given. Lateness is judged
    /// against that watermark, so it is part of the state (I6).
    Reading {
        /// Where to go on.
        position: String,
        /// The split's watermark at that position.
        watermark: Timestamp,
    },
    /// Read to its end.
    Finished,
}

/// A split with its progress; no progress means that nobody has begun it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// The split.
    pub split: SourceSplit,
    /// How far it has been read.
    pub progress: Option<SplitProgress>,
}

impl SplitState {
    /// A finished split of which only the name is kept.
    #[must_use]
    pub fn remembered(id: SplitId) -> SplitState {
        let split = SourceSplit { id, payload: String::new() };
        SplitState { split, progress: Some(SplitProgress::Finished) }
    }

    /// Whether it has been read to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress == Some(SplitProgress::Finished)
    }
}

/// The watermark of a split was raised, not by its own rows but to what its subtask had sent before the split
/// joined, or came back from being idle. From here on its rows are judged against this. Recorded, so that a
/// replay judges in the same way (I6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The split.
    pub split: SplitId,
    /// How far it had been read; none: nobody had begun it.
    pub position: Option<String>,
    /// To what it was raised.
    pub watermark: Timestamp,
}

/// How far a source subtask has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceStatus {
    /// It reads, or waits for a split that is silent and not idle, or may get one that nobody has begun.
    Active {
        /// The watermark that it has sent.
        watermark: Timestamp,
    },
    /// It has nothing to read at the moment, and can take a watermark to follow.
    Idle {
        /// The greatest watermark of any split that it has had.
        greatest: Timestamp,
    },
    /// It has read all of its input.
    Ended {
        /// The greatest watermark of any split that it has had.
        greatest: Timestamp,
    },
}

/// What a source subtask reads when an epoch is run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayPart {
    /// Splits of the subtask that the epoch had moved, with the progress at its end.
    pub splits: Vec<SplitState>,
    /// The floors of its splits, for each split in their order.
    pub floors: Vec<Floor>,
    /// The watermark of the whole source at the end of the epoch. The subtask stays at or below it while it
    /// reads, and reaches it before the barrier, so that windows fire in the epoch in which they fired.
    pub watermark: Timestamp,
}

/// A durable object that a checkpoint refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHandle {
    /// Where it lies, relative to the job's directory in the store.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc32c: u32,
    /// The key groups that it holds.
    pub key_groups: KeyGroupRange,
    /// The epoch in which it was written.
    pub epoch: Epoch,
}

/// A manifest that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// Path, relative to the job's directory.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// CRC-32C of the whole object.
    pub crc32c: u32,
}

/// What a sink writer has made durable but not yet visible. The payload is the connector's own (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committable {
    /// What the committer needs to publish it.
    pub payload: String,
}

/// What one operator of a subtask contributes to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// Every state file that a restore of this operator's key groups needs, oldest first: files of earlier
    /// epochs that are still valid, then those of this one.
    pub state: Vec<StateHandle>,
    /// Splits that this source subtask owns; those that it has finished, once, with the epoch in which it did.
    pub splits: Vec<SplitState>,
    /// Floors that splits of this source subtask were given in this epoch, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<Floor>,
    /// The watermark that this source subtask had sent before the barrier; none for other operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Timestamp>,
    /// Sink output of this epoch that waits for its commit.
    pub committables: Vec<Committable>,
    /// Small state of the operator that is not keyed (JSON), such as its current watermark. Kept a subtask.
    pub meta: Option<String>,
    /// Rows that the operator keeps, in its own form of them. Told to users; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_rows: Option<u64>,
    /// Bytes of memory that they take, or would take: by them a restore decides how much it reads at a time. None in what
    /// builds of before have written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What the barrier has overtaken before this operator, the first of its subtask; none where it was aligned. A
    /// restore feeds it to the subtask of the same index, before anything new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// How long the subtask has aligned the barrier, in milliseconds; only at its first operator. Told to users; nothing
    /// is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment_ms: Option<u64>,
    /// What followed; only at the first operator of a subtask, as `alignment_ms` is. None in what builds of before have
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<PartTimes>,
}

/// How long the part of a subtask in a checkpoint took from when its barrier was aligned, or had overtaken, until all of
/// it was durable. Told to users; nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTimes {
    /// First the subtask took its state and passed the barrier on. It processed nothing else meanwhile.
    pub capture_ms: u64,
    /// Of what followed beside further processing, the time in which nothing of the part was written: until the part of the
    /// checkpoint before was durable, and until all rows had come that the barrier has overtaken.
    pub wait_ms: u64,
    /// The rest of it: its state files, rows in flight and sink output were written and made durable.
    pub upload_ms: u64,
    /// Bytes of the state files, and of those of rows in flight, that were written for it.
    pub uploaded_bytes: u64,
}

/// What was on its way to a subtask when the barrier of an epoch overtook it, and is no part of the subtask's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The files that hold it; they are of this epoch alone. None where only watermarks were overtaken.
    pub files: Vec<StateHandle>,
}

impl OperatorSnapshot {
    /// Every durable file that a restore needs.
    pub fn files(&self) -> impl Iterator<Item = &StateHandle> {
        self.state.iter().chain(self.in_flight.iter().flat_map(|in_flight| &in_flight.files))
    }

    /// The same, to be changed.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut StateHandle> {
        self.state.iter_mut().chain(self.in_flight.iter_mut().flat_map(|in_flight| &mut in_flight.files))
    }
}

/// What a subtask contributes to a checkpoint: one entry for each operator of its chain that has something.
pub type SubtaskSnapshot = BTreeMap<OperatorId, OperatorSnapshot>;

/// From the coordinator to the subtasks of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToSubtask {
    /// To a source subtask: end the current epoch by a barrier. `last` asks it to stop reading after it. A barrier that it
    /// has sent already comes again from a new leader, and is ignored.
    InjectBarrier {
        /// The barrier to send.
        barrier: Barrier,
        /// Whether the job stops after this checkpoint.
        last: bool,
    },
    /// To a source subtask of an attempt that replays epochs whose output is visible already (their checkpoint
    /// file was unreadable): read each listed split, all assigned before, exactly up to the progress given and
    /// no further, with the floors given; read no other split; then send the barrier. Until the first such message, and between two
    /// of them, such an attempt reads nothing. After the barrier of the last replayed epoch, which the
    /// deployment names, it reads freely.
    ReplayTo {
        /// The barrier of the replayed epoch, as it was recorded.
        barrier: Barrier,
        /// What to read.
        part: ReplayPart,
    },
    /// To a source subtask: splits to read, with the progress to resume from. May come again from a new leader: a
    /// subtask that holds a split, or has sent a later barrier than `after`, has it already.
    AssignSplits {
        /// The last epoch that had begun when they were handed out; 0 before the first.
        after: Epoch,
        /// The new splits.
        splits: Vec<SplitState>,
    },
    /// To a source subtask: a lower bound on the watermarks of all splits that nobody has begun.
    /// `Timestamp::MAX` when there are none. The subtask's watermark must not pass it.
    UnassignedWatermark {
        /// The bound.
        bound: Timestamp,
    },
    /// To a source subtask: while it is idle it sends this watermark on; see [`crate::idleness`]. It says that it
    /// is idle once more before it gets the next one.
    FollowWatermark {
        /// The watermark.
        watermark: Timestamp,
    },
    /// To a source subtask: no checkpoint of an epoch before this one will be restored any more.
    Retired {
        /// The oldest epoch whose checkpoint is kept.
        below: Epoch,
    },
    /// To a source subtask: no split will come any more; when all of its own are read, its stream ends.
    NoMoreSplits,
    /// To a source subtask: a new leader goes on with the attempt, and all that was told before has been told again.
    /// The subtask repeats what it waits for (a split) and where it stands: its watermark, the end of its input.
    Resume,
    /// To every subtask: stop at once, without a checkpoint.
    Cancel,
}

/// From a subtask to the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromSubtask {
    /// A source subtask has room for one more split.
    RequestSplit {
        /// Who asks.
        subtask: SubtaskId,
    },
    /// The subtask has its state back and begins to process. Said once.
    Restored {
        /// Who.
        subtask: SubtaskId,
    },
    /// How far a source subtask has got, where others may have to follow it or it others: when it becomes idle
    /// or active again, otherwise now and then. May be left out while the coordinator is behind: the next one
    /// says all.
    SourceWatermark {
        /// Who.
        subtask: SubtaskId,
        /// How far.
        status: SourceStatus,
    },
    /// A subtask's part of a checkpoint is durable.
    SnapshotDone {
        /// Whose part.
        subtask: SubtaskId,
        /// Of which attempt; anything but the newest is refused (I3).
        generation: Generation,
        /// Of which checkpoint.
        epoch: Epoch,
        /// The part.
        snapshot: SubtaskSnapshot,
    },
    /// Latency markers that came to a sink in an epoch, said before the subtask's part of its checkpoint. May be left out
    /// while the coordinator is behind.
    MarkersArrived {
        /// Where they came.
        subtask: SubtaskId,
        /// Of which attempt.
        generation: Generation,
        /// In which epoch.
        epoch: Epoch,
        /// At which sink of the subtask.
        sink: OperatorId,
        /// The markers.
        arrivals: EpochArrivals,
    },
    /// A source subtask has read all of its splits and was told that no more come. It goes on to answer
    /// barriers until the job ends.
    InputExhausted {
        /// Who.
        subtask: SubtaskId,
    },
    /// The subtask has taken its last snapshot and has ended.
    Finished {
        /// Who.
        subtask: SubtaskId,
    },
    /// The subtask has failed, and with it the attempt.
    Failed {
        /// Who.
        subtask: SubtaskId,
        /// Of which attempt.
        generation: Generation,
        /// Root cause or consequence, and whether trying again can help.
        failure: Failure,
    },
}

/// Why a subtask failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the user reads: what, where, what to do.
    pub message: String,
    /// False where another attempt would fail in the same way: bad data, bad option, missing permission.
    pub retryable: bool,
    /// True where the failure only reports that a neighbour is gone; never shown as the cause while a root
    /// cause is known.
    pub consequence: bool,
}
