//! Traces for OpenTelemetry: what a job's history tells of checkpoints, publications, starts and sampled rows becomes spans
//! ([`spans`]), which one task sends to a collector by OTLP over HTTP ([`exporter`]). Off unless `--otlp-endpoint` names one; a
//! job's history is not even watched then.
//!
//! Invariants:
//! - A driver that tells of something never waits: what the queue has no room for is dropped and counted.
//! - Nothing that a collector does, or does not do, fails a job or holds one up beyond [`END_WITHIN`] at its end.

mod args;
mod collector;
mod exporter;
mod otlp;
mod spans;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use mainstem_coordinator::{HistoryWatcher, JobHistory, Passed};
use mainstem_core::ids::{JobId, OperatorId};
use mainstem_plan::operator::JobGraph;
use mainstem_rt::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use self::args::TracesArgs;
use self::collector::Collector;
use self::exporter::Exporter;

/// Checkpoints, publications, starts and sampled rows that wait to be sent.
const QUEUE_MAX: usize = 1024;
/// A process that ends waits so long for what is left to be sent.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Sends spans of the jobs that are driven in this process.
pub(crate) struct Traces {
    queue: mpsc::Sender<Told>,
    counts: Arc<Counts>,
    ending: watch::Sender<bool>,
    /// The exporter, until it is waited for.
    exporting: Mutex<Option<JoinHandle<()>>>,
    collector: String,
}

/// How many spans have gone where.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Sent, and taken by the collector.
    exported: AtomicU64,
    /// There was no room in the queue.
    without_room: AtomicU64,
    /// The collector did not take them.
    not_taken: AtomicU64,
    /// Whether the last ones were not taken, of which the user has been told.
    is_failing: AtomicBool,
}

/// What has happened to a job, on its way to the exporter.
struct Told {
    job: Arc<TracedJob>,
    passed: Passed,
}

/// A job as its spans show it.
struct TracedJob {
    job: JobId,
    /// Of operators.
    names: BTreeMap<OperatorId, String>,
}

/// Hands on what happens to one job.
struct Watcher {
    job: Arc<TracedJob>,
    queue: mpsc::Sender<Told>,
    counts: Arc<Counts>,
}

impl Traces {
    /// Starts to export where that is wanted; `instance` tells this process from others of the service. Needs a runtime.
    ///
    /// # Errors
    /// An endpoint or headers that are none.
    pub(crate) fn start(args: &TracesArgs, instance: &str) -> anyhow::Result<Option<Arc<Traces>>> {
        let Some(endpoint) = args.endpoint() else { return Ok(None) };
        let collector =
            Collector::new(endpoint, args.otlp_headers.as_deref().unwrap_or_default()).context("cannot send traces")?;
        let (queue, told) = mpsc::channel(QUEUE_MAX);
        let (ending, end) = watch::channel(false);
        let counts = Arc::<Counts>::default();
        let shown = collector.shown().to_owned();
        let resource = otlp::Resource::of(args.service(), instance);
        let exporter = Exporter::new(collector, resource, counts.clone());
        let exporting = Mutex::new(Some(tokio::spawn(exporter.run(told, end))));
        tracing::info!(collector = shown, "sends traces");
        Ok(Some(Arc::new(Traces { queue, counts, ending, exporting, collector: shown })))
    }

    /// A history of the job of which spans are made.
    pub(crate) fn history(&self, job: &JobId, graph: &JobGraph, clock: Arc<dyn Clock>) -> Arc<JobHistory> {
        let names = graph.nodes.iter().map(|node| (node.id, node.name.clone())).collect();
        let job = Arc::new(TracedJob { job: job.clone(), names });
        let watcher = Watcher { job, queue: self.queue.clone(), counts: self.counts.clone() };
        JobHistory::watched(clock, Arc::new(watcher))
    }

    /// How many spans have gone where.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Sends what is left, unless that takes too long.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        let exporting = self.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(exporting) = exporting else { return };
        let abort = exporting.abort_handle();
        if timeout(END_WITHIN, exporting).await.is_err() {
            abort.abort();
            if !self.counts.is_failing.load(Ordering::Relaxed) {
                let collector = &self.collector;
                tracing::warn!(collector, "the last spans were not taken within {END_WITHIN:?}; they are lost");
            }
        }
    }
}

impl HistoryWatcher for Watcher {
    fn told(&self, passed: Passed) {
        let told = Told { job: self.job.clone(), passed };
        let refused = match self.queue.try_send(told) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(told) | mpsc::error::TrySendError::Closed(told)) => told,
        };
        let spans = spans::of(&refused.job, &refused.passed).len();
        self.counts.without_room.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

impl Counts {
    /// Sent, and taken by the collector.
    pub(crate) fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// For want of room in the queue.
    pub(crate) fn without_room(&self) -> u64 {
        self.without_room.load(Ordering::Relaxed)
    }

    /// Because the collector did not take them.
    pub(crate) fn not_taken(&self) -> u64 {
        self.not_taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
