//! Slots of keys that are a single column of at most 64 bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Allocator;
use crate::keys::hash_integer;
use crate::memory;

/// Spreads spaces over the numbers, so that equal values in neighbouring spaces do not meet.
const SPACE: i64 = 0x5851_f42d_4c95_7f2d;

/// A key and its slot, in halves: twelve bytes instead of sixteen. There is one of each key, and there may be very many.
#[derive(Clone, Copy)]
struct Known {
    key: [u32; 2],
    slot: u32,
}

impl Known {
    fn new(key: i64, slot: u32) -> Known {
        Known { key: [key as u32, (key >> 32) as u32], slot }
    }

    fn key(self) -> i64 {
        (i64::from(self.key[1]) << 32) | i64::from(self.key[0])
    }
}

/// See the module.
pub(super) struct IntegerSlots {
    data_type: DataType,
    table: HashTable<Known>,
    /// The key of each slot.
    keys: Vec<i64>,
    /// The space of each slot; those behind the last are in the first space, as are all where there is only one.
    spaces: Vec<u32>,
    /// The slot of the null key; null keys are there in the first space only.
    null: Option<u32>,
}

fn hash(key: i64, space: u32) -> u64 {
    hash_integer(key ^ i64::from(space).wrapping_mul(SPACE))
}

impl IntegerSlots {
    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size() + memory::of_vec(&self.keys) + memory::of_vec(&self.spaces)
    }

    pub(super) fn new(data_type: DataType) -> Self {
        IntegerSlots { data_type, table: HashTable::new(), keys: Vec::new(), spaces: Vec::new(), null: None }
    }

    pub(super) fn intern(
        &mut self,
        column: &ArrayRef,
        space: impl Fn(usize) -> Option<u32>,
        allocator: &mut Allocator<'_>,
        mut found: impl FnMut(usize, u32, bool),
    ) -> Result<(), ArrowError> {
        let integers = compute::cast(column, &DataType::Int64)?;
        let integers = integers.as_primitive::<Int64Type>();
        let nulls = integers.nulls().filter(|nulls| nulls.null_count() > 0);
        // A run of equal keys is common (sorted or hot input): it costs one look-up.
        let mut last: Option<(i64, u32, u32)> = None;
        for (row, key) in integers.values().iter().enumerate() {
            let Some(space) = space(row) else { continue };
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                let (slot, new) = self.slot_of_null(allocator);
                found(row, slot, new);
                continue;
            }
            match last {
                Some((same, of, slot)) if same == *key && of == space => found(row, slot, false),
                _ => {
                    let (slot, new) = self.slot(*key, space, allocator);
                    last = Some((*key, space, slot));
                    found(row, slot, new);
                }
            }
        }
        Ok(())
    }

    fn slot(&mut self, key: i64, space: u32, allocator: &mut Allocator<'_>) -> (u32, bool) {
        let spaces = &self.spaces;
        let space_of = |slot: u32| spaces.get(slot as usize).copied().unwrap_or(0);
        let same = |known: &Known| known.key() == key && space_of(known.slot) == space;
        let rehash = |known: &Known| hash(known.key(), space_of(known.slot));
        match self.table.entry(hash(key, space), same, rehash) {
            Entry::Occupied(known) => (known.get().slot, false),
            Entry::Vacant(free) => {
                let slot = allocator.take();
                free.insert(Known::new(key, slot));
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
        let known = self.table.find_entry(hash(key, space), |known| known.slot == slot);
        assert!(known.is_ok_and(|known| known.remove().0.key() == key), "a slot in use has its key in the table");
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
        compute::cast(&values, &self.data_type)
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
