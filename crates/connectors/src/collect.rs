//! The `collect` sink: hands rows to the process itself, which shows them. Only who has called [`collect`] in this process
//! can be written to; a file of SQL cannot name it. Rows are given out when they come, with a bound: a reader that is slow
//! slows the job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use tokio::sync::mpsc;

use crate::error::{ConnectorError, ErrorKind};
use crate::print;
use crate::sink::{Committer, CommitterContext, Delivery, Sink, SinkWriter, WriterContext};
use crate::table::TableSpec;

/// The connector's name.
pub(crate) const CONNECTOR: &str = "collect";
/// The option that names the reader.
const READER: &str = "collect.reader";
/// Batches that wait for the reader.
const BATCHES_MAX: usize = 4;

/// Readers of this process by name.
static READERS: Mutex<BTreeMap<String, Reader>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
struct Reader {
    rows: mpsc::Sender<CollectedRows>,
    form: RowForm,
}

/// In which form rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowForm {
    /// The values as text.
    Cells,
    /// One JSON object a row, as the `print` connector gives it; of a stream of changes with the kind, where that is wanted.
    Json {
        /// Whether.
        with_kinds: bool,
    },
}

/// Some rows of a job, in the order in which they came.
#[derive(Debug)]
pub struct CollectedRows {
    /// What each row does.
    pub kinds: Vec<ChangeKind>,
    /// Each row: its values, none where they are NULL; or one JSON object.
    pub rows: Vec<Vec<Option<String>>>,
}

impl CollectedRows {
    /// The rows for people: NULL as `NULL`.
    #[must_use]
    pub fn into_texts(self) -> (Vec<ChangeKind>, Vec<Vec<String>>) {
        let text = |value: Option<String>| value.unwrap_or_else(|| print::NULL.to_owned());
        let row = |row: Vec<Option<String>>| row.into_iter().map(text).collect();
        (self.kinds, self.rows.into_iter().map(row).collect())
    }
}

/// Where a job's rows come out. When it is dropped, the job fails at the next row.
#[derive(Debug)]
pub struct Collector {
    name: String,
    rows: mpsc::Receiver<CollectedRows>,
}

/// A new reader of this process.
#[must_use]
pub fn collect(form: RowForm) -> Collector {
    let (sender, rows) = mpsc::channel(BATCHES_MAX);
    let name = format!("reader-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    readers.insert(name.clone(), Reader { rows: sender, form });
    Collector { name, rows }
}

impl Collector {
    /// Makes a table one whose rows come here, whatever it was.
    pub fn take(&self, table: &mut TableSpec) {
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        table.options = BTreeMap::from([option("connector", CONNECTOR), option(READER, &self.name)]);
    }

    /// The next rows. Waits until there are any; for ever, as only the job's end says that there are no more. Cancel-safe.
    pub async fn next(&mut self) -> CollectedRows {
        match self.rows.recv().await {
            Some(rows) => rows,
            None => std::future::pending().await,
        }
    }

    /// Rows that have come already, without waiting.
    pub fn waiting(&mut self) -> Option<CollectedRows> {
        self.rows.try_recv().ok()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        READERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// The table as a sink, where a reader of that name is there.
pub(crate) fn sink(table: &TableSpec) -> Option<Arc<dyn Sink>> {
    let readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    let reader = readers.get(table.options.get(READER)?)?.clone();
    Some(Arc::new(CollectSink(reader)))
}

struct CollectSink(Reader);

impl Sink for CollectSink {
    fn accepts(&self) -> ChangeMode {
        ChangeMode::Retract
    }

    fn strongest_delivery(&self) -> (Delivery, String) {
        let how =
            "rows are shown as they come, so those since the last checkpoint would be shown again after a failure";
        (Delivery::AtLeastOnce, how.to_owned())
    }

    fn writer(&self, ctx: WriterContext) -> Box<dyn SinkWriter> {
        let updating = ctx.changes != ChangeMode::Append;
        Box::new(CollectWriter { reader: self.0.clone(), updating })
    }

    fn committer(&self, _ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        None
    }
}

struct CollectWriter {
    reader: Reader,
    updating: bool,
}

#[async_trait]
impl SinkWriter for CollectWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let shown = match self.reader.form {
            RowForm::Cells => print::cells(rows)?,
            RowForm::Json { with_kinds } => print::json_lines(rows, self.updating && with_kinds, changes)?,
        };
        let kind = |row: usize| {
            let number = changes.map_or(0, |changes| changes.value(row));
            ChangeKind::from_number(number).expect("operators give kinds that exist")
        };
        let collected = CollectedRows { kinds: (0..rows.num_rows()).map(kind).collect(), rows: shown };
        let gone =
            |_| ConnectorError::new(ErrorKind::External, "nobody reads the rows of this query any more".to_owned());
        self.reader.rows.send(collected).await.map_err(gone)
    }

    async fn seal(
        &mut self,
        _epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        // All rows were handed over when they came.
        Ok(async { Ok(Vec::new()) }.boxed())
    }
}
