//! Exactly once: the process is killed with SIGKILL at random instants and at the edges of durability, started
//! again by the same command, and the output must be what it is without any kill.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::Sandbox;

const ROWS: i64 = 400_000;
const FILES: i64 = 4;
/// Kills at random instants, unless another number is asked for.
const KILLS: usize = 50;

/// Every row is copied, and counted by key and window: a lost or doubled row shows in both outputs.
const SQL: &str = "
CREATE TABLE events (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE copies (id BIGINT, k BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/copies', 'format' = 'json');
CREATE TABLE counts (k BIGINT, w TIMESTAMP(3), n BIGINT, s BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'json');
INSERT INTO copies SELECT id, k FROM events;
INSERT INTO counts SELECT k, window_start, COUNT(*), SUM(id)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end;
";

pub(crate) fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(SQL);
    sandbox.write_events(ROWS, FILES, 97, 2000);
    sandbox
}

/// The output that every run must have in the end, computed here from the input's definition.
pub(crate) fn check(copies: &BTreeMap<String, usize>, counts: &BTreeMap<String, usize>) {
    let expected = (0..ROWS).map(|id| (format!(r#"{{"id":{id},"k":{}}}"#, id % 97), 1)).collect::<BTreeMap<_, _>>();
    assert!(*copies == expected, "{}", difference(copies, &expected));

    let mut windows = BTreeMap::<(i64, i64), (i64, i64)>::new();
    for id in 0..ROWS {
        let window = windows.entry((id % 97, id / 20_000)).or_default();
        window.0 += 1;
        window.1 += id;
    }
    let line = |((k, w), (n, s)): (&(i64, i64), &(i64, i64))| {
        let seconds = w * 10;
        let time = format!("2026-01-01 {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        (format!(r#"{{"k":{k},"w":"{time}","n":{n},"s":{s}}}"#), 1)
    };
    let expected = windows.iter().map(line).collect();
    assert!(*counts == expected, "{}", difference(counts, &expected));
}

fn difference(found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) -> String {
    let missing = expected.iter().filter(|(line, n)| found.get(*line) != Some(n));
    let surplus = found.iter().filter(|(line, n)| expected.get(*line) != Some(n));
    let some = |lines: Vec<_>| format!("{} lines, such as {:?}", lines.len(), lines.iter().take(3).collect::<Vec<_>>());
    format!("missing or of other number: {}; unexpected: {}", some(missing.collect()), some(surplus.collect()))
}

#[test]
fn fifty_kills_leave_no_trace() {
    let mut random = SmallRng::seed_from_u64(0x6d61696e);
    let mut kills = 0;
    let mut jobs = 0;
    // A job survives many kills; when it has finished all the same, the next one begins.
    while kills < crate::support::kills(KILLS) {
        let sandbox = sandbox();
        jobs += 1;
        let mut finished = false;
        while !finished && kills < crate::support::kills(KILLS) {
            let parallelism = random.random_range(1..=3).to_string();
            let after = Duration::from_millis(random.random_range(20..500));
            let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", &parallelism];
            finished = !sandbox.run_and_kill(&arguments, after);
            kills += usize::from(!finished);
        }
        sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "50 ms"]);
        check(&sandbox.lines("out/copies"), &sandbox.lines("out/counts"));
    }
    println!("{kills} kills at random instants over {jobs} jobs");
}

#[test]
fn kills_at_the_edges_of_durability_leave_no_trace() {
    let mut kills = BTreeMap::new();
    // Twelve kills between "complete" and "published", and some at each other edge.
    let edges =
        [("epoch-complete", 6), ("publishing", 6), ("published", 4), ("snapshots-durable", 3), ("manifest-durable", 3)];
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", "2"];
    let mut jobs = vec![sandbox()];
    for (edge, times) in edges {
        for n in 0..times {
            // Once early in the attempt, once a little later. A job that has ended before is followed by another one.
            while !jobs.last().unwrap().kill_at(&arguments, edge, 1 + n % 2) {
                jobs.push(sandbox());
                assert!(jobs.len() < 20, "{kills:?}");
            }
            *kills.entry(edge).or_insert(0) += 1;
        }
    }
    for sandbox in &jobs {
        sandbox.run_ok(&arguments);
        check(&sandbox.lines("out/copies"), &sandbox.lines("out/counts"));
    }
    println!("kills by edge: {kills:?} over {} jobs", jobs.len());
}
