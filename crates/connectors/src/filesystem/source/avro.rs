//! Reads one Avro file in order. A blocking thread reads block after block, decodes each and hands the rows over in a short
//! queue; places count rows, as in Parquet, since that is what both sides of a restart can count. Memory: a block, packed and
//! unpacked, and a few batches.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::FileTable;
use super::open::{check_unchanged, open_text, read_error};
use super::reader::{FileRows, ended_early, stopped};
use super::split::{FileSplit, RowPosition};
use crate::bad_records::{BAD_RECORD_ADVICE, DeadLetter, OnError, Origin, Origins, PositionUnit, Rejected};
use crate::error::{ConnectorError, ErrorKind};
use crate::format::{AvroContainer, AvroOptions, ContainerError, ContainerRows, FormatOptions};
use crate::kept::to_json;
use crate::source::ReaderContext;

/// Batches that are decoded ahead.
const BATCHES_AHEAD: usize = 4;

/// An Avro file that is being read.
pub(super) struct AvroFile {
    path: String,
    messages: mpsc::Receiver<Message>,
    /// Taken when it is found to be gone.
    task: Option<JoinHandle<()>>,
}

enum Message {
    Rows(Box<FileRows>),
    Failed(ConnectorError),
    /// All rows have been sent.
    End,
}

/// The thread that reads.
struct Pump {
    table: Arc<FileTable>,
    split: FileSplit,
    from: u64,
    /// Where to stop; none: at the end of the file.
    until: Option<u64>,
    ctx: ReaderContext,
    runtime: Handle,
    sender: mpsc::Sender<Message>,
}

impl AvroFile {
    /// Begins to read a file. Must be called on a runtime.
    pub(super) fn begin(
        table: Arc<FileTable>,
        split: FileSplit,
        from: RowPosition,
        until: Option<RowPosition>,
        ctx: &ReaderContext,
    ) -> AvroFile {
        let (sender, messages) = mpsc::channel(BATCHES_AHEAD);
        let path = split.path.clone();
        let (from, until) = (from.row, until.map(|until| until.row));
        let pump = Pump { table, split, from, until, ctx: ctx.clone(), runtime: Handle::current(), sender };
        let task = Some(tokio::task::spawn_blocking(move || pump.run()));
        AvroFile { path, messages, task }
    }

    /// The next rows and the position after them; none at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<FileRows>, ConnectorError> {
        match self.messages.recv().await {
            Some(Message::Rows(rows)) => Ok(Some(*rows)),
            Some(Message::Failed(error)) => Err(error),
            Some(Message::End) => Ok(None),
            None => {
                let Some(task) = self.task.take() else { return Err(stopped(&self.path)) };
                Err(ended_early(task, &self.path).await)
            }
        }
    }
}

impl Pump {
    fn run(self) {
        let message = match self.pump() {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error),
        };
        // A reader that is gone needs no answer.
        drop(self.sender.blocking_send(message));
    }

    fn pump(&self) -> Result<(), ConnectorError> {
        let FormatOptions::Avro(options) = &self.table.format else { unreachable!("the table's files are of Avro") };
        let counter = Arc::clone(&self.ctx.bytes_read);
        let opened = open_text(&self.table, &self.split, 0, &self.runtime, counter)?;
        let rows = self.read(opened.input, options)?;
        if self.from > rows {
            let message = format!(
                "the file '{}' has {rows} rows, but was read up to row {}: it has been replaced; restore it, or start the job afresh",
                self.split.path, self.from
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        }
        // Rows of a file that was changed meanwhile cannot be read again, so they must not count.
        opened.file.map_or(Ok(()), |file| check_unchanged(&file, &self.split))
    }

    /// Reads all that is wanted; gives the number of rows that were gone through.
    fn read(&self, input: Box<dyn io::Read + Send>, options: &AvroOptions) -> Result<u64, ConnectorError> {
        let columns = self.table.schema.project(&self.ctx.columns).map(Arc::new);
        let columns = columns.map_err(|error| ConnectorError::data(error.to_string()))?;
        let failed = |error: ContainerError| self.failed(error);
        let mut container = AvroContainer::open(input, &columns, options).map_err(failed)?;
        let mut first = 0;
        while self.until.is_none_or(|until| first < until) {
            let Some(block) = container.next_block(|count| first + count <= self.from).map_err(failed)? else { break };
            let end = first + block.count;
            if end > self.from {
                let skip = self.from.saturating_sub(first);
                let (mut row, mut wrong, mut gone) = (first + skip, None, false);
                let go_on = self.table.on_error != OnError::Stop;
                let mut take = |rows: ContainerRows| {
                    if !go_on && let Some((number, reason)) = rows.bad.first() {
                        wrong = Some((row + number, reason.clone()));
                    }
                    let more = self.until.is_none_or(|until| row + rows.count < until);
                    let rows = self.rows(&mut row, rows, go_on);
                    gone = rows.is_some_and(|rows| self.sender.blocking_send(Message::Rows(Box::new(rows))).is_err());
                    more && !gone
                };
                container.decode(&block, skip, self.ctx.batch_rows.max(1), go_on, &mut take).map_err(failed)?;
                if gone {
                    return Ok(u64::MAX);
                }
                if let Some((row, reason)) = wrong.filter(|(row, _)| self.until.is_none_or(|until| *row < until)) {
                    let path = &self.split.path;
                    return Err(ConnectorError::data(format!(
                        "cannot read the file '{path}', row {}: {reason} -- {BAD_RECORD_ADVICE}",
                        row + 1
                    )));
                }
            }
            first = end;
        }
        Ok(first)
    }

    /// Rows as they are handed over, and the place behind them; none where there is nothing to hand over.
    fn rows(&self, row: &mut u64, stretch: ContainerRows, go_on: bool) -> Option<FileRows> {
        let first = *row;
        let ContainerRows { count, rows, bad } = stretch;
        // A wrong record that stops the job is not read.
        let count = if go_on { count } else { count - bad.len() as u64 };
        let mut bad: Vec<(u64, String)> =
            if go_on { bad.into_iter().map(|(number, reason)| (first + number, reason)).collect() } else { Vec::new() };
        let end = self.until.map_or(first + count, |until| until.min(first + count));
        *row = end;
        if end <= first {
            return None;
        }
        bad.retain(|(row, _)| *row < end);
        let good = usize::try_from(end - first).expect("a batch is small") - bad.len();
        let origins = self.ctx.with_origins.then(|| {
            let numbers = (first..end).filter(|row| bad.binary_search_by_key(row, |(row, _)| *row).is_err());
            let origin = |row| Origin { position: number(row), line: None, raw: None, raw_key: None };
            Origins { unit: PositionUnit::Row, bytes: Arc::default(), rows: numbers.map(origin).collect() }
        });
        let (wrong, keep) = (bad.len() as u64, self.table.on_error == OnError::Keep);
        let letter = |(row, reason)| DeadLetter { position: number(row), line: None, raw: None, raw_key: None, reason };
        let letters = bad.into_iter().map(letter).collect();
        let rejected = Rejected::new(&self.split.path, PositionUnit::Row, wrong, letters, keep);
        let position = to_json(&RowPosition { row: end });
        Some(FileRows { rows: rows.slice(0, good), changes: None, rejected, origins, position })
    }

    fn failed(&self, error: ContainerError) -> ConnectorError {
        let path = &self.split.path;
        match error {
            ContainerError::Io(error) => read_error(&self.split, &error),
            ContainerError::Damaged(reason) => ConnectorError::data(format!(
                "the file '{path}' cannot be read as Avro ({reason}): it is damaged, cut short, or of another format"
            )),
            ContainerError::Misfit(reason) => {
                ConnectorError::data(format!("the file '{path}' does not fit its table: {reason}"))
            }
        }
    }
}

fn number(row: u64) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}
