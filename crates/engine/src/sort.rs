//! Rows in an order. By event time they leave when the watermark has passed them; by any other order when the input
//! ends. Rows that the input takes away again never leave. Runs as one subtask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::Sort as Spec;
use serde::{Deserialize, Serialize};

use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::late::DroppedRows;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored, TableRows};
use crate::row_codec::{RowBytes, RowCodec};

/// Name and version of the table of rows that wait: the input's columns, then how many equal rows there are
/// (Int64; 0: none any more).
const ROWS: (&str, u32) = ("waiting", 1);
/// Rows of a batch that is given.
const GIVE_ROWS: usize = 8192;

/// A row that waits, behind the time (ms) at which it may leave; without event time, behind 0.
type Key = (i64, RowBytes);

/// State that is not keyed.
#[derive(Default, Serialize, Deserialize)]
struct Meta {
    /// The watermark (ms) up to which rows have left.
    watermark: i64,
    /// Rows that have left or were skipped.
    passed: u64,
}

/// See the module.
pub(crate) struct Sort {
    name: String,
    spec: Spec,
    schema: SchemaRef,
    dropped: DroppedRows,
    codec: RowCodec,
    /// Rows that wait, with how many equal ones there are.
    rows: BTreeMap<Key, u64>,
    /// How many rows wait, equal ones too.
    waiting: u64,
    watermark: i64,
    passed: u64,
    /// Rows whose number has changed since the last checkpoint.
    dirty: BTreeSet<Key>,
    files: DeltaFiles,
}

impl Sort {
    /// An operator over rows with the columns of `schema`, without state.
    pub(crate) fn new(name: &str, spec: &Spec, schema: SchemaRef, dropped: DroppedRows) -> Result<Self, EngineError> {
        let codec = RowCodec::new(&schema, &spec.order).map_err(|e| EngineError::arrow(name, &e))?;
        Ok(Sort {
            name: name.to_owned(),
            spec: spec.clone(),
            schema,
            dropped,
            codec,
            rows: BTreeMap::new(),
            waiting: 0,
            watermark: i64::MIN,
            passed: 0,
            dirty: BTreeSet::new(),
            files: DeltaFiles::default(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    /// One behind the number of the last row that leaves.
    fn end(&self) -> u64 {
        self.spec.limit.map_or(u64::MAX, |limit| self.spec.offset.saturating_add(limit))
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Vec<Key>, EngineError> {
        let encoded = self.codec.encode(rows).map_err(|e| self.failed(&e))?;
        if !self.spec.by_event_time {
            return Ok(encoded.into_iter().map(|row| (0, row)).collect());
        }
        let times = event_times(&self.name, rows, self.spec.order[0].column)?;
        Ok(times.values().iter().copied().zip(encoded).collect())
    }

    fn set(&mut self, key: Key, count: u64) {
        let before = if count == 0 { self.rows.remove(&key) } else { self.rows.insert(key, count) };
        self.waiting = self.waiting + count - before.unwrap_or(0);
    }

    /// Lets go of rows behind the last one that can leave.
    fn drop_surplus(&mut self) {
        let wanted = self.end().saturating_sub(self.passed);
        while !self.spec.input_retracts && self.waiting > wanted {
            let Some((key, count)) = self.rows.last_key_value().map(|(key, count)| (key.clone(), *count)) else {
                return;
            };
            let surplus = count.min(self.waiting - wanted);
            self.set(key, count - surplus);
        }
    }

    /// Which rows have come too late; they are counted and dropped.
    fn late(&self, batch: &StreamBatch, keys: &[Key], out: &mut Collector) -> Result<Vec<bool>, EngineError> {
        if !self.spec.by_event_time {
            return Ok(vec![false; keys.len()]);
        }
        let own = |row: usize| batch.own_watermark.as_ref().map_or(i64::MIN, |own| own.value(row)).max(self.watermark);
        let is_late: Vec<bool> = keys.iter().enumerate().map(|(row, (time, _))| *time <= own(row)).collect();
        let late: Vec<u32> = (0..keys.len()).filter(|row| is_late[*row]).map(|row| row as u32).collect();
        let judged = Int64Array::from_iter_values((0..keys.len()).map(own));
        self.dropped.late.take(batch, self.spec.order[0].column, &judged, &late, out)?;
        Ok(is_late)
    }

    fn stored(&self, rows: &[(RowBytes, u64)]) -> Result<Vec<RecordBatch>, EngineError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut fields: Vec<Arc<Field>> = self.schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("__count", DataType::Int64, false)));
        let mut columns = self.codec.decode(rows.iter().map(|(row, _)| row)).map_err(|e| self.failed(&e))?;
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, count)| *count as i64))));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| self.failed(&e))?;
        Ok(vec![batch])
    }
}

impl Operator for Sort {
    fn state_bytes(&self) -> usize {
        let of_row = |(_, row): &Key| row.len() + memory::ARC;
        let rows = memory::of_tree(&self.rows) + memory::of_sampled(self.rows.len(), self.rows.keys(), of_row);
        rows + memory::of_tree_len::<Key, ()>(self.dirty.len())
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let keys = self.keys(&batch.rows)?;
        let late = self.late(&batch, &keys, out)?;
        for (position, key) in keys.into_iter().enumerate() {
            let known = self.rows.get(&key).copied().unwrap_or(0);
            let adds = batch.is_addition(position);
            if late[position] {
                continue;
            }
            if !adds && known == 0 {
                self.dropped.unmatched.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.dirty.insert(key.clone());
            self.set(key, if adds { known + 1 } else { known - 1 });
        }
        self.drop_surplus();
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        let until = if self.spec.by_event_time { watermark.0 } else { 0 };
        let may_leave = self.spec.by_event_time || watermark == Timestamp::MAX;
        let end = self.end();
        let mut given: Vec<RowBytes> = Vec::new();
        while may_leave
            && given.len() < GIVE_ROWS
            && let Some(entry) = self.rows.first_entry()
            && entry.key().0 <= until
        {
            let ((time, row), count) = entry.remove_entry();
            self.waiting -= count;
            // Equal rows leave together.
            for _ in 0..count {
                if (self.spec.offset..end).contains(&self.passed) {
                    given.push(row.clone());
                }
                self.passed += 1;
            }
            self.dirty.remove(&(time, row));
        }
        let is_done = !may_leave || self.rows.first_key_value().is_none_or(|((time, _), _)| *time > until);
        for piece in given.chunks(GIVE_ROWS) {
            let columns = self.codec.decode(piece.iter()).map_err(|e| self.failed(&e))?;
            let count = arrow::array::RecordBatchOptions::new().with_row_count(Some(piece.len()));
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &count);
            out.main.push(StreamBatch::on_time(rows.map_err(|e| self.failed(&e))?));
        }
        if !is_done {
            return Ok(Release::Continue);
        }
        self.watermark = self.watermark.max(watermark.0);
        Ok(Release::Done)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let dirty = std::mem::take(&mut self.dirty);
        let whole = self.files.wants_whole_state(self.rows.len());
        let rows: Vec<(RowBytes, u64)> = match whole {
            true => self.rows.iter().map(|((_, row), count)| (row.clone(), *count)).collect(),
            false => {
                let count = |key: &Key| self.rows.get(key).copied().unwrap_or(0);
                dirty.iter().map(|key| (key.1.clone(), count(key))).collect()
            }
        };
        let rows = self.stored(&rows)?;
        let table = TableRows { name: ROWS.0, version: ROWS.1, key: Vec::new(), rows };
        let meta = Meta { watermark: self.watermark, passed: self.passed };
        let meta = serde_json::to_string(&meta).map_err(|e| EngineError::Bug(format!("sort state: {e}")))?;
        Ok(Some(self.files.capture(whole, vec![table], meta)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        // One subtask has all the rows; the others have seen the same watermarks.
        let metas = metas.iter().map(|meta| serde_json::from_str::<Meta>(meta)).collect::<Result<Vec<_>, _>>();
        let metas = metas.map_err(|e| EngineError::Bug(format!("sort state cannot be read: {e}")))?;
        self.watermark = metas.iter().map(|meta| meta.watermark).min().unwrap_or(i64::MIN);
        self.passed = metas.iter().map(|meta| meta.passed).max().unwrap_or(0);
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let width = self.schema.fields().len();
        let mut restored = 0;
        for stored in state.rows(ROWS.0, ROWS.1) {
            let stored = stored?;
            restored += stored.num_rows();
            let rows = RecordBatch::try_new(self.schema.clone(), stored.columns()[..width].to_vec());
            let keys = self.keys(&rows.map_err(|e| self.failed(&e))?)?;
            let counts = stored.column(width).as_primitive::<Int64Type>();
            for (key, count) in keys.into_iter().zip(counts.values()) {
                let has_left =
                    if self.spec.by_event_time { key.0 <= self.watermark } else { self.watermark == i64::MAX };
                if !has_left {
                    self.set(key, u64::try_from(*count).unwrap_or(0));
                }
            }
        }
        self.files.restored(state.handle, restored);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.drop_surplus();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
