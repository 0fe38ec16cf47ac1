//! `MATCH_RECOGNIZE`: runs of consecutive rows of a partition that match a pattern. Rows wait until the watermark has
//! passed them; then they are put in order and handed to the searches of their partitions ([`search`]), one row of each
//! partition at a time, so that conditions are evaluated for many partitions at once ([`evaluator`]).
//!
//! As in Flink, a match is given when no match that began earlier is still under way, of those that begin with the same
//! row the one that ends first, and what it prunes is up to AFTER MATCH SKIP. So the matches under way are a function of
//! the rows from the first one's beginning on: a checkpoint writes rows and these beginnings, nothing else
//! (`checkpoint.rs`), and a restart searches these rows again.

mod checkpoint;
mod elements;
mod evaluator;
mod search;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{Operator as Spec, PatternMatch as PatternSpec};

use self::elements::Elements;
use self::evaluator::Evaluator;
use self::search::{Found, Held, Search};
use self::turns::Due;
use crate::delta_files::DeltaFiles;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::late::LateRows;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored};
use crate::partitions::Partitions;
use crate::row_codec::RowCodec;
use crate::row_store::{RowId, RowStore};
use crate::window::WindowMeta;

/// About how many rows are handed to the searches at once.
const TURN_ROWS: usize = 8192;
/// Most matches under way in a partition. Each of them is looked at for each row.
const MATCHES_MAX: usize = 10_000;
/// Most rows that a partition keeps for matches under way.
const ROWS_MAX: usize = 1 << 20;
/// About how many rows of found matches are held before the matches are given.
const FOUND_ROWS: usize = 1 << 16;

/// See the module.
pub(crate) struct PatternMatch {
    name: String,
    spec: PatternSpec,
    schema: SchemaRef,
    late: LateRows,
    /// Position of the event time.
    time: usize,
    watermark: i64,
    elements: Elements,
    evaluator: Evaluator,
    codec: RowCodec,
    partitions: Partitions,
    /// By slot.
    searches: Vec<Search>,
    /// Rows that wait for the watermark, by time (ms), with their partitions.
    waiting: BTreeMap<i64, Vec<(u32, RowId)>>,
    /// Partitions whose oldest match under way is out of time when the watermark (ms) is there.
    deadlines: BTreeMap<i64, BTreeSet<u32>>,
    /// Matches that wait for earlier ones, by the time of their last row.
    held: Held,
    found: Vec<Found>,
    /// Rows that nobody needs when what was found is given.
    released: Vec<RowId>,
    /// Slots whose partitions have changed since the last checkpoint, each once; some are free again.
    touched: Vec<u32>,
    store: RowStore,
    files: DeltaFiles,
}

impl PatternMatch {
    /// An operator without state. `op` is the operator of the plan with the specification `spec`.
    pub(crate) fn new(
        name: &str,
        spec: &PatternSpec,
        op: &Spec,
        late: LateRows,
        context: &EvalContext,
    ) -> Result<Self, EngineError> {
        let failed = |e: ArrowError| EngineError::arrow(name, &e);
        let data_type = |column: &usize| spec.input_schema.field(*column).data_type().clone();
        let keys: Vec<DataType> = spec.partition.iter().map(data_type).collect();
        Ok(PatternMatch {
            name: name.to_owned(),
            schema: op.schema.clone(),
            late,
            time: spec.order[0].column,
            watermark: i64::MIN,
            elements: Elements::new(&spec.elements),
            evaluator: Evaluator::new(name, spec, context)?,
            codec: RowCodec::new(&spec.input_schema, &spec.order).map_err(failed)?,
            partitions: Partitions::new(&keys).map_err(failed)?,
            searches: Vec::new(),
            waiting: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            held: Held::default(),
            found: Vec::new(),
            released: Vec::new(),
            touched: Vec::new(),
            store: RowStore::new(spec.input_schema.clone()),
            files: DeltaFiles::default(),
            spec: spec.clone(),
        })
    }

    fn failed(&self, error: &ArrowError) -> EngineError {
        EngineError::arrow(&self.name, error)
    }

    fn slots(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, EngineError> {
        let columns: Vec<ArrayRef> = self.spec.partition.iter().map(|column| rows.column(*column).clone()).collect();
        self.slots_of(&columns, rows.num_rows())
    }

    fn slots_of(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>, EngineError> {
        let mut slots = Vec::new();
        let interned = self.partitions.intern(columns, rows, &mut slots);
        interned.map_err(|e| EngineError::arrow(&self.name, &e))?;
        self.searches.resize_with(self.partitions.slots(), Search::default);
        Ok(slots)
    }

    /// Gives the matches that were found, if they have more rows than `least`.
    fn give_found(&mut self, least: usize, out: &mut Collector) -> Result<(), EngineError> {
        let rows: usize = self.found.iter().map(|found| found.rows.len()).sum();
        if rows > least {
            let found = std::mem::take(&mut self.found);
            for piece in found.chunks(TURN_ROWS) {
                let firsts: Vec<RowId> = piece.iter().map(|found| found.rows[0]).collect();
                let keys = self.store.columns(&self.spec.partition, &firsts);
                let mut columns = keys.map_err(|e| self.failed(&e))?;
                columns.extend(self.evaluator.measures(piece, &self.elements, &self.store)?);
                let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| self.failed(&e))?;
                out.main.push(StreamBatch::on_time(rows));
            }
        }
        if self.found.is_empty() {
            self.let_go();
        }
        Ok(())
    }

    fn let_go(&mut self) {
        self.released.drain(..).for_each(|row| self.store.release(row));
    }

    /// Ends the work on a partition: notes when it is to be looked at again, and forgets it where nothing is left
    /// of it, in memory and in files. All rows of its last time have had their turn.
    fn settle(&mut self, slot: u32) {
        let search = &mut self.searches[slot as usize];
        search.trim(false, &mut self.released);
        let deadline = self.spec.within_ms.and_then(|within_ms| search.deadline(within_ms));
        if deadline != search.noted_deadline {
            if let Some(before) = search.noted_deadline
                && let Some(slots) = self.deadlines.get_mut(&before)
            {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.deadlines.remove(&before);
                }
            }
            if let Some(deadline) = deadline {
                self.deadlines.entry(deadline).or_default().insert(slot);
            }
            search.noted_deadline = deadline;
        }
        if search.is_gone() && !search.in_files {
            self.free(slot);
        } else {
            self.touch(slot);
        }
    }

    /// Forgets a partition.
    fn free(&mut self, slot: u32) {
        self.searches[slot as usize].clear();
        self.partitions.remove(slot);
    }

    fn touch(&mut self, slot: u32) {
        let search = &mut self.searches[slot as usize];
        search.is_used = true;
        if !std::mem::replace(&mut search.is_touched, true) {
            self.touched.push(slot);
        }
    }

    /// What the watermark ends without further rows: matches under way that are out of time, and at the end of the
    /// stream all of them.
    fn end_matches(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        let is_end = watermark == Timestamp::MAX;
        let mut slots: Vec<u32> = match (is_end, self.spec.within_ms) {
            (true, _) => {
                let busy = |slot: &u32| !self.searches[*slot as usize].is_idle();
                self.partitions.known().filter(busy).collect()
            }
            (false, _) => self.deadlines.range(..=watermark.0).flat_map(|(_, slots)| slots).copied().collect(),
        };
        slots.sort_unstable_by(|left, right| self.partitions.key(*left).cmp(self.partitions.key(*right)));
        let more = slots.len() > TURN_ROWS;
        slots.truncate(TURN_ROWS);
        for slot in &slots {
            let search = &mut self.searches[*slot as usize];
            match self.spec.within_ms {
                Some(within_ms) if !is_end => search.expire(watermark.0, within_ms),
                _ => search.expire_all(),
            }
            self.release(*slot)?;
            self.give_found(FOUND_ROWS, out)?;
        }
        self.give_found(0, out)?;
        slots.into_iter().for_each(|slot| self.settle(slot));
        self.let_go();
        Ok(if more { Release::Continue } else { Release::Done })
    }
}

impl Operator for PatternMatch {
    fn state_bytes(&self) -> usize {
        let waiting = memory::of_lists(&self.waiting);
        let searches = memory::of_sampled(self.searches.len(), self.searches.iter(), Search::bytes);
        self.partitions.bytes() + memory::of_vec(&self.searches) + searches + waiting + self.store.bytes()
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let (rows, times) = self.late.on_time(batch, self.time, self.watermark, out)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let slots = self.slots(&rows)?;
        let chunk = self.store.add(rows, true);
        for (row, slot) in slots.iter().enumerate() {
            let id = self.store.keep((chunk, row as u32));
            self.searches[*slot as usize].waiting += 1;
            self.touch(*slot);
            self.waiting.entry(times.value(row)).or_default().push((*slot, id));
        }
        self.store.settle(chunk).map_err(|e| self.failed(&e))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        let mut due: Vec<Due> = Vec::new();
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= watermark.0
            && due.len() < TURN_ROWS
        {
            let time = *entry.key();
            // Rows of one time come together: the order says which of them is first.
            due.extend(entry.remove().into_iter().map(|(slot, id)| Due { slot, time, id }));
        }
        if due.is_empty() {
            self.watermark = self.watermark.max(watermark.0);
            return self.end_matches(watermark, out);
        }
        for row in &due {
            self.searches[row.slot as usize].waiting -= 1;
        }
        let due = self.in_order(due)?;
        self.turns(&due, out)?;
        Ok(Release::Continue)
    }

    /// A match that waits for an earlier one is given later than its last row.
    fn watermark_out(&self, watermark: Timestamp) -> Timestamp {
        match self.held.first() {
            Some(time) if watermark != Timestamp::MAX => Timestamp(watermark.0.min(time - 1)),
            _ => watermark,
        }
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        let whole = self.files.wants_whole_state(self.store.len() + self.partitions.len());
        let tables = self.state_to_write(whole)?;
        let meta = WindowMeta { watermark: self.watermark };
        Ok(Some(self.files.capture(whole, tables, serde_json::to_string(&meta).expect("a number"))))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let count = self.take_back(&state)?;
        self.files.restored(state.handle, count);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.search_again()
    }
}

#[cfg(test)]
mod tests;
