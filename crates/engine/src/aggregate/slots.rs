//! Numbers for keys, which can be given back: each distinct key within a space has a slot, counted from 0, and a
//! slot that is freed is given to a later key. Group keys use one space; tables of values use one for each group.
//! Called once a batch.

mod bytes;
mod integers;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use self::bytes::ByteSlots;
use self::integers::IntegerSlots;
pub(super) use self::integers::put;
use crate::keys::fits_integer;
use crate::memory;

/// See the module.
pub(super) struct SlotIndex {
    keys: Keys,
    /// Slots that were freed, the last one first to be used again.
    free: Vec<u32>,
    /// Slots that have ever been given out.
    slots: u32,
}

enum Keys {
    /// No key columns: one slot.
    Single {
        used: bool,
    },
    Integers(IntegerSlots),
    Bytes(ByteSlots),
}

/// Gives out slots: those that were freed before new ones.
struct Allocator<'a> {
    free: &'a mut Vec<u32>,
    slots: &'a mut u32,
}

impl Allocator<'_> {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            *self.slots += 1;
            *self.slots - 1
        })
    }
}

impl SlotIndex {
    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Single { .. } => 0,
            Keys::Integers(slots) => slots.bytes(),
            Keys::Bytes(slots) => slots.bytes(),
        };
        keys + memory::of_vec(&self.free)
    }

    /// An index without keys, for key columns of the given types.
    pub(super) fn new(types: &[DataType]) -> Result<SlotIndex, ArrowError> {
        let keys = match types {
            [] => Keys::Single { used: false },
            [one] if fits_integer(one) => Keys::Integers(IntegerSlots::new(one.clone())),
            many => Keys::Bytes(ByteSlots::new(many)?),
        };
        Ok(SlotIndex { keys, free: Vec::new(), slots: 0 })
    }

    /// One more than the greatest slot that was ever given out.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.slots() - self.free.len()
    }

    /// So many keys are about to come.
    pub(super) fn reserve(&mut self, more: usize) {
        if let Keys::Integers(slots) = &mut self.keys {
            slots.reserve(more);
        }
    }

    /// Calls `found` with the position, the slot and whether it is new, for each row in order for which `space`
    /// gives a space.
    pub(super) fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        space: impl Fn(usize) -> Option<u32>,
        mut found: impl FnMut(usize, u32, bool),
    ) -> Result<(), ArrowError> {
        let mut allocator = Allocator { free: &mut self.free, slots: &mut self.slots };
        match &mut self.keys {
            Keys::Single { used } => {
                for row in (0..rows).filter(|row| space(*row).is_some()) {
                    let new = !*used;
                    if new {
                        allocator.take();
                        *used = true;
                    }
                    found(row, 0, new);
                }
                Ok(())
            }
            Keys::Integers(slots) => slots.intern(&columns[0], space, &mut allocator, found),
            Keys::Bytes(slots) => slots.intern(columns, space, &mut allocator, found),
        }
    }

    /// Frees a slot that is in use.
    pub(super) fn remove(&mut self, slot: u32) {
        match &mut self.keys {
            Keys::Single { used } => *used = false,
            Keys::Integers(slots) => slots.remove(slot),
            Keys::Bytes(slots) => slots.remove(slot),
        }
        self.free.push(slot);
    }

    /// The key columns of slots.
    pub(super) fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        match &self.keys {
            Keys::Single { .. } => Ok(Vec::new()),
            Keys::Integers(keys) => Ok(vec![keys.column(slots)?]),
            Keys::Bytes(keys) => keys.columns(slots),
        }
    }
}

#[cfg(test)]
mod tests;
