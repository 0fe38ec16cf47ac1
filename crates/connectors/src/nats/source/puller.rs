//! Pulls the messages of one split, on a task of its own, and hands them to the split's reader in chunks. How much is on its
//! way is bounded by what is asked for at once, and by the few chunks that may wait for the reader.
//!
//! Invariants:
//! - Messages come in the order of the stream with none left out: the server counts what it gives to a consumer, and where a
//!   number is missing the consumer is dropped and another one begins behind what was handed over.
//! - Messages that were in the stream and were removed before they could be read are told, or passed over with a warning as the
//!   table asks. Ones that a user deletes, or that a limit by subject replaces, are no longer part of the stream.
//! - A stream of the same name that was created later is another one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy};
use async_nats::jetstream::stream::Info;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::error::{ConnectorError, ErrorKind};

use super::super::connection::{Connection, created};
use super::super::decode::{Chunk, Message};
use super::super::error::silence;
use super::NatsTable;
use super::lag::Progress;
use super::split::StreamSplit;

/// Messages that are asked for at once.
const PULL_MESSAGES: usize = 2_000;
/// Bytes that are asked for at once; more where one message may be larger.
const PULL_BYTES: usize = 8 << 20;
/// How long a server waits for messages before it says that there are none.
const PULL_WAIT: Duration = Duration::from_secs(2);
/// How much later that may be heard here; servers do not always say it.
const PULL_DELAY: Duration = Duration::from_millis(500);
/// How long messages are gathered after the first.
const GATHER: Duration = Duration::from_millis(5);
/// Between two looks at where the stream begins, which sequences that were passed over need: with a subject, nearly all chunks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Messages of a chunk.
const CHUNK_MESSAGES: usize = 2_000;
/// Bytes of a chunk; one message may exceed it.
const CHUNK_BYTES: usize = 2 << 20;
/// Before another try, where no server answers.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks at what is there, while nobody takes what has come.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often the user is told that no server answers.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(30);

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Delivery {
    Chunk(Chunk),
    /// Nothing of the split lies before this sequence that has not come.
    Position(u64),
    /// The end of the split, as it was asked for.
    Finished,
    Failed(ConnectorError),
}

/// See the module.
pub(super) struct Puller {
    pub(super) table: Arc<NatsTable>,
    pub(super) split: StreamSplit,
    /// Sequence from which on messages have still to be handed over.
    pub(super) next: u64,
    /// Sequence before which reading ends; none: nowhere.
    pub(super) until: Option<u64>,
    /// Whether the split begins with whatever is the first message: nothing of it has been read before.
    pub(super) fresh: bool,
    pub(super) reader: mpsc::Sender<Delivery>,
    pub(super) complained: Option<Instant>,
    /// From when on it may be looked again at where the stream begins.
    pub(super) next_look: Instant,
    /// How far the split is read.
    pub(super) progress: Arc<Progress>,
}

/// Why reading goes no further for now.
enum Stop {
    /// Everything that was asked for has come.
    Finished,
    /// Nobody wants it any more.
    Unwanted,
    /// Messages have not come that should have; asked again, they will.
    Again(&'static str),
    Failed(ConnectorError),
}

impl From<ConnectorError> for Stop {
    fn from(error: ConnectorError) -> Stop {
        Stop::Failed(error)
    }
}

/// Messages on their way from the server to the reader.
struct Gathered {
    chunk: Chunk,
    /// Sequence behind the newest.
    behind: u64,
    /// Messages that were there behind the newest when it was sent.
    pending: u64,
    /// Where the first sequence is that was passed over.
    hole: Option<u64>,
    /// Until when more is waited for.
    deadline: Instant,
}

impl Puller {
    /// Reads until the end, or until nobody listens.
    pub(super) async fn run(mut self) {
        let last = loop {
            match self.session().await {
                Ok(never) => match never {},
                Err(Stop::Finished) => break Delivery::Finished,
                Err(Stop::Unwanted) => return,
                Err(Stop::Failed(error)) if !error.is_retryable() => break Delivery::Failed(error),
                Err(Stop::Failed(error)) => self.complain(&error),
                Err(Stop::Again(why)) => {
                    tracing::debug!(
                        table = self.table.spec.name,
                        stream = self.split.stream,
                        next = self.next,
                        why,
                        "asks again"
                    );
                }
            }
            tokio::select! {
                () = self.reader.closed() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        let _ = self.reader.send(last).await;
    }

    fn complain(&mut self, error: &ConnectorError) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            self.complained = Some(Instant::now());
            let stream = &self.split.stream;
            tracing::warn!(table = self.table.spec.name, stream, %error, "reading goes on when a server answers");
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Reads with one consumer for as long as that goes.
    async fn session(&mut self) -> Result<Infallible, Stop> {
        if self.is_over() {
            return Err(Stop::Finished);
        }
        let connection = self.table.connection().await?;
        let what = format!("read {}", self.split.shown());
        let info = connection.stream(&what).await?;
        self.check_stream(&info)?;
        self.check_end(&info)?;
        self.check_hole(&info, self.next)?;
        self.next = self.next.max(info.state.first_sequence.max(1));
        let from = DeliverPolicy::ByStartSequence { start_sequence: self.next };
        let consumer = connection.consumer(&what, from, self.split.subject.as_deref(), false).await?;
        if consumer.cached_info().num_pending == 0 && self.until.is_some() {
            return Err(Stop::Finished);
        }
        self.complained = None;
        self.progress.on_behind(self.wanted(consumer.cached_info().num_pending, self.next));
        // Messages that the server has given to this consumer.
        let mut given = 0;
        let mut has_missed = false;
        loop {
            let before = given;
            self.pull(&connection, &consumer, &what, &mut given).await?;
            let misses = given == before && !self.has_all(&connection, &what).await?;
            if misses && has_missed {
                return Err(Stop::Again("messages that are there have not come"));
            }
            has_missed = misses;
        }
    }

    /// Of so many messages from a sequence on, those that belong to the split at most.
    fn wanted(&self, messages: u64, from: u64) -> u64 {
        messages.min(self.until.map_or(u64::MAX, |until| until.saturating_sub(from)))
    }

    /// Asks for messages once and hands over what comes.
    async fn pull(
        &mut self,
        connection: &Connection,
        consumer: &Consumer<PullConfig>,
        what: &str,
        given: &mut u64,
    ) -> Result<(), Stop> {
        let failed = |reason: String| Stop::Failed(silence(&connection.address, what, &reason, connection.heard()));
        // Otherwise a message would never fit into what is asked for.
        let bytes = PULL_BYTES.max(2 * connection.client.max_payload());
        let pull = consumer.batch().max_messages(PULL_MESSAGES).max_bytes(bytes).expires(PULL_WAIT).messages().await;
        let mut pulled = pull.map_err(|error| failed(error.to_string()))?;
        let pull_ends = Instant::now() + PULL_WAIT + PULL_DELAY;
        let mut gathered = self.gathered();
        loop {
            let is_empty = gathered.chunk.messages.is_empty();
            let deadline = match gathered.hole {
                _ if is_empty => pull_ends,
                Some(_) => gathered.deadline.max(self.next_look),
                None => gathered.deadline,
            };
            let came = tokio::select! {
                () = self.reader.closed() => return Err(Stop::Unwanted),
                came = timeout_at(deadline, pulled.next()) => came,
            };
            let message = match came {
                Err(_) if is_empty => return Err(Stop::Again("the server is silent")),
                Err(_) => {
                    self.hand_over(connection, gathered, what).await?;
                    gathered = self.gathered();
                    continue;
                }
                Ok(None) => return self.hand_over(connection, gathered, what).await,
                // The consumer may be gone, with a server that was restarted.
                Ok(Some(Err(error))) => {
                    self.hand_over(connection, gathered, what).await?;
                    tracing::debug!(table = self.table.spec.name, %error, "a pull has failed");
                    return Err(Stop::Again("the server has ended the pull"));
                }
                Ok(Some(Ok(message))) => message,
            };
            let info = message.info().map_err(|error| failed(error.to_string()))?;
            let (sequence, number, pending) = (info.stream_sequence, info.consumer_sequence, info.pending);
            let stored_ns = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(i64::MAX);
            if number != *given + 1 {
                self.hand_over(connection, gathered, what).await?;
                return Err(Stop::Again("messages were lost on their way"));
            }
            *given = number;
            let is_behind = self.until.is_some_and(|until| sequence >= until);
            if !is_behind {
                gathered.take(&message, sequence, stored_ns, self.table.has_headers());
                gathered.pending = self.wanted(pending, sequence + 1);
            }
            // A bounded split ends with what was there when the job started, so what comes later is none of it.
            if is_behind || (pending == 0 && self.until.is_some()) {
                self.hand_over(connection, gathered, what).await?;
                return Err(Stop::Finished);
            }
            if gathered.is_full() {
                self.hand_over(connection, gathered, what).await?;
                gathered = self.gathered();
            }
        }
    }

    fn gathered(&self) -> Gathered {
        Gathered { chunk: Chunk::default(), behind: self.next, pending: 0, hole: None, deadline: Instant::now() }
    }

    async fn hand_over(&mut self, connection: &Connection, gathered: Gathered, what: &str) -> Result<(), Stop> {
        if gathered.chunk.messages.is_empty() {
            return Ok(());
        }
        if let Some(hole) = gathered.hole {
            let info = connection.stream(what).await?;
            self.check_stream(&info)?;
            self.check_hole(&info, hole)?;
            self.next_look = Instant::now() + LOOK_PAUSE;
        }
        self.progress.on_handed(gathered.chunk.messages.len(), gathered.pending);
        tokio::select! {
            sent = self.reader.send(Delivery::Chunk(gathered.chunk)) => sent.map_err(|_| Stop::Unwanted)?,
            never = self.count_on(connection, gathered.behind, what) => match never {},
        }
        self.next = gathered.behind;
        self.fresh = false;
        Ok(())
    }

    /// Nothing has come: whether there is nothing, and how far that reaches.
    async fn has_all(&mut self, connection: &Connection, what: &str) -> Result<bool, Stop> {
        // First how far the stream reaches, then whether all of that was handed over.
        let stream = connection.stream(what).await?;
        self.check_stream(&stream)?;
        self.check_end(&stream)?;
        let behind = stream.state.last_sequence + 1;
        if behind > self.next && self.count(connection, self.next, what).await? > 0 {
            return Ok(false);
        }
        if self.until.is_some() {
            return Err(Stop::Finished);
        }
        self.progress.on_behind(0);
        if behind > self.next {
            self.next = behind;
            self.fresh = false;
            self.reader.send(Delivery::Position(behind)).await.map_err(|_| Stop::Unwanted)?;
        }
        Ok(true)
    }

    /// Counts again and again what is there from a sequence on, and shows it.
    async fn count_on(&self, connection: &Connection, from: u64, what: &str) -> Infallible {
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            match self.count(connection, from, what).await {
                Ok(messages) => self.progress.on_behind(self.wanted(messages, from)),
                // Whoever pulls has more to say about a server that does not answer.
                Err(error) => tracing::debug!(table = self.table.spec.name, %error, "the lag is not known"),
            }
        }
    }

    /// Messages of the split that are there from a sequence on. They are counted with a consumer that is made for it: of one
    /// that was asked how much it has before it, nats-server 2.9 counts that afresh with each message, which takes milliseconds.
    async fn count(&self, connection: &Connection, from: u64, what: &str) -> Result<u64, ConnectorError> {
        let start = DeliverPolicy::ByStartSequence { start_sequence: from };
        let consumer = connection.consumer(what, start, self.split.subject.as_deref(), true).await?;
        let info = consumer.cached_info();
        // It goes by itself, too.
        let _ = connection.jetstream.delete_consumer_from_stream(&info.name, &self.split.stream).await;
        Ok(info.num_pending)
    }

    /// Whether the stream is the one that the job began with.
    fn check_stream(&self, info: &Info) -> Result<(), ConnectorError> {
        if created(info) == self.split.created {
            return Ok(());
        }
        let message = format!(
            "table '{}' cannot go on reading {}: the stream was deleted and created anew ({}), so that positions of the job mean nothing in it; start the job afresh with --fresh",
            self.table.spec.name,
            self.split.shown(),
            info.created
        );
        Err(ConnectorError::new(ErrorKind::External, message))
    }

    /// Whether the stream reaches as far as it was read.
    fn check_end(&mut self, info: &Info) -> Result<(), ConnectorError> {
        let last = info.state.last_sequence;
        if self.next <= last + 1 {
            return Ok(());
        }
        let message = format!(
            "table '{}' has read {} up to sequence {}, and the stream ends with {last}: the server has lost messages that it had stored",
            self.table.spec.name,
            self.split.shown(),
            self.next - 1
        );
        self.told(message)?;
        self.next = last + 1;
        Ok(())
    }

    /// Whether messages from `hole` on are gone because the stream was cut off at its beginning.
    fn check_hole(&self, info: &Info, hole: u64) -> Result<(), ConnectorError> {
        let first = info.state.first_sequence;
        if self.fresh || first <= hole || self.until.is_some_and(|until| hole >= until) {
            return Ok(());
        }
        self.told(format!(
            "table '{}' has still to read {} from sequence {hole} on, and the stream begins with {first} now: its limits (max_age, max_msgs, max_bytes) or a purge have removed what was not read yet",
            self.table.spec.name,
            self.split.shown(),
        ))
    }

    /// An error, or a warning where the table asks for no more.
    fn told(&self, message: String) -> Result<(), ConnectorError> {
        if self.table.options.skips_missing {
            tracing::warn!("{message}; the job goes on without");
            return Ok(());
        }
        let advice = "let the stream keep more and start the job afresh with --fresh; one whose table has 'scan.missing-messages' = 'skip' goes on without them";
        Err(ConnectorError::new(ErrorKind::External, format!("{message}; {advice}")))
    }
}

impl Gathered {
    fn take(&mut self, message: &jetstream::Message, sequence: u64, stored_ns: i64, with_headers: bool) {
        if self.chunk.messages.is_empty() {
            self.deadline = Instant::now() + GATHER;
        }
        if sequence > self.behind {
            self.hole.get_or_insert(self.behind);
        }
        self.behind = sequence + 1;
        let start = self.chunk.bytes.len();
        self.chunk.bytes.extend_from_slice(&message.payload);
        let payload = start..self.chunk.bytes.len();
        let headers = message.headers.as_ref().filter(|_| with_headers).map(headers_of).unwrap_or_default();
        let subject = message.subject.to_string();
        self.chunk.messages.push(Message { sequence, stored_ns, subject, payload, headers });
    }

    fn is_full(&self) -> bool {
        self.chunk.messages.len() >= CHUNK_MESSAGES || self.chunk.bytes.len() >= CHUNK_BYTES
    }
}

/// Headers in the order of their names; of several of a name the last.
fn headers_of(headers: &async_nats::HeaderMap) -> Vec<(String, String)> {
    let last = |values: &Vec<async_nats::HeaderValue>| values.last().map(|value| value.as_str().to_owned());
    let mut headers: Vec<(String, String)> =
        headers.iter().filter_map(|(name, values)| Some((name.to_string(), last(values)?))).collect();
    headers.sort_unstable();
    headers
}
