//! The best rows of each partition of an input that only inserts: what falls behind the last rank is forgotten.
//!
//! Rows that are equal in the order are ordered by all of their columns, so that the result is a function of the
//! rows and not of the way in which splits were mixed. Only an order by arrival depends on that: there each row
//! carries the number at which it came, as a last column.
//!
//! The state of a partition is a function of its rows as well: a checkpoint writes the rows that have come since
//! the last one and are still among the best, and a restore ranks all of them again.

mod checkpoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, Rank, RankFunction, SortKey};

use super::changes::{Change, Differ, emit};
use super::order_key::OrderKey;
use super::ranked::{Entry, Ranked};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::expiry::Expiry;
use crate::late::LateRows;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored, TableRows};
use crate::partitions::Partitions;
use crate::row_store::{RowId, RowStore};
use crate::window::WindowMeta;

/// Name and version of the table of rows: the input's columns, the number of arrival (Int64) where the order is
/// that of arrival, then the time of the epoch in which the partition last changed (Int64, ms).
const ROWS: (&str, u32) = ("rows", 1);
/// Name and version of the table of partitions that were forgotten before the rows of the same file came: their
/// columns, then TRUE.
const GONE: (&str, u32) = ("gone", 1);

/// See the module.
pub(crate) struct BestRows<K: OrderKey> {
    name: String,
    rank: Rank,
    /// Columns of the output.
    schema: SchemaRef,
    context: EvalContext,
    reader: K::Reader,
    partitions: Partitions,
    /// The best rows, by slot of the partition.
    ranked: Vec<Ranked<K>>,
    store: RowStore,
    stored_schema: SchemaRef,
    /// The number of the next row to arrive; absent: the order is by columns.
    arrival: Option<i64>,
    differ: Differ<RowId>,
    touched: Touched,
    dropped: Vec<RowId>,
    windows: Windows,
    expiry: Expiry,
    gone: Vec<RecordBatch>,
    files: DeltaFiles,
}

/// Partitions that a batch has changed, with what they showed before.
#[derive(Default)]
struct Touched {
    /// Slot, and where what it showed lies in `before`.
    partitions: Vec<(u32, usize, usize)>,
    before: Vec<(RowId, u64)>,
    /// By slot.
    is_touched: Vec<bool>,
}

/// Windows whose ranks are not given yet.
struct Windows {
    /// Position of the window's end.
    column: Option<usize>,
    watermark: i64,
    late: LateRows,
    /// Partitions by the end of their window (ms).
    open: BTreeMap<i64, Vec<u32>>,
}

fn is_closed(end: i64, watermark: i64) -> bool {
    end.saturating_sub(1) <= watermark
}

impl<K: OrderKey> BestRows<K> {
    /// An operator without state. `op` is the operator of the plan with the specification `rank`.
    pub(crate) fn new(
        name: &str,
        rank: &Rank,
        op: &Spec,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(name, &e);
        let mut fields: Vec<Field> = rank.input_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let by_arrival = rank.order.is_empty();
        let mut order = rank.order.clone();
        if by_arrival {
            order = vec![SortKey { column: fields.len(), descending: rank.newest_first, nulls_first: false }];
            fields.push(Field::new("__arrival", DataType::Int64, false));
        }
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let keys: Vec<DataType> = rank.partition.iter().map(|column| types[*column].clone()).collect();
        let stored_schema = Arc::new(Schema::new(fields));
        Ok(BestRows {
            name: name.to_owned(),
            schema: op.schema.clone(),
            context: context.clone(),
            reader: K::reader(&order, &types).map_err(failed)?,
            partitions: Partitions::new(&keys).map_err(failed)?,
            ranked: Vec::new(),
            store: RowStore::new(stored_schema.clone()),
            stored_schema,
            arrival: by_arrival.then_some(0),
            differ: Differ::new(rank, op),
            touched: Touched::default(),
            dropped: Vec::new(),
            windows: Windows { column: rank.window_end, watermark: i64::MIN, late, open: BTreeMap::new() },
            expiry: Expiry::new(rank.ttl_ms.filter(|_| rank.window_end.is_none())),
            gone: Vec::new(),
            files: DeltaFiles::default(),
            rank: rank.clone(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    /// The rows whose windows are open, with the ends of their windows.
    fn on_time(
        &self,
        batch: StreamBatch,
        out: &mut Collector,
    ) -> Result<(RecordBatch, Option<Int64Array>), EngineError> {
        let Some(column) = self.windows.column else { return Ok((batch.rows, None)) };
        let ends = event_times(&self.name, &batch.rows, column)?;
        let watermark = self.windows.watermark;
        let own = |row: usize| batch.own_watermark.as_ref().map_or(i64::MIN, |own| own.value(row));
        let open: BooleanArray = ends
            .values()
            .iter()
            .enumerate()
            .map(|(row, end)| Some(!is_closed(*end, watermark.max(own(row)))))
            .collect();
        if open.true_count() == open.len() {
            return Ok((batch.rows, Some(ends)));
        }
        let late: Vec<u32> = (0..open.len() as u32).filter(|row| !open.value(*row as usize)).collect();
        let judged = Int64Array::from_iter_values((0..open.len()).map(|row| watermark.max(own(row))));
        self.windows.late.take(&batch, column, &judged, &late, out)?;
        let rows = filter_record_batch(&batch.rows, &open).map_err(|e| self.failed(&e))?;
        let ends = event_times(&self.name, &rows, column)?;
        Ok((rows, Some(ends)))
    }

    fn with_arrival(&mut self, rows: RecordBatch) -> Result<RecordBatch, EngineError> {
        let Some(next) = &mut self.arrival else { return Ok(rows) };
        let end = *next + rows.num_rows() as i64;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(*next..end)));
        *next = end;
        RecordBatch::try_new(self.stored_schema.clone(), columns).map_err(|e| self.failed(&e))
    }

    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let slots = self.partitions.slots_of(rows, &self.rank.partition);
        let slots = slots.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.ranked.resize_with(self.partitions.slots(), || Ranked::None);
        self.touched.is_touched.resize(self.partitions.slots(), false);
        Ok(slots)
    }

    /// Ranks the rows of a chunk. What they push out is in `dropped` afterwards.
    fn insert_all(&mut self, slots: &[u32], rows: &RecordBatch, chunk: u32, shows: bool) -> Result<(), EngineError> {
        let keys = K::read(&self.reader, rows).map_err(|e| self.failed(&e))?;
        let now_ms = self.context.now_ms();
        for (row, slot) in slots.iter().enumerate() {
            let entries = self.ranked[*slot as usize].entries();
            let better = entries.partition_point(|entry| entry.key.compare(&keys, row).is_lt());
            let mut place = better;
            while let Some(entry) = entries.get(place)
                && entry.key.compare(&keys, row).is_eq()
            {
                // A row that is equal in everything comes behind those that are there.
                let order = self.store.compare(self.store.place(entry.row), (chunk, row as u32));
                if order.map_err(|e| self.failed(&e))?.is_gt() {
                    break;
                }
                place += 1;
            }
            if self.number_at(entries, better, place) > self.rank.to {
                continue;
            }
            if shows {
                self.touched.touch(*slot, &self.rank, entries);
                self.expiry.touch(*slot, now_ms);
            }
            let entry = Entry { key: K::of(&keys, row), row: self.store.keep((chunk, row as u32)) };
            let ranked = &mut self.ranked[*slot as usize];
            ranked.insert(place, entry);
            ranked.truncate(self.rank.function, self.rank.to, &mut self.dropped);
        }
        Ok(())
    }

    /// The rank that a row would have in front of which so many rows are better, and at which it would be placed.
    fn number_at(&self, entries: &[Entry<K>], better: usize, place: usize) -> u64 {
        let before = match self.rank.function {
            RankFunction::RowNumber => place,
            RankFunction::Rank => better,
            RankFunction::DenseRank => super::ranked::distinct(&entries[..better]),
        };
        before as u64 + 1
    }

    /// Gives what has changed in the partitions that were touched.
    fn give_changes(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        let mut touched = std::mem::take(&mut self.touched);
        let mut changes = Vec::new();
        let mut after = Vec::new();
        for (slot, begin, end) in &touched.partitions {
            touched.is_touched[*slot as usize] = false;
            after.clear();
            self.ranked[*slot as usize].show(&self.rank, &mut after);
            self.differ.diff(&touched.before[*begin..*end], &after, &mut changes);
        }
        touched.partitions.clear();
        touched.before.clear();
        self.touched = touched;
        self.emit(&changes, out)
    }

    fn emit(&self, changes: &[Change<RowId>], out: &mut Collector) -> Result<(), EngineError> {
        let columns: Vec<usize> = (0..self.rank.input_schema.fields().len()).collect();
        let rows = |piece: &[Change<RowId>]| {
            let ids: Vec<RowId> = piece.iter().map(|(_, row, _)| *row).collect();
            self.store.columns(&columns, &ids)
        };
        emit(&self.schema, self.rank.rank_column, changes, rows, out).map_err(|e| self.failed(&e))
    }

    fn release_dropped(&mut self) {
        self.dropped.drain(..).for_each(|row| self.store.release(row));
    }

    /// Gives the ranks of a window and forgets it.
    fn close(&mut self, slots: &[u32], out: &mut Collector) -> Result<(), EngineError> {
        let mut shown = Vec::new();
        for slot in slots {
            self.ranked[*slot as usize].show(&self.rank, &mut shown);
        }
        let insert = mainstem_core::change::ChangeKind::Insert;
        let changes: Vec<Change<RowId>> = shown.into_iter().map(|(row, rank)| (insert, row, rank)).collect();
        self.emit(&changes, out)?;
        slots.iter().for_each(|slot| self.forget(*slot));
        Ok(())
    }

    fn forget(&mut self, slot: u32) {
        let ranked = std::mem::replace(&mut self.ranked[slot as usize], Ranked::None);
        ranked.entries().iter().for_each(|entry| self.store.release(entry.row));
        self.partitions.remove(slot);
        self.expiry.forget(slot);
    }

    /// Notes the windows of partitions that are new.
    fn open_windows(&mut self, slots: &[u32], rows: &RecordBatch) -> Result<(), EngineError> {
        let Some(column) = self.windows.column else { return Ok(()) };
        let ends = event_times(&self.name, rows, column)?;
        for (slot, end) in slots.iter().zip(ends.values()) {
            let is_known = &mut self.touched.is_touched[*slot as usize];
            if !*is_known && matches!(self.ranked[*slot as usize], Ranked::None) {
                self.windows.open.entry(*end).or_default().push(*slot);
                *is_known = true;
            }
        }
        slots.iter().for_each(|slot| self.touched.is_touched[*slot as usize] = false);
        Ok(())
    }
}

impl Touched {
    fn touch<K: OrderKey>(&mut self, slot: u32, rank: &Rank, entries: &[Entry<K>]) {
        let is_touched = &mut self.is_touched[slot as usize];
        if *is_touched {
            return;
        }
        *is_touched = true;
        let begin = self.before.len();
        super::ranked::show(entries, rank, &mut self.before);
        self.partitions.push((slot, begin, self.before.len()));
    }
}

impl<K: OrderKey> Operator for BestRows<K> {
    fn state_bytes(&self) -> usize {
        let ranked = memory::of_sampled(self.ranked.len(), self.ranked.iter(), Ranked::bytes);
        self.partitions.bytes() + memory::of_vec(&self.ranked) + ranked + self.store.bytes() + self.expiry.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.windows.column?;
        Some(self.windows.open.first_key_value().map_or(Timestamp::MAX, |(end, _)| Timestamp(end - 1)))
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        self.expire()?;
        let (rows, ends) = self.on_time(batch, out)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = self.with_arrival(rows)?;
        let slots = self.slots(&rows)?;
        self.open_windows(&slots, &rows)?;
        let chunk = self.store.add(rows.clone(), true);
        self.insert_all(&slots, &rows, chunk, ends.is_none())?;
        if ends.is_none() {
            self.give_changes(out)?;
        }
        self.release_dropped();
        self.store.settle(chunk).map_err(|e| self.failed(&e))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.windows.watermark = self.windows.watermark.max(watermark.0);
        match self.windows.open.first_key_value() {
            Some((end, _)) if is_closed(*end, self.windows.watermark) => {
                let (_, mut slots) = self.windows.open.pop_first().expect("there is one");
                slots.sort_unstable_by(|left, right| self.partitions.key(*left).cmp(self.partitions.key(*right)));
                self.close(&slots, out)?;
                Ok(Release::Continue)
            }
            _ => Ok(Release::Done),
        }
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.expire()?;
        let whole = self.files.wants_whole_state(self.store.len());
        let rows = self.rows_to_write(whole)?;
        let mut gone = std::mem::take(&mut self.gone);
        if whole {
            gone.clear();
        }
        let keys = (0..self.rank.partition.len()).collect();
        let tables = vec![
            TableRows { name: GONE.0, version: GONE.1, key: keys, rows: gone },
            TableRows { name: ROWS.0, version: ROWS.1, key: self.rank.partition.clone(), rows },
        ];
        let meta = WindowMeta { watermark: self.windows.watermark };
        Ok(Some(self.files.capture(whole, tables, serde_json::to_string(&meta).expect("a number"))))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.windows.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut count = 0;
        for gone in state.rows(GONE.0, GONE.1) {
            let gone = gone?;
            count += gone.num_rows();
            self.restore_gone(&gone)?;
        }
        for rows in state.rows(ROWS.0, ROWS.1) {
            let rows = rows?;
            count += rows.num_rows();
            self.restore_rows(&rows)?;
        }
        self.files.restored(state.handle, count);
        Ok(())
    }
}
