//! The best rows of one partition, in order. One row, the usual case of deduplication, costs no allocation.

use mainstem_plan::operator::{Rank, RankFunction};

use super::changes::numbered;
use super::order_key::OrderKey;
use crate::row_store::RowId;

/// A row with its order.
pub(crate) struct Entry<K> {
    /// The values of the order columns.
    pub(crate) key: K,
    /// The row.
    pub(crate) row: RowId,
}

/// See the module.
pub(crate) enum Ranked<K> {
    /// No row.
    None,
    /// One row.
    One(Entry<K>),
    /// Any number of rows, best first.
    Many(Vec<Entry<K>>),
}

impl<K: OrderKey> Ranked<K> {
    /// Bytes of memory beside the place itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Ranked::None | Ranked::One(_) => 0,
            Ranked::Many(entries) => crate::memory::of_vec(entries),
        }
    }

    /// The rows, best first.
    pub(crate) fn entries(&self) -> &[Entry<K>] {
        match self {
            Ranked::None => &[],
            Ranked::One(entry) => std::slice::from_ref(entry),
            Ranked::Many(entries) => entries,
        }
    }

    /// Puts a row at a place.
    pub(crate) fn insert(&mut self, place: usize, entry: Entry<K>) {
        match std::mem::replace(self, Ranked::None) {
            Ranked::None => *self = Ranked::One(entry),
            Ranked::One(known) => {
                *self = Ranked::Many(if place == 0 { vec![entry, known] } else { vec![known, entry] });
            }
            Ranked::Many(mut entries) => {
                entries.insert(place, entry);
                *self = Ranked::Many(entries);
            }
        }
    }

    /// Takes out the rows behind the last rank; there was none before one row came.
    pub(crate) fn truncate(&mut self, function: RankFunction, to: u64, dropped: &mut Vec<RowId>) {
        let Ranked::Many(entries) = self else { return };
        let Some(last) = entries.last() else { return };
        let ties = entries.partition_point(|entry| entry.key < last.key);
        let (number, keeps) = match function {
            RankFunction::RowNumber => (entries.len(), entries.len() - 1),
            RankFunction::Rank => (ties + 1, ties),
            RankFunction::DenseRank if entries.len() as u64 <= to => return,
            RankFunction::DenseRank => (distinct(entries), ties),
        };
        if number as u64 > to {
            dropped.extend(entries.drain(keeps..).map(|entry| entry.row));
        }
        if entries.len() == 1 {
            let only = entries.pop().expect("there is one");
            *self = Ranked::One(only);
        }
    }

    /// Adds the rows that the operator shows, with their ranks.
    pub(crate) fn show(&self, rank: &Rank, shown: &mut Vec<(RowId, u64)>) {
        show(self.entries(), rank, shown);
    }
}

/// Adds those of the rows that the operator shows, with their ranks.
pub(crate) fn show<K: OrderKey>(entries: &[Entry<K>], rank: &Rank, shown: &mut Vec<(RowId, u64)>) {
    let is_tie = |place: usize| place > 0 && entries[place - 1].key == entries[place].key;
    numbered(rank, entries.iter().enumerate().map(|(place, entry)| (entry.row, is_tie(place))), shown);
}

/// How many different orders there are.
pub(crate) fn distinct<K: OrderKey>(entries: &[Entry<K>]) -> usize {
    entries.chunk_by(|left, right| left.key == right.key).count()
}
