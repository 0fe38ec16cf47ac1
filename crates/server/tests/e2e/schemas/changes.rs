//! Schemas that change while a job runs, changes of a database, Protobuf, and registries that refuse.

use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::json;

use super::{BOUNDED, PATIENCE, framed, long, registered, string, values, with};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;
use crate::support::{Sandbox, assert_says};

/// A job that runs until it ends or is dropped.
struct Running(Child);

impl Running {
    fn start(sandbox: &Sandbox) -> Running {
        let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
        let mut command = sandbox.command(&["run", "job.sql", "--checkpoint-interval", "100 ms"]);
        Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Waits until the topic has so many messages.
    #[track_caller]
    fn until(&mut self, broker: &Broker, topic: &str, count: usize) {
        let begun = Instant::now();
        while broker.read(topic).len() < count {
            assert!(self.0.try_wait().unwrap().is_none(), "the job ended before {count} messages");
            assert!(begun.elapsed() < PATIENCE, "waited too long for {count} messages");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_schema_that_evolves_is_followed_until_it_does_not_fit() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    broker.create("evolve-in", 1);
    broker.create("evolve-out", 1);
    let record = |fields: serde_json::Value| json!({"type": "record", "name": "r", "fields": fields});
    let register = |fields| registry.register("evolve-in-value", &record(fields));
    let first = register(json!([{"name": "id", "type": "int"}]));
    registry.require("evolve-in-value", "NONE");
    let sql = |rule: &str, out: &str| {
        format!(
            "CREATE TABLE t (id BIGINT, name STRING) {};
             CREATE TABLE o (id BIGINT, name STRING) {};
             INSERT INTO o SELECT id, name FROM t;",
            with(
                &broker,
                "evolve-in",
                &format!("{}, 'avro-confluent.schema-changes' = '{rule}'", registered(&registry, "avro-confluent"))
            ),
            with(&broker, out, "'format' = 'json'"),
        )
    };
    let producer = broker.producer();
    let send = |bytes: Vec<u8>| {
        producer.send_bytes("evolve-in", 0, b"k", &bytes);
        producer.flush();
    };
    send(framed(first, &long(1)));
    let sandbox = Sandbox::new(&sql("adapt", "evolve-out"));
    let mut running = Running::start(&sandbox);
    running.until(&broker, "evolve-out", 1);
    // A field that may be absent comes in front, the number becomes wider, something nobody knows is added.
    let second =
        register(json!([{"name": "name", "type": ["null", "string"], "default": null}, {"name": "id", "type": "long"},
        {"name": "more", "type": "double", "default": 0}]));
    send(framed(second, &[vec![2], string("x"), long(1 << 40), vec![0; 8]].concat()));
    send(framed(first, &long(3)));
    running.until(&broker, "evolve-out", 3);
    let rows = values(&broker.read("evolve-out"));
    assert_eq!(rows[0], json!({"id": 1, "name": null}));
    assert_eq!(rows[1], json!({"id": 1_i64 << 40, "name": "x"}));
    assert_eq!(rows[2], json!({"id": 3, "name": null}));
    // Not so a number that becomes a text: the job says so, and ends.
    let third = register(json!([{"name": "id", "type": "string"}]));
    send(framed(third, &string("4")));
    let begun = Instant::now();
    while running.0.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the job does not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let said = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    assert_says(
        &said,
        &[
            &format!(
                "the schema {third} of the registry does not fit the table: column 'id': it is written as string, which does not fit BIGINT"
            ),
            "'avro-confluent.schema-changes' = 'bad-record'",
            "offset 3",
        ],
    );
    assert_eq!(broker.read("evolve-out").len(), 3);

    // By the other rules: the first difference stops the job; what does not fit is a bad record.
    broker.create("evolve-strict", 1);
    let bounded = |sql: String| sql.replacen("'format'", &format!("{BOUNDED}, 'format'"), 1);
    let message = Sandbox::new(&bounded(sql("fail", "evolve-strict"))).run_err(&["run", "job.sql"]);
    assert_says(&message, &["'id' is written as int and read as BIGINT", "'fail' lets nothing differ", "offset 0"]);
    let dropping =
        bounded(sql("bad-record", "evolve-strict")).replacen("'format'", "'bad-records' = 'drop', 'format'", 1);
    let output = Sandbox::new(&dropping).run_ok(&["run", "job.sql"]);
    assert_says(&crate::support::text(&output.stderr), &["3 rows in", "1 dropped"]);
    assert_eq!(broker.read("evolve-strict").len(), 3);
}

#[test]
fn changes_go_through_debeziums_envelope() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    for topic in ["cdc-json", "cdc-avro", "cdc-sums"] {
        broker.create(topic, 1);
    }
    let producer = broker.producer();
    for change in [
        r#"{"before":null,"after":{"id":1,"v":10},"op":"c"}"#,
        r#"{"before":null,"after":{"id":2,"v":5},"op":"r"}"#,
        r#"{"before":{"id":1,"v":10},"after":{"id":1,"v":11},"op":"u"}"#,
        r#"{"before":{"id":2,"v":5},"after":null,"op":"d"}"#,
    ] {
        producer.send("cdc-json", None, Some("k"), Some(change));
    }
    producer.flush();
    let avro = registered(&registry, "debezium-avro-confluent");
    Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT, v BIGINT) {};
         CREATE TABLE o (id BIGINT, v BIGINT) {};
         INSERT INTO o SELECT id, v FROM t;",
        with(&broker, "cdc-json", &format!("'format' = 'debezium-json', {BOUNDED}")),
        with(&broker, "cdc-avro", &avro),
    ))
    .run_ok(&["run", "job.sql"]);
    // Without a key an update is a delete and an insert.
    assert_eq!(broker.read("cdc-avro").len(), 5);
    Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT, v BIGINT) {};
         CREATE TABLE o (n BIGINT, total BIGINT) {};
         INSERT INTO o SELECT COUNT(*), SUM(v) FROM t;",
        with(&broker, "cdc-avro", &format!("{avro}, {BOUNDED}")),
        with(&broker, "cdc-sums", "'format' = 'debezium-json'"),
    ))
    .run_ok(&["run", "job.sql"]);
    let last = values(&broker.read("cdc-sums")).pop().unwrap();
    assert_eq!(last["after"], json!({"n": 1, "total": 11}));
}

#[test]
fn protobuf_comes_back_from_registry_and_file() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    const COLUMNS: &str =
        "id BIGINT NOT NULL, name STRING, ts TIMESTAMP(3), tags ARRAY<STRING NOT NULL>, part ROW<x INT, y DOUBLE>";
    for topic in ["proto-in", "proto-registered", "proto-plain", "proto-out"] {
        broker.create(topic, 1);
    }
    let rows = [
        json!({"id": 1, "name": "schön", "ts": "2026-01-31 23:59:59.123", "tags": ["a", ""], "part": {"x": -1, "y": 0.5}}),
        json!({"id": 0, "name": null, "ts": null, "tags": [], "part": null}),
    ];
    let producer = broker.producer();
    for row in &rows {
        producer.send("proto-in", None, None, Some(&row.to_string()));
    }
    producer.flush();
    let plain = "'format' = 'protobuf', 'protobuf.message-name' = 'my.Row', 'protobuf.schema-file' = 'row.proto'";
    let registered = registered(&registry, "protobuf-confluent");
    let step = |from: (&str, &str), to: (&str, &str)| {
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t ({COLUMNS}) {};
             CREATE TABLE o ({COLUMNS}) {};
             INSERT INTO o SELECT * FROM t;",
            with(&broker, from.0, &format!("{}, {BOUNDED}", from.1)),
            with(&broker, to.0, to.1),
        ));
        sandbox.write(
            "row.proto",
            "syntax = \"proto3\"; package my; import \"google/protobuf/timestamp.proto\";
             message Row { sint64 id = 7; optional string name = 1; google.protobuf.Timestamp ts = 2;
             repeated string tags = 3; Part part = 4; message Part { optional int32 x = 1; optional double y = 2; } }",
        );
        sandbox.run_ok(&["run", "job.sql"]);
    };
    step(("proto-in", "'format' = 'json'"), ("proto-registered", &registered));
    step(("proto-registered", &registered), ("proto-plain", plain));
    step(("proto-plain", plain), ("proto-out", "'format' = 'json'"));
    assert_eq!(values(&broker.read("proto-out")), rows);
    let (text, kind) = registry.newest("proto-registered-value");
    assert_eq!(kind, "PROTOBUF");
    assert_says(&text, &["message Record", "google.protobuf.Timestamp ts = 3"]);
}

#[test]
fn a_registry_that_refuses_or_is_not_there_is_told_of() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    broker.create("refused-in", 1);
    broker.create("refused-out", 1);
    let producer = broker.producer();
    producer.send("refused-in", None, None, Some(r#"{"id":1}"#));
    producer.flush();
    registry.register(
        "refused-out-value",
        &json!({"type": "record", "name": "r", "fields": [{"name": "id", "type": "string"}]}),
    );
    registry.require("refused-out-value", "BACKWARD");
    let sql = |url: &str| {
        format!(
            "CREATE TABLE t (id BIGINT) {};
             CREATE TABLE o (id BIGINT) {};
             INSERT INTO o SELECT id FROM t;",
            with(&broker, "refused-in", &format!("'format' = 'json', {BOUNDED}")),
            with(&broker, "refused-out", &format!("'format' = 'avro-confluent', 'avro-confluent.url' = '{url}'")),
        )
    };
    let message = Sandbox::new(&sql(&registry.url())).run_err(&["run", "job.sql"]);
    assert_says(
        &message,
        &["refuses the schema of the table", "not compatible with what the subject has", "table 'o'"],
    );
    let message = Sandbox::new(&sql(&format!("{}/elsewhere", registry.url()))).run_err(&["run", "job.sql"]);
    assert_says(&message, &["answers as a schema registry does", "check the path in 'avro-confluent.url'"]);
    assert_eq!(broker.read("refused-out").len(), 0);
}
