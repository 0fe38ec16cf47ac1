//! State larger than memory: jobs whose state is several times what the worker may use give what they give with much
//! memory, over kills and changes of parallelism, and keep to it. State that cannot be put aside ends its own job only.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::changelog::ChangelogFold;
use crate::support::cluster::LocalCluster;
use crate::support::{Sandbox, assert_says, text};

/// Each row comes once on each side, and counts with the other side's row for its group: about 500 bytes in all.
const KEYS: u64 = 120_000;
const MEMORY: &str = "16 mb";
/// Half of it is for state. It may be more for a moment: each of the two operators takes a batch before it looks, up to 8,192
/// rows of 500 bytes, and a part that is read has to be there as a whole. Without a bound it would be 60 MB.
const STATE_BYTES_MAX: u64 = 20 << 20;

/// A join and an aggregation that keep long rows for ever, and of which few rows are given.
fn job() -> Sandbox {
    let last = KEYS - 1;
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '40000', \
             'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{last}');\n"
        )
    };
    let side = |table: &str, step: u64| {
        format!(
            "SELECT MOD(n * {step}, {KEYS}) AS k, n AS v, LPAD(CAST(MOD(n * {step}, {KEYS}) AS STRING), 150, 'x') AS p FROM {table}"
        )
    };
    let sql = format!(
        "{}{}
CREATE TABLE pairs (k BIGINT, p STRING, v BIGINT) WITH ('connector' = 'filesystem', 'path' = 'pairs', 'format' = 'json');
CREATE TABLE groups (p STRING, c BIGINT) WITH ('connector' = 'filesystem', 'path' = 'groups', 'format' = 'debezium-json');
CREATE VIEW sides AS {} UNION ALL {};
INSERT INTO pairs SELECT l.k, r.p, l.v + r.v FROM ({}) l JOIN ({}) r ON l.k = r.k WHERE MOD(l.v + r.v, 307) = 7;
INSERT INTO groups SELECT p, COUNT(*) FROM sides GROUP BY p HAVING MOD(SUM(v), 307) = 7;
",
        table("a"),
        table("b"),
        side("a", 7919),
        side("b", 7907),
        side("a", 7919),
        side("b", 7907),
    );
    Sandbox::new(&sql)
}

/// Pairs, and groups as the changes leave them.
fn output(sandbox: &Sandbox) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let groups = ChangelogFold::debezium(&sandbox.path("groups")).unwrap();
    (sandbox.lines("pairs"), groups.rows())
}

/// The last line of progress that a process has written.
fn progress(sandbox: &Sandbox) -> Option<serde_json::Value> {
    let log = std::fs::read_to_string(sandbox.path("stderr.log")).ok()?;
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.into_iter().find(|line| line["event"] == "progress")
}

/// Sums a figure over all operators.
fn total(progress: &serde_json::Value, figure: &str) -> u64 {
    progress["memory"].as_array().unwrap().iter().map(|of| of[figure].as_u64().unwrap()).sum()
}

/// What a run has shown of its state.
#[derive(Debug, Default)]
struct Shown {
    /// The most that it ever took.
    bytes: u64,
    loads: u64,
    deferred_rows: u64,
    /// The last line of progress. State that is gone at the end is not in it.
    last: serde_json::Value,
}

/// Runs the job with little memory, and kills it when `is_time`.
fn run(sandbox: &Sandbox, parallelism: &str, is_time: impl Fn(&serde_json::Value) -> bool) -> Shown {
    let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
    let interval = ["--checkpoint-interval", "300 ms"];
    let arguments =
        [&["run", "job.sql", "--json", "--memory", MEMORY, "-p", parallelism], interval.as_slice()].concat();
    let mut child = sandbox.command(&arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let begun = Instant::now();
    let mut shown = Shown::default();
    loop {
        if let Some(progress) = progress(sandbox) {
            shown.bytes = shown.bytes.max(total(&progress, "bytes"));
            shown.loads = shown.loads.max(total(&progress, "part_loads"));
            shown.deferred_rows = shown.deferred_rows.max(total(&progress, "deferred_rows"));
            shown.last = progress;
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{}", std::fs::read_to_string(sandbox.path("stderr.log")).unwrap());
            return shown;
        }
        if !shown.last.is_null() && is_time(&shown.last) {
            child.kill().unwrap();
            child.wait().unwrap();
            return shown;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "it takes too long: {shown:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn state_of_several_times_the_memory_gives_the_same_over_a_kill() {
    let undisturbed = job();
    undisturbed.run_ok(&["run", "job.sql", "-p", "2"]);
    let expected = output(&undisturbed);
    assert!(expected.0.len() > 100 && expected.1.len() > 100, "{} {}", expected.0.len(), expected.1.len());

    let sandbox = job();
    let rows_half = KEYS;
    let is_half = |progress: &serde_json::Value| {
        let epochs = progress["last_committed_epoch"].as_u64().unwrap_or(0);
        epochs >= 2 && progress["rows_in"].as_u64().unwrap_or(0) > rows_half && total(progress, "parts_cold") > 0
    };
    let killed = run(&sandbox, "2", is_half);
    let ended = run(&sandbox, "1", |_| false);
    assert!(output(&sandbox) == expected, "other output: {killed:?}, {ended:?}");
    assert!(killed.bytes.max(ended.bytes) <= STATE_BYTES_MAX, "{killed:?}, {ended:?}");
    assert!(ended.loads > 10 && ended.deferred_rows > 1000, "{ended:?}");
}

/// Two jobs on one worker: one sorts more than fits, the other goes on.
#[test]
fn a_job_that_cannot_put_its_state_aside_fails_alone() {
    let sandbox = Sandbox::new("");
    let source = "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '200000', \
                  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '1000000000');";
    let small = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'blackhole');
                 INSERT INTO s SELECT COUNT(*) FROM g GROUP BY MOD(n, 10);";
    let large = "CREATE TABLE s (p STRING) WITH ('connector' = 'blackhole');
                 INSERT INTO s SELECT LPAD(CAST(n AS STRING), 200, 'x') AS p FROM g ORDER BY p LIMIT 1000000;";
    sandbox.write("small.sql", format!("{source}{small}"));
    sandbox.write("large.sql", format!("{source}{large}"));
    let arguments = ["--checkpoint-interval", "500 ms", "-p", "1"];
    let cluster = LocalCluster::start_as(&sandbox, 1, 1, 2, &[], &["--memory=32 mb"]);
    sandbox.run_ok(&[&["submit", "small.sql"], arguments.as_slice()].concat());
    sandbox.run_ok(&[&["submit", "large.sql"], arguments.as_slice()].concat());
    let jobs = cluster.wait_until("the large job has failed", |jobs| jobs.has_ended("large"));
    let reason = jobs.job("large").unwrap()["end"].to_string();
    assert_says(&reason, &["cannot be put aside", "--memory", "its state takes"]);
    let epoch = jobs.number("small", "complete");
    let jobs = cluster.wait_until("the small job goes on", |jobs| jobs.number("small", "complete") > epoch + 2);
    let small = jobs.job("small").unwrap();
    assert_eq!((small["status"]["restarts"].as_u64(), jobs.workers()), (Some(0), 1), "{small}");
    assert!(small["memory"].as_array().is_some_and(|operators| !operators.is_empty()), "{small}");
    let shown = text(&sandbox.run_ok(&["status", "small"]).stdout);
    assert_says(&shown, &["memory ", "holds"]);
}
