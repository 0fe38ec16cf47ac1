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

#[derive(Clone, Copy)]
struct Known {
    key: i64,
    space: u32,
    slot: u32,
}

/// See the module.
pub(super) struct IntegerSlots {
    data_type: DataType,
    table: HashTable<Known>,
    /// Key and space of each slot.
    keys: Vec<(i64, u32)>,
    /// The slot of the null key; null keys are there in the first space only.
    null: Option<u32>,
}

fn hash(key: i64, space: u32) -> u64 {
    hash_integer(key ^ i64::from(space).wrapping_mul(SPACE))
}

impl IntegerSlots {
    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size() + memory::of_vec(&self.keys)
    }

    pub(super) fn new(data_type: DataType) -> Self {
        IntegerSlots { data_type, table: HashTable::new(), keys: Vec::new(), null: None }
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
        let mut last: Option<Known> = None;
        for (row, key) in integers.values().iter().enumerate() {
            let Some(space) = space(row) else { continue };
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                let (slot, new) = self.slot_of_null(allocator);
                found(row, slot, new);
                continue;
            }
            match last {
                Some(same) if same.key == *key && same.space == space => found(row, same.slot, false),
                _ => {
                    let (slot, new) = self.slot(*key, space, allocator);
                    last = Some(Known { key: *key, space, slot });
                    found(row, slot, new);
                }
            }
        }
        Ok(())
    }

    fn slot(&mut self, key: i64, space: u32, allocator: &mut Allocator<'_>) -> (u32, bool) {
        let same = |known: &Known| known.key == key && known.space == space;
        match self.table.entry(hash(key, space), same, |known| hash(known.key, known.space)) {
            Entry::Occupied(known) => (known.get().slot, false),
            Entry::Vacant(free) => {
                let slot = allocator.take();
                free.insert(Known { key, space, slot });
                put(&mut self.keys, slot, (key, space));
                (slot, true)
            }
        }
    }

    fn slot_of_null(&mut self, allocator: &mut Allocator<'_>) -> (u32, bool) {
        if let Some(slot) = self.null {
            return (slot, false);
        }
        let slot = allocator.take();
        put(&mut self.keys, slot, (0, 0));
        self.null = Some(slot);
        (slot, true)
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.null == Some(slot) {
            self.null = None;
            return;
        }
        let (key, space) = self.keys[slot as usize];
        let known = self.table.find_entry(hash(key, space), |known| known.slot == slot);
        assert!(known.is_ok_and(|known| known.remove().0.key == key), "a slot in use has its key in the table");
    }

    pub(super) fn column(&self, slots: &[u32]) -> Result<ArrayRef, ArrowError> {
        let keys = slots.iter().map(|slot| self.keys[*slot as usize].0);
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
