//! Aggregation without windows in the whole binary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Sandbox, assert_says, text};

const TABLE: &str =
    "CREATE TABLE t (k BIGINT, v BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');";

/// Three files; row `n` has the key `n % 97`.
fn rows(sandbox: &Sandbox, count: i64) {
    for file in 0..3 {
        let mut content = String::new();
        for n in (0..count).filter(|n| n % 3 == file) {
            writeln!(content, r#"{{"k": {}, "v": {}}}"#, n % 97, n % 5).unwrap();
        }
        sandbox.write(&format!("in/{file}.json"), content);
    }
}

#[test]
fn groups_reach_a_sink_that_takes_changes() {
    let sandbox = Sandbox::new(&format!(
        "{TABLE} CREATE TABLE out (k BIGINT, n BIGINT, s BIGINT, m BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO out SELECT k, COUNT(*), SUM(v), MIN(v) FROM t GROUP BY k;"
    ));
    rows(&sandbox, 5_000);
    let output = sandbox.run_ok(&["run", "job.sql", "--parallelism", "3", "--json"]);
    let outcome = text(&output.stderr);
    let outcome: Value = serde_json::from_str(outcome.lines().last().unwrap()).unwrap();
    assert_eq!((&outcome["outcome"], &outcome["rows_in"]), (&Value::from("finished"), &Value::from(5_000)));
    let out = outcome["rows_out"].as_u64().unwrap();
    // Each group comes once; a later change of it is two rows.
    assert!((97..=10_000).contains(&out) && (out - 97).is_multiple_of(2), "{out} changes of 97 groups");
    assert_eq!(outcome["unmatched_changes"], 0);
}

#[test]
fn distinct_rows_are_written_once_whatever_happens() {
    let sandbox = Sandbox::new(&format!(
        "{TABLE} CREATE TABLE out (k BIGINT, v BIGINT)
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json', 'delivery' = 'exactly-once');
         INSERT INTO out SELECT DISTINCT k, v FROM t WHERE v > 0;"
    ));
    rows(&sandbox, 60_000);
    let run =
        |parallelism: &'static str| ["run", "job.sql", "--parallelism", parallelism, "--checkpoint-interval", "20 ms"];
    let mut parallelisms = ["1", "3", "2"].iter().cycle();
    for attempt in 1..6 {
        let wait = Duration::from_millis(60 * attempt);
        if !sandbox.run_and_kill(&run(parallelisms.next().unwrap()), wait) {
            break;
        }
    }
    sandbox.run_ok(&run("2"));
    let expected: BTreeMap<String, usize> =
        (0..97 * 5).filter(|n| n % 5 > 0).map(|n| (format!(r#"{{"k":{},"v":{}}}"#, n % 97, n % 5), 1)).collect();
    assert_eq!(sandbox.lines("out"), expected);
}

/// With a window, without one, over rows before, and in a match: a decimal is never another one than the sum.
#[test]
fn a_sum_of_decimals_that_does_not_fit_stops_the_job_wherever_it_is_made() {
    let nines = "9".repeat(38);
    for sum in [
        "SELECT SUM(d) FROM t",
        "SELECT SUM(d) FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR) GROUP BY window_start, window_end",
        "SELECT SUM(d) OVER (ORDER BY ts) FROM t",
        "SELECT SUM(d) OVER (ORDER BY ts ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) FROM t",
        "SELECT s FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES SUM(A.d) AS s PATTERN (A+ B) DEFINE A AS id < 4, B AS id = 4)",
    ] {
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id INT, d DECIMAL(38, 0), ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
               WITH ('connector' = 'filesystem', 'path' = 't.json', 'format' = 'json');
             {sum};"
        ));
        // Four of the largest are another number of as many digits, modulo 2 to the 128.
        let row = |id: u64| format!("{{\"id\":{id},\"d\":{nines},\"ts\":\"2026-01-01 00:00:0{id}\"}}\n");
        sandbox.write("t.json", (1..=4).map(row).collect::<String>());
        let message = sandbox.run_err(&["run", "job.sql"]);
        assert_says(&message, &["SUM does not fit into DECIMAL(38, 0)", "take its sum as a DOUBLE"]);
    }
}
