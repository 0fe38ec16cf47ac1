//! HTTP: `'connector' = 'http'`. Rows are sent to an address as the bodies of requests (a webhook). Called by the registry.

mod body;
mod client;
mod options;
mod sink;

pub(crate) use sink::sink;
