//! Tables of PostgreSQL as something to write. Rows of an epoch are staged; when the epoch is complete, the committer writes
//! them in one transaction, together with a marker that says so. So readers see an epoch as a whole, and a commit can be
//! repeated: the marker tells. With `'sink.delivery-guarantee' = 'at-least-once'` writers write by themselves.
//!
//! Invariants:
//! - Rows and their marker become visible in one transaction, which holds the sink's lock from its beginning.
//! - An epoch is written only if it is new by its number and the attempt that staged it ([`decide`](crate::staging::decide)).

mod committer;
mod direct;
mod rows;
mod staged;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mainstem_core::change::ChangeMode;

use super::client::Session;
use super::options::{self, SinkOptions, TableOptions};
use super::table::{Direction, RealTable};
use crate::error::ConnectorError;
use crate::format::encode::check_columns;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

use committer::PostgresCommitter;
use direct::DirectWriter;
use staged::StagedWriter;

/// The table as one of PostgreSQL's to write.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let (place, options) = options::of_sink(table)?;
    check_columns(&table.schema, "postgres", true)?;
    let target = Target {
        declared: table.name.clone(),
        place,
        schema: table.schema.clone(),
        key: table.primary_key.clone(),
        options,
    };
    Ok(Arc::new(PostgresSink(Arc::new(target))))
}

/// What is written, and how.
struct Target {
    /// Name of the declared table.
    declared: String,
    place: TableOptions,
    schema: SchemaRef,
    /// The primary key; where it is empty, rows are only added.
    key: Vec<String>,
    options: SinkOptions,
}

impl Target {
    /// A connection to the database and the table there, which fits the declaration.
    async fn open(&self) -> Result<(Session, RealTable), ConnectorError> {
        let session = Session::open(self.place.address()?).await?;
        let schema = self.place.schema.as_deref();
        let real = RealTable::find(&session, schema, &self.place.name, &self.place.shown()).await?;
        real.check(&self.declared, &self.schema, &self.key, Direction::Write)?;
        Ok((session, real))
    }

    /// The rows under the names that the table declares.
    fn declared_rows(&self, rows: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec()).map_err(|e| {
            ConnectorError::data(format!(
                "rows for the table '{}' do not fit the declared columns: {e}; change the query or the declaration",
                self.declared
            ))
        })
    }
}

struct PostgresSink(Arc<Target>);

impl Sink for PostgresSink {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Upsert
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let how = match self.0.options.delivery {
            Delivery::ExactlyOnce => {
                "the rows of an epoch are staged with the checkpoint, and written in one transaction together with a \
                 marker when the epoch is complete"
            }
            _ => "rows are written as they come, so those since the last checkpoint are written again after a failure",
        };
        (self.0.options.delivery, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        match self.0.options.delivery {
            Delivery::ExactlyOnce => Box::new(StagedWriter::new(self.0.clone(), &ctx)),
            _ => Box::new(DirectWriter::new(self.0.clone())),
        }
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        let staged = self.0.options.delivery == Delivery::ExactlyOnce;
        staged.then(|| Box::new(PostgresCommitter::new(self.0.clone(), ctx)) as Box<dyn Committer>)
    }
}
