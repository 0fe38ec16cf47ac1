//! Formats with a schema: Avro and Protobuf, with a real broker and a real registry.

mod changes;
mod files;
mod poison;
mod upserts;

use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::{Broker, Seen};
use crate::support::registry::Registry;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// The options of a table of a topic.
fn with(broker: &Broker, topic: &str, more: &str) -> String {
    let servers = broker.servers();
    format!(
        "WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', 'scan.startup.mode' = 'earliest-offset', {more})"
    )
}

const BOUNDED: &str = "'scan.bounded.mode' = 'latest-offset'";

/// A format with the address of its registry.
fn registered(registry: &Registry, format: &str) -> String {
    format!("'format' = '{format}', '{format}.url' = '{}'", registry.url())
}

fn values(seen: &[Seen]) -> Vec<Value> {
    seen.iter().map(|message| serde_json::from_str(message.value.as_deref().unwrap()).unwrap()).collect()
}

/// An int or a long of Avro.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// A text of Avro.
fn string(text: &str) -> Vec<u8> {
    [&long(text.len() as i64)[..], text.as_bytes()].concat()
}

/// A record behind its head.
fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), record].concat()
}
