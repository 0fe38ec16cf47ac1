//! What is told of a job's history.

use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::job::JobState;
use mainstem_core::time::Timestamp;

use super::watch::SubtaskPart;

/// What a process remembers of a job, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryView {
    /// How often what has happened.
    pub totals: Totals,
    /// The newest checkpoints.
    pub checkpoints: Vec<CheckpointNote>,
    /// The newest failures of attempts.
    pub failures: Vec<FailureNote>,
}

/// How often what has happened to a job since this process drives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Checkpoints that are complete.
    pub completed: u64,
    /// Those of them that were not aligned everywhere.
    pub unaligned: u64,
    /// Checkpoints that had begun when their attempt failed.
    pub failed: u64,
    /// Milliseconds that the complete ones have taken together.
    pub duration_ms: u64,
    /// Failures of attempts.
    pub failures: u64,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointStage {
    /// Its barrier has been sent.
    Running,
    /// It can be restored.
    Complete,
    /// Its output is visible as well.
    Published,
    /// Its attempt has failed before.
    Failed,
}

/// A checkpoint. Phases follow each other; what has not ended is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointNote {
    /// Its number.
    pub epoch: Epoch,
    /// The attempt that has made it.
    pub generation: Generation,
    /// How far it is.
    pub stage: CheckpointStage,
    /// Why it failed.
    pub failure: Option<String>,
    /// When its barrier was sent, or this process took the job over.
    pub started_at: Timestamp,
    /// When its output was visible.
    pub published_at: Option<Timestamp>,
    /// Until it was recorded as complete.
    pub duration_ms: Option<i64>,
    /// The longest that a subtask aligned its barrier; part of the time of the snapshots.
    pub alignment_ms: Option<u64>,
    /// First phase: until every subtask's part was durable.
    pub snapshot_ms: Option<i64>,
    /// Then its manifest was written.
    pub manifest_ms: Option<i64>,
    /// Then it was recorded.
    pub record_ms: Option<i64>,
    /// Then its output was made visible.
    pub publish_ms: Option<i64>,
    /// Bytes of state that it refers to.
    pub bytes: Option<u64>,
    /// Bytes of rows in flight; none: aligned everywhere.
    pub in_flight_bytes: Option<u64>,
    /// Subtasks that take part.
    pub subtasks: u32,
    /// Those whose part is durable.
    pub acknowledged: u32,
    /// The last one of them.
    pub slowest: Option<SubtaskPart>,
}

impl CheckpointNote {
    pub(super) fn begun(epoch: Epoch, generation: Generation, started_at: Timestamp, subtasks: u32) -> CheckpointNote {
        CheckpointNote {
            epoch,
            generation,
            stage: CheckpointStage::Running,
            failure: None,
            started_at,
            published_at: None,
            duration_ms: None,
            alignment_ms: None,
            snapshot_ms: None,
            manifest_ms: None,
            record_ms: None,
            publish_ms: None,
            bytes: None,
            in_flight_bytes: None,
            subtasks,
            acknowledged: 0,
            slowest: None,
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureNote {
    /// When.
    pub at: Timestamp,
    /// Which attempt.
    pub generation: Generation,
    /// The root cause.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
    /// Whether the job ended with it.
    pub is_last: bool,
    /// Where, if a subtask said so; [`mainstem_core::ids::OperatorId::NONE`] where it is about its place alone.
    pub subtask: Option<SubtaskId>,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The job stands somewhere else.
    State,
    /// A checkpoint is complete.
    Checkpoint,
    /// An epoch is visible.
    Published,
    /// An attempt has failed.
    Failure,
    /// Another attempt runs.
    Restart,
    /// The job has ended.
    End,
}

/// Something that has happened. Unused numbers are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Its number; they only grow.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Of which epoch.
    pub epoch: Epoch,
    /// Of which attempt.
    pub generation: Generation,
    /// Where the job stands now.
    pub state: Option<JobState>,
    /// Why.
    pub message: Option<String>,
    /// How long it took.
    pub duration_ms: Option<i64>,
    /// How large it is.
    pub bytes: Option<u64>,
}

impl EventNote {
    pub(super) fn new(kind: EventKind, at: Timestamp) -> EventNote {
        EventNote {
            seq: 0,
            at,
            kind,
            epoch: Epoch(0),
            generation: Generation(0),
            state: None,
            message: None,
            duration_ms: None,
            bytes: None,
        }
    }
}
