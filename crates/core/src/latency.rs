//! How long rows take through a job: the marker that a source sends behind rows now and then, what a sink notes of those
//! that have come, and the histogram that both end in. For those who look on: no result, no checkpoint and no decision
//! depends on it.
//!
//! Times are times of day, since a marker begins on one host and ends on another: where the clocks of two hosts differ, so
//! does what is measured between them. A difference that would be negative counts as nothing.

use serde::{Deserialize, Serialize};

use crate::ids::SubtaskId;
use crate::time::Timestamp;

/// Upper bounds of the histogram's buckets, in milliseconds; what takes longer than the last one has a bucket of its own.
pub const BOUNDS_MS: [u64; 21] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// Stays behind the rows that its source had sent before it, through all queues, and has no effect on what they become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyMarker {
    /// The source subtask that has sent it.
    pub source: SubtaskId,
    /// Its number among those of the subtask and the attempt.
    pub number: u64,
    /// When the rows in front of it had been read, by the time of day.
    pub read_at: Timestamp,
    /// The tasks that it has passed, first to last, where it is to become a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Vec<Hop>>,
}

impl LatencyMarker {
    /// The task is about to hand it on. Noted where it is to become a trace.
    pub fn pass(&mut self, hop: Hop) {
        if let Some(hops) = &mut self.trace {
            hops.push(hop);
        }
    }
}

/// Which markers the sources of an attempt send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerOptions {
    /// Least time between two markers of a source subtask, in milliseconds; none: there are none.
    pub interval_ms: Option<u64>,
    /// Least time between two of them that become a trace; none: none does.
    pub trace_every_ms: Option<u64>,
}

/// A task that a marker has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The subtask, by the first operator of its task.
    pub subtask: SubtaskId,
    /// When the task took the last batch before the marker.
    pub began_at: Timestamp,
    /// When it handed the marker on.
    pub left_at: Timestamp,
}

/// A marker that has come to a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The marker.
    pub marker: LatencyMarker,
    /// When.
    pub at: Timestamp,
}

/// What a subtask of a sink tells of an epoch's markers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochArrivals {
    /// Markers, those that are to become traces first.
    pub kept: Vec<Arrival>,
    /// Traces that there was no room for.
    pub traces_dropped: u64,
}

/// Markers of one epoch that have come to a subtask of a sink: all, or evenly spread ones of many. Bounded.
#[derive(Debug)]
pub struct Arrivals {
    traced: EpochArrivals,
    kept: Vec<Arrival>,
    /// One in so many is kept.
    stride: u64,
    seen: u64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals { traced: EpochArrivals::default(), kept: Vec::new(), stride: 1, seen: 0 }
    }
}

impl Arrivals {
    /// Markers that are kept; as the next one comes, every other one is let go.
    pub const KEPT_MAX: usize = 128;
    /// Markers that are kept beside them because they are to become traces: the first ones.
    pub const TRACED_MAX: usize = 32;

    /// A marker has come.
    pub fn note(&mut self, mut arrival: Arrival) {
        if arrival.marker.trace.is_some() {
            if self.traced.kept.len() < Arrivals::TRACED_MAX {
                self.traced.kept.push(arrival);
                return;
            }
            self.traced.traces_dropped += 1;
            arrival.marker.trace = None;
        }
        let is_kept = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !is_kept {
            return;
        }
        if self.kept.len() == Arrivals::KEPT_MAX {
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.stride *= 2;
        }
        self.kept.push(arrival);
    }

    /// Ends the epoch.
    pub fn take(&mut self) -> EpochArrivals {
        let Arrivals { mut traced, kept, .. } = std::mem::take(self);
        traced.kept.extend(kept);
        traced
    }
}

/// How often something took how long. Counts only grow, and two of them add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    /// By bucket, without those at the end that are empty.
    counts: Vec<u64>,
    sum_ms: u64,
}

impl LatencyHistogram {
    /// Something took so long.
    pub fn record(&mut self, ms: i64) {
        let ms = u64::try_from(ms).unwrap_or(0);
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &LatencyHistogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }

    /// What was counted since an earlier look.
    #[must_use]
    pub fn since(&self, before: &LatencyHistogram) -> LatencyHistogram {
        let earlier = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(earlier).map(|(now, before)| now.saturating_sub(before)).collect();
        LatencyHistogram { counts, sum_ms: self.sum_ms.saturating_sub(before.sum_ms) }
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All together.
    #[must_use]
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// The upper bound of each bucket and how much lies in it alone; the last one has none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_MS.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied().chain(std::iter::repeat(0)))
    }

    /// The time within which that part (0 to 1) of all was done: linear within a bucket, as Prometheus's `histogram_quantile`
    /// has it, so at worst wrong by the width of one. The largest bound where it is more; none where nothing was counted.
    #[must_use]
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let rank = part * self.count() as f64;
        let mut below = 0;
        let mut from = 0;
        for (bound, count) in self.buckets() {
            let Some(to) = bound else { break };
            if count > 0 && (below + count) as f64 >= rank {
                return Some(from as f64 + (to - from) as f64 * (rank - below as f64) / count as f64);
            }
            (below, from) = (below + count, to);
        }
        (self.count() > 0).then_some(from as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OperatorId;

    fn histogram(times: impl IntoIterator<Item = i64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        times.into_iter().for_each(|ms| histogram.record(ms));
        histogram
    }

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_holds_it() {
        let counted = histogram([-5, 0, 1, 2, 10, 11, 3_600_000, 3_600_001]);
        let filled: Vec<_> = counted.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(Some(1), 3), (Some(2), 1), (Some(10), 1), (Some(20), 1), (Some(3_600_000), 1), (None, 1)]);
        assert_eq!((counted.count(), counted.sum_ms()), (8, 7_200_025));
        assert!(BOUNDS_MS.is_sorted());
    }

    #[test]
    fn what_is_added_can_be_told_from_what_was_there() {
        let (before, more) = (histogram([1, 30]), histogram([30, 700, 700]));
        let mut sum = before.clone();
        sum.add(&more);
        assert_eq!(sum.since(&before), more);
        assert_eq!(sum.since(&sum).count(), 0);
        assert_eq!(histogram([1]).since(&more).count(), 1, "another attempt counts anew");
    }

    #[test]
    fn quantiles_lie_within_the_bucket_of_the_rank() {
        assert_eq!(LatencyHistogram::default().quantile_ms(0.5), None);
        let counted = histogram((0..100).map(|n| if n < 90 { 15 } else { 400 }));
        assert!((10.0..=20.0).contains(&counted.quantile_ms(0.5).unwrap()));
        assert!((200.0..=500.0).contains(&counted.quantile_ms(0.99).unwrap()));
        assert_eq!(histogram([i64::MAX]).quantile_ms(0.5), Some(3_600_000.0), "at least so long");
    }

    #[test]
    fn traces_are_kept_while_there_is_room_and_counted_after() {
        let source = SubtaskId { operator: OperatorId(0), index: 0 };
        let mut arrivals = Arrivals::default();
        for number in 0..100 {
            let trace = (number % 2 == 1).then(Vec::new);
            arrivals.note(Arrival {
                marker: LatencyMarker { source, number, read_at: Timestamp(0), trace },
                at: Timestamp(1),
            });
        }
        let EpochArrivals { kept, traces_dropped } = arrivals.take();
        let (traced, others) = kept.split_at(Arrivals::TRACED_MAX);
        assert!(traced.iter().all(|arrival| arrival.marker.trace.is_some()));
        assert!(others.iter().all(|arrival| arrival.marker.trace.is_none()));
        assert_eq!((others.len(), traces_dropped), (68, 18));
    }

    #[test]
    fn of_many_markers_evenly_spread_ones_are_kept() {
        let source = SubtaskId { operator: OperatorId(0), index: 0 };
        let mut arrivals = Arrivals::default();
        for number in 0..1000 {
            let marker = LatencyMarker { source, number, read_at: Timestamp(0), trace: None };
            arrivals.note(Arrival { marker, at: Timestamp(1) });
        }
        let kept: Vec<u64> = arrivals.take().kept.iter().map(|arrival| arrival.marker.number).collect();
        assert!(kept.len() <= Arrivals::KEPT_MAX && kept.len() > Arrivals::KEPT_MAX / 2, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == 8), "{kept:?}");
        assert!(arrivals.take().kept.is_empty());
    }
}
