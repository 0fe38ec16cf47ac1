//! Numbers for partition keys that come and go: each key gets a slot, counted from 0, and gives it back when its
//! partition is forgotten. Used by operators that keep state of each partition in a table by slot.

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use crate::memory;

/// Bytes of forgotten keys that are tolerated beside as many of known ones.
const DEAD_BYTES_MAX: usize = 1 << 20;

/// The slots of the keys that are known.
pub(crate) struct Partitions {
    converter: RowConverter,
    columns: usize,
    table: HashTable<(u64, u32)>,
    /// The keys as comparable rows, one behind the other.
    bytes: Vec<u8>,
    /// Where the key of each slot lies in `bytes`. A free slot has an empty one.
    spans: Vec<(usize, u32)>,
    free: Vec<u32>,
    dead_bytes: usize,
}

impl Partitions {
    /// Bytes of memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.table.allocation_size()
            + memory::of_vec(&self.bytes)
            + memory::of_vec(&self.spans)
            + memory::of_vec(&self.free)
    }

    /// No keys yet, of columns of the given types. Without columns all rows are of one partition.
    pub(crate) fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        // A row format needs at least one column; a constant stands in for none.
        let fields = if types.is_empty() { &[DataType::Null] } else { types };
        Ok(Partitions {
            converter: RowConverter::new(fields.iter().map(|t| SortField::new(t.clone())).collect())?,
            columns: types.len(),
            table: HashTable::new(),
            bytes: Vec::new(),
            spans: Vec::new(),
            free: Vec::new(),
            dead_bytes: 0,
        })
    }

    /// Number of keys that are known.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The slots of the keys that are known, in no fixed order.
    pub(crate) fn known(&self) -> impl Iterator<Item = u32> {
        self.table.iter().map(|(_, slot)| *slot)
    }

    /// One more than the greatest slot that was ever given out: the length of a table by slot.
    pub(crate) fn slots(&self) -> usize {
        self.spans.len()
    }

    /// The slot of each row's key, which is in the given columns; new keys get a slot.
    pub(crate) fn slots_of(&mut self, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<u32>, ArrowError> {
        let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
        let mut slots = Vec::new();
        self.intern(&columns, rows.num_rows(), &mut slots)?;
        Ok(slots)
    }

    /// Writes the slot of each row's key to `slots` (cleared first); new keys get a slot.
    pub(crate) fn intern(&mut self, columns: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) -> Result<(), ArrowError> {
        slots.clear();
        slots.reserve(rows);
        let constant: [ArrayRef; 1] = [Arc::new(NullArray::new(rows))];
        let incoming = self.converter.convert_columns(if columns.is_empty() { &constant } else { columns })?;
        let Partitions { table, bytes, spans, free, .. } = self;
        let mut last: Option<(&[u8], u32)> = None;
        for row in &incoming {
            let key = row.data();
            // A run of equal keys costs one look-up.
            if let Some((same, slot)) = last
                && same == key
            {
                slots.push(slot);
                continue;
            }
            let hash = xxh3_64(key);
            let is_key = |(other, slot): &(u64, u32)| *other == hash && key_of(bytes, spans[*slot as usize]) == key;
            let slot = match table.entry(hash, is_key, |(hash, _)| *hash) {
                Entry::Occupied(known) => known.get().1,
                Entry::Vacant(vacant) => {
                    let slot = free.pop().unwrap_or(spans.len() as u32);
                    let span = (bytes.len(), key.len() as u32);
                    match spans.get_mut(slot as usize) {
                        Some(reused) => *reused = span,
                        None => spans.push(span),
                    }
                    bytes.extend_from_slice(key);
                    vacant.insert((hash, slot));
                    slot
                }
            };
            last = Some((key, slot));
            slots.push(slot);
        }
        Ok(())
    }

    /// The key of a known slot, comparable with others.
    pub(crate) fn key(&self, slot: u32) -> &[u8] {
        key_of(&self.bytes, self.spans[slot as usize])
    }

    /// The key columns of known slots.
    pub(crate) fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.columns == 0 {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        self.converter.convert_rows(slots.iter().map(|slot| parser.parse(self.key(*slot))))
    }

    /// Forgets the key of a known slot; the slot may be given to another key.
    pub(crate) fn remove(&mut self, slot: u32) {
        let span = self.spans[slot as usize];
        let hash = xxh3_64(key_of(&self.bytes, span));
        if let Ok(entry) = self.table.find_entry(hash, |(_, known)| *known == slot) {
            entry.remove();
        }
        self.dead_bytes += span.1 as usize;
        self.spans[slot as usize] = (0, 0);
        self.free.push(slot);
        if self.dead_bytes > DEAD_BYTES_MAX && self.dead_bytes > self.bytes.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dead_bytes);
        for span in &mut self.spans {
            let begin = bytes.len();
            bytes.extend_from_slice(key_of(&self.bytes, *span));
            span.0 = begin;
        }
        self.bytes = bytes;
        self.dead_bytes = 0;
    }
}

fn key_of(bytes: &[u8], (begin, length): (usize, u32)) -> &[u8] {
    &bytes[begin..begin + length as usize]
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn slots_are_given_back_and_keys_found_again() {
        let mut partitions = Partitions::new(&[DataType::Int64, DataType::Utf8]).unwrap();
        let mut slots = Vec::new();
        let batch = |numbers: std::ops::Range<i64>| -> Vec<ArrayRef> {
            let texts: StringArray = numbers.clone().map(|n| (n % 3 > 0).then(|| format!("text {n}"))).collect();
            vec![Arc::new(Int64Array::from_iter_values(numbers)), Arc::new(texts)]
        };
        partitions.intern(&batch(0..100_000), 100_000, &mut slots).unwrap();
        assert!(slots.iter().copied().eq(0..100_000));
        // Enough for the arena to be compacted.
        slots.iter().filter(|slot| **slot >= 1_000).for_each(|slot| partitions.remove(*slot));
        assert_eq!((partitions.len(), partitions.slots()), (1_000, 100_000));
        partitions.intern(&batch(500..1_500), 1_000, &mut slots).unwrap();
        assert!(slots[..500].iter().copied().eq(500..1_000));
        assert!(slots[500..].iter().all(|slot| (1_000..100_000).contains(slot)), "free slots are used again");
        let columns = partitions.columns(&slots).unwrap();
        assert!(columns[0].as_primitive::<Int64Type>().values().iter().copied().eq(500..1_500));
    }

    #[test]
    fn without_columns_there_is_one_partition() {
        let mut partitions = Partitions::new(&[]).unwrap();
        let mut slots = Vec::new();
        partitions.intern(&[], 3, &mut slots).unwrap();
        assert_eq!((slots, partitions.len()), (vec![0, 0, 0], 1));
    }
}
