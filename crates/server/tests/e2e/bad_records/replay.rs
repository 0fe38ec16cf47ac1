//! Dead letters that are fed back.

use super::objects;
use crate::support::kafka::Broker;
use crate::support::{Sandbox, assert_says, text};

fn files(more: &str) -> String {
    format!(
        "CREATE TABLE t (id BIGINT NOT NULL, v INT CHECK (v > 0)) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json',
           'bad-records' = 'dead-letter', 'bad-records.table' = 'letters');
         CREATE TABLE o (id BIGINT, v INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         CREATE TABLE letters (source STRING, raw STRING, reason STRING)
         WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');
         CREATE TABLE corrected (source STRING, raw STRING)
         WITH ('connector' = 'filesystem', 'path' = 'corrected', 'format' = 'json'); {more}
         INSERT INTO o SELECT id, v FROM t;"
    )
}

#[test]
fn corrected_lines_become_a_new_file_of_the_source() {
    let sandbox = Sandbox::new(&files(""));
    sandbox.write("in/a.json", "{\"id\":1,\"v\":1}\n{\"id\":2,\"v\":-2}\n{\"id\":3\n");
    sandbox.run_ok(&["run", "job.sql"]);
    let letters = objects(&sandbox.lines("letters"));
    assert_eq!(letters.len(), 2);
    // Somebody mends them.
    let mended: String = letters
        .iter()
        .map(|letter| letter.to_string().replace("-2", "2").replace("{\\\"id\\\":3", "{\\\"id\\\":3}") + "\n")
        .collect();
    sandbox.write("corrected/1.json", format!("{mended}{{\"source\":\"other\",\"raw\":\"x\"}}\n"));
    let message = sandbox.run_err(&["replay-dead-letters", "job.sql", "--from", "corrected"]);
    assert_says(&message, &["say where the records go back to with --to TABLE"]);
    let arguments = ["replay-dead-letters", "job.sql", "--from", "corrected", "--to", "t"];
    let said = text(&sandbox.run_ok(&arguments).stderr);
    assert_says(&said, &["job 'replay-corrected' finished: 3 rows in, 2 rows out"]);
    // Once more gives nothing more.
    assert_says(&text(&sandbox.run_ok(&arguments).stderr), &["has finished before"]);
    let lines = sandbox.lines("in");
    assert_eq!((lines.len(), lines.values().sum::<usize>()), (5, 5), "{lines:?}");
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    let rows = sandbox.lines("out");
    assert_eq!(rows[r#"{"id":2,"v":2}"#], 1);
    assert_eq!(rows[r#"{"id":3,"v":null}"#], 1);
}

#[test]
fn what_cannot_be_fed_back_is_refused() {
    let with = |name: &str, options: &str| format!("CREATE TABLE {name} (id BIGINT) WITH ({options});");
    let tables = [
        with("glob", "'connector' = 'filesystem', 'path' = 'in/*.json', 'format' = 'json'"),
        with("header", "'connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'csv.header' = 'true'"),
        with("made", "'connector' = 'datagen'"),
        "CREATE TABLE bare (reason STRING) WITH ('connector' = 'filesystem', 'path' = 'l', 'format' = 'json');"
            .to_owned(),
    ];
    let sandbox = Sandbox::new(&files(&tables.concat()));
    let refused =
        |from: &str, to: &str| sandbox.run_err(&["replay-dead-letters", "job.sql", "--from", from, "--to", to]);
    assert_says(&refused("letters", "glob"), &["its 'path' is a glob"]);
    assert_says(&refused("letters", "header"), &["its files begin with a header"]);
    assert_says(&refused("letters", "made"), &["only those of 'kafka', 'upsert-kafka' and 'filesystem'"]);
    assert_says(&refused("bare", "t"), &["table 'bare' has no column 'raw'"]);
    assert_says(&refused("nothing", "t"), &["unknown table 'nothing'"]);
}

#[test]
fn messages_go_back_to_their_topic_with_their_keys() {
    let broker = Broker::shared();
    for topic in ["again-in", "again-letters"] {
        broker.create(topic, 1);
    }
    let producer = broker.producer();
    producer.send_bytes("again-in", 0, b"k1", br#"{"id":"x"}"#);
    producer.send_bytes("again-in", 0, b"k2", br#"{"id":2}"#);
    producer.flush();
    let servers = broker.servers();
    let with = |topic: &str, more: &str| {
        format!(
            "WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json'{more})"
        )
    };
    let dead =
        ", 'scan.bounded.mode' = 'latest-offset', 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT) {};
         CREATE TABLE letters (raw BYTES, raw_key BYTES, source STRING) {};
         CREATE TABLE o (id BIGINT) WITH ('connector' = 'print'); INSERT INTO o SELECT id FROM t;",
        with("again-in", dead),
        with("again-letters", ""),
    ));
    sandbox.run_ok(&["run", "job.sql"]);
    sandbox.run_ok(&["replay-dead-letters", "job.sql", "--from", "letters"]);
    let seen: Vec<_> =
        broker.read("again-in").into_iter().map(|seen| (seen.key.unwrap(), seen.value.unwrap())).collect();
    let message = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(seen, [message("k1", r#"{"id":"x"}"#), message("k2", r#"{"id":2}"#), message("k1", r#"{"id":"x"}"#)]);
}
