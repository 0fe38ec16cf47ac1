//! Writes the rows of one subtask as they come, for `'sink.delivery-guarantee' = 'at-least-once'`: what was written since
//! the last checkpoint is written again after a failure. Each flush is a transaction.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use tokio::time::Instant;

use super::Target;
use super::rows::RowsInto;
use crate::error::ConnectorError;
use crate::postgres::client::Session;
use crate::sink::SinkWriter;
use crate::staging::{add_kinds, with_kinds};

/// See the module.
pub(super) struct DirectWriter {
    target: Arc<Target>,
    open: Option<(Session, RowsInto)>,
    rows: Vec<RecordBatch>,
    rows_count: usize,
    flushed_at: Instant,
}

impl DirectWriter {
    pub(super) fn new(target: Arc<Target>) -> DirectWriter {
        DirectWriter { target, open: None, rows: Vec::new(), rows_count: 0, flushed_at: Instant::now() }
    }

    async fn flush(&mut self) -> Result<(), ConnectorError> {
        let mut tries = 0;
        while let Err(error) = self.try_flush().await {
            self.open = None;
            tries += 1;
            if !error.is_retryable() || tries > self.target.options.retries_max {
                return Err(error);
            }
            tracing::warn!(table = self.target.declared, %error, tries, "rows are not written, trying again");
            tokio::time::sleep(std::time::Duration::from_secs(1) * tries).await;
        }
        self.rows.clear();
        self.rows_count = 0;
        self.flushed_at = Instant::now();
        Ok(())
    }

    async fn try_flush(&mut self) -> Result<(), ConnectorError> {
        if self.open.as_ref().is_none_or(|(session, _)| session.client.is_closed()) {
            let (session, real) = self.target.open().await?;
            let into = RowsInto::new(&self.target, &real);
            into.prepare(&session).await?;
            self.open = Some((session, into));
        }
        let Some((session, into)) = &self.open else { return Ok(()) };
        if self.rows.is_empty() {
            return Ok(());
        }
        session.execute("begin a transaction", "BEGIN").await?;
        let mut copying = into.begin(session).await?;
        for rows in &self.rows {
            copying.add(rows).await?;
        }
        copying.finish().await?;
        session.execute("commit rows", "COMMIT").await
    }
}

#[async_trait]
impl SinkWriter for DirectWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        let rows = match self.target.key.is_empty() {
            true => self.target.declared_rows(rows)?,
            false => add_kinds(rows, &with_kinds(&self.target.schema), changes)?,
        };
        self.rows_count += rows.num_rows();
        self.rows.push(rows);
        let options = &self.target.options;
        let is_old = !options.buffer_interval.is_zero() && self.flushed_at.elapsed() >= options.buffer_interval;
        if self.rows_count >= options.buffer_rows || is_old { self.flush().await } else { Ok(()) }
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        self.flush().await?;
        Ok(async { Ok(Vec::new()) }.boxed())
    }
}
