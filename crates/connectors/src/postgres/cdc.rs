//! Changes of a table of PostgreSQL: `'connector' = 'postgres-cdc'`. First a copy of the table as it is, then what is written
//! to the log from there on, by logical replication. Rows replace each other by the table's primary key. Called by the
//! registry.
//!
//! Invariants:
//! - The slot is made before the copy, so every change that the copy does not hold comes from the log; what it holds is told
//!   by the snapshot of the copy, transaction by transaction ([`position::Snapshot`]).
//! - The slot is confirmed up to what the oldest checkpoint holds that may still be restored, never further.
//! - A slot that is gone, or has been moved behind a checkpoint's position, is an error: nothing is passed over in silence.

mod changes;
mod lag;
mod pgoutput;
mod position;
mod reader;
mod relay;
mod slot;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;

use super::options::{self, CdcOptions, TableOptions};
use super::text::RowsBuilder;
use crate::error::ConnectorError;
use crate::source::{EnumeratorContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

/// How often the only split is looked for; that it is at all says that the source has no end.
const MONITOR_INTERVAL: Duration = Duration::from_secs(3600);

/// The table as the changes of one of PostgreSQL's.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    let (place, options) = options::of_cdc(table)?;
    if table.primary_key.is_empty() {
        return Err(ConnectorError::option(format!(
            "table '{}' has the connector 'postgres-cdc', whose rows replace each other by key: declare PRIMARY KEY (...) NOT \
             ENFORCED",
            table.name
        )));
    }
    // A delete knows nothing but the key.
    let known = |field: &Field| field.clone().with_nullable(!table.primary_key.contains(field.name()));
    let schema: SchemaRef = Arc::new(Schema::new(table.schema.fields().iter().map(|f| known(f)).collect::<Vec<_>>()));
    RowsBuilder::new(schema.clone())?;
    let origin = CdcTable { declared: table.name.clone(), place, options, schema, key: table.primary_key.clone() };
    Ok(Arc::new(CdcSource(Arc::new(origin))))
}

/// What is read.
struct CdcTable {
    /// Name of the declared table.
    declared: String,
    place: TableOptions,
    options: CdcOptions,
    /// The declared columns; those that are not of the key may be NULL.
    schema: SchemaRef,
    key: Vec<String>,
}

struct CdcSource(Arc<CdcTable>);

impl Source for CdcSource {
    fn enumerator(&self, _ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        Box::new(OneTable(self.0.place.shown()))
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        Box::new(reader::CdcReader::new(self.0.clone(), ctx))
    }

    fn changes(&self) -> ChangeMode {
        ChangeMode::Upsert
    }

    /// The slot keeps the log as long as a checkpoint may need it. The copy at the beginning is another one when it is made
    /// again; what differs comes from the log.
    fn is_replayable(&self) -> bool {
        true
    }

    fn leaves(&self) -> Option<&'static str> {
        Some("a publication and a replication slot")
    }

    fn monitor_interval(&self) -> Option<Duration> {
        Some(MONITOR_INTERVAL)
    }

    fn splits_at_once(&self) -> usize {
        usize::MAX
    }
}

/// A table is one split.
struct OneTable(String);

#[async_trait]
impl SplitEnumerator for OneTable {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        Ok(vec![SourceSplit { id: SplitId(self.0.clone()), payload: String::new() }])
    }
}
