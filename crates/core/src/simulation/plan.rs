//! The job that is simulated: sources with splits of rows in the order of their time, a count of rows by key and
//! window, and a sink that shows each row and each closed window. And the vocabulary of its streams.

use std::time::Duration;

use crate::ids::{KeyGroup, OperatorId, SplitId};
use crate::key_group::group_of_hash;
use crate::protocol::{Barrier, SourceSplit, SplitProgress, SplitState};
use crate::time::Timestamp;

pub(super) const SOURCE: OperatorId = OperatorId(0);
/// Counts, and feeds the sink that is chained to it.
pub(super) const COUNTER: OperatorId = OperatorId(1);
pub(super) const SINK: OperatorId = OperatorId(2);
pub(super) const KEY_GROUPS: u16 = 8;
/// Length of a window, in milliseconds.
const WINDOW: i64 = 30;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) splits: u8,
    /// Rows of each split.
    pub(super) rows: u8,
    pub(super) idle: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) split: u8,
    pub(super) position: u8,
    pub(super) key: u8,
    pub(super) time: i64,
    /// Against the watermark of its own split.
    pub(super) late: bool,
}

/// What travels between subtasks.
#[derive(Clone, Debug)]
pub(super) enum Element {
    Row(Row),
    Watermark(Timestamp),
    Barrier(Barrier, bool),
    End,
}

/// What the sink shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Out {
    Row { split: u8, position: u8, late: bool },
    Window { start: i64, key: u8, count: u32 },
}

/// A window of a key.
pub(super) type Cell = (i64, u8);

impl Plan {
    pub(super) fn row(&self, split: u8, position: u8) -> Row {
        let (key, time) = ((split * 5 + position * 3) % 7, i64::from(position) * 10 + i64::from(split) * 4);
        Row { split, position, key, time, late: false }
    }

    pub(super) fn source_splits(&self) -> Vec<SourceSplit> {
        let split = |n: u8| SourceSplit { id: SplitId(n.to_string()), payload: "file".to_owned() };
        (0..self.splits).map(split).collect()
    }

    /// How many rows of a split have been read.
    pub(super) fn position(&self, state: &SplitState) -> u8 {
        match &state.progress {
            None => 0,
            Some(SplitProgress::Finished) => self.rows,
            Some(SplitProgress::Reading { position, .. }) => position.parse().expect("written by a source"),
        }
    }
}

pub(super) fn split_number(id: &SplitId) -> u8 {
    id.0.parse().expect("named by its number")
}

/// The start of a row's window.
pub(super) fn window_of(time: i64) -> i64 {
    time.div_euclid(WINDOW) * WINDOW
}

/// Whether a window is over when the watermark is reached.
pub(super) fn is_closed(start: i64, watermark: Timestamp) -> bool {
    Timestamp(start + WINDOW - 1) <= watermark
}

pub(super) fn group_of_key(key: u8) -> KeyGroup {
    group_of_hash((u64::from(key) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), KEY_GROUPS)
}
