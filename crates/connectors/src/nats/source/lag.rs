//! How many messages of a split are there and not decoded yet, for those who look on: asks the server again and again beside
//! the pulling, which stands still while nobody takes what has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use mainstem_core::lag::LagUnit;
use tokio::task::JoinSet;

use crate::lag::SplitLag;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far a split is read, told by its puller and its reader.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Messages that the puller has handed to the reader.
    handed: AtomicU64,
    /// Messages that the reader has decoded.
    decoded: AtomicU64,
    /// How many of the last consumer's messages were handed to the reader.
    handed_of_consumer: AtomicU64,
}

impl Progress {
    /// Another consumer begins behind what was handed over.
    pub(super) fn on_consumer(&self) {
        self.handed_of_consumer.store(0, Ordering::Relaxed);
    }

    /// So many messages were handed to the reader.
    pub(super) fn on_handed(&self, messages: usize) {
        self.handed.fetch_add(messages as u64, Ordering::Relaxed);
        self.handed_of_consumer.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// So many messages are decoded.
    pub(super) fn on_decoded(&self, messages: usize) {
        self.decoded.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Messages that are not decoded, where the server has given so many to the consumer and holds so many more for it.
    fn lag(&self, given: u64, pending: u64) -> u64 {
        let on_their_way = given.saturating_sub(self.handed_of_consumer.load(Ordering::Relaxed));
        let decoded = self.decoded.load(Ordering::Relaxed);
        pending + on_their_way + self.handed.load(Ordering::Relaxed).saturating_sub(decoded)
    }
}

/// Shows the lag of the split that `consumer` reads until what is given back is dropped. A bounded split of which no more than
/// `most` messages will be read is never behind by more.
pub(super) fn watch(
    consumer: Consumer<PullConfig>,
    progress: Arc<Progress>,
    most: Option<u64>,
    shown: Arc<SplitLag>,
) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        loop {
            match consumer.get_info().await {
                Ok(info) => {
                    let lag = progress.lag(info.delivered.consumer_sequence, info.num_pending);
                    shown.set(LagUnit::Records, lag.min(most.unwrap_or(u64::MAX)));
                }
                // Whoever pulls has more to say about a server that does not answer.
                Err(error) => tracing::debug!(%error, "the lag is not known"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    watching
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_not_read_yet() {
        let progress = Progress::default();
        assert_eq!(progress.lag(0, 10), 10);
        assert_eq!(progress.lag(4, 6), 10, "given, and not handed over");
        progress.on_handed(3);
        assert_eq!(progress.lag(4, 6), 10);
        progress.on_decoded(3);
        assert_eq!(progress.lag(4, 6), 7);
        // The fourth is given again.
        progress.on_consumer();
        assert_eq!(progress.lag(0, 7), 7);
        progress.on_handed(1);
        assert_eq!(progress.lag(1, 6), 7);
    }
}
