//! One side of a join, kept in one of two ways.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;

use super::VERSION;
use super::append::AppendSide;
use super::rings::Rings;
use super::table::TableSide;
use crate::merging::MergeRule;

/// See the module.
pub(super) enum Side {
    /// Rows only come.
    Append(AppendSide),
    /// Rows come and go, or are counted.
    Table(Box<TableSide>),
}

impl Side {
    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Side::Append(side) => side.bytes(),
            Side::Table(side) => side.bytes(),
        }
    }

    /// A side that is a table.
    pub(super) fn table(side: TableSide) -> Side {
        Side::Table(Box::new(side))
    }

    /// Which rows have which key.
    pub(super) fn rings(&self) -> &Rings {
        match self {
            Side::Append(side) => &side.rings,
            Side::Table(side) => &side.rings,
        }
    }

    /// Makes room for so many keys.
    pub(super) fn reserve_keys(&mut self, keys: usize) {
        match self {
            Side::Append(side) => side.rings.reserve_keys(keys),
            Side::Table(side) => side.rings.reserve_keys(keys),
        }
    }

    /// How often a row is there.
    pub(super) fn count(&self, row: u32) -> u32 {
        match self {
            Side::Append(_) => 1,
            Side::Table(side) => side.count(row),
        }
    }

    /// Number of stored rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Side::Append(side) => side.len(),
            Side::Table(side) => side.len(),
        }
    }

    /// The columns of rows; NULLs for no row.
    pub(super) fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        match self {
            Side::Append(side) => side.columns(rows),
            Side::Table(side) => side.columns(rows),
        }
    }

    /// Forgets the rows whose time is over at `now` (ms); gives their keys.
    pub(super) fn expire(&mut self, now: i64) -> Vec<u32> {
        match self {
            Side::Append(_) => Vec::new(),
            Side::Table(side) => side.expire(now),
        }
    }

    /// How rows of its state table, which has this name, replace each other. `key`: the columns of the join's key.
    pub(super) fn merge_rule(&self, name: &'static str, key: Vec<usize>) -> MergeRule {
        let (identity, present) = match self {
            Side::Append(_) => (None, None),
            Side::Table(side) => (Some((0..side.width()).collect()), Some(side.width())),
        };
        MergeRule { name, version: VERSION, key, identity, present }
    }

    /// See [`TableSide::capture`].
    pub(super) fn capture(&mut self, whole: bool) -> Result<Vec<RecordBatch>, ArrowError> {
        match self {
            Side::Append(side) => side.capture(whole),
            Side::Table(side) => side.capture(whole),
        }
    }

    /// See [`TableSide::restore`].
    pub(super) fn restore(&mut self, stored: &RecordBatch, keys: &[u32]) -> Result<(), ArrowError> {
        match self {
            Side::Append(side) => side.restore(stored, keys),
            Side::Table(side) => side.restore(stored, keys),
        }
    }
}
