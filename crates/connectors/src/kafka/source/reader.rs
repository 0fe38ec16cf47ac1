//! Reads one partition: takes the chunks that the hub hands over and decodes them. The engine has a reader for each
//! split and a task for each reader, so that partitions are decoded side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use tokio::sync::mpsc;

use crate::bad_records::{BAD_RECORD_ADVICE, BadRecordPolicy, DeadLetter, Origin, Origins, PositionUnit, Rejected};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::RecordFault;
use crate::kept::to_json;
use crate::source::{Phase, ReaderContext, ReaderEvent, SourceReader};

use super::super::decode::{Chunk, Decoder, Side};
use super::KafkaTable;
use super::hub::Hubs;
use super::lag::Progress;
use super::slot::Delivery;
use super::split::{PartitionSplit, Position};

/// Reads partitions, one after the other.
pub(super) struct PartitionReader {
    table: Arc<KafkaTable>,
    hubs: Arc<Hubs>,
    ctx: ReaderContext,
    waiting: Vec<Reading>,
    /// What went wrong behind the rows that were given last.
    failure: Option<ConnectorError>,
}

struct Reading {
    id: SplitId,
    split: PartitionSplit,
    decoder: Decoder,
    /// What there is to read, and where is told how far that is done; none: there is nothing.
    deliveries: Option<(mpsc::Receiver<Delivery>, Arc<Progress>)>,
}

impl PartitionReader {
    /// A reader of the table's partitions.
    pub(super) fn new(table: Arc<KafkaTable>, hubs: Arc<Hubs>, ctx: ReaderContext) -> PartitionReader {
        PartitionReader { table, hubs, ctx, waiting: Vec::new(), failure: None }
    }

    fn add(&mut self, split: &SourceSplit, from: Option<&str>, until: Option<&str>) -> Result<(), ConnectorError> {
        let id = split.id.clone();
        let split = PartitionSplit::parse(split)?;
        let start = from.map(|text| Position::parse(text, &id)).transpose()?.map_or(split.start, |p| p.offset);
        let until = until.map(|text| Position::parse(text, &id)).transpose()?.map(|p| p.offset);
        let stop = until.or(split.stop);
        let table = &self.table;
        let place = (split.topic.as_str(), split.partition);
        let columns = &self.ctx.columns;
        let decoder = Decoder::new(&table.spec, &table.layout, table.kind, columns, place, &table.bad_records)
            .map_err(|reason| ConnectorError::option(format!("table '{}', {reason}", table.spec.name)))?;
        let deliveries = match stop.is_some_and(|stop| start >= stop) {
            true => None,
            false => Some(self.hubs.open(place, start, stop, self.ctx.lags.split(&id))?),
        };
        self.waiting.push(Reading { id, split, decoder, deliveries });
        Ok(())
    }

    /// The rows of a chunk; none where it has neither rows nor rejected messages.
    fn decode(&mut self, chunk: Chunk) -> Result<Option<ReaderEvent>, ConnectorError> {
        let reading = self.waiting.first_mut().expect("a chunk is of the partition that is read");
        let decoded = reading.decoder.decode(&chunk).map_err(|reason| {
            let PartitionSplit { topic, partition, .. } = &reading.split;
            let (first, last) = (chunk.messages[0].offset, chunk.messages[chunk.messages.len() - 1].offset);
            ConnectorError::data(format!(
                "cannot read topic '{topic}', partition {partition}, offsets {first} to {last}: {reason}; mend the messages or the declared columns"
            ))
        })?;
        self.ctx.bytes_read.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        let end = match &decoded.fault {
            Some((number, side, fault)) => {
                let offset = chunk.messages[*number].offset;
                self.failure = Some(broken(&reading.split, offset, *side, fault));
                offset
            }
            None => chunk.messages[chunk.messages.len() - 1].offset + 1,
        };
        reading.deliveries.iter().for_each(|(_, progress)| progress.on_decoded(end));
        let position = to_json(&Position { offset: end });
        let split = reading.id.clone();
        if decoded.rows.num_rows() == 0 && decoded.rejects.is_empty() {
            return Ok(None);
        }
        let keep = self.table.bad_records.policy == BadRecordPolicy::DeadLetter;
        let rejected = rejected(&split, &chunk, decoded.rejects, keep);
        let origins = self.ctx.with_origins.then(|| origins(chunk, &decoded.messages));
        let (rows, changes) = (decoded.rows, decoded.changes);
        Ok(Some(ReaderEvent::Batch { split, rows, changes, rejected, origins, phase: Phase::Log, position }))
    }
}

fn rejected(split: &SplitId, chunk: &Chunk, rejects: BTreeMap<usize, String>, keep: bool) -> Rejected {
    let count = rejects.len() as u64;
    let skipped = if keep { 0 } else { rejects.len().saturating_sub(1) };
    let letter = |(number, reason): (usize, String)| {
        let message = &chunk.messages[number];
        let part = |range: &Option<std::ops::Range<usize>>| {
            range.clone().filter(|_| keep).map(|range| chunk.bytes[range].to_vec())
        };
        let (raw, raw_key) = (part(&message.value), part(&message.key));
        DeadLetter { position: message.offset, line: None, raw, raw_key, reason }
    };
    let letters = rejects.into_iter().skip(skipped).map(letter).collect();
    Rejected::new(&split.0, PositionUnit::Offset, count, letters, keep)
}

/// Where rows come from, by the numbers of their messages.
fn origins(chunk: Chunk, messages: &[u32]) -> Origins {
    let origin = |number: &u32| {
        let message = &chunk.messages[*number as usize];
        Origin { position: message.offset, line: None, raw: message.value.clone(), raw_key: message.key.clone() }
    };
    let rows = messages.iter().map(origin).collect();
    Origins { unit: PositionUnit::Offset, bytes: Arc::new(chunk.bytes), rows }
}

fn broken(split: &PartitionSplit, offset: i64, side: Side, fault: &RecordFault) -> ConnectorError {
    let PartitionSplit { topic, partition, .. } = split;
    let RecordFault { at, reason, excerpt, .. } = fault;
    let side = match side {
        Side::Key => "key",
        Side::Value => "value",
    };
    let shown = if excerpt.is_empty() { String::new() } else { format!("; the {side} is: {excerpt}") };
    ConnectorError::data(format!(
        "cannot read topic '{topic}', partition {partition}, offset {offset}, byte {at} of the {side}: {reason}{shown} -- {BAD_RECORD_ADVICE}"
    ))
}

#[async_trait]
impl SourceReader for PartitionReader {
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
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            let Some(reading) = self.waiting.first_mut() else { return Ok(None) };
            let delivery = match &mut reading.deliveries {
                Some((deliveries, _)) => deliveries.recv().await,
                None => Some(Delivery::Finished),
            };
            match delivery {
                Some(Delivery::Chunk(chunk)) => {
                    reading.decoder.prepare(&chunk).await?;
                    if let Some(event) = self.decode(chunk)? {
                        return Ok(Some(event));
                    }
                }
                Some(Delivery::Finished) => {
                    let finished = self.waiting.remove(0);
                    return Ok(Some(ReaderEvent::SplitFinished { split: finished.id }));
                }
                Some(Delivery::Failed(error)) => return Err(error),
                None => {
                    let PartitionSplit { topic, partition, .. } = &reading.split;
                    let message = format!("reading of topic '{topic}', partition {partition} was stopped");
                    return Err(ConnectorError::new(ErrorKind::Transient, message));
                }
            }
        }
    }
}
