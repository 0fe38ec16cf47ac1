//! NATS JetStream at both ends, with a real server.

mod errors;
mod exactly_once;
mod faults;
mod reading;
mod secured;
mod writing;

use crate::support::nats::Server;

/// The options that every table of a server has.
fn with(server: &Server, stream: &str, more: &str) -> String {
    let address = server.address();
    format!("WITH ('connector' = 'nats', 'url' = 'nats://{address}', 'stream' = '{stream}', {more})")
}
