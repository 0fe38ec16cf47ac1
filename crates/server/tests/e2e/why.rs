//! `mainstem why`: the split that holds windows back and the reason of a failure are named, from what is stored and from what
//! a cluster tells.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::cluster::LocalCluster;
use crate::support::known;
use crate::support::{Sandbox, assert_says, text};

const SQL: &str = "SET 'execution.checkpointing.interval' = '100 ms';
SET 'restart-strategy.type' = 'none';
CREATE TABLE t (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '100 ms');
CREATE TABLE o (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO o SELECT k, COUNT(*) FROM t GROUP BY k, TUMBLE(ts, INTERVAL '1' SECOND);";

/// How long the store takes for each state file, where it is slow.
const STATE_DELAY_MS: u64 = 400;

#[test]
fn why_names_the_cause_of_a_failure_and_what_a_checkpoint_shows() {
    let sandbox = Sandbox::new(SQL);
    sandbox.write("in/a.json", "{\"k\":1,\"ts\":\"2026-01-01 00:00:01\"}\n");
    let mut run = sandbox.command(&["run", "job.sql", "-p", "1"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let why = || text(&sandbox.run(&["why", "job"]).stdout);
    while !why().contains("as of        epoch ") {
        assert!(begun.elapsed() < Duration::from_secs(180) && run.try_wait().unwrap().is_none(), "it runs: {}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_says(&why(), &["state        runs, or was killed"]);
    // A record that cannot be read ends it. The file appears with its content.
    sandbox.write("in/.new", "no record\n");
    std::fs::rename(sandbox.path("in/.new"), sandbox.path("in/b.json")).unwrap();
    let ended = run.wait_with_output().unwrap();
    assert!(!ended.status.success());
    assert_says(&why(), &["state        failed: ", "b.json"]);
    assert_says(&sandbox.run_err(&["why", "other"]), &["there is no job 'other'"]);
}

#[test]
fn why_asks_the_cluster_and_names_the_split_that_holds_windows_back_and_the_phase_that_is_slow() {
    let mut sandbox = Sandbox::new(&known::windows(100_000_000, 2_000, true, "none"));
    sandbox.environment.push(("MAINSTEM_DELAY".to_owned(), format!("state-write:{STATE_DELAY_MS}")));
    let cluster = LocalCluster::start(&sandbox, 1, 1, 2);
    sandbox.run_ok(&["submit", "job.sql"]);
    cluster.wait_until("it has published", |jobs| jobs.number("job", "committed") > 1);
    let shown = text(&sandbox.run_ok(&["why", "job"]).stdout);
    assert_says(&shown, &["state        running", "checkpoints  the newest one took ", "as of        epoch "]);
    // Figures are there once the leader has looked twice. The newest checkpoint may be about to be published.
    let begun = Instant::now();
    let told = loop {
        let told = text(&sandbox.run_ok(&["why", "job"]).stdout);
        if ["throughput ", "; publishing took "].iter().all(|part| told.contains(part)) {
            break told;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "{told}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_says(&told, &["phases       epoch ", "until the state of all subtasks was stored (last ["]);
    // By the newest checkpoint, and by the leader: of each a subtask whose state file is slow to be written.
    for about in ["slowest part", "phases"] {
        let line = told.lines().find(|line| line.starts_with(about)).unwrap_or_else(|| panic!("{about}: {told}"));
        let (before, _) = line.split_once(" ms writing and uploading (state: ").unwrap_or_else(|| panic!("{line}"));
        let ms: u64 = before.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(ms >= STATE_DELAY_MS, "{line}");
    }
    // In a cluster the dataflow is with the coordinators, so operators have numbers.
    assert_says(&shown, &["windows      op0: the ", "split 'part-"]);
    let json = sandbox.run_ok(&["why", "job", "--json"]).stdout;
    let findings: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&findings[0]["about"], &findings[0]["text"]), (&"state".into(), &"running".into()), "{findings}");
}
