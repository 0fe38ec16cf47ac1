//! How far partitions are behind their ends, for those who look on: asks the brokers again and again, on a thread of its
//! own. The consumer's own knowledge of the ends grows old while its queue is full, which is just when the lag matters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_core::lag::LagUnit;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::lag::SplitLag;

use super::super::client::Context;

/// Time between two looks at the ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the brokers may take to tell them.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// How far a partition has been read.
#[derive(Debug)]
pub(super) struct Progress {
    /// Offset behind the newest message that the consumer has given.
    received: AtomicI64,
    /// Offset behind the newest message that the reader has decoded.
    decoded: AtomicI64,
    /// Whether the consumer has come to the end behind the newest message. What lies between the two are marks of transactions.
    at_end: AtomicBool,
}

impl Progress {
    /// Nothing is read yet.
    pub(super) fn new(start: i64) -> Progress {
        Progress { received: AtomicI64::new(start), decoded: AtomicI64::new(start), at_end: AtomicBool::new(false) }
    }

    /// A message has come from the consumer.
    pub(super) fn on_received(&self, offset: i64) {
        self.at_end.store(false, Ordering::Relaxed);
        self.received.store(offset + 1, Ordering::Relaxed);
    }

    /// The consumer has nothing more.
    pub(super) fn on_end(&self) {
        self.at_end.store(true, Ordering::Relaxed);
    }

    /// All messages before an offset are decoded.
    pub(super) fn on_decoded(&self, end: i64) {
        self.decoded.store(end, Ordering::Relaxed);
    }

    /// Messages that could be read and were not. `end`: behind the last that could be; `is_asked`: whether the consumer has been
    /// asked for messages lately, so that it would have given those that there are.
    fn lag(&self, end: i64, is_asked: bool) -> u64 {
        let decoded = self.decoded.load(Ordering::Relaxed);
        let has_all = self.at_end.load(Ordering::Relaxed) && self.received.load(Ordering::Relaxed) <= decoded;
        if has_all && is_asked { 0 } else { u64::try_from(end - decoded).unwrap_or(0) }
    }
}

/// A partition that is read.
struct Watched {
    progress: Arc<Progress>,
    /// Offset before which the reading ends; none: nowhere.
    stop: Option<i64>,
    shown: SplitLag,
}

/// The partitions of a topic that a subtask reads. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct LagBoard {
    partitions: Arc<Mutex<BTreeMap<i32, Watched>>>,
    /// How often the consumer was asked for messages.
    asked: Arc<AtomicU64>,
}

impl LagBoard {
    /// A partition is read from here on.
    pub(super) fn add(&self, partition: i32, progress: Arc<Progress>, stop: Option<i64>, shown: SplitLag) {
        self.lock().insert(partition, Watched { progress, stop, shown });
    }

    /// It is read no more.
    pub(super) fn remove(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    /// The consumer is asked for messages.
    pub(super) fn on_asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows the lag until the other end of `ended` is gone.
    pub(super) fn watch(&self, consumer: &BaseConsumer<Context>, topic: &str, ended: &Receiver<()>) {
        let mut asked_before = 0;
        while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            let ends = self.ends(consumer, topic);
            let asked = self.asked.load(Ordering::Relaxed);
            let is_asked = asked != asked_before;
            asked_before = asked;
            // While nobody answers, what was known last stays.
            let Some(ends) = ends else { continue };
            let partitions = self.lock();
            for (partition, end) in ends {
                let Some(Watched { progress, stop, shown }) = partitions.get(&partition) else { continue };
                let end = stop.map_or(end, |stop| stop.min(end));
                shown.set(LagUnit::Records, progress.lag(end, is_asked));
            }
        }
    }

    /// Where the partitions end, as a reader of committed messages sees it.
    fn ends(&self, consumer: &BaseConsumer<Context>, topic: &str) -> Option<Vec<(i32, i64)>> {
        let mut list = TopicPartitionList::new();
        for partition in self.lock().keys() {
            // In place of a time this asks for the end.
            list.add_partition_offset(topic, *partition, Offset::End).ok()?;
        }
        if list.count() == 0 {
            return None;
        }
        let answer = match consumer.offsets_for_times(list, ANSWER_MAX) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(topic, %error, "the lag is not known");
                return None;
            }
        };
        let end = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(end) => Some((element.partition(), end)),
            _ => None,
        };
        Some(answer.elements().iter().filter_map(end).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Watched>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_transactions_are_no_lag() {
        let progress = Progress::new(5);
        assert_eq!(progress.lag(8, true), 3);
        // Messages 5 and 6, and the mark of their transaction.
        progress.on_received(5);
        progress.on_received(6);
        progress.on_end();
        assert_eq!(progress.lag(8, true), 3, "the reader has them not yet");
        progress.on_decoded(7);
        assert_eq!(progress.lag(8, true), 0);
        // Whoever does not ask is not told of more.
        assert_eq!(progress.lag(90, false), 83);
        progress.on_received(9);
        assert_eq!(progress.lag(90, true), 83);
    }
}
