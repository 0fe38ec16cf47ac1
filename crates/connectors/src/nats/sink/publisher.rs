//! Publishes the staged messages of a complete epoch, each once, whoever else tries to, and whenever an earlier try died.
//!
//! JetStream has no transaction over several messages that all servers know, and forgets identities after the stream's
//! `duplicate_window`. What it has is a condition on each message: it is stored only if the stream ends with a given sequence, and
//! only if the last message has a given identity. That is a compare-and-swap on the log itself, and the argument is this:
//!
//! 1. *Messages of an epoch have an order and an identity each*, which the staged files fix: whoever publishes it publishes the
//!    same ones in the same order.
//! 2. *A message is sent with what is known of the stream*: "up to sequence `s` it holds exactly the first `n` of them"
//!    ([`Progress`]), on the condition that the stream ends with `s`. So it is stored only where the knowledge still is all there is to
//!    know, hence as the `n+1`st and never twice. The next ones are sent without waiting, each on the condition that the stream
//!    ends with the sequence that the one before gets if all goes well, and with that very message. Where anybody else has come
//!    between them, or one was lost, everything behind it is refused.
//! 3. *Knowledge comes from the stream.* Before the first message of an epoch is sent, a note with the last sequence is put into the
//!    job's durable room ([`Begun`]). Whoever finds a note goes through what the stream holds behind that sequence. Whoever finds none
//!    knows that nothing is published, if that is so: it first asks for the last sequence, then looks for the note, then reads
//!    the first staged file. Notes go later than the files, so where a file is still there the note was not there and gone again;
//!    and nobody publishes without one. So at the sequence that was asked for nothing was published.
//! 4. *Messages under way* (of a process that is cut off, of a call that was given up, of a client that connects again and sends
//!    what it has kept) carry their conditions with them, so at any later time they are refused or right.
//!
//! It depends on no window of time and on nobody being the leader. What it needs of the stream is that messages of an epoch that is
//! only half published stay until the job runs again. Where some behind the last one that is found were removed, it is not known
//! whether there were more of ours among them, and the job says so and stops ([`Uncertain`]).

use std::ops::Range;

use arrow::array::RecordBatch;
use bytes::Bytes;
use mainstem_core::ids::{Epoch, JobId, OperatorId};
use mainstem_rt::failpoint;
use serde::{Deserialize, Serialize};

use super::log::{Answer, Conditional, StreamLog};
use super::outgoing::Outgoing;
use super::progress::{Progress, Uncertain};
use crate::error::{ConnectorError, ErrorKind};
use crate::staging::{StagedFile, Staging};

/// Messages that are sent without waiting: at first, and at most.
const BURST_MIN: u64 = 32;
const BURST_MAX: u64 = 1_024;
/// Refusals in a row without a message stored, before the coordinator is told, which waits before it tries again.
const REFUSALS_MAX: u32 = 100;
/// Bytes that are sent without waiting; one message may exceed it.
const BURST_BYTES_MAX: usize = 4 << 20;

/// A note that an epoch is about to be published. Stored as JSON; fields may be added with defaults, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The stream, for people who look.
    pub(super) stream: String,
    /// When it was created.
    pub(super) created: i64,
    /// Its last sequence, when nothing of the epoch was published.
    pub(super) last: u64,
}

/// The output of an epoch.
pub(super) struct Output<'a> {
    pub(super) table: &'a str,
    pub(super) stream: &'a str,
    pub(super) epoch: Epoch,
    pub(super) operator: OperatorId,
    /// What the identities of its messages begin with.
    prefix: String,
    pub(super) files: &'a [StagedFile],
    total: u64,
    pub(super) staging: &'a Staging,
    /// Whether what may be published is published again where nobody can tell.
    pub(super) sends_again: bool,
}

/// What is done with the epochs of a sink.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Messages to be sent without waiting; fewer where others write to the stream.
    burst: u64,
}

impl<'a> Output<'a> {
    /// The output that some staged files are.
    pub(super) fn new(
        (table, stream): (&'a str, &'a str),
        job: &JobId,
        operator: OperatorId,
        epoch: Epoch,
        files: &'a [StagedFile],
        staging: &'a Staging,
        sends_again: bool,
    ) -> Output<'a> {
        // Of another job of this name, which counts epochs from one again, it is told by the numbers its writers drew.
        let mut digest = 0;
        for file in files {
            let text = format!("{} {} {} {} {:08x}\n", file.name, file.nonce, file.size, file.rows, file.crc32c);
            digest = crc32c::crc32c_append(digest, text.as_bytes());
        }
        let nonce = files.first().map_or(0, |file| file.nonce);
        let prefix = format!("{job}/{operator}/{epoch}/{nonce:016x}{digest:08x}/");
        let total = files.iter().map(|file| file.rows).sum();
        Output { table, stream, epoch, operator, prefix, files, total, staging, sends_again }
    }

    /// Name of its note.
    pub(super) fn note(&self) -> String {
        let generation = self.files.first().map(|file| file.generation).unwrap_or_default();
        format!("{}-g{generation}-{}{NOTE_SUFFIX}", self.epoch, self.operator)
    }

    fn id(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    async fn read_note(&self) -> Result<Option<Begun>, ConnectorError> {
        let Some(bytes) = self.staging.store().get(&self.note()).await? else { return Ok(None) };
        let note = serde_json::from_slice(&bytes).map_err(|error| {
            let message =
                format!("the note '{}' of the job cannot be read: {error}; was it changed from outside?", self.note());
            ConnectorError::new(ErrorKind::Lost, message)
        })?;
        Ok(Some(note))
    }

    fn crowded_out(&self) -> ConnectorError {
        let Output { table, stream, epoch, .. } = self;
        let message = format!(
            "table '{table}' cannot publish epoch {epoch}: whenever it has looked at stream '{stream}', somebody else writes to it before it can; give the table a stream of its own"
        );
        ConnectorError::new(ErrorKind::Transient, message)
    }

    /// What follows from messages that are gone before they could be counted.
    fn uncertain(&self, Uncertain { from, published }: Uncertain, last: u64) -> Result<Progress, ConnectorError> {
        let Output { table, stream, epoch, total, .. } = self;
        let message = format!(
            "table '{table}' cannot tell how far epoch {epoch} is published in stream '{stream}': of its {total} messages {published} are known to be, and messages from sequence {from} on have been removed since, by the stream's limits (max_age, max_msgs, max_bytes, max_msgs_per_subject) or by somebody"
        );
        if self.sends_again {
            tracing::warn!("{message}; the others are published, maybe again");
            return Ok(Progress { last, published });
        }
        let advice = "let the stream keep more, and start the job afresh with --fresh; one whose table has 'sink.unknown-progress' = 'send-again' publishes the others, maybe again";
        Err(ConnectorError::new(ErrorKind::Lost, format!("{message}; {advice}")))
    }
}

/// What names of notes end with.
pub(super) const NOTE_SUFFIX: &str = ".begun";

impl Publisher {
    /// One that has published nothing.
    pub(super) fn new() -> Publisher {
        Publisher { burst: BURST_MIN }
    }

    /// Publishes what is missing of an epoch. May be dropped at any point and called again, also elsewhere.
    pub(super) async fn publish(&mut self, log: &mut dyn StreamLog, output: &Output<'_>) -> Result<(), ConnectorError> {
        // The order of these three is the third point of the argument.
        let extent = log.extent().await?;
        let note = output.read_note().await?;
        let (mut created, mut known, mut is_new) =
            (extent.created, Progress { last: extent.last, published: 0 }, false);
        let mut feed = Feed::new(output);
        match note {
            Some(note) => (created, known) = noted(&note),
            None => {
                feed.read(0).await?;
                let stream = output.stream.to_owned();
                let begun = Begun { stream, created: extent.created, last: extent.last };
                let bytes = Bytes::from(serde_json::to_vec(&begun).expect("text and numbers are JSON"));
                match output.staging.store().put(&output.note(), bytes).await {
                    Ok(()) => is_new = true,
                    // Somebody else is about to publish it, too.
                    Err(error) => (created, known) = noted(&output.read_note().await?.ok_or(error)?),
                }
            }
        }
        failpoint::hit(failpoint::OUTPUT_NOTED);
        if created != extent.created {
            tracing::warn!(
                table = output.table,
                stream = output.stream,
                epoch = %output.epoch,
                "the stream was created anew while an epoch was being published; all of the epoch goes to the new one"
            );
            (created, known) = (extent.created, Progress { last: 0, published: 0 });
        }
        let base = known;
        if !is_new {
            known = self.search(log, output, created, (base, known)).await?;
        }
        let mut refusals = 0;
        while known.published < output.total {
            // Where the file is gone, somebody else has published it all, or it is lost.
            if let Err(error) = feed.read(known.published).await {
                known = self.search(log, output, created, (base, known)).await?;
                if known.published < output.total { return Err(error) } else { break }
            }
            let before = known.published;
            let mut refused = false;
            for answer in log.publish(feed.burst(known, self.burst)).await {
                match answer {
                    Answer::Stored(sequence) if !refused && sequence == known.last + 1 => known.stored(),
                    Answer::Stored(_) | Answer::Refused => refused = true,
                    Answer::Failed(error) => return Err(error),
                }
            }
            if refused {
                // Others write here, or the server wants each message answered before the next.
                self.burst = (self.burst / 4).max(1);
                tracing::debug!(table = output.table, burst = self.burst, "the stream has moved on");
                known = self.search(log, output, created, (base, known)).await?;
                refusals = if known.published > before { 0 } else { refusals + 1 };
                if refusals > REFUSALS_MAX {
                    return Err(output.crowded_out());
                }
            } else {
                self.burst = (self.burst * 2).min(BURST_MAX);
            }
            failpoint::hit(failpoint::OUTPUT_SENDING);
        }
        failpoint::hit(failpoint::OUTPUT_SENT);
        Ok(())
    }

    /// Learns from the stream what has become of the epoch. `base`: what was known before its first message was sent.
    async fn search(
        &self,
        log: &mut dyn StreamLog,
        output: &Output<'_>,
        created: i64,
        (base, mut known): (Progress, Progress),
    ) -> Result<Progress, ConnectorError> {
        let extent = log.extent().await?;
        if extent.created != created {
            let message = format!(
                "the stream '{}' of table '{}' was deleted and created anew while epoch {} was being published; it is tried again",
                output.stream, output.table, output.epoch
            );
            return Err(ConnectorError::new(ErrorKind::Transient, message));
        }
        if extent.last < known.last {
            // Ours were stored behind the sequence of `base` only.
            known = if extent.last < base.last { Progress { last: extent.last, published: 0 } } else { base };
            tracing::warn!(
                table = output.table,
                stream = output.stream,
                ends_with = extent.last,
                "the server has lost messages that it had acknowledged; those of earlier epochs are lost"
            );
        }
        match log.search(known, extent.last, &output.prefix, output.total).await? {
            Ok(known) => Ok(known),
            Err(uncertain) => output.uncertain(uncertain, extent.last),
        }
    }
}

fn noted(note: &Begun) -> (i64, Progress) {
    (note.created, Progress { last: note.last, published: 0 })
}

/// The messages of an epoch, read from the staged files one file at a time.
struct Feed<'a> {
    output: &'a Output<'a>,
    /// Numbers of the messages of the file that is read.
    range: Range<u64>,
    batches: Vec<RecordBatch>,
}

impl<'a> Feed<'a> {
    fn new(output: &'a Output<'a>) -> Feed<'a> {
        Feed { output, range: 0..0, batches: Vec::new() }
    }

    /// Makes sure that the file with a message is read.
    async fn read(&mut self, number: u64) -> Result<(), ConnectorError> {
        if self.range.contains(&number) {
            return Ok(());
        }
        let mut start = 0;
        for file in self.output.files {
            let range = start..start + file.rows;
            start = range.end;
            if range.contains(&number) {
                self.batches = self.output.staging.read(file).await?;
                let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
                if rows as u64 != file.rows || self.batches.iter().any(|batch| Outgoing::of(batch).is_none()) {
                    let message = format!("the staged output '{}' holds no messages of this version", file.name);
                    return Err(ConnectorError::new(ErrorKind::Lost, message));
                }
                self.range = range;
                return Ok(());
            }
        }
        Err(ConnectorError::new(ErrorKind::Lost, format!("bug: an epoch has no message {number}")))
    }

    /// The next messages of the file that is read, with their conditions.
    fn burst(&self, known: Progress, most: u64) -> Vec<Conditional> {
        let mut burst = Vec::new();
        let (mut bytes, mut first) = (0, self.range.start);
        for batch in &self.batches {
            let rows = first..first + batch.num_rows() as u64;
            first = rows.end;
            let outgoing = Outgoing::of(batch).expect("checked when it was read");
            for number in known.published.max(rows.start)..rows.end {
                let row = usize::try_from(number - rows.start).expect("it counts rows of a batch");
                bytes += outgoing.size(row);
                if !burst.is_empty() && (bytes > BURST_BYTES_MAX || burst.len() as u64 >= most) {
                    return burst;
                }
                let behind = (!burst.is_empty()).then(|| self.output.id(number - 1));
                let last = known.last + burst.len() as u64;
                burst.push(Conditional { message: outgoing.message(row), id: self.output.id(number), last, behind });
            }
        }
        burst
    }
}

#[cfg(test)]
mod tests;
