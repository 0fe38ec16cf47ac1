//! Finds the connector that a table's `'connector'` option names. Called by the planner (to validate), the
//! engine and the coordinator's set-up.

use std::sync::Arc;

use crate::collect;
use crate::error::ConnectorError;
use crate::kafka;
use crate::secret;
use crate::sink::Sink;
use crate::source::Source;
use crate::table::TableSpec;

/// The table as something to read, as far as a plan needs it: checks all of its options, without the values of secrets;
/// opens nothing, and nothing may be read with it.
pub fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    secret::check_places(table)?;
    make_source(table)
}

/// The table as something to write, as far as a plan needs it, as [`source`].
pub fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    secret::check_places(table)?;
    make_sink(table)
}

/// The table to read, with the values of the secrets that its options refer to; opens nothing else.
///
/// # Errors
/// As [`source`], and where a secret is missing on this node.
pub fn open_source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    make_source(&secret::resolved(table)?)
}

/// The table to write, as [`open_source`].
pub fn open_sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    make_sink(&secret::resolved(table)?)
}

fn make_source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    match metadata_checked(table)? {
        "filesystem" => crate::filesystem::source(table),
        "kafka" => kafka::source(table, kafka::Kind::Plain),
        "upsert-kafka" => kafka::source(table, kafka::Kind::Upsert),
        "nats" => crate::nats::source(table),
        "nexmark" => crate::nexmark::source(table),
        "datagen" => crate::datagen::source(table),
        "values" => crate::values::source(table),
        "postgres" | "jdbc" => crate::postgres::source(table),
        "postgres-cdc" => crate::postgres::cdc_source(table),
        other => Err(unknown(
            table,
            other,
            "read",
            &["filesystem", "kafka", "upsert-kafka", "postgres", "postgres-cdc", "nats", "nexmark", "datagen"],
        )),
    }
}

fn make_sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let name = metadata_checked(table)?;
    if name == collect::CONNECTOR
        && let Some(sink) = collect::sink(table)
    {
        return Ok(sink);
    }
    match name {
        "filesystem" => crate::filesystem::sink(table),
        "kafka" => kafka::sink(table, kafka::Kind::Plain),
        "upsert-kafka" => kafka::sink(table, kafka::Kind::Upsert),
        "nats" => crate::nats::sink(table),
        "print" => crate::print::sink(table),
        "blackhole" => crate::blackhole::sink(table),
        "postgres" | "jdbc" => crate::postgres::sink(table),
        "http" => crate::http::sink(table),
        "redis" => crate::redis::sink(table),
        #[cfg(feature = "simulation")]
        "simulated" => crate::simulation::sink(table),
        other => Err(unknown(
            table,
            other,
            "written",
            &["filesystem", "kafka", "upsert-kafka", "postgres", "nats", "http", "redis", "print", "blackhole"],
        )),
    }
}

/// The connector's name, once it is one whose records have the metadata that the table declares.
fn metadata_checked(table: &TableSpec) -> Result<&str, ConnectorError> {
    let name = connector_name(table)?;
    let declared = (0..table.schema.fields().len()).find(|&column| table.metadata_of(column).is_some());
    match declared {
        Some(column) if !matches!(name, "kafka" | "upsert-kafka" | "nats") => Err(ConnectorError::option(format!(
            "column '{}' of table '{}' is METADATA, which records of the connector '{name}' do not have",
            table.schema.field(column).name(),
            table.name
        ))),
        _ => Ok(name),
    }
}

fn connector_name(table: &TableSpec) -> Result<&str, ConnectorError> {
    let missing = || ConnectorError::option(format!("table '{}' needs the option 'connector'", table.name));
    table.options.get("connector").map(String::as_str).ok_or_else(missing)
}

fn unknown(table: &TableSpec, name: &str, verb: &str, known: &[&str]) -> ConnectorError {
    let known = known.join(", ");
    ConnectorError::option(format!(
        "table '{}' has the connector '{name}', which cannot be {verb}; known: {known}",
        table.name
    ))
}
