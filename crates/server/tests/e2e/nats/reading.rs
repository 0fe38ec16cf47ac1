//! Reading streams: from where, up to where, which subjects and columns, and on from where it was after a kill.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::with;
use crate::kafka::{Running, newest_lag};
use crate::support::nats::Server;
use crate::support::{Sandbox, assert_says, text};

const OUT: &str = "WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json')";
const KILLS: usize = 6;

/// `rows` messages, in turn to the subjects `<stream>.0`, `.1` and `.2`, whose times are as many seconds as their id.
fn filled(server: &Server, stream: &str, rows: i64) {
    server.create(stream);
    server.publish((0..rows).map(|id| {
        let value = format!(r#"{{"id":{id},"k":{},"ts":"2026-01-01 00:{:02}:{:02}"}}"#, id % 7, id / 60, id % 60);
        (format!("{}.{}", stream.to_lowercase(), id % 3), value)
    }));
}

fn ids(sandbox: &Sandbox) -> Vec<i64> {
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
    let mut ids: Vec<i64> = sandbox.lines("out").iter().flat_map(|(line, n)| vec![number(line); *n]).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn windows_over_subjects_are_those_of_their_rows() {
    let server = Server::shared();
    filled(&server, "WINDOWS", 1500);
    // Each subject has a watermark of its own, so that nothing is late however they are read.
    let source = with(
        &server,
        "WINDOWS",
        "'format' = 'json', 'subjects' = 'windows.0;windows.1;windows.2', 'scan.bounded.mode' = 'latest'",
    );
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) {source};
         CREATE TABLE o (k BIGINT, w TIMESTAMP(3), n BIGINT, s BIGINT) {OUT};
         INSERT INTO o SELECT k, window_start, COUNT(*), SUM(id) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY k, window_start, window_end;"
    ));
    sandbox.run_ok(&["run", "job.sql", "--parallelism", "2", "--checkpoint-interval", "100 ms"]);
    let mut expected = BTreeMap::<(i64, i64), (i64, i64)>::new();
    for id in 0..1500 {
        let window = expected.entry((id % 7, id / 60)).or_default();
        *window = (window.0 + 1, window.1 + id);
    }
    let line = |((k, w), (n, s)): (&(i64, i64), &(i64, i64))| {
        (format!(r#"{{"k":{k},"w":"2026-01-01 00:{w:02}:00","n":{n},"s":{s}}}"#), 1)
    };
    assert_eq!(sandbox.lines("out"), expected.iter().map(line).collect());
}

#[test]
fn a_table_begins_and_ends_where_it_is_told() {
    let server = Server::shared();
    filled(&server, "BOUNDS", 300);
    std::thread::sleep(Duration::from_millis(20));
    let middle = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    server.publish((300..400).map(|id| ("bounds.x".to_owned(), format!(r#"{{"id":{id}}}"#))));
    let run = |options: &str| {
        let source = with(&server, "BOUNDS", &format!("'format' = 'json', {options}"));
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id BIGINT) {source}; CREATE TABLE o (id BIGINT) {OUT}; INSERT INTO o SELECT id FROM t;"
        ));
        sandbox.run_ok(&["run", "job.sql", "--parallelism", "1"]);
        ids(&sandbox)
    };
    let until_now = "'scan.bounded.mode' = 'latest'";
    assert_eq!(run(until_now), (0..400).collect::<Vec<_>>());
    assert_eq!(run(&format!("'scan.startup.mode' = 'latest', {until_now}")), Vec::<i64>::new());
    // Sequences count from 1.
    let from = "'scan.startup.mode' = 'sequence', 'scan.startup.sequence' = '101'";
    assert_eq!(run(&format!("{from}, {until_now}")), (100..400).collect::<Vec<_>>());
    let until = "'scan.bounded.mode' = 'sequence', 'scan.bounded.sequence' = '110'";
    assert_eq!(run(&format!("{from}, {until}")), (100..110).collect::<Vec<_>>());
    let since = format!("'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '{middle}'");
    assert_eq!(run(&format!("{since}, {until_now}")), (300..400).collect::<Vec<_>>());
    // The last of this subject lies far before the end of the stream.
    assert_eq!(run(&format!("'subjects' = 'bounds.1', {until_now}")), (0..100).map(|n| n * 3 + 1).collect::<Vec<_>>());
    assert_eq!(run(&format!("'subjects' = 'bounds.none', {until_now}")), Vec::<i64>::new());
}

#[test]
fn what_nats_knows_of_a_message_is_columns() {
    let server = Server::shared();
    server.create("METADATA");
    let mut headers = HeaderMap::new();
    headers.insert("h", "x");
    headers.insert("g", "y");
    server.publish_with([("metadata.a.b".to_owned(), headers, br#"{"v":"a"}"#.to_vec())]);
    let stored_ms = server.info("METADATA").state.last_timestamp.unix_timestamp_nanos() / 1_000_000;
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (v STRING, subject STRING METADATA VIRTUAL, seq BIGINT METADATA FROM 'sequence' VIRTUAL,
           at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, headers MAP<STRING, STRING> METADATA, stream STRING METADATA VIRTUAL) {};
         CREATE TABLE o (v STRING, subject STRING, seq BIGINT, at TIMESTAMP_LTZ(3), h STRING, headers MAP<STRING, STRING>, stream STRING) {OUT};
         INSERT INTO o SELECT v, subject, seq, at, headers['h'], headers, stream FROM t;",
        with(&server, "METADATA", "'format' = 'json', 'scan.bounded.mode' = 'latest'")
    ));
    sandbox.run_ok(&["run", "job.sql"]);
    let lines = sandbox.lines("out");
    let line: serde_json::Value = serde_json::from_str(lines.keys().next().unwrap()).unwrap();
    let of = |key: &str| line[key].clone();
    assert_eq!(
        (of("v"), of("subject"), of("seq"), of("h"), of("stream")),
        ("a".into(), "metadata.a.b".into(), 1.into(), "x".into(), "METADATA".into())
    );
    assert_eq!(line["headers"], serde_json::json!({"g": "y", "h": "x"}));
    // Without zeros behind the point that say nothing.
    let seconds = format!("{:02}.{:03}", stored_ms / 1000 % 60, stored_ms % 1000);
    let seconds = format!("{}Z", seconds.trim_end_matches('0').trim_end_matches('.'));
    assert!(line["at"].as_str().unwrap().ends_with(&seconds), "{line} {seconds}");
}

#[test]
fn broken_messages_stop_the_job_or_go_aside() {
    let server = Server::shared();
    server.create("POISON");
    let values = [r#"{"id":1}"#, r#"{"id":"many"}"#, r#"{"id":3}"#, "{", r#"{"id":5}"#];
    server.publish(values.iter().map(|value| ("poison.x".to_owned(), (*value).to_owned())));
    let sql = |more: &str| {
        let source = with(&server, "POISON", &format!("'format' = 'json', 'scan.bounded.mode' = 'latest'{more}"));
        format!(
            "CREATE TABLE t (id BIGINT) {source}; CREATE TABLE o (id BIGINT) {OUT}; INSERT INTO o SELECT id FROM t;
             CREATE TABLE letters (source STRING, split STRING, `position` BIGINT, line BIGINT, raw BYTES, raw_key BYTES, reason STRING, at TIMESTAMP_LTZ(3))
             WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');"
        )
    };
    let message = Sandbox::new(&sql("")).run_err(&["run", "job.sql"]);
    assert_says(
        &message,
        &["stream 'POISON', sequence 2", "column 'id': expected BIGINT", r#"{"id":"many"}"#, "'bad-records' = 'drop'"],
    );
    let sandbox = Sandbox::new(&sql(", 'bad-records' = 'drop'"));
    let output = sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(ids(&sandbox), [1, 3, 5], "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_is_killed_goes_on_where_its_checkpoint_is() {
    let server = Server::shared();
    server.create("KILLED");
    let source = with(&server, "KILLED", "'format' = 'json', 'subjects' = 'killed.0;killed.1'");
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT) {source}; CREATE TABLE o (id BIGINT) {OUT}; INSERT INTO o SELECT id FROM t;"
    ));
    let mut random = SmallRng::seed_from_u64(0x6e61_7473);
    let mut rows = 0;
    for _ in 0..KILLS {
        server.publish((rows..rows + 500).map(|id| (format!("killed.{}", id % 2), format!(r#"{{"id":{id}}}"#))));
        rows += 500;
        let after = Duration::from_millis(random.random_range(200..1200));
        sandbox.run_and_kill(&["run", "job.sql", "--checkpoint-interval", "100 ms"], after);
    }
    let mut job = Running::start(&sandbox, &["run", "job.sql", "--checkpoint-interval", "100 ms"]);
    job.until(&sandbox, "all rows", || ids(&sandbox).len() as i64 >= rows);
    job.kill();
    assert_eq!(ids(&sandbox), (0..rows).collect::<Vec<_>>());
    // The server has no memory of the job beyond the consumers of the last run.
    let consumers = server.info("KILLED").state.consumer_count;
    assert!(consumers <= 2 * (KILLS + 1), "{consumers} consumers");
}

#[test]
fn lag_is_what_is_there_and_not_read_also_of_a_job_that_is_held_up() {
    // More than may be on its way.
    const MANY: u64 = 4_000;
    let row = "row".repeat(5_000);
    let server = Server::shared();
    server.create("LAGGING");
    let send = || server.publish((0..MANY).map(|n| (format!("lagging.{}", u64::from(n % 4 == 0)), row.clone())));
    send();
    let source = with(&server, "LAGGING", "'format' = 'raw', 'subjects' = 'lagging.0;lagging.1'");
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (line STRING) {source}; CREATE TABLE o (line STRING) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT line FROM t;"
    ));
    sandbox.slow_sinks(4_000);
    let arguments = ["run", "job.sql", "--json", "--parallelism", "2", "--checkpoint-interval", "100 ms"];
    let mut job = Running::start(&sandbox, &arguments);
    job.until(&sandbox, "the lag", || {
        let Some((total, splits)) = newest_lag(&sandbox) else { return false };
        assert!(total <= MANY && splits.iter().map(|(_, lag)| lag).sum::<u64>() == total, "{total}: {splits:?}");
        splits.len() == 2
    });
    // Nobody pulls, since nobody takes what has come.
    send();
    job.until(&sandbox, "what has come since", || newest_lag(&sandbox).is_some_and(|(total, _)| total > MANY));
    job.kill();
    sandbox.slow_sinks(0);
    let mut job = Running::start(&sandbox, &arguments);
    job.until(&sandbox, "no lag", || {
        newest_lag(&sandbox).is_some_and(|(total, splits)| (total, splits.len()) == (0, 2))
    });
}
