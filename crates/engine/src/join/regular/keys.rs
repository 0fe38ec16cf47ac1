//! Numbers for the keys of both sides of a join: equal keys have one number on both sides, for as long as either
//! side has rows of it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::rings::NONE;
use crate::keys::{fits_integer, hash_integer, typed};
use crate::memory;
use crate::slab::{Slab, Slot};

/// See the module.
pub(super) struct JoinKeys {
    /// Whether NULL equals NULL, for each column.
    null_equal: Vec<bool>,
    index: Index,
    /// Numbers that were given free.
    free: Vec<u32>,
    /// Numbers that were ever given.
    len: usize,
}

enum Index {
    /// All rows have the same key.
    All,
    /// One column that fits 64 bits, NULL equals nothing.
    Integer { table: HashTable<(i64, u32)>, keys: Vec<i64> },
    /// Anything else, by Arrow's comparable rows.
    Rows { converter: RowConverter, table: HashTable<(u64, u32)>, bytes: Slab, keys: Vec<(u64, Slot)> },
}

impl JoinKeys {
    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        let index = match &self.index {
            Index::All => 0,
            Index::Integer { table, keys } => table.allocation_size() + memory::of_vec(keys),
            Index::Rows { table, bytes, keys, .. } => table.allocation_size() + bytes.bytes() + memory::of_vec(keys),
        };
        index + memory::of_vec(&self.free)
    }

    /// No keys of columns with these types.
    pub(super) fn new(types: &[DataType], null_equal: Vec<bool>) -> Result<JoinKeys, ArrowError> {
        let index = match types {
            [] => Index::All,
            [one] if fits_integer(one) && !null_equal[0] => {
                Index::Integer { table: HashTable::new(), keys: Vec::new() }
            }
            many => Index::Rows {
                converter: RowConverter::new(many.iter().cloned().map(SortField::new).collect())?,
                table: HashTable::new(),
                bytes: Slab::default(),
                keys: Vec::new(),
            },
        };
        Ok(JoinKeys { null_equal, index, free: Vec::new(), len: 0 })
    }

    /// Numbers below which all keys are.
    pub(super) fn len(&self) -> usize {
        match self.index {
            Index::All => 1,
            _ => self.len,
        }
    }

    /// Writes the number of each row's key to `numbers` (cleared first): [`NONE`] for a key that equals none,
    /// because it is NULL. `columns` are the key columns.
    pub(super) fn intern(
        &mut self,
        rows: &RecordBatch,
        columns: &[usize],
        numbers: &mut Vec<u32>,
    ) -> Result<(), ArrowError> {
        numbers.clear();
        let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
        let (free, len) = (&mut self.free, &mut self.len);
        let mut number = || {
            free.pop().unwrap_or_else(|| {
                *len += 1;
                (*len - 1) as u32
            })
        };
        match &mut self.index {
            Index::All => numbers.resize(rows.num_rows(), 0),
            Index::Integer { table, keys } => {
                let integers = typed(&columns[0], &DataType::Int64)?;
                let integers = integers.as_primitive::<Int64Type>();
                let mut find = |key: i64| match table.entry(
                    hash_integer(key),
                    |(known, _)| *known == key,
                    |(known, _)| hash_integer(*known),
                ) {
                    Entry::Occupied(known) => known.get().1,
                    Entry::Vacant(vacant) => {
                        let number = number();
                        vacant.insert((key, number));
                        keys.resize(keys.len().max(number as usize + 1), 0);
                        keys[number as usize] = key;
                        number
                    }
                };
                match integers.null_count() {
                    0 => numbers.extend(integers.values().iter().map(|key| find(*key))),
                    _ => numbers.extend(integers.iter().map(|key| key.map_or(NONE, &mut find))),
                }
            }
            Index::Rows { converter, table, bytes, keys } => {
                let converted = converter.convert_columns(&columns)?;
                let strict = columns.iter().zip(&self.null_equal).filter(|(_, null_equal)| !**null_equal);
                let nulls: Vec<_> = strict.filter_map(|(column, _)| column.logical_nulls()).collect();
                for (position, row) in converted.iter().enumerate() {
                    if nulls.iter().any(|nulls| nulls.is_null(position)) {
                        numbers.push(NONE);
                        continue;
                    }
                    let key = row.as_ref();
                    let hash = xxh3_64(key);
                    let same = |known: &(u64, u32)| known.0 == hash && bytes.get(keys[known.1 as usize].1) == key;
                    if let Some((_, known)) = table.find(hash, same) {
                        numbers.push(*known);
                        continue;
                    }
                    let slot = bytes.insert(key).ok_or_else(|| {
                        ArrowError::MemoryError("the keys of the join take more than 64 GiB on one subtask".to_owned())
                    })?;
                    let number = number();
                    keys.resize(keys.len().max(number as usize + 1), (0, Slot::default()));
                    keys[number as usize] = (hash, slot);
                    table.insert_unique(hash, (hash, number), |(hash, _)| *hash);
                    numbers.push(number);
                }
            }
        }
        Ok(())
    }

    /// Forgets a key that neither side has rows of.
    pub(super) fn release(&mut self, number: u32) {
        match &mut self.index {
            Index::All => {}
            Index::Integer { table, keys } => {
                let key = keys[number as usize];
                if let Ok(known) = table.find_entry(hash_integer(key), |(_, known)| *known == number) {
                    known.remove();
                    self.free.push(number);
                }
            }
            Index::Rows { table, bytes, keys, .. } => {
                let (hash, slot) = keys[number as usize];
                if let Ok(known) = table.find_entry(hash, |(_, known)| *known == number) {
                    known.remove();
                    bytes.remove(slot);
                    self.free.push(number);
                }
            }
        }
    }
}

/// Types of some columns.
pub(super) fn types(schema: &SchemaRef, columns: &[usize]) -> Vec<DataType> {
    columns.iter().map(|column| schema.field(*column).data_type().clone()).collect()
}
