//! Writes the rows of one sink subtask to temporary files. Called by the engine's sink operator. Never gives a
//! file its final name: that is the committer's right.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::Epoch;
use mainstem_core::protocol::Committable;
use tokio::task::JoinHandle;

use crate::error::ConnectorError;
use crate::sink::{SinkWriter, WriterContext};

use super::file::{ClosedFile, OpenFile};
use super::name::{self, PendingFile};
use super::partition::Part;
use super::target::{Target, join};
use super::{Compression, Encoding, Settings};

/// Files that are open at once. Beyond it the least recently written one is closed. The files of earlier epochs
/// that are still being closed come on top, and the usual limit of a process is 1024.
const OPEN_FILES_MAX: usize = 128;
/// The same where a file costs some MB of memory.
const OPEN_LARGE_FILES_MAX: usize = 64;
/// Rows that all open Parquet files together hold in memory, in bytes.
const BUFFERED_BYTES_MAX: usize = 128 << 20;
/// Files that are being closed at once.
const CLOSING_FILES_MAX: usize = 4;

/// Writes the rows of one subtask.
pub(super) struct FileWriter {
    settings: Arc<Settings>,
    target: Target,
    ctx: WriterContext,
    /// Open files by their partition's directory.
    open: HashMap<String, Slot>,
    closing: VecDeque<JoinHandle<Result<ClosedFile, ConnectorError>>>,
    /// Closed files of the current epoch.
    closed: Vec<ClosedFile>,
    /// Files begun in this epoch, and by this writer altogether.
    epoch_files: u64,
    all_files: u64,
    /// Counts writes, to find the file that was written least recently.
    writes: u64,
    scratch: Vec<u8>,
}

struct Slot {
    file: OpenFile,
    last_write: u64,
}

impl FileWriter {
    pub(super) fn new(settings: Arc<Settings>, target: Target, ctx: WriterContext) -> FileWriter {
        FileWriter {
            settings,
            target,
            ctx,
            open: HashMap::new(),
            closing: VecDeque::new(),
            closed: Vec::new(),
            epoch_files: 0,
            all_files: 0,
            writes: 0,
            scratch: Vec::new(),
        }
    }

    async fn write_part(
        &mut self,
        directory: String,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
    ) -> Result<(), ConnectorError> {
        if !self.open.contains_key(&directory) {
            self.make_room().await?;
            let file = self.create(directory.clone())?;
            self.open.insert(directory.clone(), Slot { file, last_write: 0 });
        }
        self.writes += 1;
        let slot = self.open.get_mut(&directory).expect("it was there or has been inserted");
        slot.last_write = self.writes;
        slot.file.write(rows, changes, &mut self.scratch)?;
        if slot.file.size() >= self.settings.file_size_max {
            self.close(&directory).await?;
        }
        Ok(())
    }

    /// The columns of the file, under the names that the table declares.
    fn file_rows(&self, rows: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let columns = self.settings.file_columns.iter().map(|&i| rows.column(i).clone()).collect();
        RecordBatch::try_new(self.settings.file_schema.clone(), columns).map_err(|e| {
            ConnectorError::data(format!(
                "rows for the sink '{}' do not fit the declared columns: {e}; change the query or the declaration",
                self.target.shown()
            ))
        })
    }

    fn create(&mut self, directory: String) -> Result<OpenFile, ConnectorError> {
        let temporary = name::temporary(&self.ctx, self.all_files);
        let file = self.target.create(&self.settings, temporary, directory, self.epoch_files, &mut self.scratch)?;
        self.all_files += 1;
        self.epoch_files += 1;
        Ok(file)
    }

    /// Closes files until one more may be opened.
    async fn make_room(&mut self) -> Result<(), ConnectorError> {
        let most = match self.settings.encoding {
            Encoding::Parquet(_) | Encoding::Text(_, Compression::Zstd) => OPEN_LARGE_FILES_MAX,
            Encoding::Text(_, _) => OPEN_FILES_MAX,
        };
        while self.open.len() >= most {
            let oldest =
                self.open.iter().min_by_key(|(_, slot)| slot.last_write).map(|(directory, _)| directory.clone());
            self.close(&oldest.expect("there are open files")).await?;
        }
        Ok(())
    }

    async fn close(&mut self, directory: &str) -> Result<(), ConnectorError> {
        let Some(slot) = self.open.remove(directory) else { return Ok(()) };
        self.closing.push_back(self.target.finish(slot.file));
        while self.closing.len() > CLOSING_FILES_MAX {
            let first = self.closing.pop_front().expect("there are more than the maximum");
            self.closed.push(join(first).await?);
        }
        Ok(())
    }

    /// Keeps the memory of all Parquet files together within its bound.
    fn limit_memory(&mut self) -> Result<(), ConnectorError> {
        let mut total: usize = self.open.values().map(|s| s.file.buffered_bytes()).sum();
        while total > BUFFERED_BYTES_MAX {
            let Some(largest) = self.open.values_mut().max_by_key(|s| s.file.buffered_bytes()) else { return Ok(()) };
            let before = largest.file.buffered_bytes();
            largest.file.flush_rows()?;
            let freed = before.saturating_sub(largest.file.buffered_bytes());
            if freed == 0 {
                return Ok(());
            }
            total -= freed;
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        for Part { directory, rows, changes } in self.settings.partitioner.split(rows, changes)? {
            let rows = self.file_rows(&rows)?;
            self.write_part(directory, &rows, changes.as_ref()).await?;
        }
        self.limit_memory()
    }

    async fn seal(
        &mut self,
        epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let open: Vec<OpenFile> = self.open.drain().map(|(_, slot)| slot.file).collect();
        let closing = std::mem::take(&mut self.closing);
        let mut closed = std::mem::take(&mut self.closed);
        self.epoch_files = 0;
        let (ctx, target, extension) = (self.ctx.clone(), self.target.clone(), self.settings.encoding.extension());
        let durable = async move {
            for file in closing {
                closed.push(join(file).await?);
            }
            closed.extend(target.finish_all(open).await?);
            if closed.is_empty() {
                return Ok(Vec::new());
            }
            // The names of the files must survive a crash as well as their content.
            target.sync().await?;
            closed.sort_unstable_by_key(|file| file.number);
            Ok(closed.into_iter().map(|file| pending(&ctx, epoch, extension, file).to_committable()).collect())
        };
        Ok(durable.boxed())
    }
}

fn pending(ctx: &WriterContext, epoch: Epoch, extension: &str, file: ClosedFile) -> PendingFile {
    let file_name = name::published(ctx, epoch, file.number, extension);
    let path = if file.directory.is_empty() { file_name } else { format!("{}/{file_name}", file.directory) };
    PendingFile { temporary: file.temporary, path, size: file.size, rows: file.rows, crc32c: file.crc32c }
}
