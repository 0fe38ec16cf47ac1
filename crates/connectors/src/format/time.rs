//! Dates and times in text, by fixed positions. Called by the columns of type TIMESTAMP, DATE and TIME. Reads
//! exactly the notation that the table's option says; the session's time zone is UTC.

use arrow::datatypes::TimeUnit;

use super::options::TimestampFormat;

/// Why a text is not a time of the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeFault {
    /// It is not in the expected notation, or names a day or an hour that does not exist.
    Notation,
    /// It carries a zone, the column is a TIMESTAMP without one.
    Zone,
    /// The column's unit cannot hold a time so far from 1970.
    OutOfRange,
}

/// Reads timestamps of one column.
#[derive(Clone, Debug)]
pub(crate) struct TimestampReader {
    unit: TimeUnit,
    format: TimestampFormat,
    /// Whether a zone may follow: TIMESTAMP_LTZ.
    zoned: bool,
    /// The last date that was read and its day; neighbours in a stream mostly share it.
    date: [u8; 10],
    days: i64,
}

const NANOS: i64 = 1_000_000_000;

impl TimestampReader {
    /// For a column of the given unit; `zoned` for TIMESTAMP_LTZ.
    pub(crate) fn new(unit: TimeUnit, format: TimestampFormat, zoned: bool) -> Self {
        TimestampReader { unit, format, zoned, date: *b"1970-01-01", days: 0 }
    }

    /// Units since the epoch. Digits of the fraction beyond the unit are cut off.
    #[inline]
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<i64, TimeFault> {
        let Some((date, rest)) = text.split_first_chunk::<10>() else { return Err(TimeFault::Notation) };
        if *date != self.date {
            self.days = days(date).ok_or(TimeFault::Notation)?;
            self.date = *date;
        }
        let separator = match self.format {
            TimestampFormat::Sql => b' ',
            TimestampFormat::Iso8601 => b'T',
        };
        if rest.first() != Some(&separator) {
            return Err(TimeFault::Notation);
        }
        let (seconds, nanos, rest) = time_of_day(&rest[1..], self.format).ok_or(TimeFault::Notation)?;
        let offset = if rest.is_empty() { 0 } else { self.zone(rest)? };
        self.in_unit(self.days * 86_400 + seconds - offset, nanos)
    }

    /// The zone's offset from UTC, in seconds.
    fn zone(&self, text: &[u8]) -> Result<i64, TimeFault> {
        let offset = zone_offset(text).ok_or(TimeFault::Notation)?;
        if self.zoned { Ok(offset) } else { Err(TimeFault::Zone) }
    }

    #[inline]
    fn in_unit(&self, seconds: i64, nanos: i64) -> Result<i64, TimeFault> {
        // Four digits of a year keep all but nanoseconds far from the bounds.
        match self.unit {
            TimeUnit::Second => Ok(seconds),
            TimeUnit::Millisecond => Ok(seconds * 1_000 + nanos / 1_000_000),
            TimeUnit::Microsecond => Ok(seconds * 1_000_000 + nanos / 1_000),
            TimeUnit::Nanosecond => {
                seconds.checked_mul(NANOS).and_then(|s| s.checked_add(nanos)).ok_or(TimeFault::OutOfRange)
            }
        }
    }
}

/// Days since the epoch of `yyyy-MM-dd`.
pub(crate) fn read_date(text: &[u8]) -> Option<i32> {
    let date: &[u8; 10] = text.try_into().ok()?;
    i32::try_from(days(date)?).ok()
}

/// Milliseconds since midnight of `HH:mm:ss[.f]`.
pub(crate) fn read_time(text: &[u8]) -> Option<i32> {
    let (seconds, nanos, rest) = time_of_day(text, TimestampFormat::Sql)?;
    if !rest.is_empty() {
        return None;
    }
    i32::try_from(seconds * 1_000 + nanos / 1_000_000).ok()
}

/// Seconds and nanoseconds since midnight, and the text after them.
#[inline]
fn time_of_day(text: &[u8], format: TimestampFormat) -> Option<(i64, i64, &[u8])> {
    let (hour_minute, rest) = text.split_first_chunk::<5>()?;
    let hour = two_digits(hour_minute[0], hour_minute[1])?;
    let minute = two_digits(hour_minute[3], hour_minute[4])?;
    if hour_minute[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let minutes = hour * 60 + minute;
    let Some((&[b':', tens, ones], rest)) = rest.split_first_chunk::<3>() else {
        // ISO 8601 may leave out the seconds, SQL may not.
        return (format == TimestampFormat::Iso8601 && !rest.starts_with(b":")).then_some((minutes * 60, 0, rest));
    };
    let second = two_digits(tens, ones).filter(|&s| s <= 59)?;
    let seconds = minutes * 60 + second;
    match rest.split_first() {
        Some((b'.', fraction)) => {
            let (nanos, rest) = fraction_nanos(fraction)?;
            Some((seconds, nanos, rest))
        }
        _ => Some((seconds, 0, rest)),
    }
}

/// One to nine digits of a fraction, in nanoseconds, and the text after them.
#[inline]
fn fraction_nanos(text: &[u8]) -> Option<(i64, &[u8])> {
    const POWERS: [i64; 10] = [NANOS, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let mut value = 0;
    let mut count = 0;
    while let Some(byte) = text.get(count).filter(|b| b.is_ascii_digit()) {
        if count == 9 {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
        count += 1;
    }
    if count == 0 { None } else { Some((value * POWERS[count], &text[count..])) }
}

/// `Z`, `+HH`, `+HHMM` or `+HH:MM`, in seconds.
fn zone_offset(text: &[u8]) -> Option<i64> {
    let (hour, minute) = match *text {
        [b'Z'] => return Some(0),
        [_, a, b] => (two_digits(a, b)?, 0),
        [_, a, b, c, d] | [_, a, b, b':', c, d] => (two_digits(a, b)?, two_digits(c, d)?),
        _ => return None,
    };
    if hour > 18 || minute > 59 {
        return None;
    }
    let seconds = hour * 3_600 + minute * 60;
    match text[0] {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

fn days(date: &[u8; 10]) -> Option<i64> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = date else { return None };
    let year = two_digits(a, b)? * 100 + two_digits(c, d)?;
    let month = two_digits(e, f)?;
    let day = two_digits(g, h)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    // Days from the civil calendar, with years that begin in March so that the leap day comes last.
    let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};

    use super::*;

    fn sql(text: &str) -> Result<i64, TimeFault> {
        TimestampReader::new(TimeUnit::Millisecond, TimestampFormat::Sql, false).read(text.as_bytes())
    }

    #[test]
    fn every_day_agrees_with_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        let mut day = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
        for _ in 0..3_700_000 / 29 {
            let text = format!(
                "{:04}-{:02}-{:02}",
                chrono::Datelike::year(&day),
                chrono::Datelike::month(&day),
                chrono::Datelike::day(&day)
            );
            if text.len() > 10 {
                break;
            }
            assert_eq!(read_date(text.as_bytes()).map(i64::from), Some((day - epoch).num_days()), "{text}");
            day = day + chrono::Days::new(29);
        }
    }

    #[test]
    fn sql_timestamps() {
        let expected = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis();
        assert_eq!(sql("2026-03-01 12:34:56.789"), Ok(expected("2026-03-01T12:34:56.789Z")));
        assert_eq!(sql("2026-03-01 12:34:56"), Ok(expected("2026-03-01T12:34:56Z")));
        assert_eq!(sql("1969-12-31 23:59:59.5"), Ok(-500));
        assert_eq!(sql("2024-02-29 00:00:00.1234567"), Ok(expected("2024-02-29T00:00:00.123Z")));
        for bad in [
            "",
            "2026-03-01",
            "2026-03-01 12:34",
            "2026-03-01T12:34:56",
            "2026-02-29 00:00:00",
            "2026-13-01 00:00:00",
            "2026-00-01 00:00:00",
            "2026-01-00 00:00:00",
            "2026-01-01 24:00:00",
            "2026-01-01 00:60:00",
            "2026-01-01 00:00:60",
            "2026-01-01 00:00:00.",
            "2026-01-01 00:00:00.1234567890",
            "2026-01-01 00:00:00 ",
            "2026-1-01 00:00:00",
            "2026-01-01 00:00:0x",
        ] {
            assert_eq!(sql(bad), Err(TimeFault::Notation), "{bad}");
        }
        assert_eq!(sql("2026-01-01 00:00:00Z"), Err(TimeFault::Zone));
    }

    #[test]
    fn iso_timestamps_with_zone() {
        let mut iso = TimestampReader::new(TimeUnit::Microsecond, TimestampFormat::Iso8601, true);
        let mut read = |text: &str| iso.read(text.as_bytes());
        let utc = read("2026-03-01T12:34:56.000001Z").unwrap();
        assert_eq!(utc, DateTime::parse_from_rfc3339("2026-03-01T12:34:56.000001Z").unwrap().timestamp_micros());
        for same in
            ["2026-03-01T14:34:56.000001+02:00", "2026-03-01T14:34:56.000001+0200", "2026-03-01T10:34:56.000001-02"]
        {
            assert_eq!(read(same), Ok(utc), "{same}");
        }
        assert_eq!(read("1970-01-01T00:01"), Ok(60_000_000));
        assert_eq!(read("1970-01-01T00:01Z"), Ok(60_000_000));
        for bad in ["1970-01-01 00:01:00", "1970-01-01T00:01:00X", "1970-01-01T00:01:", "1970-01-01T00:01+19:00"] {
            assert_eq!(read(bad), Err(TimeFault::Notation), "{bad}");
        }
    }

    #[test]
    fn units_and_their_bounds() {
        let read = |unit, text: &str| TimestampReader::new(unit, TimestampFormat::Sql, false).read(text.as_bytes());
        assert_eq!(read(TimeUnit::Nanosecond, "1970-01-01 00:00:01.000000002"), Ok(1_000_000_002));
        assert_eq!(read(TimeUnit::Second, "1970-01-02 00:00:00"), Ok(86_400));
        assert_eq!(read(TimeUnit::Nanosecond, "9999-01-01 00:00:00"), Err(TimeFault::OutOfRange));
        assert!(read(TimeUnit::Microsecond, "9999-12-31 23:59:59.999999").is_ok());
        assert!(read(TimeUnit::Microsecond, "0000-01-01 00:00:00").is_ok());
        assert_eq!(read_time(b"23:59:59.999"), Some(86_399_999));
        assert_eq!(read_time(b"23:59"), None);
    }
}
