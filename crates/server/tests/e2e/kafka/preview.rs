//! A preview of a topic: its rows are shown, and neither its group nor the topic that would be written learns of it.

use serde_json::json;

use super::with;
use crate::http_api::{ENDLESS, Served};
use crate::support::Sandbox;
use crate::support::kafka::Broker;
use crate::support::known::windows;

#[test]
fn a_preview_commits_nothing_and_sends_nothing() {
    let broker = Broker::shared();
    for topic in ["previewed", "not-written"] {
        broker.create(topic, 1);
    }
    let producer = broker.producer();
    for line in ["a", "b", "c"] {
        producer.send("previewed", Some(0), None, Some(line));
    }
    producer.flush();
    let options = "'format' = 'raw', 'scan.startup.mode' = 'earliest-offset', 'properties.group.id' = 'previewers'";
    let sql = format!(
        "CREATE TABLE t (line STRING) {}; CREATE TABLE o (line STRING) {}; INSERT INTO o SELECT UPPER(line) FROM t;",
        with(&broker, "kafka", "previewed", options),
        with(&broker, "kafka", "not-written", "'format' = 'raw'")
    );
    let sandbox = Sandbox::new(&windows(ENDLESS, 1_000, true, "none"));
    let served = Served::start(&sandbox, &[]);
    // Several checkpoints go by, with any of which a job would tell its group.
    let shown = [4_000, 20_000].into_iter().find_map(|time_ms| {
        let body = json!({ "sql": sql, "time_ms": time_ms });
        let answer = served.client.post("/api/v1/preview", &body).json();
        (answer["rows"].as_array().map(Vec::len) == Some(3)).then_some(answer)
    });
    let shown = shown.expect("three rows within twenty seconds");
    let values: Vec<_> = shown["rows"].as_array().unwrap().iter().map(|row| row["values"][0].as_str()).collect();
    assert_eq!((values, &shown["end"]), (vec![Some("A"), Some("B"), Some("C")], &json!("time")));
    assert_eq!(broker.committed("previewers", "previewed", 1), [None]);
    assert_eq!(broker.read("not-written").len(), 0);
}
