//! Writes to a stream. Exactly once, an epoch's messages are staged in durable room of the job ([`writer`]); when the epoch is
//! complete, the committer publishes them one by one, each on the condition that the stream is as it knows it to be
//! ([`publisher`], which has the argument). At least once, or less, the writers publish by themselves ([`direct`]).

mod committer;
mod direct;
mod encode;
mod log;
mod options;
mod outgoing;
mod progress;
mod publisher;
mod writer;

use std::sync::Arc;

use async_nats::jetstream::stream::{Info, RetentionPolicy};
use mainstem_core::change::ChangeMode;

use crate::error::{ConnectorError, ErrorKind};
use crate::kafka::MessageFormat;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::address::Address;
use super::connection::Connection;
use super::layout::Layout;

use encode::{Limits, MessageEncoder};
use options::SinkOptions;

/// A table of one stream.
pub(super) struct NatsSink {
    table: Arc<NatsTable>,
}

/// What writers and the committer know of the table.
pub(super) struct NatsTable {
    spec: TableSpec,
    address: Arc<Address>,
    layout: Layout,
    options: SinkOptions,
}

impl NatsSink {
    /// Checks all options; connects to nothing.
    pub(super) fn new(spec: &TableSpec) -> Result<NatsSink, ConnectorError> {
        let mut options = spec.options();
        let address = Arc::new(Address::read(&mut options)?);
        let layout = Layout::read(&mut options)?;
        let sink = SinkOptions::read(&mut options, &layout)?;
        options.accept(super::layout::SOURCE_OPTIONS);
        options.accept(crate::bad_records::BAD_RECORDS_OPTIONS);
        options.finish()?;
        MessageEncoder::new(spec, &layout, sink.subject.as_deref())?;
        Ok(NatsSink { table: Arc::new(NatsTable { spec: spec.clone(), address, layout, options: sink }) })
    }
}

impl NatsTable {
    /// A connection, and what the stream takes.
    async fn open(&self) -> Result<(Connection, Limits), ConnectorError> {
        let connection = Connection::open(self.address.clone()).await?;
        let info = connection.stream("write its rows").await?;
        self.check(&info)?;
        let limits = Limits::of(&info, connection.client.max_payload(), self.options.delivery == Delivery::ExactlyOnce);
        Ok((connection, limits))
    }

    /// Refuses streams with which a promise cannot be kept.
    fn check(&self, info: &Info) -> Result<(), ConnectorError> {
        let config = &info.config;
        let exactly_once = self.options.delivery == Delivery::ExactlyOnce;
        let why = if config.sealed {
            "it is sealed: nothing can be written to it; choose another stream"
        } else if config.mirror.is_some() {
            "it is a mirror of another stream: write to that one"
        } else if config.no_ack && self.options.delivery != Delivery::BestEffort {
            "it has 'no_ack', so nobody says what it has stored; change the stream, or set 'delivery' = 'best-effort'"
        } else if exactly_once && config.retention != RetentionPolicy::Limits {
            "its retention removes messages once they are acknowledged, so that nobody can tell after a failure which ones were written; use a stream with the retention 'limits', or set 'delivery' = 'at-least-once'"
        } else {
            return Ok(());
        };
        let message = format!("table '{}' cannot write to the {}: {why}", self.spec.name, self.address.place());
        Err(ConnectorError::new(ErrorKind::External, message))
    }

    /// An encoder whose schema is registered where the format wants that.
    async fn encoder(&self, limits: &Limits) -> Result<MessageEncoder, ConnectorError> {
        let mut encoder = MessageEncoder::new(&self.spec, &self.layout, self.options.subject.as_deref())?;
        encoder.register(limits).await?;
        Ok(encoder)
    }
}

impl Sink for NatsSink {
    fn accepts(&self) -> ChangeMode {
        match &self.table.layout.value.format {
            MessageFormat::Text(format) => format.sink_changes(),
            MessageFormat::Raw => ChangeMode::Append,
        }
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let delivery = self.table.options.delivery;
        let how = match delivery {
            Delivery::ExactlyOnce => {
                "an epoch's messages are staged with its checkpoint and published when it is complete, each only if the stream ends with the one before; after a failure the stream tells how far that came"
            }
            Delivery::AtLeastOnce => {
                "messages are published as they come, so those since the last checkpoint are published again after a failure"
            }
            Delivery::BestEffort => {
                "messages are published as they come, and what the server does not store is only logged"
            }
        };
        (delivery, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        match self.table.options.delivery {
            Delivery::ExactlyOnce => Box::new(writer::StagedWriter::new(self.table.clone(), &ctx)),
            _ => Box::new(direct::DirectWriter::new(self.table.clone())),
        }
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        let staged = self.table.options.delivery == Delivery::ExactlyOnce;
        staged.then(|| Box::new(committer::NatsCommitter::new(self.table.clone(), ctx)) as Box<dyn Committer>)
    }
}
