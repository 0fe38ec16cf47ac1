//! Stages the changes of one subtask. Called by the engine's sink operator. Never writes to Redis: that is the committer's
//! right.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use super::Target;
use crate::error::ConnectorError;
use crate::redis::client::Session;
use crate::sink::{SinkWriter, WriterContext};
use crate::staging::{StagingWriter, add_kinds, with_kinds};

/// See the module.
pub(super) struct StagedWriter {
    target: Arc<Target>,
    staging: StagingWriter,
    /// The columns with the kind of each row. Any may be NULL: rows that go away may know nothing but their key.
    schema: SchemaRef,
    /// Whether the server has still to be looked at. One subtask does it for all, before its first epoch can be complete.
    unchecked: bool,
}

impl StagedWriter {
    pub(super) fn new(target: Arc<Target>, ctx: &WriterContext) -> StagedWriter {
        let fields = target.schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let schema = with_kinds(&Schema::new(fields.collect::<Vec<_>>()));
        StagedWriter { target, staging: StagingWriter::new(ctx), schema, unchecked: ctx.subtask == 0 }
    }

    async fn check(&mut self) -> Result<(), ConnectorError> {
        if self.unchecked {
            Session::open(&self.target.options).await?;
            self.unchecked = false;
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for StagedWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        self.check().await?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.staging.write(add_kinds(rows, &self.schema, changes)?).await
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        self.check().await?;
        Ok(self.staging.seal_epoch())
    }
}
