//! Parts of times, and times in units: `EXTRACT`, `YEAR` and the like, `TIMESTAMPADD`, `TIMESTAMPDIFF`,
//! `FLOOR(t TO unit)`, `CEIL(t TO unit)`. The unit is the first argument, a constant.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion_common::Result;

use super::super::udf::{Arguments, failed};
use super::{time_of_us, unit_name, unit_of};

/// A unit of time. Months do not have a fixed length, so quarters and years count in months.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Months(i64),
    Microseconds(i64),
}

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

fn unit(function: &str, name: &str) -> Result<Unit> {
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("SQL_TSI_").unwrap_or(&upper);
    let upper = upper.strip_suffix('S').unwrap_or(upper);
    Ok(match upper {
        "MILLENNIUM" => Unit::Months(12_000),
        "CENTURY" => Unit::Months(1200),
        "DECADE" => Unit::Months(120),
        "YEAR" => Unit::Months(12),
        "QUARTER" => Unit::Months(3),
        "MONTH" => Unit::Months(1),
        "WEEK" => Unit::Microseconds(7 * DAY_US),
        "DAY" => Unit::Microseconds(DAY_US),
        "HOUR" => Unit::Microseconds(3600 * SECOND_US),
        "MINUTE" => Unit::Microseconds(60 * SECOND_US),
        "SECOND" => Unit::Microseconds(SECOND_US),
        "MILLISECOND" => Unit::Microseconds(1000),
        "MICROSECOND" => Unit::Microseconds(1),
        _ => return failed(format!("{function}: unknown unit of time '{name}'")),
    })
}

/// `EXTRACT(unit FROM t)`, called as `extract('unit', t)`.
pub(super) fn extract(args: &Arguments) -> Result<ArrayRef> {
    let name = unit_name("EXTRACT", &args.text(0))?;
    part(args, 1, name)
}

/// A part of the times of one argument. Weeks are those of ISO 8601, days of the week begin with Sunday as 1.
pub(super) fn part(args: &Arguments, index: usize, name: &str) -> Result<ArrayRef> {
    let times = args.column(index)?;
    let upper = name.to_ascii_uppercase();
    let (part, shift) = match upper.as_str() {
        "EPOCH" => return epoch(args, index),
        "DECADE" | "CENTURY" | "MILLENNIUM" => return long_part(args, &times, &upper),
        "YEAR" => (DatePart::Year, 0),
        "ISOYEAR" => (DatePart::YearISO, 0),
        "QUARTER" => (DatePart::Quarter, 0),
        "MONTH" => (DatePart::Month, 0),
        "WEEK" => (DatePart::Week, 0),
        "DAY" => (DatePart::Day, 0),
        "DOW" => (DatePart::DayOfWeekSunday0, 1),
        "ISODOW" => (DatePart::DayOfWeekMonday0, 1),
        "DOY" => (DatePart::DayOfYear, 0),
        "HOUR" => (DatePart::Hour, 0),
        "MINUTE" => (DatePart::Minute, 0),
        "SECOND" => (DatePart::Second, 0),
        "MILLISECOND" => (DatePart::Millisecond, 0),
        "MICROSECOND" => (DatePart::Microsecond, 0),
        "NANOSECOND" => (DatePart::Nanosecond, 0),
        _ => return failed(format!("EXTRACT: unknown unit of time '{name}'")),
    };
    let values = date_part(&times, part)?;
    let values = values.as_primitive::<arrow::datatypes::Int32Type>();
    args.map_integer(|row| values.is_valid(row).then(|| i64::from(values.value(row)) + shift))
}

fn epoch(args: &Arguments, index: usize) -> Result<ArrayRef> {
    let times = cast(&args.column(index)?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let times = times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    args.map_integer(|row| times.is_valid(row).then(|| times.value(row).div_euclid(SECOND_US)))
}

fn long_part(args: &Arguments, times: &dyn Array, name: &str) -> Result<ArrayRef> {
    let years = date_part(times, DatePart::Year)?;
    let years = years.as_primitive::<arrow::datatypes::Int32Type>();
    let part = |year: i64| match name {
        "DECADE" => year.div_euclid(10),
        "CENTURY" => (year + 99).div_euclid(100),
        _ => (year + 999).div_euclid(1000),
    };
    args.map_integer(|row| years.is_valid(row).then(|| part(i64::from(years.value(row)))))
}

/// A column of times in the type of argument `index`.
fn times_like(args: &Arguments, index: usize, row: impl FnMut(usize) -> Option<i64>) -> Result<ArrayRef> {
    let us: TimestampMicrosecondArray = (0..args.rows).map(row).collect();
    let to = args.data_type(index);
    let us = match to {
        DataType::Timestamp(_, Some(zone)) => us.with_timezone(zone.clone()),
        _ => us,
    };
    Ok(cast(&us, to)?)
}

/// `TIMESTAMPADD(unit, n, t)`; NULL where the result is out of the calendar.
pub(super) fn timestamp_add(args: &Arguments) -> Result<ArrayRef> {
    let unit = unit("TIMESTAMPADD", unit_name("TIMESTAMPADD", &args.text(0))?)?;
    let (number, times) = (args.integer(1), args.microseconds(2)?);
    times_like(args, 2, |row| {
        let (number, time) = (number.get(row)?, times.get(row)?);
        match unit {
            Unit::Microseconds(us) => time.checked_add(number.checked_mul(us)?),
            Unit::Months(months) => {
                Some(add_months(time_of_us(time)?, number.checked_mul(months)?)?.and_utc().timestamp_micros())
            }
        }
    })
}

fn add_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let size = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { time.checked_sub_months(size) } else { time.checked_add_months(size) }
}

/// `TIMESTAMPDIFF(unit, from, to)`: whole units between the two, towards zero.
pub(super) fn timestamp_diff(args: &Arguments) -> Result<ArrayRef> {
    let unit = unit("TIMESTAMPDIFF", unit_name("TIMESTAMPDIFF", &args.text(0))?)?;
    let (from, to) = (args.microseconds(1)?, args.microseconds(2)?);
    args.map_integer(|row| {
        let (from, to) = (from.get(row)?, to.get(row)?);
        match unit {
            Unit::Microseconds(us) => Some(to.checked_sub(from)? / us),
            Unit::Months(months) => Some(whole_months(time_of_us(from)?, time_of_us(to)?)? / months),
        }
    })
}

fn whole_months(from: NaiveDateTime, to: NaiveDateTime) -> Option<i64> {
    if to < from {
        return whole_months(to, from).map(|m| -m);
    }
    let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
    // The last month is not whole while its day and time of day are not reached.
    let reached = (to.day(), to.time()) >= (from.day(), from.time());
    Some(if reached { months } else { months - 1 })
}

/// `FLOOR(t TO unit)` and, where `up`, `CEIL(t TO unit)`. Weeks begin on Sunday, as in Flink.
pub(super) fn round(args: &Arguments, up: bool) -> Result<ArrayRef> {
    let function = if up { "CEIL" } else { "FLOOR" };
    let unit = unit(function, unit_name(function, &args.text(0))?)?;
    if unit_of(args.data_type(1)).is_none() {
        return round_dates(args, unit, up);
    }
    let times = args.microseconds(1)?;
    times_like(args, 1, |row| round_us(times.get(row)?, unit, up))
}

fn round_dates(args: &Arguments, unit: Unit, up: bool) -> Result<ArrayRef> {
    let days = args.column(1)?;
    let days: &Date32Array = days.as_primitive();
    let row = |row: usize| {
        let us = i64::from(days.is_valid(row).then(|| days.value(row))?) * DAY_US;
        i32::try_from(round_us(us, unit, up)?.div_euclid(DAY_US)).ok()
    };
    Ok(Arc::new((0..args.rows).map(row).collect::<Date32Array>()))
}

fn round_us(us: i64, unit: Unit, up: bool) -> Option<i64> {
    let (floor, next) = match unit {
        Unit::Microseconds(size) => {
            // 1970-01-01 was a Thursday: the week of Sunday began four days before.
            let origin = if size == 7 * DAY_US { -4 * DAY_US } else { 0 };
            let floor = us.checked_sub((us - origin).rem_euclid(size))?;
            (floor, floor.checked_add(size)?)
        }
        Unit::Months(months) => {
            let floor = floor_months(time_of_us(us)?, months)?;
            let next = add_months(floor, months)?;
            (floor.and_utc().timestamp_micros(), next.and_utc().timestamp_micros())
        }
    };
    Some(if up && floor != us { next } else { floor })
}

/// The begin of the group of months, counted from the year 1 for centuries and longer.
fn floor_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let shift = if months >= 1200 { 12 } else { 0 };
    let count = i64::from(time.year()) * 12 + i64::from(time.month0());
    let begin = count - (count - shift).rem_euclid(months);
    let year = i32::try_from(begin.div_euclid(12)).ok()?;
    let month = u32::try_from(begin.rem_euclid(12)).ok()? + 1;
    Some(NaiveDate::from_ymd_opt(year, month, 1)?.and_time(NaiveTime::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn rounding_to_units() {
        let check = |name: &str, floor: &str, ceil: &str| {
            let unit = unit("FLOOR", name).unwrap();
            assert_eq!(round_us(us("2024-03-05T15:04:09.5"), unit, false), Some(us(floor)), "{name}");
            assert_eq!(round_us(us("2024-03-05T15:04:09.5"), unit, true), Some(us(ceil)), "{name}");
        };
        check("MINUTE", "2024-03-05T15:04:00", "2024-03-05T15:05:00");
        check("DAY", "2024-03-05T00:00:00", "2024-03-06T00:00:00");
        check("WEEK", "2024-03-03T00:00:00", "2024-03-10T00:00:00");
        check("QUARTER", "2024-01-01T00:00:00", "2024-04-01T00:00:00");
        check("CENTURY", "2001-01-01T00:00:00", "2101-01-01T00:00:00");
        assert_eq!(round_us(-1, unit("FLOOR", "HOUR").unwrap(), false), Some(-3600 * SECOND_US));
    }

    #[test]
    fn months_between() {
        let between = |from: &str, to: &str| whole_months(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(between("2024-01-31T00:00:00", "2024-02-29T00:00:00"), Some(0));
        assert_eq!(between("2024-01-15T12:00:00", "2025-01-15T12:00:00"), Some(12));
        assert_eq!(between("2025-01-15T12:00:00", "2024-01-15T12:00:01"), Some(-11));
    }
}
