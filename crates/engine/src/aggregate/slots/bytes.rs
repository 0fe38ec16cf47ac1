//! Slots of keys of any columns, as bytes: those of a text as they are, all others by Arrow's comparable rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Allocator;
use super::integers::put;
use crate::memory;

/// Below so many bytes nothing is gained by moving them together.
const COMPACT_BYTES_MIN: usize = 1 << 20;

/// See the module.
pub(super) struct ByteSlots {
    encoding: Encoding,
    /// Hash and slot of each key.
    table: HashTable<(u64, u32)>,
    spans: Vec<Span>,
    bytes: Vec<u8>,
    /// Bytes of keys that are gone.
    dead_bytes: usize,
    /// The slot of the null text; null keys are there in the first space only.
    null: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct Span {
    start: usize,
    length: u32,
    space: u32,
}

enum Encoding {
    Text,
    Binary,
    Rows(RowConverter),
}

impl ByteSlots {
    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size() + memory::of_vec(&self.spans) + memory::of_vec(&self.bytes)
    }

    pub(super) fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        let encoding = match types {
            [DataType::Utf8] => Encoding::Text,
            [DataType::Binary] => Encoding::Binary,
            many => Encoding::Rows(RowConverter::new(many.iter().map(|t| SortField::new(t.clone())).collect())?),
        };
        let (spans, bytes) = (Vec::new(), Vec::new());
        Ok(ByteSlots { encoding, table: HashTable::new(), spans, bytes, dead_bytes: 0, null: None })
    }

    pub(super) fn intern(
        &mut self,
        columns: &[ArrayRef],
        space: impl Fn(usize) -> Option<u32>,
        allocator: &mut Allocator<'_>,
        mut found: impl FnMut(usize, u32, bool),
    ) -> Result<(), ArrowError> {
        let converted = match &self.encoding {
            Encoding::Rows(converter) => Some(converter.convert_columns(columns)?),
            _ => None,
        };
        let mut take = |row: usize, key: Option<&[u8]>| {
            let Some(space) = space(row) else { return };
            let (slot, new) = match key {
                Some(key) => self.slot(key, space, allocator),
                None => self.slot_of_null(allocator),
            };
            found(row, slot, new);
        };
        match converted {
            Some(rows) => rows.iter().enumerate().for_each(|(row, key)| take(row, Some(key.as_ref()))),
            None => match columns[0].data_type() {
                DataType::Binary => {
                    columns[0].as_binary::<i32>().iter().enumerate().for_each(|(row, key)| take(row, key))
                }
                _ => {
                    let keys = columns[0].as_string::<i32>().iter();
                    keys.enumerate().for_each(|(row, key)| take(row, key.map(str::as_bytes)))
                }
            },
        }
        Ok(())
    }

    fn slot(&mut self, key: &[u8], space: u32, allocator: &mut Allocator<'_>) -> (u32, bool) {
        let hash = xxh3_64_with_seed(key, u64::from(space));
        let same = |(other, slot): &(u64, u32)| {
            let span = self.spans[*slot as usize];
            *other == hash && span.space == space && self.bytes[span.start..span.start + span.length as usize] == *key
        };
        match self.table.entry(hash, same, |(other, _)| *other) {
            Entry::Occupied(known) => (known.get().1, false),
            Entry::Vacant(free) => {
                let slot = allocator.take();
                free.insert((hash, slot));
                put(&mut self.spans, slot, Span { start: self.bytes.len(), length: key.len() as u32, space });
                self.bytes.extend_from_slice(key);
                (slot, true)
            }
        }
    }

    fn slot_of_null(&mut self, allocator: &mut Allocator<'_>) -> (u32, bool) {
        if let Some(slot) = self.null {
            return (slot, false);
        }
        let slot = allocator.take();
        put(&mut self.spans, slot, Span::default());
        self.null = Some(slot);
        (slot, true)
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.null == Some(slot) {
            self.null = None;
            return;
        }
        let span = self.spans[slot as usize];
        let hash = xxh3_64_with_seed(self.key(slot), u64::from(span.space));
        let known = self.table.find_entry(hash, |(_, other)| *other == slot);
        assert!(known.is_ok_and(|known| known.remove().0.1 == slot), "a slot in use has its key in the table");
        self.spans[slot as usize].length = 0;
        self.dead_bytes += span.length as usize;
        if self.dead_bytes > self.bytes.len() / 2 && self.bytes.len() >= COMPACT_BYTES_MIN {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dead_bytes);
        for span in &mut self.spans {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[span.start..span.start + span.length as usize]);
            span.start = start;
        }
        self.bytes = bytes;
        self.dead_bytes = 0;
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.len()
    }

    fn key(&self, slot: u32) -> &[u8] {
        let span = self.spans[slot as usize];
        &self.bytes[span.start..span.start + span.length as usize]
    }

    pub(super) fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        if let Encoding::Rows(converter) = &self.encoding {
            let parser = converter.parser();
            return converter.convert_rows(slots.iter().map(|slot| parser.parse(self.key(*slot))));
        }
        let keys = slots.iter().map(|slot| self.key(*slot));
        let offsets = OffsetBuffer::<i32>::from_lengths(keys.clone().map(<[u8]>::len));
        let mut values = Vec::with_capacity(offsets.last().map_or(0, |end| *end as usize));
        keys.for_each(|key| values.extend_from_slice(key));
        let nulls = self.null.filter(|null| slots.contains(null));
        let nulls = nulls.map(|null| slots.iter().map(|slot| *slot != null).collect::<NullBuffer>());
        let values = Buffer::from_vec(values);
        Ok(vec![match self.encoding {
            Encoding::Binary => Arc::new(BinaryArray::try_new(offsets, values, nulls)?) as ArrayRef,
            _ => Arc::new(StringArray::try_new(offsets, values, nulls)?),
        }])
    }
}
