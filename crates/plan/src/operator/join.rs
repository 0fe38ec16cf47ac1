//! Joins. Both inputs are partitioned by their join keys; the left one is input 0 of the operator, the right
//! one input 1. Output: the columns of the left, then of the right input (semi and anti: of the left only).

use arrow::datatypes::SchemaRef;
use mainstem_connectors::TableSpec;
use serde::{Deserialize, Serialize};

use crate::expr::Expr;

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner.
    Left,
    /// Pairs, and right rows without a partner.
    Right,
    /// Pairs, and rows of both sides without a partner.
    Full,
    /// Left rows that have a partner, once.
    Semi,
    /// Left rows that have none.
    Anti {
        /// `NOT IN`: a NULL key never finds out whether it has a partner. A left row with a NULL key leaves
        /// only if there are no right rows at all, and a right row with a NULL key keeps all left rows back.
        null_aware: bool,
    },
}

/// When two rows are partners: all pairs of keys are equal, and the condition holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinOn {
    /// Positions in the left input.
    pub left_keys: Vec<usize>,
    /// Positions in the right input; as many, of the same types. None: every row meets every row, on one subtask.
    pub right_keys: Vec<usize>,
    /// For each pair of keys whether NULL equals NULL (`IS NOT DISTINCT FROM`).
    pub null_equal: Vec<bool>,
    /// Over the columns of the left, then of the right input; absent: true.
    pub condition: Option<Expr>,
    /// Columns of the left input.
    pub left_schema: SchemaRef,
    /// Columns of the right input.
    pub right_schema: SchemaRef,
}

/// A join of two tables that change: both sides are kept for ever, or for their time to live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Which rows it gives.
    pub kind: JoinKind,
    /// When rows are partners.
    pub on: JoinOn,
    /// Columns of the left input of whose values there is never more than one row; absent: not known.
    pub left_unique: Option<Vec<usize>>,
    /// The same of the right input.
    pub right_unique: Option<Vec<usize>>,
    /// A left row is forgotten when it is so old. Milliseconds; absent: never.
    pub left_ttl_ms: Option<u64>,
    /// A right row is forgotten when it is so old. Milliseconds; absent: never.
    pub right_ttl_ms: Option<u64>,
}

/// A join of rows whose event times are near each other; both inputs only insert. A pair matches where
/// `right_time + lower_ms <= left_time <= right_time + upper_ms`. A row is forgotten when the watermark says that
/// it can find no more partners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalJoin {
    /// Which rows it gives.
    pub kind: JoinKind,
    /// When rows are partners, besides the interval.
    pub on: JoinOn,
    /// Position of the left event time.
    pub left_time: usize,
    /// Position of the right event time.
    pub right_time: usize,
    /// Least difference of left and right time.
    pub lower_ms: i64,
    /// Greatest difference of left and right time.
    pub upper_ms: i64,
}

/// A join of rows of the same window; both inputs only insert. Start and end of the window are among the keys.
/// A window's rows are joined and forgotten when the watermark has passed its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowJoin {
    /// Which rows it gives.
    pub kind: JoinKind,
    /// When rows are partners.
    pub on: JoinOn,
    /// Position of the window's end in the left input.
    pub left_end: usize,
    /// Position of the window's end in the right input.
    pub right_end: usize,
}

/// `FOR SYSTEM_TIME AS OF` a table that streams: each left row is joined with the version of the right row
/// that was valid at its time. The left input only inserts; the right input is a changelog with a unique key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemporalJoin {
    /// Inner or left.
    pub kind: JoinKind,
    /// When rows are partners.
    pub on: JoinOn,
    /// Event time of both sides: position in the left input, and in the right input the time from which a
    /// version is valid. Absent: processing time, the newest version counts.
    pub times: Option<(usize, usize)>,
}

/// `FOR SYSTEM_TIME AS OF PROCTIME()` a table that is looked up: the connector's rows are loaded as a whole and
/// again when they are too old, or asked for by key. One input, the left; it need not be partitioned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupJoin {
    /// Inner or left.
    pub kind: JoinKind,
    /// When rows are partners; the right columns are those of `columns`.
    pub on: JoinOn,
    /// The table that is looked up.
    pub table: TableSpec,
    /// Which of its physical columns are read, by position, ascending.
    pub columns: Vec<usize>,
    /// How old what was loaded may get before it is loaded again. Milliseconds; absent: it is loaded once.
    pub reload_ms: Option<u64>,
    /// Set where rows are asked for by key, for each batch, instead of being loaded as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_key: Option<LookupByKey>,
}

/// How rows are looked up by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupByKey {
    /// What is kept of what was found; absent: nothing.
    pub cache: Option<LookupCache>,
    /// How often a lookup that failed is tried again.
    pub retries_max: u32,
}

/// What a subtask keeps of what it has looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupCache {
    /// Rows at most; a key that was not found counts as one.
    pub rows_max: u64,
    /// How old they may get. Milliseconds; absent: any age.
    pub expire_after_write_ms: Option<u64>,
    /// Whether keys that were not found are kept too.
    pub missing_keys: bool,
}
