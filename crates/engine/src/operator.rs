//! What an operator of a chain is to its task: synchronous, owner of its state, driven by one task.

use std::sync::Arc;
use std::sync::OnceLock;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute;
use arrow::error::ArrowError;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::StateHandle;
use mainstem_core::time::Timestamp;
use mainstem_state::StateBlock;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::memory;
use crate::merging::MergeOrder;
use crate::parts::Parts;

/// Rows and bytes that an operator gives in one step, about; whatever more there is waits for the next one.
#[cfg(not(test))]
pub(crate) const STEP_ROWS: usize = 1 << 16;
/// Few, so that every test of an operator takes many.
#[cfg(test)]
pub(crate) const STEP_ROWS: usize = 200;
pub(crate) const STEP_BYTES: usize = 16 << 20;
/// Rows and bytes of one batch of them, about.
pub(crate) const PIECE_ROWS: usize = if STEP_ROWS < 8192 { 50 } else { 8192 };
const PIECE_BYTES: usize = 4 << 20;

/// How many rows make a batch, by the bytes of those that were given before. The first ones are few.
#[derive(Debug)]
pub(crate) struct PieceRows(usize);

impl PieceRows {
    /// Rows of the next batch, where some row that it may hold has so many bytes.
    pub(crate) fn next(&self, row_bytes: usize) -> usize {
        self.0.min(PIECE_BYTES / row_bytes.max(1)).max(1)
    }

    /// A batch has been made. Small ones say little of the next one.
    pub(crate) fn learn(&mut self, batch: &StreamBatch) {
        let rows = batch.rows.num_rows();
        if rows >= self.0 / 2 && rows > 0 {
            let fits = PIECE_BYTES / (batch.size_bytes() / rows).max(1);
            self.0 = fits.clamp(1, (self.0 * 2).min(PIECE_ROWS));
        }
    }
}

impl Default for PieceRows {
    fn default() -> Self {
        PieceRows(PIECE_ROWS.min(1024))
    }
}

/// Rows that an operator gives, in order.
#[derive(Default)]
pub(crate) struct Collector {
    /// The main output, which the next operator of the chain takes.
    pub(crate) main: Vec<StreamBatch>,
    /// Side output 1: late rows, or records that were rejected.
    pub(crate) late: Vec<StreamBatch>,
    /// Batches of the main output that [`Collector::is_full`] has looked at, their rows and their bytes.
    seen: (usize, usize, usize),
}

impl Collector {
    /// With nothing but a side output.
    pub(crate) fn aside(late: Vec<StreamBatch>) -> Collector {
        Collector { late, ..Collector::default() }
    }

    /// Whether there is so much in it that it has to be handed on before more is made.
    pub(crate) fn is_full(&mut self) -> bool {
        let (batches, rows, bytes) = &mut self.seen;
        for batch in &self.main[*batches..] {
            *rows += batch.rows.num_rows();
            *bytes += batch.size_bytes();
        }
        *batches = self.main.len();
        *rows >= STEP_ROWS || *bytes >= STEP_BYTES
    }
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

    /// Whether the rows that it took last give more than one step may make. If so it is asked for nothing but the rest of
    /// it, by [`Operator::go_on`], until it has given all.
    fn has_more(&self) -> bool {
        false
    }

    /// Gives more of what [`Operator::process`] has left. Between two calls the task hands on what there is and waits until
    /// it may make more.
    fn go_on(&mut self, _out: &mut Collector) -> Result<(), EngineError> {
        Ok(())
    }

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

/// All that an operator gives for rows, step by step.
#[cfg(test)]
pub(crate) fn process_whole(operator: &mut dyn Operator, input: usize, batch: StreamBatch) -> Collector {
    let mut whole = Collector::default();
    operator.process(input, batch, &mut whole).unwrap();
    while operator.has_more() {
        let mut out = Collector::default();
        operator.go_on(&mut out).unwrap();
        let rows: usize = out.main.iter().map(|batch| batch.rows.num_rows()).sum();
        assert!(rows <= STEP_ROWS + 1000, "{rows} rows in one step");
        whole.main.append(&mut out.main);
        whole.late.append(&mut out.late);
    }
    whole
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
    /// Bytes of memory that they take, or would take; 0 until it is known.
    pub(crate) memory_bytes: u64,
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
    /// Rows of the subtask's key groups, in the order in which they were captured.
    pub(crate) tables: Vec<RestoredRows>,
}

/// Rows of one table of a state file.
pub(crate) enum RestoredRows {
    /// Name of the table, version of its layout, rows.
    Decoded(String, u32, RecordBatch),
    /// As they lie in the file: only what is being taken back is decoded, so that the memory for it is used again.
    Block(StateBlock),
}

impl RestoredRows {
    /// Name of the table and version of its layout.
    pub(crate) fn table(&self) -> (&str, u32) {
        match self {
            RestoredRows::Decoded(table, version, _) => (table, *version),
            RestoredRows::Block(block) => (block.table(), block.version()),
        }
    }

    fn len(&self) -> usize {
        match self {
            RestoredRows::Decoded(_, _, rows) => rows.num_rows(),
            RestoredRows::Block(block) => block.len(),
        }
    }

    /// The rows, which the caller may keep.
    pub(crate) fn rows(&self) -> Result<RecordBatch, EngineError> {
        match self {
            RestoredRows::Decoded(_, _, rows) => Ok(rows.clone()),
            RestoredRows::Block(block) => {
                own_rows(block.decode()?).map_err(|e| EngineError::arrow("taking state back", &e))
            }
        }
    }
}

impl Restored {
    /// Of rows that are in memory: name of the table, version of its layout, rows.
    pub(crate) fn decoded(
        handle: StateHandle,
        tables: impl IntoIterator<Item = (String, u32, RecordBatch)>,
    ) -> Restored {
        let tables = tables.into_iter().map(|(table, version, rows)| RestoredRows::Decoded(table, version, rows));
        Restored { handle, tables: tables.collect() }
    }

    /// The rows of a table.
    ///
    /// # Errors
    /// Where the file was written in a layout that this version does not know, or is damaged.
    pub(crate) fn rows<'a>(
        &'a self,
        name: &'a str,
        version: u32,
    ) -> impl Iterator<Item = Result<RecordBatch, EngineError>> + 'a {
        self.tables.iter().filter(move |rows| rows.table().0 == name).map(move |rows| match rows.table().1 {
            found if found == version => rows.rows(),
            found => {
                let (path, table) = (self.handle.path.clone(), name.to_owned());
                Err(EngineError::OtherVersion { path, table, found, known: version })
            }
        })
    }

    /// Number of rows of a table.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.tables.iter().filter(|rows| rows.table().0 == name).map(RestoredRows::len).sum()
    }
}

/// Rows that are a small piece of what was read, by themselves: operators may keep them as they come.
fn own_rows(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    if memory::of_rows(&rows) > rows.get_array_memory_size() / 2 {
        return Ok(rows);
    }
    let all = UInt32Array::from_iter_values(0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX));
    compute::take_record_batch(&rows, &all)
}
