//! The keys of the two sides of a join, in a form in which they can be hashed and compared; and an index from a
//! key to the rows that have it.

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use mainstem_plan::operator::JoinOn;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::EngineError;
use crate::keys::{fits_integer, hash_integer, typed};
use crate::memory;

/// Which columns are the keys of either side.
pub(crate) struct KeyFormat {
    name: String,
    left: Vec<usize>,
    right: Vec<usize>,
    null_equal: Vec<bool>,
    shape: Shape,
}

enum Shape {
    /// Every row has the same key.
    Nothing,
    /// One column; the 64 bits are the key.
    Integer,
    /// Several columns that fit 64 bits each.
    Integers,
    /// Anything else, by Arrow's comparable rows.
    Rows(RowConverter),
}

/// The keys of a batch.
pub(crate) struct Keys {
    /// Equal for equal keys.
    ids: Vec<u64>,
    values: Values,
    /// Rows with a NULL that equals nothing; absent: none.
    never: Option<BooleanBuffer>,
}

/// What tells apart keys of the same id.
enum Values {
    /// Nothing need to.
    Exact,
    /// So many numbers for each row.
    Integers(usize, Vec<i64>),
    Rows(Rows),
}

impl KeyFormat {
    /// The keys of a join of the named operator.
    pub(crate) fn new(name: &str, on: &JoinOn) -> Result<Self, EngineError> {
        KeyFormat::of_pairs(name, on, &|_| true)
    }

    /// Only those pairs of keys (left and right column) for which `which` holds.
    pub(crate) fn of_pairs(
        name: &str,
        on: &JoinOn,
        which: &dyn Fn((usize, usize)) -> bool,
    ) -> Result<Self, EngineError> {
        let pairs = on.left_keys.iter().zip(&on.right_keys).zip(&on.null_equal);
        let pairs: Vec<_> = pairs.filter(|((left, right), _)| which((**left, **right))).collect();
        let types: Vec<DataType> =
            pairs.iter().map(|((left, _), _)| on.left_schema.field(**left).data_type().clone()).collect();
        let null_equal: Vec<bool> = pairs.iter().map(|(_, equal)| **equal).collect();
        let plain = types.iter().all(fits_integer) && !null_equal.contains(&true);
        let shape = match types.as_slice() {
            [] => Shape::Nothing,
            [_] if plain => Shape::Integer,
            _ if plain => Shape::Integers,
            _ => {
                let fields = types.into_iter().map(SortField::new).collect();
                Shape::Rows(RowConverter::new(fields).map_err(|e| EngineError::arrow(name, &e))?)
            }
        };
        let left = pairs.iter().map(|((left, _), _)| **left).collect();
        let right = pairs.iter().map(|((_, right), _)| **right).collect();
        Ok(KeyFormat { name: name.to_owned(), left, right, null_equal, shape })
    }

    /// The keys of rows of the left side.
    pub(crate) fn left(&self, rows: &RecordBatch) -> Result<Keys, EngineError> {
        self.keys(&self.left, rows).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// The keys of rows of the right side.
    pub(crate) fn right(&self, rows: &RecordBatch) -> Result<Keys, EngineError> {
        self.keys(&self.right, rows).map_err(|e| EngineError::arrow(&self.name, &e))
    }

    /// An index without rows, for rows of either side.
    pub(crate) fn index(&self) -> KeyIndex {
        let values = match &self.shape {
            Shape::Nothing | Shape::Integer => Values::Exact,
            Shape::Integers => Values::Integers(self.left.len(), Vec::new()),
            Shape::Rows(converter) => Values::Rows(converter.empty_rows(0, 0)),
        };
        KeyIndex { heads: HashTable::new(), next: Vec::new(), values }
    }

    fn keys(&self, columns: &[usize], rows: &RecordBatch) -> Result<Keys, ArrowError> {
        let columns: Vec<ArrayRef> = columns.iter().map(|column| rows.column(*column).clone()).collect();
        let never = self.never(&columns, rows.num_rows());
        let (ids, values) = match &self.shape {
            Shape::Nothing => (vec![0; rows.num_rows()], Values::Exact),
            Shape::Integer => {
                let integers = integers(&columns[0])?;
                (integers.iter().map(|value| *value as u64).collect(), Values::Exact)
            }
            Shape::Integers => {
                let width = columns.len();
                let mut values = vec![0; width * rows.num_rows()];
                for (at, column) in columns.iter().enumerate() {
                    let integers = integers(column)?;
                    values.chunks_exact_mut(width).zip(&integers).for_each(|(row, value)| row[at] = *value);
                }
                let id =
                    |row: &[i64]| row.iter().fold(0, |id: u64, value| hash_integer(id.rotate_left(23) as i64 ^ value));
                (values.chunks_exact(width).map(id).collect(), Values::Integers(width, values))
            }
            Shape::Rows(converter) => {
                let converted = converter.convert_columns(&columns)?;
                (converted.iter().map(|row| xxh3_64(row.as_ref())).collect(), Values::Rows(converted))
            }
        };
        Ok(Keys { ids, values, never })
    }

    fn never(&self, columns: &[ArrayRef], rows: usize) -> Option<BooleanBuffer> {
        let counted =
            columns.iter().zip(&self.null_equal).filter(|(column, equal)| !**equal && column.null_count() > 0);
        let nulls: Vec<_> = counted.filter_map(|(column, _)| column.logical_nulls()).collect();
        if nulls.is_empty() {
            return None;
        }
        let mut never = BooleanBufferBuilder::new(rows);
        (0..rows).for_each(|row| never.append(nulls.iter().any(|nulls| nulls.is_null(row))));
        Some(never.finish())
    }
}

fn integers(column: &ArrayRef) -> Result<Vec<i64>, ArrowError> {
    let integers = typed(column, &DataType::Int64)?;
    Ok(integers.as_primitive::<Int64Type>().values().to_vec())
}

impl Keys {
    /// Whether the row's key equals no key, because it is NULL.
    pub(crate) fn is_never_equal(&self, row: usize) -> bool {
        self.never.as_ref().is_some_and(|never| never.value(row))
    }
}

/// From keys to the rows that have them. Rows are numbered from 0 in the order in which they are added.
pub(crate) struct KeyIndex {
    /// Id of a key, and the last row that has it.
    heads: HashTable<(u64, u32)>,
    /// For each row the one before it with the same id.
    next: Vec<u32>,
    values: Values,
}

const NO_ROW: u32 = u32::MAX;

impl KeyIndex {
    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Exact => 0,
            Values::Integers(_, known) => memory::of_vec(known),
            Values::Rows(rows) => rows.size(),
        };
        self.heads.allocation_size() + memory::of_vec(&self.next) + values
    }

    /// Adds a row with the key of the given row of a batch.
    pub(crate) fn push(&mut self, keys: &Keys, row: usize) {
        let id = keys.ids[row];
        let number = u32::try_from(self.next.len()).expect("fewer rows than 2^32");
        match (&mut self.values, &keys.values) {
            (Values::Exact, Values::Exact) => {}
            (Values::Integers(width, known), Values::Integers(_, new)) => {
                known.extend_from_slice(&new[row * *width..(row + 1) * *width]);
            }
            (Values::Rows(known), Values::Rows(new)) => known.push(new.row(row)),
            _ => unreachable!("made by one format"),
        }
        match self.heads.entry(hash_integer(id as i64), |(known, _)| *known == id, |(id, _)| hash_integer(*id as i64)) {
            Entry::Occupied(mut known) => {
                self.next.push(known.get().1);
                known.get_mut().1 = number;
            }
            Entry::Vacant(free) => {
                free.insert((id, number));
                self.next.push(NO_ROW);
            }
        }
    }

    /// The rows that have the key of the given row of a batch, newest first.
    pub(crate) fn find<'a>(&'a self, keys: &'a Keys, row: usize) -> impl Iterator<Item = u32> + 'a {
        let id = keys.ids[row];
        let head = self.heads.find(hash_integer(id as i64), |(known, _)| *known == id).map(|(_, head)| *head);
        let following = |at: &u32| Some(self.next[*at as usize]).filter(|next| *next != NO_ROW);
        std::iter::successors(head, following).filter(move |at| match (&self.values, &keys.values) {
            (Values::Integers(width, known), Values::Integers(_, new)) => {
                let at = *at as usize;
                known[at * width..(at + 1) * width] == new[row * width..(row + 1) * width]
            }
            (Values::Rows(known), Values::Rows(new)) => known.row(*at as usize) == new.row(row),
            _ => true,
        })
    }
}
