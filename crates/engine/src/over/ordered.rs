//! OVER by time: each row's results are given once. By event time rows wait until the watermark has passed them;
//! by processing time they come in their order.
//!
//! Of the rows that were given only those are kept that a later row may still see: the last ones of a partition for
//! a frame in ROWS or LAG, those of the last stretch of time for a frame in RANGE. A frame without a beginning
//! keeps no rows but its aggregates. So the state of a partition is a function of its rows, the watermark and the
//! aggregates: a checkpoint writes the rows that have come and the aggregates that have changed.

mod checkpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Frame, Operator as Spec, OverAggregate, OverOrder, SortKey};

use super::carried::CarriedTable;
use super::evaluator::{Carry, Evaluator};
use super::frames::{Segment, distance_values};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::expiry::Expiry;
use crate::late::LateRows;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored, TableRows};
use crate::partitions::Partitions;
use crate::row_codec::RowCodec;
use crate::row_store::{RowId, RowStore};
use crate::window::WindowMeta;

/// Name and version of the table of rows: the input's columns, the number of arrival (Int64) by processing time,
/// the time of the epoch in which the partition last changed (Int64, ms).
const ROWS: (&str, u32) = ("rows", 1);
/// About how many rows are given at once.
const GIVE_ROWS: usize = 8192;

/// See the module.
pub(crate) struct OrderedOver {
    pub(super) name: String,
    pub(super) over: OverAggregate,
    schema: SchemaRef,
    context: EvalContext,
    late: LateRows,
    /// Position of the event time; absent: by processing time.
    time: Option<usize>,
    watermark: i64,
    evaluator: Evaluator,
    /// Rows of a partition in their order.
    codec: RowCodec,
    pub(super) partitions: Partitions,
    /// By slot.
    states: Vec<PartitionState>,
    /// Rows that wait for the watermark, by time (ms), with their partitions.
    waiting: BTreeMap<i64, Vec<(u32, RowId)>>,
    /// Partitions whose oldest row may be forgotten when the clock of their order has passed a value.
    expiring: BTreeMap<i64, BTreeSet<u32>>,
    store: RowStore,
    stored_schema: SchemaRef,
    next_arrival: i64,
    keeps: Keeps,
    carried: CarriedTable,
    expiry: Expiry,
    files: DeltaFiles,
}

/// Which rows of a partition later ones may still see.
#[derive(Clone, Copy, Debug)]
struct Keeps {
    /// So many of the last.
    last: usize,
    /// Those at most so far away, in units of the first order column.
    distance: Option<i64>,
}

/// What is kept of one partition.
#[derive(Default)]
struct PartitionState {
    /// Rows that were given, in order, with the value from which distances are measured.
    given: Vec<(RowId, Option<i64>)>,
    /// Number of its rows that wait.
    waiting: usize,
    carry: Option<Carry>,
}

impl OrderedOver {
    /// An operator without state. `op` is the operator of the plan with the specification `over`.
    pub(crate) fn new(
        name: &str,
        over: &OverAggregate,
        op: &Spec,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(name, &e);
        let time = match over.by {
            OverOrder::EventTime(column) => Some(column),
            OverOrder::ProcessingTime | OverOrder::Updating => None,
        };
        let mut fields: Vec<Field> = over.input_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let mut order = over.order.clone();
        if time.is_none() {
            order = vec![SortKey { column: fields.len(), descending: false, nulls_first: false }];
            fields.push(Field::new("__arrival", DataType::Int64, false));
        }
        let stored_schema = Arc::new(Schema::new(fields));
        let evaluator = Evaluator::new(name, over, &op.schema, time.is_some(), context)?;
        let rows_before = match over.frame {
            Frame::Rows { preceding: Some(rows) } => usize::try_from(rows).unwrap_or(usize::MAX),
            _ => 0,
        };
        let last = rows_before.max(evaluator.reach().0);
        let keeps = Keeps { last, distance: evaluator.frames.distance(&types) };
        let keys: Vec<DataType> = over.partition.iter().map(|column| types[*column].clone()).collect();
        Ok(OrderedOver {
            name: name.to_owned(),
            schema: op.schema.clone(),
            context: context.clone(),
            late,
            time,
            watermark: i64::MIN,
            codec: RowCodec::new(&stored_schema, &order).map_err(failed)?,
            partitions: Partitions::new(&keys).map_err(failed)?,
            states: Vec::new(),
            waiting: BTreeMap::new(),
            expiring: BTreeMap::new(),
            store: RowStore::new(stored_schema.clone()),
            stored_schema,
            next_arrival: 0,
            keeps,
            carried: CarriedTable::new(over, evaluator.state_types()?),
            evaluator,
            expiry: Expiry::new(over.ttl_ms),
            files: DeltaFiles::default(),
            over: over.clone(),
        })
    }

    pub(super) fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let columns: Vec<ArrayRef> = self.over.partition.iter().map(|column| rows.column(*column).clone()).collect();
        self.slots_of(&columns, rows.num_rows())
    }

    fn slots_of(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>, EngineError> {
        let mut slots = Vec::new();
        let interned = self.partitions.intern(columns, rows, &mut slots);
        interned.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.states.resize_with(self.partitions.slots(), PartitionState::default);
        Ok(slots)
    }

    /// Gives the results of rows whose turn it is; they are the next ones of their partitions.
    fn give(&mut self, due: Vec<(u32, RowId)>, out: &mut Collector) -> Result<(), EngineError> {
        let ids: Vec<RowId> = due.iter().map(|(_, row)| *row).collect();
        let rows = self.store.gather(&ids).map_err(|e| self.failed(&e))?;
        let encoded = self.codec.encode(&rows).map_err(|e| self.failed(&e))?;
        let mut order: Vec<usize> = (0..due.len()).collect();
        order.sort_by(|left, right| {
            let key = |row: usize| self.partitions.key(due[row].0);
            key(*left).cmp(key(*right)).then_with(|| encoded[*left].cmp(&encoded[*right]))
        });
        // What each partition's rows see stands before them.
        let mut seen: Vec<RowId> = Vec::with_capacity(due.len());
        let (mut segments, mut carries, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut given: Vec<u64> = Vec::with_capacity(due.len());
        for run in order.chunk_by(|left, right| due[*left].0 == due[*right].0) {
            let slot = due[run[0]].0;
            let begin = seen.len();
            let state = &mut self.states[slot as usize];
            seen.extend(state.given.iter().map(|(row, _)| *row));
            let give = seen.len();
            given.extend((give..give + run.len()).map(|row| row as u64));
            seen.extend(run.iter().map(|row| due[*row].1));
            segments.push(Segment { begin, give, give_end: seen.len(), end: seen.len() });
            carries.push(match state.carry.take() {
                Some(carry) => carry,
                None => self.evaluator.nothing()?,
            });
            slots.push(slot);
        }
        let rows = self.store.gather(&seen).map_err(|e| self.failed(&e))?;
        let width = self.over.input_schema.fields().len();
        let visible = RecordBatch::try_new(self.over.input_schema.clone(), rows.columns()[..width].to_vec());
        let visible = visible.map_err(|e| self.failed(&e))?;
        let results = self.evaluator.evaluate(&visible, &segments, &mut carries)?;
        let given = arrow::array::UInt64Array::from(given);
        let mut columns = arrow::compute::take_arrays(visible.columns(), &given, None).map_err(|e| self.failed(&e))?;
        columns.extend(results);
        let output = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| self.failed(&e))?;
        for begin in (0..output.num_rows()).step_by(GIVE_ROWS) {
            let length = GIVE_ROWS.min(output.num_rows() - begin);
            out.main.push(StreamBatch::on_time(output.slice(begin, length)));
        }
        let values = match self.keeps.distance {
            Some(_) => Some(distance_values(&self.over.order[0], &visible).map_err(|e| self.failed(&e))?),
            None => None,
        };
        let value =
            |row: usize| values.as_ref().and_then(|v| arrow::array::Array::is_valid(v, row).then(|| v.value(row)));
        let carries_on = self.evaluator.carries();
        for ((segment, carry), slot) in segments.iter().zip(carries).zip(slots) {
            let state = &mut self.states[slot as usize];
            state.carry = carries_on.then_some(carry);
            if carries_on {
                self.carried.note_change(slot);
            }
            state.given.extend((segment.give..segment.give_end).map(|row| (seen[row], value(row))));
            self.forget_unseen(slot, None);
        }
        Ok(())
    }

    /// Lets go of the rows of a partition that no later row sees. `now`: a value of the first order column that all
    /// later rows are behind; without it, they are not before the last row.
    fn forget_unseen(&mut self, slot: u32, now: Option<i64>) {
        let state = &mut self.states[slot as usize];
        let beyond_last = state.given.len().saturating_sub(self.keeps.last);
        let mut unseen = beyond_last;
        if let Some(distance) = self.keeps.distance {
            let now = now.or(state.given.last().and_then(|(_, value)| *value)).unwrap_or(i64::MIN);
            let is_seen = |value: &Option<i64>| value.is_none_or(|value| value.saturating_add(distance) >= now);
            unseen = state.given[..beyond_last].iter().position(|(_, value)| is_seen(value)).unwrap_or(beyond_last);
        }
        state.given.drain(..unseen).for_each(|(row, _)| self.store.release(row));
        if let (Some(distance), Some((_, Some(oldest)))) = (self.keeps.distance, state.given.first())
            && state.given.len() > self.keeps.last
        {
            self.expiring.entry(oldest.saturating_add(distance)).or_default().insert(slot);
        }
        if state.given.is_empty() && state.waiting == 0 && state.carry.is_none() {
            self.partitions.remove(slot);
            self.expiry.forget(slot);
        }
    }

    /// Lets go of rows that are too far away from any row to come, whose first order column is behind `now`.
    fn forget_passed(&mut self, now: i64) {
        while let Some(entry) = self.expiring.first_entry()
            && *entry.key() < now
        {
            for slot in entry.remove() {
                // The slot may have been given to another partition; that does no harm.
                if self.states[slot as usize].given.is_empty() {
                    continue;
                }
                self.forget_unseen(slot, Some(now));
            }
        }
    }

    /// The value of the first order column that all rows after the watermark or clock (ms) are at or behind.
    fn clock(&self, ms: i64) -> i64 {
        let column = self.over.order[0].column;
        match self.over.input_schema.field(column).data_type() {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Second, _) => ms.div_euclid(1_000),
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => ms.saturating_mul(1_000),
            DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, _) => ms.saturating_mul(1_000_000),
            _ => ms,
        }
    }
}

impl Operator for OrderedOver {
    fn state_bytes(&self) -> usize {
        let of_state =
            |state: &PartitionState| memory::of_vec(&state.given) + state.carry.as_ref().map_or(0, Carry::bytes);
        let states = memory::of_vec(&self.states) + memory::of_sampled(self.states.len(), self.states.iter(), of_state);
        let waiting = memory::of_lists(&self.waiting);
        self.partitions.bytes() + states + waiting + self.store.bytes() + self.expiry.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.time?;
        // What it forgets as time passes may as well be forgotten later.
        Some(self.waiting.first_key_value().map_or(Timestamp::MAX, |(time, _)| Timestamp(*time)))
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let (rows, times) = match self.time {
            Some(time) => {
                let (rows, times) = self.late.on_time(batch, time, self.watermark, out)?;
                (rows, Some(times))
            }
            None => (batch.rows, None),
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let slots = self.slots(&rows)?;
        let count = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        if self.time.is_none() {
            let arrivals = self.next_arrival..self.next_arrival + count as i64;
            self.next_arrival = arrivals.end;
            columns.push(Arc::new(Int64Array::from_iter_values(arrivals)));
        }
        let rows = RecordBatch::try_new(self.stored_schema.clone(), columns).map_err(|e| self.failed(&e))?;
        let chunk = self.store.add(rows, true);
        let now_ms = self.context.now_ms();
        let mut due = Vec::new();
        for (row, slot) in slots.iter().enumerate() {
            self.expiry.touch(*slot, now_ms);
            let id = self.store.keep((chunk, row as u32));
            match &times {
                Some(times) => {
                    self.states[*slot as usize].waiting += 1;
                    self.waiting.entry(times.value(row)).or_default().push((*slot, id));
                }
                None => due.push((*slot, id)),
            }
        }
        if !due.is_empty() {
            self.give(due, out)?;
        }
        self.store.settle(chunk).map_err(|e| self.failed(&e))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        if self.time.is_none() {
            return Ok(Release::Done);
        }
        let mut due: Vec<(u32, RowId)> = Vec::new();
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= watermark.0
            && due.len() < GIVE_ROWS
        {
            // Rows of one time are given together: they may be equal in the order.
            due.extend(entry.remove());
        }
        if due.is_empty() {
            self.watermark = self.watermark.max(watermark.0);
            let now = self.clock(self.watermark);
            self.forget_passed(now);
            return Ok(Release::Done);
        }
        for (slot, _) in &due {
            self.states[*slot as usize].waiting -= 1;
        }
        self.give(due, out)?;
        Ok(Release::Continue)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        if self.time.is_none() {
            let now = self.clock(self.context.now_ms());
            self.forget_passed(now);
        }
        let expired = self.expire();
        let gone = self.carried.gone(&self.over, &self.partitions, &expired).map_err(|e| self.failed(&e))?;
        expired.into_iter().for_each(|slot| self.forget(slot));
        let whole = self.files.wants_whole_state(self.store.len() + self.carried.len());
        let rows = self.rows_to_write(whole)?;
        let states = &mut self.states;
        let (evaluator, partitions, expiry) = (&self.evaluator, &self.partitions, &self.expiry);
        let carry = |slot: u32| states[slot as usize].carry.take();
        let (carried, restored) = self.carried.checkpoint(whole, evaluator, partitions, expiry, carry)?;
        for (slot, carry) in restored {
            self.states[slot as usize].carry = Some(carry);
        }
        let tables = vec![
            TableRows { rows: if whole { Vec::new() } else { gone }, ..self.carried.gone_table() },
            TableRows { name: ROWS.0, version: ROWS.1, key: self.over.partition.clone(), rows },
            TableRows { rows: carried, ..self.carried.table() },
        ];
        let meta = WindowMeta { watermark: self.watermark };
        Ok(Some(self.files.capture(whole, tables, serde_json::to_string(&meta).expect("a number"))))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        let key_width = self.over.partition.len();
        let gone_table = self.carried.gone_table();
        for gone in state.rows(gone_table.name, gone_table.version) {
            let gone = gone?;
            count += gone.num_rows();
            let mut slots = self.slots_of(&gone.columns()[..key_width], gone.num_rows())?;
            slots.sort_unstable();
            slots.dedup();
            slots.into_iter().for_each(|slot| self.forget(slot));
        }
        for rows in state.rows(ROWS.0, ROWS.1) {
            let rows = rows?;
            count += rows.num_rows();
            self.restore_rows(&rows)?;
        }
        let table = self.carried.table();
        for rows in state.rows(table.name, table.version) {
            let rows = rows?;
            count += rows.num_rows();
            let slots = self.slots_of(&rows.columns()[..key_width], rows.num_rows())?;
            for (row, slot) in slots.into_iter().enumerate() {
                let (carry, changed) = self.carried.restore(&self.evaluator, &rows, row)?;
                self.states[slot as usize].carry = Some(carry);
                self.carried.add(slot);
                self.expiry.touch(slot, changed);
            }
        }
        self.files.restored(state.handle, count);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.order_given()
    }
}
