//! What ends up in tables: folded changes, values of every type, what is written without epochs.

use std::collections::BTreeMap;

use super::sandbox;
use super::server::Server;

/// Counts by key while the input comes in, written by key: what remains is the answer over the whole input. Rows of
/// `gone` go away again when they are even.
#[test]
fn changes_by_key_fold_to_the_batch_answer() {
    let server = Server::start();
    let tables = "CREATE TABLE counts (k bigint PRIMARY KEY, n bigint, s bigint);
                  CREATE TABLE newest (k bigint, id bigint, note text, UNIQUE (k, id))";
    let table = server.database("changes", tables);
    let sql = format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '4000',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '30000');
         CREATE TABLE counts (k BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED)
           WITH ({table}, 'table-name' = 'public.counts');
         CREATE TABLE newest (k BIGINT, id BIGINT, note STRING, PRIMARY KEY (k, id) NOT ENFORCED)
           WITH ({table}, 'table-name' = 'newest');
         INSERT INTO counts SELECT id % 101, COUNT(*), SUM(id) FROM numbers GROUP BY id % 101;
         INSERT INTO newest SELECT k, id, CAST(id AS STRING) FROM (
           SELECT id % 53 AS k, id, ROW_NUMBER() OVER (PARTITION BY id % 53 ORDER BY id DESC) AS r FROM numbers) WHERE r <= 2;"
    );
    let sandbox = sandbox(&sql);
    for (edge, count) in [("transaction-written", 3), ("transaction-committed", 3), ("snapshots-durable", 2)] {
        assert!(
            sandbox.kill_at(&["run", "job.sql", "--checkpoint-interval", "50 ms", "-p", "2"], edge, count),
            "{edge}"
        );
    }
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "50 ms", "-p", "2"]);
    let mut counts = BTreeMap::<u64, (u64, u64)>::new();
    for id in 1..=30_000_u64 {
        let entry = counts.entry(id % 101).or_default();
        *entry = (entry.0 + 1, entry.1 + id);
    }
    let expected: Vec<Vec<String>> =
        counts.iter().map(|(k, (n, s))| [k, n, s].iter().map(|number| number.to_string()).collect()).collect();
    assert_eq!(server.query("changes", "SELECT k, n, s FROM counts ORDER BY k"), expected);
    let mut newest: Vec<(u64, u64)> = (30_000 - 2 * 53 + 1..=30_000).map(|id| (id % 53, id)).collect();
    newest.sort_unstable();
    let expected: Vec<Vec<String>> =
        newest.iter().map(|(k, id)| vec![k.to_string(), id.to_string(), id.to_string()]).collect();
    assert_eq!(server.query("changes", "SELECT k, id, note FROM newest ORDER BY k, id"), expected);
}

#[test]
fn values_of_every_type_are_written_and_read() {
    let server = Server::start();
    let real = "id int, b boolean, i2 smallint, i8 bigint, r real, d double precision, n numeric(12, 3), t text, c char(5), \
                u uuid, j jsonb, y bytea, day date, tm time, ts timestamp, tz timestamptz(3), ai int[], at text[], e mood, row json";
    let table = server.database(
        "types",
        &format!(
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE \"All Types\" ({real}); CREATE TABLE copies ({real})"
        ),
    );
    let columns = "id INT, b BOOLEAN, i2 SMALLINT, i8 BIGINT, r FLOAT, d DOUBLE, n DECIMAL(12, 3), t STRING, c STRING, \
                   u STRING, j STRING, y BYTES, `day` DATE, tm TIME, ts TIMESTAMP(6), tz TIMESTAMP_LTZ(3), ai ARRAY<INT>, \
                   `at` ARRAY<STRING>, e STRING";
    let names = "id, b, i2, i8, r, d, n, t, c, u, j, y, `day`, tm, ts, tz, ai, `at`, e";
    let sql = format!(
        "CREATE TABLE source ({columns}, `row` ROW<a INT, b STRING>) WITH ('connector' = 'filesystem', 'path' = 'in.json', 'format' = 'json');
         CREATE TABLE written ({columns}, `row` ROW<a INT, b STRING>) WITH ({table}, 'table-name' = 'All Types');
         INSERT INTO written SELECT * FROM source;"
    );
    let input = sandbox(&sql);
    let first = r#"{"id":1,"b":true,"i2":-7,"i8":9007199254740993,"r":0.1,"d":1e300,"n":"-123456789.125","t":"tab\tback\\slash\nnew ünï","c":"abc","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","j":"{\"x\": [1, null]}","y":"AP8=","day":"2024-02-29","tm":"23:59:59.125","ts":"2026-01-01 12:00:00.123456","tz":"2026-01-01 12:00:00.5Z","ai":[1,null,-3],"at":["a\"b","","NULL",null],"e":"ok","row":{"a":1,"b":"x"}}"#;
    let nothing = r#"{"id":2}"#;
    input.write("in.json", format!("{first}\n{nothing}\n"));
    input.run_ok(&["run", "job.sql"]);
    let found = server.query("types", "SELECT * FROM \"All Types\" ORDER BY id");
    let expected = [
        "1",
        "t",
        "-7",
        "9007199254740993",
        "0.1",
        "1e+300",
        "-123456789.125",
        "tab\tback\\slash\nnew ünï",
        "abc  ",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{\"x\": [1, null]}",
        "\\x00ff",
        "2024-02-29",
        "23:59:59.125",
        "2026-01-01 12:00:00.123456",
        "2026-01-01 12:00:00.5+00",
        "{1,NULL,-3}",
        "{\"a\\\"b\",\"\",\"NULL\",NULL}",
        "ok",
        "{\"a\":1,\"b\":\"x\"}",
    ];
    let timezone = server.value("types", "SHOW timezone");
    let found: Vec<Vec<String>> = found.into_iter().map(|row| row.into_iter().collect()).collect();
    assert_eq!(found[0], expected, "time zone {timezone}");
    assert_eq!(found[1][1..], vec!["NULL"; 19]);

    // What was written is read, and gives the same when it is written again.
    let sql = format!(
        "CREATE TABLE written ({columns}) WITH ({table}, 'table-name' = 'All Types');
         CREATE TABLE copies ({columns}) WITH ({table}, 'table-name' = 'copies');
         INSERT INTO copies SELECT {names} FROM written;"
    );
    sandbox(&sql).run_ok(&["run", "job.sql"]);
    let names = names.replace('`', "\"");
    for direction in [("\"All Types\"", "copies"), ("copies", "\"All Types\"")] {
        let (one, other) = direction;
        let texts = format!("({names})::text");
        let surplus = server.query("types", &format!("SELECT {texts} FROM {one} EXCEPT SELECT {texts} FROM {other}"));
        assert_eq!(surplus, Vec::<Vec<String>>::new());
    }
    assert_eq!(server.value("types", "SELECT COUNT(*) FROM copies"), "2");
}

#[test]
fn without_epochs_rows_are_there_before_a_checkpoint() {
    let server = Server::start();
    let table = server.database("direct", "CREATE TABLE t (id bigint PRIMARY KEY, n bigint)");
    let sql = format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '2000',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '100000000');
         CREATE TABLE t (id BIGINT, n BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ({}, 'table-name' = 't',
           'sink.delivery-guarantee' = 'at-least-once', 'sink.buffer-flush.max-rows' = '100');
         INSERT INTO t SELECT id, id * 2 FROM numbers;",
        table.replace("'connector' = 'postgres'", "'connector' = 'jdbc'")
    );
    let sandbox = sandbox(&sql);
    let explained = crate::support::text(&sandbox.run_ok(&["explain", "job.sql"]).stdout);
    assert!(explained.contains("at-least-once"), "{explained}");
    let arguments = ["run", "job.sql", "--checkpoint-interval", "1 h"];
    let mut job = sandbox.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut rows = 0;
    for _ in 0..6_000 {
        rows = server.value("direct", "SELECT COUNT(*) FROM t WHERE n = id * 2").parse().unwrap();
        if rows >= 500 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    job.kill().unwrap();
    job.wait().unwrap();
    assert!(rows >= 500, "{rows}");
}
