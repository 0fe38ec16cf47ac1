//! The rows of one side of an interval join, in segments of event time. Each segment has an index by key, and is
//! dropped as a whole when the watermark has released all that it can hold.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::join::kept_rows::KeptRows;
use crate::join::key_index::{KeyFormat, KeyIndex, Keys};
use crate::memory;
use mainstem_core::time::Timestamp;

/// Shortest segment, so that an interval of no length does not make one for each millisecond.
const SEGMENT_MS_MIN: i64 = 1_000;
/// So many segments cover the interval.
const SEGMENTS: i64 = 4;

/// Rows whose times lie in one stretch.
pub(super) struct Segment {
    /// Which stretch: times divided by the length of segments.
    bucket: i64,
    pub(super) rows: KeptRows,
    pub(super) times: Vec<i64>,
    /// The watermark of the split of each row that was behind it; `i64::MIN` for others.
    pub(super) own: Vec<i64>,
    pub(super) index: KeyIndex,
    /// Numbers by which a row is found again among what was captured; only where matches are noted.
    pub(super) ids: Vec<i64>,
    /// Whether the row has had a partner; only where matches are noted.
    pub(super) matched: Vec<bool>,
    /// Rows of lower number are in a checkpoint.
    pub(super) captured: u32,
    /// Rows in a checkpoint that have had their first partner since.
    pub(super) newly_matched: Vec<u32>,
    /// Rows by time, once some of them have been released. Those before `released` are done with.
    order: Vec<u32>,
    released: usize,
}

/// See the module.
pub(super) struct Side {
    schema: SchemaRef,
    segment_ms: i64,
    /// A row is released when the watermark is so much past its time (ms; may be negative).
    pub(super) reach: i64,
    /// Whether it is noted which rows have had a partner.
    pub(super) notes_matches: bool,
    pub(super) segments: VecDeque<Segment>,
    next_id: i64,
}

/// Rows to be kept: their positions in a batch, times and own watermarks.
pub(super) struct Kept<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) keys: &'a Keys,
    /// Positions of the rows.
    pub(super) positions: Vec<u32>,
    /// Of all rows of the batch.
    pub(super) times: &'a [i64],
    /// Of all rows of the batch.
    pub(super) own: &'a [i64],
    /// Of all rows of the batch; empty where matches are not noted.
    pub(super) matched: &'a [bool],
}

impl Side {
    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let of_segment = |segment: &Segment| {
            segment.rows.bytes()
                + memory::of_vec(&segment.times)
                + memory::of_vec(&segment.own)
                + segment.index.bytes()
                + memory::of_vec(&segment.ids)
                + memory::of_vec(&segment.matched)
                + memory::of_vec(&segment.order)
        };
        self.segments.iter().map(of_segment).sum()
    }

    /// The least watermark that can release a row.
    pub(super) fn next_due(&self) -> Timestamp {
        let first = self.segments.front().map(|segment| segment.bucket.saturating_mul(self.segment_ms));
        Timestamp(first.map_or(i64::MAX, |first| first.saturating_add(self.reach)))
    }

    /// A side without rows. `length_ms`: of the interval.
    pub(super) fn new(schema: SchemaRef, length_ms: i64, reach: i64, notes_matches: bool) -> Self {
        let segment_ms = (length_ms / SEGMENTS).max(SEGMENT_MS_MIN);
        Side { schema, segment_ms, reach, notes_matches, segments: VecDeque::new(), next_id: 0 }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.times.len()).sum()
    }

    /// Whether a row of that time can find no more partners.
    pub(super) fn is_released(&self, time: i64, watermark: i64) -> bool {
        watermark >= time.saturating_add(self.reach)
    }

    /// The segments that hold times from `low` to `high`.
    pub(super) fn between(&self, low: i64, high: i64) -> std::ops::Range<usize> {
        let (low, high) = (low.div_euclid(self.segment_ms), high.div_euclid(self.segment_ms));
        let begin = self.segments.partition_point(|segment| segment.bucket < low);
        let end = self.segments.partition_point(|segment| segment.bucket <= high);
        begin..end.max(begin)
    }

    fn segment(&mut self, bucket: i64, format: &KeyFormat) -> &mut Segment {
        let at = self.segments.partition_point(|segment| segment.bucket < bucket);
        if self.segments.get(at).is_none_or(|segment| segment.bucket != bucket) {
            let segment = Segment {
                bucket,
                rows: KeptRows::new(self.schema.clone()),
                times: Vec::new(),
                own: Vec::new(),
                index: format.index(),
                ids: Vec::new(),
                matched: Vec::new(),
                captured: 0,
                newly_matched: Vec::new(),
                order: Vec::new(),
                released: 0,
            };
            self.segments.insert(at, segment);
        }
        &mut self.segments[at]
    }

    /// Adds rows; `ids` are those that they had before a restore.
    pub(super) fn keep(&mut self, kept: Kept<'_>, ids: Option<&[i64]>, format: &KeyFormat) -> Result<(), ArrowError> {
        let bucket_of = |row: &u32| kept.times[*row as usize].div_euclid(self.segment_ms);
        let mut positions = kept.positions;
        if !positions.is_sorted_by_key(bucket_of) {
            positions.sort_by_key(bucket_of);
        }
        let runs: Vec<&[u32]> = positions.chunk_by(|a, b| bucket_of(a) == bucket_of(b)).collect();
        let buckets: Vec<i64> = runs.iter().map(|run| bucket_of(&run[0])).collect();
        let (notes_matches, mut next_id) = (self.notes_matches, self.next_id);
        for (run, bucket) in runs.into_iter().zip(buckets) {
            let segment = self.segment(bucket, format);
            if run.len() == kept.rows.num_rows() {
                segment.rows.push(kept.rows)?;
            } else {
                segment.rows.push(&compute::take_record_batch(kept.rows, &UInt32Array::from(run.to_vec()))?)?;
            }
            for row in run.iter().map(|row| *row as usize) {
                segment.times.push(kept.times[row]);
                segment.own.push(kept.own[row]);
                segment.index.push(kept.keys, row);
                if notes_matches {
                    segment.matched.push(kept.matched[row]);
                    segment.ids.push(ids.map_or(next_id, |ids| ids[row]));
                    next_id = next_id.max(*segment.ids.last().expect("just added") + 1);
                }
            }
        }
        self.next_id = next_id;
        Ok(())
    }

    /// Notes that a row has had a partner; true when it is the first.
    pub(super) fn note_match(&mut self, segment: usize, row: u32) -> bool {
        let segment = &mut self.segments[segment];
        let first = !std::mem::replace(&mut segment.matched[row as usize], true);
        if first && row < segment.captured {
            segment.newly_matched.push(row);
        }
        first
    }

    /// Up to `rows_max` rows that the watermark releases and that never had a partner: segment and row.
    /// Call until there are none, then [`Side::drop_released`].
    pub(super) fn release(&mut self, watermark: i64, rows_max: usize) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        for (number, segment) in self.segments.iter_mut().enumerate() {
            let first = segment.bucket.saturating_mul(self.segment_ms);
            if watermark < first.saturating_add(self.reach) || found.len() >= rows_max {
                break;
            }
            let known = segment.order.len();
            if known < segment.times.len() {
                segment.order.extend(known as u32..segment.times.len() as u32);
                let times = &segment.times;
                segment.order[segment.released..].sort_by_key(|row| times[*row as usize]);
            }
            while let Some(row) = segment.order.get(segment.released)
                && watermark >= segment.times[*row as usize].saturating_add(self.reach)
                && found.len() < rows_max
            {
                segment.released += 1;
                if !segment.matched[*row as usize] {
                    found.push((number, *row));
                }
            }
        }
        found
    }

    /// Drops the segments all of whose rows the watermark has released.
    pub(super) fn drop_released(&mut self, watermark: i64) {
        while let Some(segment) = self.segments.front() {
            let last = segment.bucket.saturating_add(1).saturating_mul(self.segment_ms).saturating_sub(1);
            if watermark < last.saturating_add(self.reach) {
                break;
            }
            self.segments.pop_front();
        }
    }

    /// The columns of rows by segment and row.
    pub(super) fn columns(&self, rows: &[(usize, u32)]) -> Result<Vec<ArrayRef>, ArrowError> {
        let (low, high) = rows.iter().fold((usize::MAX, 0), |(low, high), (s, _)| (low.min(*s), high.max(*s)));
        if rows.is_empty() {
            return Ok(self.schema.fields().iter().map(|f| arrow::array::new_empty_array(f.data_type())).collect());
        }
        let segments = || self.segments.range(low..=high);
        let mut firsts = Vec::with_capacity(high - low + 1);
        let mut chunks = 0;
        for segment in segments() {
            firsts.push(chunks);
            chunks += segment.rows.chunks().len();
        }
        let place = |(segment, row): &(usize, u32)| {
            let (chunk, row) = self.segments[*segment].rows.locate(*row);
            (firsts[segment - low] + chunk, row)
        };
        let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
        let batches = segments().flat_map(|segment| segment.rows.chunks());
        crate::join::kept_rows::gather(&self.schema, batches, &places, false)
    }
}

/// The rows of a segment that a checkpoint is to hold, with what is noted of them.
pub(super) struct Noted {
    pub(super) rows: Vec<RecordBatch>,
    pub(super) own: Vec<i64>,
    pub(super) ids: Vec<i64>,
    pub(super) matched: Vec<bool>,
    /// The greatest time of them.
    pub(super) last_time: i64,
}

impl Segment {
    /// What has changed since the last checkpoint, or everything.
    pub(super) fn noted(&mut self, whole: bool) -> Result<Noted, ArrowError> {
        let from = if whole { 0 } else { self.captured };
        let rows = self.rows.since(from);
        let mut noted = Noted { rows, own: Vec::new(), ids: Vec::new(), matched: Vec::new(), last_time: i64::MIN };
        let mut add = |row: usize| {
            noted.last_time = noted.last_time.max(self.times[row]);
            noted.own.push(self.own[row]);
            if !self.ids.is_empty() {
                noted.ids.push(self.ids[row]);
                noted.matched.push(self.matched[row]);
            }
        };
        (from as usize..self.times.len()).for_each(&mut add);
        if !whole && !self.newly_matched.is_empty() {
            self.newly_matched.iter().for_each(|row| add(*row as usize));
            let again: Vec<Option<u32>> = self.newly_matched.iter().map(|row| Some(*row)).collect();
            let columns = self.rows.columns(&again)?;
            noted.rows.push(RecordBatch::try_new(self.rows.chunks()[0].schema(), columns)?);
        }
        self.newly_matched.clear();
        self.captured = self.times.len() as u32;
        Ok(noted)
    }
}
