//! Stages the requests of one subtask, as rows of a table of its own. Called by the engine's sink operator and, for the way
//! back, by the committer. Sends nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int8Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{SinkWriter, WriterContext};
use crate::staging::{StagedFile, Staging, StagingWriter};
use crate::table::TableSpec;

use super::super::body::{Bodies, Body};
use super::super::options::HttpOptions;

/// See the module.
pub(super) struct StagedWriter {
    table: Arc<TableSpec>,
    options: Arc<HttpOptions>,
    /// Made with the first rows.
    bodies: Option<Bodies>,
    staging: StagingWriter,
}

impl StagedWriter {
    pub(super) fn new(table: Arc<TableSpec>, options: Arc<HttpOptions>, ctx: &WriterContext) -> StagedWriter {
        StagedWriter { table, options, bodies: None, staging: StagingWriter::new(ctx) }
    }

    async fn stage(&mut self, bodies: &[Body]) -> Result<(), ConnectorError> {
        if bodies.is_empty() { Ok(()) } else { self.staging.write(rows_of(bodies)?).await }
    }
}

#[async_trait]
impl SinkWriter for StagedWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut full = Vec::new();
        let bodies = match &mut self.bodies {
            Some(bodies) => bodies,
            none => none.insert(Bodies::new(&self.table, &self.options)?),
        };
        bodies.add(rows, changes, &mut full)?;
        self.stage(&full).await
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        // A body belongs to one epoch: what the next one holds is not known to survive.
        let last: Vec<Body> = self.bodies.as_mut().and_then(Bodies::finish).into_iter().collect();
        self.stage(&last).await?;
        Ok(self.staging.seal_epoch())
    }
}

/// A request that was staged.
pub(super) struct Request {
    pub(super) body: Bytes,
    pub(super) records: u32,
}

/// The columns of staged requests.
fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![field("body", DataType::Binary), field("records", DataType::UInt32)]))
}

fn rows_of(bodies: &[Body]) -> Result<RecordBatch, ConnectorError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(bodies.iter().map(|body| &body.bytes))),
        Arc::new(UInt32Array::from_iter_values(bodies.iter().map(|body| body.records))),
    ];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| ConnectorError::data(format!("requests cannot be staged: {error}")))
}

/// The requests of a staged file, in the order in which they were made.
pub(super) async fn requests(staging: &Staging, file: &StagedFile) -> Result<Vec<Request>, ConnectorError> {
    let mut requests = Vec::new();
    for rows in staging.read(file).await? {
        let is_known = rows.num_columns() == 2
            && rows.column(0).data_type() == &DataType::Binary
            && rows.column(1).data_type() == &DataType::UInt32;
        if !is_known {
            let message = format!("the staged output '{}' does not hold requests of this version", file.name);
            return Err(ConnectorError::new(ErrorKind::Lost, message));
        }
        let (bodies, records) = (rows.column(0).as_binary::<i32>(), rows.column(1).as_primitive::<UInt32Type>());
        requests.extend(
            (0..rows.num_rows())
                .map(|row| Request { body: Bytes::copy_from_slice(bodies.value(row)), records: records.value(row) }),
        );
    }
    Ok(requests)
}
