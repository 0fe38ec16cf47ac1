//! Sends messages as they come, with nothing staged: at least once, where an epoch is complete only with the brokers' answers,
//! or with no promise at all, where it waits for them for a while and goes on without.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{Delivery, SinkWriter};

use super::super::client::Context;
use super::super::time::now;
use super::KafkaTable;
use super::encode::MessageEncoder;
use super::options::{Partitioner, SinkOptions};
use super::publisher::{self, base_record};
use super::records::{Record, RecordBuffer, Records};

/// How long brokers may take for the messages of an epoch; librdkafka gives a message up after five minutes.
const ANSWER_MAX: Duration = Duration::from_secs(310);
/// How long an epoch waits for them where nothing is promised: what the brokers take in time is there when the job ends.
const BEST_EFFORT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at what is still under way.
const LOOK: Duration = Duration::from_millis(2);

/// See the module.
pub(super) struct DirectWriter {
    table: Arc<KafkaTable>,
    subtask: u32,
    /// Made with the first rows.
    open: Option<Open>,
}

struct Open {
    encoder: MessageEncoder,
    producer: Arc<ThreadedProducer<Context>>,
    partitions: i32,
    spread: i32,
}

impl DirectWriter {
    /// A writer for one subtask.
    pub(super) fn new(table: Arc<KafkaTable>, subtask: u32) -> DirectWriter {
        DirectWriter { table, subtask, open: None }
    }

    async fn open(table: Arc<KafkaTable>) -> Result<Open, ConnectorError> {
        let partitions = publisher::check_topic(table.clone()).await?;
        let KafkaTable { spec, layout, kind, options } = table.as_ref();
        let mut encoder = MessageEncoder::new(spec, layout, *kind)?;
        encoder.register(&options.topic).await?;
        let mut config = options.cluster.producer_config();
        if options.delivery == Delivery::AtLeastOnce {
            // Without it a repeated request may change the order of messages.
            config.set("enable.idempotence", "true");
        }
        let producer = Arc::new(options.cluster.create(&config)?);
        Ok(Open { encoder, producer, partitions, spread: 0 })
    }

    fn failed(options: &SinkOptions, error: &KafkaError, producer: &ThreadedProducer<Context>) -> ConnectorError {
        let SinkOptions { cluster, topic, .. } = options;
        cluster.failed(&format!("write to topic '{topic}'"), error, producer.client().context())
    }

    async fn send(&mut self, record: &Record<'_>) -> Result<(), ConnectorError> {
        let table = self.table.clone();
        let SinkOptions { topic, partitioner, .. } = &table.options;
        let subtask = i32::try_from(self.subtask).unwrap_or(0);
        let open = self.open.as_mut().expect("opened with the first rows");
        let partition = match partitioner {
            Partitioner::ByKey => None,
            Partitioner::Fixed => Some(subtask % open.partitions),
            Partitioner::RoundRobin => {
                open.spread = (open.spread + 1) % open.partitions;
                Some(open.spread)
            }
        };
        let producer = open.producer.clone();
        loop {
            let sent = producer.send(base_record(topic, partition, record)).map_err(|(error, _)| error);
            match sent {
                Ok(()) => return Ok(()),
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(DirectWriter::failed(&table.options, &error, &producer)),
            }
        }
    }
}

#[async_trait]
impl SinkWriter for DirectWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if self.open.is_none() {
            self.open = Some(DirectWriter::open(self.table.clone()).await?);
        }
        let open = self.open.as_mut().expect("opened above");
        let mut buffer = RecordBuffer::default();
        open.encoder.encode(rows, changes, &mut |record| buffer.push(record))?;
        for record in Records(buffer.bytes()) {
            self.send(&record.expect("it was pushed above")).await?;
        }
        Ok(())
    }

    async fn seal(
        &mut self,
        epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let Some(open) = &self.open else { return Ok(async { Ok(Vec::new()) }.boxed()) };
        let (producer, options) = (open.producer.clone(), self.table.options.clone());
        let lost = producer.client().context().take_lost();
        let is_best_effort = options.delivery == Delivery::BestEffort;
        let answered = async move {
            let deadline = now() + if is_best_effort { BEST_EFFORT_MAX } else { ANSWER_MAX };
            while producer.in_flight_count() > 0 && now() < deadline {
                tokio::time::sleep(LOOK).await;
            }
            let under_way = || {
                let count = u64::try_from(producer.in_flight_count()).ok().filter(|count| *count > 0)?;
                Some((count, "the brokers have not answered".to_owned()))
            };
            let lost = lost.or_else(|| producer.client().context().take_lost()).or_else(under_way);
            let Some((count, reason)) = lost else { return Ok(Vec::new()) };
            let SinkOptions { cluster, topic, .. } = &options;
            let message = format!(
                "table '{}' cannot write to topic '{topic}': {count} messages of epoch {epoch} were not delivered: {reason}",
                cluster.table
            );
            if is_best_effort {
                tracing::warn!("{message}");
                return Ok(Vec::new());
            }
            Err(ConnectorError::new(ErrorKind::Transient, message))
        };
        Ok(answered.boxed())
    }
}
