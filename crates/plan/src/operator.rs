//! What each operator of a job does, in the form in which it is stored with the job and shipped to workers.
//! The planner makes these, the engine builds running operators from them. A restore reads them back and
//! never plans again, so every change here must keep reading what older versions wrote.

mod aggregate;
mod exprs;
mod join;
mod pattern;
mod rank;
mod relation;
mod source;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use mainstem_connectors::TableSpec;
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::StreamGraph;
use mainstem_core::ids::OperatorId;
use serde::{Deserialize, Serialize};

pub use self::aggregate::GroupAggregate;
pub use self::join::{
    IntervalJoin, Join, JoinKind, JoinOn, LookupByKey, LookupCache, LookupJoin, TemporalJoin, WindowJoin,
};
pub use self::pattern::{AfterMatch, MatchEnd, PatternElement, PatternMatch, PatternVariable, Reference};
pub use self::rank::{Frame, OverAggregate, OverCall, OverOrder, Rank, RankFunction, Sort, SortKey};
pub use self::relation::{SetKind, SetOperation, Unnest};
pub use self::source::{CheckConstraint, DeadLetterColumn, SourceOperator, WatermarkAlignment, WatermarkSpec};
use crate::aggregate::AggregateCall;
use crate::expr::Expr;

/// The dataflow of a job with everything that a worker needs to run it.
pub type JobGraph = StreamGraph<Operator>;

/// The least idle time-out, in milliseconds. Bounds how often splits fall idle, and so how much of it each epoch
/// has to record.
pub const IDLE_TIMEOUT_MIN_MS: u64 = 100;

/// Which sources hold each other back at some operator that waits for watermarks: for each source on which such
/// an operator depends, its group. See [`StreamGraph::watermark_groups`].
#[must_use]
pub fn source_groups(graph: &JobGraph) -> BTreeMap<OperatorId, OperatorId> {
    let mut groups = graph.watermark_groups(|op| op.kind.waits_for_watermark());
    groups.retain(|id, _| matches!(graph.node(*id).op.kind, OperatorKind::Source(_)));
    groups
}

/// An expression and the name of the column that it makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedExpr {
    /// Column name.
    pub name: String,
    /// Evaluated on the operator's input.
    pub expr: Expr,
}

/// One operator: its output schema and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// Columns of the main output. For a sink: of its input.
    pub schema: SchemaRef,
    /// What it does.
    pub kind: OperatorKind,
    /// Which changes its output holds; for a sink: its input. [`ChangeMode::Upsert`] tells an operator that nobody
    /// needs its `-U`.
    #[serde(default)]
    pub changes: ChangeMode,
}

impl Operator {
    /// An operator whose output only inserts.
    #[must_use]
    pub fn new(schema: SchemaRef, kind: OperatorKind) -> Operator {
        Operator { schema, kind, changes: ChangeMode::Append }
    }
}

/// What an operator does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OperatorKind {
    /// Reads a table. Port 1 carries rejected records ([`DeadLetterColumn`]), where the table's options ask for it.
    Source(SourceOperator),
    /// Keeps the rows for which `filter` is true, then computes `project`. Either may be absent.
    Calc {
        /// Keeps rows where true; absent: all.
        filter: Option<Expr>,
        /// Output columns; absent: the input's.
        project: Option<Vec<NamedExpr>>,
    },
    /// Merges its inputs; all have the same column types. Output columns carry this operator's names.
    Union,
    /// Adds `window_start`, `window_end`, `window_time` to each row, once for each window that it falls in.
    WindowAssign {
        /// The windows; not session.
        window: WindowKind,
        /// Position of the event-time column in the input.
        time: usize,
    },
    /// First step of a windowed aggregation, before the exchange: partial aggregates by key and slice.
    /// Output: the keys, the slice columns ([`SLICE_COLUMNS`]), then the state columns of each aggregate.
    /// Port 1 carries late rows ([`LATE_ROW_COLUMNS`]), where the job wants them.
    WindowPartial(WindowAggregate),
    /// Second step: merges partial aggregates and emits each window once when the watermark has passed its end.
    WindowFinal(WindowAggregate),
    /// First step of an aggregation without a window, before the exchange: partial aggregates of each batch by key.
    /// Output: the keys, then for each aggregate the columns that
    /// [`AggregateCall::partial_types`](crate::aggregate::AggregateCall::partial_types) says.
    GroupPartial {
        /// The aggregation; its input never takes rows away.
        aggregate: GroupAggregate,
        /// Whether rows may be sent as groups of one row each, where keys come less than twice in a batch.
        adaptive: bool,
    },
    /// Aggregates without a window.
    GroupAggregate(GroupAggregate),
    /// Joins tables that change.
    Join(Join),
    /// Joins rows whose event times are near.
    IntervalJoin(IntervalJoin),
    /// Joins rows of the same window.
    WindowJoin(WindowJoin),
    /// Joins rows with the version of a table that was valid at their time.
    TemporalJoin(TemporalJoin),
    /// Joins rows with a table that is looked up.
    LookupJoin(LookupJoin),
    /// Top-N.
    Rank(Rank),
    /// OVER.
    OverAggregate(OverAggregate),
    /// Puts rows in order.
    Sort(Sort),
    /// Gives a row for each element of a collection.
    Unnest(Unnest),
    /// INTERSECT and EXCEPT.
    SetOperation(SetOperation),
    /// Makes a complete changelog out of one by key: finds the rows that are replaced or deleted, and drops
    /// changes that change nothing. The input is partitioned by the key.
    Normalize {
        /// Positions of the key.
        key: Vec<usize>,
    },
    /// `MATCH_RECOGNIZE`.
    PatternMatch(PatternMatch),
    /// Writes a table.
    Sink(SinkOperator),
}

impl OperatorKind {
    /// The table outside that it reads, writes or looks up in.
    #[must_use]
    pub fn table(&self) -> Option<&TableSpec> {
        match self {
            OperatorKind::Source(source) => Some(&source.table),
            OperatorKind::Sink(sink) => Some(&sink.table),
            OperatorKind::LookupJoin(lookup) => Some(&lookup.table),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn table_mut(&mut self) -> Option<&mut TableSpec> {
        match self {
            OperatorKind::Source(source) => Some(&mut source.table),
            OperatorKind::Sink(sink) => Some(&mut sink.table),
            OperatorKind::LookupJoin(lookup) => Some(&mut lookup.table),
            _ => None,
        }
    }

    /// Whether the clock releases what it keeps, at the end of each epoch.
    #[must_use]
    pub fn closes_by_clock(&self) -> bool {
        match self {
            OperatorKind::WindowPartial(window) | OperatorKind::WindowFinal(window) => window.processing_time,
            _ => false,
        }
    }

    /// Whether it keeps rows until a watermark releases them.
    #[must_use]
    pub fn waits_for_watermark(&self) -> bool {
        match self {
            OperatorKind::WindowPartial(_)
            | OperatorKind::WindowFinal(_)
            | OperatorKind::IntervalJoin(_)
            | OperatorKind::WindowJoin(_)
            | OperatorKind::TemporalJoin(_)
            | OperatorKind::Rank(_)
            | OperatorKind::OverAggregate(_)
            | OperatorKind::PatternMatch(_)
            | OperatorKind::Sort(_) => true,
            OperatorKind::Source(_)
            | OperatorKind::Calc { .. }
            | OperatorKind::Union
            | OperatorKind::WindowAssign { .. }
            | OperatorKind::GroupPartial { .. }
            | OperatorKind::GroupAggregate(_)
            | OperatorKind::Join(_)
            | OperatorKind::LookupJoin(_)
            | OperatorKind::Unnest(_)
            | OperatorKind::SetOperation(_)
            | OperatorKind::Normalize { .. }
            | OperatorKind::Sink(_) => false,
        }
    }
}

/// Writes rows to a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkOperator {
    /// The table; its columns are those of the operator's input.
    pub table: TableSpec,
}

/// Which windows a row falls in. All lengths in milliseconds, all positive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowKind {
    /// Fixed windows side by side, starting at `offset` modulo `size`.
    Tumble {
        /// Length.
        size_ms: i64,
        /// Shift of the starts.
        offset_ms: i64,
    },
    /// Windows of `size` that start each `slide`; `size` is a multiple of `slide`.
    Hop {
        /// Distance of the starts.
        slide_ms: i64,
        /// Length.
        size_ms: i64,
        /// Shift of the starts.
        offset_ms: i64,
    },
    /// Windows that share a start and grow by `step` up to `size`; `size` is a multiple of `step`.
    Cumulate {
        /// Growth.
        step_ms: i64,
        /// Greatest length.
        size_ms: i64,
        /// Shift of the starts.
        offset_ms: i64,
    },
    /// Windows of one key that end when no row has come for `gap` of event time.
    Session {
        /// The gap.
        gap_ms: i64,
    },
    /// The rows carry their window already (they come from another windowed operator).
    Attached {
        /// Position of the window's start column in the input.
        start: usize,
        /// Position of the window's end column in the input.
        end: usize,
    },
}

/// A windowed aggregation; both of its steps carry the whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowAggregate {
    /// The windows.
    pub window: WindowKind,
    /// Position of the time column in the input of the first step. Unused for [`WindowKind::Attached`].
    pub time: usize,
    /// Whether the time is processing time: windows close by the clock, which advances from epoch to epoch, and no
    /// row is late.
    #[serde(default)]
    pub processing_time: bool,
    /// Group keys besides the window, over the input of the first step.
    pub keys: Vec<NamedExpr>,
    /// Aggregates, over the input of the first step.
    pub aggregates: Vec<AggregateCall>,
    /// Which properties of the window follow the keys and aggregates in the output of the second step, by
    /// name. Output columns of the second step: keys, aggregates, then these.
    pub properties: Vec<(String, WindowProperty)>,
    /// Columns of the first step's input.
    pub input_schema: SchemaRef,
    /// Whether late rows leave by port 1.
    pub late_output: bool,
}

/// A column that a windowed aggregation gives beside keys and aggregates. All `Timestamp(Millisecond)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowProperty {
    /// Inclusive start.
    Start,
    /// Exclusive end.
    End,
    /// End minus one millisecond: the event time of the row that the window gives.
    Time,
}

/// Columns that stand between keys and aggregate states in the output of [`OperatorKind::WindowPartial`]:
/// start and end of the slice (Int64, ms) and whether the partial counts for exactly the window
/// `[start, end)` only (Boolean) instead of for every window that covers the slice.
pub const SLICE_COLUMNS: [&str; 3] = ["__slice_start", "__slice_end", "__one_window"];

/// Columns of the late-rows output: operator name (Utf8), event time and the watermark that the row missed
/// (both `Timestamp(Millisecond)`), and the row as the window saw it (Utf8, JSON).
pub const LATE_ROW_COLUMNS: [&str; 4] = ["operator", "event_time", "watermark", "row"];
