//! What an operator of a chain is to its task: synchronous, owner of its state, driven by one task.

use std::sync::Arc;
use std::sync::OnceLock;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::StateHandle;
use mainstem_core::time::Timestamp;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::merging::MergeOrder;
use crate::parts::Parts;

/// Rows that an operator gives, in order.
#[derive(Default)]
pub(crate) struct Collector {
    /// The main output, which the next operator of the chain takes.
    pub(crate) main: Vec<StreamBatch>,
    /// Side output 1: late rows, or records that were rejected.
    pub(crate) late: Vec<StreamBatch>,
}

/// Whether a watermark has released everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Call again.
    Continue,
    /// Nothing is left.
    Done,
}

/// One operator of a chain.
pub(crate) trait Operator: Send {
    /// Takes rows of an input; inputs are counted in the order of the operator's edges.
    fn process(&mut self, input: usize, batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError>;

    /// Gives some of what the watermark releases. `Continue` asks to be called again, which lets the task hand
    /// on what there is before more is made. The watermark itself is passed on by the task after the last call.
    fn on_watermark(&mut self, _watermark: Timestamp, _out: &mut Collector) -> Result<Release, EngineError> {
        Ok(Release::Done)
    }

    /// Gives some of what processing time releases, at the end of an epoch, after [`Operator::flush_held`]: no row to
    /// come is older than `now`. `Continue` asks to be called again.
    fn on_processing_time(&mut self, _now: Timestamp, _out: &mut Collector) -> Result<Release, EngineError> {
        Ok(Release::Done)
    }

    /// The watermark that is passed on after this one has released what it releases: less than it, where rows
    /// leave so much later than they came that the columns of their event time would be late. Never goes back
    /// while the watermark does not.
    fn watermark_out(&self, watermark: Timestamp) -> Timestamp {
        watermark
    }

    /// What has to be there before the first row, such as a table that is looked up. Called once, after all state
    /// has been taken back; the task waits for it beside its other duties and takes no rows before.
    fn prepare(&mut self) -> Option<BoxFuture<'static, Result<(), EngineError>>> {
        None
    }

    /// Gives what it holds back only to send less often. Nothing of it may stay behind when an epoch ends.
    fn flush_held(&mut self, _out: &mut Collector) -> Result<(), EngineError> {
        Ok(())
    }

    /// How long it may hold rows back before it wants [`Operator::flush_held`] to be called, in milliseconds of
    /// processing time; none: only where an epoch ends.
    fn hold_ms(&self) -> Option<u64> {
        None
    }

    /// Bytes of memory that its state takes, about: within a fifth of it where there is much. Asked often, so it
    /// looks at no more than a sample of what it keeps.
    fn state_bytes(&self) -> usize {
        0
    }

    /// The least watermark at which it may have something to give or has to let go of something; none: watermarks are
    /// nothing to it, whatever it holds. A part of the state that is not in memory is not told of watermarks below.
    fn next_due(&self) -> Option<Timestamp> {
        Some(Timestamp::MIN)
    }

    /// Freezes the state as of the end of the epoch. Must be quick: what takes time (encoding, writing) is
    /// done with the capture beside further processing. Operators without state give nothing.
    fn capture(&mut self, _epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        Ok(None)
    }

    /// Takes back state. Called before any row, once for each snapshot file that holds some of the subtask's
    /// key groups, oldest first, then [`Operator::restored`].
    fn restore(&mut self, _state: Restored) -> Result<(), EngineError> {
        Ok(())
    }

    /// All of the state has been taken back.
    fn restored(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The same as parts, where it may be several.
    fn parts(&mut self) -> Option<&mut Parts> {
        None
    }

    /// Takes back what [`Capture::meta`] held, of every subtask that there was. Called before
    /// [`Operator::restore`].
    fn restore_meta(&mut self, _metas: &[String]) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The watermark less so many milliseconds. The one that ends the stream stays: nothing follows it.
pub(crate) fn held_back(watermark: Timestamp, by_ms: i64) -> Timestamp {
    if watermark == Timestamp::MAX { watermark } else { Timestamp(watermark.0.saturating_sub(by_ms)) }
}

/// A state file that will be there once the upload before has run; set by the uploader.
pub(crate) type PendingHandle = Arc<OnceLock<StateHandle>>;

/// The same for a file that is there.
pub(crate) fn written(handle: StateHandle) -> PendingHandle {
    Arc::new(OnceLock::from(handle))
}

/// The state of an operator as of a barrier.
pub(crate) struct Capture {
    /// Files of earlier epochs that a restore still needs, oldest first.
    pub(crate) retained: Vec<PendingHandle>,
    /// What has changed since, by table, to be written as one file. No rows: no file.
    pub(crate) tables: Vec<TableRows>,
    /// Where the handle of the new file is to be put.
    pub(crate) handle: PendingHandle,
    /// State that is not keyed.
    pub(crate) meta: String,
    /// Rows that the operator keeps, in its own form of them: how large its state is, whatever the files still hold.
    pub(crate) live_rows: u64,
    /// Files of earlier epochs that are to become fewer, when this one is written.
    pub(crate) merge: Option<MergeOrder>,
}

/// Rows of one table of an operator's state.
pub(crate) struct TableRows {
    /// Name of the table, the operator's own.
    pub(crate) name: &'static str,
    /// Version of its layout, the operator's own.
    pub(crate) version: u32,
    /// Columns that the rows are partitioned by: hashed in this order they give the same key group as the
    /// operator's input.
    pub(crate) key: Vec<usize>,
    /// The rows, in the order in which a restore is to see those of one key group.
    pub(crate) rows: Vec<RecordBatch>,
}

/// Rows of one state file.
pub(crate) struct Restored {
    /// Their file.
    pub(crate) handle: StateHandle,
    /// Rows of the subtask's key groups: name of the table, version of its layout, rows. In the order in which
    /// they were captured.
    pub(crate) tables: Vec<(String, u32, RecordBatch)>,
}

impl Restored {
    /// The rows of a table.
    ///
    /// # Errors
    /// Where the file was written in a layout that this version does not know.
    pub(crate) fn rows<'a>(
        &'a self,
        name: &'a str,
        version: u32,
    ) -> impl Iterator<Item = Result<&'a RecordBatch, EngineError>> {
        self.tables.iter().filter(move |(table, _, _)| table == name).map(move |(_, found, rows)| {
            if *found == version {
                return Ok(rows);
            }
            let (path, table) = (self.handle.path.clone(), name.to_owned());
            Err(EngineError::OtherVersion { path, table, found: *found, known: version })
        })
    }
}
