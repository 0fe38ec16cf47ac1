//! CSV: records of separated fields. [`CsvDialect`] knows where records and fields end, also where quoted fields
//! hold line ends; [`CsvDecoder`] turns records into rows. Called by the block decoder, and by the filesystem
//! source to cut a file between records.
//!
//! A quote opens a field only as its first byte; inside, two quotes stand for one. An unquoted empty field is
//! NULL, except in a STRING column, where it is the empty string; the unquoted null literal is NULL everywhere.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use super::block::{RecordDecoder, RecordEnd, without_return};
use super::column::{ScalarColumn, type_name};
use super::fault::{Fault, Faulty};
use super::options::{CsvOptions, TimestampFormat};

/// Where records and fields end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CsvDialect {
    delimiter: u8,
    quote: Option<u8>,
    escape: Option<u8>,
    comments: bool,
}

/// One field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RawField<'a> {
    /// Its text, without the quotes round it.
    text: &'a [u8],
    quoted: bool,
    /// Whether the text holds doubled quotes or escapes.
    escaped: bool,
    /// Where the delimiter after it stands, or the end of the record.
    end: usize,
}

impl CsvDialect {
    /// The dialect that a table's options describe.
    pub(crate) fn new(options: &CsvOptions) -> CsvDialect {
        CsvDialect {
            delimiter: options.delimiter,
            quote: options.quote,
            escape: options.escape,
            comments: options.allow_comments,
        }
    }

    /// The end of the last record that ends within `bytes`, which begin with a record; 0 where none does.
    pub(crate) fn last_record_end(&self, bytes: &[u8]) -> usize {
        let special = |byte: Option<u8>| byte.is_some_and(|byte| memchr::memchr(byte, bytes).is_some());
        if !special(self.quote) && !special(self.escape) {
            return memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        }
        let mut end = 0;
        while let Some(next) = self.next_record(&bytes[end..]) {
            end += next;
        }
        end
    }

    /// The length of the record that `bytes` begin with, line end included; none where it does not end.
    pub(crate) fn next_record(&self, bytes: &[u8]) -> Option<usize> {
        if self.is_comment(bytes) {
            return memchr::memchr(b'\n', bytes).map(|at| at + 1);
        }
        let (quote, escape) = (self.quote.unwrap_or(b'\n'), self.escape.unwrap_or(b'\n'));
        let mut at = 0;
        // Bytes before this one are escaped or inside of quotes, and no delimiters.
        let mut settled = 0;
        loop {
            let hit = at + memchr::memchr3(b'\n', quote, escape, bytes.get(at..)?)?;
            at = hit + 1;
            if bytes[hit] == b'\n' {
                return Some(at);
            }
            if Some(bytes[hit]) == self.escape {
                at += 1;
                settled = at;
            } else if hit == 0 || (hit > settled && bytes[hit - 1] == self.delimiter) {
                at = self.closing_quote(bytes, at)? + 1;
                settled = at;
            }
        }
    }

    fn is_comment(&self, record: &[u8]) -> bool {
        self.comments && record.first() == Some(&b'#')
    }

    /// The quote that closes a field whose text begins at `at`.
    fn closing_quote(&self, bytes: &[u8], mut at: usize) -> Option<usize> {
        let quote = self.quote?;
        let escape = self.escape.unwrap_or(quote);
        loop {
            let hit = at + memchr::memchr2(quote, escape, bytes.get(at..)?)?;
            if bytes[hit] == quote && bytes.get(hit + 1) != Some(&quote) {
                return Some(hit);
            }
            at = hit + 2;
        }
    }

    /// The field that begins at `at` of a record.
    #[inline]
    fn field<'a>(&self, record: &'a [u8], at: usize) -> Faulty<RawField<'a>> {
        if self.quote.is_some() && record.get(at).copied() == self.quote {
            return self.quoted_field(record, at);
        }
        if self.escape.is_some() {
            return Ok(self.escaped_field(record, at));
        }
        let end = memchr::memchr(self.delimiter, &record[at..]).map_or(record.len(), |length| at + length);
        Ok(RawField { text: &record[at..end], quoted: false, escaped: false, end })
    }

    fn quoted_field<'a>(&self, record: &'a [u8], at: usize) -> Faulty<RawField<'a>> {
        let Some(close) = self.closing_quote(record, at + 1) else {
            return Err(Fault::new(at, "a quoted field that begins here has no closing quote"));
        };
        let end = close + 1;
        if record.get(end).is_some_and(|&byte| byte != self.delimiter) {
            return Err(Fault::new(end, "there is text between the closing quote of a field and the delimiter"));
        }
        let text = &record[at + 1..close];
        let quote = self.quote.unwrap_or_default();
        let escaped = memchr::memchr2(quote, self.escape.unwrap_or(quote), text).is_some();
        Ok(RawField { text, quoted: true, escaped, end })
    }

    fn escaped_field<'a>(&self, record: &'a [u8], start: usize) -> RawField<'a> {
        let escape = self.escape.unwrap_or(self.delimiter);
        let mut at = start;
        let mut escaped = false;
        let end = loop {
            let Some(hit) = record.get(at..).and_then(|rest| memchr::memchr2(self.delimiter, escape, rest)) else {
                break record.len();
            };
            if record[at + hit] == self.delimiter {
                break at + hit;
            }
            escaped = true;
            at += hit + 2;
        };
        RawField { text: &record[start..end], quoted: false, escaped, end }
    }

    /// The text of a field without its doubled quotes and escapes.
    fn unescape(&self, field: &RawField<'_>, out: &mut Vec<u8>) {
        out.clear();
        let mut bytes = field.text.iter();
        while let Some(&byte) = bytes.next() {
            let skips = Some(byte) == self.escape || (field.quoted && Some(byte) == self.quote);
            out.push(if skips { bytes.next().copied().unwrap_or(byte) } else { byte });
        }
    }

    /// The names in a header.
    fn names(&self, header: &[u8]) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let mut at = 0;
        loop {
            let field = self.field(header, at).map_err(|fault| fault.describe())?;
            let mut name = Vec::new();
            self.unescape(&field, &mut name);
            names.push(String::from_utf8(name).map_err(|_| "it is not valid UTF-8".to_owned())?.trim().to_owned());
            if field.end >= header.len() {
                return Ok(names);
            }
            at = field.end + 1;
        }
    }
}

/// Decodes records into some columns of a table.
pub(super) struct CsvDecoder {
    schema: SchemaRef,
    dialect: CsvDialect,
    null_literal: Option<Vec<u8>>,
    /// For each field of a record, the column that it goes to.
    targets: Vec<Option<usize>>,
    columns: Vec<ScalarColumn>,
    unescaped: Vec<u8>,
}

impl CsvDecoder {
    /// A decoder of `columns` of the table's schema. Fields are found by the names in the header, or else
    /// are the table's columns in their order.
    pub(super) fn new(
        table: &SchemaRef,
        columns: &[usize],
        options: &CsvOptions,
        header: Option<&[u8]>,
    ) -> Result<CsvDecoder, String> {
        let dialect = CsvDialect::new(options);
        let fields: Vec<_> = columns.iter().map(|&column| Arc::clone(&table.fields()[column])).collect();
        let scalars = fields.iter().map(|field| {
            ScalarColumn::new(field.data_type(), field.is_nullable(), TimestampFormat::Sql).ok_or_else(|| {
                format!("column '{}': csv cannot hold the type {}", field.name(), type_name(field.data_type()))
            })
        });
        let scalars = scalars.collect::<Result<Vec<_>, String>>()?;
        let names = match header {
            Some(header) => dialect.names(&header[..without_return(header)])?,
            None => table.fields().iter().map(|field| field.name().clone()).collect(),
        };
        let mut targets = vec![None; names.len()];
        for (target, field) in fields.iter().enumerate() {
            let place = names.iter().position(|name| name == field.name());
            let place = place
                .ok_or_else(|| format!("the header has no field '{}'; it has {}", field.name(), names.join(", ")))?;
            targets[place] = Some(target);
        }
        let null_literal = options.null_literal.as_ref().map(|text| text.as_bytes().to_vec());
        let schema = Arc::new(Schema::new(fields));
        Ok(CsvDecoder { schema, dialect, null_literal, targets, columns: scalars, unescaped: Vec::new() })
    }

    #[inline]
    fn append(&mut self, target: usize, field: &RawField<'_>) -> Faulty<()> {
        let column = &mut self.columns[target];
        let is_null_literal = !field.quoted && self.null_literal.as_deref() == Some(field.text);
        if is_null_literal || (field.text.is_empty() && !column.is_text()) {
            column.append_null()
        } else if field.escaped {
            self.dialect.unescape(field, &mut self.unescaped);
            column.append_text(&self.unescaped)
        } else {
            column.append_text(field.text)
        }
    }
}

impl RecordDecoder for CsvDecoder {
    fn record_end(&self, rest: &[u8]) -> RecordEnd {
        let next = self.dialect.next_record(rest).unwrap_or(rest.len());
        let record = &rest[..next];
        let line = record.strip_suffix(b"\n").unwrap_or(record);
        let length = without_return(line);
        // Only a quoted or escaped line end makes a record longer than a line.
        let lines = 1 + memchr::memchr_iter(b'\n', line).count() as u64;
        RecordEnd { length, next, lines }
    }

    fn decode(&mut self, record: &[u8]) -> Faulty<usize> {
        if record.is_empty() || self.dialect.is_comment(record) {
            return Ok(0);
        }
        let mut at = 0;
        let mut index = 0;
        loop {
            let field = self.dialect.field(record, at)?;
            match self.targets.get(index).copied() {
                Some(Some(target)) => {
                    let appended = self.append(target, &field);
                    appended.map_err(|fault| fault.located(at).inside(self.schema.field(target).name()))?;
                }
                Some(None) => {}
                None => return Err(Fault::new(at, format!("the record has more than {} fields", self.targets.len()))),
            }
            index += 1;
            if field.end >= record.len() {
                break;
            }
            at = field.end + 1;
        }
        if index < self.targets.len() {
            return Err(Fault::new(
                record.len(),
                format!("the record has {index} fields, {} are expected", self.targets.len()),
            ));
        }
        Ok(1)
    }

    fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
    }

    fn finish(&mut self, rows: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter_mut().map(ScalarColumn::finish).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)
    }
}

#[cfg(test)]
mod tests;
