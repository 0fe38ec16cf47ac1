//! The stream as the publisher sees it: something that tells how far it reaches and what it holds, and stores messages on
//! conditions. Behind it JetStream, or a model of it in tests.

use std::future::IntoFuture;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_trait::async_trait;
use futures::StreamExt;

use super::super::connection::{ANSWER_MAX, Connection, created};
use super::super::error::{api_error, root, silence};
use super::outgoing::OutgoingMessage;
use super::progress::{Progress, Search, Uncertain};
use crate::error::ConnectorError;

/// Messages that a search asks for at once.
const SEARCH_MESSAGES: usize = 1_000;

/// How far a stream reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// When it was created: tells it from another of the same name.
    pub(super) created: i64,
    /// Sequence of its last message, also when that is removed.
    pub(super) last: u64,
}

/// A message to be stored right behind another.
#[derive(Clone, Debug)]
pub(super) struct Conditional {
    pub(super) message: OutgoingMessage,
    /// Its own identity.
    pub(super) id: String,
    /// It is to be stored only if this is the last sequence of the stream.
    pub(super) last: u64,
    /// And only if the last message has this identity.
    pub(super) behind: Option<String>,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// It is stored, for the first time, under this sequence.
    Stored(u64),
    /// The stream was not as expected; or it has a message of this identity already.
    Refused,
    /// It is not known, or will never be stored.
    Failed(ConnectorError),
}

/// See the module.
#[async_trait]
pub(super) trait StreamLog: Send {
    /// How far the stream reaches now.
    async fn extent(&mut self) -> Result<Extent, ConnectorError>;

    /// Sends messages, in order, without waiting in between; gives what became of each, up to the first of which it is not
    /// known.
    async fn publish(&mut self, messages: Vec<Conditional>) -> Vec<Answer>;

    /// Goes through what the stream holds behind what is known, up to the sequence `last` at least. Messages of the epoch
    /// have identities that begin with `prefix` and end with their number.
    async fn search(
        &mut self,
        known: Progress,
        last: u64,
        prefix: &str,
        total: u64,
    ) -> Result<Result<Progress, Uncertain>, ConnectorError>;
}

#[async_trait]
impl StreamLog for Connection {
    async fn extent(&mut self) -> Result<Extent, ConnectorError> {
        let info = self.stream("publish output").await?;
        Ok(Extent { created: created(&info), last: info.state.last_sequence })
    }

    async fn publish(&mut self, messages: Vec<Conditional>) -> Vec<Answer> {
        let mut sent = Vec::with_capacity(messages.len());
        let mut unsent = None;
        for Conditional { message, id, last, behind } in messages {
            let mut publish = PublishMessage::build().payload(message.payload).headers(message.headers);
            publish = publish.message_id(id).expected_stream(&self.address.stream).expected_last_sequence(last);
            if let Some(behind) = behind {
                publish = publish.expected_last_message_id(behind);
            }
            match self.jetstream.send_publish(message.subject, publish).await {
                Ok(answer) => sent.push(answer),
                Err(error) => {
                    unsent = Some(answer_of(self, Err(error)));
                    break;
                }
            }
        }
        let mut answers = Vec::with_capacity(sent.len());
        for answer in sent {
            let answer = answer_of(self, answer.into_future().await);
            let is_failed = matches!(answer, Answer::Failed(_));
            answers.push(answer);
            // Where one does not come, the others would be waited for as long, one after the other.
            if is_failed {
                return answers;
            }
        }
        answers.extend(unsent);
        answers
    }

    async fn search(
        &mut self,
        known: Progress,
        last: u64,
        prefix: &str,
        total: u64,
    ) -> Result<Result<Progress, Uncertain>, ConnectorError> {
        let mut search = Search::behind(known);
        if known.last >= last {
            return Ok(search.end(last, total));
        }
        let what = "find out how far its output is published";
        let failed = |reason: String| silence(&self.address, what, &reason, self.heard());
        let from = DeliverPolicy::ByStartSequence { start_sequence: known.last + 1 };
        let consumer = self.consumer(what, from, None, true).await?;
        let mut given = 0;
        loop {
            let asked = consumer.fetch().max_messages(SEARCH_MESSAGES).messages().await;
            let mut found = asked.map_err(|error| failed(error.to_string()))?;
            let before = given;
            loop {
                let next = tokio::time::timeout(ANSWER_MAX, found.next()).await;
                let Some(message) = next.map_err(|_| failed("no answer in time".to_owned()))? else { break };
                let message = message.map_err(|error| failed(error.to_string()))?;
                let info = message.info().map_err(|error| failed(error.to_string()))?;
                if info.consumer_sequence != given + 1 {
                    return Err(failed("messages were lost on their way".to_owned()));
                }
                given = info.consumer_sequence;
                let id = message.headers.as_ref().and_then(|headers| headers.get_last(NATS_MESSAGE_ID));
                search.found(info.stream_sequence, id.and_then(|id| id.as_str().strip_prefix(prefix)?.parse().ok()));
                if info.stream_sequence >= last {
                    return Ok(search.end(last, total));
                }
            }
            // All of it has come; the last messages are removed.
            if given == before {
                return Ok(search.end(last, total));
            }
        }
    }
}

/// What became of a message, by what the client says.
pub(super) fn answer_of(connection: &Connection, answer: Result<PublishAck, PublishError>) -> Answer {
    let what = "publish messages";
    let error = match answer {
        Ok(ack) if ack.duplicate => return Answer::Refused,
        Ok(ack) => return Answer::Stored(ack.sequence),
        Err(error) => error,
    };
    let of_server =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    let refused = [
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
        ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID,
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT,
    ];
    match of_server {
        Some(of_server) if refused.contains(&of_server.error_code()) => Answer::Refused,
        Some(of_server) => Answer::Failed(api_error(&connection.address, what, of_server)),
        None => {
            let reason = match error.kind() {
                PublishErrorKind::StreamNotFound => "no stream takes the subject".to_owned(),
                _ => root(&error),
            };
            Answer::Failed(silence(&connection.address, what, &reason, connection.heard()))
        }
    }
}
