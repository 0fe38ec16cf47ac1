//! Stages the messages of one subtask. Publishes nothing: that is the committer's right.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use super::NatsTable;
use super::encode::{Limits, MessageEncoder};
use crate::error::ConnectorError;
use crate::sink::{SinkWriter, WriterContext};
use crate::staging::StagingWriter;

/// See the module.
pub(super) struct StagedWriter {
    table: Arc<NatsTable>,
    staging: StagingWriter,
    /// Made with the first rows, or before the first epoch ends: who is told now that the stream is not there need not wait
    /// for output.
    open: Option<(MessageEncoder, Limits)>,
    /// One subtask looks at the stream for all, whether it has rows or not.
    looks: bool,
}

impl StagedWriter {
    /// A writer for one subtask of one attempt.
    pub(super) fn new(table: Arc<NatsTable>, ctx: &WriterContext) -> StagedWriter {
        StagedWriter { table, staging: StagingWriter::new(ctx), open: None, looks: ctx.subtask == 0 }
    }

    async fn open(&mut self) -> Result<&mut (MessageEncoder, Limits), ConnectorError> {
        if self.open.is_none() {
            let (_, limits) = self.table.open().await?;
            self.open = Some((self.table.encoder(&limits).await?, limits));
        }
        Ok(self.open.as_mut().expect("made above"))
    }
}

#[async_trait]
impl SinkWriter for StagedWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let (encoder, limits) = self.open().await?;
        let messages = encoder.encode(rows, changes, limits)?;
        if messages.num_rows() == 0 {
            return Ok(());
        }
        self.staging.write(messages).await
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        if self.looks {
            self.open().await?;
        }
        Ok(self.staging.seal_epoch())
    }
}
