//! Reads topics. The enumerator finds partitions and fixes, once and for the life of the job, where each begins and
//! where a bounded one ends; that is recorded with the split, so that a replay reads the same. Readers share a consumer for each topic
//! and subtask ([`hub`]). Offsets live in checkpoints; those of the consumer group are only for the tools that show lag.

mod enumerator;
mod group;
mod hub;
mod lag;
mod offsets;
mod options;
mod reader;
mod slot;
mod split;

use std::sync::Arc;
use std::time::Duration;

use mainstem_core::change::ChangeMode;

use crate::bad_records::BadRecordOptions;
use crate::error::ConnectorError;
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

use super::Kind;
use super::options::{Layout, MessageFormat};

use hub::Hubs;
use options::SourceOptions;

/// A table of topics.
pub(super) struct KafkaSource {
    table: Arc<KafkaTable>,
    /// The consumers of this subtask; made when they are needed.
    hubs: Arc<Hubs>,
}

/// What enumerator and readers know of the table.
pub(super) struct KafkaTable {
    spec: TableSpec,
    kind: Kind,
    layout: Layout,
    options: SourceOptions,
    bad_records: BadRecordOptions,
}

impl KafkaSource {
    /// Checks all options; connects to nothing.
    pub(super) fn new(spec: &TableSpec, kind: Kind) -> Result<KafkaSource, ConnectorError> {
        super::client::check_table(spec)?;
        let mut options = spec.options();
        let layout = Layout::read(&mut options, kind)?;
        layout.check_metadata(spec)?;
        let source = SourceOptions::read(&mut options, kind)?;
        let bad_records = BadRecordOptions::read(&mut options)?;
        options.accept(super::options::SINK_OPTIONS);
        options.finish()?;
        let table = Arc::new(KafkaTable { spec: spec.clone(), kind, layout, options: source, bad_records });
        Ok(KafkaSource { hubs: Arc::new(Hubs::new(table.clone())), table })
    }
}

impl Source for KafkaSource {
    fn enumerator(&self, _ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        Box::new(enumerator::KafkaEnumerator::new(self.table.clone()))
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        Box::new(reader::PartitionReader::new(self.table.clone(), self.hubs.clone(), ctx))
    }

    fn changes(&self) -> ChangeMode {
        match (self.table.kind, &self.table.layout.value.format) {
            (Kind::Upsert, _) => ChangeMode::Upsert,
            (Kind::Plain, MessageFormat::Text(format)) => format.source_changes(),
            (Kind::Plain, MessageFormat::Raw) => ChangeMode::Append,
        }
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn splits_at_once(&self) -> usize {
        usize::MAX
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.table.options.discovery_interval.filter(|_| !self.is_bounded())
    }

    fn is_bounded(&self) -> bool {
        self.table.options.stop.is_some()
    }
}
