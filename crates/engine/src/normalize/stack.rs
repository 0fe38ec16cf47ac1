//! All rows of each key, for input that takes away every row that it replaces. Where several rows of a key are there
//! at once, because changes of different origin come mixed, the one that came last counts, and when it goes the one
//! before it counts again. Gives at most one change of a key a batch, in the order in which the keys first occur in it:
//! only the last row of a key is of interest to a sink. For who joins with the version of a time it gives every row that
//! counts for a while; what is taken away right before another row comes is replaced by that one.

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
    /// Whether each row that counts for a while is given.
    versions: bool,
    unmatched: Arc<AtomicU64>,
}

/// A key that occurs in a batch.
struct Touched {
    /// Where it occurs first, and last.
    first: usize,
    last: usize,
    /// The row that counts as far as has been told.
    told: Option<RowBytes>,
    rows: Vec<RowBytes>,
    /// Some row that it has or had.
    sample: Option<RowBytes>,
}

impl Touched {
    /// Tells what has become of the row that counts.
    fn tell(&mut self, outcome: &mut Outcome) {
        let after = self.rows.last();
        if self.told.as_ref() == after {
            return;
        }
        let (old, new) = match (self.told.is_some(), after.is_some()) {
            (true, true) => (ChangeKind::UpdateBefore, ChangeKind::UpdateAfter),
            _ => (ChangeKind::Delete, ChangeKind::Insert),
        };
        let before = std::mem::replace(&mut self.told, after.cloned());
        before.into_iter().for_each(|row| outcome.tell(Given::Kept(row), old, self.last));
        after.into_iter().for_each(|row| outcome.tell(Given::Kept(row.clone()), new, self.last));
    }
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

    /// No rows. `versions`: each row that counts for a while is given. Rows that are to be taken away and are not there are
    /// counted by `unmatched`.
    pub(super) fn new(versions: bool, unmatched: Arc<AtomicU64>) -> RowStacks {
        RowStacks { table: HashMap::new(), rows: 0, versions, unmatched }
    }

    /// Takes rows.
    pub(super) fn apply(&mut self, incoming: &Incoming<'_>) -> Outcome {
        let mut outcome = Outcome::default();
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
                    let told = rows.last().cloned();
                    touched.push(Touched { first: position, last: position, told, rows, sample: None });
                    *free.insert(touched.len() - 1)
                }
            };
            let of_key = &mut touched[place];
            of_key.last = position;
            let row = incoming.rows.row(position).data();
            if incoming.batch.is_addition(position) {
                of_key.rows.push(row.into());
                of_key.sample.get_or_insert_with(|| row.into());
                if self.versions {
                    of_key.tell(&mut outcome);
                }
            } else if let Some(known) = of_key.rows.iter().rposition(|other| other.as_ref() == row) {
                let gone = of_key.rows.remove(known);
                of_key.sample.get_or_insert(gone);
                // Where it is not known from when on it is gone, another row may come in its place.
                if self.versions && incoming.is_end_of_version(position) {
                    of_key.tell(&mut outcome);
                }
            } else {
                unmatched += 1;
            }
        }
        if unmatched > 0 {
            self.unmatched.fetch_add(unmatched, Ordering::Relaxed);
        }
        for of_key in touched {
            self.finish(of_key, incoming, &mut outcome);
        }
        outcome
    }

    /// Puts the rows of a key back and tells what has become of the one that counts.
    fn finish(&mut self, mut of_key: Touched, incoming: &Incoming<'_>, outcome: &mut Outcome) {
        of_key.tell(outcome);
        let Touched { first, rows, sample, .. } = of_key;
        let key = incoming.keys.row(first).data();
        if let Some(sample) = sample {
            outcome.dirty.push((key.into(), sample));
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
