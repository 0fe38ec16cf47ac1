//! What the generating sources (`nexmark`, `datagen`) share. Rows are numbered 0, 1, 2, ...; a split owns every
//! so many blocks of consecutive numbers, so that all splits advance together in event time. Called by the
//! source modules; must never let a row depend on anything but the options and its number, since a restore
//! reads the same numbers again and expects the same rows.

mod random;

use std::ops::Range;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use mainstem_core::time::Timestamp;
use mainstem_rt::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::ConnectorError;
use crate::source::{ReaderEvent, SourceReader, SplitEnumerator};
use crate::table::Options;

pub(crate) use random::{Random, below, derive, hex_digits, letters, unit};

/// Where generated event time begins unless the user says otherwise: 2026-01-01 00:00:00 UTC, in ms.
const BASE_TIME_DEFAULT_MS: i64 = 1_767_225_600_000;
/// The latest and earliest accepted base time: the years 0001 to 9999, in ms.
const BASE_TIME_RANGE_MS: Range<i64> = -62_135_596_800_000..253_402_300_800_000;
/// More splits than this help nobody.
const SPLITS_MAX: u32 = 4096;
/// Consecutive numbers of one split, where rows come as fast as they can.
const BLOCK_MAX: u64 = 1000;
/// A number above this never occurs: at a billion rows a second it would take more than a hundred years.
const NUMBER_MAX: u64 = 1 << 62;
/// A paced reader waits at least so long where rows are few, so that a batch has more than a row or two.
const PACE_STEP_MS: u64 = 10;
/// With so many rows due it need not wait longer.
const PACE_STEP_ROWS: u64 = 256;
/// A paced reader gives an empty batch when so long nothing was due, so that no caller waits for a slow rate.
const PACE_WAIT_MS_MAX: u64 = 100;

/// Makes the rows of the numbers that it is given.
pub(crate) trait RowGenerator: Send {
    /// About `rows` rows from the next numbers of the cursor, which is moved past every number that was looked
    /// at. Fewer, or none, where the cursor's limit comes first or few numbers give a row.
    fn generate(&mut self, cursor: &mut Cursor, rows: usize) -> Result<RecordBatch, ConnectorError>;
}

/// How the numbers are dealt out and paced.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// One past the last number; absent: unbounded.
    pub(crate) end: Option<u64>,
    /// Numbers a second by the wall clock; absent: as fast as possible.
    pub(crate) pace_per_second: Option<u64>,
    /// Where number 0 is due at this time of day (ms), and so are all others by the clock; absent: the first number that is
    /// read is due at once, and the pace counts from there.
    pub(crate) due_from_ms: Option<i64>,
    /// Number of splits; absent: the source's parallelism.
    pub(crate) splits: Option<u32>,
}

impl Schedule {
    /// Reads the option `splits`; the rest is given.
    pub(crate) fn new(
        options: &mut Options<'_>,
        end: Option<u64>,
        pace_per_second: Option<u64>,
    ) -> Result<Schedule, ConnectorError> {
        let splits = options.parse_optional::<u32>("splits")?;
        if splits.is_some_and(|s| s == 0 || s > SPLITS_MAX) {
            return Err(ConnectorError::option(format!("option 'splits' must be between 1 and {SPLITS_MAX}")));
        }
        if end.is_some_and(|end| end > NUMBER_MAX) {
            return Err(ConnectorError::option(format!("a generator gives at most {NUMBER_MAX} rows; ask for fewer")));
        }
        Ok(Schedule { end, pace_per_second, due_from_ms: None, splits })
    }

    /// The enumerator of a source with this schedule.
    pub(crate) fn enumerator(&self, parallelism: u32) -> Box<dyn SplitEnumerator> {
        // A slow stream in large blocks would give all rows of several seconds to one split, then to the next.
        let block = self.pace_per_second.map_or(BLOCK_MAX, |pace| (pace / 100).clamp(1, BLOCK_MAX));
        Box::new(GeneratorEnumerator { splits: self.splits.unwrap_or(parallelism).clamp(1, SPLITS_MAX), block })
    }
}

/// Reads the option `base-time`: milliseconds since 1970, or a timestamp as text. Gives milliseconds.
pub(crate) fn base_time_ms(options: &mut Options<'_>) -> Result<i64, ConnectorError> {
    let Some(text) = options.get("base-time").map(str::trim) else { return Ok(BASE_TIME_DEFAULT_MS) };
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let from_text = || {
        formats
            .iter()
            .find_map(|f| chrono::NaiveDateTime::parse_from_str(text, f).ok())
            .map(|t| t.and_utc().timestamp_millis())
    };
    text.parse::<i64>().ok().or_else(from_text).filter(|ms| BASE_TIME_RANGE_MS.contains(ms)).ok_or_else(|| {
        ConnectorError::option(format!(
            "option 'base-time' has the value '{text}': expected milliseconds since 1970 or a timestamp such as '2026-01-01 00:00:00'"
        ))
    })
}

/// Event time of a number, in ms since 1970, where `per_second` numbers come a second.
#[inline]
pub(crate) fn event_time_ms(base_time_ms: i64, number: u64, per_second: u64) -> i64 {
    // Numbers that fit are the rule, and a division of 64 bits is much cheaper than one of 128.
    let ms = match number.checked_mul(1000) {
        Some(thousandfold) => (thousandfold / per_second) as i64,
        None => i64::try_from(u128::from(number) * 1000 / u128::from(per_second)).unwrap_or(i64::MAX),
    };
    base_time_ms.saturating_add(ms)
}

/// The numbers of one split: every `splits`-th block of `block` numbers, beginning with block `index`. This is
/// the payload of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    index: u64,
    splits: u64,
    block: u64,
}

impl Share {
    fn is_valid(self) -> bool {
        self.block > 0 && self.block <= BLOCK_MAX && self.index < self.splits && self.splits <= u64::from(SPLITS_MAX)
    }

    /// The least number of this share that is not below `number`.
    fn first_from(self, number: u64) -> u64 {
        let block = number / self.block;
        let turn = block % self.splits;
        if turn == self.index {
            return number;
        }
        (block + (self.index + self.splits - turn) % self.splits) * self.block
    }

    fn block_end(self, number: u64) -> u64 {
        (number / self.block + 1) * self.block
    }
}

/// Where a split stands, and how far it may go now.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    share: Share,
    next: u64,
    limit: u64,
}

impl Cursor {
    /// The next numbers without a gap; empty when none is left below the limit.
    pub(crate) fn run(&self) -> Range<u64> {
        self.next..self.share.block_end(self.next).min(self.limit).max(self.next)
    }

    /// Goes on at `number`, or at the next number of this split after it.
    pub(crate) fn advance_to(&mut self, number: u64) {
        self.next = self.share.first_from(number);
    }
}

struct GeneratorEnumerator {
    splits: u32,
    block: u64,
}

#[async_trait]
impl SplitEnumerator for GeneratorEnumerator {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        let split = |index| {
            let share = Share { index: u64::from(index), splits: u64::from(self.splits), block: self.block };
            let payload = serde_json::to_string(&share).expect("three numbers have a JSON form");
            SourceSplit { id: SplitId(format!("part-{index}-of-{}", self.splits)), payload }
        };
        Ok((0..self.splits).map(split).collect())
    }
}

/// Reads splits of numbered rows; the position in a split is its next number. Of several splits, the one that
/// is furthest behind goes first.
pub(crate) struct GeneratorReader<G> {
    generator: G,
    schedule: Schedule,
    batch_rows: usize,
    splits: Vec<OpenSplit>,
    pace: Option<Pace>,
}

/// When which number is due.
#[derive(Clone, Copy)]
struct Pace {
    /// Some time, and how many microseconds after `first` was due it is.
    known: Instant,
    late_us: i128,
    first: u64,
    per_second: u64,
}

impl Pace {
    /// One past the last number that is due.
    fn due(self, now: Instant) -> u64 {
        let us = now.duration_since(self.known).as_micros() as i128 + self.late_us;
        match us * i128::from(self.per_second) / 1_000_000 {
            _ if us < 0 => self.first,
            numbers => self.first.saturating_add(u64::try_from(numbers + 1).unwrap_or(u64::MAX)),
        }
    }
}

struct OpenSplit {
    id: SplitId,
    cursor: Cursor,
    /// One past the last number that is wanted.
    end: u64,
}

impl<G: RowGenerator> GeneratorReader<G> {
    /// A reader without splits. `batch_rows` is what the caller wants; the generator may have a lower limit.
    pub(crate) fn new(generator: G, schedule: Schedule, batch_rows: usize) -> GeneratorReader<G> {
        GeneratorReader { generator, schedule, batch_rows: batch_rows.max(1), splits: Vec::new(), pace: None }
    }

    /// Begins with a split; no position is its first number.
    fn open(&mut self, split: SourceSplit, position: Option<&str>, end: u64) -> Result<(), ConnectorError> {
        let share = serde_json::from_str::<Share>(&split.payload).ok().filter(|s| s.is_valid());
        let share = share.ok_or_else(|| {
            let SourceSplit { id, payload } = &split;
            ConnectorError::data(format!(
                "split '{id}' of a generator is described as '{payload}', which this version cannot read"
            ))
        })?;
        let number = position.map_or(Ok(0), |text| read_position(&split.id, text))?;
        let cursor = Cursor { share, next: share.first_from(number), limit: 0 };
        self.splits.push(OpenSplit { id: split.id, cursor, end });
        Ok(())
    }

    /// One past the last number that may be given now. Waits a little where the next one is not due.
    async fn due(&mut self, next: u64) -> u64 {
        let Some(per_second) = self.schedule.pace_per_second else { return u64::MAX };
        let due_from_ms = self.schedule.due_from_ms;
        let pace = *self.pace.get_or_insert_with(|| {
            let known = Instant::now();
            match due_from_ms {
                None => Pace { known, late_us: 0, first: next, per_second },
                Some(ms) => {
                    let late_us = i128::from(SystemClock::new().now().since_ms(Timestamp(ms))) * 1000;
                    Pace { known, late_us, first: 0, per_second }
                }
            }
        });
        let due = pace.due(Instant::now());
        if due > next {
            return due;
        }
        let missing_ms = (next - due + 1).saturating_mul(1000) / per_second.max(1);
        let step_ms = (PACE_STEP_ROWS * 1000 / per_second.max(1)).clamp(1, PACE_STEP_MS);
        tokio::time::sleep(Duration::from_millis(missing_ms.clamp(step_ms, PACE_WAIT_MS_MAX))).await;
        pace.due(Instant::now())
    }
}

#[async_trait]
impl<G: RowGenerator> SourceReader for GeneratorReader<G> {
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError> {
        self.open(split, position.as_deref(), self.schedule.end.unwrap_or(NUMBER_MAX))
    }

    fn add_split_until(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: String,
    ) -> Result<(), ConnectorError> {
        let end = read_position(&split.id, &until)?;
        self.open(split, position.as_deref(), end)
    }

    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError> {
        // Nothing here ever waits for the outside, so the executor must be given a chance to run others.
        tokio::task::coop::consume_budget().await;
        let behind = self.splits.iter().enumerate().min_by_key(|(_, split)| split.cursor.next);
        let Some((index, next, end)) = behind.map(|(index, split)| (index, split.cursor.next, split.end)) else {
            return Ok(None);
        };
        if next >= end {
            let split = self.splits.remove(index).id;
            return Ok(Some(ReaderEvent::SplitFinished { split }));
        }
        let limit = self.due(next).await.min(end);
        let OpenSplit { id, cursor, .. } = &mut self.splits[index];
        cursor.limit = limit;
        let rows = self.generator.generate(cursor, self.batch_rows)?;
        Ok(Some(ReaderEvent::rows(id.clone(), rows, None, cursor.next.to_string())))
    }
}

/// The number that a position stands for.
fn read_position(split: &SplitId, text: &str) -> Result<u64, ConnectorError> {
    let number = serde_json::from_str::<u64>(text).ok().filter(|n| *n <= NUMBER_MAX);
    number.ok_or_else(|| {
        ConnectorError::data(format!(
            "the position of split '{split}' of a generator is '{text}', which this version cannot read"
        ))
    })
}

#[cfg(test)]
mod tests;
