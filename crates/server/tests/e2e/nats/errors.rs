//! What the user is told when something is wrong.

use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::{Config, RetentionPolicy};

use super::with;
use crate::kafka::Running;
use crate::support::nats::Server;
use crate::support::{Sandbox, assert_says};

const PRINT: &str = "CREATE TABLE o (id BIGINT) WITH ('connector' = 'print'); INSERT INTO o SELECT id FROM t;";
const ONCE: &str = "SET 'restart-strategy.type' = 'none';";

fn refused(table: &str) -> String {
    Sandbox::new(&format!("CREATE TABLE t {table}; {PRINT}")).run_err(&["run", "job.sql"])
}

/// The same for a table that is written.
fn sink_refused(table: &str) -> String {
    let sandbox = Sandbox::new(&format!(
        "{ONCE} CREATE TABLE t (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
         CREATE TABLE o (id BIGINT) {table}; INSERT INTO o SELECT id FROM t;"
    ));
    sandbox.run_err(&["run", "job.sql"])
}

#[test]
fn wrong_options_are_named() {
    let base = "'connector' = 'nats', 'url' = 'nats://localhost:9', 'stream' = 'S'";
    let plain = |options: &str| refused(&format!("(id BIGINT) WITH ({base}, 'format' = 'json', {options})"));
    let sink = |options: &str| sink_refused(&format!("WITH ({base}, 'format' = 'json'{options})"));
    let cases = [
        (
            plain("'scan.startup.mode' = 'somewhere'"),
            "option 'scan.startup.mode' of table 't' has the value 'somewhere'",
        ),
        (plain("'scan.startup.mode' = 'sequence'"), "needs 'scan.startup.sequence'"),
        (plain("'subjects' = 'a.>;a.b'"), "would be read twice"),
        (plain("'colour' = 'red'"), "unknown option 'colour'"),
        (plain("'username' = 'u'"), "needs 'password'"),
        (plain("'token' = 'u', 'nkey' = 'v'"), "says in several ways who it is"),
        (plain("'tls.key-file' = 'u'"), "need each other"),
        (
            refused("(id BIGINT) WITH ('connector' = 'nats', 'url' = 'nats://h', 'stream' = 'a.b', 'format' = 'json')"),
            "expected the name of a stream",
        ),
        (
            refused(
                "(id BIGINT) WITH ('connector' = 'nats', 'url' = 'nats://u:p@h', 'stream' = 'S', 'format' = 'json')",
            ),
            "give 'username' and 'password'",
        ),
        (refused(&format!("(id BIGINT) WITH ({base}, 'format' = 'parquet')")), "'parquet' is a format of files"),
        (
            refused(&format!("(id BIGINT, c STRING METADATA FROM 'colour') WITH ({base}, 'format' = 'json')")),
            "known: subject, sequence, timestamp, headers, stream",
        ),
        (
            refused("(id BIGINT) WITH ('connector' = 'nats', 'stream' = 'x', 'format' = 'json')"),
            "needs the option 'url'",
        ),
        (sink(""), "needs the option 'subject' to be written"),
        (sink(", 'subject' = 'a.*'"), "expected a subject without wildcards"),
        (sink(", 'subject' = 'a', 'sink.unknown-progress' = 'guess'"), "expected one of fail, send-again"),
    ];
    for (message, part) in cases {
        assert_says(&message, &[part]);
    }
}

#[test]
fn what_is_not_there_is_said_once() {
    let table =
        "WITH ('connector' = 'nats', 'url' = 'nats://127.0.0.1:1', 'stream' = 'S', 'format' = 'json', 'subject' = 's')";
    let message =
        Sandbox::new(&format!("{ONCE} CREATE TABLE t (id BIGINT) {table}; {PRINT}")).run_err(&["run", "job.sql"]);
    assert_says(&message, &["no NATS server answers", "'nats://127.0.0.1:1'", "check 'url'"]);

    let server = Server::shared();
    let missing = with(&server, "NOWHERE", "'format' = 'json', 'subject' = 'nowhere.x'");
    let message = refused(&format!("(id BIGINT) {missing}"));
    assert_says(&message, &["stream 'NOWHERE'", "stream not found", "create the stream, or check the option 'stream'"]);
    assert_says(&sink_refused(&missing), &["stream 'NOWHERE'", "create the stream"]);

    server.create_with("QUEUE", |config| Config { retention: RetentionPolicy::WorkQueue, ..config });
    let queue = with(&server, "QUEUE", "'format' = 'json', 'subject' = 'queue.x'");
    assert_says(&refused(&format!("(id BIGINT) {queue}")), &["retention removes messages once they are acknowledged"]);
    assert_says(&sink_refused(&queue), &["nobody can tell after a failure", "'delivery' = 'at-least-once'"]);
}

#[test]
fn a_wrong_password_is_said_and_a_right_one_stays_secret() {
    let login = ConnectOptions::new().user_and_password("ada".to_owned(), "right-SECRET-4b1f".to_owned());
    let server = Server::start("authorization { user: ada, password: right-SECRET-4b1f }", login);
    server.create("S");
    server.publish([("s.x".to_owned(), r#"{"id":7}"#.to_owned())]);
    let options = |password: &str| {
        with(
            &server,
            "S",
            &format!(
                "'format' = 'json', 'scan.bounded.mode' = 'latest', 'username' = 'ada', 'password' = '{password}'"
            ),
        )
    };
    let message = refused(&format!("(id BIGINT) {}", options("wrong-SECRET-4b1f")));
    assert_says(&message, &["the server refuses the user 'ada'", "check 'username' and 'password'"]);
    let message = refused(&format!("(id BIGINT) {}", with(&server, "S", "'format' = 'json'")));
    assert_says(&message, &["the server refuses", "give 'username' and 'password'"]);
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT) {};
         CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO o SELECT id FROM t;",
        options("${file:password}")
    ));
    sandbox.write("password", "right-SECRET-4b1f\n");
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(sandbox.lines("out").keys().collect::<Vec<_>>(), [r#"{"id":7}"#]);
    let found = std::process::Command::new("grep")
        .args(["-rl", "right-SECRET"])
        .arg(sandbox.path(".mainstem"))
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_stream_that_is_deleted_or_another_one_is_told() {
    let server = Server::shared();
    server.create("GONE");
    server.publish((0..10).map(|id| ("gone.x".to_owned(), format!(r#"{{"id":{id}}}"#))));
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT) {};
         CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO o SELECT id FROM t;",
        with(&server, "GONE", "'format' = 'json'")
    ));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms"];
    let mut job = Running::start(&sandbox, &arguments);
    job.until(&sandbox, "the rows", || sandbox.lines("out").len() == 10);
    server.delete("GONE");
    let said = || std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    let begun = std::time::Instant::now();
    while !said().contains("create the stream, or check the option 'stream'") {
        assert!(begun.elapsed() < Duration::from_secs(180), "{}", said());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(job);
    // Another one of the same name, which holds as many messages.
    server.create("GONE");
    server.publish((0..20).map(|id| ("gone.x".to_owned(), format!(r#"{{"id":{id}}}"#))));
    let message = sandbox.run_err(&arguments);
    assert_says(&message, &["stream 'GONE'", "was deleted and created anew", "--fresh"]);
    assert_eq!(sandbox.lines("out").len(), 10);
}

#[test]
fn messages_that_are_gone_before_they_were_read_are_told() {
    let server = Server::shared();
    server.create_with("SHORT", |config| Config { max_messages: 50, ..config });
    let sql = |more: &str| {
        format!(
            "CREATE TABLE t (id BIGINT) {};
             CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO o SELECT id FROM t;",
            with(&server, "SHORT", &format!("'format' = 'json'{more}"))
        )
    };
    let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms"];
    let publish =
        |ids: std::ops::Range<i64>| server.publish(ids.map(|id| ("short.x".to_owned(), format!(r#"{{"id":{id}}}"#))));
    publish(0..10);
    let (strict, lenient) = (Sandbox::new(&sql("")), Sandbox::new(&sql(", 'scan.missing-messages' = 'skip'")));
    for sandbox in [&strict, &lenient] {
        let mut job = Running::start(sandbox, &arguments);
        job.until(sandbox, "the rows", || sandbox.lines("out").len() == 10);
        job.kill();
    }
    // 10 to 59 are removed while the job is down.
    publish(10..110);
    let message = strict.run_err(&arguments);
    assert_says(&message, &["from sequence 11 on", "begins with 61 now", "'scan.missing-messages' = 'skip'"]);
    assert_eq!(strict.lines("out").len(), 10);
    let mut job = Running::start(&lenient, &arguments);
    job.until(&lenient, "the rows that are left", || lenient.lines("out").len() >= 60);
    let said = std::fs::read_to_string(lenient.path("stderr.log")).unwrap();
    assert_says(&said, &["begins with 61 now", "the job goes on without"]);
    job.kill();
    assert_eq!(lenient.lines("out").len(), 60);
}
