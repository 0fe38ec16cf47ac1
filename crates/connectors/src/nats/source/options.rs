//! The options of the reading side: which subjects, from where, up to where.

use crate::error::ConnectorError;
use crate::table::Options;

use super::super::subject::{is_pattern, overlap};

/// Splits that a table may have.
const SUBJECTS_MAX: usize = 1_000;

/// The reading side of a table.
#[derive(Clone, Debug)]
pub(super) struct SourceOptions {
    /// Patterns of subjects, each a split; none: the stream is one.
    pub(super) subjects: Vec<String>,
    pub(super) start: Start,
    /// None: the table has no end.
    pub(super) stop: Option<Stop>,
    /// Whether messages that are gone before they were read are passed over, with a warning.
    pub(super) skips_missing: bool,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    /// Behind what is there.
    Latest,
    Sequence(u64),
    /// The first message that was stored at or after a time, in milliseconds since 1970.
    Timestamp(i64),
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// With what is there when the job first starts.
    Latest,
    /// With this message.
    Sequence(u64),
}

impl SourceOptions {
    /// Reads the options of the reading side.
    pub(super) fn read(options: &mut Options<'_>) -> Result<SourceOptions, ConnectorError> {
        let table = options.table().name.clone();
        let subjects = subjects(options, &table)?;
        let mode = options.one_of("scan.startup.mode", "earliest", &["earliest", "latest", "sequence", "timestamp"])?;
        let sequence = with_mode(options, &table, "scan.startup.sequence", "scan.startup.mode", mode, "sequence")?;
        let key = "scan.startup.timestamp-millis";
        let timestamp = with_mode(options, &table, key, "scan.startup.mode", mode, "timestamp")?;
        let start = match (mode, sequence, timestamp) {
            ("latest", ..) => Start::Latest,
            (_, Some(sequence), _) => Start::Sequence(sequence.max(1)),
            (_, _, Some(ms)) => Start::Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)),
            _ => Start::Earliest,
        };
        let mode = options.one_of("scan.bounded.mode", "unbounded", &["unbounded", "latest", "sequence"])?;
        let sequence = with_mode(options, &table, "scan.bounded.sequence", "scan.bounded.mode", mode, "sequence")?;
        let stop = match (mode, sequence) {
            ("latest", _) => Some(Stop::Latest),
            (_, Some(sequence)) => Some(Stop::Sequence(sequence)),
            _ => None,
        };
        let skips_missing = options.one_of("scan.missing-messages", "fail", &["fail", "skip"])? == "skip";
        Ok(SourceOptions { subjects, start, stop, skips_missing })
    }
}

/// A number that one mode needs and the others do not take.
fn with_mode(
    options: &mut Options<'_>,
    table: &str,
    key: &str,
    mode_key: &str,
    mode: &str,
    wanted: &str,
) -> Result<Option<u64>, ConnectorError> {
    let given = options.get(key).is_some();
    let value: Option<u64> = options.parse_optional(key)?;
    match (given, mode == wanted) {
        (true, false) => Err(ConnectorError::option(format!(
            "option '{key}' of table '{table}' has no effect without '{mode_key}' = '{wanted}'"
        ))),
        (false, true) => {
            Err(ConnectorError::option(format!("'{mode_key}' = '{mode}' of table '{table}' needs '{key}'")))
        }
        _ => Ok(value),
    }
}

fn subjects(options: &mut Options<'_>, table: &str) -> Result<Vec<String>, ConnectorError> {
    let Some(text) = options.get("subjects") else { return Ok(Vec::new()) };
    let mut subjects: Vec<String> =
        text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    subjects.sort_unstable();
    let wrong = |why: String| {
        Err(ConnectorError::option(format!("option 'subjects' of table '{table}' has the value '{text}': {why}")))
    };
    if subjects.is_empty() || subjects.len() > SUBJECTS_MAX {
        return wrong(format!("expected one subject or up to {SUBJECTS_MAX}, separated by ';'"));
    }
    if let Some(illegal) = subjects.iter().find(|subject| !is_pattern(subject)) {
        return wrong(format!("'{illegal}' is no subject, such as 'orders.created', 'orders.*' or 'orders.>'"));
    }
    for (number, one) in subjects.iter().enumerate() {
        if let Some(other) = subjects[number + 1..].iter().find(|other| overlap(one, other)) {
            return wrong(format!("'{one}' and '{other}' have subjects in common, whose messages would be read twice"));
        }
    }
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::table::TableSpec;

    fn read(options: &[(&str, &str)]) -> Result<SourceOptions, String> {
        let table = TableSpec {
            name: "t".to_owned(),
            schema: Arc::new(Schema::empty()),
            primary_key: vec![],
            partition_keys: vec![],
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        SourceOptions::read(&mut table.options()).map_err(|error| error.message)
    }

    #[test]
    fn where_reading_begins_and_ends() {
        let options = read(&[]).unwrap();
        assert_eq!((options.start, options.stop), (Start::Earliest, None));
        let sequence =
            [("scan.startup.mode", "sequence"), ("scan.startup.sequence", "7"), ("scan.bounded.mode", "latest")];
        let options = read(&sequence).unwrap();
        assert_eq!((options.start, options.stop), (Start::Sequence(7), Some(Stop::Latest)));
        for (options, part) in [
            (&[("scan.startup.sequence", "7")][..], "has no effect without 'scan.startup.mode' = 'sequence'"),
            (&[("scan.startup.mode", "timestamp")], "needs 'scan.startup.timestamp-millis'"),
            (&[("scan.bounded.mode", "sequence")], "needs 'scan.bounded.sequence'"),
            (&[("subjects", "a.*;a.b")], "read twice"),
            (&[("subjects", "a b")], "is no subject"),
            (&[("subjects", ";")], "expected one subject"),
        ] {
            let message = read(options).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
