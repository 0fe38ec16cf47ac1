//! Writes to a topic. Exactly once, an epoch's messages are staged in durable room of the job ([`writer`]); when the
//! epoch is complete, the committer sends them in one transaction together with a progress record ([`publisher`]). At
//! least once, or less, the writers send by themselves ([`direct`]).
//!
//! Invariants (see [`publisher`]):
//! - The messages of an epoch and the record that says so become visible at the same instant or not at all.
//! - Nothing is sent of an epoch that is not complete, so what is sent can always be sent again from the stage.
//! - Before the progress is read, the transaction of whoever sent before has ended one way or the other.

mod committer;
mod direct;
mod encode;
mod lineage;
mod options;
mod progress;
mod publisher;
mod records;
mod writer;

use std::sync::Arc;

use mainstem_core::change::ChangeMode;

use crate::error::ConnectorError;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::Kind;
use super::options::{Layout, MessageFormat};

use encode::MessageEncoder;
pub(crate) use encode::PartEncoder;
use options::SinkOptions;

/// A table of one topic.
pub(super) struct KafkaSink {
    table: Arc<KafkaTable>,
}

/// What writers and the committer know of the table.
pub(super) struct KafkaTable {
    spec: TableSpec,
    kind: Kind,
    layout: Layout,
    options: SinkOptions,
}

impl KafkaSink {
    /// Checks all options; connects to nothing.
    pub(super) fn new(spec: &TableSpec, kind: Kind) -> Result<KafkaSink, ConnectorError> {
        super::client::check_table(spec)?;
        let mut options = spec.options();
        let layout = Layout::read(&mut options, kind)?;
        let sink = SinkOptions::read(&mut options, kind)?;
        options.accept(super::options::SOURCE_OPTIONS);
        options.accept(crate::bad_records::BAD_RECORDS_OPTIONS);
        options.finish()?;
        MessageEncoder::new(spec, &layout, kind)?;
        Ok(KafkaSink { table: Arc::new(KafkaTable { spec: spec.clone(), kind, layout, options: sink }) })
    }
}

impl Sink for KafkaSink {
    fn accepts(&self) -> ChangeMode {
        match (self.table.kind, &self.table.layout.value.format) {
            (Kind::Upsert, _) => ChangeMode::Upsert,
            (Kind::Plain, MessageFormat::Text(format)) => format.sink_changes(),
            (Kind::Plain, MessageFormat::Raw) => ChangeMode::Append,
        }
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let delivery = self.table.options.delivery;
        let how = match delivery {
            Delivery::ExactlyOnce => {
                "an epoch's messages are staged with its checkpoint and sent in one transaction together with a record of the progress, which is read before anything is sent again"
            }
            Delivery::AtLeastOnce => {
                "messages are sent as they come, so those since the last checkpoint are sent again after a failure"
            }
            Delivery::BestEffort => "messages are sent as they come, and nobody waits for the broker's answer",
        };
        (delivery, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        match self.table.options.delivery {
            Delivery::ExactlyOnce => Box::new(writer::StagingWriter::new(self.table.clone(), ctx)),
            _ => Box::new(direct::DirectWriter::new(self.table.clone(), ctx.subtask)),
        }
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        let staged = self.table.options.delivery == Delivery::ExactlyOnce;
        staged.then(|| Box::new(committer::KafkaCommitter::new(self.table.clone(), ctx)) as Box<dyn Committer>)
    }
}
