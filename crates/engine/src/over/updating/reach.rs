//! How far a change among the rows of a partition reaches: which results it can have changed, and which rows these
//! depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::row_codec::RowBytes;

/// A row, and which of several equal ones it is.
pub(super) type Key = (RowBytes, u64);

/// What is known of a row.
pub(super) struct Known {
    /// The results that were given for it; none yet.
    pub(super) results: Option<RowBytes>,
    /// The first order column, by which the distance of RANGE is measured.
    pub(super) value: Option<i64>,
}

/// Rows of one partition in order.
pub(super) type Rows = BTreeMap<Key, Known>;

/// How far a row's results depend on others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// On all rows before.
    pub(super) all: bool,
    /// On so many rows before, and behind.
    pub(super) before: usize,
    pub(super) behind: usize,
    /// On rows whose first order column is so near.
    pub(super) distance: Option<i64>,
}

/// What a batch has changed in one partition.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) changed: BTreeSet<Key>,
    /// Rows that are gone, with the results that were given for them.
    pub(super) gone: BTreeMap<Key, RowBytes>,
    /// The greatest value of the first order column among the changed rows that have one.
    pub(super) greatest: Option<i64>,
}

/// Rows of a partition that lie side by side, of some of which the results are wanted.
pub(super) struct Part {
    pub(super) keys: Vec<Key>,
    pub(super) give: usize,
    pub(super) give_end: usize,
}

impl Part {
    /// All rows.
    pub(super) fn whole(rows: &Rows) -> Part {
        let keys: Vec<Key> = rows.keys().cloned().collect();
        Part { give: 0, give_end: keys.len(), keys }
    }
}

impl Touched {
    pub(super) fn note(&mut self, key: &Key, value: Option<i64>) {
        self.changed.insert(key.clone());
        if let Some(value) = value {
            self.greatest = Some(self.greatest.map_or(value, |greatest| greatest.max(value)));
        }
    }
}

impl Reach {
    /// The rows whose results the changes can have changed, with those that they see; none where no row is left.
    pub(super) fn part(&self, rows: &Rows, touched: &Touched) -> Option<Part> {
        let (first, last) = (touched.changed.first()?, touched.changed.last()?);
        if rows.is_empty() {
            return None;
        }
        if self.all {
            return Some(Part::whole(rows));
        }
        // Behind the last changed row: rows that see it.
        let limit = touched.greatest.zip(self.distance).map(|(value, distance)| value.saturating_add(distance));
        let mut affected: Vec<Key> = rows.range(first..=last).map(|(key, _)| key.clone()).collect();
        let mut behind = rows.range((Bound::Excluded(last), Bound::Unbounded)).peekable();
        let mut nth = 0;
        while let Some((key, known)) = behind.peek()
            && (nth < self.before
                || key.0.is_tie(&last.0)
                || limit.zip(known.value).is_some_and(|(limit, value)| value <= limit))
        {
            affected.push((*key).clone());
            behind.next();
            nth += 1;
        }
        let give_rows = affected.len();
        let seen_behind: Vec<Key> = behind.take(self.behind).map(|(key, _)| key.clone()).collect();
        // Before the first changed row: rows that see it, then rows that these see.
        let mut front: Vec<Key> = Vec::new();
        let mut before = rows.range(..first).rev().peekable();
        while let Some((key, _)) = before.peek()
            && (front.len() < self.behind || key.0.is_tie(&first.0))
        {
            front.push((*key).clone());
            before.next();
        }
        let affected_front = front.len();
        let earliest = front.last().or(affected.first()).or(seen_behind.first());
        let start = earliest.and_then(|key| rows.get(key)).and_then(|known| known.value);
        let start_key = earliest.cloned();
        while let Some((key, known)) = before.peek()
            && (front.len() - affected_front < self.before
                || start_key.as_ref().is_some_and(|start| key.0.is_tie(&start.0))
                || self
                    .distance
                    .zip(start)
                    .zip(known.value)
                    .is_some_and(|((distance, start), value)| start.saturating_sub(value) <= distance))
        {
            front.push((*key).clone());
            before.next();
        }
        front.reverse();
        let give = front.len() - affected_front;
        let give_end = front.len() + give_rows;
        front.extend(affected);
        front.extend(seen_behind);
        Some(Part { keys: front, give, give_end })
    }
}
