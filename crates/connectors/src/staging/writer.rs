//! Stages the rows of one sink subtask. Called by the writers of sinks.

use std::hash::{BuildHasher, Hasher, RandomState};

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_core::ids::{Generation, OperatorId};
use mainstem_core::protocol::Committable;
use tokio::task::JoinSet;

use super::{StagedFile, Staging, name_of};
use crate::error::{ConnectorError, ErrorKind};
use crate::sink::WriterContext;

/// Bytes of rows in a file, before compression; the committer reads a file as a whole.
const FILE_BYTES_MAX: usize = 32 << 20;
/// Rows in a file.
const FILE_ROWS_MAX: usize = 1 << 20;
/// Files that are being written at once; with what is collected this bounds the memory of a subtask.
const WRITES_MAX: usize = 2;

/// See the module. Owned by one writer.
pub(crate) struct StagingWriter {
    staging: Staging,
    generation: Generation,
    operator: OperatorId,
    subtask: u32,
    nonce: u64,
    /// Files that were begun by this writer.
    files: u64,
    rows: Vec<RecordBatch>,
    rows_bytes: usize,
    rows_count: usize,
    /// Files of the current epoch, by their number.
    writing: JoinSet<Result<(u64, StagedFile), ConnectorError>>,
    written: Vec<(u64, StagedFile)>,
}

impl StagingWriter {
    /// A writer that has staged nothing.
    pub(crate) fn new(ctx: &WriterContext) -> StagingWriter {
        StagingWriter {
            staging: ctx.staging.clone(),
            generation: ctx.generation,
            operator: ctx.operator,
            subtask: ctx.subtask,
            nonce: RandomState::new().build_hasher().finish(),
            files: 0,
            rows: Vec::new(),
            rows_bytes: 0,
            rows_count: 0,
            writing: JoinSet::new(),
            written: Vec::new(),
        }
    }

    /// Takes rows of the current epoch, of the same schema each time; they keep their order.
    pub(crate) async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.rows_bytes += bytes_of(&rows);
        self.rows_count += rows.num_rows();
        self.rows.push(rows);
        if self.rows_bytes >= FILE_BYTES_MAX || self.rows_count >= FILE_ROWS_MAX {
            self.begin_file();
        }
        while self.writing.len() > WRITES_MAX {
            self.written.extend(next(&mut self.writing).await?);
        }
        Ok(())
    }

    /// Ends the epoch. The future makes its rows durable and gives what is to be committed, in the order of the rows.
    pub(crate) fn seal_epoch(&mut self) -> BoxFuture<'static, Result<Vec<Committable>, ConnectorError>> {
        let sealed = self.seal();
        async move { Ok(sealed.await?.iter().map(StagedFile::to_committable).collect()) }.boxed()
    }

    /// The same, as files.
    pub(super) fn seal(&mut self) -> BoxFuture<'static, Result<Vec<StagedFile>, ConnectorError>> {
        if !self.rows.is_empty() {
            self.begin_file();
        }
        let mut writing = std::mem::take(&mut self.writing);
        let mut written = std::mem::take(&mut self.written);
        async move {
            while !writing.is_empty() {
                written.extend(next(&mut writing).await?);
            }
            written.sort_unstable_by_key(|(number, _)| *number);
            Ok(written.into_iter().map(|(_, file)| file).collect())
        }
        .boxed()
    }

    fn begin_file(&mut self) {
        let number = self.files;
        self.files += 1;
        let rows = std::mem::take(&mut self.rows);
        let count = std::mem::take(&mut self.rows_count) as u64;
        self.rows_bytes = 0;
        let name = name_of(number, self.generation, self.operator, self.subtask);
        let (staging, generation, nonce) = (self.staging.clone(), self.generation, self.nonce);
        self.writing.spawn(async move {
            let encoded = tokio::task::spawn_blocking(move || encode(&rows)).await;
            let encoded = encoded.map_err(|e| stopped(&e))?;
            let bytes = encoded.map_err(|e| ConnectorError::data(format!("rows cannot be staged: {e}")))?;
            let file = StagedFile {
                name,
                generation,
                nonce,
                size: bytes.len() as u64,
                rows: count,
                crc32c: crc32c::crc32c(&bytes),
            };
            staging.0.put(&file.name, bytes.into()).await?;
            Ok((number, file))
        });
    }
}

async fn next(
    writing: &mut JoinSet<Result<(u64, StagedFile), ConnectorError>>,
) -> Result<Option<(u64, StagedFile)>, ConnectorError> {
    match writing.join_next().await {
        None => Ok(None),
        Some(Ok(written)) => written.map(Some),
        Some(Err(error)) => Err(stopped(&error)),
    }
}

fn stopped(error: &tokio::task::JoinError) -> ConnectorError {
    let message = format!("the task that stages output was stopped: {error}; it is tried again");
    ConnectorError::new(ErrorKind::Transient, message)
}

fn encode(rows: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let first = rows.first().ok_or_else(|| ArrowError::InvalidArgumentError("no rows".to_owned()))?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &first.schema(), options)?;
    rows.iter().try_for_each(|rows| writer.write(rows))?;
    writer.into_inner()
}

/// Bytes that the rows themselves take: a slice keeps the whole of its buffers, but does not write them.
fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()))
        .sum()
}
