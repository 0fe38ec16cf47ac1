//! Sends the rows of one subtask as they come, for `'sink.delivery-guarantee' = 'at-least-once'` and `'best-effort'`: a batch
//! goes when it is full, the last one of an epoch with the checkpoint. What was sent since the last checkpoint is sent again
//! after a failure, under other keys.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{Delivery, SinkWriter, WriterContext};
use crate::table::TableSpec;

use super::super::body::{Bodies, Body};
use super::super::client::{HttpClient, Sent};
use super::super::options::{HttpOptions, OnRejected};

/// See the module.
pub(super) struct DirectWriter {
    table: Arc<TableSpec>,
    options: Arc<HttpOptions>,
    /// What the keys of this writer's requests begin with.
    key: String,
    /// Made with the first rows.
    open: Option<(Bodies, Arc<HttpClient>)>,
    /// Requests so far.
    requests: u64,
    sending: JoinSet<(u32, Result<Sent, ConnectorError>)>,
    /// Records that were dropped.
    dropped: u64,
}

impl DirectWriter {
    pub(super) fn new(table: Arc<TableSpec>, options: Arc<HttpOptions>, ctx: &WriterContext) -> DirectWriter {
        let nonce = RandomState::new().build_hasher().finish();
        let key = format!("{}/{}/{}/{nonce:016x}", ctx.job, ctx.operator, ctx.generation);
        DirectWriter { table, options, key, open: None, requests: 0, sending: JoinSet::new(), dropped: 0 }
    }

    async fn send(&mut self, bodies: Vec<Body>) -> Result<(), ConnectorError> {
        let in_flight = if self.options.is_ordered() { 1 } else { self.options.in_flight };
        for body in bodies {
            self.wait_below(in_flight).await?;
            let Some((_, client)) = &self.open else { return Ok(()) };
            let (client, key) = (client.clone(), format!("{}/{}", self.key, self.requests));
            self.requests += 1;
            let sending = async move { (body.records, client.send(&key, body.bytes.into()).await) };
            self.sending.spawn(sending.in_current_span());
        }
        Ok(())
    }

    /// Waits until fewer requests are under way.
    async fn wait_below(&mut self, in_flight: usize) -> Result<(), ConnectorError> {
        while self.sending.len() >= in_flight.max(1) {
            let Some(ended) = self.sending.join_next().await else { return Ok(()) };
            let (records, sent) = ended.map_err(|error| {
                let message = format!("the task that sends rows was stopped: {error}; they are sent again");
                ConnectorError::new(ErrorKind::Transient, message)
            })?;
            self.ended(records, sent)?;
        }
        Ok(())
    }

    fn ended(&mut self, records: u32, sent: Result<Sent, ConnectorError>) -> Result<(), ConnectorError> {
        let error = match sent {
            Ok(Sent::Taken) => return Ok(()),
            Ok(Sent::Rejected(error)) if self.options.on_rejected == OnRejected::Drop => error,
            Err(error) if self.options.delivery == Delivery::BestEffort => error,
            Ok(Sent::Rejected(error)) | Err(error) => return Err(error),
        };
        self.dropped += u64::from(records);
        let dropped = self.dropped;
        tracing::warn!(table = self.table.name, %error, records, dropped, "a request is dropped");
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for DirectWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let (bodies, _) = match &mut self.open {
            Some(open) => open,
            none => {
                let client = Arc::new(HttpClient::open(self.options.clone())?);
                none.insert((Bodies::new(&self.table, &self.options)?, client))
            }
        };
        let mut full = Vec::new();
        bodies.add(rows, changes, &mut full)?;
        self.send(full).await
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let last = self.open.as_mut().and_then(|(bodies, _)| bodies.finish());
        self.send(last.into_iter().collect()).await?;
        self.wait_below(1).await?;
        Ok(async { Ok(Vec::new()) }.boxed())
    }

    fn dropped_records(&self) -> u64 {
        self.dropped
    }
}
