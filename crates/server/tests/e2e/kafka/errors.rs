//! What the user is told when something is wrong.

use super::with;
use crate::support::kafka::Broker;
use crate::support::{Sandbox, assert_says, text};

const PRINT: &str = "CREATE TABLE o (id BIGINT) WITH ('connector' = 'print'); INSERT INTO o SELECT id FROM t;";

fn refused(table: &str) -> String {
    Sandbox::new(&format!("CREATE TABLE t {table}; {PRINT}")).run_err(&["run", "job.sql"])
}

#[test]
fn wrong_options_are_named() {
    let base = "'connector' = 'kafka', 'topic' = 'x', 'properties.bootstrap.servers' = 'localhost:9'";
    let plain = |options: &str| refused(&format!("(id BIGINT) WITH ({base}, 'format' = 'json', {options})"));
    let cases = [
        (
            plain("'scan.startup.mode' = 'somewhere'"),
            "option 'scan.startup.mode' of table 't' has the value 'somewhere'",
        ),
        (plain("'scan.startup.mode' = 'timestamp'"), "'scan.startup.timestamp-millis'"),
        (plain("'scan.startup.mode' = 'group-offsets'"), "needs 'properties.group.id'"),
        (plain("'properties.no.such' = '1'"), "option 'properties.no.such' of table 't'"),
        (
            plain("'properties.fetch.min.bytes' = 'x'"),
            "option 'properties.fetch.min.bytes' of table 't' has the value 'x'",
        ),
        (plain("'properties.enable.auto.commit' = 'true'"), "offsets are committed after checkpoints"),
        (plain("'key.format' = 'json'"), "needs 'key.fields'"),
        (plain("'key.fields' = 'nothing', 'key.format' = 'json'"), "names 'nothing', which is no column"),
        (plain("'topic-pattern' = 'y'"), "exclude each other"),
        (plain("'colour' = 'red'"), "unknown option 'colour'"),
        (refused(&format!("(id BIGINT) WITH ({base}, 'format' = 'parquet')")), "'parquet' is a format of files"),
        (
            refused(&format!("(id BIGINT, b INT) WITH ({base}, 'format' = 'raw')")),
            "holds one column of type STRING or BYTES",
        ),
        (
            refused(&format!("(id BIGINT, c STRING METADATA FROM 'colour') WITH ({base}, 'format' = 'json')")),
            "known: topic, partition, offset",
        ),
        (
            refused("(id BIGINT METADATA) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json')"),
            "is METADATA, which records of the connector 'filesystem' do not have",
        ),
        (
            refused("(id BIGINT) WITH ('connector' = 'kafka', 'topic' = 'x', 'format' = 'json')"),
            "needs the option 'properties.bootstrap.servers'",
        ),
        (
            refused(&format!(
                "(id BIGINT) WITH ({}, 'key.format' = 'json', 'value.format' = 'json')",
                base.replace("'kafka'", "'upsert-kafka'")
            )),
            "declare PRIMARY KEY",
        ),
    ];
    for (message, part) in cases {
        assert_says(&message, &[part]);
    }
    // Secrets are never repeated.
    let message = plain(
        "'properties.ssl.key.password' = 'hush', 'properties.sasl.password' = 'hush',\n 'properties.security.protocol' = 'none'",
    );
    assert_says(&message, &["option 'properties.security.protocol' of table 't' has the value 'none'"]);
    assert!(!message.contains("hush"), "{message}");
}

#[test]
fn what_is_not_there_is_said_once() {
    let quick = "'properties.socket.connection.setup.timeout.ms' = '1000'";
    let options = format!(
        "(id BIGINT) WITH ('connector' = 'kafka', 'topic' = 'x', 'format' = 'json', 'properties.bootstrap.servers' = '127.0.0.1:1', {quick})"
    );
    let sandbox = Sandbox::new(&format!("SET 'restart-strategy.type' = 'none'; CREATE TABLE t {options}; {PRINT}"));
    let log = std::fs::File::create(sandbox.path("log")).unwrap();
    let mut child = sandbox.command(&["run", "job.sql"]).stderr(log).spawn().unwrap();
    let begun = std::time::Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(sandbox.path("log")).unwrap();
        if said.contains("no Kafka broker answers at '127.0.0.1:1'") || begun.elapsed().as_secs() > 40 {
            break said;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_says(
        &said,
        &["no Kafka broker answers at '127.0.0.1:1'", "check 'properties.bootstrap.servers'", "topic 'x'"],
    );
    // librdkafka's own lines stay away.
    assert!(!said.contains("FAIL|") && !said.contains("rdkafka#"), "{said}");

    let broker = Broker::shared();
    let table = with(&broker, "kafka", "no-such-topic", "'format' = 'json'");
    let message = refused(&format!("(id BIGINT) {table}"));
    assert_says(&message, &["no-such-topic", "create the topic, or check its name"]);
    let sink = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
         CREATE TABLE o (id BIGINT) {table}; INSERT INTO o SELECT id FROM t;"
    ));
    assert_says(&sink.run_err(&["run", "job.sql"]), &["no-such-topic", "create the topic"]);
}

#[test]
fn a_broken_message_is_named_by_its_place() {
    let broker = Broker::shared();
    broker.create("poison", 2);
    let producer = broker.producer();
    for id in 0..10 {
        producer.send("poison", Some(1), None, Some(&format!(r#"{{"id":{id}}}"#)));
    }
    producer.send("poison", Some(1), None, Some(r#"{"id":"many"}"#));
    producer.send("poison", Some(1), None, Some(r#"{"id":11}"#));
    producer.flush();
    let table = |more: &str| {
        let options = format!("'format' = 'json', 'scan.bounded.mode' = 'latest-offset'{more}");
        format!("CREATE TABLE t (id BIGINT) {}; {PRINT}", with(&broker, "kafka", "poison", &options))
    };
    let message = Sandbox::new(&table("")).run_err(&["run", "job.sql"]);
    assert_says(
        &message,
        &[
            "topic 'poison', partition 1, offset 10",
            "column 'id': expected BIGINT",
            r#"{"id":"many"}"#,
            "'bad-records' = 'drop'",
        ],
    );
    let output = Sandbox::new(&table(", 'json.ignore-parse-errors' = 'true'")).run_ok(&["run", "job.sql"]);
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with("+I[")).count(), 11);
}
