//! The versions of the rows of a table, by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::{HashMap, HashSet};

use crate::join::kept_rows::KeptRows;
use crate::memory;

/// Rows of versions that are gone are tolerated up to so many beside as many as there are versions.
const DEAD_ROWS_MAX: usize = 1 << 14;

/// A time at which only what is deleted is not there any more.
pub(super) const NEWEST: i64 = i64::MAX - 1;

/// What a row was from a time on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    /// Its number in the store.
    pub(super) row: u32,
    /// From when it is valid (ms).
    pub(super) time: i64,
    /// Left rows before that time do not see it: its time, or later where it came behind its split's watermark.
    pub(super) counts_from: i64,
    /// Left rows from that time on do not see it.
    pub(super) counts_until: i64,
    /// Whether the row was deleted then.
    pub(super) deleted: bool,
}

/// Reads keys as bytes that are equal for equal keys.
pub(super) struct KeyBytes {
    columns: Vec<usize>,
    null_equal: Vec<bool>,
    converter: RowConverter,
}

/// The keys of a batch.
pub(super) struct BatchKeys {
    rows: Rows,
    never: Vec<bool>,
}

impl KeyBytes {
    /// For key columns at the given positions; at least one.
    pub(super) fn new(schema: &Schema, columns: &[usize], null_equal: &[bool]) -> Result<Self, ArrowError> {
        let fields = columns.iter().map(|column| SortField::new(schema.field(*column).data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        Ok(KeyBytes { columns: columns.to_vec(), null_equal: null_equal.to_vec(), converter })
    }

    pub(super) fn of(&self, rows: &RecordBatch) -> Result<BatchKeys, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let mut never = Vec::new();
        for (column, _) in columns.iter().zip(&self.null_equal).filter(|(c, equal)| !**equal && c.null_count() > 0) {
            never.resize(rows.num_rows(), false);
            never.iter_mut().enumerate().for_each(|(row, never)| *never |= column.is_null(row));
        }
        Ok(BatchKeys { rows: self.converter.convert_columns(&columns)?, never })
    }
}

impl BatchKeys {
    /// The key of a row.
    pub(super) fn of(&self, row: usize) -> &[u8] {
        self.rows.row(row).data()
    }

    /// Whether it equals no key, because it is NULL.
    pub(super) fn is_never_equal(&self, row: usize) -> bool {
        self.never.get(row).copied().unwrap_or(false)
    }
}

/// See the module.
pub(super) struct Versions {
    schema: SchemaRef,
    store: KeptRows,
    /// Versions of each key by time, those of one time as they came; never empty.
    by_key: HashMap<Arc<[u8]>, Vec<Version>>,
    /// Keys that have something to release when the watermark is just before the time.
    due: BTreeMap<i64, Vec<Arc<[u8]>>>,
    live: usize,
}

impl Versions {
    /// Bytes of memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let of_key = |(key, versions): (&Arc<[u8]>, &Vec<Version>)| {
            key.len() + memory::ARC + memory::SMALL + memory::of_vec(versions)
        };
        let by_key = self.by_key.allocation_size() + memory::of_sampled(self.by_key.len(), self.by_key.iter(), of_key);
        let due = memory::of_sampled(self.due.len(), self.due.values(), memory::of_vec);
        self.store.bytes() + by_key + memory::of_tree(&self.due) + due
    }

    pub(super) fn new(schema: SchemaRef) -> Self {
        let store = KeptRows::new(schema.clone());
        Versions { schema, store, by_key: HashMap::new(), due: BTreeMap::new(), live: 0 }
    }

    /// Number of versions.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Stores rows and gives the number of the first.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<u32, ArrowError> {
        let first = self.store.len();
        self.store.push(rows).map(|()| first)
    }

    /// The columns of stored rows; NULLs for none.
    pub(super) fn columns(&self, rows: &[Option<u32>]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.store.columns(rows)
    }

    fn key(&self, key: &[u8]) -> Arc<[u8]> {
        self.by_key.get_key_value(key).map_or_else(|| Arc::from(key), |(known, _)| known.clone())
    }

    /// Adds a version beside the others of its key.
    pub(super) fn add(&mut self, key: &[u8], version: Version) {
        let key = self.key(key);
        let of_key = self.by_key.entry(key.clone()).or_default();
        if version.counts_from > version.time {
            // The split's watermark would have released a deletion with all before it, and the operator's may have
            // done so or not: for the rows that see the late version they are gone (I6).
            let counts =
                |other: &Version| other.counts_from <= version.counts_from && version.counts_from < other.counts_until;
            let last = of_key.iter().rposition(counts);
            if let Some(last) = last.filter(|last| of_key[*last].deleted) {
                let gone = of_key[..=last].iter_mut();
                gone.for_each(|other| other.counts_until = other.counts_until.min(version.counts_from));
            }
        }
        let at = of_key.partition_point(|other| other.time <= version.time);
        of_key.insert(at, version);
        self.live += 1;
        // Both this one and one that was there may be the newer of two; a deletion goes when it has done its work.
        if of_key.len() > 1 || version.deleted {
            self.due.entry(version.counts_from).or_default().push(key.clone());
            if let Some(after) = of_key.get(at + 1) {
                self.due.entry(after.counts_from).or_default().push(key);
            }
        }
    }

    /// Puts a version in the place of all others of its key.
    pub(super) fn replace(&mut self, key: &[u8], version: Version) {
        if version.deleted {
            self.live -= usize::from(self.by_key.remove(key).is_some());
        } else if let Some(known) = self.by_key.get_mut(key) {
            known[0] = version;
        } else {
            self.by_key.insert(Arc::from(key), vec![version]);
            self.live += 1;
        }
    }

    /// The row that is valid at a time.
    pub(super) fn at(&self, key: &[u8], time: i64) -> Option<u32> {
        let of_key = self.by_key.get(key)?;
        // No version counts before its time.
        let of_key = &of_key[..of_key.partition_point(|version| version.time <= time)];
        let version = of_key.iter().rev().find(|version| version.counts_from <= time && time < version.counts_until)?;
        (!version.deleted).then_some(version.row)
    }

    /// Forgets the versions that no row after the watermark can need: those before one that counts for all of
    /// them.
    pub(super) fn release(&mut self, watermark: i64) {
        let next = watermark.saturating_add(1);
        // A key once, however many of its versions are due: there may be many where the left side is behind.
        let mut keys = HashSet::new();
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= next
        {
            keys.extend(entry.remove());
        }
        for key in keys {
            let Some(of_key) = self.by_key.get_mut(&key) else { continue };
            let before = of_key.len();
            of_key.retain(|version| version.counts_until > next);
            if let Some(needed) = of_key.iter().rposition(|version| version.counts_from <= next) {
                let Version { counts_until, deleted, .. } = of_key[needed];
                let first_needed = if deleted { needed + 1 } else { needed };
                let mut at = 0;
                of_key.retain(|version| {
                    at += 1;
                    at > first_needed || version.counts_from >= counts_until
                });
            }
            self.live -= before - of_key.len();
            if of_key.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// Rewrites the store when most of what it holds is dead.
    pub(super) fn tidy(&mut self) -> Result<(), ArrowError> {
        if self.store.len() as usize <= 2 * self.live + DEAD_ROWS_MAX {
            return Ok(());
        }
        let mut numbers = Vec::with_capacity(self.live);
        for version in self.by_key.values_mut().flatten() {
            numbers.push(Some(version.row));
            version.row = numbers.len() as u32 - 1;
        }
        let mut store = KeptRows::new(self.schema.clone());
        for piece in numbers.chunks(1 << 13) {
            store.push(&RecordBatch::try_new(self.schema.clone(), self.store.columns(piece)?)?)?;
        }
        self.store = store;
        Ok(())
    }

    /// All versions, those of one key in order.
    pub(super) fn all(&self) -> Result<(RecordBatch, Vec<Version>), ArrowError> {
        let mut keys: Vec<_> = self.by_key.iter().collect();
        // Equal states should give equal files.
        keys.sort_unstable_by_key(|(key, _)| (*key).clone());
        let versions: Vec<Version> = keys.into_iter().flat_map(|(_, of_key)| of_key).copied().collect();
        let rows: Vec<Option<u32>> = versions.iter().map(|version| Some(version.row)).collect();
        Ok((RecordBatch::try_new(self.schema.clone(), self.store.columns(&rows)?)?, versions))
    }
}
