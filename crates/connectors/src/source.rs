//! The traits of the reading side. A [`Source`] is made from a table's options. Its [`SplitEnumerator`] runs
//! beside the coordinator and finds splits; its [`SourceReader`]s run in source subtasks and read the splits
//! that they are given, each in order.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::{SourceSplit, SplitState};

use crate::bad_records::{Origins, Rejected};
use crate::error::ConnectorError;
use crate::lag::SplitLags;

/// A table that can be read.
pub trait Source: Send + Sync {
    /// Finds splits.
    fn enumerator(&self, ctx: EnumeratorContext) -> Box<dyn SplitEnumerator>;

    /// Reads splits.
    fn reader(&self, ctx: ReaderContext) -> Box<dyn SourceReader>;

    /// Which changes its rows are. [`ChangeMode::Upsert`] and the deletes of [`ChangeMode::Retract`] are by the table's
    /// primary key.
    fn changes(&self) -> ChangeMode {
        ChangeMode::Append
    }

    /// Whether the same positions give the same rows again. Without it no sink can be exactly-once.
    fn is_replayable(&self) -> bool;

    /// What reading the table changes on the outside for good, if anything, as a noun. A preview does not read such a table.
    fn leaves(&self) -> Option<&'static str> {
        None
    }

    /// How many splits one subtask reads side by side. An unbounded source must not limit it: a split that waits
    /// for its turn would wait for ever.
    fn splits_at_once(&self) -> usize {
        1
    }

    /// How far its splits may be apart in event time where the table does not say; none: any distance. Only for a source of
    /// which every split goes on as long as others do.
    fn max_drift(&self) -> Option<Duration> {
        None
    }

    /// How often the enumerator looks for new splits; none: it looks once.
    fn monitor_interval(&self) -> Option<Duration>;

    /// Whether rows can be looked up by key. Then [`Source::lookup`] gives something to look them up with.
    fn looks_up(&self) -> bool {
        false
    }

    /// Looks rows up by key.
    fn lookup(&self, _ctx: LookupContext) -> Option<Box<dyn Lookup>> {
        None
    }

    /// Whether the source comes to an end.
    fn is_bounded(&self) -> bool {
        self.monitor_interval().is_none()
    }
}

/// What an enumerator may know about the job.
#[derive(Clone, Debug)]
pub struct EnumeratorContext {
    /// Subtasks of the source operator when the job was first started.
    pub parallelism: u32,
}

/// Finds the splits of a source.
#[async_trait]
pub trait SplitEnumerator: Send + Sync {
    /// All splits that exist now, in the order in which they should be read. Called at the first start of a
    /// job and then at each [`Source::monitor_interval`]; splits whose id is known already are ignored by the
    /// caller. Must give the same ids for the same things each time. Cancel-safe: the caller drops the future
    /// at a time-out and calls again.
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError>;

    /// From here on the job has its first splits, maybe those of a checkpoint: what is found from now on is new to it.
    fn go_on(&mut self) {}

    /// Who wants to know how far the splits have been read, if anybody does; asked for once, at the start of a job.
    fn listener(&self) -> Option<Box<dyn CheckpointListener>> {
        None
    }
}

/// Is told of checkpoints beside the coordinator.
pub trait CheckpointListener: Send + Sync {
    /// A checkpoint is complete in which the splits are read so far. Must not block. For the outside only: no restore ever
    /// asks for what came of it.
    fn complete(&mut self, splits: &[SplitState]);
}

/// What a reader may know about its subtask.
#[derive(Clone)]
pub struct ReaderContext {
    /// Which of the table's physical columns to deliver, by position, ascending. The batches hold exactly
    /// these. May be empty: then only row counts matter.
    pub columns: Vec<usize>,
    /// About how many rows a batch should have.
    pub batch_rows: usize,
    /// Whether each batch is to tell where its rows come from, as far as the connector knows.
    pub with_origins: bool,
    /// Bytes read from outside, before decompression; the reader counts up.
    pub bytes_read: Arc<AtomicU64>,
    /// Where the reader says how far its splits are behind, if it can know.
    pub lags: SplitLags,
}

/// What is looked up.
#[derive(Clone, Debug)]
pub struct LookupContext {
    /// Which of the table's physical columns to deliver, by position, ascending.
    pub columns: Vec<usize>,
    /// Which of those are the key, by position among them.
    pub keys: Vec<usize>,
}

/// Looks rows up. Owned by one task.
#[async_trait]
pub trait Lookup: Send {
    /// All rows whose key is among the given ones, in no order. `keys`: one column for each of the key, of its declared type,
    /// without NULLs; each key once. What is not found is left out.
    ///
    /// # Errors
    /// After one that is retryable the same call may be repeated. Cancel-safe.
    async fn find(&mut self, keys: &RecordBatch) -> Result<RecordBatch, ConnectorError>;
}

/// What the order of rows says about their event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Rows come about as they came into being: time passes with them.
    Log,
    /// Rows that stood at one moment, in any order, and more of them come: time stands still, none of them is behind another.
    Copy,
    /// The last of such: time passes over all of them.
    CopyEnd,
}

/// What a reader delivers.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each batch; what is small comes once a split")]
pub enum ReaderEvent {
    /// Rows of one split, in order. Without rows and rejected records: only the position has changed.
    Batch {
        /// The split.
        split: SplitId,
        /// The rows, with the columns that were asked for.
        rows: RecordBatch,
        /// The [`ChangeKind`](mainstem_core::change::ChangeKind) of each row; absent: all are inserts.
        changes: Option<Int8Array>,
        /// Records among those of the rows that gave none, as the table's options ask.
        rejected: Rejected,
        /// Where the rows come from, if that is asked for and known.
        origins: Option<Origins>,
        /// Whether event time passes from row to row.
        phase: Phase,
        /// Where to go on after these rows (JSON, the connector's own).
        position: String,
    },
    /// The split has been read to its end.
    SplitFinished {
        /// The split.
        split: SplitId,
    },
}

impl ReaderEvent {
    /// Rows of a connector that never rejects a record.
    pub(crate) fn rows(split: SplitId, rows: RecordBatch, changes: Option<Int8Array>, position: String) -> ReaderEvent {
        let (rejected, origins, phase) = (Rejected::default(), None, Phase::Log);
        ReaderEvent::Batch { split, rows, changes, rejected, origins, phase, position }
    }
}

/// Takes a position of the split that a reader reads, see [`SourceReader::release`]. Does not wait.
pub type Release = Box<dyn Fn(&str) + Send>;

/// Reads splits. Owned by one task.
#[async_trait]
pub trait SourceReader: Send {
    /// Adds a split to read, from its beginning or from a position that this connector gave earlier.
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError>;

    /// Adds a split of which only the rows before `until` are wanted, a position that this connector gave
    /// earlier; there the split counts as finished. Used to replay an epoch exactly.
    fn add_split_until(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: String,
    ) -> Result<(), ConnectorError> {
        let _ = (position, until);
        let message = format!("split '{}' cannot be replayed up to a position by this connector", split.id);
        Err(ConnectorError::new(crate::error::ErrorKind::External, message))
    }

    /// What is told of the positions behind which no restart will go back any more, so that the outside need not keep
    /// what lies before them. None where nobody needs to know. Called after a split is added.
    fn release(&self) -> Option<Release> {
        None
    }

    /// The next rows of any split that was added. `None` when every split that was added has been read to
    /// its end; may be called again after more splits were added. The rows of one split come in order and
    /// with nothing left out. Not cancel-safe: the caller lets each call run to its end.
    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError>;
}
