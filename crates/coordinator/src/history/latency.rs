//! How long rows take until they are visible, and how long checkpoints and publications take: counted in histograms. A sink
//! tells when latency markers came to it and in which epoch; when that epoch is published, their rows are visible.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::ids::{Epoch, Generation, OperatorId};
use mainstem_core::latency::{Arrival, EpochArrivals, LatencyHistogram, MarkerOptions};
use mainstem_core::time::Timestamp;

use super::watch::{Passed, What};
use super::{Inner, JobHistory};

/// Least time between two markers of a source subtask that become a trace.
const TRACE_EVERY_MS: u64 = 10_000;
/// Markers that wait for their epoch to be published, over all sinks.
const WAITING_MAX: usize = 32_768;

/// What was counted since this process drives the job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobLatency {
    /// By sink that publishes its output: from when a row was read until it was visible.
    pub visible: BTreeMap<OperatorId, LatencyHistogram>,
    /// Of complete checkpoints: from the barrier to the record of its completion.
    pub checkpoints: LatencyHistogram,
    /// From there until the output of the epoch was visible.
    pub publications: LatencyHistogram,
    /// Markers that were to become a trace and for which there was no room.
    pub traces_dropped: u64,
}

/// Rows that have come from a source to a sink, as the marker behind them tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedRecord {
    /// The sink.
    pub sink: OperatorId,
    /// The attempt.
    pub generation: Generation,
    /// The epoch in which they came there.
    pub epoch: Epoch,
    /// The marker, with the tasks that it has passed.
    pub arrival: Arrival,
    /// Workers by the index of the subtasks that run on them; empty where there is one process.
    pub workers: Arc<[WorkerId]>,
    /// When they were visible; none where the sink publishes nothing, so that they were at once.
    pub visible_at: Option<Timestamp>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Latencies {
    counted: JobLatency,
    /// Sinks whose output is visible only when its epoch is published.
    publish: BTreeSet<OperatorId>,
    /// Workers of the attempt, by the index of subtasks.
    workers: Arc<[WorkerId]>,
    waiting: VecDeque<Waiting>,
    /// Markers in all of them.
    waiting_markers: usize,
}

/// Markers that came to a subtask of a sink in an epoch that is not published.
struct Waiting {
    epoch: Epoch,
    generation: Generation,
    sink: OperatorId,
    arrivals: Vec<Arrival>,
}

impl JobHistory {
    /// How long rows, checkpoints and publications have taken.
    #[must_use]
    pub fn latency(&self) -> JobLatency {
        self.lock().latencies.counted.clone()
    }

    /// The markers that sources are to send where the user wants one each so many milliseconds; 0: none.
    pub(crate) fn markers(&self, interval_ms: u64) -> MarkerOptions {
        let trace_every_ms = self.is_watched().then_some(TRACE_EVERY_MS);
        MarkerOptions { interval_ms: Some(interval_ms).filter(|ms| *ms > 0), trace_every_ms }
    }

    /// These sinks publish their output.
    pub(crate) fn publishes(&self, sinks: impl Iterator<Item = OperatorId>) {
        self.lock().latencies.publish = sinks.collect();
    }

    /// On which workers an attempt runs, by the index of subtasks.
    pub(crate) fn placed(&self, workers: impl Iterator<Item = WorkerId>) {
        self.lock().latencies.workers = workers.collect();
    }

    /// Markers have come to a subtask of a sink.
    pub(crate) fn arrived(&self, epoch: Epoch, generation: Generation, sink: OperatorId, arrivals: EpochArrivals) {
        let mut inner = self.lock();
        let EpochArrivals { kept, traces_dropped } = arrivals;
        inner.latencies.counted.traces_dropped += traces_dropped;
        let waiting = Waiting { epoch, generation, sink, arrivals: kept };
        if inner.latencies.publish.contains(&sink) {
            inner.latencies.wait(waiting);
            return;
        }
        let passed = inner.passed(waiting, None);
        drop(inner);
        if self.is_watched() {
            self.tell(passed);
        }
    }
}

impl Inner {
    /// An epoch is published: gives the traces of rows that are visible now.
    pub(super) fn records_visible(&mut self, epoch: Epoch, at: Timestamp) -> Vec<Passed> {
        let all = std::mem::take(&mut self.latencies.waiting);
        let (visible, waiting): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|waiting| waiting.epoch <= epoch);
        self.latencies.waiting = waiting;
        let mut passed = Vec::new();
        for waiting in visible {
            self.latencies.waiting_markers -= waiting.arrivals.len();
            // What is left of older ones was never published under this number.
            if waiting.epoch == epoch {
                let histogram = self.latencies.counted.visible.entry(waiting.sink).or_default();
                waiting.arrivals.iter().for_each(|arrival| histogram.record(at.since_ms(arrival.marker.read_at)));
                passed.extend(self.passed(waiting, Some(at)));
            }
        }
        passed
    }

    fn passed(&self, waiting: Waiting, visible_at: Option<Timestamp>) -> Vec<Passed> {
        let Waiting { epoch, generation, sink, arrivals } = waiting;
        let traced = arrivals.into_iter().filter(|arrival| arrival.marker.trace.is_some());
        let workers = &self.latencies.workers;
        let record = |arrival| PassedRecord { sink, generation, epoch, arrival, workers: workers.clone(), visible_at };
        let passed = |record| Passed { created_at: self.created_at, what: What::Record(record) };
        traced.map(record).map(passed).collect()
    }
}

impl Latencies {
    fn wait(&mut self, waiting: Waiting) {
        if self.waiting_markers + waiting.arrivals.len() > WAITING_MAX {
            let traces = waiting.arrivals.iter().filter(|arrival| arrival.marker.trace.is_some());
            self.counted.traces_dropped += traces.count() as u64;
            return;
        }
        self.waiting_markers += waiting.arrivals.len();
        self.waiting.push_back(waiting);
    }

    /// A checkpoint is complete: what an attempt before had in an epoch of this number is undone.
    pub(super) fn complete(&mut self, epoch: Epoch, generation: Generation, duration_ms: Option<i64>) {
        let counts = |waiting: &Waiting| waiting.epoch != epoch || waiting.generation == generation;
        self.waiting.retain(counts);
        self.waiting_markers = self.waiting.iter().map(|waiting| waiting.arrivals.len()).sum();
        if let Some(ms) = duration_ms {
            self.counted.checkpoints.record(ms);
        }
    }

    /// The output of an epoch is visible so long after its checkpoint was complete.
    pub(super) fn publication_took(&mut self, ms: i64) {
        self.counted.publications.record(ms);
    }
}
