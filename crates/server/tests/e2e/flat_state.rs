//! State is released: every operator that lets go of its state by time keeps no more at the end of a long run than after
//! its first quarter, in rows and in files. The same operators without such a bound must be seen to grow.
//!
//! `MAINSTEM_FLAT_SECONDS=60` lets the runs be longer.

mod queries;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use self::queries::{BY_EVENT_TIME, BY_HINT, BY_TIME_TO_LIVE};
use crate::support::{Sandbox, text, visible_files};

/// Of each stream, in the first try.
const ROWS_PER_SECOND: i64 = 5_000;
/// Length of a run, in event time and nearly so by the clock, which releases state too.
const SECONDS: i64 = 4;
/// Time of the first row: 2026-01-01 00:00:00.
const BASE_MS: i64 = 1_767_225_600_000;
/// Runs side by side; they mostly wait for the clock, and for the disk.
const RUNS: usize = 3;
/// A run that had too few checkpoints, or held rows for longer than it should because the machine had other things to do, is made
/// again, twice as long and with half as many rows a second. State that is not released grows with the run, however often it is
/// made.
const TRIES: u32 = 4;

/// Checkpoints that there must be in each of the parts of a run that are compared.
const CHECKPOINTS_MIN: usize = 5;

/// Two streams of rows with a key of their own (`id`), and one that comes again (`k`).
const TABLES: &str = "
SET 'state.checkpoints.num-retained' = '1000';
SET 'table.exec.state.ttl' = '{ttl}';
CREATE TABLE a (
  id BIGINT, k BIGINT, n BIGINT, ts TIMESTAMP(3), p AS PROCTIME(),
  PRIMARY KEY (k) NOT ENFORCED, WATERMARK FOR ts AS ts - INTERVAL '0.05' SECOND
) WITH ({options}, 'seed' = '1');
CREATE TABLE b (
  id BIGINT, k BIGINT, n BIGINT, ts TIMESTAMP(3), p AS PROCTIME(),
  PRIMARY KEY (k) NOT ENFORCED, WATERMARK FOR ts AS ts - INTERVAL '0.05' SECOND
) WITH ({options}, 'seed' = '2');
";

fn seconds() -> i64 {
    std::env::var("MAINSTEM_FLAT_SECONDS").map_or(SECONDS, |text| text.parse().unwrap())
}

fn job(ttl: &str, query: &str, seconds: i64, rows_per_second: i64) -> String {
    let options = format!(
        "'connector' = 'datagen', 'rows-per-second' = '{rows_per_second}', 'number-of-rows' = '{}', \
         'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '1000000000', \
         'fields.k.min' = '0', 'fields.k.max' = '199', 'fields.n.min' = '0', 'fields.n.max' = '99', \
         'fields.ts.max-past' = '30 ms'",
        seconds * rows_per_second
    );
    format!("{}{query};", TABLES.replace("{ttl}", ttl).replace("{options}", &options))
}

/// The state of a job in one of its checkpoints.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// How far the sources were: from 0 to 1; above when they had ended.
    progress: f64,
    rows: u64,
    bytes: u64,
    /// Most files of one operator of one subtask.
    files: usize,
}

impl Size {
    fn read(manifest: &str, seconds: i64) -> Size {
        let (_, json) = manifest.split_once('\n').unwrap();
        let manifest: Value = serde_json::from_str(json).unwrap();
        let parts = || manifest["operators"].as_object().unwrap().values().flat_map(|parts| parts.as_array().unwrap());
        let parts = || parts().map(|part| &part[1]);
        let watermark = parts().filter_map(|part| part["watermark"].as_i64()).min().unwrap();
        let files = || parts().map(|part| part["state"].as_array().unwrap());
        Size {
            progress: watermark.saturating_sub(BASE_MS) as f64 / (seconds * 1000) as f64,
            rows: parts().filter_map(|part| part["state_rows"].as_u64()).sum(),
            bytes: files().flatten().map(|file| file["size"].as_u64().unwrap()).sum(),
            files: files().map(Vec::len).max().unwrap_or(0),
        }
    }
}

/// Checkpoints after which the files of an operator have been replaced by one with the whole state, and again.
const FILES_CYCLE: usize = 33;

/// The state of a query early in its run (the most that there was) and late in it (what there usually was).
#[derive(Debug)]
struct Growth {
    name: String,
    checkpoints: usize,
    /// Most files of one operator of one subtask. There may be more while some of them are merged, which waits for a disk that
    /// is busy.
    files: usize,
    rows: (u64, u64),
    /// None: too few checkpoints to tell.
    bytes: Option<(u64, u64)>,
}

impl Growth {
    /// Of the first run that is right, or of the last one.
    fn of(name: &str, ttl: &str, query: &str, is_right: fn(&Growth) -> bool) -> Growth {
        let mut last = None;
        for tries in 0..TRIES {
            let (seconds, rows_per_second) = (seconds() << tries, ROWS_PER_SECOND >> tries);
            last = Growth::of_run(name, &job(ttl, query, seconds, rows_per_second), seconds).or(last);
            if last.as_ref().is_some_and(|growth| growth.has_few_files() && is_right(growth)) {
                break;
            }
        }
        last.unwrap_or_else(|| panic!("{name}: too few checkpoints to tell"))
    }

    /// None: too few checkpoints.
    fn of_run(name: &str, job: &str, seconds: i64) -> Option<Growth> {
        let sandbox = Sandbox::new(job);
        let arguments = ["run", "job.sql", "--parallelism", "2", "--checkpoint-interval", "30 ms"];
        let limit = Duration::from_secs(60 + 4 * seconds as u64);
        assert!(!sandbox.run_and_kill(&arguments, limit), "{name}: the job does not end");
        let manifests = visible_files(&sandbox.path(".mainstem/jobs/job/manifests"));
        let read = |file: &PathBuf| Size::read(&std::fs::read_to_string(file).unwrap(), seconds);
        let mut sizes: Vec<Size> = manifests.iter().map(read).filter(|size| size.progress < 1.0).collect();
        sizes.sort_by(|left, right| left.progress.total_cmp(&right.progress));

        let files = sizes.iter().map(|size| size.files).max().unwrap_or(0);
        let early = sizes.iter().filter(|size| (0.15..0.3).contains(&size.progress));
        let late = sizes.iter().filter(|size| size.progress >= 0.8);
        let early: Vec<u64> = early.map(|size| size.rows).collect();
        let late: Vec<u64> = late.map(|size| size.rows).collect();
        if early.len().min(late.len()) < CHECKPOINTS_MIN {
            return None;
        }
        let rows = (early.into_iter().max()?, median(late));
        let bytes: Vec<u64> = sizes.iter().map(|size| size.bytes).collect();
        let bytes = (bytes.len() >= 3 * FILES_CYCLE).then(|| {
            let early = bytes[FILES_CYCLE..2 * FILES_CYCLE].iter().copied().max().unwrap_or(0);
            (early, median(bytes[bytes.len() - FILES_CYCLE..].to_vec()))
        });
        Some(Growth { name: name.to_owned(), checkpoints: sizes.len(), files, rows, bytes })
    }

    fn has_few_files(&self) -> bool {
        self.files <= FILES_CYCLE
    }

    /// Runs queries side by side.
    fn of_all(queries: &[(&str, &str)], ttl: &str, is_right: fn(&Growth) -> bool) -> Vec<Growth> {
        let waiting = Mutex::new(queries.iter());
        let run = || {
            let mut done = Vec::new();
            loop {
                let next = waiting.lock().unwrap().next();
                let Some((name, query)) = next else { return done };
                done.push(Growth::of(name, ttl, query, is_right));
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RUNS).map(|_| scope.spawn(run)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }
}

#[expect(clippy::print_stdout, reason = "tells what the test has seen")]
fn check(queries: &[(&str, &str)], ttl: &str, is_right: fn(&Growth) -> bool) {
    // One test after the other: what is measured here depends on the clock.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = Growth::of_all(queries, ttl, is_right);
    for Growth { name, checkpoints, files, rows, bytes } in &all {
        println!(
            "{name}: {checkpoints} checkpoints of up to {files} files, {rows:?} rows early and late, {bytes:?} bytes"
        );
    }
    let wrong: Vec<&Growth> = all.iter().filter(|growth| !growth.has_few_files() || !is_right(growth)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn median(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}

fn is_flat(growth: &Growth) -> bool {
    let Growth { rows, bytes, .. } = growth;
    let few_bytes = bytes.is_none_or(|(early, late)| early > 0 && late <= early + early / 2);
    rows.0 > 0 && rows.1 <= rows.0 + rows.0 / 4 && few_bytes
}

fn is_growing(growth: &Growth) -> bool {
    growth.rows.1 > 2 * growth.rows.0
}

#[test]
fn event_time_releases_state() {
    check(BY_EVENT_TIME, "0", is_flat);
}

#[test]
fn time_to_live_releases_state() {
    check(BY_TIME_TO_LIVE, "300 ms", is_flat);
}

#[test]
fn hints_release_state() {
    check(BY_HINT, "0", is_flat);
}

/// Some of the same queries without time to live: what shows that these tests can fail.
#[test]
fn state_without_a_bound_grows() {
    let some: Vec<_> = BY_TIME_TO_LIVE.iter().copied().step_by(4).collect();
    check(&some, "0", is_growing);
}

#[test]
fn a_running_job_shows_the_state_of_its_operators() {
    let (_, query) = BY_EVENT_TIME.iter().find(|(name, _)| *name == "interval join").unwrap();
    let sandbox = Sandbox::new(&job("0", query, SECONDS, ROWS_PER_SECOND));
    let output = sandbox.run_ok(&["run", "job.sql", "--json", "--checkpoint-interval", "100 ms"]);
    let lines: Vec<Value> = text(&output.stderr).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let shown = lines.iter().filter(|line| line["event"] == "progress").flat_map(|line| line["state"].as_array());
    let join = shown.flatten().find(|state| state["name"] == "interval join" && state["rows"].as_u64() > Some(0));
    let join = join.unwrap_or_else(|| panic!("no state of a join in {lines:?}"));
    assert!(join["bytes"].as_u64() > Some(0) && join["operator"].as_u64() > Some(1), "{join}");
}
