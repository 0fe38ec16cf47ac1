//! Operators that look at rows in an order: Top-N, OVER, sorting.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::aggregate::AggregateCall;

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Position in the input.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// Where NULLs stand.
    pub nulls_first: bool,
}

/// How rows that are equal in the order are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RankFunction {
    /// Each row has a number of its own.
    RowNumber,
    /// Equal rows have the same number, numbers are left out after them.
    Rank,
    /// Equal rows have the same number, none are left out.
    DenseRank,
}

impl RankFunction {
    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RankFunction::RowNumber => "ROW_NUMBER",
            RankFunction::Rank => "RANK",
            RankFunction::DenseRank => "DENSE_RANK",
        }
    }
}

/// The rows of each partition whose rank lies in a range. Output: the input's columns, then the rank (Int64)
/// where it is wanted. The input is partitioned by `partition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// How rows are counted.
    pub function: RankFunction,
    /// Positions of the partition's columns; none: one partition.
    pub partition: Vec<usize>,
    /// The order; rows that are equal in it are ordered by all of their columns. Empty: the order of arrival, or, if
    /// the input takes rows away, by all columns.
    pub order: Vec<SortKey>,
    /// With an order of arrival: the row that came last is the first.
    #[serde(default)]
    pub newest_first: bool,
    /// Least rank, from 1.
    pub from: u64,
    /// Greatest rank.
    pub to: u64,
    /// Whether the rank is a column of the output.
    pub rank_column: bool,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// Whether the input may take rows away. Then all rows of a partition are kept, else only the best.
    pub input_retracts: bool,
    /// Columns of the input of whose values there is never more than one row; absent: not known. With them, changes
    /// follow a row: it enters, its rank is updated, it leaves. Without, they follow the rank.
    pub input_unique: Option<Vec<usize>>,
    /// Position of the end of the window that the rows carry: the ranks of a window are given once, when the
    /// watermark has passed its end, and forgotten; the window is among the partition's columns.
    pub window_end: Option<usize>,
    /// A partition that has not changed for so long is forgotten. Milliseconds; absent: never.
    pub ttl_ms: Option<u64>,
}

/// Which rows around a row an OVER aggregate sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// So many rows before, and the row. Absent: all before.
    Rows {
        /// Number of rows before.
        preceding: Option<u64>,
    },
    /// Rows whose order column is at most so much before the row's, and those equal to it. Absent: all before.
    /// Milliseconds for times.
    Range {
        /// Greatest distance.
        preceding: Option<i64>,
    },
}

/// A function over the rows of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OverCall {
    /// An aggregate over the frame.
    Aggregate(AggregateCall),
    /// `ROW_NUMBER`, `RANK`, `DENSE_RANK` without a bound.
    Rank(RankFunction),
    /// The value of a column in the row so many rows before (positive) or after (negative) in the order.
    Lag {
        /// Position in the input.
        column: usize,
        /// How many rows before.
        offset: i64,
        /// Position in the input of the value where there is no such row; absent: NULL.
        default: Option<usize>,
    },
}

/// `OVER (PARTITION BY .. ORDER BY ..)`. Output: the input's columns, then one for each call. The input is
/// partitioned by `partition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverAggregate {
    /// Positions of the partition's columns; none: one partition.
    pub partition: Vec<usize>,
    /// The order.
    pub order: Vec<SortKey>,
    /// When rows are put in order.
    pub by: OverOrder,
    /// What an aggregate sees.
    pub frame: Frame,
    /// The calls.
    pub calls: Vec<OverCall>,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// A partition that has not changed for so long is forgotten. Milliseconds; absent: never.
    pub ttl_ms: Option<u64>,
}

/// When the rows of an OVER clause are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverOrder {
    /// By the event time in this column: a row's result is given once, when the watermark has passed it.
    EventTime(usize),
    /// As they come: each row's result is given at once.
    ProcessingTime,
    /// By any columns, over any changes: results that a row changes are given again.
    Updating,
}

/// Rows in an order. They leave when the watermark has passed their event time, the first column of the order;
/// or, without one, when the input ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// The order.
    pub order: Vec<SortKey>,
    /// Whether the first column of the order is the stream's event time, ascending.
    pub by_event_time: bool,
    /// Whether the input may take rows away.
    pub input_retracts: bool,
    /// So many of the first rows do not leave.
    #[serde(default)]
    pub offset: u64,
    /// After these, only so many rows leave; absent: all.
    #[serde(default)]
    pub limit: Option<u64>,
}
