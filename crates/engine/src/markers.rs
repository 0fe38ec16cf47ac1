//! Latency markers where they begin and where they pass ([`LatencyMarker`]): a source sends one behind a batch that it has
//! just given, with the time at which that batch was read; a task notes when it did what. Where no rows come, none is sent.

use std::sync::Arc;

use mainstem_core::ids::SubtaskId;
use mainstem_core::latency::{Hop, LatencyMarker, MarkerOptions};
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;

/// When a source subtask sends markers. The clock of the rows is enough: there is no timer.
pub(crate) struct Markers {
    source: SubtaskId,
    options: MarkerOptions,
    /// Of the next one.
    number: u64,
    /// For which rows the last one was sent.
    sent_at: Option<Timestamp>,
    /// The same of the last one that is to become a trace.
    traced_at: Option<Timestamp>,
}

impl Markers {
    /// None was sent yet.
    pub(crate) fn new(source: SubtaskId, options: MarkerOptions) -> Markers {
        Markers { source, options, number: 1, sent_at: None, traced_at: None }
    }

    /// The marker that is to follow rows that were read then, if one is due.
    pub(crate) fn due(&mut self, read_at: Timestamp) -> Option<Box<LatencyMarker>> {
        if !is_over(self.sent_at, self.options.interval_ms, read_at) {
            return None;
        }
        self.sent_at = Some(read_at);
        let is_traced = is_over(self.traced_at, self.options.trace_every_ms, read_at);
        if is_traced {
            self.traced_at = Some(read_at);
        }
        let (source, number) = (self.source, self.number);
        self.number += 1;
        Some(Box::new(LatencyMarker { source, number, read_at, trace: is_traced.then(Vec::new) }))
    }
}

/// Whether so much time has passed since then; so it has where the clock was set back.
fn is_over(since: Option<Timestamp>, ms: Option<u64>, now: Timestamp) -> bool {
    let Some(ms) = ms else { return false };
    let passed = |since: Timestamp| u64::try_from(now.since_ms(since)).map_or(true, |passed| passed >= ms);
    since.is_none_or(passed)
}

/// What markers are told of a task that they pass.
pub(crate) struct Stamp {
    task: SubtaskId,
    clock: Arc<dyn Clock>,
    /// When the task took its last batch.
    began_at: Timestamp,
}

impl Stamp {
    /// Of a task that has taken nothing yet.
    pub(crate) fn new(task: SubtaskId, clock: Arc<dyn Clock>) -> Stamp {
        Stamp { task, clock, began_at: Timestamp::MIN }
    }

    /// What the clock says that only goes forward.
    pub(crate) fn monotonic(&self) -> Timestamp {
        self.clock.monotonic()
    }

    /// The task takes a batch.
    pub(crate) fn begin(&mut self) {
        self.began_at = self.clock.now();
    }

    /// The task hands a marker on; gives the time.
    pub(crate) fn pass(&self, marker: &mut LatencyMarker) -> Timestamp {
        let now = self.clock.now();
        marker.pass(Hop { subtask: self.task, began_at: self.began_at.min(now), left_at: now });
        now
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::OperatorId;
    use mainstem_rt::ManualClock;

    use super::*;

    const SOURCE: SubtaskId = SubtaskId { operator: OperatorId(2), index: 1 };

    /// At which of these times a marker is sent, and whether it becomes a trace.
    fn sent(options: MarkerOptions, times: &[i64]) -> Vec<(i64, bool)> {
        let mut markers = Markers::new(SOURCE, options);
        let due = times.iter().filter_map(|at| markers.due(Timestamp(*at)));
        due.map(|marker| (marker.read_at.0, marker.trace.is_some())).collect()
    }

    #[test]
    fn markers_keep_their_distance_whatever_the_rows_and_the_clock_do() {
        let options = MarkerOptions { interval_ms: Some(200), trace_every_ms: Some(1_000) };
        let times = [1_000, 1_001, 1_199, 1_200, 1_350, 1_400, 9_000, 9_100, 500, 600, 700];
        let wanted = [(1_000, true), (1_200, false), (1_400, false), (9_000, true), (500, true), (700, false)];
        assert_eq!(sent(options, &times), wanted);
        assert_eq!(sent(MarkerOptions { trace_every_ms: None, ..options }, &times).len(), wanted.len());
        assert_eq!(sent(MarkerOptions { interval_ms: None, ..options }, &times), []);
    }

    #[test]
    fn a_task_is_noted_only_where_a_trace_is_wanted() {
        let clock = ManualClock::new(Timestamp(50));
        let mut stamp = Stamp::new(SOURCE, Arc::new(clock.clone()));
        let mut markers = Markers::new(SOURCE, MarkerOptions { interval_ms: Some(1), trace_every_ms: Some(10) });
        let (mut traced, mut other) = (markers.due(Timestamp(40)).unwrap(), markers.due(Timestamp(41)).unwrap());
        stamp.begin();
        clock.advance_ms(7);
        assert_eq!((stamp.pass(&mut traced), stamp.pass(&mut other)), (Timestamp(57), Timestamp(57)));
        assert_eq!(traced.trace, Some(vec![Hop { subtask: SOURCE, began_at: Timestamp(50), left_at: Timestamp(57) }]));
        assert_eq!((other.trace, other.number), (None, traced.number + 1));
    }
}
