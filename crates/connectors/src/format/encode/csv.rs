//! Rows as separated values, as Flink's `csv` format reads them. Called by the filesystem sink. A text that
//! reads as NULL, or holds a delimiter, a quote or a line end, is quoted.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::ConnectorError;
use crate::format::{CsvOptions, TimestampFormat};

use super::TextEncoder;
use super::text::{
    Fraction, write_base64, write_date, write_decimal, write_float, write_float32, write_time_of_day, write_timestamp,
    write_unsigned, write_whole,
};
use super::view::{ColumnView, Value};

/// Writes separated values.
pub(crate) struct CsvEncoder {
    options: CsvOptions,
    schema: SchemaRef,
    /// The field at hand, before quoting; kept for its memory.
    field: Vec<u8>,
}

impl CsvEncoder {
    /// An encoder with the user's settings, for rows of a schema without rows, arrays and maps.
    pub(crate) fn new(options: CsvOptions, schema: SchemaRef) -> CsvEncoder {
        CsvEncoder { options, schema, field: Vec::new() }
    }

    fn write_field(&mut self, name: &str, value: &Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        if let Value::Null = value {
            out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or_default().as_bytes());
            return Ok(());
        }
        let mut field = std::mem::take(&mut self.field);
        field.clear();
        write_plain_value(value, &mut field);
        let written = write_text(&self.options, &field, out);
        self.field = field;
        written.map_err(|what| {
            ConnectorError::data(format!(
                "column '{name}' holds a text with {what}, which this table's csv settings cannot express; set 'csv.quote-character' or 'csv.escape-character'"
            ))
        })
    }
}

impl TextEncoder for CsvEncoder {
    fn begin_file(&self, out: &mut Vec<u8>) {
        if self.options.header {
            write_header(&self.options, &self.schema, out);
        }
    }

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        debug_assert!(changes.is_none(), "the planner lets no changes through to csv");
        let schema = rows.schema_ref();
        let views: Vec<_> = rows.columns().iter().map(|c| ColumnView::new(c.as_ref())).collect::<Result<_, _>>()?;
        for row in 0..rows.num_rows() {
            let start = out.len();
            for (index, view) in views.iter().enumerate() {
                if index > 0 {
                    out.push(self.options.delimiter);
                }
                self.write_field(schema.field(index).name(), &view.value(row), out)?;
            }
            // An empty line is no record to a reader.
            if out.len() == start
                && let Some(quote) = self.options.quote
            {
                out.extend_from_slice(&[quote, quote]);
            }
            out.push(b'\n');
            each(row, out.len());
        }
        Ok(())
    }
}

/// The text of a value that is neither null nor nested; the same in CSV, partition names and printed tables.
pub(crate) fn write_plain_value(value: &Value<'_, '_>, out: &mut Vec<u8>) {
    match value {
        Value::Boolean(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Whole(v) => write_whole(*v, out),
        Value::Unsigned(v) => write_unsigned(*v, out),
        Value::Float32(v) => write_float32(*v, out),
        Value::Float64(v) => write_float(*v, out),
        Value::Decimal(unscaled, scale) => write_decimal(*unscaled, *scale, true, out),
        Value::Text(v) => out.extend_from_slice(v.as_bytes()),
        Value::Bytes(v) => write_base64(v, out),
        Value::Date(days) => write_date((*days).into(), out),
        Value::Time(ms) => {
            let ms = ms.rem_euclid(86_400_000) as u32;
            write_time_of_day(ms / 1000, ms % 1000 * 1_000_000, Fraction::Shortest, out);
        }
        Value::Timestamp { seconds, nanos, zoned } => {
            write_timestamp(*seconds, *nanos, *zoned, TimestampFormat::Sql, Fraction::Shortest, out);
        }
        Value::Null | Value::Row(..) | Value::List(..) | Value::Map(..) => {}
    }
}

fn write_header(options: &CsvOptions, schema: &Schema, out: &mut Vec<u8>) {
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(options.delimiter);
        }
        if write_text(options, field.name().as_bytes(), out).is_err() {
            // Without quotes the header cannot say this name; readers go by position.
            out.extend(field.name().bytes().map(|b| if b.is_ascii_alphanumeric() { b } else { b'_' }));
        }
    }
    out.push(b'\n');
}

/// A field, quoted or escaped where it must be. `Err` names what cannot be expressed.
fn write_text(options: &CsvOptions, field: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let special = |b: u8| {
        b == options.delimiter || b == b'\n' || b == b'\r' || Some(b) == options.quote || Some(b) == options.escape
    };
    let reads_as_null = field == options.null_literal.as_deref().unwrap_or_default().as_bytes();
    let comment = options.allow_comments && field.first() == Some(&b'#');
    let spaces =
        field.first().is_some_and(u8::is_ascii_whitespace) || field.last().is_some_and(u8::is_ascii_whitespace);
    if !reads_as_null && !comment && !spaces && !field.iter().any(|b| special(*b)) {
        out.extend_from_slice(field);
        return Ok(());
    }
    match (options.quote, options.escape) {
        (Some(quote), escape) => {
            out.push(quote);
            for &byte in field {
                if byte == quote || Some(byte) == escape {
                    out.push(escape.unwrap_or(quote));
                }
                out.push(byte);
            }
            out.push(quote);
            Ok(())
        }
        (None, Some(escape)) => {
            for &byte in field {
                if special(byte) {
                    out.push(escape);
                }
                out.push(byte);
            }
            Ok(())
        }
        (None, None) if field.iter().any(|b| special(*b)) => Err("a delimiter or a line end"),
        // Only the look of a NULL, of a comment, or a space at an end: all that can be done without quotes.
        (None, None) => {
            out.extend_from_slice(field);
            Ok(())
        }
    }
}
