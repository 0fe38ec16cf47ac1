//! Streams of NATS JetStream as tables: `'connector' = 'nats'`, through async-nats. A message is a record; a stream is a
//! split, or as many as subjects are named. Called by the registry. Nothing of async-nats is seen outside of this module.

mod address;
mod connection;
mod decode;
mod error;
mod layout;
mod sink;
mod source;
mod subject;

use std::sync::Arc;

use crate::error::ConnectorError;
use crate::sink::Sink;
use crate::source::Source;
use crate::table::TableSpec;

/// The table as a stream to read. Checks all of its options; connects to nothing.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    Ok(Arc::new(source::NatsSource::new(table)?))
}

/// The table as a stream to write. Checks all of its options; connects to nothing.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    Ok(Arc::new(sink::NatsSink::new(table)?))
}
