//! All rows of each key, for input that takes away every row that it replaces. Where several rows of a key are there
//! at once, because changes of different origin come mixed, the one that came last counts, and when it goes the one
//! before it counts again. Gives at most one change of a key a batch, in the order in which the keys first occur in it:
//! only the last row of a key is of interest to a sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use mainstem_core::change::ChangeKind;

use super::{Given, Incoming, Outcome, RowBytes};
use crate::memory;

/// See the module.
pub(super) struct RowStacks {
    /// Oldest first; no key without rows.
    table: HashMap<RowBytes, Vec<RowBytes>>,
    /// Rows, over all keys.
    rows: usize,
    unmatched: Arc<AtomicU64>,
}

/// A key that occurs in a batch.
struct Touched {
    /// Where it first occurs.
    first: usize,
    /// The row that counted before.
    before: Option<RowBytes>,
    rows: Vec<RowBytes>,
    /// Some row that it has or had.
    sample: Option<RowBytes>,
}

impl RowStacks {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let of_entry = |(key, rows): (&RowBytes, &Vec<RowBytes>)| {
            let rows_bytes = rows.iter().map(|row| row.len() + memory::SMALL).sum::<usize>();
            key.len() + memory::SMALL + memory::of_vec(rows) + rows_bytes
        };
        self.table.allocation_size() + memory::of_sampled(self.table.len(), self.table.iter(), of_entry)
    }

    /// No rows. Rows that are to be taken away and are not there are counted by `unmatched`.
    pub(super) fn new(unmatched: Arc<AtomicU64>) -> RowStacks {
        RowStacks { table: HashMap::new(), rows: 0, unmatched }
    }

    /// Takes rows.
    pub(super) fn apply(&mut self, incoming: &Incoming<'_>) -> Outcome {
        let mut touched: Vec<Touched> = Vec::new();
        let mut place_of = HashMap::<&[u8], usize>::with_capacity(incoming.len());
        let mut unmatched = 0;
        for position in 0..incoming.len() {
            let key = incoming.keys.row(position).data();
            let place = match place_of.entry(key) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(free) => {
                    let rows = self.table.remove(key).unwrap_or_default();
                    self.rows -= rows.len();
                    touched.push(Touched { first: position, before: rows.last().cloned(), rows, sample: None });
                    *free.insert(touched.len() - 1)
                }
            };
            let of_key = &mut touched[place];
            let row = incoming.rows.row(position).data();
            if incoming.batch.is_addition(position) {
                of_key.rows.push(row.into());
                of_key.sample.get_or_insert_with(|| row.into());
            } else if let Some(known) = of_key.rows.iter().rposition(|other| other.as_ref() == row) {
                let gone = of_key.rows.remove(known);
                of_key.sample.get_or_insert(gone);
            } else {
                unmatched += 1;
            }
        }
        if unmatched > 0 {
            self.unmatched.fetch_add(unmatched, Ordering::Relaxed);
        }
        let mut outcome = Outcome::default();
        for of_key in touched {
            self.finish(of_key, incoming, &mut outcome);
        }
        outcome
    }

    /// Puts the rows of a key back and tells what has become of the one that counts.
    fn finish(&mut self, of_key: Touched, incoming: &Incoming<'_>, outcome: &mut Outcome) {
        let Touched { first, before, rows, sample } = of_key;
        let key = incoming.keys.row(first).data();
        if let Some(sample) = sample {
            outcome.dirty.push((key.into(), sample));
        }
        let after = rows.last();
        if before.as_ref() != after {
            let (old, new) = match (before.is_some(), after.is_some()) {
                (true, true) => (ChangeKind::UpdateBefore, ChangeKind::UpdateAfter),
                _ => (ChangeKind::Delete, ChangeKind::Insert),
            };
            outcome.given.extend(before.map(|row| (Given::Kept(row), old)));
            outcome.given.extend(after.map(|row| (Given::Kept(row.clone()), new)));
        }
        if !rows.is_empty() {
            self.rows += rows.len();
            self.table.insert(key.into(), rows);
        }
    }

    /// All keys that have rows, in any order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &RowBytes> {
        self.table.keys()
    }

    /// Rows over all keys.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// The rows of a key, oldest first.
    pub(super) fn rows(&self, key: &[u8]) -> &[RowBytes] {
        self.table.get(key).map_or(&[], Vec::as_slice)
    }

    /// From a checkpoint: the row at a place of its key, or that none is at it or behind it.
    pub(super) fn put_back(&mut self, key: &[u8], place: usize, row: Option<&[u8]>) {
        let mut rows = self.table.remove(key).unwrap_or_default();
        self.rows -= rows.len();
        rows.truncate(place);
        rows.extend(row.map(Into::into));
        self.rows += rows.len();
        if !rows.is_empty() {
            self.table.insert(key.into(), rows);
        }
    }
}
