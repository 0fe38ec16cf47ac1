//! First step of a windowed aggregation, on the sending side of the exchange: aggregates rows by key and slice,
//! so that a hot key crosses the exchange once a slice and not once a row. Judges lateness, against the
//! watermark of the row's own split (I6). Holds nothing across a barrier.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::error::ArrowError;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::WindowKind;

use super::aggregation::{AggregateInput, Aggregation, Groups};
use super::slicing::{Slicing, Span};
use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::event_time::event_times;
use crate::late::LateRows;
use crate::operator::{Collector, Operator, Release};

/// Groups that may be held back before they are sent on; keeps the hash tables within the processor's caches.
const GROUPS_MAX: usize = 1 << 16;
/// A slice takes about as much as so many groups, however few it has.
const GROUPS_OF_SLICE: usize = 8;
/// Groups that are kept to be used again, and their bytes.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 1 << 16;
/// Rows of slices that leave as one batch: short slices have few rows, and each batch costs something on its way.
const TOGETHER_ROWS_MAX: usize = 1 << 13;

/// Where partial aggregates belong: a slice, or one window alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SliceKey {
    /// The slice, or the window.
    pub(crate) span: Span,
    /// Whether it counts for the window `span` only. A row that is late for some of the windows of its slice
    /// is sent once for each of the others, so that what it counts for does not depend on which windows the
    /// receiver happens to have closed (I6).
    pub(crate) one_window: bool,
}

/// See the module.
pub(crate) struct PartialAggregate {
    aggregation: Arc<Aggregation>,
    slicing: Slicing,
    window: WindowKind,
    time: usize,
    late: LateRows,
    slices: BTreeMap<SliceKey, Groups>,
    /// Empty ones, to be used again.
    spare: Vec<Groups>,
    rest: Option<Rest>,
}

/// What is left of a batch: rows that are late for some of their windows, with the others.
struct Rest {
    input: AggregateInput,
    behind: Vec<Behind>,
    /// The first that is not done, and how many of its windows are.
    next: usize,
    windows: usize,
}

/// A row of a slice that is closed at the watermark of its split (ms), though not all of its windows are.
struct Behind {
    row: u32,
    span: Span,
    watermark: i64,
}

impl PartialAggregate {
    /// An operator without rows.
    pub(crate) fn new(
        aggregation: Arc<Aggregation>,
        slicing: Slicing,
        window: WindowKind,
        time: usize,
        late: LateRows,
    ) -> Self {
        PartialAggregate {
            aggregation,
            slicing,
            window,
            time,
            late,
            slices: BTreeMap::new(),
            spare: Vec::new(),
            rest: None,
        }
    }

    /// The slices of the rows: each with the number of rows behind one another that fall in it.
    fn spans(&self, rows: &RecordBatch) -> Result<Vec<(Span, usize)>, EngineError> {
        let name = &self.aggregation.name;
        let mut runs: Vec<(Span, usize)> = Vec::new();
        if let WindowKind::Attached { start, end } = self.window {
            let (starts, ends) = (event_times(name, rows, start)?, event_times(name, rows, end)?);
            for (start, end) in starts.values().iter().zip(ends.values()) {
                extend(&mut runs, Span { start: *start, end: *end });
            }
            return Ok(runs);
        }
        // Rows of a slice tend to come together: the division is paid once a run.
        let times = event_times(name, rows, self.time)?;
        let mut rest: &[i64] = times.values();
        while let Some(first) = rest.first() {
            let span = self.slicing.slice_of(*first);
            let length = rest.iter().position(|time| *time < span.start || *time >= span.end).unwrap_or(rest.len());
            runs.push((span, length));
            rest = &rest[length..];
        }
        Ok(runs)
    }

    /// Adds rows to slices, of which each run of rows says its own.
    fn add(&mut self, input: &AggregateInput, runs: &[(SliceKey, usize)]) -> Result<(), EngineError> {
        if let [(only, _)] = runs {
            return self.add_to(*only, input);
        }
        let arrow = |e| EngineError::arrow(&self.aggregation.name, &e);
        let taken;
        let mut sorted_runs = runs.to_vec();
        let sorted = if runs.is_sorted_by_key(|(key, _)| *key) {
            input
        } else {
            let begins = runs.iter().scan(0, |end, (_, rows)| Some(std::mem::replace(end, *end + *rows as u32)));
            let mut order: Vec<_> = runs.iter().zip(begins).collect();
            // Stable, so that aggregates that depend on order see rows in the order of their source.
            order.sort_by_key(|((key, _), _)| *key);
            let rows = order.iter().flat_map(|((_, rows), begin)| *begin..*begin + *rows as u32);
            taken = input.take(&UInt32Array::from_iter_values(rows)).map_err(arrow)?;
            sorted_runs = order.into_iter().map(|(run, _)| *run).collect();
            &taken
        };
        let mut begin = 0;
        for of_slice in sorted_runs.chunk_by(|(a, _), (b, _)| a == b) {
            let rows = of_slice.iter().map(|(_, rows)| rows).sum();
            self.add_to(of_slice[0].0, &sorted.slice(begin, rows))?;
            begin += rows;
        }
        Ok(())
    }

    fn add_to(&mut self, key: SliceKey, input: &AggregateInput) -> Result<(), EngineError> {
        let groups = match self.slices.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(match self.spare.pop() {
                Some(groups) => groups,
                None => self.aggregation.groups()?,
            }),
        };
        groups.update(&self.aggregation, input)
    }

    /// Adds rows of which some are behind their own split's watermark: such a row counts for those of its windows that are
    /// still open, and is late without any. Those of windows of their own are left for [`Operator::go_on`].
    fn add_late(
        &mut self,
        batch: &StreamBatch,
        own_watermark: &Int64Array,
        spans: &[(Span, usize)],
        input: AggregateInput,
        out: &mut Collector,
    ) -> Result<(), EngineError> {
        let (mut on_time, mut runs) = (Vec::with_capacity(own_watermark.len()), Vec::new());
        let (mut behind, mut late) = (Vec::new(), Vec::new());
        let spans = spans.iter().flat_map(|(span, rows)| std::iter::repeat_n(*span, *rows));
        for ((row, span), watermark) in (0..).zip(spans).zip(own_watermark.values()) {
            let is_open = |window: Span| !window.is_closed_at(*watermark);
            if is_open(span) {
                on_time.push(row);
                extend(&mut runs, SliceKey { span, one_window: false });
            } else if self.slicing.windows_of(span).any(is_open) {
                behind.push(Behind { row, span, watermark: *watermark });
            } else {
                late.push(row);
            }
        }
        self.late.take(batch, self.time, own_watermark, &late, out)?;
        self.add_taken(&input, on_time, &runs)?;
        self.rest = (!behind.is_empty()).then(|| Rest { input, behind, next: 0, windows: 0 });
        self.go_on(out)
    }

    /// Adds some of what is left of a batch.
    fn add_rest(&mut self) -> Result<(), EngineError> {
        let Some(mut rest) = self.rest.take() else { return Ok(()) };
        let (mut rows, mut runs) = (Vec::new(), Vec::new());
        while let Some(Behind { row, span, watermark }) = rest.behind.get(rest.next) {
            // A row may have thousands of windows.
            let room = TOGETHER_ROWS_MAX - rows.len();
            let windows = self.slicing.windows_of(*span).skip(rest.windows).take(room);
            let mut looked_at = 0;
            for window in windows.inspect(|_| looked_at += 1).filter(|window| !window.is_closed_at(*watermark)) {
                rows.push(*row);
                extend(&mut runs, SliceKey { span: window, one_window: true });
            }
            rest.windows += looked_at;
            if looked_at == room {
                break;
            }
            (rest.next, rest.windows) = (rest.next + 1, 0);
        }
        self.add_taken(&rest.input, rows, &runs)?;
        self.rest = Some(rest).filter(|rest| rest.next < rest.behind.len());
        Ok(())
    }

    /// Hands on what there is where it is much.
    fn flush_much(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        let groups: usize = self.slices.values().map(|groups| groups.len() + GROUPS_OF_SLICE).sum();
        if groups > GROUPS_MAX { self.flush(|_| true, out) } else { Ok(()) }
    }

    fn add_taken(
        &mut self,
        input: &AggregateInput,
        rows: Vec<u32>,
        runs: &[(SliceKey, usize)],
    ) -> Result<(), EngineError> {
        let taken = input.take(&UInt32Array::from(rows));
        self.add(&taken.map_err(|e| EngineError::arrow(&self.aggregation.name, &e))?, runs)
    }

    fn flush(&mut self, which: impl Fn(&SliceKey) -> bool, out: &mut Collector) -> Result<(), EngineError> {
        let ready: Vec<SliceKey> = self.slices.keys().filter(|k| which(k)).copied().collect();
        let mut together = Vec::new();
        let mut rows = 0;
        for key in ready {
            let groups = self.slices.remove(&key).expect("listed just now");
            if rows + groups.len() > TOGETHER_ROWS_MAX && rows > 0 {
                self.send(std::mem::take(&mut together), out)?;
                rows = 0;
            }
            rows += groups.len();
            together.push((key, groups));
        }
        if rows > 0 { self.send(together, out) } else { Ok(()) }
    }

    fn send(&mut self, mut slices: Vec<(SliceKey, Groups)>, out: &mut Collector) -> Result<(), EngineError> {
        let together = slices.iter_mut().map(|(key, groups)| (*key, groups)).collect();
        out.main.push(StreamBatch::on_time(partial_batch(&self.aggregation, together)?));
        // Short slices cost more to begin than to fill.
        let small = slices.into_iter().map(|(_, groups)| groups).filter(|groups| groups.bytes() <= SPARE_BYTES_MAX);
        self.spare.extend(small.take(SPARE_MAX - self.spare.len()));
        Ok(())
    }
}

/// One more of these in runs of the same.
fn extend<T: PartialEq>(runs: &mut Vec<(T, usize)>, one: T) {
    match runs.last_mut() {
        Some((last, count)) if *last == one => *count += 1,
        _ => runs.push((one, 1)),
    }
}

/// The groups of slices as rows of the partial schema, one slice behind the other. The groups are empty afterwards.
pub(crate) fn partial_batch(
    aggregation: &Aggregation,
    slices: Vec<(SliceKey, &mut Groups)>,
) -> Result<RecordBatch, EngineError> {
    let counts: Vec<(SliceKey, usize)> = slices.iter().map(|(key, groups)| (*key, groups.len())).collect();
    let (mut keys, mut states) = (Vec::with_capacity(slices.len()), Vec::with_capacity(slices.len()));
    for (_, groups) in slices {
        let (of_keys, of_states) = groups.drain_state(aggregation)?;
        keys.push(of_keys);
        states.push(of_states);
    }
    let bug = |e| EngineError::Bug(format!("{}: partial aggregates: {e}", aggregation.name));
    let mut columns = joined(keys).map_err(bug)?;
    let repeated =
        |value: fn(&SliceKey) -> i64| counts.iter().flat_map(move |(key, n)| std::iter::repeat_n(value(key), *n));
    columns.push(Arc::new(Int64Array::from_iter_values(repeated(|key| key.span.start))));
    columns.push(Arc::new(Int64Array::from_iter_values(repeated(|key| key.span.end))));
    let one_window = counts.iter().flat_map(|(key, n)| std::iter::repeat_n(key.one_window, *n));
    columns.push(Arc::new(BooleanArray::from(one_window.collect::<Vec<bool>>())) as ArrayRef);
    columns.extend(joined(states).map_err(bug)?);
    RecordBatch::try_new(aggregation.partial_schema.clone(), columns).map_err(bug)
}

/// The columns of all parts, of which there is one at least.
fn joined(mut parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>, ArrowError> {
    if parts.len() == 1 {
        return Ok(parts.remove(0));
    }
    let column = |column: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part[column].as_ref()).collect();
        compute::concat(&arrays)
    };
    (0..parts[0].len()).map(column).collect()
}

impl Operator for PartialAggregate {
    fn process(&mut self, _input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        let spans = self.spans(&batch.rows)?;
        let input = self.aggregation.evaluate(&batch.rows)?;
        match &batch.own_watermark {
            None => {
                let of_slices = spans.into_iter().map(|(span, rows)| (SliceKey { span, one_window: false }, rows));
                self.add(&input, &of_slices.collect::<Vec<_>>())?;
            }
            Some(own_watermark) => self.add_late(&batch, own_watermark, &spans, input, out)?,
        }
        self.flush_much(out)
    }

    fn has_more(&self) -> bool {
        self.rest.is_some()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        while self.rest.is_some() && !out.is_full() {
            self.add_rest()?;
            self.flush_much(out)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        // A slice that no closing window covers may go on collecting: its first window ends where it ends.
        self.flush(|key| key.span.is_closed_at(watermark.0), out)?;
        Ok(Release::Done)
    }

    fn flush_held(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.flush(|_| true, out)
    }
}
