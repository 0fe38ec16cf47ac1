//! Tables that are sent to an address. Rows of an epoch are made into the bodies of requests, which are staged; when the
//! epoch is complete, the committer sends them, each with a key that says which request it is. A receiver that knows such
//! keys takes each request once, however often it comes. With `'sink.delivery-guarantee' = 'at-least-once'` or
//! `'best-effort'` writers send by themselves.
//!
//! Invariants:
//! - A staged request has one key and one body, for ever, and is sent only when its epoch is complete.
//! - Where the format holds changes, the requests of a subtask are sent one after the other.

mod committer;
mod direct;
mod staged;

use std::sync::Arc;

use mainstem_core::change::ChangeMode;

use crate::error::ConnectorError;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::body::Bodies;
use super::options::HttpOptions;

use committer::HttpCommitter;
use direct::DirectWriter;
use staged::StagedWriter;

/// The table as something to send.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let options = Arc::new(HttpOptions::read(table)?);
    // Refuses columns that the format cannot hold.
    Bodies::new(table, &options)?;
    Ok(Arc::new(HttpSink { table: Arc::new(table.clone()), options }))
}

struct HttpSink {
    table: Arc<TableSpec>,
    options: Arc<HttpOptions>,
}

impl Sink for HttpSink {
    fn accepts(&self) -> ChangeMode {
        self.options.format.sink_changes()
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let how = match self.options.delivery {
            Delivery::ExactlyOnce => format!(
                "the requests of an epoch are staged with the checkpoint and sent when it is complete, always with the same \
                 bytes and the same {}; a receiver that passes over keys that it has seen takes each once, any other at \
                 least once",
                self.options.key_header
            ),
            Delivery::AtLeastOnce => {
                "rows are sent as they come, so those since the last checkpoint are sent again after a failure"
                    .to_owned()
            }
            Delivery::BestEffort => {
                "rows are sent as they come, and a request that fails too often is dropped and counted".to_owned()
            }
        };
        (self.options.delivery, how)
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        let (table, options) = (self.table.clone(), self.options.clone());
        match options.delivery {
            Delivery::ExactlyOnce => Box::new(StagedWriter::new(table, options, &ctx)),
            _ => Box::new(DirectWriter::new(table, options, &ctx)),
        }
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        let staged = self.options.delivery == Delivery::ExactlyOnce;
        staged.then(|| Box::new(HttpCommitter::new(self.options.clone(), ctx)) as Box<dyn Committer>)
    }
}
