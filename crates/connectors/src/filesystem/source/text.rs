//! Reads one text file (JSON, CSV) in order. A blocking thread reads, unpacks and cuts it into blocks; each
//! block is decoded as a task of its own, several at once; the results are taken in the order of the blocks,
//! so that rows, line numbers and positions are those of the file. At most `in_flight_max` blocks are held at
//! a time: the queue of their tasks is bounded.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::FileTable;
use super::blocks::{Block, BlockError, BlockReader, Cutter};
use super::open::{OpenText, check_unchanged, open_text, read_error};
use super::reader::{FileRows, ended_early, stopped};
use super::split::{FileSplit, TextPosition};
use crate::bad_records::{BAD_RECORD_ADVICE, DeadLetter, OnError, Origin, Origins, PositionUnit, Rejected};
use crate::error::ConnectorError;
use crate::format::{
    BlockBatch, BlockRows, CsvDialect, FormatOptions, RECORD_BYTES_MAX, RecordFault, Reject, Rejects, Span, TextDecoder,
};
use crate::kept::to_json;
use crate::source::ReaderContext;

/// Bytes that are read at once to find a header.
const HEADER_BYTES: usize = 4 << 10;
/// The mark with which some programs begin UTF-8 files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A text file that is being read.
pub(super) struct TextFile {
    path: String,
    messages: mpsc::Receiver<Message>,
    /// The thread that reads the file; taken when it is found to be gone.
    pump: Option<JoinHandle<()>>,
    /// Number of the line in which the next block begins.
    line: u64,
    ready: VecDeque<FileRows>,
    /// What went wrong after the rows in `ready`.
    failure: Option<ConnectorError>,
    /// Whether rejected records are kept or only counted.
    keep_rejected: bool,
}

/// From the reading thread, in the order of the file.
enum Message {
    /// The header that stood before the first record.
    Header { lines: u64 },
    /// A block and the task that decodes it.
    Block { start: u64, rows: JoinHandle<(BlockRows, Option<Vec<u8>>)> },
    /// A record at this offset is too long to be one.
    TooLong { offset: u64 },
    /// The same, and it was passed over: its first bytes, and where the next one begins.
    Skipped { offset: u64, head: Vec<u8>, end: u64 },
    /// The file cannot be read on.
    Failed(ConnectorError),
    /// All blocks have been sent.
    End,
}

impl TextFile {
    /// Begins to read a file. Must be called on a runtime.
    pub(super) fn begin(
        table: Arc<FileTable>,
        split: FileSplit,
        from: TextPosition,
        until: Option<TextPosition>,
        ctx: &ReaderContext,
    ) -> TextFile {
        // Besides those in the queue, one block is in the hands of the thread and one in those of `next`.
        let (sender, messages) = mpsc::channel(table.in_flight_max.saturating_sub(2).max(1));
        let path = split.path.clone();
        let keep_rejected = table.on_error == OnError::Keep;
        let pump = Pump {
            table,
            split,
            from,
            until,
            ctx: ctx.clone(),
            runtime: Handle::current(),
            sender,
            idle: Arc::default(),
            header: None,
        };
        let pump = tokio::task::spawn_blocking(move || pump.run());
        TextFile {
            path,
            messages,
            pump: Some(pump),
            line: from.line,
            ready: VecDeque::new(),
            failure: None,
            keep_rejected,
        }
    }

    /// The next rows and the position after them; none at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<FileRows>, ConnectorError> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                return Ok(Some(rows));
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            match self.messages.recv().await {
                Some(Message::Header { lines }) => self.line += lines,
                Some(Message::Block { start, rows }) => match rows.await {
                    Ok((rows, text)) => self.take(start, rows, text),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => return Err(stopped(&self.path)),
                },
                Some(Message::TooLong { offset }) => return Err(self.too_long(offset)),
                Some(Message::Skipped { offset, head, end }) => return Ok(Some(self.skipped(offset, head, end))),
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::End) => return Ok(None),
                None => {
                    let Some(pump) = self.pump.take() else { return Err(stopped(&self.path)) };
                    return Err(ended_early(pump, &self.path).await);
                }
            }
        }
    }

    fn take(&mut self, start: u64, block: BlockRows, text: Option<Vec<u8>>) {
        let text = text.map(Arc::new);
        for BlockBatch { rows, changes, rejects, spans, end, lines } in block.batches {
            let position = TextPosition { offset: start + end as u64, line: self.line + lines };
            let origins = text.as_ref().map(|text| self.origins(start, text, &spans));
            let rejected = self.rejected(start, rejects);
            self.ready.push_back(FileRows { rows, changes, rejected, origins, position: to_json(&position) });
        }
        self.failure = block.fault.map(|fault| self.broken_record(start, &fault));
        self.line += block.lines;
    }

    /// Where a record of a block that begins at `start` lies in the file: its first byte, and its line.
    fn place(&self, start: u64, span: &Span) -> (i64, Option<i64>) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        (number(start + span.start as u64), Some(number(self.line + span.lines)))
    }

    fn rejected(&self, start: u64, Rejects { count, records }: Rejects) -> Rejected {
        let letter = |Reject { span, reason, raw }| {
            let (position, line) = self.place(start, &span);
            DeadLetter { position, line, raw: Some(raw), raw_key: None, reason }
        };
        let letters = records.into_iter().map(letter).collect();
        Rejected::new(&self.path, PositionUnit::Byte, count, letters, self.keep_rejected)
    }

    fn origins(&self, start: u64, text: &Arc<Vec<u8>>, spans: &[Span]) -> Origins {
        let origin = |span: &Span| {
            let (position, line) = self.place(start, span);
            Origin { position, line, raw: Some(span.start..span.start + span.length), raw_key: None }
        };
        Origins { unit: PositionUnit::Byte, bytes: Arc::clone(text), rows: spans.iter().map(origin).collect() }
    }

    /// A record that is too long to be decoded, as one that was rejected.
    fn skipped(&mut self, offset: u64, head: Vec<u8>, end: u64) -> FileRows {
        let length = end - offset;
        let reason = format!("the record has {length} bytes, more than {} MiB", RECORD_BYTES_MAX >> 20);
        let span = Span { start: 0, length: head.len(), lines: 0 };
        let rejects = Rejects { count: 1, records: vec![Reject { span, reason, raw: head }] };
        let rejected = self.rejected(offset, rejects);
        self.line += 1;
        let position = TextPosition { offset: end, line: self.line };
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        FileRows { rows, changes: None, rejected, origins: None, position: to_json(&position) }
    }

    fn broken_record(&self, start: u64, fault: &RecordFault) -> ConnectorError {
        let RecordFault { reason, excerpt, .. } = fault;
        let (line, offset) = (self.line + fault.lines, start + fault.at as u64);
        ConnectorError::data(format!(
            "cannot read the file '{}', line {line}, byte {offset}: {reason}; the record is: {excerpt} -- {BAD_RECORD_ADVICE}",
            self.path
        ))
    }

    fn too_long(&self, offset: u64) -> ConnectorError {
        ConnectorError::data(format!(
            "cannot read the file '{}', line {}, byte {offset}: a record that begins here has no end within {} MiB; is it a file of \
             this format, and is each quote closed?",
            self.path,
            self.line,
            RECORD_BYTES_MAX >> 20
        ))
    }
}

/// The thread that reads a file.
struct Pump {
    table: Arc<FileTable>,
    split: FileSplit,
    from: TextPosition,
    /// Where to stop, a boundary of records; none: at the end of the file.
    until: Option<TextPosition>,
    ctx: ReaderContext,
    runtime: Handle,
    sender: mpsc::Sender<Message>,
    idle: Arc<Idle>,
    /// The first record of the file, where it names the fields.
    header: Option<Vec<u8>>,
}

/// Decoders and buffers that wait for another block. Never more than there are blocks in flight.
#[derive(Default)]
struct Idle {
    decoders: Mutex<Vec<TextDecoder>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Pump {
    fn run(mut self) {
        let message = match self.pump() {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error),
        };
        // A reader that is gone needs no answer.
        self.send(message);
    }

    fn pump(&mut self) -> Result<(), ConnectorError> {
        let mut start = self.from.offset;
        if let FormatOptions::Csv(options) = &self.table.format
            && options.header
        {
            let dialect = CsvDialect::new(options);
            start = start.max(self.read_header(dialect)?);
        }
        // A file that needs another decoder than its header allows is refused even where it is empty.
        let decoder = self.decoder()?;
        give_back(&self.idle.decoders, decoder);
        let OpenText { input, file } = self.open(start)?;
        let input = match self.until {
            Some(until) => Box::new(input.take(until.offset.saturating_sub(start))),
            None => input,
        };
        let mut blocks = BlockReader::new(input, self.cutter(), self.block_bytes(), start);
        loop {
            let buffer = take(&self.idle.buffers).unwrap_or_default();
            match blocks.next(buffer) {
                Ok(Some(block)) => {
                    let message = self.decode(block)?;
                    if !self.send(message) {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(BlockError::RecordTooLong(head)) if self.may_skip() => {
                    let message = self.skip(&mut blocks, head)?;
                    if !self.send(message) {
                        return Ok(());
                    }
                }
                Err(BlockError::RecordTooLong(_)) => {
                    self.send(Message::TooLong { offset: blocks.offset() });
                    return Ok(());
                }
                Err(BlockError::Io(error)) => return Err(read_error(&self.split, &error)),
            }
        }
        // Rows of a file that was changed meanwhile cannot be read again, so they must not count.
        file.map_or(Ok(()), |file| check_unchanged(&file, &self.split))
    }

    /// Whether a record that is too long can be told from the next one. A quote that is never closed hides all line ends
    /// behind it.
    fn may_skip(&self) -> bool {
        self.table.on_error != OnError::Stop && matches!(self.cutter(), Cutter::Lines)
    }

    fn skip(&self, blocks: &mut BlockReader, mut head: Vec<u8>) -> Result<Message, ConnectorError> {
        let offset = blocks.offset();
        blocks.skip_line(head.len()).map_err(|error| read_error(&self.split, &error))?;
        head.truncate(self.table.raw_bytes_max);
        head.shrink_to_fit();
        Ok(Message::Skipped { offset, head, end: blocks.offset() })
    }

    /// Hands a message on; false where nobody waits for it any more.
    fn send(&self, message: Message) -> bool {
        self.sender.blocking_send(message).is_ok()
    }

    fn open(&self, offset: u64) -> Result<OpenText, ConnectorError> {
        open_text(&self.table, &self.split, offset, &self.runtime, Arc::clone(&self.ctx.bytes_read))
    }

    fn cutter(&self) -> Cutter {
        match &self.table.format {
            FormatOptions::Csv(options) => Cutter::Csv(CsvDialect::new(options)),
            _ => Cutter::Lines,
        }
    }

    /// Small files, of which there may be many, need no large buffers.
    fn block_bytes(&self) -> usize {
        let unpacked_max = self.split.size.saturating_mul(16).saturating_add(1);
        self.table.block_bytes.min(usize::try_from(unpacked_max).unwrap_or(usize::MAX))
    }

    /// Reads the first record and gives the offset after it.
    fn read_header(&mut self, dialect: CsvDialect) -> Result<u64, ConnectorError> {
        let OpenText { input, .. } = self.open(0)?;
        let mut blocks = BlockReader::new(input, Cutter::Csv(dialect), HEADER_BYTES, 0);
        let block = match blocks.next(Vec::new()) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(0),
            Err(BlockError::Io(error)) => return Err(read_error(&self.split, &error)),
            Err(BlockError::RecordTooLong(_)) => {
                return Err(ConnectorError::data(format!(
                    "the header of the file '{}' has no end: is it a CSV file?",
                    self.split.path
                )));
            }
        };
        let text = block.text();
        let end = dialect.next_record(text).unwrap_or(text.len());
        let record = &text[..end];
        let line = record.strip_suffix(b"\n").unwrap_or(record);
        self.header = Some(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).to_vec());
        if self.from.offset == 0 {
            let lines = 1 + memchr::memchr_iter(b'\n', line).count() as u64;
            self.send(Message::Header { lines });
        }
        Ok(end as u64)
    }

    fn decoder(&self) -> Result<TextDecoder, ConnectorError> {
        if let Some(decoder) = take(&self.idle.decoders) {
            return Ok(decoder);
        }
        let FileTable { format, schema, .. } = self.table.as_ref();
        let made = TextDecoder::new(format, schema, &self.ctx.columns, self.header.as_deref());
        let made = made.map(|decoder| decoder.with(self.table.on_error, self.ctx.with_origins));
        made.map_err(|reason| {
            ConnectorError::data(format!(
                "the file '{}' does not fit the table '{}': {reason}",
                self.split.path, self.table.name
            ))
        })
    }

    /// Has a block decoded by a task.
    fn decode(&self, block: Block) -> Result<Message, ConnectorError> {
        let mut decoder = self.decoder()?;
        let batch_rows = self.ctx.batch_rows;
        let idle = Arc::clone(&self.idle);
        let start = block.start;
        let buffer_max = 2 * self.table.block_bytes;
        let with_origins = self.ctx.with_origins;
        let rows = self.runtime.spawn(async move {
            let marked = block.start == 0 && block.text().starts_with(BYTE_ORDER_MARK);
            let first = if marked { BYTE_ORDER_MARK.len() } else { 0 };
            let rows = decoder.decode(block.text(), first, batch_rows);
            give_back(&idle.decoders, decoder);
            let buffer = block.into_buffer();
            if with_origins {
                return (rows, Some(buffer));
            }
            // A buffer that has grown for one long record is not kept.
            if buffer.len() <= buffer_max {
                give_back(&idle.buffers, buffer);
            }
            (rows, None)
        });
        Ok(Message::Block { start, rows })
    }
}

fn take<T>(idle: &Mutex<Vec<T>>) -> Option<T> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn give_back<T>(idle: &Mutex<Vec<T>>, item: T) {
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(item);
}
