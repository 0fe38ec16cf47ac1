//! Reads streams. The enumerator fixes, once and for the life of the job, where each split begins and where a bounded one
//! ends; that is recorded with the split, so that a replay reads the same. How far a split is read stands in checkpoints and
//! nowhere else: the server is asked by consumers that it may forget at any time ([`puller`]).

mod enumerator;
mod lag;
mod options;
mod puller;
mod reader;
mod split;

use std::sync::Arc;
use std::time::Duration;

use mainstem_core::change::ChangeMode;
use tokio::sync::Mutex;

use crate::bad_records::BadRecordOptions;
use crate::error::ConnectorError;
use crate::kafka::MessageFormat;
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

use super::address::Address;
use super::connection::Connection;
use super::layout::{Layout, Metadata};

use options::SourceOptions;

/// A table of one stream.
pub(super) struct NatsSource {
    table: Arc<NatsTable>,
}

/// What enumerator and readers know of the table.
pub(super) struct NatsTable {
    spec: TableSpec,
    address: Arc<Address>,
    layout: Layout,
    options: SourceOptions,
    bad_records: BadRecordOptions,
    /// Shared by the splits of a subtask.
    connection: Mutex<Option<Connection>>,
}

impl NatsSource {
    /// Checks all options; connects to nothing.
    pub(super) fn new(spec: &TableSpec) -> Result<NatsSource, ConnectorError> {
        let mut options = spec.options();
        let address = Arc::new(Address::read(&mut options)?);
        let layout = Layout::read(&mut options)?;
        let source = SourceOptions::read(&mut options)?;
        let bad_records = BadRecordOptions::read(&mut options)?;
        options.accept(super::layout::SINK_OPTIONS);
        options.finish()?;
        let (spec, connection) = (spec.clone(), Mutex::default());
        Ok(NatsSource {
            table: Arc::new(NatsTable { spec, address, layout, options: source, bad_records, connection }),
        })
    }
}

impl NatsTable {
    /// The connection of the subtask, opened where there is none that works.
    async fn connection(&self) -> Result<Connection, ConnectorError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| connection.is_connected()) {
            return Ok(connection.clone());
        }
        *held = None;
        Ok(held.insert(Connection::open(self.address.clone()).await?).clone())
    }

    /// Whether rows tell the headers of their messages.
    fn has_headers(&self) -> bool {
        self.layout.column_of(Metadata::Headers).is_some()
    }
}

impl Source for NatsSource {
    fn enumerator(&self, _ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        Box::new(enumerator::NatsEnumerator::new(self.table.clone()))
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        Box::new(reader::StreamReader::new(self.table.clone(), ctx))
    }

    fn changes(&self) -> ChangeMode {
        match &self.table.layout.value.format {
            MessageFormat::Text(format) => format.source_changes(),
            MessageFormat::Raw => ChangeMode::Append,
        }
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn splits_at_once(&self) -> usize {
        usize::MAX
    }

    fn monitor_interval(&self) -> Option<Duration> {
        // The subjects that are named are all the splits there are.
        None
    }

    fn is_bounded(&self) -> bool {
        self.table.options.stop.is_some()
    }
}
