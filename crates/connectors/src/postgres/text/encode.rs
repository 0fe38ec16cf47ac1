//! Arrow columns to the text format of COPY. PostgreSQL reads the texts by the types of its own columns.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::error::ConnectorError;
use crate::format::encode::{
    ColumnView, Fraction, JsonEncoder, Value, write_date, write_decimal, write_float, write_float32, write_time_of_day,
    write_timestamp, write_unsigned, write_whole,
};
use crate::format::{JsonOptions, TimestampFormat};

/// Writes rows as lines of COPY.
pub(crate) struct CopyEncoder {
    json: JsonEncoder,
    scratch: Vec<u8>,
}

impl CopyEncoder {
    pub(crate) fn new() -> CopyEncoder {
        let json = JsonOptions { timestamps: TimestampFormat::Iso8601, ..JsonOptions::default() };
        CopyEncoder { json: JsonEncoder::new(&json), scratch: Vec::new() }
    }

    /// Appends the rows. `extra`: more fields at the end of each line, which need no escapes.
    pub(crate) fn write(
        &mut self,
        rows: &RecordBatch,
        extra: impl Fn(usize, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        let views =
            rows.columns().iter().map(|column| ColumnView::new(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.num_rows() {
            for (position, view) in views.iter().enumerate() {
                if position > 0 {
                    out.push(b'\t');
                }
                let value = view.value(row);
                if matches!(value, Value::Null) {
                    out.extend_from_slice(b"\\N");
                    continue;
                }
                self.scratch.clear();
                write_value(&value, &self.json, &mut self.scratch)
                    .map_err(|what| refused(&rows.schema(), position, what))?;
                escape(&self.scratch, out);
            }
            extra(row, out);
            out.push(b'\n');
        }
        Ok(())
    }
}

/// The values of a column as an array literal (`{1,2,NULL}`), whose elements PostgreSQL reads by the type of the array.
pub(crate) fn write_array_literal(column: &dyn Array, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
    let view = ColumnView::new(column)?;
    let encoder = CopyEncoder::new();
    write_list(&view, 0..column.len(), &encoder.json, out).map_err(ConnectorError::data)
}

fn refused(schema: &SchemaRef, position: usize, what: String) -> ConnectorError {
    let name = schema.field(position).name();
    ConnectorError::data(format!("a value of column '{name}' cannot be written to PostgreSQL: {what}"))
}

/// What PostgreSQL reads as the value, without escapes.
fn write_value(value: &Value<'_, '_>, json: &JsonEncoder, out: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Null => out.extend_from_slice(b"NULL"),
        Value::Boolean(value) => out.push(if *value { b't' } else { b'f' }),
        Value::Whole(value) => write_whole(*value, out),
        Value::Unsigned(value) => write_unsigned(*value, out),
        Value::Float32(value) => write_float32(*value, out),
        Value::Float64(value) => write_float(*value, out),
        Value::Decimal(unscaled, scale) => write_decimal(*unscaled, *scale, true, out),
        Value::Text(text) => {
            if text.contains('\0') {
                return Err("it holds a NUL character, which PostgreSQL's texts cannot; remove it in the query".into());
            }
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.extend_from_slice(b"\\x");
            for byte in *bytes {
                out.extend(std::char::from_digit(u32::from(byte >> 4), 16).map(|digit| digit as u8));
                out.extend(std::char::from_digit(u32::from(byte & 15), 16).map(|digit| digit as u8));
            }
        }
        Value::Date(days) => {
            check_year(i64::from(*days))?;
            write_date(i64::from(*days), out);
        }
        Value::Time(ms) => {
            let ms = (*ms).unsigned_abs();
            write_time_of_day(ms / 1000, ms % 1000 * 1_000_000, Fraction::Shortest, out);
        }
        Value::Timestamp { seconds, nanos, zoned } => {
            check_year(seconds.div_euclid(86_400))?;
            write_timestamp(*seconds, *nanos, *zoned, TimestampFormat::Sql, Fraction::Shortest, out);
        }
        Value::List(elements, range) => write_list(elements, range.clone(), json, out)?,
        // Columns of these types are json or jsonb.
        Value::Row(..) | Value::Map(..) => json.write_value(value, out),
    }
    Ok(())
}

/// PostgreSQL writes years outside of this range in another way.
fn check_year(days: i64) -> Result<(), String> {
    // 0001-01-01 to 9999-12-31.
    if (-719_162..=2_932_896).contains(&days) { Ok(()) } else { Err("its year is not between 1 and 9999".to_owned()) }
}

fn write_list(
    elements: &ColumnView<'_>,
    range: std::ops::Range<usize>,
    json: &JsonEncoder,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    out.push(b'{');
    let start = range.start;
    for position in range {
        if position > start {
            out.push(b',');
        }
        let value = elements.value(position);
        match value {
            // Quotes would make a text or an array of one of these.
            Value::Null | Value::List(..) => write_value(&value, json, out)?,
            _ => {
                let mut text = Vec::new();
                write_value(&value, json, &mut text)?;
                out.push(b'"');
                for byte in text {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
                out.push(b'"');
            }
        }
    }
    out.push(b'}');
    Ok(())
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        let letter = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            0x08 => b'b',
            0x0b => b'v',
            0x0c => b'f',
            other => {
                out.push(*other);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}
