//! From a block of text, made of whole records, to batches of rows: finds the records, has each decoded, drops
//! or reports the broken ones, and notes after each batch how far it reaches. Called by the filesystem source,
//! several blocks at a time on several threads; a pure function of the block.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::avro::AvroDecoder;
use super::csv::CsvDecoder;
use super::fault::{Fault, Faulty, excerpt};
use super::json::{DebeziumDecoder, JsonDecoder, UpsertDecoder};
use super::options::{CsvOptions, FormatOptions, JsonOptions};
use super::protobuf::ProtobufDecoder;
use super::raw::RawDecoder;
use crate::bad_records::OnError;

/// Longest record, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;
/// Characters of a broken record that its error shows.
pub(crate) const EXCERPT_MAX: usize = 120;

/// What a decoder of one format does with records.
pub(super) trait RecordDecoder {
    /// Where the record that `rest` begins with ends; `rest` is never empty.
    fn record_end(&self, rest: &[u8]) -> RecordEnd;

    /// Whether records need not be valid UTF-8.
    fn takes_any_bytes(&self) -> bool {
        false
    }

    /// Whether records are all of their message, line ends and emptiness included.
    fn is_binary(&self) -> bool {
        false
    }

    /// Decodes one record, without its line end, and appends its rows; gives their number, which is 0 where it is
    /// blank. After an error the columns may hold parts of a row.
    fn decode(&mut self, record: &[u8]) -> Faulty<usize>;

    /// Drops all but the first `rows` rows, and parts of rows.
    fn truncate(&mut self, rows: usize);

    /// The `rows` rows so far; the decoder begins anew.
    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError>;

    /// The kinds of the rows that [`RecordDecoder::finish`] gives, to be called before it; none: all are inserts.
    fn finish_changes(&mut self) -> Option<Int8Array> {
        None
    }
}

/// The extent of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordEnd {
    /// Bytes of the record without its line end.
    pub(super) length: usize,
    /// Bytes up to the next record.
    pub(super) next: usize,
    /// Lines that the record spans.
    pub(super) lines: u64,
}

/// The rows of a block.
#[derive(Debug, Default)]
pub(crate) struct BlockRows {
    /// The rows, in order.
    pub(crate) batches: Vec<BlockBatch>,
    /// Lines of the whole block.
    pub(crate) lines: u64,
    /// The broken record at which decoding stopped.
    pub(crate) fault: Option<RecordFault>,
}

/// Some rows of a block.
#[derive(Debug)]
pub(crate) struct BlockBatch {
    /// The rows; may be none where records were rejected.
    pub(crate) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(crate) changes: Option<Int8Array>,
    /// Broken records among them that were not to stop the decoder.
    pub(crate) rejects: Rejects,
    /// The record of each row, if that is asked for.
    pub(crate) spans: Vec<Span>,
    /// Where in the block the record after them begins.
    pub(crate) end: usize,
    /// How many lines of the block lie before that.
    pub(crate) lines: u64,
}

/// Where a record lies in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where it begins.
    pub(crate) start: usize,
    /// Its bytes without the line end.
    pub(crate) length: usize,
    /// How many lines of the block lie before it.
    pub(crate) lines: u64,
}

/// Broken records that did not stop a decoder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejects {
    /// How many.
    pub(crate) count: u64,
    /// All of them; the last where they are only counted.
    pub(crate) records: Vec<Reject>,
}

/// A broken record that did not stop a decoder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    /// Where it lies.
    pub(crate) span: Span,
    /// Column and reason.
    pub(crate) reason: String,
    /// Its bytes; empty where it is only counted.
    pub(crate) raw: Vec<u8>,
}

impl Rejects {
    #[cold]
    fn add(&mut self, record: &[u8], span: Span, fault: &Fault, on_error: OnError) {
        self.count += 1;
        let raw = if on_error == OnError::Keep { record.to_vec() } else { Vec::new() };
        if on_error == OnError::Count {
            self.records.clear();
        }
        self.records.push(Reject { span, reason: fault.describe(), raw });
    }
}

/// A broken record, in places of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordFault {
    /// The byte that is wrong.
    pub(crate) at: usize,
    /// How many lines of the block lie before the record.
    pub(crate) lines: u64,
    /// Column and reason.
    pub(crate) reason: String,
    /// A part of the record; printable.
    pub(crate) excerpt: String,
}

/// A decoder of one of the formats whose records stand for themselves: lines of text, and messages.
pub(crate) struct TextDecoder {
    pub(super) format: Format,
    pub(super) on_error: OnError,
    /// Whether batches tell the record of each row.
    with_spans: bool,
}

pub(super) enum Format {
    Avro(Box<AvroDecoder>),
    Protobuf(Box<ProtobufDecoder>),
    Json(Box<JsonDecoder>),
    Csv(Box<CsvDecoder>),
    Debezium(Box<DebeziumDecoder>),
    Upsert(Box<UpsertDecoder>),
    Raw(Box<RawDecoder>),
}

impl TextDecoder {
    /// For any text format: decodes `columns` of the table's `schema`; `header` is the first record of the file,
    /// where it names the fields. An error says what the format cannot hold.
    pub(crate) fn new(
        format: &FormatOptions,
        schema: &SchemaRef,
        columns: &[usize],
        header: Option<&[u8]>,
    ) -> Result<TextDecoder, String> {
        let projected = || schema.project(columns).map(Arc::new).map_err(|error| error.to_string());
        match format {
            FormatOptions::Avro(options) => {
                let decoder = AvroDecoder::new(schema, columns, options)?;
                Ok(TextDecoder::of(Format::Avro(Box::new(decoder)), options.ignore_parse_errors))
            }
            FormatOptions::Protobuf(options) => {
                let decoder = ProtobufDecoder::new(schema, columns, options)?;
                Ok(TextDecoder::of(Format::Protobuf(Box::new(decoder)), options.ignore_parse_errors))
            }
            FormatOptions::Json(options) => TextDecoder::json(projected()?, options),
            FormatOptions::Csv(options) => TextDecoder::csv(schema, columns, options, header),
            FormatOptions::Parquet => Err("Parquet is not text".to_owned()),
            FormatOptions::Raw => Ok(TextDecoder::of(Format::Raw(Box::new(RawDecoder::new(projected()?))), false)),
            FormatOptions::DebeziumJson(options) => {
                let decoder = DebeziumDecoder::new(projected()?, options)?;
                Ok(TextDecoder::of(Format::Debezium(Box::new(decoder)), options.json.ignore_parse_errors))
            }
            FormatOptions::UpsertJson(options) => {
                let decoder = UpsertDecoder::new(projected()?, options)?;
                Ok(TextDecoder::of(Format::Upsert(Box::new(decoder)), options.json.ignore_parse_errors))
            }
        }
    }

    /// For JSON lines: decodes the columns of `schema`.
    pub(crate) fn json(schema: SchemaRef, options: &JsonOptions) -> Result<TextDecoder, String> {
        let decoder = JsonDecoder::new(schema, options)?;
        Ok(TextDecoder::of(Format::Json(Box::new(decoder)), options.ignore_parse_errors))
    }

    /// For CSV: decodes `columns` of the table's `schema`, by the names of `header` or else by position.
    pub(crate) fn csv(
        schema: &SchemaRef,
        columns: &[usize],
        options: &CsvOptions,
        header: Option<&[u8]>,
    ) -> Result<TextDecoder, String> {
        let decoder = CsvDecoder::new(schema, columns, options, header)?;
        Ok(TextDecoder::of(Format::Csv(Box::new(decoder)), options.ignore_parse_errors))
    }

    fn of(format: Format, ignore_errors: bool) -> TextDecoder {
        let on_error = if ignore_errors { OnError::Count } else { OnError::Stop };
        TextDecoder { format, on_error, with_spans: false }
    }

    /// The same decoder with another mind about broken records, and about telling where rows come from.
    pub(crate) fn with(self, on_error: OnError, with_spans: bool) -> TextDecoder {
        TextDecoder { on_error, with_spans, ..self }
    }

    /// Decodes the records of a block from byte `start` on into batches of about `batch_rows` rows.
    pub(crate) fn decode(&mut self, block: &[u8], start: usize, batch_rows: usize) -> BlockRows {
        let limits = Limits { batch_rows: batch_rows.max(1), on_error: self.on_error, with_spans: self.with_spans };
        match &mut self.format {
            Format::Avro(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Protobuf(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Json(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Csv(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Debezium(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Upsert(decoder) => decode_block(decoder.as_mut(), block, start, limits),
            Format::Raw(decoder) => decode_block(decoder.as_mut(), block, start, limits),
        }
    }
}

/// The record of one line: what formats without quoted line ends take.
#[inline]
pub(super) fn line_end(rest: &[u8]) -> RecordEnd {
    match memchr::memchr(b'\n', rest) {
        Some(end) => RecordEnd { length: without_return(&rest[..end]), next: end + 1, lines: 1 },
        None => RecordEnd { length: without_return(rest), next: rest.len(), lines: 1 },
    }
}

/// The record of a message, which is all there is.
pub(super) fn whole(rest: &[u8]) -> RecordEnd {
    RecordEnd { length: rest.len(), next: rest.len(), lines: 0 }
}

/// The length of a line without the carriage return before its line feed.
#[inline]
pub(super) fn without_return(line: &[u8]) -> usize {
    line.len() - usize::from(line.last() == Some(&b'\r'))
}

#[derive(Clone, Copy)]
struct Limits {
    batch_rows: usize,
    on_error: OnError,
    with_spans: bool,
}

/// How far the decoding of a block has come.
struct Progress {
    at: usize,
    lines: u64,
    rows: usize,
    batch_start: usize,
    rejects: Rejects,
    spans: Vec<Span>,
    done: BlockRows,
}

fn decode_block<D: RecordDecoder>(decoder: &mut D, block: &[u8], start: usize, limits: Limits) -> BlockRows {
    // One check for the whole block is far cheaper than one a value; only a broken block is checked by record.
    let valid = decoder.takes_any_bytes() || std::str::from_utf8(block).is_ok();
    let mut progress = Progress::from(start);
    let mut row_limit = limits.batch_rows;
    while progress.at < block.len() {
        let rest = &block[progress.at..];
        let end = decoder.record_end(rest);
        let record = &rest[..end.length];
        let span = Span { start: progress.at, length: end.length, lines: progress.lines };
        let checked = if valid { Ok(()) } else { check_utf8(record) };
        match checked.and_then(|()| decoder.decode(record)) {
            Ok(appended) => {
                progress.rows += appended;
                if limits.with_spans {
                    progress.spans.extend(std::iter::repeat_n(span, appended));
                }
            }
            Err(fault) if limits.on_error != OnError::Stop && !fault.stops => {
                decoder.truncate(progress.rows);
                progress.rejects.add(record, span, &fault, limits.on_error);
            }
            Err(fault) => {
                let fault = report(record, &progress, &fault);
                decoder.truncate(progress.rows);
                progress.flush(decoder);
                // A batch that cannot be finished comes first, since it stands before the broken record.
                progress.done.fault.get_or_insert(fault);
                return progress.done;
            }
        }
        progress.at += end.next;
        progress.lines += end.lines;
        if progress.rows >= row_limit {
            // A short rest joins this batch instead of making a tiny one.
            let short = (block.len() - progress.at) * 2 <= progress.at - progress.batch_start;
            row_limit = if short { limits.batch_rows + limits.batch_rows / 2 } else { limits.batch_rows };
            if progress.rows >= row_limit {
                row_limit = limits.batch_rows;
                progress.flush(decoder);
            }
        }
    }
    progress.flush(decoder);
    progress.done.lines = progress.lines;
    progress.done
}

impl Progress {
    fn from(start: usize) -> Progress {
        Progress {
            at: start,
            lines: 0,
            rows: 0,
            batch_start: start,
            rejects: Rejects::default(),
            spans: Vec::new(),
            done: BlockRows::default(),
        }
    }

    /// Makes a batch of the rows so far, and of what was rejected between them.
    fn flush<D: RecordDecoder>(&mut self, decoder: &mut D) {
        let (rejects, spans) = (std::mem::take(&mut self.rejects), std::mem::take(&mut self.spans));
        if self.rows == 0 && rejects.count == 0 {
            return;
        }
        let changes = decoder.finish_changes();
        match decoder.finish(self.rows) {
            Ok(rows) => {
                let (end, lines) = (self.at, self.lines);
                self.done.batches.push(BlockBatch { rows, changes, rejects, spans, end, lines });
            }
            Err(error) => {
                let fault = Fault::new(0, format!("the rows that end here do not make a batch: {error}"));
                self.done.fault = Some(report(&[], self, &fault));
            }
        }
        self.rows = 0;
        self.batch_start = self.at;
    }
}

pub(super) fn check_utf8(record: &[u8]) -> Faulty<()> {
    match std::str::from_utf8(record) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(error.valid_up_to(), "the text is not valid UTF-8")),
    }
}

#[cold]
fn report(record: &[u8], progress: &Progress, fault: &Fault) -> RecordFault {
    RecordFault {
        at: progress.at + fault.at,
        lines: progress.lines,
        reason: fault.describe(),
        excerpt: excerpt(record, fault.at, EXCERPT_MAX),
    }
}

#[cfg(test)]
mod tests;
