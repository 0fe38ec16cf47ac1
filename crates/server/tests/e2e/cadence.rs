//! The time between checkpoints, where the job chooses it.

use serde_json::Value;

use crate::support::{Sandbox, assert_says, text, visible_files};

const SECONDS: u64 = 4;

fn sandbox(settings: &str) -> Sandbox {
    let rows = SECONDS * 500;
    Sandbox::new(&format!(
        "{settings}
        CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '{rows}',
          'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '{rows}');
        CREATE TABLE copies (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
        INSERT INTO copies SELECT n FROM numbers;"
    ))
}

#[test]
fn a_job_chooses_and_says_why() {
    let bound = "SET 'execution.checkpointing.auto.visibility-latency' = '400 ms';";
    let sandbox = sandbox(&format!(
        "SET 'execution.checkpointing.interval' = 'auto'; {bound} SET 'state.checkpoints.num-retained' = '1000';"
    ));
    let output = sandbox.run_ok(&["run", "job.sql", "--json"]);
    let lines: Vec<Value> = text(&output.stderr).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = lines.iter().rfind(|line| line["event"] == "progress").expect("a job of seconds tells of itself");
    let interval_ms = last["checkpoint_interval_ms"].as_u64().unwrap();
    // Otherwise it would be minutes: a checkpoint is cheap, and nothing has failed.
    assert_says(last["checkpoint_interval_reason"].as_str().unwrap(), &["output is to be visible within 400 ms"]);
    assert!((50..5_000).contains(&interval_ms), "{last}");
    // Of the default there would be none but the last.
    let checkpoints = visible_files(&sandbox.path(".mainstem/jobs/job/manifests")).len();
    assert!(checkpoints > 3, "{checkpoints}");
    assert_eq!(sandbox.lines("out").len() as u64, SECONDS * 500);
}

#[test]
fn bounds_that_do_nothing_are_refused() {
    let refused = sandbox("SET 'execution.checkpointing.auto.recovery-time' = '10 s';").run_err(&["run", "job.sql"]);
    assert_says(&refused, &["'execution.checkpointing.auto.recovery-time' has no effect without SET", "'auto'"]);
    let both =
        "SET 'execution.checkpointing.interval' = 'auto'; SET 'execution.checkpointing.auto.recovery-time' = '10 s';";
    let refused = sandbox(both).run_err(&["run", "job.sql", "--checkpoint-interval", "1 s"]);
    assert_says(&refused, &["has no effect with --checkpoint-interval"]);
}
