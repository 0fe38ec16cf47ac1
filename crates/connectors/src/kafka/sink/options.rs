//! The options of the writing side.

use crate::error::ConnectorError;
use crate::sink::Delivery;
use crate::table::Options;

use super::super::Kind;
use super::super::client::Cluster;

/// Where the progress of sinks is kept unless the user names another topic.
const PROGRESS_TOPIC_DEFAULT: &str = "mainstem-progress";
/// What transactional ids begin with unless the user says otherwise.
const TRANSACTIONAL_ID_PREFIX_DEFAULT: &str = "mainstem";

/// The writing side of a table.
#[derive(Clone, Debug)]
pub(super) struct SinkOptions {
    pub(super) cluster: Cluster,
    pub(super) topic: String,
    pub(super) delivery: Delivery,
    pub(super) transactional_id_prefix: String,
    pub(super) progress_topic: String,
    pub(super) partitioner: Partitioner,
}

/// Which partition a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partitioner {
    /// By the key as Java's client does it; messages without key are spread.
    ByKey,
    /// A partition for each sink subtask.
    Fixed,
    /// One after the other.
    RoundRobin,
}

impl SinkOptions {
    /// Reads the options of the writing side.
    pub(super) fn read(options: &mut Options<'_>, kind: Kind) -> Result<SinkOptions, ConnectorError> {
        let cluster = Cluster::read(options)?;
        let table = cluster.table.clone();
        let topic = topic(options, &table)?;
        let delivery = delivery(options, &table)?;
        let prefix = options.get("sink.transactional-id-prefix").unwrap_or(TRANSACTIONAL_ID_PREFIX_DEFAULT).to_owned();
        let progress_topic = options.get("sink.progress-topic").unwrap_or(PROGRESS_TOPIC_DEFAULT).to_owned();
        if progress_topic == topic {
            return Err(ConnectorError::option(format!(
                "option 'sink.progress-topic' of table '{table}' names the topic of the table itself: choose another"
            )));
        }
        let partitioner = match options.one_of("sink.partitioner", "default", &["default", "fixed", "round-robin"])? {
            "fixed" => Partitioner::Fixed,
            "round-robin" => Partitioner::RoundRobin,
            _ => Partitioner::ByKey,
        };
        if kind == Kind::Upsert && partitioner != Partitioner::ByKey {
            return Err(ConnectorError::option(format!(
                "option 'sink.partitioner' of table '{table}' must be 'default' for 'upsert-kafka': the messages of a key need one partition, or their order is lost"
            )));
        }
        for buffer in ["sink.buffer-flush.max-rows", "sink.buffer-flush.interval"] {
            if options.get(buffer).is_some_and(|value| value.trim() != "0") {
                return Err(ConnectorError::option(format!(
                    "option '{buffer}' of table '{table}' is not supported: an epoch's messages are sent together anyway; leave it out"
                )));
            }
        }
        if options.get("sink.parallelism").is_some() {
            return Err(ConnectorError::option(format!(
                "option 'sink.parallelism' of table '{table}' is not supported: the job's parallelism holds; leave it out"
            )));
        }
        Ok(SinkOptions { cluster, topic, delivery, transactional_id_prefix: prefix, progress_topic, partitioner })
    }
}

fn topic(options: &mut Options<'_>, table: &str) -> Result<String, ConnectorError> {
    if options.get("topic-pattern").is_some() {
        return Err(ConnectorError::option(format!(
            "table '{table}' with 'topic-pattern' can only be read; to write it, give one 'topic'"
        )));
    }
    let text = options.required("topic")?.trim();
    if text.is_empty() || text.contains(';') {
        return Err(ConnectorError::option(format!(
            "option 'topic' of table '{table}' has the value '{text}': a table that is written needs exactly one topic"
        )));
    }
    Ok(text.to_owned())
}

/// `'sink.delivery-guarantee'` is Flink's name, `'delivery'` the one that all connectors share.
fn delivery(options: &mut Options<'_>, table: &str) -> Result<Delivery, ConnectorError> {
    let key = "sink.delivery-guarantee";
    let given = options.get(key).is_some();
    let own = match options.one_of(key, "exactly-once", &["exactly-once", "at-least-once", "best-effort", "none"])? {
        "exactly-once" => Delivery::ExactlyOnce,
        "at-least-once" => Delivery::AtLeastOnce,
        _ => Delivery::BestEffort,
    };
    let general = match options.get("delivery") {
        Some("at-least-once") => Delivery::AtLeastOnce,
        Some("best-effort") => Delivery::BestEffort,
        Some("exactly-once") => Delivery::ExactlyOnce,
        _ => return Ok(own),
    };
    if given && general != own {
        return Err(ConnectorError::option(format!(
            "the options '{key}' and 'delivery' of table '{table}' contradict each other: give one of them"
        )));
    }
    Ok(general)
}
