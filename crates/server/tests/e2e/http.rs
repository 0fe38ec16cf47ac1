//! Rows sent to an address, with a receiver that answers badly.

mod answers;
mod kills;

use std::collections::BTreeMap;

use crate::support::http::Receiver;

/// A job that sends the numbers from 1 to `rows`.
fn numbers(receiver: &Receiver, rows: u64, rate: u64, options: &str) -> String {
    format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{rate}', 'splits' = '2',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '{rows}');
         CREATE TABLE hook (id BIGINT) WITH ('connector' = 'http', 'url' = '{}', 'format' = 'json', {options});
         INSERT INTO hook SELECT id FROM numbers;",
        receiver.url()
    )
}

/// How often each number is in the bodies, which are JSON arrays or single objects.
fn counts<'a>(bodies: impl Iterator<Item = &'a String>) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    for body in bodies {
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        for row in value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]) {
            *counts.entry(row["id"].as_i64().unwrap()).or_insert(0) += 1;
        }
    }
    counts
}
