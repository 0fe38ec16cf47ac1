//! The options of a table.

use std::time::Duration;

use super::address::{Address, UrlParts};
use crate::error::{ConnectorError, ErrorKind};
use crate::secret;
use crate::sink::Delivery;
use crate::table::{Options, TableSpec};

/// Rows that a sink without epochs collects, unless the user says otherwise.
const BUFFER_ROWS_DEFAULT: usize = 10_000;
/// Most rows that may be asked for.
const BUFFER_ROWS_MAX: usize = 1_000_000;
/// How long it collects them.
const BUFFER_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Tries after a first one that failed.
const RETRIES_DEFAULT: u32 = 3;

/// Options that only a sink reads.
const SINK_OPTIONS: &[&str] = &[
    "sink.delivery-guarantee",
    "sink.buffer-flush.max-rows",
    "sink.buffer-flush.interval",
    "sink.max-retries",
    "sink.parallelism",
];
/// Options that only lookups and scans read, besides those that every table may have.
const SOURCE_OPTIONS: &[&str] = &["scan.fetch-size"];

/// Where a table is.
pub(super) struct TableOptions {
    /// None while the options hold references to secrets: then nothing is opened.
    address: Option<Address>,
    /// Schema and name of the table.
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

/// How a table is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SinkOptions {
    pub(super) delivery: Delivery,
    /// For writers without epochs.
    pub(super) buffer_rows: usize,
    pub(super) buffer_interval: Duration,
    pub(super) retries_max: u32,
}

/// How changes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CdcOptions {
    pub(super) slot: String,
    pub(super) publication: String,
    /// Whether the table is copied before its changes.
    pub(super) copies: bool,
    /// Whether a TRUNCATE is passed over; otherwise it stops the job.
    pub(super) skips_truncate: bool,
}

impl TableOptions {
    fn read(options: &mut Options<'_>) -> Result<TableOptions, ConnectorError> {
        let table = &options.table().name;
        let url = match options.table().options.get("connector").map(String::as_str) {
            Some("jdbc") => Some(options.required("url")?),
            _ => options.get("url"),
        };
        let mut parts = match url.filter(|url| !secret::has_reference(url)) {
            Some(url) => UrlParts::of_url(url, table)?,
            None => UrlParts::default(),
        };
        let (host, port) = (options.get("hostname"), options.parse_optional::<u16>("port")?);
        parts.host = host.map(str::to_owned).or(parts.host);
        parts.port = port.or(parts.port);
        parts.database = options.get("database-name").map(str::to_owned).or(parts.database);
        parts.user = options.get("username").map(str::to_owned).or(parts.user);
        parts.password = options.get("password").map(str::to_owned).or(parts.password);
        parts.schema = options.get("schema-name").map(str::to_owned).or(parts.schema);
        parts.connect_timeout = options.duration("connection.max-retry-timeout")?.or(parts.connect_timeout);
        // Which driver Flink would load.
        options.accept(&["driver"]);
        let name = options.required("table-name")?;
        let (schema, name) = match name.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name.to_owned()),
            None => (parts.schema.clone(), name.to_owned()),
        };
        let unresolved = options.table().options.values().any(|value| secret::has_reference(value));
        let address = if unresolved { None } else { Some(Address::new(parts, table)?) };
        Ok(TableOptions { address, schema, name })
    }

    /// Where to connect to.
    pub(super) fn address(&self) -> Result<&Address, ConnectorError> {
        let planned = "bug: a table that was only planned is opened; please report it";
        self.address.as_ref().ok_or_else(|| ConnectorError::new(ErrorKind::External, planned))
    }

    /// The table as the user wrote it, for messages.
    pub(super) fn shown(&self) -> String {
        self.schema.as_ref().map_or(self.name.clone(), |schema| format!("{schema}.{}", self.name))
    }
}

/// The options of a table that is written.
pub(super) fn of_sink(table: &TableSpec) -> Result<(TableOptions, SinkOptions), ConnectorError> {
    let mut options = table.options();
    let place = TableOptions::read(&mut options)?;
    let levels = ["exactly-once", "at-least-once", "none"];
    let guarantee = options.one_of("sink.delivery-guarantee", "exactly-once", &levels)?;
    // What every table may have comes first; the planner has checked its value.
    let wanted = options.get("delivery").unwrap_or(guarantee);
    let delivery = if wanted == "exactly-once" { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
    let buffer_rows = match options.parse("sink.buffer-flush.max-rows", BUFFER_ROWS_DEFAULT)? {
        0 => BUFFER_ROWS_DEFAULT,
        rows if rows <= BUFFER_ROWS_MAX => rows,
        rows => {
            return Err(ConnectorError::option(format!(
                "option 'sink.buffer-flush.max-rows' of table '{}' is {rows}, at most {BUFFER_ROWS_MAX} are kept in memory",
                table.name
            )));
        }
    };
    let sink = SinkOptions {
        delivery,
        buffer_rows,
        buffer_interval: options.duration("sink.buffer-flush.interval")?.unwrap_or(BUFFER_INTERVAL_DEFAULT),
        retries_max: options.parse("sink.max-retries", RETRIES_DEFAULT)?,
    };
    options.accept(SINK_OPTIONS);
    options.accept(SOURCE_OPTIONS);
    options.finish()?;
    Ok((place, sink))
}

/// The options of a table whose changes are read.
pub(super) fn of_cdc(table: &TableSpec) -> Result<(TableOptions, CdcOptions), ConnectorError> {
    let mut options = table.options();
    let place = TableOptions::read(&mut options)?;
    options.one_of("decoding.plugin.name", "pgoutput", &["pgoutput"])?;
    let slot = options.required("slot.name")?.to_owned();
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !secret::has_reference(&slot) && (slot.is_empty() || slot.len() > 63 || !slot.chars().all(is_legal)) {
        return Err(ConnectorError::option(format!(
            "option 'slot.name' of table '{}' is '{slot}': a slot's name has 1 to 63 lower-case letters, digits and '_'",
            table.name
        )));
    }
    let publication = options.get("publication.name").map_or_else(|| slot.clone(), str::to_owned);
    let mode = options.one_of("scan.startup.mode", "initial", &["initial", "latest-offset"])?;
    let skips_truncate = options.one_of("scan.truncate", "fail", &["fail", "skip"])? == "skip";
    options.finish()?;
    Ok((place, CdcOptions { slot, publication, copies: mode == "initial", skips_truncate }))
}

/// The options of a table that is read or looked up.
pub(super) fn of_source(table: &TableSpec) -> Result<TableOptions, ConnectorError> {
    let mut options = table.options();
    let place = TableOptions::read(&mut options)?;
    options.accept(SINK_OPTIONS);
    options.accept(SOURCE_OPTIONS);
    options.finish()?;
    Ok(place)
}
