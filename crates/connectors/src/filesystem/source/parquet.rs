//! Reads one Parquet file in order. A blocking thread reads the footer and starts a task a row group, several
//! at once; each decodes its group page by page into a short queue, and the queues are emptied in the order
//! of the groups. Memory: at most `in_flight_max` groups, a few batches and the current pages of each.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::FileTable;
use super::open::{check_unchanged, open_file};
use super::reader::{FileRows, ended_early, stopped};
use super::split::{FileSplit, RowPosition, to_json};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::ParquetColumns;
use crate::source::ReaderContext;

/// Batches that a row group decodes ahead.
const BATCHES_AHEAD: usize = 4;

/// A Parquet file that is being read.
pub(super) struct ParquetFile {
    path: String,
    messages: mpsc::Receiver<Message>,
    /// The thread that starts the groups; taken when it is found to be gone.
    pump: Option<JoinHandle<()>>,
    group: Option<Group>,
    /// Where to stop; none: at the end of the file.
    until: Option<RowPosition>,
}

/// From the thread that reads the footer, in the order of the file.
enum Message {
    Group(Group),
    Failed(ConnectorError),
    /// All row groups have been sent.
    End,
}

/// A row group that is being decoded.
struct Group {
    rows: mpsc::Receiver<GroupMessage>,
    task: JoinHandle<()>,
}

enum GroupMessage {
    Rows(RecordBatch, RowPosition),
    Failed(ConnectorError),
    /// All rows of the group have been sent.
    End,
}

impl ParquetFile {
    /// Begins to read a file. Must be called on a runtime.
    pub(super) fn begin(
        table: &FileTable,
        split: FileSplit,
        from: RowPosition,
        until: Option<RowPosition>,
        ctx: &ReaderContext,
    ) -> ParquetFile {
        // Besides those in the queue, one group is in the hands of the thread and one in those of `next`.
        let (sender, messages) = mpsc::channel(table.in_flight_max.saturating_sub(2).max(1));
        let path = split.path.clone();
        let wanted = table.schema.project(&ctx.columns).map(Arc::new);
        let pump = Pump { split, from, ctx: ctx.clone(), runtime: Handle::current(), sender };
        let pump = tokio::task::spawn_blocking(move || pump.run(wanted.map_err(|error| error.to_string())));
        ParquetFile { path, messages, pump: Some(pump), group: None, until }
    }

    /// The next rows and the position after them; none at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<FileRows>, ConnectorError> {
        loop {
            if let Some(mut group) = self.group.take() {
                match group.rows.recv().await {
                    Some(GroupMessage::Rows(rows, position)) => {
                        self.group = Some(group);
                        return Ok(self.cut(rows, position));
                    }
                    Some(GroupMessage::End) => {}
                    Some(GroupMessage::Failed(error)) => return Err(error),
                    None => return Err(ended_early(group.task, &self.path).await),
                }
            }
            match self.messages.recv().await {
                Some(Message::Group(group)) => self.group = Some(group),
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::End) => return Ok(None),
                None => {
                    let Some(pump) = self.pump.take() else { return Err(stopped(&self.path)) };
                    return Err(ended_early(pump, &self.path).await);
                }
            }
        }
    }
}

impl ParquetFile {
    /// The rows that stand before the place where reading is to stop.
    fn cut(&self, rows: RecordBatch, position: RowPosition) -> Option<FileRows> {
        let surplus = self.until.map_or(0, |until| position.row.saturating_sub(until.row));
        let wanted = rows.num_rows().saturating_sub(usize::try_from(surplus).unwrap_or(usize::MAX));
        let position = RowPosition { row: position.row - surplus };
        (wanted > 0).then(|| FileRows { rows: rows.slice(0, wanted), changes: None, position: to_json(&position) })
    }
}

/// The thread that reads the footer and starts the groups.
struct Pump {
    split: FileSplit,
    from: RowPosition,
    ctx: ReaderContext,
    runtime: Handle,
    sender: mpsc::Sender<Message>,
}

/// What all groups of a file share.
#[derive(Clone)]
struct Shared {
    file: PositionedFile,
    metadata: ArrowReaderMetadata,
    columns: ParquetColumns,
    batch_rows: usize,
    split: Arc<FileSplit>,
}

impl Pump {
    fn run(self, wanted: Result<SchemaRef, String>) {
        let message = match self.pump(wanted) {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error),
        };
        // A reader that is gone needs no answer.
        drop(self.sender.blocking_send(message));
    }

    fn pump(&self, wanted: Result<SchemaRef, String>) -> Result<(), ConnectorError> {
        let path = &self.split.path;
        let file = open_file(&self.split)?;
        let file = PositionedFile {
            file: Arc::new(file),
            size: self.split.size,
            bytes_read: Arc::clone(&self.ctx.bytes_read),
        };
        // The types of the file itself count, not those of the Arrow schema that its writer may have added.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| unreadable(path, &error))?;
        let columns = wanted.and_then(|wanted| ParquetColumns::new(wanted, metadata.schema()));
        let columns = columns
            .map_err(|reason| ConnectorError::data(format!("the file '{path}' does not fit its table: {reason}")))?;
        let shared = Shared {
            file,
            metadata,
            columns,
            batch_rows: self.ctx.batch_rows.max(1),
            split: Arc::new(self.split.clone()),
        };
        let mut first = 0;
        for index in 0..shared.metadata.metadata().num_row_groups() {
            let rows = u64::try_from(shared.metadata.metadata().row_group(index).num_rows()).unwrap_or(0);
            let end = first + rows;
            if end > self.from.row && !self.start_group(&shared, index, first) {
                return Ok(());
            }
            first = end;
        }
        if self.from.row > first {
            let message = format!(
                "the file '{}' has {first} rows, but was read up to row {}: it has been replaced; restore it, or start the job afresh",
                self.split.path, self.from.row
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        Ok(())
    }

    /// Starts to decode the group whose first row has the number `first`; false where nobody waits for it.
    fn start_group(&self, shared: &Shared, index: usize, first: u64) -> bool {
        let (sender, rows) = mpsc::channel(BATCHES_AHEAD);
        let shared = shared.clone();
        let skip = self.from.row.saturating_sub(first);
        let task = self.runtime.spawn_blocking(move || {
            let message = match shared.decode(index, first, skip, &sender) {
                Ok(()) => GroupMessage::End,
                Err(error) => GroupMessage::Failed(error),
            };
            drop(sender.blocking_send(message));
        });
        self.sender.blocking_send(Message::Group(Group { rows, task })).is_ok()
    }
}

impl Shared {
    /// Decodes a row group, of which `skip` rows were read before.
    fn decode(
        &self,
        index: usize,
        first: u64,
        skip: u64,
        sender: &mpsc::Sender<GroupMessage>,
    ) -> Result<(), ConnectorError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.columns.roots().iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_row_groups(vec![index])
            .with_projection(mask)
            .with_batch_size(self.batch_rows)
            .with_offset(usize::try_from(skip).expect("a row group is smaller"))
            .build()
            .map_err(|error| unreadable(&self.split.path, &error))?;
        let mut row = first + skip;
        for rows in reader {
            let rows = rows.map_err(|error| unreadable(&self.split.path, &error))?;
            let adapted = self.columns.adapt(&rows).map_err(|reason| {
                let path = &self.split.path;
                ConnectorError::data(format!(
                    "cannot read the file '{path}', rows from {row} on: {reason}; mend the file or the table"
                ))
            })?;
            row += adapted.num_rows() as u64;
            if sender.blocking_send(GroupMessage::Rows(adapted, RowPosition { row })).is_err() {
                return Ok(());
            }
        }
        let declared = self.metadata.metadata().row_group(index).num_rows();
        if i64::try_from(row - first) != Ok(declared) {
            return Err(unreadable(
                &self.split.path,
                &format!("row group {index} has {} rows instead of {declared}", row - first),
            ));
        }
        // Rows of a file that was changed meanwhile cannot be read again, so they must not count.
        check_unchanged(&self.file.file, &self.split)
    }
}

fn unreadable(path: &str, error: &dyn std::fmt::Display) -> ConnectorError {
    ConnectorError::data(format!(
        "the file '{path}' cannot be read as Parquet ({error}): it is damaged, cut short, or of another format"
    ))
}

/// A file that is read at positions, by several threads at once: unlike a plain file it has no place of its
/// own that they would move for each other.
#[derive(Clone)]
struct PositionedFile {
    file: Arc<File>,
    size: u64,
    bytes_read: Arc<AtomicU64>,
}

impl Length for PositionedFile {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for PositionedFile {
    type T = BufReader<PositionedRead>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(PositionedRead { file: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged footer may name any length; the file's size bounds what is allocated.
        if start.saturating_add(length as u64) > self.size {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} lie beyond the end of the file")));
        }
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        self.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(buffer.into())
    }
}

/// Reads on from a position.
struct PositionedRead {
    file: PositionedFile,
    at: u64,
}

impl Read for PositionedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        self.file.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
