//! Slots of keys that are a single column of at most 64 bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;

use super::Allocator;
use crate::keys::{hash_integer, typed};
use crate::memory;
use crate::slot_table::{Found, Place, SlotTable};

/// Spreads spaces over the numbers, so that equal values in neighbouring spaces do not meet.
const SPACE: i64 = 0x5851_f42d_4c95_7f2d;

/// So many keys are looked at together: more than a processor waits for at the same time.
const TOGETHER: usize = 64;
/// A table of fewer bytes is in a cache anyway.
const AHEAD_BYTES_MIN: usize = 1 << 18;

/// See the module.
pub(super) struct IntegerSlots {
    data_type: DataType,
    table: SlotTable,
    /// The key of each slot.
    keys: Vec<i64>,
    /// The space of each slot; those behind the last are in the first space, as are all where there is only one.
    spaces: Vec<u32>,
    /// The slot of the null key; null keys are there in the first space only.
    null: Option<u32>,
    ahead: Ahead,
}

/// Keys that are looked up one after the other: their hashes, and how far the searches for them have got. Nothing where the
/// table is small.
#[derive(Default)]
struct Ahead {
    hashes: Vec<u64>,
    places: Vec<Place>,
}

fn hash(key: i64, space: u32) -> u64 {
    hash_integer(key ^ i64::from(space).wrapping_mul(SPACE))
}

impl IntegerSlots {
    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + memory::of_vec(&self.keys) + memory::of_vec(&self.spaces)
    }

    pub(super) fn new(data_type: DataType) -> Self {
        IntegerSlots {
            data_type,
            table: SlotTable::new(),
            keys: Vec::new(),
            spaces: Vec::new(),
            null: None,
            ahead: Ahead::default(),
        }
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.table.make_room(more);
        self.keys.reserve_exact(more);
    }

    pub(super) fn intern(
        &mut self,
        column: &ArrayRef,
        space: impl Fn(usize) -> Option<u32>,
        allocator: &mut Allocator<'_>,
        mut found: impl FnMut(usize, u32, bool),
    ) -> Result<(), ArrowError> {
        let integers = typed(column, &DataType::Int64)?;
        let integers = integers.as_primitive::<Int64Type>();
        let nulls = integers.nulls().filter(|nulls| nulls.null_count() > 0);
        // A run of equal keys is common (sorted or hot input): it costs one look-up.
        let mut last: Option<(i64, u32, u32)> = None;
        for (row, key) in integers.values().iter().enumerate() {
            if row % TOGETHER == 0 {
                self.table.make_room(TOGETHER);
                let end = integers.len().min(row + TOGETHER);
                self.look_ahead((row..end).map(|row| hash(integers.value(row), space(row).unwrap_or(0))));
            }
            let Some(space) = space(row) else { continue };
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                let (slot, new) = self.slot_of_null(allocator);
                found(row, slot, new);
                continue;
            }
            match last {
                Some((same, of, slot)) if same == *key && of == space => found(row, slot, false),
                _ => {
                    let (slot, new) = self.slot(row % TOGETHER, *key, space, allocator);
                    last = Some((*key, space, slot));
                    found(row, slot, new);
                }
            }
        }
        Ok(())
    }

    /// Begins the searches for keys, and has those that they lead to come into the caches.
    fn look_ahead(&mut self, hashes: impl Iterator<Item = u64>) {
        let ahead = &mut self.ahead;
        ahead.hashes.clear();
        ahead.places.clear();
        if self.table.bytes() < AHEAD_BYTES_MIN {
            return;
        }
        ahead.hashes.extend(hashes);
        self.table.look_ahead(&ahead.hashes, &mut ahead.places);
        let slots = ahead.places.iter().filter_map(|place| self.table.number_at(*place));
        std::hint::black_box(slots.fold(0, |all, slot| all ^ self.keys[slot as usize]));
    }

    /// The slot of a key, which is one of those that were looked at together.
    fn slot(&mut self, number: usize, key: i64, space: u32, allocator: &mut Allocator<'_>) -> (u32, bool) {
        let (hash, from) = match self.ahead.places.get(number) {
            Some(place) => (self.ahead.hashes[number], *place),
            None => {
                let hash = hash(key, space);
                (hash, self.table.begin(hash))
            }
        };
        let space_of = |slot: u32| self.spaces.get(slot as usize).copied().unwrap_or(0);
        let is_meant = |slot: u32| self.keys[slot as usize] == key && space_of(slot) == space;
        match self.table.find(from, hash, is_meant) {
            Found::At(_, slot) => (slot, false),
            Found::Free(place) => {
                let slot = allocator.take();
                self.table.insert(place, hash, slot);
                self.put(slot, key, space);
                (slot, true)
            }
        }
    }

    fn put(&mut self, slot: u32, key: i64, space: u32) {
        put(&mut self.keys, slot, key);
        if space != 0 && self.spaces.len() <= slot as usize {
            self.spaces.resize(slot as usize + 1, 0);
        }
        if let Some(of_slot) = self.spaces.get_mut(slot as usize) {
            *of_slot = space;
        }
    }

    fn slot_of_null(&mut self, allocator: &mut Allocator<'_>) -> (u32, bool) {
        if let Some(slot) = self.null {
            return (slot, false);
        }
        let slot = allocator.take();
        self.put(slot, 0, 0);
        self.null = Some(slot);
        (slot, true)
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.null == Some(slot) {
            self.null = None;
            return;
        }
        let (key, space) = (self.keys[slot as usize], self.spaces.get(slot as usize).copied().unwrap_or(0));
        assert!(self.table.remove(hash(key, space), slot), "a slot in use has its key in the table");
    }

    pub(super) fn column(&self, slots: &[u32]) -> Result<ArrayRef, ArrowError> {
        let keys = slots.iter().map(|slot| self.keys[*slot as usize]);
        let values: ArrayRef = match self.null {
            Some(null) if slots.contains(&null) => {
                let keys = keys.zip(slots).map(|(key, slot)| (*slot != null).then_some(key));
                Arc::new(keys.collect::<Int64Array>())
            }
            _ => Arc::new(Int64Array::from_iter_values(keys)),
        };
        typed(&values, &self.data_type)
    }
}

/// Sets an element, which may be one behind the last.
pub(in crate::aggregate) fn put<T>(elements: &mut Vec<T>, slot: u32, element: T) {
    match elements.get_mut(slot as usize) {
        Some(place) => *place = element,
        None => {
            assert_eq!(elements.len(), slot as usize, "slots are given out in order");
            elements.push(element);
        }
    }
}
