//! A table in memory: read as a whole through its connector, with an index by the keys of the join.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mainstem_connectors::{ConnectorError, EnumeratorContext, ReaderContext, ReaderEvent, Source, SplitLags};

use crate::error::EngineError;
use crate::join::key_index::{KeyFormat, KeyIndex, Keys};

/// Bytes of rows that a subtask keeps of a table.
pub(crate) const LOOKUP_BYTES_MAX: usize = 1 << 30;
/// About how many rows are read at once.
const BATCH_ROWS: usize = 8192;

/// The rows of a table, by key.
pub(super) struct LookupTable {
    rows: RecordBatch,
    index: KeyIndex,
    /// The row of each entry of the index.
    indexed: Vec<u32>,
}

impl LookupTable {
    pub(super) fn new(rows: RecordBatch, keys: &KeyFormat) -> Result<Self, EngineError> {
        let of_rows = keys.right(&rows)?;
        let mut index = keys.index();
        let mut indexed = Vec::with_capacity(rows.num_rows());
        // Backwards, because the index finds the last row first.
        for row in (0..rows.num_rows()).rev().filter(|row| !of_rows.is_never_equal(*row)) {
            index.push(&of_rows, row);
            indexed.push(row as u32);
        }
        Ok(LookupTable { rows, index, indexed })
    }

    /// The rows that have the key of the given row of a batch, in their order in the table.
    pub(super) fn find<'a>(&'a self, keys: &'a Keys, row: usize) -> impl Iterator<Item = u32> + 'a {
        self.index.find(keys, row).map(|at| self.indexed[at as usize])
    }

    /// The columns of rows.
    pub(super) fn columns(&self, rows: impl Iterator<Item = u32>) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = UInt32Array::from_iter_values(rows);
        self.rows.columns().iter().map(|column| compute::take(column, &rows, None)).collect()
    }
}

/// Reads a table.
#[derive(Clone)]
pub(crate) struct Loader {
    /// Name of the table.
    pub(crate) table: String,
    /// Its connector.
    pub(crate) source: Arc<dyn Source>,
    /// Which physical columns are read.
    pub(crate) columns: Vec<usize>,
    /// What they are.
    pub(crate) schema: SchemaRef,
    /// Which of them are the right keys.
    pub(crate) keys: Arc<KeyFormat>,
    /// Records that could not be decoded and were dropped as the user chose.
    pub(crate) dropped_records: Arc<AtomicU64>,
    /// Bytes read.
    pub(crate) bytes_read: Arc<AtomicU64>,
    /// Most bytes of rows.
    pub(crate) bytes_max: usize,
}

impl Loader {
    /// Reads the whole table. The caller's thread is not kept: rows are read as by a source, the index is made on a
    /// thread for such work.
    pub(super) async fn load(self) -> Result<LookupTable, EngineError> {
        let batches = self.read().await?;
        let schema = self.schema.clone();
        let name = self.table.clone();
        let indexed = tokio::task::spawn_blocking(move || {
            let rows = compute::concat_batches(&schema, &batches).map_err(|e| EngineError::arrow(&name, &e))?;
            LookupTable::new(rows, &self.keys)
        });
        indexed.await.map_err(|e| EngineError::Bug(format!("the index of a table that is looked up: {e}")))?
    }

    async fn read(&self) -> Result<Vec<RecordBatch>, EngineError> {
        let failed = |error: ConnectorError| EngineError::Connector { table: self.table.clone(), error };
        let context = ReaderContext {
            columns: self.columns.clone(),
            batch_rows: BATCH_ROWS,
            with_origins: false,
            bytes_read: self.bytes_read.clone(),
            lags: SplitLags::default(),
        };
        let splits = self.source.enumerator(EnumeratorContext { parallelism: 1 }).discover().await.map_err(failed)?;
        let mut reader = self.source.reader(context);
        let mut batches = Vec::new();
        let mut bytes = 0;
        for split in splits {
            reader.add_split(split, None).map_err(failed)?;
            while let Some(event) = reader.next().await.map_err(failed)? {
                let ReaderEvent::Batch { rows, rejected, .. } = event else { continue };
                self.dropped_records.fetch_add(rejected.count, Ordering::Relaxed);
                if rows.num_rows() == 0 {
                    continue;
                }
                bytes += rows.get_array_memory_size();
                if bytes > self.bytes_max {
                    return Err(self.too_large());
                }
                let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec());
                batches.push(rows.map_err(|e| EngineError::arrow(&self.table, &e))?);
                // A reader that never waits would keep its thread from the other tasks.
                tokio::task::yield_now().await;
            }
        }
        Ok(batches)
    }

    fn too_large(&self) -> EngineError {
        let message = format!(
            "the table is looked up by FOR SYSTEM_TIME AS OF, which keeps all of it in memory, and it takes more than \
             {} MiB; read fewer columns, make the table smaller, or join it as a stream without FOR SYSTEM_TIME",
            self.bytes_max >> 20
        );
        EngineError::Data { operator: self.table.clone(), message }
    }
}
