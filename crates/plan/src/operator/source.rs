//! Operators that read tables.

use arrow::datatypes::{DataType, SchemaRef};
use mainstem_connectors::TableSpec;
use serde::{Deserialize, Serialize};

use super::NamedExpr;
use crate::expr::Expr;

/// Reads splits of a table, computes its computed columns, and tracks the watermark of each split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceOperator {
    /// The table, with its physical columns (those that the connector delivers).
    pub table: TableSpec,
    /// Which physical columns are read, by position in `table.schema`, ascending. The expressions below are
    /// evaluated on these columns in this order.
    pub read_columns: Vec<usize>,
    /// Event time, if the table declares a watermark.
    pub watermark: Option<WatermarkSpec>,
    /// Output columns, over the read columns.
    pub project: Vec<NamedExpr>,
    /// What must not be false of a row, in the order of their declaration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckConstraint>,
    /// Computed columns over the read columns, where a row for which one of them fails is a bad record as any other: all of the
    /// table's, whether or not a query asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub computed: Vec<NamedExpr>,
    /// Columns of port 1, which carries the records that are rejected, each one of [`DeadLetterColumn`]; absent: nobody takes
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<SchemaRef>,
}

/// `CONSTRAINT name CHECK (expr)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckConstraint {
    /// Its name.
    pub name: String,
    /// The condition as it is written.
    pub text: String,
    /// The condition, over the read columns.
    pub expr: Expr,
}

/// `WATERMARK FOR time AS watermark`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatermarkSpec {
    /// The event time of a row (a timestamp), over the read columns.
    pub time: Expr,
    /// The watermark that the row gives rise to (a timestamp), over the read columns.
    pub watermark: Expr,
    /// A split that shows nothing for so long is idle: it no longer holds back the others. Milliseconds, at
    /// least [`IDLE_TIMEOUT_MIN_MS`](super::IDLE_TIMEOUT_MIN_MS); absent: never.
    pub idle_timeout_ms: Option<u64>,
    /// How far its splits may be ahead of others; absent: as the connector wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<WatermarkAlignment>,
}

/// `scan.watermark.alignment.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkAlignment {
    /// The sources of one name keep together; absent: the subtasks of this one do.
    pub group: Option<String>,
    /// A split that is ahead of the slowest subtask by more is not read on. Milliseconds.
    pub max_drift_ms: u64,
}

/// A column of a table that takes dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterColumn {
    /// The bytes of the record.
    Raw,
    /// The bytes of its key.
    RawKey,
    /// The table that it was read for.
    Source,
    /// Its file or partition.
    Split,
    /// Where in that it begins.
    Position,
    /// The line in which it begins.
    Line,
    /// What is wrong with it.
    Reason,
    /// What the table declares.
    RowSchema,
    /// The clock of the epoch.
    RejectedAt,
}

impl DeadLetterColumn {
    /// All of them.
    pub const ALL: [DeadLetterColumn; 9] = [
        DeadLetterColumn::Raw,
        DeadLetterColumn::RawKey,
        DeadLetterColumn::Source,
        DeadLetterColumn::Split,
        DeadLetterColumn::Position,
        DeadLetterColumn::Line,
        DeadLetterColumn::Reason,
        DeadLetterColumn::RowSchema,
        DeadLetterColumn::RejectedAt,
    ];

    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DeadLetterColumn::Raw => "raw",
            DeadLetterColumn::RawKey => "raw_key",
            DeadLetterColumn::Source => "source",
            DeadLetterColumn::Split => "split",
            DeadLetterColumn::Position => "position",
            DeadLetterColumn::Line => "line",
            DeadLetterColumn::Reason => "reason",
            DeadLetterColumn::RowSchema => "row_schema",
            DeadLetterColumn::RejectedAt => "rejected_at",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<DeadLetterColumn> {
        DeadLetterColumn::ALL.into_iter().find(|column| column.name() == name)
    }

    /// The types that it may be declared with, for people.
    #[must_use]
    pub fn types(self) -> &'static str {
        match self {
            DeadLetterColumn::Raw | DeadLetterColumn::RawKey => "BYTES or STRING",
            DeadLetterColumn::Position | DeadLetterColumn::Line => "BIGINT",
            DeadLetterColumn::RejectedAt => "TIMESTAMP_LTZ(3)",
            DeadLetterColumn::Source
            | DeadLetterColumn::Split
            | DeadLetterColumn::Reason
            | DeadLetterColumn::RowSchema => "STRING",
        }
    }

    /// Whether it may be declared with a type.
    #[must_use]
    pub fn fits(self, data_type: &DataType) -> bool {
        match self {
            DeadLetterColumn::Raw | DeadLetterColumn::RawKey => matches!(data_type, DataType::Binary | DataType::Utf8),
            DeadLetterColumn::Position | DeadLetterColumn::Line => *data_type == DataType::Int64,
            DeadLetterColumn::RejectedAt => matches!(data_type, DataType::Timestamp(..)),
            DeadLetterColumn::Source
            | DeadLetterColumn::Split
            | DeadLetterColumn::Reason
            | DeadLetterColumn::RowSchema => *data_type == DataType::Utf8,
        }
    }

    /// Whether some records have none.
    #[must_use]
    pub fn may_be_null(self) -> bool {
        matches!(self, DeadLetterColumn::Raw | DeadLetterColumn::RawKey | DeadLetterColumn::Line)
    }
}
