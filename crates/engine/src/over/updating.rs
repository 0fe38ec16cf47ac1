//! OVER by any order and over any changes: all rows of a partition are kept in order, each with the results that were
//! given for it. A batch of changes is worked in, then the results from the first changed place on are computed
//! again, as far as a change can reach, and what differs is given.

mod reach;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, Int8Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::HashMap;
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Frame, Operator as Spec, OverAggregate};

use self::reach::{Key, Known, Part, Reach, Rows, Touched};
use super::evaluator::Evaluator;
use super::frames::{Segment, distance_values};
use crate::counted_rows::{self, CountedRow, Stored, TABLE};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::expiry::Expiry;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Restored};
use crate::partitions::Partitions;
use crate::row_codec::{RowBytes, RowCodec};

/// Rows of a batch that is given.
const GIVE_ROWS: usize = 8192;
/// About how many rows are computed at once.
const COMPUTE_ROWS: usize = 1 << 15;

/// See the module.
pub(crate) struct UpdatingOver {
    name: String,
    over: OverAggregate,
    schema: SchemaRef,
    context: EvalContext,
    evaluator: Evaluator,
    codec: RowCodec,
    /// Makes bytes of results.
    results: RowCodec,
    partitions: Partitions,
    /// By slot.
    rows: Vec<Rows>,
    live: usize,
    reach: Reach,
    /// Rows whose number has changed since the last checkpoint, with the slot of their partition.
    dirty: BTreeMap<RowBytes, u32>,
    expiry: Expiry,
    /// Counts rows that were to be taken away and were not there, such as those of a forgotten partition.
    unmatched: Arc<AtomicU64>,
    files: DeltaFiles,
}

impl UpdatingOver {
    /// An operator without state. `op` is the operator of the plan with the specification `over`.
    pub(crate) fn new(
        name: &str,
        over: &OverAggregate,
        op: &Spec,
        unmatched: Arc<AtomicU64>,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(name, &e);
        let types: Vec<DataType> = over.input_schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let evaluator = Evaluator::new(name, over, &op.schema, true, context)?;
        let results = Schema::new(op.schema.fields()[types.len()..].to_vec());
        let keys: Vec<DataType> = over.partition.iter().map(|column| types[*column].clone()).collect();
        let (before, behind) = evaluator.reach();
        let rows_before = match over.frame {
            Frame::Rows { preceding: Some(rows) } => usize::try_from(rows).unwrap_or(usize::MAX),
            _ => 0,
        };
        let distance = evaluator.frames.distance(&types);
        let reach = Reach { all: evaluator.carries(), before: before.max(rows_before), behind, distance };
        Ok(UpdatingOver {
            name: name.to_owned(),
            schema: op.schema.clone(),
            context: context.clone(),
            codec: RowCodec::new(&over.input_schema, &over.order).map_err(failed)?,
            results: RowCodec::new(&results, &[]).map_err(failed)?,
            partitions: Partitions::new(&keys).map_err(failed)?,
            rows: Vec::new(),
            live: 0,
            reach,
            dirty: BTreeMap::new(),
            expiry: Expiry::new(over.ttl_ms),
            unmatched,
            files: DeltaFiles::default(),
            evaluator,
            over: over.clone(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let slots = self.partitions.slots_of(rows, &self.over.partition);
        let slots = slots.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.rows.resize_with(self.partitions.slots(), Rows::new);
        Ok(slots)
    }

    /// The value of each row by which distances are measured; none where nothing is measured.
    fn values(&self, rows: &RecordBatch) -> Result<Option<Int64Array>, EngineError> {
        if self.reach.distance.is_none() {
            return Ok(None);
        }
        distance_values(&self.over.order[0], rows).map(Some).map_err(|e| self.failed(&e))
    }

    fn count(&self, slot: u32, row: &RowBytes) -> u64 {
        let of_row = self.rows[slot as usize].range((row.clone(), 0)..=(row.clone(), u64::MAX));
        of_row.last().map_or(0, |((_, copy), _)| copy + 1)
    }

    fn add(&mut self, slot: u32, row: RowBytes, value: Option<i64>, touched: &mut Touched) {
        let copy = self.count(slot, &row);
        let key = (row, copy);
        // What was given for it before stands until it is found to differ.
        let results = touched.gone.remove(&key);
        touched.note(&key, value);
        self.rows[slot as usize].insert(key, Known { results, value });
        self.live += 1;
    }

    /// Takes a row away. False where there is none.
    fn take(&mut self, slot: u32, row: &RowBytes, touched: &mut Touched) -> bool {
        let Some(copy) = self.count(slot, row).checked_sub(1) else { return false };
        let key = (row.clone(), copy);
        let Some(known) = self.rows[slot as usize].remove(&key) else { return false };
        touched.note(&key, known.value);
        if let Some(results) = known.results {
            touched.gone.insert(key, results);
        }
        self.live -= 1;
        true
    }

    /// Computes the results of rows that lie side by side, and notes them. Gives those that differ from what was
    /// given: the row, the results before, the results now.
    fn compute(
        &mut self,
        parts: Vec<(u32, Part)>,
        mut differs: impl FnMut(&Key, Option<RowBytes>, &RowBytes),
    ) -> Result<(), EngineError> {
        if parts.is_empty() {
            return Ok(());
        }
        let keys = parts.iter().flat_map(|(_, part)| &part.keys);
        let columns = self.codec.decode(keys.map(|(row, _)| row)).map_err(|e| self.failed(&e))?;
        let rows = RecordBatch::try_new(self.over.input_schema.clone(), columns).map_err(|e| self.failed(&e))?;
        let mut segments = Vec::with_capacity(parts.len());
        let mut carries = Vec::with_capacity(parts.len());
        let mut begin = 0;
        for (_, part) in &parts {
            let end = begin + part.keys.len();
            segments.push(Segment { begin, give: begin + part.give, give_end: begin + part.give_end, end });
            carries.push(self.evaluator.nothing()?);
            begin = end;
        }
        let results = self.evaluator.evaluate(&rows, &segments, &mut carries)?;
        let width = self.over.input_schema.fields().len();
        let schema = Arc::new(Schema::new(self.schema.fields()[width..].to_vec()));
        let results = RecordBatch::try_new(schema, results).map_err(|e| self.failed(&e))?;
        let mut results = self.results.encode(&results).map_err(|e| self.failed(&e))?.into_iter();
        for (slot, part) in &parts {
            for (key, result) in part.keys[part.give..part.give_end].iter().zip(results.by_ref()) {
                let known = self.rows[*slot as usize].get_mut(key).expect("listed from these rows");
                if known.results.as_ref() != Some(&result) {
                    let before = known.results.replace(result);
                    differs(key, before, known.results.as_ref().expect("just put there"));
                }
            }
        }
        Ok(())
    }

    fn emit(&self, changes: &[(ChangeKind, RowBytes, RowBytes)], out: &mut Collector) -> Result<(), EngineError> {
        for piece in changes.chunks(GIVE_ROWS) {
            let rows = self.codec.decode(piece.iter().map(|(_, row, _)| row));
            let mut columns = rows.map_err(|e| self.failed(&e))?;
            let results = self.results.decode(piece.iter().map(|(_, _, results)| results));
            columns.extend(results.map_err(|e| self.failed(&e))?);
            let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| self.failed(&e))?;
            let kinds = Int8Array::from_iter_values(piece.iter().map(|(kind, _, _)| *kind as i8));
            out.main.push(StreamBatch::changelog(rows, kinds));
        }
        Ok(())
    }

    fn forget(&mut self, slot: u32) {
        self.live -= std::mem::take(&mut self.rows[slot as usize]).len();
        self.partitions.remove(slot);
        self.expiry.forget(slot);
    }
}

impl Operator for UpdatingOver {
    fn state_bytes(&self) -> usize {
        let of_row = |((row, _), known): (&Key, &Known)| {
            row.len() + memory::ARC + known.results.as_ref().map_or(0, |results| results.len() + memory::ARC)
        };
        let sample = self.rows.iter().flat_map(BTreeMap::iter);
        let rows = memory::of_tree_len::<Key, Known>(self.live);
        self.partitions.bytes()
            + memory::of_vec(&self.rows)
            + rows
            + memory::of_sampled(self.live, sample, of_row)
            + memory::of_tree(&self.dirty)
            + self.expiry.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let slots = self.slots(&batch.rows)?;
        let values = self.values(&batch.rows)?;
        let encoded = self.codec.encode(&batch.rows).map_err(|e| self.failed(&e))?;
        let now_ms = self.context.now_ms();
        let mut order: Vec<u32> = Vec::new();
        let mut touched: HashMap<u32, Touched> = HashMap::new();
        for (position, (slot, row)) in slots.into_iter().zip(encoded).enumerate() {
            let of_slot = touched.entry(slot).or_insert_with(|| {
                order.push(slot);
                Touched::default()
            });
            if batch.is_addition(position) {
                let value = values.as_ref().filter(|values| values.is_valid(position)).map(|v| v.value(position));
                self.add(slot, row.clone(), value, of_slot);
            } else if !self.take(slot, &row, of_slot) {
                self.unmatched.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.dirty.insert(row, slot);
            self.expiry.touch(slot, now_ms);
        }
        let mut changes: Vec<(ChangeKind, RowBytes, RowBytes)> = Vec::new();
        let mut parts = Vec::new();
        let mut rows = 0;
        let count = order.len();
        for (nth, slot) in order.into_iter().enumerate() {
            let of_slot = touched.remove(&slot).expect("noted above");
            if let Some(part) = self.reach.part(&self.rows[slot as usize], &of_slot) {
                rows += part.keys.len();
                parts.push((slot, part));
            }
            // What is gone comes first, so that a row that comes back under the same key stays.
            changes.extend(of_slot.gone.into_iter().map(|((row, _), results)| (ChangeKind::Delete, row, results)));
            if rows < COMPUTE_ROWS && nth + 1 < count {
                continue;
            }
            rows = 0;
            self.compute(std::mem::take(&mut parts), |(row, _), before, now| match before {
                None => changes.push((ChangeKind::Insert, row.clone(), now.clone())),
                Some(before) => {
                    changes.push((ChangeKind::UpdateBefore, row.clone(), before));
                    changes.push((ChangeKind::UpdateAfter, row.clone(), now.clone()));
                }
            })?;
            self.emit(&std::mem::take(&mut changes), out)?;
        }
        Ok(())
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        for slot in self.expiry.expire(self.context.now_ms()) {
            let gone = std::mem::take(&mut self.rows[slot as usize]);
            self.live -= gone.len();
            self.dirty.extend(gone.into_keys().map(|(row, _)| (row, slot)));
        }
        let dirty = std::mem::take(&mut self.dirty);
        let whole = self.files.wants_whole_state(self.live);
        let now_ms = self.context.now_ms();
        let rows: Vec<CountedRow> = if whole {
            let mut rows: Vec<CountedRow> = Vec::new();
            for (slot, of_slot) in self.rows.iter().enumerate() {
                let changed_ms = self.expiry.changed(slot as u32);
                for (row, copy) in of_slot.keys() {
                    match rows.last_mut() {
                        Some(last) if last.row == *row => last.count = copy + 1,
                        _ => rows.push(CountedRow { row: row.clone(), count: copy + 1, changed_ms }),
                    }
                }
            }
            rows
        } else {
            dirty
                .iter()
                .map(|(row, slot)| CountedRow { row: row.clone(), count: self.count(*slot, row), changed_ms: now_ms })
                .collect()
        };
        let table = counted_rows::table(&rows, &self.codec, &self.over.input_schema, &self.over.partition);
        let table = table.map_err(|e| self.failed(&e))?;
        let mut empty: Vec<u32> = dirty.into_values().filter(|slot| self.rows[*slot as usize].is_empty()).collect();
        empty.sort_unstable();
        empty.dedup();
        empty.into_iter().for_each(|slot| self.forget(slot));
        Ok(Some(self.files.capture(whole, vec![table], String::new())))
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut restored = 0;
        for batch in state.rows(TABLE.0, TABLE.1) {
            let stored = Stored::new(&batch?, &self.over.input_schema).map_err(|e| self.failed(&e))?;
            restored += stored.rows.num_rows();
            let slots = self.slots(&stored.rows)?;
            let values = self.values(&stored.rows)?;
            let encoded = self.codec.encode(&stored.rows).map_err(|e| self.failed(&e))?;
            for (position, (slot, row)) in slots.into_iter().zip(encoded).enumerate() {
                let value = values.as_ref().filter(|values| values.is_valid(position)).map(|v| v.value(position));
                let count = stored.count(position);
                let mut touched = Touched::default();
                while self.count(slot, &row) > count {
                    self.take(slot, &row, &mut touched);
                }
                while self.count(slot, &row) < count {
                    self.add(slot, row.clone(), value, &mut touched);
                }
                self.expiry.touch(slot, stored.changed_ms(position));
            }
        }
        self.files.restored(state.handle, restored);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        let mut known: Vec<u32> = self.partitions.known().collect();
        known.sort_unstable();
        for slot in known {
            if self.rows[slot as usize].is_empty() {
                self.forget(slot);
                continue;
            }
            let whole = Part::whole(&self.rows[slot as usize]);
            self.compute(vec![(slot, whole)], |_, _, _| {})?;
        }
        Ok(())
    }
}
