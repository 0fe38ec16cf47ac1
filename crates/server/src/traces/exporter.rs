//! The task that turns what it is told into spans and sends them in batches, one request at a time. While it waits for a
//! collector the queue fills; what is too much is dropped where it is told, and counted.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::collector::{Collector, Refused, Taken};
use super::otlp::{ExportRequest, Resource, Span};
use super::{Counts, Told, spans};

/// The first of a batch waits so long for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// A batch is sent as soon as it has so many spans; what is told at a time is not divided.
pub(super) const BATCH_SPANS: usize = 512;
/// A batch is sent so often.
const RETRY: RetryPolicy = RetryPolicy { first_delay_ms: 500, delay_ms_max: 5_000, retries_max: 3, quiet_ms: 600_000 };

/// See the module.
pub(super) struct Exporter {
    collector: Collector,
    resource: Resource,
    counts: Arc<Counts>,
    /// Whether the user has been told that the collector takes spans in part only.
    told_of_rejected: bool,
}

impl Exporter {
    pub(super) fn new(collector: Collector, resource: Resource, counts: Arc<Counts>) -> Exporter {
        Exporter { collector, resource, counts, told_of_rejected: false }
    }

    /// Runs until nobody has anything more to tell, or until it is told to end and has sent what was left.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Told>, mut ending: watch::Receiver<bool>) {
        while let Some(spans) = batch(&mut queue, &mut ending).await {
            self.export(spans, &mut ending).await;
        }
    }

    async fn export(&mut self, spans: Vec<Span>, ending: &mut watch::Receiver<bool>) {
        let count = spans.len() as u64;
        let body = ExportRequest::new(self.resource.clone(), spans).encode_to_vec();
        match self.send(body, ending).await {
            Ok(Taken { rejected, message }) => {
                let rejected = rejected.min(count);
                self.counts.exported.fetch_add(count - rejected, Ordering::Relaxed);
                self.counts.not_taken.fetch_add(rejected, Ordering::Relaxed);
                let collector = self.collector.shown();
                if rejected > 0 && !std::mem::replace(&mut self.told_of_rejected, true) {
                    tracing::warn!(collector, rejected, message, "the collector does not take all spans");
                }
                if self.counts.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector, "the collector takes spans again");
                }
            }
            Err(message) => {
                self.counts.not_taken.fetch_add(count, Ordering::Relaxed);
                if !self.counts.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        collector = self.collector.shown(),
                        error = message,
                        "traces cannot be sent; spans are dropped, and counted, until the collector takes them again"
                    );
                }
            }
        }
    }

    /// Sends a batch until it is taken, refused for good, or has failed too often; once only where the process ends.
    async fn send(&self, body: Vec<u8>, ending: &mut watch::Receiver<bool>) -> Result<Taken, String> {
        let (mut backoff, began) = (Backoff::new(RETRY), Instant::now());
        loop {
            let Refused { message, again_after } = match self.collector.send(body.clone()).await {
                Ok(taken) => return Ok(taken),
                Err(refused) => refused,
            };
            let now = Timestamp(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
            // The standard library seeds its hashers from the system's source of random numbers.
            let random = RandomState::new().hash_one(now.0);
            let (Some(pause), Some(wait_ms)) = (again_after, backoff.on_failure(now, random)) else {
                return Err(message);
            };
            tokio::select! {
                () = sleep(pause.max(Duration::from_millis(wait_ms))) => {}
                () = told_to_end(ending) => return Err(message),
            }
        }
    }
}

/// Waits until the process ends, or nobody is left who could say so.
async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

/// The next spans to send; none at the end.
async fn batch(queue: &mut mpsc::Receiver<Told>, ending: &mut watch::Receiver<bool>) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let mut until = None;
    loop {
        let is_closed = queue.is_closed();
        tokio::select! {
            biased;
            told = queue.recv() => {
                let Some(told) = told else { return Some(spans).filter(|spans| !spans.is_empty()) };
                spans.extend(spans::of(&told.job, &told.passed));
                until.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
                if spans.len() >= BATCH_SPANS {
                    return Some(spans);
                }
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Some(spans),
            // What is in the queue still comes.
            () = told_to_end(ending), if !is_closed => queue.close(),
        }
    }
}
