//! Rows as JSON objects, one a line, as Flink's `json` format writes them. Called by the filesystem and print
//! sinks.

use arrow::array::{Int8Array, RecordBatch};

use crate::error::ConnectorError;
use crate::format::{JsonOptions, TimestampFormat};

use super::TextEncoder;
use super::text::{
    Fraction, write_base64, write_date, write_decimal, write_float, write_float32, write_time_of_day, write_timestamp,
    write_unsigned, write_whole,
};
use super::view::{ColumnView, Value};

/// A column as a member of objects.
pub(crate) struct JsonMember<'a> {
    /// The name in quotes and the colon.
    prefix: Vec<u8>,
    values: ColumnView<'a>,
}

/// Writes JSON lines.
pub(crate) struct JsonEncoder {
    timestamps: TimestampFormat,
    plain_decimals: bool,
    skip_nulls: bool,
}

impl JsonEncoder {
    /// An encoder with the user's settings.
    pub(crate) fn new(options: &JsonOptions) -> JsonEncoder {
        JsonEncoder {
            timestamps: options.timestamps,
            plain_decimals: options.encode_decimal_as_plain_number,
            skip_nulls: options.encode_ignore_null_fields,
        }
    }

    /// The columns of a batch at the given positions, prepared for [`JsonEncoder::write_members`].
    pub(crate) fn members<'a>(
        rows: &'a RecordBatch,
        columns: impl Iterator<Item = usize>,
    ) -> Result<Vec<JsonMember<'a>>, ConnectorError> {
        let member = |column: usize| {
            // `"name":` is the same in each row, so it is written once a batch and then copied.
            let name = rows.schema_ref().field(column).name();
            let mut prefix = Vec::with_capacity(name.len() + 4);
            write_string(name, &mut prefix);
            prefix.push(b':');
            Ok(JsonMember { prefix, values: ColumnView::new(rows.column(column).as_ref())? })
        };
        columns.map(member).collect()
    }

    /// What stands between the braces of the object of a row.
    pub(crate) fn write_members(&self, members: &[JsonMember<'_>], row: usize, out: &mut Vec<u8>) {
        let mut first = true;
        for member in members {
            let value = member.values.value(row);
            if self.skip_nulls && matches!(value, Value::Null) {
                continue;
            }
            separate(&mut first, out);
            out.extend_from_slice(&member.prefix);
            self.write_value(&value, out);
        }
    }

    /// One value, without a line end.
    pub(crate) fn write_value(&self, value: &Value<'_, '_>, out: &mut Vec<u8>) {
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Boolean(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
            Value::Whole(v) => write_whole(*v, out),
            Value::Unsigned(v) => write_unsigned(*v, out),
            Value::Float32(v) if v.is_finite() => write_float32(*v, out),
            Value::Float64(v) if v.is_finite() => write_float(*v, out),
            Value::Decimal(unscaled, scale) => write_decimal(*unscaled, *scale, self.plain_decimals, out),
            Value::Text(v) => write_string(v, out),
            Value::Row(parts, row) => {
                out.push(b'{');
                let mut first = true;
                for (name, column) in *parts {
                    let value = column.value(*row);
                    if self.skip_nulls && matches!(value, Value::Null) {
                        continue;
                    }
                    separate(&mut first, out);
                    write_string(name, out);
                    out.push(b':');
                    self.write_value(&value, out);
                }
                out.push(b'}');
            }
            Value::List(elements, range) => {
                out.push(b'[');
                let mut first = true;
                for i in range.clone() {
                    separate(&mut first, out);
                    self.write_value(&elements.value(i), out);
                }
                out.push(b']');
            }
            Value::Map(keys, values, range) => {
                out.push(b'{');
                let mut first = true;
                for i in range.clone() {
                    separate(&mut first, out);
                    self.write_key(&keys.value(i), out);
                    out.push(b':');
                    self.write_value(&values.value(i), out);
                }
                out.push(b'}');
            }
            quoted => self.write_quoted(quoted, out),
        }
    }

    /// Values whose text needs quotes and no escapes.
    fn write_quoted(&self, value: &Value<'_, '_>, out: &mut Vec<u8>) {
        out.push(b'"');
        match value {
            Value::Date(days) => write_date((*days).into(), out),
            Value::Time(ms) => {
                let ms = ms.rem_euclid(86_400_000) as u32;
                write_time_of_day(ms / 1000, ms % 1000 * 1_000_000, Fraction::Shortest, out);
            }
            Value::Timestamp { seconds, nanos, zoned } => {
                write_timestamp(*seconds, *nanos, *zoned, self.timestamps, Fraction::Shortest, out);
            }
            Value::Bytes(bytes) => write_base64(bytes, out),
            // JSON has no such numbers; Flink writes their names.
            Value::Float32(v) => write_float32(*v, out),
            Value::Float64(v) => write_float(*v, out),
            _ => unreachable!("all other values are written without quotes or by write_string"),
        }
        out.push(b'"');
    }

    /// The key of a map: always a string in JSON.
    fn write_key(&self, key: &Value<'_, '_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_value(key, out);
        if out.get(start) != Some(&b'"') {
            let text = String::from_utf8_lossy(&out[start..]).into_owned();
            out.truncate(start);
            write_string(&text, out);
        }
    }
}

impl TextEncoder for JsonEncoder {
    fn begin_file(&self, _out: &mut Vec<u8>) {}

    fn encode_each(
        &mut self,
        rows: &RecordBatch,
        changes: Option<&Int8Array>,
        out: &mut Vec<u8>,
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ConnectorError> {
        debug_assert!(changes.is_none(), "the planner lets no changes through to json");
        let members = JsonEncoder::members(rows, 0..rows.num_columns())?;
        for row in 0..rows.num_rows() {
            out.push(b'{');
            self.write_members(&members, row, out);
            out.extend_from_slice(b"}\n");
            each(row, out.len());
        }
        Ok(())
    }
}

fn separate(first: &mut bool, out: &mut Vec<u8>) {
    if !*first {
        out.push(b',');
    }
    *first = false;
}

/// A JSON string with its quotes.
fn write_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut start = 0;
    while let Some(length) = plain_prefix(&bytes[start..]) {
        let at = start + length;
        out.extend_from_slice(&bytes[start..at]);
        match bytes[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[DIGITS[usize::from(control >> 4)], DIGITS[usize::from(control & 15)]]);
            }
        }
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// How many bytes come before the first that needs an escape; `None` where none does.
fn plain_prefix(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let needs_escape = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    // Eight bytes at once; the high bit of a byte of the sum says that this byte, or a lower one, may need an
    // escape, which is then looked for byte by byte.
    let zero = |v: u64| v.wrapping_sub(ONES) & !v;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))) & HIGH;
        if found != 0
            && let Some(at) = chunk.iter().position(needs_escape)
        {
            return Some(index * 8 + at);
        }
    }
    rest.iter().position(needs_escape).map(|at| chunks.len() * 8 + at)
}
