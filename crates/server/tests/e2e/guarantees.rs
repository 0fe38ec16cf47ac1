//! `EXPLAIN GUARANTEES`, as a statement and as a flag.

use serde_json::Value;

use crate::support::{Sandbox, assert_says, text};

const SQL: &str = "CREATE TABLE t (k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE files (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
CREATE TABLE shown (k BIGINT, n BIGINT) WITH ('connector' = 'print');
INSERT INTO files SELECT k, COUNT(*) FROM t GROUP BY k, TUMBLE(ts, INTERVAL '1' SECOND);
INSERT INTO shown SELECT k, EXTRACT(SECOND FROM NOW()) FROM t;";

#[test]
fn guarantees_are_explained_for_each_path_and_nothing_runs() {
    let sandbox = Sandbox::new(SQL);
    let shown = text(&sandbox.run_ok(&["explain", "--guarantees", "job.sql"]).stdout);
    assert_says(
        &shown,
        &[
            "t (line 1) -> files (line 3), statement at line 5: exactly-once\n  how: files stay hidden",
            "  leaves out: rows that come behind the watermark of their split are left out and counted ([",
            "t (line 1) -> shown (line 4), statement at line 6: at-least-once\n  not more: the connector 'print' can keep no more",
            "  depends on time: NOW() reads the clock of the epoch",
        ],
    );
    let paths = sandbox.run_ok(&["explain", "--guarantees", "--json", "job.sql"]).stdout;
    let paths: Value = serde_json::from_slice(&paths).unwrap();
    assert_eq!(paths[1]["delivery"], "at-least-once", "{paths}");
    assert_eq!(paths[1]["causes"][0]["kind"], "sink", "{paths}");

    // As a statement, for all of the file; `run` shows the same and runs nothing.
    sandbox.write("job.sql", format!("EXPLAIN GUARANTEES;\n{SQL}"));
    for command in ["explain", "run"] {
        let shown = text(&sandbox.run_ok(&[command, "job.sql"]).stdout);
        assert_says(&shown, &["t (line 2) -> files (line 4), statement at line 6: exactly-once"]);
    }
    assert!(!sandbox.path(".mainstem").exists() && !sandbox.path("out").exists());

    // Of several files, places name the file.
    sandbox.write("job.sql", SQL);
    sandbox.write("more.sql", "EXPLAIN GUARANTEES\nINSERT INTO shown SELECT k, v FROM t;");
    let split = SQL.find("INSERT").unwrap();
    sandbox.write("job.sql", &SQL[..split]);
    let shown = text(&sandbox.run_ok(&["explain", "job.sql", "more.sql"]).stdout);
    assert_says(&shown, &["t (job.sql:1) -> shown (job.sql:4), statement at more.sql:1: at-least-once"]);
}
