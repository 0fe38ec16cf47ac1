//! Interning of group keys: each distinct combination of key values gets a small number, its group, counted
//! from 0. Called by windowed aggregation, once a batch, and by merges of state files.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::memory;

/// The groups of the keys seen so far.
pub(crate) enum KeyIndex {
    /// No key columns: one group.
    Global {
        /// Whether a row was seen.
        seen: bool,
    },
    /// One column that fits 64 bits.
    Integer(IntegerIndex),
    /// Anything else, by Arrow's comparable rows.
    Rows(RowIndex),
}

impl KeyIndex {
    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            KeyIndex::Global { .. } => 0,
            KeyIndex::Integer(index) => index.table.allocation_size() + memory::of_vec(&index.keys),
            KeyIndex::Rows(index) => index.table.allocation_size() + index.rows.size(),
        }
    }

    /// An empty index for key columns of the given types.
    pub(crate) fn new(types: &[DataType]) -> Result<KeyIndex, ArrowError> {
        Ok(match types {
            [] => KeyIndex::Global { seen: false },
            [one] if fits_integer(one) => KeyIndex::Integer(IntegerIndex::new(one.clone())),
            many => KeyIndex::Rows(RowIndex::new(many)?),
        })
    }

    /// Forgets all groups, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        match self {
            KeyIndex::Global { seen } => *seen = false,
            KeyIndex::Integer(IntegerIndex { table, keys, null_group, .. }) => {
                table.clear();
                keys.clear();
                *null_group = None;
            }
            KeyIndex::Rows(RowIndex { table, rows, len, .. }) => {
                table.clear();
                rows.clear();
                *len = 0;
            }
        }
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        match self {
            KeyIndex::Global { seen } => usize::from(*seen),
            KeyIndex::Integer(index) => index.keys.len(),
            KeyIndex::Rows(index) => index.len,
        }
    }

    /// Writes the group of each row to `groups` (cleared first), adding groups for new keys.
    pub(crate) fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<(), ArrowError> {
        groups.clear();
        match self {
            KeyIndex::Global { seen } => {
                *seen |= rows > 0;
                groups.resize(rows, 0);
                Ok(())
            }
            KeyIndex::Integer(index) => index.intern(&columns[0], groups),
            KeyIndex::Rows(index) => index.intern(columns, groups),
        }
    }

    /// The key columns of all groups, in the order of the groups.
    pub(crate) fn columns(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns_from(0)
    }

    /// The same without the first so many groups.
    pub(crate) fn columns_from(&self, first: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        match self {
            KeyIndex::Global { .. } => Ok(Vec::new()),
            KeyIndex::Integer(index) => Ok(vec![index.column_from(first)?]),
            KeyIndex::Rows(index) => index.columns_from(first),
        }
    }
}

/// A column as one of another type; itself where it has that type: Arrow's cast makes a new one, which costs more than short
/// columns are worth.
pub(crate) fn typed(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to { Ok(column.clone()) } else { compute::cast(column, to) }
}

/// Whether values of the type are told apart by 64-bit integers.
pub(crate) fn fits_integer(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        data_type,
        T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::Date32
            | T::Date64
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(_, _)
    )
}

/// Groups of a single column, kept as 64-bit integers.
pub(crate) struct IntegerIndex {
    data_type: DataType,
    table: HashTable<(i64, u32)>,
    keys: Vec<i64>,
    /// The group of the null key; `keys` holds a placeholder at its position.
    null_group: Option<u32>,
}

/// A hash of a number all of whose bits depend on all of the number's.
pub(crate) fn hash_integer(key: i64) -> u64 {
    // A 64 by 64 bit multiplication, folded, so that both the high bits (tags) and the low bits (buckets) depend
    // on all of the key.
    let wide = u128::from(key as u64 ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (wide >> 64) as u64 ^ wide as u64
}

impl IntegerIndex {
    fn new(data_type: DataType) -> Self {
        IntegerIndex { data_type, table: HashTable::new(), keys: Vec::new(), null_group: None }
    }

    fn intern(&mut self, column: &ArrayRef, groups: &mut Vec<usize>) -> Result<(), ArrowError> {
        let integers = typed(column, &DataType::Int64)?;
        let integers = integers.as_primitive::<Int64Type>();
        groups.reserve(integers.len());
        if integers.null_count() == 0 {
            // A run of equal keys is common (sorted or hot input): it costs one look-up.
            let mut last: Option<(i64, usize)> = None;
            for key in integers.values() {
                let group = match last {
                    Some((same, group)) if same == *key => group,
                    _ => self.group(*key),
                };
                last = Some((*key, group));
                groups.push(group);
            }
        } else {
            groups.extend(integers.iter().map(|key| match key {
                Some(key) => self.group(key),
                None => self.group_of_null(),
            }));
        }
        Ok(())
    }

    fn group(&mut self, key: i64) -> usize {
        let hash = hash_integer(key);
        let entry = self.table.entry(hash, |(known, _)| *known == key, |(known, _)| hash_integer(*known));
        match entry {
            hashbrown::hash_table::Entry::Occupied(known) => known.get().1 as usize,
            hashbrown::hash_table::Entry::Vacant(free) => {
                let group = self.keys.len();
                free.insert((key, group as u32));
                self.keys.push(key);
                group
            }
        }
    }

    fn group_of_null(&mut self) -> usize {
        let keys = &mut self.keys;
        let group = self.null_group.get_or_insert_with(|| {
            keys.push(0);
            (keys.len() - 1) as u32
        });
        *group as usize
    }

    fn column_from(&self, first: usize) -> Result<ArrayRef, ArrowError> {
        let values = Int64Array::from(self.keys[first..].to_vec());
        let values: ArrayRef = match self.null_group {
            None => Arc::new(values),
            Some(null) => {
                let is_null = |position: usize| first + position == null as usize;
                let with_null = values.iter().enumerate().map(|(position, key)| key.filter(|_| !is_null(position)));
                Arc::new(with_null.collect::<Int64Array>())
            }
        };
        typed(&values, &self.data_type)
    }
}

/// Groups of any columns, kept as Arrow's comparable rows.
pub(crate) struct RowIndex {
    converter: RowConverter,
    table: HashTable<(u64, u32)>,
    rows: Rows,
    len: usize,
}

impl RowIndex {
    fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?;
        let rows = converter.empty_rows(0, 0);
        Ok(RowIndex { converter, table: HashTable::new(), rows, len: 0 })
    }

    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<(), ArrowError> {
        let incoming = self.converter.convert_columns(columns)?;
        groups.reserve(incoming.num_rows());
        for row in &incoming {
            let hash = xxh3_64(row.as_ref());
            let known = &self.rows;
            let entry = self.table.entry(
                hash,
                |(other, group)| *other == hash && known.row(*group as usize) == row,
                |(other, _)| *other,
            );
            let group = match entry {
                hashbrown::hash_table::Entry::Occupied(known) => known.get().1 as usize,
                hashbrown::hash_table::Entry::Vacant(free) => {
                    free.insert((hash, self.len as u32));
                    self.rows.push(row);
                    self.len += 1;
                    self.len - 1
                }
            };
            groups.push(group);
        }
        Ok(())
    }

    fn columns_from(&self, first: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        self.converter.convert_rows((first..self.len).map(|group| self.rows.row(group)))
    }
}

/// One key as an owned value, for operators that keep a map of their own.
pub(crate) struct KeyConverter {
    converter: RowConverter,
}

impl KeyConverter {
    /// A converter for key columns of the given types; without columns all keys are equal.
    pub(crate) fn new(types: &[DataType]) -> Result<Self, ArrowError> {
        // A row format needs at least one column; a constant stands in for none.
        let types: &[DataType] = if types.is_empty() { &[DataType::Null] } else { types };
        Ok(KeyConverter { converter: RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())? })
    }

    /// The key of each row.
    pub(crate) fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<OwnedRow>, ArrowError> {
        let constant: [ArrayRef; 1] = [Arc::new(arrow::array::NullArray::new(rows))];
        let columns = if columns.is_empty() { &constant[..] } else { columns };
        Ok(self.converter.convert_columns(columns)?.iter().map(|row| row.owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn groups_of(index: &mut KeyIndex, columns: &[ArrayRef]) -> Vec<usize> {
        let mut groups = Vec::new();
        index.intern(columns, columns[0].len(), &mut groups).unwrap();
        groups
    }

    #[test]
    fn integers_with_nulls_round_trip() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(5), Some(0), None]));
        let mut index = KeyIndex::new(&[DataType::Int64]).unwrap();
        assert_eq!(groups_of(&mut index, &[column]), vec![0, 1, 0, 2, 1]);
        let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(0)]));
        assert_eq!(&index.columns().unwrap()[0], &expected);
    }

    #[test]
    fn composite_keys_round_trip() {
        let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("y"), Some("x"), None]));
        let b: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 1, 2]));
        let mut index = KeyIndex::new(&[DataType::Utf8, DataType::Int64]).unwrap();
        assert_eq!(groups_of(&mut index, &[a, b]), vec![0, 1, 0, 2]);
        assert_eq!(index.len(), 3);
        let columns = index.columns().unwrap();
        let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("y"), None]));
        assert_eq!(&columns[0], &expected);
    }
}
