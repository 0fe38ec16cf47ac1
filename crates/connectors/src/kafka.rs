//! Topics as tables: `'connector' = 'kafka'` and `'connector' = 'upsert-kafka'`, through librdkafka. A partition is a
//! split; a message is a record. Called by the registry. Nothing of librdkafka is seen outside of this module, and none of its log
//! lines reaches standard error by itself.

mod client;
mod decode;
mod error;
mod options;
mod sink;
mod source;
mod time;

use std::sync::Arc;

use crate::error::ConnectorError;
use crate::sink::Sink;
use crate::source::Source;
use crate::table::TableSpec;

// How a message holds rows is the same for other brokers.
pub(crate) use decode::PartDecoder;
pub(crate) use options::{MessageFormat, Part, format as message_format};
pub(crate) use sink::PartEncoder;

/// Whether each message is a row, or says what is now there for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `'connector' = 'kafka'`.
    Plain,
    /// `'connector' = 'upsert-kafka'`.
    Upsert,
}

/// The table as topics to read. Checks all of its options; connects to nothing.
pub(crate) fn source(table: &TableSpec, kind: Kind) -> Result<Arc<dyn Source>, ConnectorError> {
    Ok(Arc::new(source::KafkaSource::new(table, kind)?))
}

/// The table as a topic to write. Checks all of its options; connects to nothing.
pub(crate) fn sink(table: &TableSpec, kind: Kind) -> Result<Arc<dyn Sink>, ConnectorError> {
    Ok(Arc::new(sink::KafkaSink::new(table, kind)?))
}
