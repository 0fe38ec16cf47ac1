//! Finds the connector that a table's `'connector'` option names. Called by the planner (to validate), the
//! engine and the coordinator's set-up.

use std::sync::Arc;

use crate::error::ConnectorError;
use crate::sink::Sink;
use crate::source::Source;
use crate::table::TableSpec;

/// The table as something to read. Checks all of its options; opens nothing.
pub fn source(table: &TableSpec) -> Result<Arc<dyn Source>, ConnectorError> {
    match connector_name(table)? {
        "filesystem" => crate::filesystem::source(table),
        "nexmark" => crate::nexmark::source(table),
        "datagen" => crate::datagen::source(table),
        "values" => crate::values::source(table),
        other => Err(unknown(table, other, "read", &["filesystem", "nexmark", "datagen"])),
    }
}

/// The table as something to write. Checks all of its options; opens nothing.
pub fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    match connector_name(table)? {
        "filesystem" => crate::filesystem::sink(table),
        "print" => crate::print::sink(table),
        "blackhole" => crate::blackhole::sink(table),
        #[cfg(feature = "simulation")]
        "simulated" => crate::simulation::sink(table),
        other => Err(unknown(table, other, "written", &["filesystem", "print", "blackhole"])),
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
