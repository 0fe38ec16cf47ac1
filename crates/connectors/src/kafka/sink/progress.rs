//! How far a sink has come, as the brokers know it: one record for each sink in a compacted topic, written in the
//! transaction of each epoch. Blocks; called by the publisher.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::error::{ConnectorError, ErrorKind};

use super::super::client::{Cluster, Context, REQUEST_TIMEOUT};
use super::super::time::{now, pause};

/// Partitions of a progress topic that is made here. The open transaction of one sink holds up only those that share
/// its partition.
const PARTITIONS: i32 = 16;
/// Records at the end of a partition among which a sink's newest is looked for first.
const NEWEST_MAX: i64 = 10_000;
/// How long an open transaction of somebody else is waited for; brokers end one that nobody goes on with.
const OPEN_TRANSACTION_MAX: Duration = Duration::from_secs(90);

/// Is given the key and the value of a record.
type TakeRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), ConnectorError> + 'a;

/// What a progress record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The newest epoch whose messages are visible.
    pub(super) epoch: u64,
    /// The job, for people who look.
    pub(super) job: String,
    /// The sink's topic, for people who look.
    pub(super) topic: String,
}

/// A partition of the progress topic.
pub(super) struct ProgressPartition<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) topic: &'a str,
    pub(super) partition: i32,
}

/// Makes the topic unless it is there; gives the number of its partitions.
pub(super) fn prepare_topic(cluster: &Cluster, topic: &str, runtime: &Handle) -> Result<i32, ConnectorError> {
    let admin: AdminClient<Context> = cluster.create(&cluster.producer_config())?;
    let failed = |what: &str, error: &KafkaError| cluster.failed(what, error, admin.inner().context());
    let what = format!("make the topic '{topic}' for its progress");
    let partitions = || {
        let metadata = admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        Ok(found.map_or(0, |found| i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)))
    };
    let there = existing(&admin, topic).map_err(|error| failed(&what, &error))?;
    if !there {
        let wanted = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            // Small segments are compacted soon, so that a restart reads little.
            .set("segment.bytes", "16777216")
            .set("segment.ms", "600000");
        let options =
            AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT));
        let created = runtime.block_on(admin.create_topics([&wanted], &options));
        let created = created.map_err(|error| failed(&what, &error))?;
        for result in created {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(&what, &KafkaError::MetadataFetch(code))),
            }
        }
    }
    let deadline = now() + REQUEST_TIMEOUT;
    loop {
        match partitions().map_err(|error| failed(&what, &error))? {
            0 if now() < deadline => pause(Duration::from_millis(50)),
            0 => return Err(failed(&what, &KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))),
            count => return Ok(count),
        }
    }
}

/// Whether there is such a topic. Lists all topics, because to ask for one by name makes brokers create it as they
/// create any other.
fn existing(admin: &AdminClient<Context>, topic: &str) -> Result<bool, KafkaError> {
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
    Ok(metadata.topics().iter().any(|found| found.name() == topic))
}

/// The newest epoch of each sink whose key begins with `prefix`, where it is after `epoch`.
pub(super) fn published_after(
    cluster: &Cluster,
    topic: &str,
    prefix: &str,
    epoch: u64,
) -> Result<Vec<Progress>, ConnectorError> {
    let admin: AdminClient<Context> = cluster.create(&cluster.producer_config())?;
    let what = format!("read progress in topic '{topic}'");
    let failed = |error: &KafkaError| cluster.failed(&what, error, admin.inner().context());
    if !existing(&admin, topic).map_err(|error| failed(&error))? {
        return Ok(Vec::new());
    }
    let metadata = admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| failed(&error))?;
    let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    let mut newest = BTreeMap::new();
    for partition in partitions {
        let partition = ProgressPartition { cluster, topic, partition: partition.id() };
        let committed = partition.consumer("read_committed")?;
        let (first, end) = partition.range(&committed)?;
        partition.each(&committed, first, end, &mut |key, payload| {
            if key.starts_with(prefix.as_bytes()) {
                newest.insert(key.to_vec(), partition.parse(payload)?);
            }
            Ok(())
        })?;
    }
    Ok(newest.into_values().filter(|progress: &Progress| progress.epoch > epoch).collect())
}

impl ProgressPartition<'_> {
    /// The newest record of a key; none: nothing was ever published. Whoever asks has ended the key's transactions before,
    /// so that nothing of it is under way.
    pub(super) fn read(&self, key: &str) -> Result<Option<Progress>, ConnectorError> {
        let committed = self.consumer("read_committed")?;
        let (first, end) = self.settled_range(&committed)?;
        let near = first.max(end - NEWEST_MAX);
        let mut found = self.last_of(&committed, key, near, end)?;
        if found.is_none() && near > first {
            found = self.last_of(&committed, key, first, end)?;
        }
        Ok(found)
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Context>, ConnectorError> {
        let mut config = self.cluster.consumer_config();
        config.set("isolation.level", isolation);
        config.set("auto.offset.reset", "earliest");
        self.cluster.create(&config)
    }

    /// The offsets of the partition, once no transaction is open in it that was begun before.
    fn settled_range(&self, committed: &BaseConsumer<Context>) -> Result<(i64, i64), ConnectorError> {
        let uncommitted = self.consumer("read_uncommitted")?;
        let (_, written) = self.range(&uncommitted)?;
        let deadline = now() + OPEN_TRANSACTION_MAX;
        loop {
            let (first, end) = self.range(committed)?;
            if end >= written {
                return Ok((first, end));
            }
            if now() > deadline {
                let message = format!(
                    "table '{}' cannot read its progress: a transaction of another program is open in partition {} of topic '{}'; end that program",
                    self.cluster.table, self.partition, self.topic
                );
                return Err(ConnectorError::new(ErrorKind::Transient, message));
            }
            pause(Duration::from_millis(20));
        }
    }

    /// The first and the end offset, as the consumer sees it.
    fn range(&self, consumer: &BaseConsumer<Context>) -> Result<(i64, i64), ConnectorError> {
        let range = consumer.fetch_watermarks(self.topic, self.partition, REQUEST_TIMEOUT);
        range.map_err(|error| self.failed(&error, consumer))
    }

    fn last_of(
        &self,
        consumer: &BaseConsumer<Context>,
        key: &str,
        start: i64,
        end: i64,
    ) -> Result<Option<Progress>, ConnectorError> {
        let mut found = None;
        self.each(consumer, start, end, &mut |of, payload| {
            if of == key.as_bytes() {
                found = Some(self.parse(payload)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Gives each record of a range, its key and its value, in order.
    fn each(
        &self,
        consumer: &BaseConsumer<Context>,
        start: i64,
        end: i64,
        take: &mut TakeRecord<'_>,
    ) -> Result<(), ConnectorError> {
        if start >= end {
            return Ok(());
        }
        let failed = |error: &KafkaError| self.failed(error, consumer);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic, self.partition, Offset::Offset(start)).map_err(|error| failed(&error))?;
        consumer.assign(&list).map_err(|error| failed(&error))?;
        let mut heard = now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = now();
                    if message.offset() >= end {
                        break;
                    }
                    if let (Some(key), Some(payload)) = (message.key(), message.payload()) {
                        take(key, payload)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => tracing::debug!(%error, topic = self.topic, "reading progress goes on"),
                None => {}
            }
            if heard.elapsed() > REQUEST_TIMEOUT {
                return Err(failed(&KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
            }
        }
        consumer.unassign().map_err(|error| failed(&error))
    }

    fn parse(&self, payload: &[u8]) -> Result<Progress, ConnectorError> {
        serde_json::from_slice(payload).map_err(|error| {
            let (topic, partition) = (self.topic, self.partition);
            let message = format!(
                "a record of progress in topic '{topic}', partition {partition} cannot be read: {error}; was it written by another program?"
            );
            ConnectorError::new(ErrorKind::Lost, message)
        })
    }

    fn failed(&self, error: &KafkaError, consumer: &BaseConsumer<Context>) -> ConnectorError {
        let what = format!("read its progress in topic '{}'", self.topic);
        self.cluster.consumer_failed(&what, error, consumer)
    }
}
