//! Readers of splits: each runs as a task of its own, so that reading and decoding go on while the chain works,
//! and hands over what it reads through a channel with room for a few batches.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use mainstem_connectors::{ConnectorError, ReaderContext, ReaderEvent, Source, SourceReader};
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::EngineError;

/// Batches that wait for the chain, over all readers of the subtask.
const BATCHES_WAITING_MAX: usize = 4;

/// The table that a source task reads.
pub(crate) struct SourceInput {
    /// Name of the table.
    pub(crate) table: String,
    /// The connector.
    pub(crate) source: Arc<dyn Source>,
    /// What readers are told.
    pub(crate) context: ReaderContext,
}

impl SourceInput {
    /// How many splits a subtask reads side by side.
    pub(crate) fn splits_at_once(&self) -> usize {
        self.source.splits_at_once()
    }
}

/// What a reader has to say.
pub(crate) enum ReadEvent {
    /// Rows, and where to go on after them.
    Batch { split: SplitId, rows: RecordBatch, changes: Option<Int8Array>, position: String },
    /// The split has been read to its end.
    Finished { split: SplitId },
    /// Reading has failed.
    Failed(EngineError),
}

/// The readers of a source task. Dropping it stops them.
pub(crate) struct Readers {
    input: Arc<SourceInput>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<ReadEvent>,
    receiver: mpsc::Receiver<ReadEvent>,
}

impl Readers {
    /// No readers yet.
    pub(crate) fn new(input: Arc<SourceInput>) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        Readers { input, tasks: JoinSet::new(), sender, receiver }
    }

    /// Starts to read a split, from a position, up to another.
    pub(crate) fn open(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: Option<String>,
    ) -> Result<(), EngineError> {
        let mut reader = self.input.source.reader(self.input.context.clone());
        let added = match until {
            Some(until) => reader.add_split_until(split.clone(), position, until),
            None => reader.add_split(split.clone(), position),
        };
        added.map_err(|error| self.failed(error))?;
        let table = self.input.table.clone();
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            if let Err(error) = read(reader, &sender).await {
                let _ = sender.send(ReadEvent::Failed(EngineError::Connector { table, error })).await;
            }
        });
        Ok(())
    }

    /// The next event of any reader; waits for ever while there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ReadEvent {
        loop {
            tokio::select! {
                biased;
                event = self.receiver.recv() => return event.expect("a sender is kept here"),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(panic) = ended {
                        return ReadEvent::Failed(EngineError::Bug(format!("reading '{}': {panic}", self.input.table)));
                    }
                }
            }
        }
    }

    fn failed(&self, error: ConnectorError) -> EngineError {
        EngineError::Connector { table: self.input.table.clone(), error }
    }
}

async fn read(mut reader: Box<dyn SourceReader>, sender: &mpsc::Sender<ReadEvent>) -> Result<(), ConnectorError> {
    while let Some(event) = reader.next().await? {
        let event = match event {
            ReaderEvent::Batch { split, rows, changes, position } => {
                ReadEvent::Batch { split, rows, changes, position }
            }
            ReaderEvent::SplitFinished { split } => ReadEvent::Finished { split },
        };
        if sender.send(event).await.is_err() {
            break;
        }
        // A reader that never waits would keep its thread from the other tasks.
        tokio::task::yield_now().await;
    }
    Ok(())
}
