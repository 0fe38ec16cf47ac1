//! From a block of text, made of whole records, to batches of rows: finds the records, has each decoded, drops
//! or reports the broken ones, and notes after each batch how far it reaches. Called by the filesystem source,
//! several blocks at a time on several threads; a pure function of the block.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::csv::CsvDecoder;
use super::fault::{Fault, Faulty, excerpt};
use super::json::{DebeziumDecoder, JsonDecoder, UpsertDecoder};
use super::options::{CsvOptions, FormatOptions, JsonOptions};

/// Longest record, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;
/// Characters of a broken record that its error shows.
const EXCERPT_MAX: usize = 120;

/// What a decoder of one format does with records.
pub(super) trait RecordDecoder {
    /// Where the record that `rest` begins with ends; `rest` is never empty.
    fn record_end(&self, rest: &[u8]) -> RecordEnd;

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
    /// Broken records that were dropped, as the table's options ask.
    pub(crate) dropped: u64,
    /// Lines of the whole block.
    pub(crate) lines: u64,
    /// The broken record at which decoding stopped.
    pub(crate) fault: Option<RecordFault>,
}

/// Some rows of a block.
#[derive(Debug)]
pub(crate) struct BlockBatch {
    /// The rows.
    pub(crate) rows: RecordBatch,
    /// The kind of each row; none: all are inserts.
    pub(crate) changes: Option<Int8Array>,
    /// Where in the block the record after them begins.
    pub(crate) end: usize,
    /// How many lines of the block lie before that.
    pub(crate) lines: u64,
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
    /// The option that drops such records.
    pub(crate) option: &'static str,
}

/// A decoder of one of the text formats.
pub(crate) struct TextDecoder {
    format: Format,
    ignore_errors: bool,
    /// The option that makes it ignore errors.
    option: &'static str,
}

enum Format {
    Json(Box<JsonDecoder>),
    Csv(Box<CsvDecoder>),
    Debezium(Box<DebeziumDecoder>),
    Upsert(Box<UpsertDecoder>),
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
        let (format, ignore_errors, option) = match format {
            FormatOptions::Json(options) => return TextDecoder::json(projected()?, options),
            FormatOptions::Csv(options) => return TextDecoder::csv(schema, columns, options, header),
            FormatOptions::Parquet => return Err("Parquet is not text".to_owned()),
            FormatOptions::DebeziumJson(options) => {
                let decoder = DebeziumDecoder::new(projected()?, options)?;
                (
                    Format::Debezium(Box::new(decoder)),
                    options.json.ignore_parse_errors,
                    "debezium-json.ignore-parse-errors",
                )
            }
            FormatOptions::UpsertJson(options) => {
                let decoder = UpsertDecoder::new(projected()?, options)?;
                (Format::Upsert(Box::new(decoder)), options.json.ignore_parse_errors, "upsert-json.ignore-parse-errors")
            }
        };
        Ok(TextDecoder { format, ignore_errors, option })
    }

    /// For JSON lines: decodes the columns of `schema`.
    pub(crate) fn json(schema: SchemaRef, options: &JsonOptions) -> Result<TextDecoder, String> {
        let decoder = JsonDecoder::new(schema, options)?;
        let format = Format::Json(Box::new(decoder));
        Ok(TextDecoder { format, ignore_errors: options.ignore_parse_errors, option: "json.ignore-parse-errors" })
    }

    /// For CSV: decodes `columns` of the table's `schema`, by the names of `header` or else by position.
    pub(crate) fn csv(
        schema: &SchemaRef,
        columns: &[usize],
        options: &CsvOptions,
        header: Option<&[u8]>,
    ) -> Result<TextDecoder, String> {
        let decoder = CsvDecoder::new(schema, columns, options, header)?;
        let format = Format::Csv(Box::new(decoder));
        Ok(TextDecoder { format, ignore_errors: options.ignore_parse_errors, option: "csv.ignore-parse-errors" })
    }

    /// Decodes the records of a block from byte `start` on into batches of about `batch_rows` rows.
    pub(crate) fn decode(&mut self, block: &[u8], start: usize, batch_rows: usize) -> BlockRows {
        let limits = Limits { batch_rows: batch_rows.max(1), ignore_errors: self.ignore_errors };
        match &mut self.format {
            Format::Json(decoder) => decode_block(decoder.as_mut(), block, start, limits, self.option),
            Format::Csv(decoder) => decode_block(decoder.as_mut(), block, start, limits, self.option),
            Format::Debezium(decoder) => decode_block(decoder.as_mut(), block, start, limits, self.option),
            Format::Upsert(decoder) => decode_block(decoder.as_mut(), block, start, limits, self.option),
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

/// The length of a line without the carriage return before its line feed.
#[inline]
pub(super) fn without_return(line: &[u8]) -> usize {
    line.len() - usize::from(line.last() == Some(&b'\r'))
}

#[derive(Clone, Copy)]
struct Limits {
    batch_rows: usize,
    ignore_errors: bool,
}

/// How far the decoding of a block has come.
struct Progress {
    at: usize,
    lines: u64,
    rows: usize,
    batch_start: usize,
    done: BlockRows,
}

fn decode_block<D: RecordDecoder>(
    decoder: &mut D,
    block: &[u8],
    start: usize,
    limits: Limits,
    option: &'static str,
) -> BlockRows {
    // One check for the whole block is far cheaper than one a value; only a broken block is checked by record.
    let valid = std::str::from_utf8(block).is_ok();
    let mut progress = Progress { at: start, lines: 0, rows: 0, batch_start: start, done: BlockRows::default() };
    let mut row_limit = limits.batch_rows;
    while progress.at < block.len() {
        let rest = &block[progress.at..];
        let end = decoder.record_end(rest);
        let record = &rest[..end.length];
        let checked = if valid { Ok(()) } else { check_utf8(record) };
        match checked.and_then(|()| decoder.decode(record)) {
            Ok(appended) => progress.rows += appended,
            Err(_) if limits.ignore_errors => {
                decoder.truncate(progress.rows);
                progress.done.dropped += 1;
            }
            Err(fault) => {
                let fault = report(record, &progress, &fault, option);
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
    /// Makes a batch of the rows so far.
    fn flush<D: RecordDecoder>(&mut self, decoder: &mut D) {
        if self.rows == 0 {
            return;
        }
        let changes = decoder.finish_changes();
        match decoder.finish(self.rows) {
            Ok(rows) => self.done.batches.push(BlockBatch { rows, changes, end: self.at, lines: self.lines }),
            Err(error) => {
                let fault = Fault::new(0, format!("the rows that end here do not make a batch: {error}"));
                self.done.fault = Some(report(&[], self, &fault, "format"));
            }
        }
        self.rows = 0;
        self.batch_start = self.at;
    }
}

fn check_utf8(record: &[u8]) -> Faulty<()> {
    match std::str::from_utf8(record) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(error.valid_up_to(), "the text is not valid UTF-8")),
    }
}

#[cold]
fn report(record: &[u8], progress: &Progress, fault: &Fault, option: &'static str) -> RecordFault {
    RecordFault {
        at: progress.at + fault.at,
        lines: progress.lines,
        reason: fault.describe(),
        excerpt: excerpt(record, fault.at, EXCERPT_MAX),
        option,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;

    fn decoder(ignore_parse_errors: bool) -> TextDecoder {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        TextDecoder::json(schema, &JsonOptions { ignore_parse_errors, ..JsonOptions::default() }).unwrap()
    }

    fn values(rows: &BlockRows) -> Vec<i32> {
        rows.batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int32Type>().values().to_vec()).collect()
    }

    #[test]
    fn batches_end_where_they_say() {
        let lines: Vec<String> = (0..20).map(|i| format!("{{\"a\":{i}}}\r\n")).collect();
        let block = lines.concat();
        let rows = decoder(false).decode(block.as_bytes(), 0, 6);
        assert_eq!(values(&rows), (0..20).collect::<Vec<_>>());
        let sizes: Vec<usize> = rows.batches.iter().map(|b| b.rows.num_rows()).collect();
        assert_eq!(sizes, [6, 6, 8]);
        for batch in &rows.batches {
            let before: usize = lines[..batch.lines as usize].iter().map(String::len).sum();
            assert_eq!(batch.end, before);
        }
        assert_eq!((rows.lines, rows.dropped, &rows.fault), (20, 0, &None));
    }

    #[test]
    fn a_broken_record_stops_the_block_after_the_rows_before_it() {
        let block = b"{\"a\":1}\n\n{\"a\":2}\n{\"a\":\"x\"}\n{\"a\":3}\n";
        let rows = decoder(false).decode(block, 0, 100);
        assert_eq!(values(&rows), [1, 2]);
        assert_eq!((rows.batches[0].end, rows.batches[0].lines), (17, 3));
        let fault = rows.fault.unwrap();
        assert_eq!((fault.at, fault.lines), (22, 3));
        assert_eq!(fault.reason, "column 'a': expected INT, found the text 'x'");
        assert_eq!(fault.excerpt, "{\"a\":\"x\"}");
    }

    #[test]
    fn dropped_records_are_counted_and_leave_nothing() {
        let block = b"{\"a\":1}\n{\"a\":2,\nnonsense\n{\"a\":4} x\n[]\n\xff\n{\"a\":5}";
        let rows = decoder(true).decode(block, 0, 100);
        assert_eq!(values(&rows), [1, 5]);
        assert_eq!((rows.dropped, rows.lines, rows.fault.is_none()), (5, 7, true));
    }

    #[test]
    fn invalid_utf8_is_found_in_its_record() {
        let block = b"{\"a\":1}\n{\"b\":\"\xc3\x28\"}\n";
        let rows = decoder(false).decode(block, 0, 100);
        let fault = rows.fault.clone().unwrap();
        assert_eq!((fault.at, fault.lines, fault.reason.as_str()), (14, 1, "the text is not valid UTF-8"));
        assert_eq!(values(&rows), [1]);
    }
}
