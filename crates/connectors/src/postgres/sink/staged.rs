//! Stages the rows of one subtask. Called by the engine's sink operator. Never writes to PostgreSQL: that is the
//! committer's right.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use super::Target;
use crate::error::ConnectorError;
use crate::sink::{SinkWriter, WriterContext};
use crate::staging::{StagingWriter, add_kinds, with_kinds};

/// See the module.
pub(super) struct StagedWriter {
    target: Arc<Target>,
    staging: StagingWriter,
    /// The schema of rows with their kinds; none where rows are only added.
    with_kinds: Option<SchemaRef>,
    /// Whether the real table has still to be compared with the declared one. One subtask does it for all, before its
    /// first epoch can be complete.
    unchecked: bool,
}

impl StagedWriter {
    pub(super) fn new(target: Arc<Target>, ctx: &WriterContext) -> StagedWriter {
        let with_kinds = (!target.key.is_empty()).then(|| with_kinds(&target.schema));
        StagedWriter { target, staging: StagingWriter::new(ctx), with_kinds, unchecked: ctx.subtask == 0 }
    }

    async fn check(&mut self) -> Result<(), ConnectorError> {
        if self.unchecked {
            self.target.open().await?;
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
        let rows = match &self.with_kinds {
            Some(schema) => add_kinds(rows, schema, changes)?,
            None => self.target.declared_rows(rows)?,
        };
        self.staging.write(rows).await
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        self.check().await?;
        Ok(self.staging.seal_epoch())
    }
}
