//! Tables of PostgreSQL as something to read: as a whole, once, and by key for those that look rows up.

mod lookup;
mod scan;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;

use super::client::Session;
use super::options::{self, TableOptions};
use super::table::{Direction, RealTable};
use super::text::RowsBuilder;
use crate::error::ConnectorError;
use crate::source::{EnumeratorContext, Lookup, LookupContext, ReaderContext, Source, SourceReader, SplitEnumerator};
use crate::table::TableSpec;

/// The table as one of PostgreSQL's to read.
pub(crate) fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    let place = options::of_source(table)?;
    // Refuses types that cannot be read.
    RowsBuilder::new(table.schema.clone())?;
    let origin =
        Origin { declared: table.name.clone(), place, schema: table.schema.clone(), key: table.primary_key.clone() };
    Ok(Arc::new(PostgresSource(Arc::new(origin))))
}

/// What is read.
struct Origin {
    /// Name of the declared table.
    declared: String,
    place: TableOptions,
    schema: SchemaRef,
    /// The primary key; may be empty.
    key: Vec<String>,
}

impl Origin {
    /// A connection to the database and the table there, which fits what is read of the declaration.
    async fn open(&self, columns: &[usize]) -> Result<(Session, RealTable), ConnectorError> {
        let session = Session::open(self.place.address()?).await?;
        let schema = self.place.schema.as_deref();
        let real = RealTable::find(&session, schema, &self.place.name, &self.place.shown()).await?;
        let read = self.projected(columns)?;
        real.check(&self.declared, &read, &[], Direction::Read)?;
        Ok((session, real))
    }

    fn projected(&self, columns: &[usize]) -> Result<SchemaRef, ConnectorError> {
        let projected = self.schema.project(columns);
        projected.map(Arc::new).map_err(|e| ConnectorError::data(format!("columns of '{}': {e}", self.declared)))
    }
}

struct PostgresSource(Arc<Origin>);

impl Source for PostgresSource {
    fn enumerator(&self, _ctx: EnumeratorContext) -> Box<dyn SplitEnumerator> {
        Box::new(WholeTable(self.0.place.shown()))
    }

    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader> {
        Box::new(scan::ScanReader::new(self.0.clone(), ctx))
    }

    /// The table may have changed when it is read again.
    fn is_replayable(&self) -> bool {
        false
    }

    fn monitor_interval(&self) -> Option<Duration> {
        None
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn lookup(&self, ctx: LookupContext) -> Option<Box<dyn Lookup>> {
        Some(Box::new(lookup::PostgresLookup::new(self.0.clone(), ctx)))
    }
}

/// A table is one split.
struct WholeTable(String);

#[async_trait]
impl SplitEnumerator for WholeTable {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        Ok(vec![SourceSplit { id: SplitId(self.0.clone()), payload: String::new() }])
    }
}
