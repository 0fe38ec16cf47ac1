//! Numbers and times as text, appended to a byte buffer. Called by the encoders, once a value: no allocation.

use std::io::Write;

use crate::format::TimestampFormat;

/// How the part of a second is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// As many digits as are needed, none for a whole second.
    Shortest,
    /// None, three, six or nine digits, and no seconds either where both are zero, as in Java.
    Java,
}

/// A whole number.
pub(crate) fn write_whole(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(value.unsigned_abs(), out);
}

/// A whole number that is not negative.
pub(crate) fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    // The greatest u64 has 20 digits.
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The shortest text that reads back as the same number. NaN and infinities by their names in Java.
pub(crate) fn write_float(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_debug(value, out);
    } else {
        out.extend_from_slice(not_finite(value).as_bytes());
    }
}

/// Like [`write_float`], shortest for the narrower type.
pub(crate) fn write_float32(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        write_debug(value, out);
    } else {
        out.extend_from_slice(not_finite(value.into()).as_bytes());
    }
}

fn write_debug(value: impl std::fmt::Debug, out: &mut Vec<u8>) {
    // `Debug` rather than `Display`: the latter writes 1e300 as 301 digits.
    write!(out, "{value:?}").expect("a Vec takes all bytes");
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// A decimal number of an unscaled value and digits after the point. Unless `plain`, very small numbers get an
/// exponent, as Java's `BigDecimal` and so Flink's JSON writes them.
pub(crate) fn write_decimal(unscaled: i128, scale: i8, plain: bool, out: &mut Vec<u8>) {
    let mut digits = Vec::with_capacity(40);
    write!(digits, "{}", unscaled.unsigned_abs()).expect("a Vec takes all bytes");
    if unscaled < 0 {
        out.push(b'-');
    }
    let scale = i32::from(scale);
    let exponent = digits.len() as i32 - 1 - scale;
    if !plain && scale > 0 && exponent < -6 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        write!(out, "E{exponent}").expect("a Vec takes all bytes");
        return;
    }
    if scale <= 0 {
        out.extend_from_slice(&digits);
        if unscaled != 0 {
            out.extend(std::iter::repeat_n(b'0', scale.unsigned_abs() as usize));
        }
        return;
    }
    let scale = scale as usize;
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits[..whole] });
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
    out.extend_from_slice(&digits[whole..]);
}

/// `yyyy-MM-dd` of a number of days since 1970.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_date(days);
    if (0..=9999).contains(&year) {
        write_two_digits(year as u32 / 100, out);
        write_two_digits(year as u32 % 100, out);
    } else {
        write!(out, "{year:+05}").expect("a Vec takes all bytes");
    }
    out.push(b'-');
    write_two_digits(month, out);
    out.push(b'-');
    write_two_digits(day, out);
}

/// `HH:mm:ss` and a fraction. `seconds` since midnight.
pub(crate) fn write_time_of_day(seconds: u32, nanos: u32, fraction: Fraction, out: &mut Vec<u8>) {
    write_two_digits(seconds / 3600, out);
    out.push(b':');
    write_two_digits(seconds / 60 % 60, out);
    let java = fraction == Fraction::Java;
    if java && seconds.is_multiple_of(60) && nanos == 0 {
        return;
    }
    out.push(b':');
    write_two_digits(seconds % 60, out);
    if nanos == 0 {
        return;
    }
    let digits = format_nanos(nanos);
    let mut length = 9 - digits.iter().rev().take_while(|d| **d == b'0').count();
    if java {
        length = length.next_multiple_of(3);
    }
    out.push(b'.');
    out.extend_from_slice(&digits[..length]);
}

/// A date and a time of day; `Z` after instants.
pub(crate) fn write_timestamp(
    seconds: i64,
    nanos: u32,
    zoned: bool,
    format: TimestampFormat,
    fraction: Fraction,
    out: &mut Vec<u8>,
) {
    write_date(seconds.div_euclid(86_400), out);
    out.push(match format {
        TimestampFormat::Sql => b' ',
        TimestampFormat::Iso8601 => b'T',
    });
    write_time_of_day(seconds.rem_euclid(86_400) as u32, nanos, fraction, out);
    if zoned {
        out.push(b'Z');
    }
}

/// RFC 4648 with padding.
pub(crate) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |i: u32| DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
        let used = chunk.len() as u32 + 1;
        out.extend((0..4).map(|i| if i < used { digit(i) } else { b'=' }));
    }
}

fn write_two_digits(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

fn format_nanos(mut nanos: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (nanos % 10) as u8;
        nanos /= 10;
    }
    digits
}

/// Year, month and day in the proleptic Gregorian calendar, of any number of days since 1970.
fn civil_date(days: i64) -> (i64, u32, u32) {
    // Years that begin in March put the leap day last; 400 of them have always the same number of days.
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_have_their_shortest_text() {
        for value in [0, 7, -1, 10, 12_345, i64::MAX, i64::MIN] {
            assert_eq!(text(|o| write_whole(value, o)), value.to_string());
        }
        assert_eq!(text(|o| write_unsigned(u64::MAX, o)), u64::MAX.to_string());
        for (value, expected) in
            [(1.0, "1.0"), (0.1, "0.1"), (1e300, "1e300"), (f64::NAN, "NaN"), (f64::NEG_INFINITY, "-Infinity")]
        {
            assert_eq!(text(|o| write_float(value, o)), expected);
        }
        assert_eq!(text(|o| write_float32(0.1, o)), "0.1");
    }

    #[test]
    fn decimals_are_those_of_java() {
        let decimal = |unscaled, scale, plain| text(|o| write_decimal(unscaled, scale, plain, o));
        assert_eq!(decimal(12_345, 2, false), "123.45");
        assert_eq!(decimal(-5, 2, false), "-0.05");
        assert_eq!(decimal(0, 2, false), "0.00");
        assert_eq!(decimal(100, 0, false), "100");
        assert_eq!(decimal(3, -2, false), "300");
        assert_eq!(decimal(27, 9, false), "2.7E-8");
        assert_eq!(decimal(27, 9, true), "0.000000027");
        assert_eq!(decimal(0, 8, false), "0E-8");
        assert_eq!(decimal(i128::MAX, 10, true), "17014118346046923173168730371.5884105727");
    }

    #[test]
    fn times_agree_with_the_calendar() {
        for days in [-800_000_i64, -719_528, -1, 0, 58, 59, 60, 11_016, 20_454, 2_932_896] {
            let date = chrono::DateTime::from_timestamp(days * 86_400, 0).unwrap();
            let expected = date.format("%Y-%m-%d").to_string();
            assert_eq!(text(|o| write_date(days, o)), expected, "{days}");
        }
        assert_eq!(text(|o| write_date(i64::MAX / 86_400_000, o)), "+292278994-08-17");
        let time = |ms: i64, format, fraction, zoned| {
            text(|o| {
                write_timestamp(ms.div_euclid(1000), ms.rem_euclid(1000) as u32 * 1_000_000, zoned, format, fraction, o)
            })
        };
        let base = 1_767_225_600_000;
        assert_eq!(time(base, TimestampFormat::Sql, Fraction::Shortest, false), "2026-01-01 00:00:00");
        assert_eq!(time(base + 120, TimestampFormat::Sql, Fraction::Shortest, true), "2026-01-01 00:00:00.12Z");
        assert_eq!(time(base, TimestampFormat::Iso8601, Fraction::Java, false), "2026-01-01T00:00");
        assert_eq!(time(base + 5_120, TimestampFormat::Iso8601, Fraction::Java, true), "2026-01-01T00:00:05.120Z");
        assert_eq!(time(-1, TimestampFormat::Sql, Fraction::Shortest, false), "1969-12-31 23:59:59.999");
    }

    #[test]
    fn base64_pads() {
        for (bytes, expected) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
        {
            assert_eq!(text(|o| write_base64(bytes, o)), expected);
        }
    }
}
