//! Lets a simulation offer a sink of its own, as the connector `simulated`, to the code of its process.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::ConnectorError;
use crate::sink::Sink;
use crate::table::TableSpec;

type Make = Arc<dyn Fn(&TableSpec) -> Arc<dyn Sink> + Send + Sync>;

static MAKE: Mutex<Option<Make>> = Mutex::new(None);

/// From here on a table of the connector `simulated` is written through this.
pub fn offer_sink(make: impl Fn(&TableSpec) -> Arc<dyn Sink> + Send + Sync + 'static) {
    *MAKE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(make));
}

/// The table as what the simulation offers.
pub(crate) fn sink(table: &TableSpec) -> Result<Arc<dyn Sink>, ConnectorError> {
    let make = MAKE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let none = || ConnectorError::option(format!("table '{}': nothing is simulated here", table.name));
    make.map(|make| make(table)).ok_or_else(none)
}
