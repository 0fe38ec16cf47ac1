//! What is counted of one subtask of an operator, and how its task spends its time. Written by the task alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mainstem_core::cluster::messages::SubtaskCounters;
use mainstem_core::time::Timestamp;
use tokio::time::Instant;

/// Counters of one subtask.
#[derive(Debug)]
pub(super) struct SubtaskMetrics {
    pub(super) rows_in: AtomicU64,
    pub(super) rows_out: AtomicU64,
    /// In milliseconds.
    pub(super) watermark: AtomicI64,
    /// Of the subtask of a task's first operator.
    pub(super) time: Arc<TimeSpent>,
}

impl Default for SubtaskMetrics {
    fn default() -> Self {
        let (rows_in, rows_out, watermark) = (AtomicU64::new(0), AtomicU64::new(0), AtomicI64::new(i64::MIN));
        SubtaskMetrics { rows_in, rows_out, watermark, time: Arc::default() }
    }
}

impl SubtaskMetrics {
    /// What it has counted, and its watermark.
    pub(super) fn read(&self, index: u32) -> (SubtaskCounters, Timestamp) {
        let [idle_us, busy_us, backpressured_us] = self.time.read();
        let (rows_in, rows_out) = (self.rows_in.load(Ordering::Relaxed), self.rows_out.load(Ordering::Relaxed));
        let counted = SubtaskCounters { index, rows_in, rows_out, busy_us, backpressured_us, idle_us };
        (counted, Timestamp(self.watermark.load(Ordering::Relaxed)))
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It waits for something to do.
    Idle,
    /// It works.
    Busy,
    /// It waits until receivers have room.
    Backpressured,
}

/// Time that a task has spent, by what it did. What it does now is in it too, so that one that waits for long is seen to.
#[derive(Debug)]
pub(crate) struct TimeSpent {
    began: Instant,
    /// Since when it does what it does: microseconds from `began`, and in the lowest two bits what that is. 0 before the
    /// task has begun.
    now: AtomicU64,
    /// Microseconds of what is over.
    spent: [AtomicU64; 3],
}

impl Default for TimeSpent {
    fn default() -> Self {
        TimeSpent { began: Instant::now(), now: AtomicU64::new(0), spent: Default::default() }
    }
}

impl TimeSpent {
    /// From now on it does this. Costs little: called twice a batch.
    pub(crate) fn note(&self, doing: Doing) {
        let at = self.close();
        self.now.store(at << 2 | doing as u64, Ordering::Relaxed);
    }

    /// The task has ended, or there is none yet.
    pub(super) fn stop(&self) {
        self.close();
        self.now.store(0, Ordering::Relaxed);
    }

    /// What the task has done until now is over; gives the time.
    fn close(&self) -> u64 {
        let (before, at) = (self.now.load(Ordering::Relaxed), self.clock());
        if before > 0 {
            self.spent[(before & 3) as usize].fetch_add(at.saturating_sub(before >> 2), Ordering::Relaxed);
        }
        at
    }

    /// Microseconds in which it was idle, busy and backpressured; all 0 before it has begun.
    fn read(&self) -> [u64; 3] {
        let mut spent = self.spent.each_ref().map(|spent| spent.load(Ordering::Relaxed));
        let now = self.now.load(Ordering::Relaxed);
        if now > 0 {
            spent[(now & 3) as usize] += self.clock().saturating_sub(now >> 2);
        }
        spent
    }

    /// Microseconds since the beginning; never 0.
    fn clock(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX >> 2) + 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_moment_is_counted_once_and_the_one_that_lasts_as_well() {
        let time = TimeSpent::default();
        assert_eq!(time.read(), [0, 0, 0]);
        for (doing, ms) in [(Doing::Idle, 7), (Doing::Busy, 20), (Doing::Backpressured, 5), (Doing::Busy, 3)] {
            time.note(doing);
            tokio::time::advance(Duration::from_millis(ms)).await;
        }
        assert_eq!(time.read(), [7_000, 23_000, 5_000]);
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(time.read(), [7_000, 33_000, 5_000]);
        time.stop();
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(time.read(), [7_000, 33_000, 5_000], "between two attempts nothing is counted");
    }
}
