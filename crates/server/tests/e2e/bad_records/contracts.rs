//! What is declared of rows: NOT NULL, CHECK, event time, and how much may be wrong.

use std::collections::BTreeMap;

use super::{base64, objects};
use crate::support::{Sandbox, assert_says, text};

fn job(options: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE orders (id BIGINT NOT NULL, amount INT CHECK (amount > 0), kind STRING, ts TIMESTAMP(3),
           CONSTRAINT known_kind CHECK (kind IN ('a', 'b')), WATERMARK FOR ts AS ts)
         WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{options});
         CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         CREATE TABLE letters (`position` BIGINT, line BIGINT, raw BYTES, reason STRING)
         WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');
         INSERT INTO o SELECT id FROM orders;"
    ));
    let row = |id: &str, amount: &str, kind: &str, ts: &str| {
        format!("{{\"id\":{id},\"amount\":{amount},\"kind\":{kind},\"ts\":{ts}}}\n")
    };
    let ts = "\"2026-01-01 00:00:00\"";
    let rows = [
        row("1", "5", "\"a\"", ts),
        row("2", "-5", "\"a\"", ts),
        row("3", "5", "\"c\"", ts),
        row("null", "5", "\"a\"", ts),
        // NULL passes a CHECK.
        row("5", "null", "null", ts),
        row("6", "5", "\"b\"", "null"),
        row("7", "-5", "\"c\"", ts),
        row("8", "1", "\"b\"", ts),
    ];
    sandbox.write("in/a.json", rows.concat());
    sandbox
}

const DEAD_LETTER: &str = ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters'";

#[test]
fn rows_that_break_a_contract_are_letters_with_their_bytes() {
    let sandbox = job(DEAD_LETTER);
    let input = std::fs::read(sandbox.path("in/a.json")).unwrap();
    let said = text(&sandbox.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &["3 rows in", "5 dead letters"]);
    let ids: Vec<i64> = objects(&sandbox.lines("out")).iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 5, 8]);
    let mut letters = objects(&sandbox.lines("letters"));
    letters.sort_by_key(|letter| letter["line"].as_i64());
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let reasons = [
        (2, "the row breaks the constraint 'orders_check_1', CHECK (amount > 0)"),
        (3, "the row breaks the constraint 'known_kind', CHECK (kind IN ('a', 'b'))"),
        (4, "column 'id': NULL in a NOT NULL column"),
        (6, "the event time 'ts' is NULL"),
        (7, "the row breaks the constraint 'orders_check_1', CHECK (amount > 0)"),
    ];
    assert_eq!(letters.len(), reasons.len());
    for (letter, (line, reason)) in letters.iter().zip(reasons) {
        assert_eq!((letter["line"].as_i64(), letter["reason"].as_str()), (Some(line), Some(reason)));
        let before: usize = lines[..line as usize - 1].iter().map(|line| line.len() + 1).sum();
        assert_eq!(letter["position"].as_u64(), Some(before as u64));
        assert_eq!(letter["raw"].as_str().unwrap(), base64(lines[line as usize - 1]));
    }
}

#[test]
fn rows_that_break_a_contract_are_dropped_or_stop_the_job() {
    let said = text(&job(", 'bad-records' = 'drop'").run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &["3 rows in", "5 dropped"]);
    let message = job("").run_err(&["run", "job.sql"]);
    // The reader comes to the NULL of line 4 later than to the rows before it.
    assert_says(
        &message,
        &[
            "a.json', line 2, byte ",
            "breaks the constraint 'orders_check_1', CHECK (amount > 0)",
            r#"{"id":2,"amount":-5"#,
        ],
    );
}

#[test]
fn times_of_another_unit_are_no_event_times() {
    let job = |options: &str| {
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (n BIGINT, ts AS TO_TIMESTAMP_LTZ(n, 3), WATERMARK FOR ts AS ts)
             WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{options});
             CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             CREATE TABLE letters (`position` BIGINT, line BIGINT, raw BYTES, reason STRING)
             WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');
             INSERT INTO o SELECT COUNT(*) FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND)
             GROUP BY window_start, window_end;"
        ));
        let times = [1_800_000_000_000, i64::MAX, 1_800_000_000_001, 1_800_000_000_000_000_000, i64::MIN];
        sandbox.write("in/a.json", times.map(|n| format!("{{\"n\":{n}}}\n")).concat());
        sandbox
    };
    let sandbox = job(DEAD_LETTER);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(sandbox.lines("out"), BTreeMap::from([("{\"n\":2}".to_owned(), 1)]));
    let mut letters = objects(&sandbox.lines("letters"));
    letters.sort_by_key(|letter| letter["line"].as_i64());
    assert_eq!(letters.iter().map(|letter| letter["line"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 4, 5]);
    assert_says(
        letters[1]["reason"].as_str().unwrap(),
        &["is 1800000000000000000 ms after 1970", "years 0 to 9999", "unit"],
    );
    let message = job("").run_err(&["run", "job.sql"]);
    assert_says(&message, &["9223372036854775807 ms after 1970", "years 0 to 9999", "'bad-records' = 'drop'"]);
}

/// A watermark of another unit would make all rows behind it late.
#[test]
fn watermarks_of_another_unit_are_no_watermarks() {
    let job = |options: &str| {
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (ts TIMESTAMP(3), sent BIGINT, WATERMARK FOR ts AS TO_TIMESTAMP_LTZ(sent, 3))
             WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{options});
             CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             INSERT INTO o SELECT COUNT(*) FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' DAY)
             GROUP BY window_start, window_end;"
        ));
        // Before all times is as good as none.
        let sent = [-99_000_000_000_000_i64, 1_767_225_600_000_000, 1_767_225_600_000];
        let line = |sent: i64| format!("{{\"ts\":\"2026-01-01 00:00:01\",\"sent\":{sent}}}\n");
        sandbox.write("in/a.json", sent.map(line).concat());
        sandbox
    };
    let sandbox = job(", 'bad-records' = 'drop'");
    let said = text(&sandbox.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &["2 rows in", "1 dropped"]);
    assert_eq!(sandbox.lines("out"), BTreeMap::from([("{\"n\":2}".to_owned(), 1)]));
    let message = job("").run_err(&["run", "job.sql"]);
    assert_says(&message, &["a watermark is 1767225600000000 ms after 1970", "'bad-records' = 'drop'"]);
}

#[test]
fn a_job_that_is_mostly_wrong_stops_with_its_counts() {
    let options = format!("{DEAD_LETTER}, 'bad-records.max-fraction' = '0.5', 'bad-records.min-records' = '100'");
    let sandbox = job(&options);
    sandbox.run_ok(&["run", "job.sql"]);
    let sandbox = job(&options);
    let input = std::fs::read_to_string(sandbox.path("in/a.json")).unwrap();
    sandbox.write("in/a.json", input.repeat(200));
    let message = sandbox.run_err(&["run", "job.sql", "--parallelism", "1"]);
    assert_says(
        &message,
        &[
            "1000 of the last 1600 records that a subtask has read are wrong",
            "more than 'bad-records.max-fraction' = '0.5' accepts; the newest is",
            "a.json', line 1599",
        ],
    );
}

#[test]
fn rows_of_parquet_are_refused_one_by_one() {
    let columns = "id BIGINT, v INT";
    let table = |columns: &str, options: &str| {
        format!(
            "CREATE TABLE p ({columns}) WITH ('connector' = 'filesystem', 'path' = 'p', 'format' = 'parquet'{options});"
        )
    };
    let sandbox =
        Sandbox::new(&format!("{} INSERT INTO p VALUES (1, 1), (NULL, 2), (3, -3), (4, 4);", table(columns, "")));
    sandbox.run_ok(&["run", "job.sql", "--parallelism", "1"]);
    let read = |options: &str| {
        format!(
            "{} CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             CREATE TABLE letters (`position` BIGINT, raw BYTES, reason STRING)
             WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json'); INSERT INTO o SELECT id FROM p;",
            table("id BIGINT NOT NULL, v INT, CHECK (v > 0)", options)
        )
    };
    sandbox.write("read.sql", read(""));
    assert_says(&sandbox.run_err(&["run", "read.sql"]), &["row 2: column 'id'", "NULL in a NOT NULL column"]);
    sandbox.write("read.sql", read(DEAD_LETTER));
    sandbox.run_ok(&["run", "read.sql", "--fresh"]);
    let letters: Vec<_> = objects(&sandbox.lines("letters"))
        .iter()
        .map(|letter| (letter["position"].as_i64().unwrap(), letter["raw"].is_null(), letter["reason"].to_string()))
        .collect();
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(
        letters.iter().any(|(position, null, reason)| *position == 1 && *null && reason.contains("NOT NULL")),
        "{letters:?}"
    );
    assert!(
        letters.iter().any(|(position, null, reason)| *position == 2 && *null && reason.contains("v > 0")),
        "{letters:?}"
    );
    assert_eq!(sandbox.lines("out").len(), 2);
}

#[test]
fn a_computed_column_that_fails_makes_a_bad_record() {
    let job = |query: &str, options: &str| {
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE orders (id BIGINT, parts INT, price AS 100 / parts, ts STRING,
               at AS CAST(ts AS TIMESTAMP(3)), WATERMARK FOR at AS at)
             WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{options});
             CREATE TABLE o (id BIGINT, v STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             CREATE TABLE letters (line BIGINT, reason STRING)
             WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');
             INSERT INTO o SELECT id, {query} FROM orders;"
        ));
        let row = |id: i64, parts: &str, ts: &str| format!("{{\"id\":{id},\"parts\":{parts},\"ts\":\"{ts}\"}}\n");
        let good = "2026-01-01 00:00:00";
        sandbox.write(
            "in/a.json",
            [row(1, "5", good), row(2, "0", good), row(3, "4", "soon"), row(4, "2", good)].concat(),
        );
        sandbox
    };
    for query in ["CAST(price AS STRING)", "'not asked for'"] {
        let sandbox = job(query, DEAD_LETTER);
        assert_says(&text(&sandbox.run_ok(&["run", "job.sql"]).stderr), &["2 rows in", "2 dead letters"]);
        let ids: Vec<i64> = objects(&sandbox.lines("out")).iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, [1, 4]);
        let mut letters = objects(&sandbox.lines("letters"));
        letters.sort_by_key(|letter| letter["line"].as_i64());
        assert_eq!(letters.iter().map(|letter| letter["line"].as_i64()).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert_says(letters[0]["reason"].as_str().unwrap(), &["'price'", "fails for it", "Divide by zero"]);
        assert_says(letters[1]["reason"].as_str().unwrap(), &["soon"]);
        let dropped = job(query, ", 'bad-records' = 'drop'");
        assert_says(&text(&dropped.run_ok(&["run", "job.sql"]).stderr), &["2 rows in", "2 dropped"]);
    }
    assert_says(&job("CAST(price AS STRING)", "").run_err(&["run", "job.sql"]), &["source orders: Arrow error"]);
}
