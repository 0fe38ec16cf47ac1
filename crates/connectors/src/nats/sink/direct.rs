//! Publishes messages as they come, with nothing staged: at least once, where an epoch is complete only when the server has
//! acknowledged its messages, or with no promise, where what it did not store is logged.

use std::future::IntoFuture;
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;

use super::super::connection::Connection;
use super::NatsTable;
use super::encode::{Limits, MessageEncoder};
use super::log::{Answer, answer_of};
use super::outgoing::Outgoing;
use crate::error::{ConnectorError, ErrorKind};
use crate::sink::{Delivery, SinkWriter};

/// Acknowledgements that are waited for at once.
const UNANSWERED_MAX: usize = 2_000;

/// See the module.
pub(super) struct DirectWriter {
    table: Arc<NatsTable>,
    /// Made with the first rows.
    open: Option<Open>,
    unanswered: Vec<PublishAckFuture>,
}

struct Open {
    connection: Connection,
    encoder: MessageEncoder,
    limits: Limits,
}

impl DirectWriter {
    /// A writer for one subtask.
    pub(super) fn new(table: Arc<NatsTable>) -> DirectWriter {
        DirectWriter { table, open: None, unanswered: Vec::new() }
    }
}

#[async_trait]
impl SinkWriter for DirectWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let best_effort = self.table.options.delivery == Delivery::BestEffort;
        let open = match self.open.take() {
            Some(open) => self.open.insert(open),
            None => {
                let (connection, limits) = self.table.open().await?;
                let encoder = self.table.encoder(&limits).await?;
                self.open.insert(Open { connection, encoder, limits })
            }
        };
        let messages = open.encoder.encode(rows, changes, &open.limits)?;
        let outgoing = Outgoing::of(&messages).expect("made by the encoder");
        for number in 0..messages.num_rows() {
            if self.unanswered.len() >= UNANSWERED_MAX {
                answered(&open.connection, std::mem::take(&mut self.unanswered), best_effort).await?;
            }
            let message = outgoing.message(number);
            let publish = PublishMessage::build().payload(message.payload).headers(message.headers);
            let publish = publish.expected_stream(&open.connection.address.stream);
            match open.connection.jetstream.send_publish(message.subject, publish).await {
                Ok(unanswered) => self.unanswered.push(unanswered),
                Err(error) => match answer_of(&open.connection, Err(error)) {
                    Answer::Failed(error) if !best_effort => return Err(error),
                    _ => tracing::warn!(table = self.table.spec.name, "a message was not published"),
                },
            }
        }
        Ok(())
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let Some(open) = &self.open else { return Ok(async { Ok(Vec::new()) }.boxed()) };
        let (connection, unanswered) = (open.connection.clone(), std::mem::take(&mut self.unanswered));
        let best_effort = self.table.options.delivery == Delivery::BestEffort;
        Ok(async move { answered(&connection, unanswered, best_effort).await.map(|()| Vec::new()) }.boxed())
    }
}

/// Waits until the server has said of each message that it is stored.
async fn answered(
    connection: &Connection,
    unanswered: Vec<PublishAckFuture>,
    best_effort: bool,
) -> Result<(), ConnectorError> {
    let mut left = unanswered.len();
    let mut error = None;
    for answer in unanswered {
        match answer_of(connection, answer.into_future().await) {
            Answer::Stored(_) => left -= 1,
            // Nothing is asked of the stream, so this is an answer that cannot come.
            Answer::Refused => {
                error = Some(ConnectorError::new(ErrorKind::Transient, "the server has refused messages"));
                break;
            }
            // The others would be waited for as long, one after the other.
            Answer::Failed(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    let Some(error) = error else { return Ok(()) };
    if best_effort {
        tracing::warn!(table = connection.address.table, messages = left, %error, "messages may not be stored");
        return Ok(());
    }
    Err(error)
}
