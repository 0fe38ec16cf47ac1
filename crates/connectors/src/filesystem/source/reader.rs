//! Reads the files that a source subtask is given, one after the other, each in order. Owned by one task; the
//! work on a file is in `text` and `parquet`.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use async_trait::async_trait;
use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use tokio::task::JoinHandle;

use super::FileTable;
use super::avro::AvroFile;
use super::parquet::ParquetFile;
use super::split::{FileSplit, RowPosition, TextPosition, parse_position};
use super::text::TextFile;
use crate::bad_records::{Origins, Rejected};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::FormatOptions;
use crate::source::{Phase, ReaderContext, ReaderEvent, SourceReader};

/// Reads files.
pub(super) struct FileReader {
    table: Arc<FileTable>,
    ctx: ReaderContext,
    /// Files that wait; as many as the coordinator has given.
    waiting: VecDeque<Waiting>,
    open: Option<(SplitId, OpenFile)>,
}

struct Waiting {
    id: SplitId,
    split: FileSplit,
    range: Range,
}

/// Where to begin in a file, and where to stop unless at its end.
enum Range {
    Text(TextPosition, Option<TextPosition>),
    Rows(RowPosition, Option<RowPosition>),
}

enum OpenFile {
    Avro(AvroFile),
    Text(TextFile),
    Parquet(ParquetFile),
}

/// Some rows of a file.
pub(super) struct FileRows {
    pub(super) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(super) changes: Option<Int8Array>,
    /// Records that gave no rows.
    pub(super) rejected: Rejected,
    /// Where the rows come from, if that is asked for.
    pub(super) origins: Option<Origins>,
    /// The position after them.
    pub(super) position: String,
}

impl FileReader {
    /// A reader of the table's files.
    pub(super) fn new(table: Arc<FileTable>, ctx: ReaderContext) -> FileReader {
        FileReader { table, ctx, waiting: VecDeque::new(), open: None }
    }

    fn begin(&self, waiting: Waiting) -> OpenFile {
        let table = Arc::clone(&self.table);
        match waiting.range {
            Range::Text(from, until) => OpenFile::Text(TextFile::begin(table, waiting.split, from, until, &self.ctx)),
            Range::Rows(from, until) if matches!(table.format, FormatOptions::Avro(_)) => {
                OpenFile::Avro(AvroFile::begin(table, waiting.split, from, until, &self.ctx))
            }
            Range::Rows(from, until) => {
                OpenFile::Parquet(ParquetFile::begin(&table, waiting.split, from, until, &self.ctx))
            }
        }
    }

    fn add(&mut self, split: SourceSplit, from: Option<&str>, until: Option<&str>) -> Result<(), ConnectorError> {
        let range = match self.table.format {
            FormatOptions::Avro(_) | FormatOptions::Parquet => {
                let parse = |text: &str| parse_position(text, &split.id);
                Range::Rows(from.map(parse).transpose()?.unwrap_or_default(), until.map(parse).transpose()?)
            }
            _ => {
                let parse = |text: &str| parse_position(text, &split.id);
                Range::Text(from.map(parse).transpose()?.unwrap_or(TextPosition::START), until.map(parse).transpose()?)
            }
        };
        self.waiting.push_back(Waiting { split: FileSplit::parse(&split)?, id: split.id, range });
        Ok(())
    }
}

#[async_trait]
impl SourceReader for FileReader {
    fn add_split(&mut self, split: SourceSplit, position: Option<String>) -> Result<(), ConnectorError> {
        self.add(split, position.as_deref(), None)
    }

    fn add_split_until(
        &mut self,
        split: SourceSplit,
        position: Option<String>,
        until: String,
    ) -> Result<(), ConnectorError> {
        self.add(split, position.as_deref(), Some(&until))
    }

    async fn next(&mut self) -> Result<Option<ReaderEvent>, ConnectorError> {
        let (id, mut file) = match self.open.take() {
            Some(open) => open,
            None => {
                let Some(waiting) = self.waiting.pop_front() else { return Ok(None) };
                (waiting.id.clone(), self.begin(waiting))
            }
        };
        let rows = match &mut file {
            OpenFile::Avro(file) => file.next().await?,
            OpenFile::Text(file) => file.next().await?,
            OpenFile::Parquet(file) => file.next().await?,
        };
        let Some(FileRows { rows, changes, rejected, origins, position }) = rows else {
            return Ok(Some(ReaderEvent::SplitFinished { split: id }));
        };
        let (split, phase) = (id.clone(), Phase::Log);
        let event = ReaderEvent::Batch { split, rows, changes, rejected, origins, phase, position };
        self.open = Some((id, file));
        Ok(Some(event))
    }
}

/// Why a background task ended without having said so: passes its panic on, since that is a bug, or tells
/// that the runtime stopped it.
pub(super) async fn ended_early<T>(task: JoinHandle<T>, path: &str) -> ConnectorError {
    match task.await {
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => stopped(path),
    }
}

/// The error for work that the runtime stopped.
pub(super) fn stopped(path: &str) -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, format!("reading of the file '{path}' was stopped"))
}
