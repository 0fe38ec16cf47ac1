//! Flink's functions on dates and times. The session time zone is UTC. Text that is not a time gives NULL
//! where Flink gives NULL; a pattern that is not a pattern fails the job.

mod pattern;
mod units;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use datafusion_common::Result;

use super::udf::{Arguments, Definition, Kind, Values, date, failed, integer, text, timestamp, timestamp_ltz};
use pattern::Pattern;

const STANDARD: &str = "yyyy-MM-dd HH:mm:ss";

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("date_format", &[&[Kind::Timestamp, Kind::Text]], text, date_format),
    Definition::new("to_timestamp", &[&[Kind::Text], &[Kind::Text, Kind::Text]], timestamp, to_timestamp),
    Definition::new(
        "to_timestamp_ltz",
        &[
            &[Kind::Integer],
            &[Kind::Integer, Kind::Integer],
            &[Kind::Text],
            &[Kind::Text, Kind::Text],
            &[Kind::Text, Kind::Text, Kind::Text],
        ],
        timestamp_ltz,
        to_timestamp_ltz,
    ),
    Definition::new("to_date", &[&[Kind::Text], &[Kind::Text, Kind::Text]], date, to_date),
    Definition::new("from_unixtime", &[&[Kind::Integer], &[Kind::Integer, Kind::Text]], text, from_unixtime),
    Definition::new("convert_tz", &[&[Kind::Text, Kind::Text, Kind::Text]], text, convert_tz),
    Definition::new("extract", &[&[Kind::Text, Kind::Temporal], &[Kind::Text, Kind::Any]], integer, units::extract),
    Definition::new("year", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "YEAR")),
    Definition::new("quarter", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "QUARTER")),
    Definition::new("month", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "MONTH")),
    Definition::new("week", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "WEEK")),
    Definition::new("dayofyear", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "DOY")),
    Definition::new("dayofmonth", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "DAY")),
    Definition::new("dayofweek", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "DOW")),
    Definition::new("hour", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "HOUR")),
    Definition::new("minute", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "MINUTE")),
    Definition::new("second", &[&[Kind::Temporal]], integer, |a| units::part(a, 0, "SECOND")),
    Definition::new(
        "timestampadd",
        &[&[Kind::Text, Kind::Integer, Kind::Timestamp]],
        |types| types[2].clone(),
        units::timestamp_add,
    ),
    Definition::new(
        "timestampdiff",
        &[&[Kind::Text, Kind::Timestamp, Kind::Timestamp]],
        integer,
        units::timestamp_diff,
    ),
    Definition::new(
        "flink_floor",
        &[&[Kind::Text, Kind::Temporal]],
        |types| types[1].clone(),
        |a| units::round(a, false),
    ),
    Definition::new(
        "flink_ceil",
        &[&[Kind::Text, Kind::Temporal]],
        |types| types[1].clone(),
        |a| units::round(a, true),
    ),
];

/// The form of `UNIX_TIMESTAMP` that reads no clock; see `clock.rs`.
pub(super) static UNIX_TIMESTAMP_OF_TEXT: Definition =
    Definition::new("unix_timestamp", &[&[Kind::Text], &[Kind::Text, Kind::Text]], integer, unix_timestamp);

/// The last pattern that was taken apart: usually the only one of a call.
#[derive(Default)]
struct Patterns {
    last: Option<(String, Pattern)>,
}

impl Patterns {
    fn get(&mut self, function: &str, pattern: &str) -> Result<&Pattern> {
        if self.last.as_ref().is_none_or(|(known, _)| known != pattern) {
            let parsed = match Pattern::parse(pattern) {
                Ok(parsed) => parsed,
                Err(message) => return failed(format!("{function}: {message}")),
            };
            self.last = Some((pattern.to_owned(), parsed));
        }
        Ok(&self.last.as_ref().expect("set above").1)
    }
}

/// A point in time, None where it is out of the calendar.
fn time_of_us(us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(us).map(|t| t.naive_utc())
}

fn date_format(args: &Arguments) -> Result<ArrayRef> {
    let (times, pattern) = (args.microseconds(0)?, args.text(1));
    let mut patterns = Patterns::default();
    args.try_map_text(|row| {
        let (Some(time), Some(pattern)) = (times.get(row).and_then(time_of_us), pattern.get(row)) else {
            return Ok(None);
        };
        Ok(Some(patterns.get("DATE_FORMAT", pattern)?.format(time)))
    })
}

/// Reads times as SQL writes them: a date, or a date and a time with up to nine digits of a second, between
/// them a blank or a `T`, and perhaps a `Z`.
fn read_standard(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    let time = chrono::NaiveTime::parse_from_str(time.trim_start(), "%H:%M:%S%.f").ok();
    let time = time.or_else(|| chrono::NaiveTime::parse_from_str(time_without_seconds(text)?, "%H:%M").ok())?;
    Some(day.and_time(time))
}

fn time_without_seconds(text: &str) -> Option<&str> {
    text.split_once([' ', 'T']).map(|(_, time)| time.trim_start())
}

/// The times that arguments 0 and 1 (text and pattern, or text alone) tell, in milliseconds.
fn read_times(args: &Arguments, function: &str, from: usize) -> Result<Vec<Option<NaiveDateTime>>> {
    let (source, pattern) = (args.text(from), args.optional_text(from + 1));
    let mut patterns = Patterns::default();
    let mut row = |row| {
        let Some(source) = source.get(row) else { return Ok(None) };
        match pattern.as_ref().map(|p| p.get(row)) {
            None | Some(Some(STANDARD)) => Ok(read_standard(source)),
            Some(None) => Ok(None),
            Some(Some(pattern)) => Ok(patterns.get(function, pattern)?.read(source)),
        }
    };
    (0..args.rows).map(&mut row).collect()
}

fn to_ms(time: Option<NaiveDateTime>) -> Option<i64> {
    time.map(|t| t.and_utc().timestamp_millis())
}

fn to_timestamp(args: &Arguments) -> Result<ArrayRef> {
    let times = read_times(args, "TO_TIMESTAMP", 0)?;
    Ok(Arc::new(times.into_iter().map(to_ms).collect::<TimestampMillisecondArray>()))
}

/// `TO_TIMESTAMP_LTZ(n[, 0 | 3])` of seconds or (default) milliseconds, or `(text[, pattern[, zone]])`.
fn to_timestamp_ltz(args: &Arguments) -> Result<ArrayRef> {
    let values = if *args.data_type(0) == DataType::Int64 {
        let precision = args.optional_integer(1);
        // Nearly always: the numbers are the times.
        if precision.as_ref().is_none_or(|precision| precision.constant() == Some(3)) {
            let column = args.column(0)?;
            let times = column.as_primitive::<Int64Type>().reinterpret_cast::<TimestampMillisecondType>();
            return Ok(Arc::new(times.with_timezone("UTC")));
        }
        let number = args.integer(0);
        let row = |row| {
            let Some(number) = number.get(row) else { return Ok(None) };
            match precision.as_ref().map_or(Some(3), |p| p.get(row)) {
                None => Ok(None),
                Some(0) => Ok(number.checked_mul(1000)),
                Some(3) => Ok(Some(number)),
                Some(other) => failed(format!(
                    "TO_TIMESTAMP_LTZ: the precision must be 0 (seconds) or 3 (milliseconds), not {other}"
                )),
            }
        };
        (0..args.rows).map(row).collect::<Result<Vec<_>>>()?
    } else {
        let times = read_times(args, "TO_TIMESTAMP_LTZ", 0)?;
        match args.optional_text(2) {
            None => times.into_iter().map(to_ms).collect(),
            Some(zones) => {
                let mut known = Zones::default();
                let row = |(row, time): (usize, Option<NaiveDateTime>)| {
                    let Some((time, zone)) = time.zip(zones.get(row)) else { return Ok(None) };
                    Ok(known
                        .get("TO_TIMESTAMP_LTZ", zone)?
                        .from_local_datetime(&time)
                        .earliest()
                        .map(|t| t.timestamp_millis()))
                };
                times.into_iter().enumerate().map(row).collect::<Result<Vec<_>>>()?
            }
        }
    };
    Ok(Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC")))
}

fn to_date(args: &Arguments) -> Result<ArrayRef> {
    let times = if args.len() == 1 {
        let source = args.text(0);
        (0..args.rows).map(|row| source.get(row).and_then(read_standard)).collect()
    } else {
        read_times(args, "TO_DATE", 0)?
    };
    let days =
        times.into_iter().map(|t| t.and_then(|t| i32::try_from(t.and_utc().timestamp().div_euclid(86_400)).ok()));
    Ok(Arc::new(days.collect::<Date32Array>()))
}

fn from_unixtime(args: &Arguments) -> Result<ArrayRef> {
    let (seconds, pattern) = (args.integer(0), args.optional_text(1));
    let mut patterns = Patterns::default();
    args.try_map_text(|row| {
        let time = seconds.get(row).and_then(|s| DateTime::from_timestamp(s, 0)).map(|t| t.naive_utc());
        let pattern = pattern.as_ref().map_or(Some(STANDARD), |p| p.get(row));
        let Some((time, pattern)) = time.zip(pattern) else { return Ok(None) };
        Ok(Some(patterns.get("FROM_UNIXTIME", pattern)?.format(time)))
    })
}

fn unix_timestamp(args: &Arguments) -> Result<ArrayRef> {
    let times = read_times(args, "UNIX_TIMESTAMP", 0)?;
    args.map_integer(|row| times[row].map(|t| t.and_utc().timestamp()))
}

/// The last time zone that was looked up.
#[derive(Default)]
struct Zones {
    last: Option<(String, Tz)>,
}

impl Zones {
    fn get(&mut self, function: &str, name: &str) -> Result<Tz> {
        if let Some((known, zone)) = &self.last
            && known == name
        {
            return Ok(*zone);
        }
        // Java's `GMT+08:00` is an offset too.
        let offset = name.strip_prefix("GMT").or_else(|| name.strip_prefix("UTC"));
        let offset = offset.filter(|offset| offset.starts_with(['+', '-']));
        let Ok(zone) = offset.unwrap_or(name).parse::<Tz>() else {
            return failed(format!(
                "{function}: unknown time zone '{name}'; expected a name such as 'Europe/Berlin' or an offset such as '+02:00'"
            ));
        };
        self.last = Some((name.to_owned(), zone));
        Ok(zone)
    }
}

/// `CONVERT_TZ(text, from, to)`: the wall clock of one zone as that of another.
fn convert_tz(args: &Arguments) -> Result<ArrayRef> {
    let (source, from, to) = (args.text(0), args.text(1), args.text(2));
    let (mut from_zones, mut to_zones) = (Zones::default(), Zones::default());
    args.try_map_text(|row| {
        let (Some(source), Some(from), Some(to)) = (source.get(row), from.get(row), to.get(row)) else {
            return Ok(None);
        };
        let (from, to) = (from_zones.get("CONVERT_TZ", from)?, to_zones.get("CONVERT_TZ", to)?);
        let Some(local) = read_standard(source) else { return Ok(None) };
        // A time that the change to summer time skips is read an hour later, as Java does.
        let instant = from.from_local_datetime(&local).earliest();
        let instant = instant.or_else(|| from.from_local_datetime(&(local + TimeDelta::try_hours(1)?)).earliest());
        Ok(instant.map(|t| t.with_timezone(&to).format("%Y-%m-%d %H:%M:%S").to_string()))
    })
}

/// A timestamp type's unit and zone.
fn unit_of(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Some(*unit),
        _ => None,
    }
}

/// The unit of a call, which is the same in every row: the planner writes it.
fn unit_name<'a>(function: &str, units: &Values<'a, arrow::array::StringArray>) -> Result<&'a str> {
    match units.get(0) {
        Some(name) => Ok(name),
        None => failed(format!("{function}: the unit is NULL")),
    }
}
