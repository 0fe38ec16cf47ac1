//! Rows as Flink's `print` connector shows them, values as Java does: `+I[1, foo, 2026-01-01T00:00]`. Called by
//! the print sink.

use std::io::Write;

use arrow::array::RecordBatch;

use super::Kinds;
use crate::error::ConnectorError;
use crate::format::TimestampFormat;
use crate::format::encode::{
    ColumnView, Fraction, Value, write_date, write_decimal, write_time_of_day, write_timestamp, write_whole,
};

/// One line a row, each beginning with `prefix`.
pub(super) fn write_rows(
    prefix: &str,
    rows: &RecordBatch,
    kinds: Kinds<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ConnectorError> {
    let views: Vec<_> = rows.columns().iter().map(|c| ColumnView::new(c.as_ref())).collect::<Result<_, _>>()?;
    for row in 0..rows.num_rows() {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(kinds.symbol(row).as_bytes());
        out.push(b'[');
        for (index, view) in views.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            write_value(&view.value(row), out);
        }
        out.extend_from_slice(b"]\n");
    }
    Ok(())
}

/// A value as Java's `toString` gives it.
pub(super) fn write_value(value: &Value<'_, '_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Boolean(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Whole(v) => write_whole(*v, out),
        Value::Unsigned(v) => write!(out, "{v}").expect("a Vec takes all bytes"),
        Value::Float32(v) => {
            write_java_float(&format!("{:?}", v.abs()), &format!("{v:e}"), v.is_sign_negative(), f64::from(*v), out)
        }
        Value::Float64(v) => {
            write_java_float(&format!("{:?}", v.abs()), &format!("{v:e}"), v.is_sign_negative(), *v, out)
        }
        Value::Decimal(unscaled, scale) => write_decimal(*unscaled, *scale, false, out),
        Value::Text(v) => out.extend_from_slice(v.as_bytes()),
        Value::Bytes(bytes) => {
            // Java shows signed bytes.
            write_list(bytes.iter(), out, |byte, out| write_whole((**byte as i8).into(), out));
        }
        Value::Date(days) => write_date((*days).into(), out),
        Value::Time(ms) => {
            let ms = ms.rem_euclid(86_400_000) as u32;
            write_time_of_day(ms / 1000, ms % 1000 * 1_000_000, Fraction::Java, out);
        }
        Value::Timestamp { seconds, nanos, zoned } => {
            // Unlike local times, Java's instants always show their seconds.
            let whole_minute = *zoned && seconds.rem_euclid(60) == 0 && *nanos == 0;
            let fraction = if whole_minute { Fraction::Shortest } else { Fraction::Java };
            write_timestamp(*seconds, *nanos, *zoned, TimestampFormat::Iso8601, fraction, out);
        }
        Value::Row(parts, row) => {
            out.extend_from_slice(b"+I");
            write_list(parts.iter(), out, |(_, column), out| write_value(&column.value(*row), out));
        }
        Value::List(elements, range) => write_list(range.clone(), out, |i, out| write_value(&elements.value(*i), out)),
        Value::Map(keys, values, range) => {
            out.push(b'{');
            for (index, i) in range.clone().enumerate() {
                if index > 0 {
                    out.extend_from_slice(b", ");
                }
                write_value(&keys.value(i), out);
                out.push(b'=');
                write_value(&values.value(i), out);
            }
            out.push(b'}');
        }
    }
}

fn write_list<T>(items: impl Iterator<Item = T>, out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        write(&item, out);
    }
    out.push(b']');
}

/// Java writes numbers from 0.001 to 10,000,000 plainly and others as `1.0E10`. `plain` is the text of the
/// absolute value, `scientific` that of the value with an exponent.
fn write_java_float(plain: &str, scientific: &str, negative: bool, value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if negative {
        out.push(b'-');
    }
    if size.is_infinite() {
        out.extend_from_slice(b"Infinity");
    } else if size == 0.0 || (1e-3..1e7).contains(&size) {
        out.extend_from_slice(plain.as_bytes());
    } else {
        let scientific = scientific.trim_start_matches('-');
        let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
        let point = if digits.contains('.') { "" } else { ".0" };
        write!(out, "{digits}{point}E{exponent}").expect("a Vec takes all bytes");
    }
}
