//! Reads one split: takes the chunks that its puller hands over and decodes them. The engine has a reader for each split and a
//! task for each reader, so that splits are decoded side by side, and pulling goes on meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::bad_records::{BAD_RECORD_ADVICE, BadRecordPolicy, DeadLetter, Origin, Origins, PositionUnit, Rejected};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::RecordFault;
use crate::kept::to_json;
use crate::source::{Phase, ReaderContext, ReaderEvent, SourceReader};

use super::super::decode::{Chunk, Decoder, number};
use super::NatsTable;
use super::lag::Progress;
use super::puller::{Delivery, Puller};
use super::split::{Position, StreamSplit};

/// Chunks that wait for a reader.
const WAITING_MAX: usize = 2;

/// Reads splits, one after the other.
pub(super) struct StreamReader {
    table: Arc<NatsTable>,
    ctx: ReaderContext,
    waiting: Vec<Reading>,
    /// What went wrong behind the rows that were given last.
    failure: Option<ConnectorError>,
}

struct Reading {
    id: SplitId,
    split: StreamSplit,
    decoder: Decoder,
    start: u64,
    until: Option<u64>,
    fresh: bool,
    pulling: Option<Pulling>,
}

struct Pulling {
    progress: Arc<Progress>,
    deliveries: mpsc::Receiver<Delivery>,
    /// Ends with the reader.
    _task: JoinSet<()>,
}

impl StreamReader {
    /// A reader of the table's splits.
    pub(super) fn new(table: Arc<NatsTable>, ctx: ReaderContext) -> StreamReader {
        StreamReader { table, ctx, waiting: Vec::new(), failure: None }
    }

    fn add(&mut self, split: &SourceSplit, from: Option<&str>, until: Option<&str>) -> Result<(), ConnectorError> {
        let id = split.id.clone();
        let split = StreamSplit::parse(split)?;
        let sequence = |text: &str| Position::parse(text, &id).map(|position| position.sequence);
        // A replay needs the very messages that were read.
        let fresh = split.earliest && from.is_none() && until.is_none();
        let start = from.map(sequence).transpose()?.unwrap_or(split.start);
        let until = until.map(sequence).transpose()?.or(split.stop);
        let NatsTable { spec, layout, bad_records, .. } = self.table.as_ref();
        let decoder = Decoder::new(spec, layout, &split.stream, &self.ctx.columns, bad_records)
            .map_err(|reason| ConnectorError::option(format!("table '{}', {reason}", spec.name)))?;
        self.waiting.push(Reading { id, split, decoder, start, until, fresh, pulling: None });
        Ok(())
    }

    /// What comes next of the split that is read.
    async fn delivery(&mut self) -> Option<Delivery> {
        let (table, lags) = (self.table.clone(), &self.ctx.lags);
        let reading = self.waiting.first_mut()?;
        let pulling = reading.pulling.get_or_insert_with(|| {
            let (reader, deliveries) = mpsc::channel(WAITING_MAX);
            let (split, next, until, fresh) = (reading.split.clone(), reading.start, reading.until, reading.fresh);
            let progress = Arc::new(Progress::new(lags.split(&reading.id)));
            let puller = Puller {
                table,
                split,
                next,
                until,
                fresh,
                reader,
                complained: None,
                next_look: Instant::now(),
                progress: progress.clone(),
            };
            let mut task = JoinSet::new();
            task.spawn(puller.run().in_current_span());
            Pulling { progress, deliveries, _task: task }
        });
        let stopped = || {
            let message = format!("reading of {} was stopped", reading.split.shown());
            Delivery::Failed(ConnectorError::new(ErrorKind::Transient, message))
        };
        Some(pulling.deliveries.recv().await.unwrap_or_else(stopped))
    }

    /// The rows of a chunk.
    fn decode(&mut self, chunk: Chunk) -> Result<ReaderEvent, ConnectorError> {
        let reading = self.waiting.first_mut().expect("a chunk is of the split that is read");
        let decoded = reading.decoder.decode(&chunk).map_err(|reason| {
            let sequence = |number: usize| chunk.messages.get(number).map_or(0, |message| message.sequence);
            let (first, last) = (sequence(0), sequence(chunk.messages.len().saturating_sub(1)));
            ConnectorError::data(format!(
                "cannot read {}, sequences {first} to {last}: {reason}; mend the messages or the declared columns",
                reading.split.shown()
            ))
        })?;
        self.ctx.bytes_read.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        if let Some(pulling) = &reading.pulling {
            pulling.progress.on_decoded(chunk.messages.len());
        }
        let end = match &decoded.fault {
            Some((broken, fault)) => {
                let sequence = chunk.messages[*broken].sequence;
                self.failure = Some(broken_message(&reading.split, sequence, fault));
                sequence
            }
            None => chunk.messages.last().map_or(reading.start, |message| message.sequence + 1),
        };
        let (split, position) = (reading.id.clone(), to_json(&Position { sequence: end }));
        let keep = self.table.bad_records.policy == BadRecordPolicy::DeadLetter;
        let rejected = rejected(&split, &chunk, decoded.rejects, keep);
        let origins = self.ctx.with_origins.then(|| origins(chunk, &decoded.messages));
        let (rows, changes) = (decoded.rows, decoded.changes);
        Ok(ReaderEvent::Batch { split, rows, changes, rejected, origins, phase: Phase::Log, position })
    }

    /// No rows, and a position behind which reading goes on.
    fn position(&mut self, sequence: u64) -> Result<ReaderEvent, ConnectorError> {
        let mut event = self.decode(Chunk::default())?;
        if let ReaderEvent::Batch { position, .. } = &mut event {
            *position = to_json(&Position { sequence });
        }
        Ok(event)
    }
}

fn rejected(split: &SplitId, chunk: &Chunk, rejects: Vec<(usize, RecordFault)>, keep: bool) -> Rejected {
    let count = rejects.len() as u64;
    let skipped = if keep { 0 } else { rejects.len().saturating_sub(1) };
    let letter = |(place, fault): (usize, RecordFault)| {
        let message = &chunk.messages[place];
        let raw = keep.then(|| chunk.bytes[message.payload.clone()].to_vec());
        DeadLetter { position: number(message.sequence), line: None, raw, raw_key: None, reason: fault.reason }
    };
    let letters = rejects.into_iter().skip(skipped).map(letter).collect();
    Rejected::new(&split.0, PositionUnit::Offset, count, letters, keep)
}

/// Where rows come from, by the numbers of their messages.
fn origins(chunk: Chunk, messages: &[usize]) -> Origins {
    let origin = |place: &usize| {
        let message = &chunk.messages[*place];
        Origin { position: number(message.sequence), line: None, raw: Some(message.payload.clone()), raw_key: None }
    };
    let rows = messages.iter().map(origin).collect();
    Origins { unit: PositionUnit::Offset, bytes: Arc::new(chunk.bytes), rows }
}

fn broken_message(split: &StreamSplit, sequence: u64, fault: &RecordFault) -> ConnectorError {
    let RecordFault { at, reason, excerpt, .. } = fault;
    let shown = if excerpt.is_empty() { String::new() } else { format!("; the message is: {excerpt}") };
    ConnectorError::data(format!(
        "cannot read {}, sequence {sequence}, byte {at}: {reason}{shown} -- {BAD_RECORD_ADVICE}",
        split.shown()
    ))
}

#[async_trait]
impl SourceReader for StreamReader {
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError> {
        self.add(&split, position.as_deref(), None)
    }

    fn add_split_until(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: String,
    ) -> Result<(), ConnectorError> {
        self.add(&split, position.as_deref(), Some(&until))
    }

    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match self.delivery().await {
            None => Ok(None),
            Some(Delivery::Chunk(chunk)) => {
                let reading = self.waiting.first_mut().expect("a chunk is of the split that is read");
                reading.decoder.prepare(&chunk).await?;
                self.decode(chunk).map(Some)
            }
            Some(Delivery::Position(sequence)) => self.position(sequence).map(Some),
            Some(Delivery::Failed(error)) => Err(error),
            Some(Delivery::Finished) => {
                let finished = self.waiting.remove(0);
                Ok(Some(ReaderEvent::SplitFinished { split: finished.id }))
            }
        }
    }
}
