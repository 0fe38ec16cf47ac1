//! Session windows. The sending side turns each batch into partial aggregates of short sessions
//! ([`PartialSessions`]); the receiving side joins those that touch and emits a session when the watermark has
//! reached its end ([`SessionAggregate`]).
//!
//! A row is late when its own time is at or below the watermark of its split. A session is emitted when the
//! watermark reaches its end (and not a millisecond earlier, as for other windows), because a row at exactly
//! that time would still join it. With both rules, which rows make a session never depends on which split was
//! read faster (I6).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::Int64Type;
use arrow::row::OwnedRow;
use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;

use super::aggregation::Aggregation;
use super::final_aggregate::{WindowOutput, emit};
use super::partial_log::{PartialLog, WindowMeta};
use super::slicing::Span;
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::keys::{KeyConverter, KeyIndex};
use crate::late::LateRows;
use crate::memory;
use crate::operator::{Capture, Collector, Operator, Release, Restored, held_back};

/// Partial aggregates of one session before they are merged into one.
const FRAGMENTS_MAX: usize = 64;
/// Rows that are merged and emitted at once.
const EMIT_ROWS_MAX: usize = 8192;
/// Dead rows of the fragment store that are tolerated before it is rewritten, beside as many as live ones.
const DEAD_ROWS_MAX: usize = 1 << 16;

/// First step: sessions within each batch.
pub(crate) struct PartialSessions {
    aggregation: Arc<Aggregation>,
    gap: i64,
    time: usize,
    late: LateRows,
}

impl PartialSessions {
    /// An operator for sessions with the given gap (ms).
    pub(crate) fn new(aggregation: Arc<Aggregation>, gap: i64, time: usize, late: LateRows) -> Self {
        PartialSessions { aggregation, gap, time, late }
    }

    /// Takes out the rows that are behind their own split's watermark.
    fn on_time(&self, batch: StreamBatch, out: &mut Collector) -> Result<RecordBatch, EngineError> {
        let Some(own_watermark) = &batch.own_watermark else { return Ok(batch.rows) };
        let times = event_times(&self.aggregation.name, &batch.rows, self.time)?;
        let is_late = |row: &u32| times.value(*row as usize) <= own_watermark.value(*row as usize);
        let (late, on_time): (Vec<u32>, Vec<u32>) = (0..times.len() as u32).partition(is_late);
        self.late.take(&batch, self.time, own_watermark, &late, out)?;
        compute::take_record_batch(&batch.rows, &UInt32Array::from(on_time))
            .map_err(|e| EngineError::arrow(&self.aggregation.name, &e))
    }
}

impl Operator for PartialSessions {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        let rows = self.on_time(batch, out)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let arrow = |e| EngineError::arrow(&self.aggregation.name, &e);
        let times = event_times(&self.aggregation.name, &rows, self.time)?;
        let input = self.aggregation.evaluate(&rows)?;
        let mut keys = Vec::new();
        let mut index = KeyIndex::new(self.aggregation.key_types()).map_err(arrow)?;
        index.intern(input.keys(), rows.num_rows(), &mut keys).map_err(arrow)?;

        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        order.sort_by_key(|row| (keys[*row as usize], times.value(*row as usize)));
        let same_session = |a: &u32, b: &u32| {
            let (a, b) = (*a as usize, *b as usize);
            keys[a] == keys[b] && times.value(b) - times.value(a) <= self.gap
        };
        let mut sessions = vec![0; rows.num_rows()];
        let (mut heads, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for run in order.chunk_by(same_session) {
            run.iter().for_each(|row| sessions[*row as usize] = heads.len());
            heads.push(run[0]);
            starts.push(times.value(run[0] as usize));
            ends.push(times.value(run[run.len() - 1] as usize) + self.gap);
        }
        let mut groups = self.aggregation.groups()?;
        groups.update_groups(&self.aggregation, &input, &sessions, heads.len())?;
        let states = groups.take_states(&self.aggregation)?;
        let count = heads.len();
        let heads = UInt32Array::from(heads);
        let mut columns = input
            .keys()
            .iter()
            .map(|k| compute::take(k, &heads, None))
            .collect::<Result<Vec<_>, _>>()
            .map_err(arrow)?;
        columns.push(Arc::new(Int64Array::from(starts)));
        columns.push(Arc::new(Int64Array::from(ends)));
        columns.push(Arc::new(BooleanArray::from(vec![false; count])) as ArrayRef);
        columns.extend(states);
        out.main.push(StreamBatch::on_time(partial_rows(&self.aggregation, columns)?));
        Ok(())
    }
}

fn partial_rows(aggregation: &Aggregation, columns: Vec<ArrayRef>) -> Result<RecordBatch, EngineError> {
    RecordBatch::try_new(aggregation.partial_schema.clone(), columns)
        .map_err(|e| EngineError::Bug(format!("{}: partial aggregates: {e}", aggregation.name)))
}

/// An open session: where its partial aggregates lie in the store.
struct Session {
    key: OwnedRow,
    span: Span,
    fragments: Vec<(u32, u32)>,
}

/// Second step: joins sessions of one key that touch.
pub(crate) struct SessionAggregate {
    aggregation: Arc<Aggregation>,
    converter: KeyConverter,
    output: WindowOutput,
    watermark: i64,
    sessions: HashMap<u64, Session>,
    /// Open sessions of each key, in the order of time: none touches another.
    by_key: HashMap<OwnedRow, Vec<(Span, u64)>>,
    by_end: BTreeSet<(i64, u64)>,
    next_session: u64,
    /// Partial aggregates by batch number, with the number of rows that some session still needs.
    store: BTreeMap<u32, (RecordBatch, usize)>,
    next_batch: u32,
    log: PartialLog,
}

impl SessionAggregate {
    /// An operator without state.
    pub(crate) fn new(aggregation: Arc<Aggregation>, output: WindowOutput) -> Result<Self, EngineError> {
        let converter =
            KeyConverter::new(aggregation.key_types()).map_err(|e| EngineError::arrow(&aggregation.name, &e))?;
        Ok(SessionAggregate {
            aggregation,
            converter,
            output,
            watermark: i64::MIN,
            sessions: HashMap::new(),
            by_key: HashMap::new(),
            by_end: BTreeSet::new(),
            next_session: 0,
            store: BTreeMap::new(),
            next_batch: 0,
            log: PartialLog::default(),
        })
    }

    /// Adds partial aggregates, each to the sessions of its key that it touches.
    fn add(&mut self, partial: &RecordBatch) -> Result<(), EngineError> {
        let key_count = self.aggregation.key_count();
        let starts = partial.column(key_count).as_primitive::<Int64Type>();
        let ends = partial.column(key_count + 1).as_primitive::<Int64Type>();
        let keys = self.converter.keys(&partial.columns()[..key_count], partial.num_rows());
        let keys = keys.map_err(|e| EngineError::arrow(&self.aggregation.name, &e))?;
        let batch = self.next_batch;
        self.next_batch += 1;
        self.store.insert(batch, (partial.clone(), partial.num_rows()));
        for (row, key) in keys.into_iter().enumerate() {
            let span = Span { start: starts.value(row), end: ends.value(row) };
            self.join(key, span, (batch, row as u32))?;
        }
        Ok(())
    }

    fn join(&mut self, key: OwnedRow, mut span: Span, fragment: (u32, u32)) -> Result<(), EngineError> {
        let known = self.by_key.entry(key.clone()).or_default();
        // A key may have many open sessions, where the watermark is far behind its rows.
        let behind = known.partition_point(|(other, _)| other.start <= span.end);
        let first = known[..behind].partition_point(|(other, _)| other.end < span.start);
        let mut fragments = Vec::new();
        let id = self.next_session;
        self.next_session += 1;
        for (other, touching) in &known[first..behind] {
            let session = self.sessions.remove(touching).expect("known by its key");
            self.by_end.remove(&(other.end, *touching));
            span = Span { start: span.start.min(other.start), end: span.end.max(other.end) };
            fragments.extend(session.fragments);
        }
        known.splice(first..behind, [(span, id)]);
        fragments.push(fragment);
        self.by_end.insert((span.end, id));
        let crowded = fragments.len() > FRAGMENTS_MAX;
        self.sessions.insert(id, Session { key, span, fragments });
        if crowded { self.condense(&[id]).map(drop) } else { Ok(()) }
    }

    /// One row of a stored batch is no longer needed.
    fn release(&mut self, batch: u32) {
        if let Some((_, needed)) = self.store.get_mut(&batch) {
            *needed -= 1;
            if *needed == 0 {
                self.store.remove(&batch);
            }
        }
    }

    /// The stored rows of some sessions together, and for each row the position of its session.
    fn gather(&self, ids: &[u64]) -> Result<(RecordBatch, Vec<usize>), EngineError> {
        let mut positions = HashMap::new();
        let mut batches = Vec::new();
        let mut rows = Vec::new();
        let mut groups = Vec::new();
        for (group, id) in ids.iter().enumerate() {
            for (batch, row) in &self.sessions[id].fragments {
                let position = *positions.entry(*batch).or_insert_with(|| {
                    batches.push(&self.store[batch].0);
                    batches.len() - 1
                });
                rows.push((position, *row as usize));
                groups.push(group);
            }
        }
        let gathered = compute::interleave_record_batch(&batches, &rows);
        Ok((gathered.map_err(|e| EngineError::arrow(&self.aggregation.name, &e))?, groups))
    }

    /// Merges the partial aggregates of each session into one row and stores those in place of them. Gives the
    /// rows.
    fn condense(&mut self, ids: &[u64]) -> Result<RecordBatch, EngineError> {
        let (fragments, sessions) = self.gather(ids)?;
        let mut groups = self.aggregation.groups()?;
        groups.merge_groups(&self.aggregation, &fragments, &sessions, ids.len())?;
        let states = groups.take_states(&self.aggregation)?;
        let mut columns = self.keys_of(&fragments, &sessions)?;
        let spans = || ids.iter().map(|id| self.sessions[id].span);
        columns.push(Arc::new(Int64Array::from_iter_values(spans().map(|s| s.start))));
        columns.push(Arc::new(Int64Array::from_iter_values(spans().map(|s| s.end))));
        columns.push(Arc::new(BooleanArray::from(vec![false; ids.len()])));
        columns.extend(states);
        let condensed = partial_rows(&self.aggregation, columns)?;
        let batch = self.next_batch;
        self.next_batch += 1;
        for (row, id) in ids.iter().enumerate() {
            let session = self.sessions.get_mut(id).expect("the caller has listed it");
            let freed = std::mem::replace(&mut session.fragments, vec![(batch, row as u32)]);
            freed.into_iter().for_each(|(old, _)| self.release(old));
        }
        self.store.insert(batch, (condensed.clone(), ids.len()));
        Ok(condensed)
    }

    /// The key columns of sessions, from the first of the gathered rows of each.
    fn keys_of(&self, fragments: &RecordBatch, sessions: &[usize]) -> Result<Vec<ArrayRef>, EngineError> {
        let first = |row: &usize| *row == 0 || sessions[*row] != sessions[*row - 1];
        let heads: UInt32Array = (0..sessions.len()).filter(first).map(|row| Some(row as u32)).collect();
        let keys = &fragments.columns()[..self.aggregation.key_count()];
        let keys = keys.iter().map(|k| compute::take(k, &heads, None)).collect::<Result<Vec<_>, _>>();
        keys.map_err(|e| EngineError::arrow(&self.aggregation.name, &e))
    }

    fn close(&mut self, ids: &[u64], out: &mut Collector) -> Result<(), EngineError> {
        let (fragments, sessions) = self.gather(ids)?;
        let mut groups = self.aggregation.groups()?;
        groups.merge_groups(&self.aggregation, &fragments, &sessions, ids.len())?;
        let mut columns = self.keys_of(&fragments, &sessions)?;
        columns.extend(groups.take_results(&self.aggregation)?);
        let mut spans = Vec::with_capacity(ids.len());
        for id in ids {
            let session = self.sessions.remove(id).expect("the caller has listed it");
            spans.push(session.span);
            if let Some(others) = self.by_key.get_mut(&session.key) {
                let at = others.partition_point(|(other, _)| other.start < session.span.start);
                let (_, closed) = others.remove(at);
                debug_assert_eq!(closed, *id, "sessions of a key are disjoint");
                if others.is_empty() {
                    self.by_key.remove(&session.key);
                }
            }
            session.fragments.iter().for_each(|(batch, _)| self.release(*batch));
        }
        emit(&self.aggregation.name, &self.output, columns, &spans, out)
    }

    /// All open sessions as one row each, by blocks, with the end after which they are not needed.
    fn whole_state(&mut self) -> Result<Vec<(RecordBatch, i64)>, EngineError> {
        let ids: Vec<u64> = self.by_end.iter().map(|(_, id)| *id).collect();
        let mut whole = Vec::new();
        for block in ids.chunks(EMIT_ROWS_MAX) {
            let last_end = block.iter().map(|id| self.sessions[id].span.end).max().unwrap_or(i64::MIN);
            whole.push((self.condense(block)?, last_end));
        }
        Ok(whole)
    }

    /// Rewrites the store when most of what it holds is dead.
    fn tidy_store(&mut self) -> Result<(), EngineError> {
        let (stored, live) = self.store.values().fold((0, 0), |(s, l), (b, needed)| (s + b.num_rows(), l + needed));
        if stored - live > live + DEAD_ROWS_MAX { self.whole_state().map(drop) } else { Ok(()) }
    }
}

impl Operator for SessionAggregate {
    fn state_bytes(&self) -> usize {
        let of_session = |session: &Session| session.key.as_ref().len() + memory::of_vec(&session.fragments);
        let of_key = |(key, spans): (&OwnedRow, &Vec<(Span, u64)>)| key.as_ref().len() + memory::of_vec(spans);
        let sessions = &self.sessions;
        let by_key = memory::of_sampled(self.by_key.len(), self.by_key.iter(), of_key);
        memory::of_map(sessions)
            + memory::of_sampled(sessions.len(), sessions.values(), of_session)
            + memory::of_map(&self.by_key)
            + by_key
            + memory::of_tree_len::<(i64, u64), ()>(self.by_end.len())
            + self.store.values().map(|(rows, _)| memory::of_rows(rows)).sum::<usize>()
            + self.log.bytes()
    }

    fn next_due(&self) -> Option<Timestamp> {
        Some(self.by_end.first().map_or(Timestamp::MAX, |(end, _)| Timestamp(*end)))
    }

    fn process(&mut self, _input: usize, batch: StreamBatch, _out: &mut Collector) -> Result<(), EngineError> {
        let ends = batch.rows.column(self.aggregation.key_count() + 1).as_primitive::<Int64Type>();
        let (Some(first_end), Some(last_end)) = (compute::min(ends), compute::max(ends)) else { return Ok(()) };
        // Lateness is judged at the source, against a watermark that is never behind this one.
        if first_end <= self.watermark {
            let (name, watermark) = (&self.aggregation.name, self.watermark);
            return Err(EngineError::Bug(format!("{name}: rows up to {first_end} came after watermark {watermark}")));
        }
        self.add(&batch.rows)?;
        self.log.append(&batch.rows, last_end);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.watermark = self.watermark.max(watermark.0);
        let mut closed = Vec::new();
        while closed.len() < EMIT_ROWS_MAX
            && let Some((end, id)) = self.by_end.first().copied()
            && end <= self.watermark
        {
            self.by_end.pop_first();
            closed.push(id);
        }
        if closed.is_empty() {
            self.tidy_store()?;
            return Ok(Release::Done);
        }
        self.close(&closed, out)?;
        Ok(Release::Continue)
    }

    fn watermark_out(&self, watermark: Timestamp) -> Timestamp {
        // A session leaves when the watermark is at its end, a millisecond after its window time.
        held_back(watermark, 1)
    }

    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        // A fragment may belong to any open session that began before the fragment ends.
        let oldest = self.sessions.values().map(|s| s.span.start).min().unwrap_or(i64::MAX);
        self.log.forget_closed(|end| end < oldest);
        let whole = if self.log.wants_whole_state() { Some(self.whole_state()?) } else { None };
        let meta = WindowMeta { watermark: self.watermark };
        let live_rows = self.store.values().map(|(_, live)| live).sum::<usize>() as u64;
        Ok(Some(self.log.capture(whole, self.aggregation.key_count(), &meta, live_rows)))
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.watermark = WindowMeta::watermark_of(metas)?;
        Ok(())
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        let mut last_end = i64::MIN;
        for rows in PartialLog::restored_rows(&state) {
            let rows = rows?;
            let ends = rows.column(self.aggregation.key_count() + 1).as_primitive::<Int64Type>();
            last_end = last_end.max(compute::max(ends).unwrap_or(i64::MIN));
            // The watermark is not applied yet: a fragment that ends before it may be part of a session that
            // goes on. Sessions that were emitted come together again as a whole, and are dropped below.
            self.add(&rows)?;
        }
        self.log.restored(state.handle, last_end);
        Ok(())
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        let emitted: Vec<u64> =
            self.by_end.iter().take_while(|(end, _)| *end <= self.watermark).map(|(_, id)| *id).collect();
        // Emitted before the checkpoint: closed again, without output.
        for block in emitted.chunks(EMIT_ROWS_MAX) {
            block.iter().for_each(|id| {
                self.by_end.remove(&(self.sessions[id].span.end, *id));
            });
            self.close(block, &mut Collector::default())?;
        }
        Ok(())
    }
}
