//! Checkpoints under backpressure: sinks that take far longer than everything before them. Aligned checkpoints take as
//! long as it takes to work off what lies in the channels; with a time-out they are complete within it, and what was in
//! flight comes out once, whatever is killed and at whatever parallelism the job goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::Sandbox;
use crate::support::changelog::ChangelogFold;

const ROWS: i64 = 120_000;
/// What has not happened by then never will.
const WATCHED_MAX: Duration = Duration::from_secs(180);
/// Many and small, so that batches are: what lies in the channels is then a small part of the input.
const FILES: i64 = 400;

/// Rows that are counted and summed by key, as a changelog; two exchanges further on, how many keys have which count;
/// and windows that overlap.
const SQL: &str = "
CREATE TABLE events (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE sums (k BIGINT, n BIGINT, s BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/sums', 'format' = 'debezium-json');
CREATE TABLE levels (n BIGINT, accounts BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/levels', 'format' = 'debezium-json');
CREATE TABLE hops (k BIGINT, w TIMESTAMP(3), n BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/hops', 'format' = 'json');
CREATE VIEW by_key AS SELECT k, COUNT(*) AS n, SUM(id) AS s FROM events GROUP BY k;
INSERT INTO sums SELECT k, n, s FROM by_key;
INSERT INTO levels SELECT n, COUNT(*) FROM by_key GROUP BY n;
INSERT INTO hops SELECT k, window_start, COUNT(*)
FROM TABLE(HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
GROUP BY k, window_start, window_end;
";

fn sandbox(aligned: &str) -> Sandbox {
    let sandbox =
        Sandbox::new(&format!("SET 'execution.checkpointing.aligned-checkpoint-timeout' = '{aligned}';\n{SQL}"));
    sandbox.write_events(ROWS, FILES, 1013, 500);
    sandbox
}

/// The output that every run must have in the end, computed here from the input's definition.
fn check(sandbox: &Sandbox, context: &str) {
    let (mut sums, mut hops) = (BTreeMap::<i64, (i64, i64)>::new(), BTreeMap::<(i64, i64), i64>::new());
    for id in 0..ROWS {
        let sum = sums.entry(id % 1013).or_default();
        *sum = (sum.0 + 1, sum.1 + id);
        let last = id / 500 / 5 * 5;
        for start in [last, last - 5, last - 10, last - 15] {
            *hops.entry((id % 1013, start)).or_default() += 1;
        }
    }
    let mut levels = BTreeMap::<i64, i64>::new();
    sums.values().for_each(|(n, _)| *levels.entry(*n).or_default() += 1);
    let changelog = |name: &str| {
        let rows = ChangelogFold::debezium(&sandbox.path(&format!("out/{name}"))).unwrap().rows();
        let value = |(row, count): (String, usize)| (serde_json::from_str::<Value>(&row).unwrap().to_string(), count);
        rows.into_iter().map(value).collect::<BTreeMap<_, _>>()
    };
    let expected = sums.iter().map(|(k, (n, s))| (serde_json::json!({"k": k, "n": n, "s": s}).to_string(), 1));
    assert_eq!(changelog("sums"), expected.collect(), "{context}");
    let expected =
        levels.iter().map(|(n, accounts)| (serde_json::json!({"n": n, "accounts": accounts}).to_string(), 1));
    assert_eq!(changelog("levels"), expected.collect(), "{context}");
    let line = |((k, start), n): (&(i64, i64), &i64)| {
        let (date, of_day) = if *start < 0 { ("2025-12-31", start + 86_400) } else { ("2026-01-01", *start) };
        let time = format!("{date} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
        (format!(r#"{{"k":{k},"w":"{time}","n":{n}}}"#), 1)
    };
    let (found, expected) = (sandbox.lines("out/hops"), hops.iter().map(line).collect::<BTreeMap<_, _>>());
    let differ = found.iter().filter(|(line, n)| expected.get(*line) != Some(n)).count();
    assert_eq!((found.len(), differ), (expected.len(), 0), "{context}");
}

/// What a job says of itself now and then, until that is enough and it is killed.
fn watched(sandbox: &Sandbox, parallelism: &str, is_enough: impl Fn(&[Value], Duration) -> bool) -> Vec<Value> {
    let arguments = ["run", "job.sql", "--json", "--checkpoint-interval", "200 ms", "-p", parallelism];
    let mut child = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let said = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let begun = Instant::now();
    let mut reports = Vec::new();
    while !is_enough(&reports, begun.elapsed()) {
        assert!(begun.elapsed() < WATCHED_MAX, "{reports:?}");
        if let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
            reports.extend(serde_json::from_str::<Value>(&line).ok().filter(|line| line["event"] == "progress"));
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "the job has ended: its sinks are not slow");
    child.kill().unwrap();
    child.wait().unwrap();
    reports
}

#[test]
fn under_backpressure_checkpoints_are_complete_within_the_time_out_and_otherwise_not() {
    let published = |reports: &[Value]| reports.last().and_then(|r| r["last_committed_epoch"].as_u64()).unwrap_or(0);
    let unaligned = sandbox("300 ms");
    unaligned.slow_sinks(400);
    let is_there = |report: &Value, what: &str| report[what].as_u64() > Some(0);
    let begun = Instant::now();
    let reports = watched(&unaligned, "2", |reports, _| {
        let in_flight = reports.iter().any(|report| is_there(report, "in_flight_bytes"));
        in_flight && published(reports) >= 5 && is_there(reports.last().unwrap(), "unaligned_checkpoints")
    });
    let time = begun.elapsed();

    let aligned = sandbox("none");
    aligned.slow_sinks(400);
    let waiting = watched(&aligned, "2", |_, watched_for| watched_for >= time);
    assert!(published(&reports) > 2 * published(&waiting), "{time:?}: {waiting:?}\n{reports:?}");
    // The time-out, and a step or two of a sink that is in the middle of one.
    let took = reports.iter().filter_map(|r| r["last_checkpoint_ms"].as_u64());
    assert!(took.clone().all(|ms| ms < 6_000), "{:?}", took.collect::<Vec<_>>());

    // What was in flight comes out once, at another parallelism.
    unaligned.slow_sinks(0);
    unaligned.run_ok(&["run", "job.sql", "--checkpoint-interval", "200 ms", "-p", "3"]);
    check(&unaligned, "after backpressure");
}

/// Whether some checkpoint that is kept holds rows in flight.
fn holds_rows_in_flight(sandbox: &Sandbox) -> bool {
    let files = std::fs::read_dir(sandbox.path(".mainstem/jobs/job/state")).into_iter().flatten();
    let mut names = files.filter_map(|file| Some(file.ok()?.file_name()));
    names.any(|name| name.to_string_lossy().contains("in_flight"))
}

/// Kills the job after a while, on a slow machine not before it holds rows in flight. Whether it did; none where it
/// has ended.
fn run_and_kill(sandbox: &Sandbox, parallelism: &str, after: Duration) -> Option<bool> {
    let arguments = ["run", "job.sql", "--checkpoint-interval", "20 ms", "-p", parallelism];
    let is_time = |run_for| run_for >= after && (holds_rows_in_flight(sandbox) || run_for >= Duration::from_secs(5));
    let killed = sandbox.run_and_kill_when(&arguments, is_time);
    killed.then(|| holds_rows_in_flight(sandbox))
}

/// More of them with `MAINSTEM_CASES=n`, one with `MAINSTEM_SEED=n`.
#[test]
fn rows_in_flight_survive_kills_at_any_parallelism() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("MAINSTEM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MAINSTEM_CASES").unwrap_or(6),
    };
    let (mut kills, mut in_flight) = (0, 0);
    for seed in seeds {
        let mut random = SmallRng::seed_from_u64(seed);
        let sandbox = sandbox(["0 ms", "0 ms", "20 ms"][random.random_range(0..3)]);
        for _ in 0..4 {
            sandbox.slow_sinks(random.random_range(0..6));
            let parallelism = random.random_range(1..5).to_string();
            let after = Duration::from_millis(random.random_range(50..900));
            let Some(held) = run_and_kill(&sandbox, &parallelism, after) else { break };
            kills += 1;
            in_flight += usize::from(held);
        }
        sandbox.slow_sinks(0);
        sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "20 ms", "-p", "2"]);
        check(&sandbox, &format!("seed {seed}"));
    }
    println!("{kills} kills, {in_flight} of them with rows in flight in some checkpoint");
    assert!(in_flight > 0, "no checkpoint held rows in flight");
}
