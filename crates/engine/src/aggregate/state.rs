//! The state of an aggregation in checkpoints: a table of groups, with the aggregates that have a fixed size, and a
//! table for each collection of values. A group that is gone is a row that says so, and takes everything with it
//! that earlier files say of it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion_common::{DataFusionError, Result};

use super::GroupAggregate;
use super::accumulator::take;
use super::calls::numbered;
use crate::delta_files::DeltaFiles;
use crate::error::EngineError;
use crate::merging::MergeRule;
use crate::operator::{Capture, Restored, TableRows};

/// Name and version of the table of groups: the keys, number of rows, time of the last change (ms), whether the
/// group is there, then the aggregates.
const GROUPS: (&str, u32) = ("groups", 1);
/// Version of the tables of values: the keys, then the collection's columns.
const VALUES_VERSION: u32 = 1;
/// Names of the tables of values; an operator has fewer calls.
static VALUES: LazyLock<Vec<String>> = LazyLock::new(|| (0..1024).map(|number| format!("values {number}")).collect());

/// The files of a state whose groups have so many keys. `collections`: there are tables of values, which a row of
/// another table may take away.
pub(super) fn files(keys: usize, collections: bool) -> DeltaFiles {
    if collections {
        return DeltaFiles::default();
    }
    let key: Vec<usize> = (0..keys).collect();
    let present = Some(keys + 2);
    DeltaFiles::merged_by(vec![MergeRule {
        name: GROUPS.0,
        version: GROUPS.1,
        identity: Some(key.clone()),
        key,
        present,
    }])
}

impl GroupAggregate {
    /// See [`crate::expiry`].
    pub(super) fn expire(&mut self) {
        if let Some(ttl) = self.spec.ttl_ms {
            let until = self.context.now_ms().saturating_sub(i64::try_from(ttl).unwrap_or(i64::MAX));
            let calls = &mut self.calls;
            self.groups.expire(until, |slot| calls.reset(slot));
        }
    }

    fn key_fields(&self) -> Vec<Field> {
        numbered("key", &super::types_of(&self.spec.input_schema, &self.spec.keys))
    }

    /// Ends the epoch.
    pub(super) fn capture_state(&mut self) -> std::result::Result<Capture, EngineError> {
        self.expire();
        let live = self.index.len() + self.calls.collections().map(|values| values.len()).sum::<usize>();
        let whole = self.files.wants_whole_state(live);
        let tables = self.capture_tables(whole).map_err(|e| self.failed(&e))?;
        Ok(self.files.capture(whole, tables, String::new()))
    }

    fn capture_tables(&mut self, whole: bool) -> Result<Vec<TableRows>> {
        let changed = self.groups.take_changed();
        let gone: Vec<u32> = changed.iter().copied().filter(|slot| !self.groups.is_present(*slot)).collect();
        let written = if whole { self.groups.present() } else { changed };
        let mut tables = vec![TableRows {
            name: GROUPS.0,
            version: GROUPS.1,
            key: (0..self.spec.keys.len()).collect(),
            rows: self.group_rows(&written)?,
        }];
        let key_fields = self.key_fields();
        let groups = &self.groups;
        for (number, values) in self.calls.collections().enumerate() {
            let name = VALUES.get(number).ok_or_else(|| {
                DataFusionError::ResourcesExhausted(format!("more than {} aggregates keep values", VALUES.len()))
            })?;
            let (slots, columns) = values.capture(whole, &|slot| groups.is_present(slot))?;
            let mut rows = Vec::new();
            if !slots.is_empty() {
                let fields = key_fields.iter().cloned().chain(numbered("value", &values.types()));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let columns = self.index.columns(&slots)?.into_iter().chain(columns).collect();
                rows.push(RecordBatch::try_new(schema, columns)?);
            }
            tables.push(TableRows { name, version: VALUES_VERSION, key: (0..key_fields.len()).collect(), rows });
        }
        // Only now: until it is written that a group is gone, its slot must tell which.
        for slot in gone {
            self.groups.forget(slot);
            self.index.remove(slot);
        }
        Ok(tables)
    }

    fn group_rows(&mut self, slots: &[u32]) -> Result<Vec<RecordBatch>> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let lives = || slots.iter().map(|slot| self.groups.life(*slot));
        let mut columns = self.index.columns(slots)?;
        columns.push(Arc::new(Int64Array::from_iter_values(lives().map(|(rows, _)| rows))));
        columns.push(Arc::new(Int64Array::from_iter_values(lives().map(|(_, changed_ms)| changed_ms))));
        let present: BooleanArray = slots.iter().map(|slot| Some(self.groups.is_present(*slot))).collect();
        columns.push(Arc::new(present));
        columns.extend(self.calls.state(slots)?);
        let mut fields = self.key_fields();
        fields.push(Field::new("rows", DataType::Int64, false));
        fields.push(Field::new("changed_ms", DataType::Int64, false));
        fields.push(Field::new("present", DataType::Boolean, false));
        fields.extend(numbered("state", &self.calls.state_types()));
        Ok(vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?])
    }

    /// Takes a file back.
    pub(super) fn restore_state(&mut self, state: Restored) -> std::result::Result<(), EngineError> {
        let mut count = 0;
        self.reserve(state.count(GROUPS.0));
        for rows in state.rows(GROUPS.0, GROUPS.1) {
            let rows = rows?;
            count += rows.num_rows();
            self.restore_groups(&rows).map_err(|e| self.failed(&e))?;
        }
        for (number, name) in VALUES.iter().enumerate().take(self.calls.collections().count()) {
            for rows in state.rows(name, VALUES_VERSION) {
                let rows = rows?;
                count += rows.num_rows();
                self.restore_values(number, &rows).map_err(|e| self.failed(&e))?;
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }

    /// A file with so many groups is about to be taken back. Where they may be new for the most part, there is room for just
    /// them, instead of what doubles again and again.
    fn reserve(&mut self, groups: usize) {
        if groups >= self.index.len() {
            self.index.reserve(groups);
            self.groups.reserve(groups);
            self.calls.reserve(groups);
        }
    }

    fn slots_of(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut slots = Vec::with_capacity(rows);
        self.index.intern(keys, rows, |_| Some(0), |_, slot, _| slots.push(slot))?;
        self.groups.grow(self.index.slots());
        self.calls.grow(self.index.slots());
        Ok(slots)
    }

    fn restore_groups(&mut self, rows: &RecordBatch) -> Result<()> {
        let (keys, rest) = rows.columns().split_at(self.spec.keys.len());
        let slots = self.slots_of(keys, rows.num_rows())?;
        let (row_counts, changed_ms) = (rest[0].as_primitive::<Int64Type>(), rest[1].as_primitive::<Int64Type>());
        let present = rest[2].as_boolean();
        let (there, gone): (Vec<u32>, Vec<u32>) =
            (0..rows.num_rows() as u32).partition(|row| present.value(*row as usize));
        let restored: Vec<u32> = there.iter().map(|row| slots[*row as usize]).collect();
        for (row, slot) in there.iter().zip(&restored) {
            self.groups.restore(*slot, row_counts.value(*row as usize), changed_ms.value(*row as usize));
        }
        match gone.is_empty() {
            true => self.calls.restore(&restored, &rest[3..])?,
            false => self.calls.restore(&restored, &take(&rest[3..], &UInt32Array::from(there))?)?,
        }
        for row in gone {
            let slot = slots[row as usize];
            self.calls.reset(slot);
            self.groups.forget(slot);
            self.index.remove(slot);
        }
        Ok(())
    }

    fn restore_values(&mut self, number: usize, rows: &RecordBatch) -> Result<()> {
        let (keys, columns) = rows.columns().split_at(self.spec.keys.len());
        let slots = self.slots_of(keys, rows.num_rows())?;
        if let Some(slot) = slots.iter().find(|slot| !self.groups.is_present(**slot)) {
            return Err(DataFusionError::Internal(format!("values of a group that is not there ({slot})")));
        }
        let values = self.calls.collections().nth(number).expect("the caller counted them");
        values.restore(&slots, columns)
    }

    /// What restoring has changed is in files already.
    pub(super) fn forget_changes(&mut self) -> std::result::Result<(), EngineError> {
        let settled = self.calls.collections().try_for_each(|values| values.capture(false, &|_| false).map(|_| ()));
        settled.map_err(|e| self.failed(&e))
    }
}
