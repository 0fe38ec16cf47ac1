//! One row a key, the last that has come: for input in which a row replaces the one before it of its key. A delete
//! takes away whatever row its key has, since it may know nothing else of it; what an update replaces is not asked
//! for, so a `-U` says nothing here.

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use mainstem_core::change::ChangeKind;

use super::{Given, Incoming, Outcome, RowBytes};
use crate::memory;

/// See the module.
#[derive(Default)]
pub(super) struct LastRows {
    table: HashMap<RowBytes, RowBytes>,
}

impl LastRows {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let of_entry = |(key, row): (&RowBytes, &RowBytes)| key.len() + row.len() + 2 * memory::SMALL;
        self.table.allocation_size() + memory::of_sampled(self.table.len(), self.table.iter(), of_entry)
    }

    /// Takes rows. Each gives its own change, none is left out for a later one of the batch: who joins with the version
    /// of a row at some time needs all of them.
    pub(super) fn apply(&mut self, incoming: &Incoming<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        for position in 0..incoming.len() {
            let kind = incoming.kind(position);
            if kind == ChangeKind::UpdateBefore {
                continue;
            }
            let key = incoming.keys.row(position).data();
            let new = kind.is_addition().then(|| incoming.rows.row(position).data());
            match (self.table.entry_ref(key), new) {
                (EntryRef::Vacant(_), None) => {}
                (EntryRef::Vacant(free), Some(new)) => {
                    free.insert(new.into());
                    outcome.tell(Given::Came(position), ChangeKind::Insert, position);
                    outcome.dirty.push((key.into(), new.into()));
                }
                (EntryRef::Occupied(known), None) => {
                    let old = known.remove();
                    outcome.dirty.push((key.into(), old.clone()));
                    outcome.tell(Given::Kept(old), ChangeKind::Delete, position);
                }
                (EntryRef::Occupied(known), Some(new)) if known.get().as_ref() == new => {}
                (EntryRef::Occupied(mut known), Some(new)) => {
                    let old = known.insert(new.into());
                    outcome.dirty.push((key.into(), old.clone()));
                    outcome.tell(Given::Kept(old), ChangeKind::UpdateBefore, position);
                    outcome.tell(Given::Came(position), ChangeKind::UpdateAfter, position);
                }
            }
        }
        outcome
    }

    /// All keys that have a row, in any order.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &RowBytes> {
        self.table.keys()
    }

    /// The row of a key, if it has one.
    pub(super) fn rows(&self, key: &[u8]) -> &[RowBytes] {
        self.table.get(key).map_or(&[], std::slice::from_ref)
    }

    /// From a checkpoint: the row at a place of its key, or that none is at it.
    pub(super) fn put_back(&mut self, key: &[u8], place: usize, row: Option<&[u8]>) {
        match row {
            Some(row) => {
                self.table.insert(key.into(), row.into());
            }
            None if place == 0 => {
                self.table.remove(key);
            }
            None => {}
        }
    }
}
