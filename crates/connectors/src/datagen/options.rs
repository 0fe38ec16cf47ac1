//! The options of a `datagen` table, with Flink's names, and the making of its fields. Called by
//! `datagen::source`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::datatypes::{DataType, Decimal128Type, Field as ArrowField, TimeUnit};

use crate::error::ConnectorError;
use crate::generator::{Random, Schedule, base_time_ms};
use crate::table::{TableSpec, parse_duration};

use super::field::{Field, Maker, RowTime};

/// Rows a second, by the clock and in event time.
const ROWS_PER_SECOND_DEFAULT: u64 = 10_000;
const ROWS_PER_SECOND_MAX: u64 = 1_000_000_000;
/// Lengths of texts and byte strings, as in Flink.
const TEXT_LENGTH_DEFAULT: u64 = 100;
const TEXT_LENGTH_MAX: u64 = 1 << 20;
/// Lengths of arrays and maps, as in Flink.
const COLLECTION_LENGTH_DEFAULT: u64 = 3;
const COLLECTION_LENGTH_MAX: u64 = 1000;
/// Seed of a table whose user gives none.
const SEED_DEFAULT: u64 = 42;

/// What a `datagen` table asks for.
#[derive(Clone, Debug)]
pub(super) struct DatagenOptions {
    /// One a physical column.
    pub(super) fields: Vec<Field>,
    pub(super) schedule: Schedule,
}

impl DatagenOptions {
    /// Reads and checks all options.
    pub(super) fn read(table: &TableSpec) -> Result<DatagenOptions, ConnectorError> {
        let mut options = table.options();
        let rate = options.parse("rows-per-second", ROWS_PER_SECOND_DEFAULT)?;
        if rate > ROWS_PER_SECOND_MAX {
            return Err(ConnectorError::option(format!(
                "option 'rows-per-second' must be at most {ROWS_PER_SECOND_MAX}; 0 is as fast as possible"
            )));
        }
        let rows = options.parse_optional::<u64>("number-of-rows")?;
        let seed = options.parse("seed", SEED_DEFAULT)?;
        let base_ms = base_time_ms(&mut options)?;
        let per_second = if rate > 0 { rate } else { ROWS_PER_SECOND_DEFAULT };
        let settings = options.with_prefix("fields.").into_iter().collect();
        let mut builder = Builder { table, settings, seed, time: RowTime { base_ms, per_second }, rows };
        let fields =
            table.schema.fields().iter().map(|f| builder.field(f, f.name(), true)).collect::<Result<Vec<_>, _>>()?;
        builder.refuse_leftovers()?;
        let mut schedule = Schedule::new(&mut options, builder.rows, (rate > 0).then_some(rate))?;
        let due_from = options.one_of("rows-due-from", "start", &["start", "base-time"])?;
        schedule.due_from_ms = (due_from == "base-time").then_some(base_ms);
        options.finish()?;
        Ok(DatagenOptions { fields, schedule })
    }
}

/// Makes fields from their types and settings.
struct Builder<'a> {
    table: &'a TableSpec,
    /// Settings that no field has used yet, without `fields.`.
    settings: BTreeMap<&'a str, &'a str>,
    seed: u64,
    time: RowTime,
    /// Number of rows; the shortest sequence ends the table.
    rows: Option<u64>,
}

impl<'a> Builder<'a> {
    /// The field at a path such as `user` or, within it, `user.name`.
    fn field(&mut self, field: &ArrowField, path: &str, top: bool) -> Result<Field, ConnectorError> {
        let maker = match self.take(path, "kind").unwrap_or("random") {
            "random" => self.random(field.data_type(), path)?,
            "sequence" if top => self.sequence(field.data_type(), path)?,
            "sequence" => {
                return Err(self.error(path, "kind", "sequence", "a sequence is for whole columns; use 'random'"));
            }
            other => return Err(self.error(path, "kind", other, "expected 'random' or 'sequence'")),
        };
        let null_rate: f64 = self.parse(path, "null-rate")?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&null_rate) {
            return Err(self.error(path, "null-rate", &null_rate.to_string(), "expected a number from 0 to 1"));
        }
        if null_rate > 0.0 && !field.is_nullable() {
            return Err(self.error(path, "null-rate", &null_rate.to_string(), "the column is declared NOT NULL"));
        }
        let (random, nulls) = (Random::named(self.seed, path), Random::named(self.seed, &format!("{path}\0null")));
        Ok(Field { data_type: field.data_type().clone(), random, nulls, null_rate, maker })
    }

    fn random(&mut self, data_type: &DataType, path: &str) -> Result<Maker, ConnectorError> {
        Ok(match data_type {
            DataType::Boolean => Maker::Boolean,
            DataType::Int8 => self.whole(path, i8::MIN.into(), i8::MAX.into())?,
            DataType::Int16 => self.whole(path, i16::MIN.into(), i16::MAX.into())?,
            DataType::Int32 => self.whole(path, i32::MIN.into(), i32::MAX.into())?,
            DataType::Int64 => self.whole(path, i64::MIN, i64::MAX)?,
            DataType::Float32 => self.float(path, f32::MIN.into(), f32::MAX.into())?,
            DataType::Float64 => self.float(path, f64::MIN, f64::MAX)?,
            DataType::Decimal128(precision, scale) => self.decimal(path, *precision, *scale)?,
            DataType::Utf8 => Maker::Text { length: self.length(path, TEXT_LENGTH_DEFAULT, TEXT_LENGTH_MAX)? },
            DataType::Binary => Maker::Bytes { length: self.length(path, TEXT_LENGTH_DEFAULT, TEXT_LENGTH_MAX)? },
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Time32(TimeUnit::Millisecond) => {
                let past = match self.take(path, "max-past") {
                    None => 0,
                    Some(text) => {
                        let expected = "expected a duration such as '10 s'";
                        let duration =
                            parse_duration(text).ok_or_else(|| self.error(path, "max-past", text, expected))?;
                        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64)
                    }
                };
                Maker::Time { time: self.time, past_ms_max: past }
            }
            DataType::Struct(fields) => {
                let part = |f: &ArrowField| self.field(f, &format!("{path}.{}", f.name()), false);
                Maker::Row(fields.iter().map(|f| f.as_ref()).map(part).collect::<Result<_, _>>()?)
            }
            DataType::List(element) => {
                let length = self.length(path, COLLECTION_LENGTH_DEFAULT, COLLECTION_LENGTH_MAX)?;
                Maker::List { length, element: Box::new(self.field(element, &format!("{path}.element"), false)?) }
            }
            DataType::Map(entries, _) => self.map(entries, path)?,
            other => {
                let name = &self.table.name;
                return Err(ConnectorError::option(format!(
                    "column '{path}' of table '{name}' has the type {other}, which 'datagen' cannot make"
                )));
            }
        })
    }

    fn map(&mut self, entries: &ArrowField, path: &str) -> Result<Maker, ConnectorError> {
        let length = self.length(path, COLLECTION_LENGTH_DEFAULT, COLLECTION_LENGTH_MAX)?;
        let DataType::Struct(pair) = entries.data_type() else { unreachable!("the entries of a map are a struct") };
        let mut part = |i: usize, name: &str| self.field(&pair[i], &format!("{path}.{name}"), false).map(Box::new);
        Ok(Maker::Map { length, key: part(0, "key")?, value: part(1, "value")? })
    }

    fn whole(&mut self, path: &str, least: i64, most: i64) -> Result<Maker, ConnectorError> {
        let min = self.parse::<i64>(path, "min")?.unwrap_or(least);
        let max = self.parse::<i64>(path, "max")?.unwrap_or(most);
        if min < least || max > most {
            return Err(self.error(
                path,
                "min",
                &format!("{min} (max {max})"),
                "the type of the column is too small for that",
            ));
        }
        self.ordered(path, min <= max)?;
        Ok(Maker::Whole { min, max })
    }

    fn float(&mut self, path: &str, least: f64, most: f64) -> Result<Maker, ConnectorError> {
        let min = self.parse::<f64>(path, "min")?.unwrap_or(least);
        let max = self.parse::<f64>(path, "max")?.unwrap_or(most);
        self.ordered(path, least <= min && min <= max && max <= most)?;
        Ok(Maker::Float { min, max })
    }

    fn decimal(&mut self, path: &str, precision: u8, scale: i8) -> Result<Maker, ConnectorError> {
        let most = 10_i128.pow(u32::from(precision)) - 1;
        let mut bound = |key: &str, default: i128| match self.take(path, key) {
            None => Ok(default),
            Some(text) => parse_decimal::<Decimal128Type>(text.trim(), precision, scale)
                .map_err(|_| self.error(path, key, text, &format!("expected a DECIMAL({precision}, {scale})"))),
        };
        let (min, max) = (bound("min", -most)?, bound("max", most)?);
        self.ordered(path, min <= max)?;
        Ok(Maker::Decimal { min, max })
    }

    fn sequence(&mut self, data_type: &DataType, path: &str) -> Result<Maker, ConnectorError> {
        let most = match data_type {
            DataType::Int8 => i8::MAX.into(),
            DataType::Int16 => i16::MAX.into(),
            DataType::Int32 => i32::MAX.into(),
            DataType::Decimal128(precision, scale) => {
                let digits = u32::from(*precision).saturating_sub(u32::try_from(*scale).unwrap_or(0));
                10_i64.checked_pow(digits).map_or(i64::MAX, |n| n - 1)
            }
            DataType::Int64 | DataType::Float32 | DataType::Float64 | DataType::Utf8 => i64::MAX,
            _ => return Err(self.error(path, "kind", "sequence", "a sequence is for numbers and strings")),
        };
        let (start, end) = (self.parse::<i64>(path, "start")?, self.parse::<i64>(path, "end")?);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(self.error(
                path,
                "kind",
                "sequence",
                &format!("it needs 'fields.{path}.start' and 'fields.{path}.end'"),
            ));
        };
        if start > end || end > most || start < -most {
            return Err(self.error(
                path,
                "end",
                &end.to_string(),
                &format!("it must be between the start {start} and {most}"),
            ));
        }
        let rows = (i128::from(end) - i128::from(start) + 1).min(1 << 62) as u64;
        self.rows = Some(self.rows.map_or(rows, |r| r.min(rows)));
        Ok(Maker::Sequence { start })
    }

    fn length(&mut self, path: &str, default: u64, most: u64) -> Result<usize, ConnectorError> {
        let length = self.parse::<u64>(path, "length")?.unwrap_or(default);
        if length > most {
            return Err(self.error(path, "length", &length.to_string(), &format!("at most {most}")));
        }
        Ok(length as usize)
    }

    fn ordered(&self, path: &str, ordered: bool) -> Result<(), ConnectorError> {
        let table = &self.table.name;
        let message = || {
            format!(
                "the options 'fields.{path}.min' and 'fields.{path}.max' of table '{table}' leave no value: min must not be above max"
            )
        };
        if ordered { Ok(()) } else { Err(ConnectorError::option(message())) }
    }

    fn take(&mut self, path: &str, key: &str) -> Option<&'a str> {
        self.settings.remove(format!("{path}.{key}").as_str())
    }

    fn parse<T: FromStr>(&mut self, path: &str, key: &str) -> Result<Option<T>, ConnectorError>
    where
        T::Err: Display,
    {
        let Some(text) = self.settings.remove(format!("{path}.{key}").as_str()) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|e: T::Err| self.error(path, key, text, &e.to_string()))
    }

    fn error(&self, path: &str, key: &str, value: &str, why: &str) -> ConnectorError {
        ConnectorError::option(format!(
            "option 'fields.{path}.{key}' of table '{}' has the value '{value}': {why}",
            self.table.name
        ))
    }

    fn refuse_leftovers(&self) -> Result<(), ConnectorError> {
        let Some(key) = self.settings.keys().next() else { return Ok(()) };
        let columns: Vec<_> = self.table.schema.fields().iter().map(|f| f.name().as_str()).collect();
        Err(ConnectorError::option(format!(
            "table '{}' has the option 'fields.{key}', which names no column or does not fit the column's type and kind; columns are {}, \
             settings kind, null-rate, min, max (numbers), length (strings, arrays, maps), start, end (sequences), max-past (times)",
            self.table.name,
            columns.join(", ")
        )))
    }
}
