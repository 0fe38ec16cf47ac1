//! Operators that make rows of collections, and rows of two queries.

use serde::{Deserialize, Serialize};

/// A row for each element of an array, or each entry of a map. Output: the kept columns of the input, then the
/// element (the fields of a row, or key and value of a map's entry), then its number from 1 where it is wanted (Int32).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnest {
    /// Position of the collection in the input.
    pub collection: usize,
    /// Positions of the columns that are kept.
    pub keep: Vec<usize>,
    /// Whether a row with an empty collection, or NULL, is given once, with NULLs.
    pub outer: bool,
    /// Whether the number of the element is a column.
    pub ordinality: bool,
}

/// Which rows of two inputs with columns of the same types remain. NULL equals NULL. Both inputs are partitioned by
/// all columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetOperation {
    /// Which.
    pub kind: SetKind,
    /// Whether a row that is there several times counts as often; otherwise it comes once.
    pub all: bool,
    /// A row that has not changed for so long is forgotten. Milliseconds; absent: never.
    pub ttl_ms: Option<u64>,
}

/// See [`SetOperation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SetKind {
    /// Rows of both inputs.
    Intersect,
    /// Rows of the left input that the right one does not have.
    Except,
}

impl SetKind {
    /// The keyword.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            SetKind::Intersect => "INTERSECT",
            SetKind::Except => "EXCEPT",
        }
    }
}
