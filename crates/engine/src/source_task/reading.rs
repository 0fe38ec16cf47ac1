//! Readers of splits: each runs as a task of its own, so that reading and decoding go on while the chain works,
//! and hands over what it reads through a channel with room for a few batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_connectors::{ConnectorError, ReaderContext, ReaderEvent, Release, Source, SourceReader};
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

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

/// What a reader has read and when, or why it cannot go on.
type Read = Result<(ReaderEvent, Timestamp), EngineError>;

/// The readers of a source task. Dropping it stops them.
pub(crate) struct Readers {
    input: Arc<SourceInput>,
    clock: Arc<dyn Clock>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Read>,
    receiver: mpsc::Receiver<Read>,
    /// Whom to tell what the outside need not keep any more.
    releases: BTreeMap<SplitId, Release>,
    /// Whether a split that is being read is not to be read on at the moment.
    holds: BTreeMap<SplitId, watch::Sender<bool>>,
}

impl Readers {
    /// No readers yet.
    pub(crate) fn new(input: Arc<SourceInput>, clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        let (releases, holds) = (BTreeMap::new(), BTreeMap::new());
        Readers { input, clock, tasks: JoinSet::new(), sender, receiver, releases, holds }
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
        if let Some(release) = reader.release() {
            self.releases.insert(split.id.clone(), release);
        }
        let hold = watch::Sender::new(false);
        let held = hold.subscribe();
        self.holds.insert(split.id.clone(), hold);
        let table = self.input.table.clone();
        let (sender, clock) = (self.sender.clone(), self.clock.clone());
        let reading = async move {
            if let Err(error) = read(reader, held, &sender, clock.as_ref()).await {
                let _ = sender.send(Err(EngineError::Connector { table, error })).await;
            }
        };
        self.tasks.spawn(reading.in_current_span());
        Ok(())
    }

    /// The next event of any reader; waits for ever while there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Read {
        loop {
            tokio::select! {
                biased;
                event = self.receiver.recv() => return event.expect("a sender is kept here"),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(panic) = ended {
                        return Err(EngineError::Bug(format!("reading '{}': {panic}", self.input.table)));
                    }
                }
            }
        }
    }

    /// A split has been read to its end.
    pub(crate) fn finished(&mut self, split: &SplitId) {
        self.holds.remove(split);
    }

    /// A split is not read on beyond what is on its way, or is again.
    pub(crate) fn hold(&self, split: &SplitId, is_held: bool) {
        if let Some(hold) = self.holds.get(split) {
            hold.send_replace(is_held);
        }
    }

    /// Whether anything outside waits to be released.
    pub(crate) fn keep_anything(&self) -> bool {
        !self.releases.is_empty()
    }

    /// No restart goes back behind these positions.
    pub(crate) fn release(&self, positions: &[(SplitId, String)]) {
        for (split, position) in positions {
            if let Some(release) = self.releases.get(split) {
                release(position);
            }
        }
    }

    fn failed(&self, error: ConnectorError) -> EngineError {
        EngineError::Connector { table: self.input.table.clone(), error }
    }
}

async fn read(
    mut reader: Box<dyn SourceReader>,
    mut held: watch::Receiver<bool>,
    sender: &mpsc::Sender<Read>,
    clock: &dyn Clock,
) -> Result<(), ConnectorError> {
    // Either fails where the task has ended.
    while held.wait_for(|is_held| !is_held).await.is_ok()
        && let Some(event) = reader.next().await?
        && sender.send(Ok((event, clock.now()))).await.is_ok()
    {
        // A reader that never waits would keep its thread from the other tasks.
        tokio::task::yield_now().await;
    }
    Ok(())
}
