//! The first rows of each partition to arrive, of an input that only inserts. What was given stays: no row is
//! kept, only how many each partition has had.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, Rank};

use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::expiry::Expiry;
use crate::memory;
use crate::merging::MergeRule;
use crate::operator::{Capture, Collector, Operator, Restored, TableRows};
use crate::partitions::Partitions;

/// Name and version of the table of counts: the partition's columns, the number of its rows that have come (Int64;
/// 0: it is forgotten), the time of the epoch in which it last changed (Int64, ms).
const COUNTS: (&str, u32) = ("counts", 1);

/// See the module.
pub(crate) struct FirstRows {
    name: String,
    rank: Rank,
    schema: SchemaRef,
    context: EvalContext,
    partitions: Partitions,
    /// Rows that have come, at most `rank.to`; by slot.
    counts: Vec<u64>,
    /// Slots that have changed since the last checkpoint; whether a slot is among them.
    changed: Vec<u32>,
    is_changed: Vec<bool>,
    expiry: Expiry,
    files: DeltaFiles,
}

impl FirstRows {
    /// An operator without state. `op` is the operator of the plan with the specification `rank`.
    pub(crate) fn new(name: &str, rank: &Rank, op: &Spec, context: &EvalContext) -> Result<Self, EngineError> {
        let types = rank.partition.iter().map(|column| rank.input_schema.field(*column).data_type().clone());
        let partitions = Partitions::new(&types.collect::<Vec<_>>());
        Ok(FirstRows {
            name: name.to_owned(),
            schema: op.schema.clone(),
            context: context.clone(),
            partitions: partitions.map_err(|e| EngineError::arrow(name, &e))?,
            counts: Vec::new(),
            changed: Vec::new(),
            is_changed: Vec::new(),
            expiry: Expiry::new(rank.ttl_ms),
            files: DeltaFiles::merged_by(vec![MergeRule {
                name: COUNTS.0,
                version: COUNTS.1,
                key: (0..rank.partition.len()).collect(),
                identity: Some((0..rank.partition.len()).collect()),
                present: Some(rank.partition.len()),
            }]),
            rank: rank.clone(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn slots(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>, EngineError> {
        let mut slots = Vec::new();
        self.partitions.intern(columns, rows, &mut slots).map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.counts.resize(self.partitions.slots(), 0);
        self.is_changed.resize(self.partitions.slots(), false);
        Ok(slots)
    }

    fn note_change(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.is_changed[slot as usize], true) {
            self.changed.push(slot);
        }
    }

    fn expire(&mut self) {
        for slot in self.expiry.expire(self.context.now_ms()) {
            self.counts[slot as usize] = 0;
            self.note_change(slot);
        }
    }

    fn counts_of(&self, slots: &[u32]) -> Result<Vec<RecordBatch>, EngineError> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let mut fields: Vec<Field> =
            self.rank.partition.iter().map(|column| self.rank.input_schema.field(*column).clone()).collect();
        fields.push(Field::new("__count", DataType::Int64, false));
        fields.push(Field::new("__changed", DataType::Int64, false));
        let mut columns = self.partitions.columns(slots).map_err(|e| self.failed(&e))?;
        let counts = slots.iter().map(|slot| self.counts[*slot as usize] as i64);
        columns.push(Arc::new(Int64Array::from_iter_values(counts)));
        columns.push(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.expiry.changed(*slot)))));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| self.failed(&e))?;
        Ok(vec![rows])
    }
}

impl Operator for FirstRows {
    fn state_bytes(&self) -> usize {
        let counts = memory::of_vec(&self.counts) + memory::of_vec(&self.changed) + memory::of_vec(&self.is_changed);
        self.partitions.bytes() + counts + self.expiry.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        self.expire();
        let columns: Vec<ArrayRef> =
            self.rank.partition.iter().map(|column| batch.rows.column(*column).clone()).collect();
        let slots = self.slots(&columns, batch.rows.num_rows())?;
        let now_ms = self.context.now_ms();
        let (mut positions, mut ranks) = (Vec::new(), Vec::new());
        for (row, slot) in slots.into_iter().enumerate() {
            let count = &mut self.counts[slot as usize];
            if *count >= self.rank.to {
                continue;
            }
            *count += 1;
            if *count >= self.rank.from {
                positions.push(row as u32);
                ranks.push(*count as i64);
            }
            self.note_change(slot);
            self.expiry.touch(slot, now_ms);
        }
        if positions.is_empty() {
            return Ok(());
        }
        let kept = batch.take(&UInt32Array::from(positions)).map_err(|e| self.failed(&e))?;
        let mut columns = kept.rows.columns().to_vec();
        if self.rank.rank_column {
            columns.push(Arc::new(Int64Array::from(ranks)));
        }
        let count = arrow::array::RecordBatchOptions::new().with_row_count(Some(kept.rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &count);
        out.main.push(kept.with_rows(rows.map_err(|e| self.failed(&e))?));
        Ok(())
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.expire();
        let whole = self.files.wants_whole_state(self.partitions.len());
        let mut slots = std::mem::take(&mut self.changed);
        slots.iter().for_each(|slot| self.is_changed[*slot as usize] = false);
        let is_gone = |slot: &&u32| self.counts[**slot as usize] == 0;
        let gone: Vec<u32> = slots.iter().filter(is_gone).copied().collect();
        if whole {
            slots = (0..self.partitions.slots() as u32).filter(|slot| self.counts[*slot as usize] > 0).collect();
        }
        let rows = self.counts_of(&slots)?;
        gone.into_iter().for_each(|slot| self.partitions.remove(slot));
        let key = (0..self.rank.partition.len()).collect();
        let table = TableRows { name: COUNTS.0, version: COUNTS.1, key, rows };
        Ok(Some(self.files.capture(whole, vec![table], String::new())))
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let width = self.rank.partition.len();
        let mut restored = 0;
        for rows in state.rows(COUNTS.0, COUNTS.1) {
            let rows = rows?;
            restored += rows.num_rows();
            let slots = self.slots(&rows.columns()[..width], rows.num_rows())?;
            let counts = rows.column(width).as_primitive::<Int64Type>();
            let changed = rows.column(width + 1).as_primitive::<Int64Type>();
            for (row, slot) in slots.into_iter().enumerate() {
                self.counts[slot as usize] = u64::try_from(counts.value(row)).unwrap_or(0);
                if self.counts[slot as usize] == 0 {
                    self.partitions.remove(slot);
                    self.expiry.forget(slot);
                } else {
                    self.expiry.touch(slot, changed.value(row));
                }
            }
        }
        self.files.restored(state.handle, restored);
        Ok(())
    }
}
