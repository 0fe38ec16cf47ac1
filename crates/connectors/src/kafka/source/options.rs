//! The options of the reading side: which topics, from where, up to where.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

use crate::error::ConnectorError;
use crate::table::Options;

use super::super::Kind;
use super::super::client::Cluster;

/// How often new partitions are looked for, as in Flink.
const DISCOVERY_INTERVAL_DEFAULT: Duration = Duration::from_secs(300);

/// The reading side of a table.
#[derive(Clone, Debug)]
pub(super) struct SourceOptions {
    pub(super) cluster: Cluster,
    pub(super) topics: Topics,
    pub(super) start: Bound,
    /// None: the table has no end.
    pub(super) stop: Option<Bound>,
    /// None: partitions are looked for once.
    pub(super) discovery_interval: Option<Duration>,
}

/// Which topics.
#[derive(Clone, Debug)]
pub(super) enum Topics {
    Named(Vec<String>),
    Matching(Regex),
}

/// A place in each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Earliest,
    Latest,
    /// What the group has committed.
    Group,
    /// The first message at or after a time, in milliseconds.
    Timestamp(i64),
    /// By partition.
    Offsets(BTreeMap<i32, i64>),
}

impl SourceOptions {
    /// Reads the options of the reading side.
    pub(super) fn read(options: &mut Options<'_>, kind: Kind) -> Result<SourceOptions, ConnectorError> {
        let cluster = Cluster::read(options)?;
        let topics = topics(options)?;
        // A table by key needs what was written to it from the beginning.
        let default = if kind == Kind::Plain && cluster.group.is_some() { "group-offsets" } else { "earliest-offset" };
        let start = match kind {
            Kind::Plain => bound(options, "startup", default, &cluster)?,
            Kind::Upsert => Some(Bound::Earliest),
        };
        let start = start.expect("a start has no mode without bound");
        let stop = bound(options, "bounded", "unbounded", &cluster)?;
        for bound in [Some(&start), stop.as_ref()].into_iter().flatten() {
            let several = !matches!(&topics, Topics::Named(names) if names.len() == 1);
            if matches!(bound, Bound::Offsets(_)) && several {
                return Err(ConnectorError::option(format!(
                    "table '{}' reads several topics: 'specific-offsets' needs one",
                    cluster.table
                )));
            }
        }
        let discovery_interval = options.duration("scan.topic-partition-discovery.interval")?;
        let discovery_interval =
            Some(discovery_interval.unwrap_or(DISCOVERY_INTERVAL_DEFAULT)).filter(|i| !i.is_zero());
        options.accept(&["scan.parallelism"]);
        Ok(SourceOptions { cluster, topics, start, stop, discovery_interval })
    }
}

fn topics(options: &mut Options<'_>) -> Result<Topics, ConnectorError> {
    let table = options.table().name.clone();
    match (options.get("topic"), options.get("topic-pattern")) {
        (Some(_), Some(_)) => Err(ConnectorError::option(format!(
            "the options 'topic' and 'topic-pattern' of table '{table}' exclude each other: give one of them"
        ))),
        (None, None) => {
            Err(ConnectorError::option(format!("table '{table}' needs the option 'topic' (or 'topic-pattern')")))
        }
        (Some(text), None) => {
            let mut names: Vec<String> =
                text.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            names.sort_unstable();
            names.dedup();
            match names.is_empty() {
                true => Err(ConnectorError::option(format!(
                    "option 'topic' of table '{table}' is empty: give one topic, or several separated by ';'"
                ))),
                false => Ok(Topics::Named(names)),
            }
        }
        (None, Some(pattern)) => {
            // As in Java, the pattern must match the whole name.
            let whole = Regex::new(&format!("^(?:{pattern})$"));
            whole.map(Topics::Matching).map_err(|error| {
                let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                ConnectorError::option(format!(
                    "option 'topic-pattern' of table '{table}' has the value '{pattern}', which is no regular expression: {reason}"
                ))
            })
        }
    }
}

/// Reads `scan.startup.*` or `scan.bounded.*`; none: unbounded.
fn bound(
    options: &mut Options<'_>,
    side: &str,
    default: &'static str,
    cluster: &Cluster,
) -> Result<Option<Bound>, ConnectorError> {
    let mode_key = format!("scan.{side}.mode");
    let first: &[&'static str] = if side == "startup" { &["earliest-offset"] } else { &["unbounded"] };
    let legal = [first, &["latest-offset", "group-offsets", "timestamp", "specific-offsets"]].concat();
    let mode = options.one_of(&mode_key, default, &legal)?;
    let timestamp_key = format!("scan.{side}.timestamp-millis");
    let offsets_key = format!("scan.{side}.specific-offsets");
    let timestamp: Option<i64> = options.parse_optional(&timestamp_key)?;
    let offsets = options.get(&offsets_key);
    let table = &cluster.table;
    let needs = |key: &str| ConnectorError::option(format!("'{mode_key}' = '{mode}' of table '{table}' needs '{key}'"));
    for (key, given, wanted) in
        [(&timestamp_key, timestamp.is_some(), "timestamp"), (&offsets_key, offsets.is_some(), "specific-offsets")]
    {
        if given && mode != wanted {
            return Err(ConnectorError::option(format!(
                "option '{key}' of table '{table}' has no effect without '{mode_key}' = '{wanted}'"
            )));
        }
    }
    Ok(Some(match mode {
        "unbounded" => return Ok(None),
        "earliest-offset" => Bound::Earliest,
        "latest-offset" => Bound::Latest,
        "timestamp" => Bound::Timestamp(timestamp.ok_or_else(|| needs(&timestamp_key))?),
        "specific-offsets" => {
            let text = offsets.ok_or_else(|| needs(&offsets_key))?;
            let parsed = parse_offsets(text).ok_or_else(|| {
                ConnectorError::option(format!(
                    "option '{offsets_key}' of table '{table}' has the value '{text}': expected 'partition:0,offset:42;partition:1,offset:300'"
                ))
            })?;
            Bound::Offsets(parsed)
        }
        _ => {
            if cluster.group.is_none() {
                return Err(needs("properties.group.id"));
            }
            Bound::Group
        }
    }))
}

/// `partition:0,offset:42;partition:1,offset:300`
fn parse_offsets(text: &str) -> Option<BTreeMap<i32, i64>> {
    let mut offsets = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (partition, offset) = part.split_once(',')?;
        let partition: i32 = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
        let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
        if partition < 0 || offset < 0 || offsets.insert(partition, offset).is_some() {
            return None;
        }
    }
    (!offsets.is_empty()).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_by_partition() {
        let parsed = parse_offsets("partition:0,offset:42; partition:1, offset:300;").unwrap();
        assert_eq!(parsed, BTreeMap::from([(0, 42), (1, 300)]));
        for wrong in ["", "0:42", "partition:0", "partition:0,offset:-1", "partition:0,offset:1;partition:0,offset:2"] {
            assert_eq!(parse_offsets(wrong), None, "{wrong}");
        }
    }
}
