//! The best rows of each partition of an input that takes rows away: all rows are kept in order, because each may
//! become one of the best. A row is found again by its whole content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use hashbrown::HashMap;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, Rank};

use super::changes::{Change, Differ, emit, numbered};
use crate::counted_rows::{self, CountedRow, Stored, TABLE};
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::expiry::Expiry;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Restored};
use crate::partitions::Partitions;
use crate::row_codec::{RowBytes, RowCodec};

/// See the module.
pub(crate) struct AllRows {
    name: String,
    rank: Rank,
    schema: SchemaRef,
    context: EvalContext,
    codec: RowCodec,
    partitions: Partitions,
    /// The rows of each partition, best first, with how many equal ones there are; by slot.
    rows: Vec<BTreeMap<RowBytes, u64>>,
    live: usize,
    /// Rows that have changed since the last checkpoint, with the slot of their partition.
    dirty: BTreeMap<RowBytes, u32>,
    expiry: Expiry,
    /// Counts rows that were to be taken away and were not there, such as those of a forgotten partition.
    unmatched: Arc<AtomicU64>,
    files: DeltaFiles,
    ranks: RankedRows,
}

/// Works out what is shown, with rows as small numbers.
struct RankedRows {
    differ: Differ<u32>,
    known: Vec<RowBytes>,
    numbers: HashMap<(RowBytes, u64), u32>,
}

impl AllRows {
    /// An operator without state. `op` is the operator of the plan with the specification `rank`.
    pub(crate) fn new(
        name: &str,
        rank: &Rank,
        op: &Spec,
        unmatched: Arc<AtomicU64>,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(name, &e);
        let types = rank.partition.iter().map(|column| rank.input_schema.field(*column).data_type().clone());
        Ok(AllRows {
            name: name.to_owned(),
            schema: op.schema.clone(),
            context: context.clone(),
            codec: RowCodec::new(&rank.input_schema, &rank.order).map_err(failed)?,
            partitions: Partitions::new(&types.collect::<Vec<_>>()).map_err(failed)?,
            rows: Vec::new(),
            live: 0,
            dirty: BTreeMap::new(),
            expiry: Expiry::new(rank.ttl_ms),
            unmatched,
            files: DeltaFiles::default(),
            ranks: RankedRows { differ: Differ::new(rank, op), known: Vec::new(), numbers: HashMap::new() },
            rank: rank.clone(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let slots = self.partitions.slots_of(rows, &self.rank.partition);
        let slots = slots.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.rows.resize_with(self.partitions.slots(), BTreeMap::new);
        Ok(slots)
    }

    fn set(&mut self, slot: u32, row: RowBytes, count: u64) {
        let rows = &mut self.rows[slot as usize];
        let before = if count == 0 { rows.remove(&row) } else { rows.insert(row, count) };
        self.live = self.live + usize::from(count > 0) - usize::from(before.is_some());
    }

    fn change(&mut self, slot: u32, row: RowBytes, adds: bool) {
        let known = self.rows[slot as usize].get(&row).copied().unwrap_or(0);
        if !adds && known == 0 {
            self.unmatched.fetch_add(1, Ordering::Relaxed);
            if self.rows[slot as usize].is_empty() {
                // Nothing has changed, but the partition is to go at the end of the epoch.
                self.dirty.insert(row, slot);
            }
            return;
        }
        self.dirty.insert(row.clone(), slot);
        self.set(slot, row, if adds { known + 1 } else { known - 1 });
        self.expiry.touch(slot, self.context.now_ms());
    }

    fn expire(&mut self) {
        for slot in self.expiry.expire(self.context.now_ms()) {
            let gone = std::mem::take(&mut self.rows[slot as usize]);
            self.live -= gone.len();
            self.dirty.extend(gone.into_keys().map(|row| (row, slot)));
        }
    }

    fn forget(&mut self, slot: u32) {
        self.live -= std::mem::take(&mut self.rows[slot as usize]).len();
        self.partitions.remove(slot);
        self.expiry.forget(slot);
    }
}

impl RankedRows {
    /// The rows that a partition shows; equal rows are told apart by which of them they are.
    fn show(&mut self, rank: &Rank, rows: &BTreeMap<RowBytes, u64>, shown: &mut Vec<(u32, u64)>) {
        let mut last: Option<&RowBytes> = None;
        let each = rows.iter().flat_map(|(row, count)| (0..*count).map(move |copy| (row, copy)));
        let ties = each.map(|(row, copy)| {
            let is_tie = last.is_some_and(|last| last.is_tie(row));
            last = Some(row);
            ((row, copy), is_tie)
        });
        let mut ranked = Vec::new();
        numbered(rank, ties, &mut ranked);
        for ((row, copy), number) in ranked {
            let known = &mut self.known;
            let id = self.numbers.entry((row.clone(), copy)).or_insert_with(|| {
                known.push(row.clone());
                known.len() as u32 - 1
            });
            shown.push((*id, number));
        }
    }
}

impl Operator for AllRows {
    fn state_bytes(&self) -> usize {
        let of_row = |row: &RowBytes| row.len() + memory::ARC;
        let sample = self.rows.iter().flat_map(BTreeMap::keys);
        let rows = memory::of_tree_len::<RowBytes, u64>(self.live) + memory::of_sampled(self.live, sample, of_row);
        self.partitions.bytes() + memory::of_vec(&self.rows) + rows + memory::of_tree(&self.dirty) + self.expiry.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        self.expire();
        let slots = self.slots(&batch.rows)?;
        let rows = self.codec.encode(&batch.rows).map_err(|e| self.failed(&e))?;
        let mut touched: Vec<u32> = Vec::new();
        let mut before: Vec<(u32, u64)> = Vec::new();
        let mut bounds = Vec::new();
        let mut is_touched = hashbrown::HashSet::new();
        for (position, (slot, row)) in slots.into_iter().zip(rows).enumerate() {
            if is_touched.insert(slot) {
                touched.push(slot);
                self.ranks.show(&self.rank, &self.rows[slot as usize], &mut before);
                bounds.push(before.len());
            }
            self.change(slot, row, batch.is_addition(position));
        }
        let mut changes: Vec<Change<u32>> = Vec::new();
        let mut after = Vec::new();
        let mut begin = 0;
        for (slot, end) in touched.iter().zip(bounds) {
            after.clear();
            self.ranks.show(&self.rank, &self.rows[*slot as usize], &mut after);
            self.ranks.differ.diff(&before[begin..end], &after, &mut changes);
            begin = end;
        }
        let known = &self.ranks.known;
        let rows = |piece: &[Change<u32>]| self.codec.decode(piece.iter().map(|(_, row, _)| &known[*row as usize]));
        emit(&self.schema, self.rank.rank_column, &changes, rows, out).map_err(|e| self.failed(&e))?;
        self.ranks.known.clear();
        self.ranks.numbers.clear();
        Ok(())
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.expire();
        let dirty = std::mem::take(&mut self.dirty);
        let whole = self.files.wants_whole_state(self.live);
        let now_ms = self.context.now_ms();
        let rows: Vec<CountedRow> = if whole {
            let of_slots = self.rows.iter().enumerate();
            let each =
                of_slots.flat_map(|(slot, rows)| rows.iter().map(move |(row, count)| (slot as u32, row, *count)));
            each.map(|(slot, row, count)| CountedRow { row: row.clone(), count, changed_ms: self.expiry.changed(slot) })
                .collect()
        } else {
            let count = |row: &RowBytes, slot: u32| self.rows[slot as usize].get(row).copied().unwrap_or(0);
            dirty
                .iter()
                .map(|(row, slot)| CountedRow { row: row.clone(), count: count(row, *slot), changed_ms: now_ms })
                .collect()
        };
        let table = counted_rows::table(&rows, &self.codec, &self.rank.input_schema, &self.rank.partition);
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
            let stored = Stored::new(&batch?, &self.rank.input_schema).map_err(|e| self.failed(&e))?;
            restored += stored.rows.num_rows();
            let slots = self.slots(&stored.rows)?;
            let encoded = self.codec.encode(&stored.rows).map_err(|e| self.failed(&e))?;
            for (position, (slot, row)) in slots.into_iter().zip(encoded).enumerate() {
                self.set(slot, row, stored.count(position));
                self.expiry.touch(slot, stored.changed_ms(position));
            }
        }
        self.files.restored(state.handle, restored);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        let mut known = vec![false; self.partitions.slots()];
        self.partitions.known().for_each(|slot| known[slot as usize] = true);
        let empty = (0..known.len()).filter(|slot| known[*slot] && self.rows[*slot].is_empty());
        empty.collect::<Vec<_>>().into_iter().for_each(|slot| self.forget(slot as u32));
        Ok(())
    }
}
