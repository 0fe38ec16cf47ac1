//! What is told of the dataflow of a job.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Lag, SinkOrigins};

/// The dataflow of a job with what its operators do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GraphAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) job: String,
    pub(crate) generation: u64,
    pub(crate) parallelism: u32,
    pub(crate) operators: Vec<Operator>,
    pub(crate) edges: Vec<Edge>,
}

/// An operator. Counts are over all of its subtasks, of the newest attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Operator {
    pub(crate) id: u32,
    #[schema(example = "source orders")]
    pub(crate) name: String,
    /// A word such as `source`, `calc`, `window_final`, `join`, `sink`.
    #[schema(example = "source")]
    pub(crate) kind: String,
    pub(crate) table: Option<String>,
    pub(crate) connector: Option<String>,
    /// The first operator of its chain: operators of one task run as one.
    pub(crate) task: u32,
    pub(crate) parallelism: u32,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) rows_in_per_second: Option<f64>,
    pub(crate) rows_out_per_second: Option<f64>,
    pub(crate) bytes_read: u64,
    pub(crate) late_rows: u64,
    pub(crate) dropped_records: u64,
    pub(crate) dead_letters: u64,
    pub(crate) unmatched_changes: u64,
    /// Part of their time that the subtasks of its task work, 0 to 1, on the average of the last seconds. Rows that a source
    /// reads are decoded beside its task.
    pub(crate) busy: Option<f64>,
    /// Part that they wait for room at their receivers.
    pub(crate) backpressured: Option<f64>,
    /// Part that they wait for something to do.
    pub(crate) idle: Option<f64>,
    /// The least of its subtasks.
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) watermark_at_end: bool,
    /// In the newest checkpoint; null where it has no state.
    pub(crate) state_rows: Option<u64>,
    pub(crate) state_bytes: Option<u64>,
    pub(crate) lag: Option<Lag>,
    pub(crate) subtasks: Vec<Subtask>,
}

/// A subtask of an operator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Subtask {
    pub(crate) index: u32,
    /// Where it runs; null in one process.
    pub(crate) worker: Option<String>,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) rows_in_per_second: Option<f64>,
    pub(crate) rows_out_per_second: Option<f64>,
    pub(crate) busy: Option<f64>,
    pub(crate) backpressured: Option<f64>,
    pub(crate) idle: Option<f64>,
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) watermark_at_end: bool,
}

/// A stream between operators.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Edge {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Which output of the sender: 0 is the main one.
    pub(crate) port: u8,
    /// `forward`, `hash` or `rebalance`.
    #[schema(example = "hash")]
    pub(crate) exchange: String,
    /// Positions of the columns by which rows find their receiver.
    pub(crate) keys: Vec<usize>,
    /// Whether both run in one task.
    pub(crate) chained: bool,
}

/// What a SQL text would do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExplainAnswer {
    /// As `mainstem explain` shows it.
    pub(crate) plan: String,
    /// The dataflow, without figures.
    pub(crate) graph: GraphAnswer,
    /// Where the columns of its sinks come from.
    pub(crate) lineage: Vec<SinkOrigins>,
}

/// Whether a SQL text can be planned.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ValidateAnswer {
    pub(crate) valid: bool,
    pub(crate) operators: usize,
    pub(crate) sinks: usize,
    pub(crate) error: Option<SqlMistake>,
}

/// What is wrong with a SQL text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SqlMistake {
    pub(crate) message: String,
    /// From 1; null where no place is to blame.
    pub(crate) line: Option<u64>,
    pub(crate) column: Option<u64>,
}
