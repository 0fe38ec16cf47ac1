//! One side of a join whose rows are also taken away, or of whose rows the number of partners matters: each distinct
//! row once, in Arrow's row format, with how often it is there.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, Rows, SortField};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::rings::{NONE, Rings};
use crate::expiry::Expiry;
use crate::memory;
use crate::slab::{Slab, Slot};

/// Rows of a batch of stored rows.
const STORED_ROWS_MAX: usize = 8192;

/// Columns behind those of the row in the state table: how often the row is there (0: it is gone), how many
/// partners it has, and when it was last changed (ms; only where rows have a time to live).
const STORED_COLUMNS: [&str; 3] = ["__count", "__partners", "__changed"];

/// The schema of the state table of rows with these columns.
pub(super) fn stored_schema(schema: &SchemaRef) -> SchemaRef {
    let row = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let added = STORED_COLUMNS.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, false)));
    Arc::new(Schema::new(row.chain(added).collect::<Vec<_>>()))
}

/// See the module. Rows are known by small numbers, which are given again after a row has gone.
pub(super) struct TableSide {
    stored_schema: SchemaRef,
    converter: RowConverter,
    parser: RowParser,
    /// A row of NULLs.
    nothing: Box<[u8]>,
    bytes: Slab,
    /// Hashes of rows, and the rows.
    index: HashTable<(u32, u32)>,
    pub(super) rings: Rings,
    entries: Vec<Entry>,
    free: Vec<u32>,
    live: usize,
    /// Rows that have changed since the last checkpoint.
    dirty: Vec<u32>,
    /// Rows that a checkpoint has and that are gone since.
    gone: Vec<Slot>,
    expiry: Expiry,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    slot: Slot,
    key: u32,
    hash: u32,
    /// How often the row is there; 0: the entry is free.
    count: u32,
    /// Rows of the other side that are its partners.
    partners: u32,
    /// Whether it is among the dirty ones.
    dirty: bool,
    /// Whether a checkpoint has it.
    stored: bool,
}

impl TableSide {
    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.bytes()
            + self.index.allocation_size()
            + self.rings.bytes()
            + memory::of_vec(&self.entries)
            + memory::of_vec(&self.free)
            + memory::of_vec(&self.dirty)
            + memory::of_vec(&self.gone)
            + self.expiry.bytes()
    }

    /// A side without rows. `ttl_ms`: rows that do not change for so long are forgotten.
    pub(super) fn new(schema: &SchemaRef, ttl_ms: Option<u64>) -> Result<TableSide, ArrowError> {
        // A row format needs at least one column; a constant stands in for none.
        let types = match schema.fields().is_empty() {
            true => vec![DataType::Null],
            false => schema.fields().iter().map(|field| field.data_type().clone()).collect(),
        };
        let nulls: Vec<ArrayRef> = types.iter().map(|data_type| arrow::array::new_null_array(data_type, 1)).collect();
        let converter = RowConverter::new(types.into_iter().map(SortField::new).collect())?;
        let nothing = converter.convert_columns(&nulls)?.row(0).as_ref().into();
        let parser = converter.parser();
        Ok(TableSide {
            stored_schema: stored_schema(schema),
            converter,
            parser,
            nothing,
            bytes: Slab::default(),
            index: HashTable::new(),
            rings: Rings::new(true),
            entries: Vec::new(),
            free: Vec::new(),
            live: 0,
            dirty: Vec::new(),
            gone: Vec::new(),
            expiry: Expiry::new(ttl_ms),
        })
    }

    /// Number of distinct rows.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The rows of a batch in the form in which they are kept.
    pub(super) fn rows_of(&self, columns: &[ArrayRef], rows: usize) -> Result<Rows, ArrowError> {
        match columns {
            [] => self.converter.convert_columns(&[Arc::new(arrow::array::NullArray::new(rows))]),
            columns => self.converter.convert_columns(columns),
        }
    }

    /// How often the row is there.
    pub(super) fn count(&self, row: u32) -> u32 {
        self.entries[row as usize].count
    }

    /// The key of the row.
    pub(super) fn key(&self, row: u32) -> u32 {
        self.entries[row as usize].key
    }

    /// How many partners the row has.
    pub(super) fn partners(&self, row: u32) -> u32 {
        self.entries[row as usize].partners
    }

    /// Sets how many partners the row has.
    pub(super) fn set_partners(&mut self, row: u32, partners: u32) {
        self.entries[row as usize].partners = partners;
        self.mark(row);
    }

    /// The number of a row.
    pub(super) fn find(&self, row: &[u8]) -> Option<u32> {
        let hash = short_hash(row);
        let same = |(known, at): &(u32, u32)| *known == hash && self.bytes.get(self.entries[*at as usize].slot) == row;
        self.index.find(spread(hash), same).map(|(_, at)| *at)
    }

    /// Adds a row once more, at the time `now` (ms). `partners` counts where it was not there before.
    pub(super) fn add(&mut self, key: u32, row: &[u8], partners: u32, now: i64) -> Result<u32, ArrowError> {
        let at = match self.find(row) {
            Some(at) => {
                let entry = &mut self.entries[at as usize];
                entry.count = entry.count.checked_add(1).ok_or_else(|| full("copies of one row"))?;
                at
            }
            None => self.insert(key, row, 1, partners)?,
        };
        self.mark(at);
        self.expiry.touch(at, now);
        Ok(at)
    }

    /// Takes a row away once, at the time `now` (ms); the row may be gone afterwards.
    pub(super) fn take(&mut self, at: u32, now: i64) {
        let entry = &mut self.entries[at as usize];
        entry.count -= 1;
        if entry.count > 0 {
            self.mark(at);
            self.expiry.touch(at, now);
        } else {
            let (slot, stored) = (entry.slot, entry.stored);
            self.remove(at);
            // A checkpoint that has the row must hear of it.
            if stored { self.gone.push(slot) } else { self.bytes.remove(slot) }
        }
    }

    fn insert(&mut self, key: u32, row: &[u8], count: u32, partners: u32) -> Result<u32, ArrowError> {
        let slot = self.bytes.insert(row).ok_or_else(|| full("64 GiB of rows"))?;
        let hash = short_hash(row);
        let entry = Entry { slot, key, hash, count, partners, dirty: false, stored: false };
        let at = match self.free.pop() {
            Some(at) => {
                // An entry that was dirty when it was freed is still among the dirty ones.
                let dirty = self.entries[at as usize].dirty;
                self.entries[at as usize] = Entry { dirty, ..entry };
                at
            }
            None => {
                let at = u32::try_from(self.entries.len()).ok().filter(|at| *at != NONE);
                self.entries.push(entry);
                at.ok_or_else(|| full("rows"))?
            }
        };
        self.index.insert_unique(spread(hash), (hash, at), |(hash, _)| spread(*hash));
        self.rings.push(key, at);
        self.live += 1;
        Ok(at)
    }

    /// Takes the row out of everything but its bytes.
    fn remove(&mut self, at: u32) {
        let Entry { key, hash, .. } = self.entries[at as usize];
        if let Ok(known) = self.index.find_entry(spread(hash), |(_, known)| *known == at) {
            known.remove();
        }
        self.rings.remove(key, at);
        self.entries[at as usize].count = 0;
        self.expiry.forget(at);
        self.free.push(at);
        self.live -= 1;
    }

    fn mark(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(at);
        }
    }

    /// Forgets the rows whose time is over at `now` (ms); gives their keys.
    pub(super) fn expire(&mut self, now: i64) -> Vec<u32> {
        let expired = self.expiry.expire(now).into_iter().map(|at| {
            let Entry { key, slot, .. } = self.entries[at as usize];
            self.remove(at);
            self.bytes.remove(slot);
            key
        });
        expired.collect()
    }

    /// The columns of rows, in that order; NULLs for [`NONE`].
    pub(super) fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        let bytes = rows.iter().map(|at| match *at {
            NONE => &*self.nothing,
            at => self.bytes.get(self.entries[at as usize].slot),
        });
        self.columns_of(bytes)
    }

    fn columns_of<'a>(&'a self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut columns = self.converter.convert_rows(rows.map(|bytes| self.parser.parse(bytes)))?;
        columns.truncate(self.width());
        Ok(columns)
    }

    /// Number of columns of a row.
    pub(super) fn width(&self) -> usize {
        self.stored_schema.fields().len() - STORED_COLUMNS.len()
    }

    /// Ends the epoch: all rows if `whole`, else what has changed since the last call, as rows of the state table.
    pub(super) fn capture(&mut self, whole: bool) -> Result<Vec<RecordBatch>, ArrowError> {
        let gone = std::mem::take(&mut self.gone);
        let dirty = std::mem::take(&mut self.dirty);
        for at in &dirty {
            self.entries[*at as usize].dirty = false;
        }
        let alive = |at: &u32| self.entries[*at as usize].count > 0;
        let rows: Vec<u32> = match whole {
            true => self.rings.keys().flat_map(|key| self.rings.rows(key)).collect(),
            false => dirty.into_iter().filter(alive).collect(),
        };
        let mut stored = Vec::new();
        if !whole {
            for slots in gone.chunks(STORED_ROWS_MAX) {
                let columns = self.columns_of(slots.iter().map(|slot| self.bytes.get(*slot)))?;
                let zeros = || -> ArrayRef { Arc::new(Int64Array::from(vec![0; slots.len()])) };
                stored.push(self.stored(columns, [zeros(), zeros(), zeros()])?);
            }
        }
        for rows in rows.chunks(STORED_ROWS_MAX) {
            let number = |of: &dyn Fn(u32) -> i64| -> ArrayRef {
                Arc::new(rows.iter().map(|at| of(*at)).collect::<Int64Array>())
            };
            let changed = |at: u32| self.expiry.changed(at);
            let added =
                [number(&|at| i64::from(self.count(at))), number(&|at| i64::from(self.partners(at))), number(&changed)];
            stored.push(self.stored(self.columns(rows)?, added)?);
        }
        gone.into_iter().for_each(|slot| self.bytes.remove(slot));
        for at in rows {
            self.entries[at as usize].stored = true;
        }
        Ok(stored)
    }

    fn stored(&self, mut columns: Vec<ArrayRef>, added: [ArrayRef; 3]) -> Result<RecordBatch, ArrowError> {
        columns.extend(added);
        RecordBatch::try_new(self.stored_schema.clone(), columns)
    }

    /// Takes back rows of the state table, whose keys have these numbers.
    pub(super) fn restore(&mut self, stored: &RecordBatch, keys: &[u32]) -> Result<(), ArrowError> {
        let width = self.width();
        let rows = self.rows_of(&stored.columns()[..width], stored.num_rows())?;
        let [counts, partners, changed] =
            [0, 1, 2].map(|column| stored.column(width + column).as_primitive::<Int64Type>());
        for (position, row) in rows.iter().enumerate() {
            let known = self.find(row.as_ref());
            let count = u32::try_from(counts.value(position)).unwrap_or(0);
            let partners = u32::try_from(partners.value(position)).unwrap_or(0);
            let at = match (known, count) {
                (None, 0) => continue,
                (Some(at), 0) => {
                    let slot = self.entries[at as usize].slot;
                    self.remove(at);
                    self.bytes.remove(slot);
                    continue;
                }
                (Some(at), _) => at,
                (None, _) => self.insert(keys[position], row.as_ref(), count, partners)?,
            };
            let entry = &mut self.entries[at as usize];
            (entry.count, entry.partners, entry.stored) = (count, partners, true);
            self.expiry.touch(at, changed.value(position));
        }
        Ok(())
    }
}

fn full(what: &str) -> ArrowError {
    ArrowError::MemoryError(format!(
        "one side of the join has too much state for one subtask ({what}); raise the parallelism or set a time to live"
    ))
}

fn short_hash(row: &[u8]) -> u32 {
    let hash = xxh3_64(row);
    (hash >> 32) as u32 ^ hash as u32
}

/// The hash in 64 bits, all of which depend on all of it.
fn spread(hash: u32) -> u64 {
    crate::keys::hash_integer(i64::from(hash))
}
