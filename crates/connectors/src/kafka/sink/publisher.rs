//! Sends staged epochs, each in one transaction with its progress record. Blocks; driven by the committer, one call at a
//! time.
//!
//! A session begins with `init_transactions`, by which the broker ends the transaction of whoever sent before under the same id,
//! here or on another node, and lets that one do nothing more. Only then the progress is read. So between the
//! reading and our own commit nobody else can have committed anything; and if somebody begins a session after us, our
//! commit fails and we begin anew, too. Nothing depends on who is the leader: whoever publishes can only publish
//! what is complete, whose bytes are fixed.
//!
//! After any error the session is dropped. Whether a commit whose answer was lost took place is found out by the next one.

use std::sync::Arc;
use std::time::Duration;

use mainstem_core::ids::{Epoch, JobId};
use mainstem_rt::failpoint;
use rdkafka::config::ClientConfig;
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::error::{ConnectorError, ErrorKind};
use crate::staging::Staging;

use super::super::time::{now, pause};
use super::KafkaTable;
use super::lineage::Lineage;
use super::options::{Partitioner, SinkOptions};
use super::progress::{Progress, ProgressPartition};
use super::records::{Record, Records, unpack};
use super::writer::StagedObject;

/// How long a transaction's beginning, its messages and its end may take each.
const TRANSACTION_STEP_MAX: Duration = Duration::from_secs(60);
/// How long an abort may take whose only use is that readers need not wait.
const ABORT_MAX: Duration = Duration::from_secs(5);

/// A producer of transactions that is the only one of its id.
pub(super) struct Session {
    producer: BaseProducer<super::super::client::Context>,
    /// The newest epoch that is visible.
    published: u64,
    /// Partitions of the topic, where messages are spread over them by number.
    partitions: i32,
    /// Messages spread so far.
    spread: i32,
}

/// Publishes the epochs of one sink.
pub(super) struct Publisher {
    pub(super) table: Arc<KafkaTable>,
    pub(super) job: JobId,
    pub(super) staging: Staging,
    pub(super) runtime: Handle,
    pub(super) session: Option<Session>,
}

impl Publisher {
    /// Makes an epoch visible, unless it is. `key` is the sink's own, see [`Lineage::key`].
    pub(super) fn publish(
        &mut self,
        lineage: &Lineage,
        key: &str,
        epoch: Epoch,
        objects: &[StagedObject],
    ) -> Result<(), ConnectorError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.begin(lineage, key)?,
        };
        if session.published < epoch.0 {
            session.send_epoch(self, lineage, key, epoch, objects)?;
            session.published = epoch.0;
        }
        self.session = Some(session);
        Ok(())
    }

    fn begin(&self, lineage: &Lineage, key: &str) -> Result<Session, ConnectorError> {
        let SinkOptions { cluster, topic, transactional_id_prefix, partitioner, .. } = &self.table.options;
        let mut config = cluster.producer_config();
        config.set("transactional.id", format!("{transactional_id_prefix}/{key}"));
        let producer: BaseProducer<_> = cluster.create(&config)?;
        let failed = |what: &str, error: &KafkaError| cluster.producer_failed(what, error, &producer);
        let what = format!("begin to write to topic '{topic}'");
        producer.init_transactions(TRANSACTION_STEP_MAX).map_err(|error| failed(&what, &error))?;
        let partition =
            ProgressPartition { cluster, topic: &lineage.progress_topic, partition: lineage.progress_partition };
        let published = partition.read(key)?.map_or(0, |progress| progress.epoch);
        let partitions = match partitioner {
            Partitioner::ByKey => 0,
            Partitioner::Fixed | Partitioner::RoundRobin => partitions(&self.table)?,
        };
        tracing::debug!(table = cluster.table, key, published, "begins to publish");
        Ok(Session { producer, published, partitions, spread: 0 })
    }
}

impl Session {
    fn send_epoch(
        &mut self,
        publisher: &Publisher,
        lineage: &Lineage,
        key: &str,
        epoch: Epoch,
        objects: &[StagedObject],
    ) -> Result<(), ConnectorError> {
        let SinkOptions { cluster, topic, .. } = &publisher.table.options;
        let what = format!("publish epoch {epoch} to topic '{topic}'");
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| cluster.producer_failed(&what, &error, &self.producer))?;
        let sent = self.send_all(publisher, lineage, key, epoch, objects, &what);
        if let Err(error) = sent {
            // Nothing was committed; whoever reads the topic need not wait for the broker to notice.
            let _ = self.producer.abort_transaction(ABORT_MAX);
            return Err(error);
        }
        failpoint::hit(failpoint::TRANSACTION_WRITTEN);
        let ended = self.producer.commit_transaction(TRANSACTION_STEP_MAX);
        if ended.is_ok() {
            failpoint::hit(failpoint::TRANSACTION_COMMITTED);
        }
        ended.map_err(|error| {
            if let KafkaError::Transaction(inner) = &error
                && inner.txn_requires_abort()
            {
                let _ = self.producer.abort_transaction(ABORT_MAX);
            }
            fenced(&what, &error).unwrap_or_else(|| cluster.producer_failed(&what, &error, &self.producer))
        })
    }

    fn send_all(
        &mut self,
        publisher: &Publisher,
        lineage: &Lineage,
        key: &str,
        epoch: Epoch,
        objects: &[StagedObject],
        what: &str,
    ) -> Result<(), ConnectorError> {
        let SinkOptions { cluster, topic, partitioner, .. } = &publisher.table.options;
        let failed = |session: &Session, error: &KafkaError| {
            fenced(what, error).unwrap_or_else(|| cluster.producer_failed(what, error, &session.producer))
        };
        for object in objects {
            let bytes = publisher.fetch(object, epoch)?;
            for record in Records(&bytes) {
                let record = record.ok_or_else(|| lost(object, epoch, "its records are damaged"))?;
                let partition = match partitioner {
                    Partitioner::ByKey => None,
                    Partitioner::Fixed => Some(i32::try_from(object.subtask).unwrap_or(0) % self.partitions),
                    Partitioner::RoundRobin => {
                        self.spread = (self.spread + 1) % self.partitions;
                        Some(self.spread)
                    }
                };
                self.send(topic, partition, &record).map_err(|error| failed(self, &error))?;
            }
        }
        let table = &cluster.table;
        let progress = Progress { epoch: epoch.0, job: publisher.job.to_string(), topic: topic.clone() };
        let progress = serde_json::to_vec(&progress).expect("text and numbers are JSON");
        let mark = Record { key: Some(key.as_bytes()), value: Some(&progress), ..Record::default() };
        let partition = Some(lineage.progress_partition);
        self.send(&lineage.progress_topic, partition, &mark).map_err(|error| failed(self, &error))?;
        // `flush` of the client looks ten times a second only.
        let deadline = now() + TRANSACTION_STEP_MAX;
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(1));
            if now() > deadline {
                tracing::debug!(table, "messages are not acknowledged in time");
                return Err(failed(self, &KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
            }
        }
        Ok(())
    }

    /// Hands a message to the client, which may have to make room first.
    fn send(&self, topic: &str, partition: Option<i32>, record: &Record<'_>) -> Result<(), KafkaError> {
        let deadline = now() + TRANSACTION_STEP_MAX;
        loop {
            match self.producer.send(base_record(topic, partition, record)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if now() < deadline => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl Publisher {
    /// The records of an object.
    fn fetch(&self, object: &StagedObject, epoch: Epoch) -> Result<Vec<u8>, ConnectorError> {
        let bytes = self.runtime.block_on(self.staging.store().get(&object.name))?;
        let bytes = bytes.ok_or_else(|| lost(object, epoch, "it is not there"))?;
        if crc32c::crc32c(&bytes) != object.crc32c {
            return Err(lost(object, epoch, "it has other bytes than were written"));
        }
        unpack(&bytes, &object.name)
    }
}

/// A message as the client takes it.
pub(super) fn base_record<'a>(
    topic: &'a str,
    partition: Option<i32>,
    record: &Record<'a>,
) -> BaseRecord<'a, [u8], [u8]> {
    let mut base = BaseRecord::to(topic);
    base.partition = partition;
    base.key = record.key;
    base.payload = record.value;
    base.timestamp = record.timestamp;
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: *value });
        }
        base.headers = Some(headers);
    }
    base
}

fn lost(object: &StagedObject, epoch: Epoch, why: &str) -> ConnectorError {
    ConnectorError::new(
        ErrorKind::Lost,
        format!(
            "the staged output '{}' of epoch {epoch} is lost: {why}; it was removed or changed from outside, restore the state directory or restart the job from an earlier savepoint",
            object.name
        ),
    )
}

/// That somebody else publishes for the same sink.
fn fenced(what: &str, error: &KafkaError) -> Option<ConnectorError> {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code()?;
    let is_fenced = matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch);
    is_fenced.then(|| {
        let message = format!(
            "cannot {what}: another coordinator publishes for this job, or 'properties.transaction.timeout.ms' has passed"
        );
        ConnectorError::new(ErrorKind::Transient, message)
    })
}

/// Makes sure that the brokers answer and that the topic is there, and gives its partitions; brokers that create topics by themselves are given the
/// time for it.
pub(super) async fn check_topic(table: Arc<KafkaTable>) -> Result<i32, ConnectorError> {
    let checked = spawn_blocking(move || partitions(&table)).await;
    checked.map_err(|error| {
        ConnectorError::new(ErrorKind::Transient, format!("the look at a topic was stopped: {error}"))
    })?
}

/// Partitions of the table's topic. Blocks.
fn partitions(table: &KafkaTable) -> Result<i32, ConnectorError> {
    use super::super::client::REQUEST_TIMEOUT;

    let SinkOptions { cluster, topic, .. } = &table.options;
    let config: ClientConfig = cluster.producer_config();
    let producer: BaseProducer<_> = cluster.create(&config)?;
    let what = format!("write to topic '{topic}'");
    let failed = |error: &KafkaError| cluster.producer_failed(&what, error, &producer);
    let deadline = now() + REQUEST_TIMEOUT / 2;
    loop {
        let metadata =
            producer.client().fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| failed(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = match found.map(|found| (found.error(), found.partitions().len())) {
            Some((None, count)) if count > 0 => return Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            Some((Some(error), _)) if error.is_error() => RDKafkaErrorCode::from(error),
            _ => RDKafkaErrorCode::UnknownTopicOrPartition,
        };
        let may_come = matches!(
            error,
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::LeaderNotAvailable
        );
        if !may_come || now() > deadline {
            return Err(failed(&KafkaError::MetadataFetch(error)));
        }
        pause(Duration::from_millis(200));
    }
}
