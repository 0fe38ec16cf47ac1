//! What is told of one job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Lag;

/// All jobs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobsAnswer {
    /// Whether it may be old, because no coordinator that leads was reached.
    pub(crate) stale: bool,
    /// Address of the coordinator that leads; null in `mainstem run`.
    pub(crate) leader: Option<String>,
    pub(crate) now_ms: i64,
    pub(crate) jobs: Vec<Job>,
}

/// One job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: Job,
}

/// A job and how it does. Counts are those of its newest attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Job {
    #[schema(example = "orders")]
    pub(crate) job: String,
    /// A word: `running`, `waiting`, `restarting`, `stopping`, `finished`, `stopped`, `failed`, and others.
    #[schema(example = "running")]
    pub(crate) state: String,
    /// Whether it is to run.
    pub(crate) active: bool,
    pub(crate) parallelism: u32,
    /// Number of the newest attempt.
    pub(crate) generation: u64,
    pub(crate) submitted_at_ms: i64,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) rows_in_per_second: Option<f64>,
    pub(crate) rows_out_per_second: Option<f64>,
    pub(crate) bytes_read: u64,
    pub(crate) late_rows: u64,
    pub(crate) dropped_records: u64,
    pub(crate) dead_letters: u64,
    pub(crate) unmatched_changes: u64,
    /// The least of those operators that keep rows until a watermark comes, or else of the sinks.
    pub(crate) watermark_ms: Option<i64>,
    /// Whether all input has been read.
    pub(crate) watermark_at_end: bool,
    pub(crate) lag: Vec<Lag>,
    /// How long rows take to each sink.
    pub(crate) latency: Vec<RowLatency>,
    /// Part of its time, 0 to 1, that the busiest subtask works.
    pub(crate) busy: Option<f64>,
    /// Part of its time, 0 to 1, that the subtask waits whose receivers are slowest.
    pub(crate) backpressured: Option<f64>,
    pub(crate) checkpoint: CheckpointSummary,
    /// Attempts that were followed by another one, since this coordinator drives the job.
    pub(crate) restarts: u32,
    pub(crate) last_failure: Option<String>,
    /// What it waits for before an attempt can run.
    pub(crate) waiting: Option<String>,
    pub(crate) end: Option<End>,
    /// The savepoint that is being taken.
    pub(crate) savepoint: Option<SavepointUnderWay>,
    /// Outcomes of the newest ones, oldest first.
    pub(crate) savepoints: Vec<SavepointOutcome>,
    /// The savepoint with which it began.
    pub(crate) restored_from: Option<String>,
    /// Who stands by for its slots; null: nobody is to.
    pub(crate) standbys: Option<Standbys>,
}

/// Workers that follow the state of slots which run elsewhere.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Standbys {
    /// Standbys that each slot should have.
    pub(crate) wanted: u32,
    /// Standbys that are missing, over all slots.
    pub(crate) missing: u32,
    /// Why some are missing.
    pub(crate) lacking: Option<String>,
    pub(crate) slots: Vec<Standby>,
}

/// A worker that follows the state of a slot.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Standby {
    /// The slot; subtask `i` of every task runs on slot `i`.
    pub(crate) slot: u32,
    #[schema(example = "worker-2@host5:7072#5f0c1e22a90b7d31")]
    pub(crate) worker: String,
    /// The newest epoch of which it has had every file.
    pub(crate) epoch: Option<u64>,
    /// Epochs that have completed since that one.
    pub(crate) epochs_behind: u64,
    /// Files that it has still to fetch.
    pub(crate) files_waiting: u64,
    pub(crate) bytes_waiting: u64,
}

/// How long rows took from when a source had read them until they came to a sink, in the last minute, as latency markers tell;
/// null: none came.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RowLatency {
    /// The sink.
    pub(crate) operator: u32,
    pub(crate) table: String,
    /// Markers that came there.
    pub(crate) markers: u64,
    /// Half of the rows took no longer.
    pub(crate) p50_ms: Option<f64>,
    /// 99 of 100 rows took no longer.
    pub(crate) p99_ms: Option<f64>,
    /// The same until the output was published; null where the sink publishes nothing.
    pub(crate) visible_p50_ms: Option<f64>,
    pub(crate) visible_p99_ms: Option<f64>,
}

/// How a job has ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct End {
    /// `finished`, `stopped` or `failed`.
    #[schema(example = "finished")]
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
}

/// The newest checkpoint of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointSummary {
    /// The newest epoch that is complete; 0 before the first.
    pub(crate) complete: u64,
    /// The newest epoch whose output is visible.
    pub(crate) published: u64,
    pub(crate) completed_at_ms: Option<i64>,
    pub(crate) age_ms: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    /// From one barrier to the next, as it is set or was chosen.
    pub(crate) interval_ms: i64,
    /// Why it was chosen so; null: it is set.
    pub(crate) interval_reason: Option<String>,
    /// State that it refers to.
    pub(crate) bytes: Option<u64>,
    pub(crate) alignment_ms: Option<u64>,
    /// Rows in flight that it holds; null: aligned everywhere.
    pub(crate) in_flight_bytes: Option<u64>,
    /// How many were not aligned everywhere.
    pub(crate) unaligned: u64,
}

/// A savepoint that is being taken.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SavepointUnderWay {
    pub(crate) id: String,
    pub(crate) directory: String,
    /// Whether the job stops with it.
    pub(crate) stop: bool,
    pub(crate) copied_files: u64,
    pub(crate) files: u64,
}

/// What became of a savepoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SavepointOutcome {
    pub(crate) id: String,
    /// `taken` or `failed`.
    #[schema(example = "taken")]
    pub(crate) outcome: String,
    pub(crate) path: Option<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) reason: Option<String>,
}

/// Newest checkpoints, newest first; at most 100, since this coordinator drives the job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointsAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) totals: CheckpointTotals,
    pub(crate) checkpoints: Vec<Checkpoint>,
}

/// How many checkpoints there were since this coordinator drives the job.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct CheckpointTotals {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) unaligned: u64,
}

/// A checkpoint and its phases, which follow each other.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Checkpoint {
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    /// `running`, `complete`, `published` or `failed`.
    #[schema(example = "published")]
    pub(crate) state: String,
    pub(crate) failure: Option<String>,
    pub(crate) started_at_ms: i64,
    /// From its barrier until it was recorded as complete.
    pub(crate) duration_ms: Option<i64>,
    /// The longest that a subtask aligned its barrier; a part of `snapshot_ms`.
    pub(crate) alignment_ms: Option<u64>,
    /// Until every subtask's part was durable.
    pub(crate) snapshot_ms: Option<i64>,
    /// Then its manifest was written.
    pub(crate) manifest_ms: Option<i64>,
    /// Then it was agreed on.
    pub(crate) record_ms: Option<i64>,
    /// Then its output was made visible.
    pub(crate) publish_ms: Option<i64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) in_flight_bytes: Option<u64>,
    pub(crate) subtasks: u32,
    pub(crate) acknowledged: u32,
    /// The subtask whose part was durable last.
    pub(crate) slowest: Option<Slowest>,
}

/// A subtask that others waited for, and where its time went: what is left of `ms` is the way of the barrier to it and of its
/// answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Slowest {
    pub(crate) operator: u32,
    pub(crate) name: Option<String>,
    pub(crate) subtask: u32,
    /// From when the barrier was sent until the coordinator knew that the part was durable.
    pub(crate) ms: i64,
    /// From the first barrier at its inputs to the last, or until it overtook; null: it has no inputs.
    pub(crate) alignment_ms: Option<u64>,
    /// Then it took its state, and processed nothing meanwhile.
    pub(crate) capture_ms: Option<u64>,
    /// Then, beside further processing, it waited for its part of the checkpoint before, and for rows that were overtaken.
    pub(crate) wait_ms: Option<u64>,
    /// And state, rows in flight and sink output were written and uploaded.
    pub(crate) upload_ms: Option<u64>,
    /// Bytes of the files of state and of rows in flight.
    pub(crate) uploaded_bytes: Option<u64>,
}

/// Which epochs are visible.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CommitsAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) complete: u64,
    pub(crate) published: u64,
    /// Complete and not known to be visible.
    pub(crate) unpublished: Vec<Unpublished>,
    /// Newest first.
    pub(crate) commits: Vec<Commit>,
}

/// A complete epoch whose output is not known to be visible.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Unpublished {
    pub(crate) epoch: u64,
    pub(crate) completed_at_ms: i64,
}

/// An epoch that was made visible.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Commit {
    pub(crate) epoch: u64,
    pub(crate) published_at_ms: i64,
    pub(crate) publish_ms: Option<i64>,
}

/// How far the sources are behind, of those that know.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LagAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) sources: Vec<SourceLag>,
}

/// How far a source is behind.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SourceLag {
    pub(crate) operator: u32,
    #[serde(flatten)]
    pub(crate) lag: Lag,
}

/// Records that were wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct BadRecordsAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) dropped: u64,
    pub(crate) dead_letters: u64,
    /// Refused when they were published.
    pub(crate) rejected_by_sinks: u64,
    pub(crate) operators: Vec<BadRecords>,
}

/// Wrong records of an operator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct BadRecords {
    pub(crate) operator: u32,
    pub(crate) name: String,
    pub(crate) table: Option<String>,
    pub(crate) dropped: u64,
    pub(crate) dead_letters: u64,
}

/// Why attempts failed, newest first; at most 50, since this coordinator drives the job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExceptionsAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) restarts: u32,
    pub(crate) exceptions: Vec<ExceptionNote>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExceptionNote {
    pub(crate) at_ms: i64,
    pub(crate) generation: u64,
    /// The root cause.
    pub(crate) message: String,
    pub(crate) retryable: bool,
    /// Whether the job ended with it.
    pub(crate) fatal: bool,
    pub(crate) operator: Option<u32>,
    pub(crate) operator_name: Option<String>,
    pub(crate) subtask: Option<u32>,
    pub(crate) worker: Option<String>,
}

/// The last ten minutes, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TimelineAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) interval_ms: u64,
    pub(crate) points: Vec<Point>,
}

/// A job at a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Point {
    pub(crate) at_ms: i64,
    pub(crate) rows_in_per_second: Option<f64>,
    pub(crate) rows_out_per_second: Option<f64>,
    /// Of sources that count records.
    pub(crate) lag: Option<u64>,
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) checkpoint_duration_ms: Option<i64>,
    pub(crate) state_bytes: Option<u64>,
    /// Of the slowest sink, as in the job's `latency`.
    pub(crate) latency_p50_ms: Option<f64>,
    pub(crate) latency_p99_ms: Option<f64>,
    pub(crate) visible_latency_p99_ms: Option<f64>,
    pub(crate) busy: Option<f64>,
    pub(crate) backpressured: Option<f64>,
}

/// How a job is configured. Secrets are hidden.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobConfigurationAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) parallelism: u32,
    pub(crate) key_groups: u16,
    pub(crate) working_dir: String,
    pub(crate) submitted_at_ms: i64,
    /// When checkpoints are taken and how failures are met.
    #[schema(value_type = Object)]
    pub(crate) options: serde_json::Value,
    pub(crate) tables: Vec<TableConfiguration>,
}

/// A table that a job reads or writes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TableConfiguration {
    pub(crate) operator: u32,
    pub(crate) table: String,
    /// `source`, `sink` or `lookup`.
    #[schema(example = "source")]
    pub(crate) role: String,
    pub(crate) options: BTreeMap<String, String>,
}

/// Something that has happened to a job; the data of an event in its stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) at_ms: i64,
    pub(crate) job: String,
    /// `state`, `checkpoint`, `published`, `failure`, `restart`, `end` or `gone`.
    #[schema(example = "checkpoint")]
    pub(crate) event: String,
    pub(crate) epoch: Option<u64>,
    pub(crate) generation: u64,
    pub(crate) state: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) bytes: Option<u64>,
}
