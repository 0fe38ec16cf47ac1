//! Where partitions begin and end: asks the brokers. Blocks; called by the enumerator on a thread of its own.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{ConnectorError, ErrorKind};

use super::super::client::{Cluster, Context, REQUEST_TIMEOUT};
use super::options::Bound;

/// A topic's name and a partition of it.
pub(super) type Partition = (String, i32);

/// Asks for offsets.
pub(super) struct OffsetFinder<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) consumer: &'a BaseConsumer<Context>,
}

impl OffsetFinder<'_> {
    /// The first and the end offset of a partition, as readers of committed messages see it.
    pub(super) fn range(&self, (topic, partition): &Partition) -> Result<(i64, i64), ConnectorError> {
        let range = self.consumer.fetch_watermarks(topic, *partition, REQUEST_TIMEOUT);
        range.map_err(|error| {
            self.failed(&format!("find the offsets of topic '{topic}', partition {partition}"), &error)
        })
    }

    /// Where each partition begins.
    pub(super) fn starts(
        &self,
        bound: &Bound,
        partitions: &[Partition],
    ) -> Result<BTreeMap<Partition, i64>, ConnectorError> {
        let mut known = self.known(bound, partitions)?;
        let mut starts = BTreeMap::new();
        for place in partitions {
            let (first, end) = self.range(place)?;
            let start = match (bound, known.remove(place)) {
                (Bound::Earliest, _) => first,
                (Bound::Latest, _) => end,
                (Bound::Timestamp(_), found) => found.unwrap_or(end),
                (Bound::Offsets(_), found) => found.unwrap_or(first),
                (Bound::Group, Some(committed)) => committed,
                (Bound::Group, None) => self.without_commit(place, (first, end))?,
            };
            if start < first || start > end {
                let (topic, partition) = place;
                let message = format!(
                    "table '{}' cannot begin at offset {start} of topic '{topic}', partition {partition}: it holds the offsets {first} to {end}; choose another 'scan.startup.mode'",
                    self.cluster.table
                );
                return Err(ConnectorError::new(ErrorKind::External, message));
            }
            starts.insert(place.clone(), start);
        }
        Ok(starts)
    }

    /// Where each partition ends; never beyond what it holds now, so that the end is reached whatever comes.
    pub(super) fn stops(
        &self,
        bound: &Bound,
        partitions: &[Partition],
    ) -> Result<BTreeMap<Partition, i64>, ConnectorError> {
        let mut known = self.known(bound, partitions)?;
        let mut stops = BTreeMap::new();
        for place in partitions {
            let (_, end) = self.range(place)?;
            let stop = known.remove(place).unwrap_or(end);
            let (topic, partition) = place;
            if stop > end {
                let message = format!(
                    "table '{}' cannot end at offset {stop} of topic '{topic}', partition {partition}: it holds the offsets up to {end} only; choose another 'scan.bounded.mode'",
                    self.cluster.table
                );
                return Err(ConnectorError::new(ErrorKind::External, message));
            }
            stops.insert(place.clone(), stop);
        }
        Ok(stops)
    }

    /// The offsets that a bound names itself or that can be asked for in one request; partitions without one are
    /// left out.
    fn known(&self, bound: &Bound, partitions: &[Partition]) -> Result<BTreeMap<Partition, i64>, ConnectorError> {
        let list = |offset: Offset| {
            let mut list = TopicPartitionList::new();
            for (topic, partition) in partitions {
                // Fails for reserved offsets only.
                let _ = list.add_partition_offset(topic, *partition, offset);
            }
            list
        };
        let answer = match bound {
            Bound::Earliest | Bound::Latest => return Ok(BTreeMap::new()),
            Bound::Offsets(offsets) => {
                if let Some(missing) = offsets.keys().find(|p| !partitions.iter().any(|(_, partition)| partition == *p))
                {
                    let message = format!(
                        "table '{}' names offsets of partition {missing}, which its topic does not have",
                        self.cluster.table
                    );
                    return Err(ConnectorError::new(ErrorKind::External, message));
                }
                let named = |place: &Partition| Some((place.clone(), *offsets.get(&place.1)?));
                return Ok(partitions.iter().filter_map(named).collect());
            }
            Bound::Timestamp(ms) => {
                let answer = self.consumer.offsets_for_times(list(Offset::Offset(*ms)), REQUEST_TIMEOUT);
                answer.map_err(|error| self.failed("find the offsets of a time", &error))?
            }
            Bound::Group => {
                let answer = self.consumer.committed_offsets(list(Offset::Invalid), REQUEST_TIMEOUT);
                answer.map_err(|error| self.failed("find the committed offsets of its group", &error))?
            }
        };
        let mut known = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(|error| self.failed("find offsets", &error))?;
            // A time after the last message has no offset.
            if let Offset::Offset(offset) = element.offset() {
                known.insert((element.topic().to_owned(), element.partition()), offset);
            }
        }
        Ok(known)
    }

    /// Where a partition begins of which the group has committed nothing.
    fn without_commit(&self, (topic, partition): &Partition, range: (i64, i64)) -> Result<i64, ConnectorError> {
        match self.cluster.property("auto.offset.reset") {
            Some("earliest" | "smallest" | "beginning") => Ok(range.0),
            Some("latest" | "largest" | "end") => Ok(range.1),
            _ => Err(ConnectorError::new(
                ErrorKind::External,
                format!(
                    "the group '{}' of table '{}' has no committed offset for topic '{topic}', partition {partition}: set 'scan.startup.mode' = 'earliest-offset', or 'properties.auto.offset.reset' = 'earliest' or 'latest'",
                    self.cluster.group.as_deref().unwrap_or_default(),
                    self.cluster.table
                ),
            )),
        }
    }

    fn failed(&self, what: &str, error: &rdkafka::error::KafkaError) -> ConnectorError {
        self.cluster.consumer_failed(what, error, self.consumer)
    }
}
