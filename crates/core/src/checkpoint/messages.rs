//! What the checkpoint coordinator of an attempt is told and what it asks for. Plain data; every command whose
//! completion matters comes back as an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Generation, OperatorId, SavepointId, SubtaskId};
use crate::protocol::{Barrier, Committable, Failure, SubtaskSnapshot};
use crate::time::Timestamp;

/// What an attempt ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All input has been read.
    InputEnd,
    /// A stop was asked for.
    Stop,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckpointEvent {
    /// Time has passed, at the latest at [`super::CheckpointCoordinator::next_wakeup`].
    Tick {
        /// The time of day, for `NOW()` in the epoch after the next barrier.
        wall: Timestamp,
    },
    /// See [`crate::protocol::FromSubtask::Restored`].
    SubtaskRestored {
        /// Who.
        subtask: SubtaskId,
    },
    /// See [`crate::protocol::FromSubtask::SnapshotDone`].
    SnapshotDone {
        /// Whose part.
        subtask: SubtaskId,
        /// Of which attempt.
        generation: Generation,
        /// Of which checkpoint.
        epoch: Epoch,
        /// The part.
        snapshot: SubtaskSnapshot,
    },
    /// See [`crate::protocol::FromSubtask::InputExhausted`].
    InputExhausted {
        /// Who.
        subtask: SubtaskId,
    },
    /// See [`crate::protocol::FromSubtask::Finished`].
    SubtaskFinished {
        /// Who.
        subtask: SubtaskId,
    },
    /// The manifest can be read back after a crash.
    ManifestDurable {
        /// Of which checkpoint.
        epoch: Epoch,
        /// The object that holds it.
        path: String,
    },
    /// The epoch is recorded as complete: from here on it will be published whatever happens.
    CompleteRecorded {
        /// Which.
        epoch: Epoch,
    },
    /// The output of the epoch is visible.
    Committed {
        /// Which.
        epoch: Epoch,
    },
    /// It is recorded that the output of the epoch is visible.
    CommitRecorded {
        /// Which.
        epoch: Epoch,
    },
    /// It is recorded that the epochs can no longer be restored.
    RetiredRecorded {
        /// Which.
        epochs: Vec<Epoch>,
    },
    /// Objects have been deleted, except these, which are tried again with the next ones.
    Deleted {
        /// Paths that still exist.
        failed: Vec<String>,
    },
    /// Take a last checkpoint and end.
    StopRequested,
    /// Make a checkpoint a savepoint: the next one that begins. Asked of every attempt until its outcome is recorded.
    SavepointRequested {
        /// Which; one at a time.
        savepoint: SavepointId,
        /// Whether the job ends with it.
        stop: bool,
    },
    /// There is a place for the savepoint.
    SavepointPrepared {
        /// Which.
        savepoint: SavepointId,
    },
    /// The savepoint is durable and complete.
    SavepointCopied {
        /// Which.
        savepoint: SavepointId,
    },
    /// There is no place for the savepoint, or it could not be copied; not to be tried again.
    SavepointFailed {
        /// Which.
        savepoint: SavepointId,
        /// What the user reads.
        reason: String,
    },
    /// The outcome of the savepoint is recorded.
    SavepointRecorded {
        /// Which.
        savepoint: SavepointId,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckpointCommand {
    /// Send a barrier into the stream of every source subtask.
    InjectBarrier {
        /// The barrier.
        barrier: Barrier,
        /// Whether the sources stop reading after it.
        last: bool,
    },
    /// Have every source subtask read the ranges that this epoch had, then send the barrier.
    Replay {
        /// The barrier as it was recorded.
        barrier: Barrier,
    },
    /// Write the manifest.
    WriteManifest {
        /// The barrier of the checkpoint.
        barrier: Barrier,
        /// What the clock said within the epoch.
        epoch_now: Timestamp,
        /// Every subtask's part, without committables where the epoch is replayed.
        snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
        /// Set where the job ends with this checkpoint.
        end: Option<End>,
    },
    /// Record the epoch as complete.
    RecordComplete {
        /// Which.
        epoch: Epoch,
    },
    /// Publish the output of the epoch.
    Commit {
        /// Which.
        epoch: Epoch,
        /// What each sink has to publish; only sinks that have something.
        committables: BTreeMap<OperatorId, Vec<Committable>>,
    },
    /// Record that the output of the epoch is visible.
    RecordCommitted {
        /// Which.
        epoch: Epoch,
    },
    /// Record that these epochs can no longer be restored. Their objects go after it.
    RecordRetired {
        /// Which.
        epochs: Vec<Epoch>,
    },
    /// Delete objects. One that does not exist counts as deleted.
    DeleteObjects {
        /// Their paths.
        paths: Vec<String>,
    },
    /// Make sure of a place for the savepoint, so that nothing is begun for one that nobody could write.
    PrepareSavepoint {
        /// Which.
        savepoint: SavepointId,
    },
    /// Copy the checkpoint of a published epoch. Its objects stay until the outcome is recorded.
    CopySavepoint {
        /// Which.
        savepoint: SavepointId,
        /// The epoch, whose output is visible.
        epoch: Epoch,
    },
    /// Record that the savepoint is taken.
    RecordSavepoint {
        /// Which.
        savepoint: SavepointId,
        /// Of which epoch.
        epoch: Epoch,
        /// Set where the job ends with it: both become true by one record, or an attempt in between would publish
        /// what a restore publishes again.
        end: Option<End>,
    },
    /// Record that the savepoint is not taken.
    RecordSavepointFailure {
        /// Which.
        savepoint: SavepointId,
        /// Why.
        reason: String,
    },
    /// All replayed epochs are done; the sources read freely.
    ReplayDone,
    /// A message was not acted on; to be logged.
    Refused {
        /// What and why.
        reason: String,
    },
    /// Everything is published and every subtask has ended.
    Finish {
        /// Why it ended.
        end: End,
    },
    /// The attempt cannot go on. Nothing more comes from this machine.
    FailAttempt {
        /// Why.
        failure: Failure,
    },
}
