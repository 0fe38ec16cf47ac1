//! Finds the partitions of a table, beside the coordinator. Those that are found when the job first starts begin where the
//! options say; those that come later were empty then, and begin at their first message.

use std::sync::Arc;

use async_trait::async_trait;
use mainstem_core::protocol::SourceSplit;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, KafkaError};
use rdkafka::metadata::MetadataTopic;

use crate::error::{ConnectorError, ErrorKind};
use crate::source::{CheckpointListener, SplitEnumerator};

use super::super::client::{Context, REQUEST_TIMEOUT};
use super::KafkaTable;
use super::group::GroupOffsets;
use super::offsets::{OffsetFinder, Partition};
use super::options::{Bound, Topics};
use super::split::PartitionSplit;

/// Partitions that a table may have.
const PARTITIONS_MAX: usize = 100_000;

/// Finds partitions.
pub(super) struct KafkaEnumerator {
    table: Arc<KafkaTable>,
    /// What was found before, of which nothing has to be asked again.
    known: Vec<PartitionSplit>,
    /// Whether the job has its first splits already.
    goes_on: bool,
}

impl KafkaEnumerator {
    /// For a table.
    pub(super) fn new(table: Arc<KafkaTable>) -> KafkaEnumerator {
        KafkaEnumerator { table, known: Vec::new(), goes_on: false }
    }
}

#[async_trait]
impl SplitEnumerator for KafkaEnumerator {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        let (table, known, goes_on) = (self.table.clone(), self.known.clone(), self.goes_on);
        let search = move || {
            // A client that nobody listens to would pile up what it has to say, so each search has its own.
            let consumer = table.options.cluster.consumer()?;
            Search { table: &table, consumer: &consumer }.find(known, goes_on)
        };
        let found = tokio::task::spawn_blocking(search).await.map_err(|error| {
            let table = &self.table.spec.name;
            ConnectorError::new(
                ErrorKind::Transient,
                format!("the search for partitions of '{table}' was stopped: {error}"),
            )
        })??;
        if self.goes_on {
            self.known.clone_from(&found);
        }
        Ok(found.iter().map(PartitionSplit::to_split).collect())
    }

    fn go_on(&mut self) {
        self.goes_on = true;
    }

    fn listener(&self) -> Option<Box<dyn CheckpointListener>> {
        let has_group = self.table.options.cluster.group.is_some();
        has_group.then(|| Box::new(GroupOffsets::new(self.table.clone())) as Box<dyn CheckpointListener>)
    }
}

/// One search. Blocks.
struct Search<'a> {
    table: &'a KafkaTable,
    consumer: &'a BaseConsumer<Context>,
}

impl Search<'_> {
    fn find(&self, mut known: Vec<PartitionSplit>, goes_on: bool) -> Result<Vec<PartitionSplit>, ConnectorError> {
        let is_known = |(topic, partition): &Partition| {
            known.iter().any(|split| split.topic == *topic && split.partition == *partition)
        };
        let new: Vec<Partition> = self.partitions()?.into_iter().filter(|place| !is_known(place)).collect();
        let options = &self.table.options;
        let finder = OffsetFinder { cluster: &options.cluster, consumer: self.consumer };
        let mut starts = finder.starts(if goes_on { &Bound::Earliest } else { &options.start }, &new)?;
        let mut stops = options.stop.as_ref().map(|stop| finder.stops(stop, &new)).transpose()?;
        for place in new {
            let start = starts.remove(&place).expect("asked for");
            let stop = stops.as_mut().map(|stops| stops.remove(&place).expect("asked for"));
            let (topic, partition) = place;
            known.push(PartitionSplit { topic, partition, start, stop });
        }
        known.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(known)
    }

    fn partitions(&self) -> Result<Vec<Partition>, ConnectorError> {
        let mut found = Vec::new();
        match &self.table.options.topics {
            Topics::Named(names) => {
                for name in names {
                    let metadata = self.consumer.fetch_metadata(Some(name), REQUEST_TIMEOUT);
                    let metadata = metadata.map_err(|error| self.failed(&format!("look at topic '{name}'"), &error))?;
                    metadata.topics().iter().try_for_each(|topic| self.add(topic, &mut found))?;
                }
            }
            Topics::Matching(pattern) => {
                let metadata = self.consumer.fetch_metadata(None, REQUEST_TIMEOUT);
                let metadata = metadata.map_err(|error| self.failed("list topics", &error))?;
                // Topics of Kafka itself are matched by nobody's '.*'.
                let wanted = |topic: &&MetadataTopic| !topic.name().starts_with("__") && pattern.is_match(topic.name());
                metadata.topics().iter().filter(wanted).try_for_each(|topic| self.add(topic, &mut found))?;
            }
        }
        if found.len() > PARTITIONS_MAX {
            let message = format!(
                "the topics of table '{}' have {} partitions, more than {PARTITIONS_MAX}: read a part of them",
                self.table.spec.name,
                found.len()
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        if found.is_empty() && self.table.options.stop.is_some() {
            let message = format!(
                "no topic matches 'topic-pattern' of table '{}', and a bounded table waits for none: check it",
                self.table.spec.name
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        Ok(found)
    }

    fn add(&self, topic: &MetadataTopic, found: &mut Vec<Partition>) -> Result<(), ConnectorError> {
        if let Some(error) = topic.error().filter(|error| error.is_error()) {
            let error = KafkaError::MetadataFetch(error.into());
            return Err(self.failed(&format!("read topic '{}'", topic.name()), &error));
        }
        found.extend(topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id())));
        Ok(())
    }

    fn failed(&self, what: &str, error: &KafkaError) -> ConnectorError {
        self.table.options.cluster.consumer_failed(what, error, self.consumer)
    }
}
