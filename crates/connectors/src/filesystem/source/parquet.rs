//! Reads one Parquet file in order. A blocking thread reads the footer and starts a task a row group, several
//! at once; each decodes its group page by page into a short queue, and the queues are emptied in the order
//! of the groups. A row that does not fit the table is rejected by itself, where the table's options ask for it. Memory: at most `in_flight_max` groups, a few batches and the current pages of each.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::objects::ObjectFile;
use super::open::{check_unchanged, open_file};
use super::reader::{FileRows, ended_early, stopped};
use super::split::{FileSplit, RowPosition};
use super::{FileTable, Location};
use crate::bad_records::{BAD_RECORD_ADVICE, DeadLetter, OnError, Origin, Origins, PositionUnit, Rejected};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::ParquetColumns;
use crate::kept::to_json;
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
    on_error: OnError,
    with_origins: bool,
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
    Rows(GroupRows),
    Failed(ConnectorError),
    /// All rows of the group have been sent.
    End,
}

/// A stretch of rows of a group.
struct GroupRows {
    /// Number of its first row in the file.
    first: u64,
    /// Its rows, wrong ones included.
    count: u64,
    /// Those that fit the table.
    rows: RecordBatch,
    /// Numbers of those that do not, and why.
    bad: Vec<(u64, String)>,
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
        let location = table.location.clone();
        let (runtime, on_error) = (Handle::current(), table.on_error);
        let pump = Pump { location, split, from, on_error, ctx: ctx.clone(), runtime, sender };
        let pump = tokio::task::spawn_blocking(move || pump.run(wanted.map_err(|error| error.to_string())));
        let (on_error, with_origins) = (table.on_error, ctx.with_origins);
        ParquetFile { path, messages, pump: Some(pump), group: None, until, on_error, with_origins }
    }

    /// The next rows and the position after them; none at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<FileRows>, ConnectorError> {
        loop {
            if let Some(mut group) = self.group.take() {
                match group.rows.recv().await {
                    Some(GroupMessage::Rows(rows)) => {
                        self.group = Some(group);
                        return Ok(self.cut(rows));
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
    fn cut(&self, stretch: GroupRows) -> Option<FileRows> {
        let GroupRows { first, count, rows, mut bad } = stretch;
        let end = self.until.map_or(first + count, |until| until.row.min(first + count));
        if end <= first {
            return None;
        }
        bad.retain(|(row, _)| *row < end);
        let good = usize::try_from(end - first).expect("a batch is small") - bad.len();
        let rows = rows.slice(0, good);
        let origins = self.with_origins.then(|| {
            let numbers = (first..end).filter(|row| bad.binary_search_by_key(row, |(row, _)| *row).is_err());
            let origin = |row| Origin { position: number(row), line: None, raw: None, raw_key: None };
            Origins { unit: PositionUnit::Row, bytes: Arc::default(), rows: numbers.map(origin).collect() }
        });
        let count = bad.len() as u64;
        let letter = |(row, reason)| DeadLetter { position: number(row), line: None, raw: None, raw_key: None, reason };
        let letters = bad.into_iter().map(letter).collect();
        let rejected = Rejected::new(&self.path, PositionUnit::Row, count, letters, self.on_error == OnError::Keep);
        Some(FileRows { rows, changes: None, rejected, origins, position: to_json(&RowPosition { row: end }) })
    }
}

fn number(row: u64) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}

/// The thread that reads the footer and starts the groups.
struct Pump {
    location: Location,
    split: FileSplit,
    from: RowPosition,
    on_error: OnError,
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
    on_error: OnError,
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
        let file = match &self.location {
            Location::Directory(_) => Bytewise::File(Arc::new(open_file(&self.split)?)),
            Location::Objects(objects) => Bytewise::Object(ObjectFile::new(objects, &self.split, &self.runtime)),
        };
        let file = PositionedFile { file, size: self.split.size, bytes_read: Arc::clone(&self.ctx.bytes_read) };
        // The types of the file itself count, not those of the Arrow schema that its writer may have added.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| unparsed(path, &error))?;
        let columns = wanted.and_then(|wanted| ParquetColumns::new(wanted, metadata.schema()));
        let columns = columns
            .map_err(|reason| ConnectorError::data(format!("the file '{path}' does not fit its table: {reason}")))?;
        let shared = Shared {
            file,
            metadata,
            columns,
            batch_rows: self.ctx.batch_rows.max(1),
            on_error: self.on_error,
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
        let group = self.metadata.metadata().row_group(index);
        let columns = (0..group.num_columns()).filter(|leaf| mask.leaf_included(*leaf)).map(|leaf| group.column(leaf));
        let file = self.file.with_ahead(columns.filter_map(bytes_of))?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![index])
            .with_projection(mask)
            .with_batch_size(self.batch_rows)
            .with_offset(usize::try_from(skip).expect("a row group is smaller"))
            .build()
            .map_err(|error| unparsed(&self.split.path, &error))?;
        let mut row = first + skip;
        for rows in reader {
            let rows = rows.map_err(|error| unreadable(&self.split.path, &error))?;
            let stretch = self.adapt(row, &rows)?;
            row += stretch.count;
            if sender.blocking_send(GroupMessage::Rows(stretch)).is_err() {
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
        match &self.file.file {
            Bytewise::File(file) => check_unchanged(file, &self.split),
            // Each read has checked it.
            Bytewise::Object(_) => Ok(()),
        }
    }
}

/// Where a column's pages lie: the first byte, and how many; none where a damaged footer names no place.
fn bytes_of(column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let first = column.dictionary_page_offset().filter(|at| *at > 0).unwrap_or(column.data_page_offset());
    Some((u64::try_from(first).ok()?, u64::try_from(column.compressed_size()).ok()?))
}

/// The error for a file that cannot be read as Parquet; what its bytes were refused for counts more.
fn unparsed(path: &str, error: &ParquetError) -> ConnectorError {
    let first: &(dyn std::error::Error + 'static) = error;
    let causes = std::iter::successors(Some(first), |e| (*e).source());
    let said = causes.filter_map(|e| e.downcast_ref::<io::Error>()).find_map(io::Error::get_ref);
    match said.and_then(|said| said.downcast_ref::<ConnectorError>()) {
        Some(said) => said.clone(),
        None => unreadable(path, error),
    }
}

impl Shared {
    /// Rows of the file as the table's, without those that do not fit it.
    fn adapt(&self, first: u64, rows: &RecordBatch) -> Result<GroupRows, ConnectorError> {
        let count = rows.num_rows() as u64;
        let reason = match self.columns.adapt(rows) {
            Ok(rows) => return Ok(GroupRows { first, count, rows, bad: Vec::new() }),
            Err(reason) => reason,
        };
        // Which rows are to blame shows when each is tried alone; it happens only where some row is wrong.
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (number, row) in (first..).zip(0..rows.num_rows()) {
            match self.columns.adapt(&rows.slice(row, 1)) {
                Ok(row) => good.push(row),
                Err(reason) => bad.push((number, reason)),
            }
        }
        let path = &self.split.path;
        if self.on_error == OnError::Stop || bad.is_empty() {
            let (row, reason) = bad.into_iter().next().unwrap_or((first, reason));
            return Err(ConnectorError::data(format!(
                "cannot read the file '{path}', row {}: {reason} -- {BAD_RECORD_ADVICE}",
                row + 1
            )));
        }
        let rows = concat_batches(self.columns.schema(), &good)
            .map_err(|error| ConnectorError::data(format!("cannot read the file '{path}': {error}")))?;
        Ok(GroupRows { first, count, rows, bad })
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
    file: Bytewise,
    size: u64,
    bytes_read: Arc<AtomicU64>,
}

/// What is read at positions.
#[derive(Clone)]
enum Bytewise {
    File(Arc<File>),
    Object(ObjectFile),
}

impl PositionedFile {
    /// The same file, with ranges (start, length) in memory where each read of it is costly.
    fn with_ahead(&self, ranges: impl Iterator<Item = (u64, u64)>) -> Result<PositionedFile, ConnectorError> {
        let Bytewise::Object(object) = &self.file else { return Ok(self.clone()) };
        // A damaged footer may name any range.
        let ranges = ranges.map(|(start, length)| start.min(self.size)..start.saturating_add(length).min(self.size));
        let file = Bytewise::Object(object.with_ahead(ranges.collect())?);
        Ok(PositionedFile { file, ..self.clone() })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match &self.file {
            Bytewise::File(file) => file.read_at(buffer, at),
            Bytewise::Object(object) => {
                let length = (buffer.len() as u64).min(self.size.saturating_sub(at));
                if length == 0 {
                    return Ok(0);
                }
                let bytes = object.read_some(at, length).map_err(io::Error::other)?;
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
        }
    }
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
        self.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
        match &self.file {
            Bytewise::File(file) => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, start)?;
                Ok(buffer.into())
            }
            Bytewise::Object(object) => Ok(object.read_at(start, length as u64).map_err(io::Error::other)?),
        }
    }
}

/// Reads on from a position.
struct PositionedRead {
    file: PositionedFile,
    at: u64,
}

impl Read for PositionedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        self.file.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
