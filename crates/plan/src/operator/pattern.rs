//! `MATCH_RECOGNIZE`: runs of rows that match a pattern.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::{NamedExpr, SortKey};
use crate::aggregate::AggregateCall;
use crate::expr::Expr;

/// Finds runs of consecutive rows of a partition that match a pattern, and gives a row for each. Output: the
/// partition's columns, then the measures. The input is partitioned by `partition` and only inserts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternMatch {
    /// Positions of the partition's columns; none: one partition.
    pub partition: Vec<usize>,
    /// The order of rows. The first column is the stream's event time, ascending; rows that are equal in the order
    /// are ordered by all of their columns.
    pub order: Vec<SortKey>,
    /// The variables that the pattern speaks of.
    pub variables: Vec<PatternVariable>,
    /// The pattern: its parts one after the other. At least one must take a row, and behind the last such part, and
    /// in it, none is greedy.
    pub elements: Vec<PatternElement>,
    /// What conditions and measures read of a match.
    pub references: Vec<Reference>,
    /// One column for each reference.
    pub reference_schema: SchemaRef,
    /// Computed over the references of a whole match.
    pub measures: Vec<NamedExpr>,
    /// Where the search goes on behind a match.
    pub skip: AfterMatch,
    /// The last row of a match comes less than so much later than the first. Milliseconds; absent: no bound.
    pub within_ms: Option<i64>,
    /// Columns of the input.
    pub input_schema: SchemaRef,
}

/// A variable of a pattern, and which rows can be its: those for which both conditions are true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternVariable {
    /// Its name.
    pub name: String,
    /// What it asks of the row alone, over the columns of the input; absent: nothing.
    pub row_condition: Option<Expr>,
    /// What it asks of the row with those before it, over the references; absent: nothing. The row counts as one of
    /// the variable's.
    pub match_condition: Option<Expr>,
}

/// A variable and how many consecutive rows it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternElement {
    /// Position of the variable.
    pub variable: usize,
    /// At least so many.
    pub min: u32,
    /// At most so many, not less than `min` and not 0; absent: any number.
    pub max: Option<u32>,
    /// Where more than one number is allowed: whether it takes as many rows as it can. What a greedy variable of
    /// more than one row can take, the next one does not get, as in Flink.
    pub greedy: bool,
}

/// Something that is read of a match, or of the part of it that there is so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reference {
    /// A column of one of a variable's rows; NULL where there is no such row.
    Column {
        /// Position of the variable; absent: all rows of the match.
        variable: Option<usize>,
        /// From which end rows are counted.
        from: MatchEnd,
        /// How many rows are left out.
        offset: u32,
        /// Position in the input.
        column: usize,
    },
    /// An aggregate over a variable's rows, in their order.
    Aggregate {
        /// Position of the variable; absent: all rows of the match.
        variable: Option<usize>,
        /// The call, over the columns of the input.
        call: AggregateCall,
    },
}

/// An end of a variable's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchEnd {
    /// `FIRST`.
    First,
    /// `LAST`.
    Last,
}

/// `AFTER MATCH SKIP`: with which row the next match may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AfterMatch {
    /// The one behind the last row of the match.
    PastLastRow,
    /// The one behind the first row of the match.
    ToNextRow,
    /// The first row of a variable (by position). That there is none, or that it is the first of the match, fails
    /// the job.
    ToFirst(usize),
    /// The last row of a variable (by position). The same.
    ToLast(usize),
}

impl PatternElement {
    /// Whether it takes rows of the next element's as long as it can.
    #[must_use]
    pub fn is_greedy_loop(&self) -> bool {
        self.greedy && self.max != Some(1) && self.max != Some(self.min)
    }
}
