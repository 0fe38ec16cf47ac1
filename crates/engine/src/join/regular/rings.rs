//! Which rows of a side have which key: for each key a ring of rows, in the order in which they were added.

use crate::memory;

/// No row, no key.
pub(super) const NONE: u32 = u32::MAX;

/// See the module. Keys and rows are small numbers.
#[derive(Default)]
pub(super) struct Rings {
    /// The newest row of each key; the oldest comes after it.
    newest: Vec<u32>,
    after: Vec<u32>,
    /// The row before; kept only where rows are taken away.
    before: Option<Vec<u32>>,
}

impl Rings {
    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        memory::of_vec(&self.newest) + memory::of_vec(&self.after) + self.before.as_ref().map_or(0, memory::of_vec)
    }

    /// No rows.
    pub(super) fn new(with_removal: bool) -> Rings {
        Rings { before: with_removal.then(Vec::new), ..Rings::default() }
    }

    /// Makes room for so many keys.
    pub(super) fn reserve_keys(&mut self, keys: usize) {
        if self.newest.len() < keys {
            self.newest.resize(keys, NONE);
        }
    }

    /// Adds a row that is in no ring.
    pub(super) fn push(&mut self, key: u32, row: u32) {
        let needed = row as usize + 1;
        if self.after.len() < needed {
            self.after.resize(needed, NONE);
        }
        let newest = std::mem::replace(&mut self.newest[key as usize], row);
        let oldest = if newest == NONE { row } else { std::mem::replace(&mut self.after[newest as usize], row) };
        self.after[row as usize] = oldest;
        if let Some(before) = &mut self.before {
            if before.len() < needed {
                before.resize(needed, NONE);
            }
            before[row as usize] = if newest == NONE { row } else { newest };
            before[oldest as usize] = row;
        }
    }

    /// Takes a row out of the ring of its key.
    pub(super) fn remove(&mut self, key: u32, row: u32) {
        let before = self.before.as_mut().expect("a side whose rows are taken away");
        let (previous, following) = (before[row as usize], self.after[row as usize]);
        if previous == row {
            self.newest[key as usize] = NONE;
            return;
        }
        self.after[previous as usize] = following;
        before[following as usize] = previous;
        if self.newest[key as usize] == row {
            self.newest[key as usize] = previous;
        }
    }

    /// Whether the key has no rows.
    pub(super) fn is_empty(&self, key: u32) -> bool {
        self.newest.get(key as usize).is_none_or(|newest| *newest == NONE)
    }

    /// The rows of a key, oldest first.
    pub(super) fn rows(&self, key: u32) -> impl Iterator<Item = u32> + '_ {
        self.rows_from(key, None)
    }

    /// The rows of a key from this one on, oldest first.
    pub(super) fn rows_from(&self, key: u32, first: Option<u32>) -> impl Iterator<Item = u32> + '_ {
        let newest = self.newest.get(key as usize).copied().unwrap_or(NONE);
        let oldest = if newest == NONE { NONE } else { self.after[newest as usize] };
        let mut next = first.unwrap_or(oldest);
        std::iter::from_fn(move || {
            if next == NONE {
                return None;
            }
            let row = next;
            next = if row == newest { NONE } else { self.after[row as usize] };
            Some(row)
        })
    }

    /// All keys that there were.
    pub(super) fn keys(&self) -> std::ops::Range<u32> {
        0..self.newest.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_keep_the_order_of_their_rows() {
        let mut rings = Rings::new(true);
        rings.reserve_keys(2);
        let rows = |rings: &Rings, key| rings.rows(key).collect::<Vec<_>>();
        for row in 0..6 {
            rings.push(row % 2, row);
        }
        rings.remove(0, 0);
        rings.remove(1, 3);
        rings.remove(0, 4);
        rings.push(0, 0);
        assert_eq!((rows(&rings, 0), rows(&rings, 1)), (vec![2, 0], vec![1, 5]));
        rings.remove(0, 2);
        rings.remove(0, 0);
        assert!(rings.is_empty(0) && rows(&rings, 0).is_empty() && rings.is_empty(7));
        rings.push(0, 4);
        assert_eq!(rows(&rings, 0), vec![4]);
    }
}
