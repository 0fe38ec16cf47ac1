//! Writing streams: subjects and headers of each row, and weaker promises.

use super::with;
use crate::support::nats::Server;
use crate::support::{Sandbox, assert_says};

const ROWS: &str =
    "CREATE TABLE t (id BIGINT, s STRING) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');";

#[test]
fn subject_and_headers_come_from_columns() {
    let server = Server::shared();
    server.create("WRITTEN");
    let sandbox = Sandbox::new(&format!(
        "{ROWS}
         CREATE TABLE o (id BIGINT, subject STRING METADATA, headers MAP<STRING, STRING> METADATA) {};
         INSERT INTO o SELECT id, s, MAP['k', CAST(id AS STRING)] FROM t;",
        with(&server, "WRITTEN", "'format' = 'json', 'subject' = 'written.default'")
    ));
    sandbox.write(
        "in/a.json",
        "{\"id\":1,\"s\":\"written.a\"}\n{\"id\":2,\"s\":null}\n{\"id\":3,\"s\":\"written.b.c\"}\n",
    );
    sandbox.run_ok(&["run", "job.sql", "--parallelism", "1"]);
    let stored = server.read("WRITTEN");
    let seen: Vec<_> =
        stored.iter().map(|m| (m.subject.as_str(), m.payload.as_str(), m.headers["k"].as_str())).collect();
    assert_eq!(
        seen,
        [
            ("written.a", r#"{"id":1}"#, "1"),
            ("written.default", r#"{"id":2}"#, "2"),
            ("written.b.c", r#"{"id":3}"#, "3")
        ]
    );
    assert!(stored.iter().all(|message| message.headers["Nats-Msg-Id"].starts_with("job/")), "{stored:?}");
}

#[test]
fn weaker_promises_publish_everything_too() {
    let server = Server::shared();
    for delivery in ["at-least-once", "best-effort"] {
        let stream = delivery.replace('-', "").to_uppercase();
        server.create(&stream);
        let options = format!("'format' = 'raw', 'subject' = '{}.x', 'delivery' = '{delivery}'", stream.to_lowercase());
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '5000', 'fields.id.kind' = 'sequence',
               'fields.id.start' = '1', 'fields.id.end' = '5000');
             CREATE TABLE o (line STRING) {}; INSERT INTO o SELECT CAST(id AS STRING) FROM t;",
            with(&server, &stream, &options)
        ));
        sandbox.run_ok(&["run", "job.sql"]);
        let mut seen: Vec<i64> = server.read(&stream).iter().map(|message| message.payload.parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=5000).collect::<Vec<_>>(), "{delivery}");
    }
}

#[test]
fn what_the_stream_does_not_take_is_refused_before_the_epoch_is_complete() {
    let server = Server::shared();
    server.create("PICKY");
    let run = |rows: &str| {
        let sandbox = Sandbox::new(&format!(
            "{ROWS} CREATE TABLE o (id BIGINT, subject STRING METADATA) {}; INSERT INTO o SELECT id, s FROM t;",
            with(&server, "PICKY", "'format' = 'json'")
        ));
        sandbox.write("in/a.json", rows);
        sandbox.run_err(&["run", "job.sql"])
    };
    assert_says(&run("{\"id\":1,\"s\":\"elsewhere.a\"}\n"), &["does not take the subject 'elsewhere.a', only picky.>"]);
    assert_says(&run("{\"id\":1,\"s\":\"picky.*\"}\n"), &["'picky.*' is no subject to publish to"]);
    assert_says(&run("{\"id\":1}\n"), &["a row has no subject (NULL)"]);
    assert_eq!(server.read("PICKY"), []);
}
