//! A table as the user declared it, and typed reading of its options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::secret;

/// Options that every table may carry: the planner and the engine read them, not the connector.
const GENERIC_OPTIONS: [&str; 12] = [
    "connector",
    "scan.watermark.alignment.group",
    "scan.watermark.alignment.max-drift",
    "scan.watermark.idle-timeout",
    "delivery",
    "lookup.cache",
    "lookup.full-cache.reload-strategy",
    "lookup.full-cache.periodic-reload.interval",
    "lookup.partial-cache.max-rows",
    "lookup.partial-cache.expire-after-write",
    "lookup.partial-cache.cache-missing-key",
    "lookup.max-retries",
];

/// A table: its physical columns and its `WITH` options. Stored with the job.
///
/// Types: `STRING` is `Utf8`, `TIMESTAMP(p)` and `TIMESTAMP_LTZ(p)` are `Timestamp` in milliseconds for p <= 3,
/// microseconds for p <= 6, else nanoseconds, with time zone `UTC` for `_LTZ` and none otherwise; `DECIMAL` is
/// `Decimal128`; `ROW` is `Struct`, `ARRAY` is `List`, `MAP` is `Map`, `BYTES` is `Binary`, `DATE` is `Date32`,
/// `TIME` is `Time32(Millisecond)`. A `NOT NULL` column is not nullable in the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Name, as declared.
    pub name: String,
    /// Columns that the connector reads or writes.
    pub schema: SchemaRef,
    /// Columns of `PRIMARY KEY ... NOT ENFORCED`; empty without one.
    pub primary_key: Vec<String>,
    /// Columns of `PARTITIONED BY`; empty without.
    pub partition_keys: Vec<String>,
    /// `WITH` options, names as written.
    pub options: BTreeMap<String, String>,
}

/// Whether an option names a file or a place, which is relative to where the job is submitted.
#[must_use]
pub fn is_path_option(name: &str) -> bool {
    name == "path" || PATH_ENDS.iter().any(|end| name.ends_with(end))
}

/// What the names of options of files end with, whatever part of a message they are for.
const PATH_ENDS: [&str; 3] = ["protobuf.descriptor-file", "protobuf.schema-file", "-confluent.ssl.ca.location"];

/// Under this name a field of [`TableSpec::schema`] keeps which metadata of a record it is, if it is one.
pub const METADATA_KEY: &str = "mainstem.metadata";

impl TableSpec {
    /// Which metadata of its record a column is (`METADATA FROM`); none: it is part of the data.
    #[must_use]
    pub fn metadata_of(&self, column: usize) -> Option<&str> {
        self.schema.field(column).metadata().get(METADATA_KEY).map(String::as_str)
    }

    /// A reader of the options that remembers which were asked for, so that unknown ones can be refused.
    #[must_use]
    pub fn options(&self) -> Options<'_> {
        Options { table: self, asked: BTreeSet::new() }
    }
}

/// Typed access to the options of a table. Every option that a connector knows is asked for, then
/// [`Options::finish`] refuses the rest. A reference to a secret is text like any other; where a number, a duration or the
/// like is asked for, it counts as absent: what it stands for is checked where the connector is made.
pub struct Options<'a> {
    table: &'a TableSpec,
    asked: BTreeSet<String>,
}

impl<'a> Options<'a> {
    /// The table that the options belong to.
    #[must_use]
    pub fn table(&self) -> &'a TableSpec {
        self.table
    }

    /// An option's text, if it was given.
    pub fn get(&mut self, key: &str) -> Option<&'a str> {
        self.asked.insert(key.to_owned());
        self.table.options.get(key).map(String::as_str)
    }

    /// All options whose names begin with a prefix, with the prefix removed. For families such as
    /// `fields.<column>.kind`.
    pub fn with_prefix(&mut self, prefix: &str) -> Vec<(&'a str, &'a str)> {
        let matching = self.table.options.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())));
        let matching: Vec<_> = matching.collect();
        self.asked.extend(matching.iter().map(|(k, _)| format!("{prefix}{k}")));
        matching
    }

    /// An option that must be there.
    pub fn required(&mut self, key: &str) -> Result<&'a str, ConnectorError> {
        let table = &self.table.name;
        self.get(key).ok_or_else(|| ConnectorError::option(format!("table '{table}' needs the option '{key}'")))
    }

    /// An option of a type that has a text form (numbers, booleans), or its default.
    pub fn parse<T: FromStr>(&mut self, key: &str, default: T) -> Result<T, ConnectorError>
    where
        T::Err: Display,
    {
        Ok(self.parse_optional(key)?.unwrap_or(default))
    }

    /// Like [`Options::parse`], without a default.
    pub fn parse_optional<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, ConnectorError>
    where
        T::Err: Display,
    {
        let table = &self.table.name;
        let parse = |text: &str| {
            text.trim().parse::<T>().map_err(|e| {
                ConnectorError::option(format!("option '{key}' of table '{table}' has the value '{text}': {e}"))
            })
        };
        self.value(key).map(parse).transpose()
    }

    /// The text of an option that is more than a text.
    fn value(&mut self, key: &str) -> Option<&'a str> {
        self.get(key).filter(|text| !secret::has_reference(text))
    }

    /// A duration such as `10 s`, `500 ms`, `1 min`, if it was given.
    pub fn duration(&mut self, key: &str) -> Result<Option<Duration>, ConnectorError> {
        let table = &self.table.name;
        let parse = |text| {
            parse_duration(text).ok_or_else(|| {
                ConnectorError::option(format!("option '{key}' of table '{table}' has the value '{text}': expected a duration such as '10 s' or '500 ms'"))
            })
        };
        self.value(key).map(parse).transpose()
    }

    /// A size in bytes such as `128 mb`, if it was given.
    pub fn size(&mut self, key: &str) -> Result<Option<u64>, ConnectorError> {
        let table = &self.table.name;
        let parse = |text| {
            parse_size(text).ok_or_else(|| {
                ConnectorError::option(format!("option '{key}' of table '{table}' has the value '{text}': expected a size such as '128 mb' or '64 kb'"))
            })
        };
        self.value(key).map(parse).transpose()
    }

    /// One of a few words, or the default.
    pub fn one_of(
        &mut self,
        key: &str,
        default: &'static str,
        legal: &[&'static str],
    ) -> Result<&'static str, ConnectorError> {
        let table = &self.table.name;
        let Some(text) = self.value(key) else { return Ok(default) };
        legal.iter().find(|word| word.eq_ignore_ascii_case(text)).copied().ok_or_else(|| {
            ConnectorError::option(format!(
                "option '{key}' of table '{table}' has the value '{text}': expected one of {}",
                legal.join(", ")
            ))
        })
    }

    /// Takes note of names that are legal here though nobody reads them, such as the sink's options of a table
    /// that is used as a source.
    pub fn accept(&mut self, names: &[&str]) {
        self.asked.extend(names.iter().map(|&name| name.to_owned()));
    }

    /// The names that were asked for so far.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    /// Refuses options that nobody asked for, naming those that exist.
    pub fn finish(mut self) -> Result<(), ConnectorError> {
        self.asked.extend(GENERIC_OPTIONS.map(str::to_owned));
        let Some(unknown) = self.table.options.keys().find(|k| !self.asked.contains(*k)) else { return Ok(()) };
        let known: Vec<_> = self.asked.iter().map(String::as_str).collect();
        Err(ConnectorError::option(format!(
            "table '{}' has the unknown option '{unknown}'; known here: {}",
            self.table.name,
            known.join(", ")
        )))
    }
}

/// Reads a duration in Flink's notation: a number and a unit (`ms`, `s`, `min`, `h`, `d` and their long
/// forms); a bare number is milliseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms = match unit.to_ascii_lowercase().as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// Reads a size in Flink's notation: a number and a unit (`b`, `kb`, `mb`, `gb` and their long forms, all
/// powers of 1024); a bare number is bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tebibytes" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_follow_flink() {
        assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2min"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("1 fortnight"), None);
        assert_eq!(parse_duration("s"), None);
        assert_eq!(parse_size("128MB"), Some(128 << 20));
        assert_eq!(parse_size("99999999999999999 gb"), None);
    }
}
