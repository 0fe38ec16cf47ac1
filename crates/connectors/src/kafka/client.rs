//! Clients of a Kafka cluster: their configuration out of a table's `properties.*`, and a context that keeps
//! librdkafka's log lines and errors for messages of ours. Called by source and sink.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer, ProducerContext};

use crate::error::ConnectorError;
use crate::table::{Options, TableSpec};

use super::error::ClientError;

/// How long one request may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The group that a consumer names where the user gives none. Nothing is ever committed to it.
const NO_GROUP: &str = "mainstem-no-group";
/// What a client says is listened to so many times when a request has failed.
const HEARD_MAX: usize = 32;
/// Properties of Java's client that have no counterpart here, are set by the connector, or would break its promises.
const REFUSED: [(&str, &str); 9] = [
    ("key.serializer", "formats are named by 'key.format' and 'value.format'"),
    ("value.serializer", "formats are named by 'key.format' and 'value.format'"),
    ("key.deserializer", "formats are named by 'key.format' and 'value.format'"),
    ("value.deserializer", "formats are named by 'key.format' and 'value.format'"),
    ("enable.auto.commit", "offsets are committed after checkpoints"),
    ("enable.partition.eof", "it is set by the connector"),
    ("transactional.id", "it is made from the job's name and 'sink.transactional-id-prefix'"),
    ("enable.idempotence", "it follows from 'sink.delivery-guarantee'"),
    ("partitioner", "give 'sink.partitioner'"),
];
/// How to reach a cluster: the table's `properties.*`.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// The table, for messages.
    pub(super) table: String,
    /// `host:port,...`, for messages.
    pub(super) servers: String,
    /// `properties.group.id`.
    pub(super) group: Option<String>,
    properties: Vec<(String, String)>,
}

impl Cluster {
    /// Reads `properties.*`. Connects to nothing, but has librdkafka check names and values.
    pub(super) fn read(options: &mut Options<'_>) -> Result<Cluster, ConnectorError> {
        let table = options.table().name.clone();
        let servers = options.required("properties.bootstrap.servers")?.trim().to_owned();
        if servers.is_empty() {
            return Err(ConnectorError::option(format!(
                "option 'properties.bootstrap.servers' of table '{table}' is empty: give one broker or several as 'host:port,host:port'"
            )));
        }
        let mut properties = Vec::new();
        let mut group = None;
        for (name, value) in options.with_prefix("properties.") {
            if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
                return Err(ConnectorError::option(format!(
                    "option 'properties.{name}' of table '{table}' cannot be set: {why}"
                )));
            }
            match name {
                "group.id" => group = Some(value.to_owned()),
                _ => properties.push((name.to_owned(), value.to_owned())),
            }
        }
        let cluster = Cluster { table, servers, group, properties };
        cluster.check()?;
        Ok(cluster)
    }

    /// A configuration for a consumer. It begins where it is told and commits nothing by itself.
    pub(super) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.config();
        for (name, value) in [
            ("isolation.level", "read_committed"),
            // What is asked for and is not there is an error, never other rows in silence.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.queue.backoff.ms", "20"),
        ] {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("group.id", self.group.as_deref().unwrap_or(NO_GROUP));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("allow.auto.create.topics", "false");
        config.set("enable.partition.eof", "true");
        config
    }

    /// A configuration for a producer.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.config();
        config.set("linger.ms", "1");
        // Java's way to choose a partition by the key, so that other programs find the same one.
        config.set("partitioner", "murmur2_random");
        // Each side passes over the properties of the other.
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.set("client.id", "mainstem");
        // OpenSSL is part of the binary, so the certificates of the system have to be looked for.
        config.set("ssl.ca.location", "probe");
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// The value of a property that the user gave.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Has librdkafka judge the properties: it opens no connection before it is asked for something.
    fn check(&self) -> Result<(), ConnectorError> {
        let checked = [self.consumer_config().create_native_config(), self.producer_config().create_native_config()];
        for checked in checked {
            let Err(error) = checked else { continue };
            let message = match error {
                KafkaError::ClientConfig(_, reason, name, value) => {
                    let secret = ["password", "secret", "jaas", "token", "key"].iter().any(|part| name.contains(part));
                    let value = if secret { String::new() } else { format!(" has the value '{value}', which") };
                    let reason = reason.trim_end_matches('.');
                    format!(
                        "option 'properties.{name}' of table '{}'{value} is refused by the client: {reason}; its names are librdkafka's",
                        self.table
                    )
                }
                other => format!("the 'properties.*' of table '{}' are refused: {other}", self.table),
            };
            return Err(ConnectorError::option(message));
        }
        Ok(())
    }

    /// Makes a client.
    pub(super) fn create<T: FromClientConfigAndContext<Context>>(
        &self,
        config: &ClientConfig,
    ) -> Result<T, ConnectorError> {
        let context = Context { table: self.table.clone(), last_error: Mutex::default(), lost: Mutex::default() };
        config.create_with_context(context).map_err(|error| {
            let reason = match error {
                KafkaError::ClientCreation(reason) => reason,
                other => other.to_string(),
            };
            ConnectorError::option(format!(
                "no Kafka client can be made for table '{}': {reason}; check its 'properties.*'",
                self.table
            ))
        })
    }

    /// A consumer that has no partitions yet.
    pub(super) fn consumer(&self) -> Result<BaseConsumer<Context>, ConnectorError> {
        self.create(&self.consumer_config())
    }

    /// A failed request of a consumer, see [`Cluster::failed`].
    pub(super) fn consumer_failed(
        &self,
        what: &str,
        error: &KafkaError,
        consumer: &BaseConsumer<Context>,
    ) -> ConnectorError {
        // What the client has to say waits in its queue. Nothing is assigned where this is called, so no message is lost.
        for _ in 0..HEARD_MAX {
            consumer.poll(Duration::ZERO);
        }
        self.failed(what, error, consumer.context())
    }

    /// A failed request of a producer, see [`Cluster::failed`].
    pub(super) fn producer_failed(
        &self,
        what: &str,
        error: &KafkaError,
        producer: &BaseProducer<Context>,
    ) -> ConnectorError {
        for _ in 0..HEARD_MAX {
            producer.poll(Duration::ZERO);
        }
        self.failed(what, error, producer.client().context())
    }

    /// A failed request, in words for the user. `what` goes after "cannot".
    pub(super) fn failed(&self, what: &str, error: &KafkaError, context: &Context) -> ConnectorError {
        let lost = context.take_lost().map(|(count, reason)| format!("{count} messages were not delivered: {reason}"));
        ClientError { cluster: self, what, error, heard: lost.or_else(|| context.last_error()) }.into()
    }
}

/// Receives what librdkafka has to say.
pub(super) struct Context {
    table: String,
    /// The newest trouble with brokers, which says more than a time-out does.
    last_error: Mutex<Option<String>>,
    /// Messages that were not delivered, and why the first was not.
    lost: Mutex<Option<(u64, String)>>,
}

impl Context {
    /// Messages that were not delivered since the last call, and why the first was not.
    pub(super) fn take_lost(&self) -> Option<(u64, String)> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Its warnings speak of connections that it mends itself; what the user has to know comes as an error.
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(table = self.table, facility, "librdkafka: {message}"),
            _ => tracing::debug!(table = self.table, facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            return;
        }
        tracing::debug!(table = self.table, %error, "librdkafka: {reason}");
        let all_down = matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown));
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down is heard last and says least.
        if !all_down || last.is_none() {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, _opaque: ()) {
        if let Err((error, _)) = result {
            let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.get_or_insert((0, reason)).0 += 1;
        }
    }
}

/// Refuses what this connector cannot do with a table, whichever side it is on.
pub(super) fn check_table(table: &TableSpec) -> Result<(), ConnectorError> {
    if !table.partition_keys.is_empty() {
        return Err(ConnectorError::option(format!(
            "table '{}' is PARTITIONED BY columns, which a Kafka topic is not; give 'key.fields', by which Kafka chooses partitions",
            table.name
        )));
    }
    Ok(())
}
