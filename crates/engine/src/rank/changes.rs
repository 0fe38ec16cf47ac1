//! From the rows that a partition showed before to those that it shows now: the changes that lead there.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashMap;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_plan::operator::{Operator, Rank, RankFunction};

use crate::element::StreamBatch;
use crate::operator::Collector;

/// Rows of a batch that is given.
const EMIT_ROWS_MAX: usize = 8192;

/// What a changed row is to a receiver that tells rows apart by the operator's unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// The partition has one row: it is replaced.
    Partition,
    /// The rank: the row at a rank is replaced.
    Rank,
    /// The row itself: its rank is updated, and it enters and leaves.
    Row,
}

/// A change to be given: what happens, to which row, with which rank.
pub(crate) type Change<R> = (ChangeKind, R, u64);

/// Works out changes.
pub(crate) struct Differ<R> {
    identity: Identity,
    ranks_count: bool,
    updates_before: bool,
    /// Scratch: the ranks of the rows before.
    before: HashMap<R, u64>,
}

impl<R: Copy + Eq + Hash> Differ<R> {
    /// For an operator of the plan.
    pub(crate) fn new(rank: &Rank, op: &Operator) -> Self {
        let numbered = rank.function == RankFunction::RowNumber;
        let identity = if numbered && rank.to == 1 {
            Identity::Partition
        } else if numbered && rank.rank_column && rank.input_unique.is_none() {
            Identity::Rank
        } else {
            Identity::Row
        };
        let updates_before = op.changes != ChangeMode::Upsert;
        Differ { identity, ranks_count: rank.rank_column, updates_before, before: HashMap::new() }
    }

    /// Adds the changes that lead from the rows shown before to those shown now, each in order and with its rank.
    /// What leaves comes first, so that a row that comes back under the same key stays.
    pub(crate) fn diff(&mut self, before: &[(R, u64)], after: &[(R, u64)], changes: &mut Vec<Change<R>>) {
        match self.identity {
            Identity::Partition => self.replace(before.first(), after.first(), changes),
            // Ranks run from the first without gaps.
            Identity::Rank => {
                for place in 0..before.len().max(after.len()) {
                    self.replace(before.get(place), after.get(place), changes);
                }
            }
            Identity::Row => self.by_row(before, after, changes),
        }
    }

    fn replace(&self, before: Option<&(R, u64)>, after: Option<&(R, u64)>, changes: &mut Vec<Change<R>>) {
        match (before, after) {
            (Some(before), Some(after)) if before.0 == after.0 => {}
            (Some(before), Some(after)) => self.update(*before, *after, changes),
            (None, Some((row, rank))) => changes.push((ChangeKind::Insert, *row, *rank)),
            (Some((row, rank)), None) => changes.push((ChangeKind::Delete, *row, *rank)),
            (None, None) => {}
        }
    }

    fn update(&self, before: (R, u64), after: (R, u64), changes: &mut Vec<Change<R>>) {
        if self.updates_before {
            changes.push((ChangeKind::UpdateBefore, before.0, before.1));
        }
        changes.push((ChangeKind::UpdateAfter, after.0, after.1));
    }

    fn by_row(&mut self, before: &[(R, u64)], after: &[(R, u64)], changes: &mut Vec<Change<R>>) {
        let mut known = std::mem::take(&mut self.before);
        known.clear();
        known.extend(after.iter().copied());
        changes.extend(
            before.iter().filter(|(row, _)| !known.contains_key(row)).map(|(r, n)| (ChangeKind::Delete, *r, *n)),
        );
        known.clear();
        known.extend(before.iter().copied());
        for (row, rank) in after {
            match known.get(row) {
                None => changes.push((ChangeKind::Insert, *row, *rank)),
                Some(same) if same == rank || !self.ranks_count => {}
                Some(other) => self.update((*row, *other), (*row, *rank), changes),
            }
        }
        self.before = known;
    }
}

/// Gives changes out in batches. `rows`: the columns of the input of so many rows, in the order of the changes.
pub(crate) fn emit<R: Copy>(
    schema: &SchemaRef,
    rank_column: bool,
    changes: &[Change<R>],
    rows: impl Fn(&[Change<R>]) -> Result<Vec<ArrayRef>, ArrowError>,
    out: &mut Collector,
) -> Result<(), ArrowError> {
    for piece in changes.chunks(EMIT_ROWS_MAX) {
        let mut columns = rows(piece)?;
        if rank_column {
            columns.push(Arc::new(Int64Array::from_iter_values(piece.iter().map(|(_, _, rank)| *rank as i64))));
        }
        let kinds = Int8Array::from_iter_values(piece.iter().map(|(kind, _, _)| *kind as i8));
        // Where only the number of rows counts, they have no columns.
        let count = RecordBatchOptions::new().with_row_count(Some(piece.len()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &count)?;
        out.main.push(StreamBatch::changelog(rows, kinds));
    }
    Ok(())
}

/// Numbers the rows of a partition from the best on and keeps those whose rank is wanted. `is_tie`: whether the
/// row's order is that of the row before it.
pub(crate) fn numbered<R>(rank: &Rank, rows: impl Iterator<Item = (R, bool)>, shown: &mut Vec<(R, u64)>) {
    let mut current = 0;
    for (place, (row, is_tie)) in rows.enumerate() {
        let number = place as u64 + 1;
        current = match rank.function {
            RankFunction::RowNumber => number,
            RankFunction::Rank | RankFunction::DenseRank if is_tie && place > 0 => current,
            RankFunction::Rank => number,
            RankFunction::DenseRank => current + 1,
        };
        if current > rank.to {
            return;
        }
        if current >= rank.from {
            shown.push((row, current));
        }
    }
}
