//! Records of a table that are wrong: what its options say is to become of them, how a reader hands them over, and
//! where good rows come from, for those who find fault with them later. Called by the readers, the engine's source
//! operators and the planner. Decides nothing about a job.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::ConnectorError;
use crate::format::{EXCERPT_MAX, excerpt};
use crate::table::{Options, TableSpec};

/// The option that says what becomes of wrong records.
pub const BAD_RECORDS: &str = "bad-records";
/// The option that names the table for dead letters.
pub const BAD_RECORDS_TABLE: &str = "bad-records.table";
/// How much of a dead letter's bytes is kept.
const RAW_SIZE: &str = "bad-records.max-raw-size";
const FRACTION: &str = "bad-records.max-fraction";
const MIN_RECORDS: &str = "bad-records.min-records";
/// All options of this module. A sink accepts them, since one declaration may serve both sides.
pub(crate) const BAD_RECORDS_OPTIONS: &[&str] = &[BAD_RECORDS, BAD_RECORDS_TABLE, RAW_SIZE, FRACTION, MIN_RECORDS];

/// Flink's spelling of `drop`, behind the name of a format.
const IGNORE: &str = ".ignore-parse-errors";
/// In base64 it fits into a message that a Kafka broker takes unless told otherwise.
const RAW_SIZE_DEFAULT: u64 = 512 << 10;
const MIN_RECORDS_DEFAULT: u64 = 1_000;

/// What becomes of a record that is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRecordPolicy {
    /// It stops the job.
    #[default]
    Fail,
    /// It is dropped and counted.
    Drop,
    /// It goes to a table.
    DeadLetter,
}

/// What a table's options say of wrong records.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRecordOptions {
    /// What becomes of them.
    pub policy: BadRecordPolicy,
    /// Whether `'bad-records'` itself is given. Then all columns are decoded, whatever the queries need, so that it does not
    /// depend on them which records are wrong.
    pub explicit: bool,
    /// The table for dead letters; there with [`BadRecordPolicy::DeadLetter`] alone.
    pub table: Option<String>,
    /// Bytes of a record that a dead letter keeps.
    pub raw_bytes_max: usize,
    /// Which part of the records may be wrong, from 0 to below 1.
    pub max_fraction: Option<f64>,
    /// Over how many records that part is taken at least.
    pub min_records: u64,
}

/// Reads what a table's options say of wrong records; a table whose connector does not know the options has none of them.
///
/// # Errors
/// Values that are none, and options that contradict each other.
pub fn bad_record_options(table: &TableSpec) -> Result<BadRecordOptions, ConnectorError> {
    BadRecordOptions::read(&mut table.options())
}

impl BadRecordOptions {
    /// Reads the options of a table that is read.
    pub(crate) fn read(options: &mut Options<'_>) -> Result<BadRecordOptions, ConnectorError> {
        let name = options.table().name.clone();
        let explicit = options.get(BAD_RECORDS).is_some();
        let policy = match options.one_of(BAD_RECORDS, "fail", &["fail", "drop", "dead-letter"])? {
            "drop" => BadRecordPolicy::Drop,
            "dead-letter" => BadRecordPolicy::DeadLetter,
            _ => BadRecordPolicy::Fail,
        };
        let policy = match (explicit, ignoring(&options.table().options)) {
            (true, Some((key, ignores))) if ignores != (policy == BadRecordPolicy::Drop) => {
                let word = options.get(BAD_RECORDS).unwrap_or_default();
                return Err(ConnectorError::option(format!(
                    "'{BAD_RECORDS}' = '{word}' of table '{name}' contradicts '{key}' = '{ignores}': give '{BAD_RECORDS}' alone"
                )));
            }
            (false, Some((_, true))) => BadRecordPolicy::Drop,
            _ => policy,
        };
        let table = options.get(BAD_RECORDS_TABLE).map(str::to_owned);
        let raw_bytes = options.size(RAW_SIZE)?;
        let max_fraction: Option<f64> = options.parse_optional(FRACTION)?;
        let min_records: Option<u64> = options.parse_optional(MIN_RECORDS)?;
        let needs = |key: &str, other: &str| {
            Err(ConnectorError::option(format!("option '{key}' of table '{name}' has no effect without {other}")))
        };
        match (policy, &table) {
            (BadRecordPolicy::DeadLetter, None) => {
                return Err(ConnectorError::option(format!(
                    "'{BAD_RECORDS}' = 'dead-letter' of table '{name}' needs '{BAD_RECORDS_TABLE}', the name of a table that takes them"
                )));
            }
            (BadRecordPolicy::Fail | BadRecordPolicy::Drop, Some(_)) => {
                return needs(BAD_RECORDS_TABLE, "'bad-records' = 'dead-letter'");
            }
            _ => {}
        }
        if raw_bytes.is_some() && policy != BadRecordPolicy::DeadLetter {
            return needs(RAW_SIZE, "'bad-records' = 'dead-letter'");
        }
        if max_fraction.is_some() && policy == BadRecordPolicy::Fail {
            return needs(FRACTION, "'bad-records' = 'drop' or 'dead-letter': the first wrong record stops the job");
        }
        if min_records.is_some() && max_fraction.is_none() {
            return needs(MIN_RECORDS, &format!("'{FRACTION}'"));
        }
        if let Some(fraction) = max_fraction.filter(|fraction| !(0.0..1.0).contains(fraction)) {
            return Err(ConnectorError::option(format!(
                "option '{FRACTION}' of table '{name}' has the value '{fraction}': expected a number from 0 to below 1, such as '0.1'"
            )));
        }
        let raw_bytes_max = usize::try_from(raw_bytes.unwrap_or(RAW_SIZE_DEFAULT)).unwrap_or(usize::MAX);
        let min_records = min_records.unwrap_or(MIN_RECORDS_DEFAULT).max(1);
        Ok(BadRecordOptions { policy, explicit, table, raw_bytes_max, max_fraction, min_records })
    }

    /// What a decoder does with a wrong record; `ignores`: what its format's own option says.
    pub(crate) fn on_error(&self, ignores: bool) -> OnError {
        match self.policy {
            BadRecordPolicy::DeadLetter => OnError::Keep,
            BadRecordPolicy::Drop if self.explicit || ignores => OnError::Count,
            BadRecordPolicy::Drop | BadRecordPolicy::Fail => OnError::Stop,
        }
    }
}

/// What a decoder does at a record that is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It stops there.
    #[default]
    Stop,
    /// It goes on, and tells how many there were and what was wrong with the last.
    Count,
    /// It goes on, and keeps the records with what is wrong with them.
    Keep,
}

/// What options such as `json.ignore-parse-errors` say, with the name of one of them; true where any of them is.
fn ignoring(options: &BTreeMap<String, String>) -> Option<(&str, bool)> {
    let given = options.iter().filter(|(key, _)| key.ends_with(IGNORE));
    given.map(|(key, value)| (key.as_str(), value.trim() == "true")).max_by_key(|(_, ignores)| *ignores)
}

/// What the numbers of positions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionUnit {
    /// Bytes of plain text before the record.
    Byte,
    /// Offsets of a partition.
    Offset,
    /// Rows of the file before it.
    Row,
}

/// A record that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it begins in its split.
    pub position: i64,
    /// The line in which it begins, from 1 on, in a file of text.
    pub line: Option<i64>,
    /// Its bytes; absent where it has none of its own (Parquet), and where nobody wants them.
    pub raw: Option<Vec<u8>>,
    /// The bytes of its key, where messages have one.
    pub raw_key: Option<Vec<u8>>,
    /// Column and reason.
    pub reason: String,
}

/// Records of a stretch of a split that were rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub count: u64,
    /// The place of the last one and what is wrong with it, for messages.
    pub newest: Option<String>,
    /// The records, in order; none where they are only counted.
    pub letters: Vec<DeadLetter>,
}

impl Rejected {
    /// Records of a split, in order: those that are kept, or the last of those that are only counted.
    pub(crate) fn new(split: &str, unit: PositionUnit, count: u64, letters: Vec<DeadLetter>, keep: bool) -> Rejected {
        let newest = letters
            .last()
            .map(|letter| format!("{}: {}", record_place(split, unit, letter.position, letter.line), letter.reason));
        Rejected { count, newest, letters: if keep { letters } else { Vec::new() } }
    }
}

/// Where the rows of a batch come from.
#[derive(Clone, Debug)]
pub struct Origins {
    /// What positions count.
    pub unit: PositionUnit,
    /// What the ranges point into.
    pub bytes: Arc<Vec<u8>>,
    /// For each row its record.
    pub rows: Vec<Origin>,
}

/// The record of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// See [`DeadLetter::position`].
    pub position: i64,
    /// See [`DeadLetter::line`].
    pub line: Option<i64>,
    /// Its bytes.
    pub raw: Option<Range<usize>>,
    /// The bytes of its key.
    pub raw_key: Option<Range<usize>>,
}

impl Origins {
    /// The record of a row, rejected for a reason.
    #[must_use]
    pub fn letter(&self, row: usize, reason: String) -> DeadLetter {
        let Origin { position, line, .. } = self.rows[row];
        let part = |range: &Option<Range<usize>>| range.clone().map(|range| self.bytes[range].to_vec());
        DeadLetter { position, line, raw: part(&self.rows[row].raw), raw_key: part(&self.rows[row].raw_key), reason }
    }

    /// Names the record of a row of a split for people.
    #[must_use]
    pub fn place(&self, split: &str, row: usize) -> String {
        record_place(split, self.unit, self.rows[row].position, self.rows[row].line)
    }

    /// A part of a row's record, printable; none where its bytes are not known.
    #[must_use]
    pub fn excerpt(&self, row: usize) -> Option<String> {
        let range = self.rows[row].raw.clone()?;
        Some(excerpt(&self.bytes[range], 0, EXCERPT_MAX))
    }
}

/// Names a record for people.
#[must_use]
pub fn record_place(split: &str, unit: PositionUnit, position: i64, line: Option<i64>) -> String {
    match (unit, line) {
        (PositionUnit::Byte, Some(line)) => format!("'{split}', line {line}, byte {position}"),
        (PositionUnit::Byte, None) => format!("'{split}', byte {position}"),
        (PositionUnit::Offset, _) => format!("'{split}', offset {position}"),
        (PositionUnit::Row, _) => format!("'{split}', row {}", position.saturating_add(1)),
    }
}

/// What a user can do about a wrong record that has stopped a job.
pub const BAD_RECORD_ADVICE: &str =
    "mend it, or set 'bad-records' = 'drop' to drop and count such records, or 'dead-letter' to keep them in a table";

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<BadRecordOptions, String> {
        let table = TableSpec {
            name: "t".to_owned(),
            schema: Arc::new(Schema::empty()),
            primary_key: vec![],
            partition_keys: vec![],
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        bad_record_options(&table).map_err(|error| error.message)
    }

    #[test]
    fn flinks_option_is_another_spelling_of_drop() {
        assert_eq!(read(&[]).unwrap().policy, BadRecordPolicy::Fail);
        let flink = read(&[("json.ignore-parse-errors", "true")]).unwrap();
        assert_eq!((flink.policy, flink.explicit), (BadRecordPolicy::Drop, false));
        assert_eq!((flink.on_error(true), flink.on_error(false)), (OnError::Count, OnError::Stop));
        let both = read(&[("bad-records", "drop"), ("value.csv.ignore-parse-errors", "true")]).unwrap();
        assert_eq!((both.policy, both.on_error(false)), (BadRecordPolicy::Drop, OnError::Count));
        for (word, ignores) in [("fail", "true"), ("dead-letter", "true"), ("drop", "false")] {
            let message = read(&[("bad-records", word), ("json.ignore-parse-errors", ignores)]).unwrap_err();
            let expected = format!(
                "'bad-records' = '{word}' of table 't' contradicts 'json.ignore-parse-errors' = '{ignores}': give 'bad-records' alone"
            );
            assert_eq!(message, expected);
        }
        assert!(read(&[("bad-records", "fail"), ("json.ignore-parse-errors", "false")]).is_ok());
    }

    #[test]
    fn options_without_effect_are_refused() {
        let letters = [("bad-records", "dead-letter"), ("bad-records.table", "d")];
        let read_with = |first: &[(&str, &str)], more: &[(&str, &str)]| read(&[first, more].concat());
        let options = read_with(&letters, &[("bad-records.max-fraction", "0.1")]).unwrap();
        assert_eq!(
            (options.table.as_deref(), options.max_fraction, options.min_records),
            (Some("d"), Some(0.1), 1_000)
        );
        assert_eq!(options.raw_bytes_max, 512 << 10);
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[("bad-records", "keep")], "expected one of fail, drop, dead-letter"),
            (&[("bad-records", "dead-letter")], "needs 'bad-records.table'"),
            (&[("bad-records.table", "d")], "'bad-records.table' of table 't' has no effect without"),
            (&[("bad-records.max-raw-size", "1 mb")], "'bad-records.max-raw-size' of table 't' has no effect"),
            (&[("bad-records.max-fraction", "0.5")], "'bad-records.max-fraction' of table 't' has no effect"),
            (
                &[("bad-records", "drop"), ("bad-records.min-records", "5")],
                "has no effect without 'bad-records.max-fraction'",
            ),
            (&[("bad-records", "drop"), ("bad-records.max-fraction", "1")], "expected a number from 0 to below 1"),
        ];
        for (options, part) in cases {
            let message = read(options).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
