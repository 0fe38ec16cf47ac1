//! Idle splits and files that are found while the job runs: which rows they make late is decided once, and a
//! replay of the epochs after a kill and damage to their checkpoints comes to the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::changelog::files_by_epoch;
use crate::support::{Sandbox, visible_files};

/// A job that has not come so far by then hangs.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// A running job, killed when it goes out of scope.
struct Running(Child);

impl Running {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Running {
        let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
        Running(sandbox.command(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Waits until something is so.
    fn wait_for(&mut self, sandbox: &Sandbox, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let log = || std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
            assert!(self.0.try_wait().unwrap().is_none(), "ended while waiting for {what}: {}", log());
            assert!(begun.elapsed() < WAIT_MAX, "waited too long for {what}: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The manifests of the job, by epoch. What a kill has left half written beside them is none.
fn manifests(sandbox: &Sandbox) -> BTreeMap<u64, PathBuf> {
    let mut files = visible_files(&sandbox.path(".mainstem/jobs/job/manifests"));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "manifest"));
    let epoch = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.split('-').next().unwrap().parse().unwrap()
    };
    files.into_iter().map(|path| (epoch(&path), path)).collect()
}

/// Damages every manifest after an epoch, so that all of them are replayed. Gives their number.
fn damage_after(sandbox: &Sandbox, epoch: u64) -> usize {
    let damaged: Vec<PathBuf> = manifests(sandbox).split_off(&(epoch + 1)).into_values().collect();
    for path in &damaged {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    damaged.len()
}

/// The visible JSON lines below a directory.
fn objects(sandbox: &Sandbox, directory: &str) -> Vec<Value> {
    let lines = sandbox.lines(directory);
    assert!(lines.values().all(|n| *n == 1), "published twice: {lines:?}");
    lines.keys().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const FILES: &str = "
SET 'state.checkpoints.num-retained' = '1000';
SET 'late-rows.table' = 'late';
CREATE TABLE events (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '20 ms');
CREATE TABLE late (`row` STRING) WITH ('connector' = 'filesystem', 'path' = 'out/late', 'format' = 'json');
CREATE TABLE counts (w TIMESTAMP(3), n BIGINT, s BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'json');
INSERT INTO counts SELECT window_start, COUNT(*), SUM(id)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;
";

/// The files in the order in which they come: each begins with seconds that are behind what the one before has
/// closed, then goes on. A row's id is the number of its file times 1000, plus its second.
const SECONDS: [(i64, i64, i64); 3] = [(0, 0, 60), (50, 50, 100), (80, 100, 160)];

fn write_file(sandbox: &Sandbox, file: usize) {
    let (behind, from, to) = SECONDS[file];
    let mut text = String::new();
    for second in (0..behind).chain(from..to) {
        let (id, minutes, seconds) = (file as i64 * 1000 + second, second / 60, second % 60);
        writeln!(text, r#"{{"id":{id},"ts":"2026-01-01 00:{minutes:02}:{seconds:02}"}}"#).unwrap();
    }
    // As a whole, under a name that counts only when it is complete.
    sandbox.write("in/.new", text);
    std::fs::rename(sandbox.path("in/.new"), sandbox.path(&format!("in/{file}.json"))).unwrap();
}

/// Whether all that files up to this one give is visible.
fn has_all_of(sandbox: &Sandbox, file: usize) -> bool {
    let start = SECONDS[file].2 - 20;
    let last_window = format!("2026-01-01 00:{:02}:{:02}", start / 60, start % 60);
    let late = SECONDS[..=file].iter().map(|(behind, _, _)| *behind as usize).sum::<usize>();
    sandbox.lines("out/counts").keys().any(|line| line.contains(&last_window))
        && sandbox.lines("out/late").len() == late
}

fn check_files(sandbox: &Sandbox) {
    let rows = SECONDS.iter().enumerate().flat_map(|(file, (behind, from, to))| {
        (0..*behind).map(move |s| (file, s, true)).chain((*from..*to).map(move |s| (file, s, false)))
    });
    let (mut windows, mut late) = (BTreeMap::<i64, (i64, i64)>::new(), Vec::new());
    for (file, second, is_late) in rows {
        let id = file as i64 * 1000 + second;
        if is_late {
            late.push(id);
        } else if second < 150 {
            let window = windows.entry(second / 10 * 10).or_default();
            *window = (window.0 + 1, window.1 + id);
        }
    }
    let line = |(start, (n, s)): (&i64, &(i64, i64))| {
        format!(r#"{{"w":"2026-01-01 00:{:02}:{:02}","n":{n},"s":{s}}}"#, start / 60, start % 60)
    };
    let expected: BTreeMap<String, usize> = windows.iter().map(|w| (line(w), 1)).collect();
    assert_eq!(sandbox.lines("out/counts"), expected);
    let row_id = |line: &Value| serde_json::from_str::<Value>(line["row"].as_str().unwrap()).unwrap()["id"].as_i64();
    let mut found: Vec<i64> = objects(sandbox, "out/late").iter().map(|line| row_id(line).unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, late);
}

#[test]
fn a_file_found_later_is_late_where_windows_are_closed_and_a_replay_agrees() {
    let arguments = ["run", "job.sql", "--checkpoint-interval", "40 ms", "--parallelism", "2"];
    // Without a fault; with the epochs since the second file damaged; with all of them damaged.
    for keeps in [None, Some(true), Some(false)] {
        let sandbox = Sandbox::new(FILES);
        write_file(&sandbox, 0);
        let mut job = Running::start(&sandbox, &arguments);
        job.wait_for(&sandbox, "the first file", || has_all_of(&sandbox, 0));
        let newest = *manifests(&sandbox).keys().next_back().unwrap();
        write_file(&sandbox, 1);
        job.wait_for(&sandbox, "the second file", || has_all_of(&sandbox, 1));
        if let Some(keeps) = keeps {
            drop(job);
            assert!(damage_after(&sandbox, if keeps { newest } else { 0 }) > 0);
            job = Running::start(&sandbox, &arguments);
        }
        write_file(&sandbox, 2);
        job.wait_for(&sandbox, "the third file", || has_all_of(&sandbox, 2));
        drop(job);
        check_files(&sandbox);
    }
}

/// Four splits, each a second or more behind the one before it, with a row each 200 ms: on time for itself, and
/// idle between any two rows.
const SPLITS: &str = "
SET 'state.checkpoints.num-retained' = '1000';
SET 'late-rows.table' = 'late';
CREATE TABLE events (
  n BIGINT, ts AS TO_TIMESTAMP_LTZ(1767225600000 + n * 50 - MOD(n, 4) * 1500, 3), WATERMARK FOR ts AS ts
) WITH ('connector' = 'datagen', 'rows-per-second' = '20', 'splits' = '4', 'scan.watermark.idle-timeout' = '100 ms',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '319');
CREATE TABLE late (`row` STRING) WITH ('connector' = 'filesystem', 'path' = 'out/late', 'format' = 'json');
CREATE TABLE counts (k BIGINT, w TIMESTAMP(3), n BIGINT, s BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'json');
INSERT INTO counts SELECT MOD(n, 4), window_start, COUNT(*), SUM(n)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY MOD(n, 4), window_start, window_end;
";

#[test]
fn each_row_of_an_idle_split_is_late_or_counted_once_whatever_is_replayed() {
    const ROWS: i64 = 320;
    let sandbox = Sandbox::new(SPLITS);
    let arguments = |parallelism| ["run", "job.sql", "--checkpoint-interval", "150 ms", "--parallelism", parallelism];
    let mut replayed = 0;
    for parallelism in ["2", "1", "3"] {
        let seen = manifests(&sandbox).len();
        let mut job = Running::start(&sandbox, &arguments(parallelism));
        job.wait_for(&sandbox, "some epochs", || manifests(&sandbox).len() >= seen + 9);
        drop(job);
        let newest = *manifests(&sandbox).keys().next_back().unwrap();
        replayed += damage_after(&sandbox, newest - 6);
    }
    sandbox.run_ok(&arguments("2"));
    assert!(replayed >= 15, "{replayed} epochs were run again");

    let mut keys = BTreeMap::<(i64, String), usize>::new();
    let (mut count, mut sum) = (0, 0);
    for window in objects(&sandbox, "out/counts") {
        let number = |name: &str| window[name].as_i64().unwrap();
        *keys.entry((number("k"), window["w"].to_string())).or_default() += 1;
        count += number("n");
        sum += number("s");
    }
    assert!(keys.values().all(|n| *n == 1), "a window was given twice: {keys:?}");
    let late = objects(&sandbox, "out/late");
    for line in &late {
        sum += serde_json::from_str::<Value>(line["row"].as_str().unwrap()).unwrap()["n"].as_i64().unwrap();
    }
    assert!(!late.is_empty() && count > 0, "{} rows late, {count} on time", late.len());
    assert_eq!((count + late.len() as i64, sum), (ROWS, ROWS * (ROWS - 1) / 2));
    println!("{count} rows on time, {} late, {replayed} epochs run again", late.len());
}

/// Six seconds of two streams: one of SLOW events a second by the clock, the other of FAST, as fast as it can.
const ALIGNED: &str = "
CREATE TABLE slow (price BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime`)
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '6*SLOW', 'next-event.rate' = 'SLOW', 'rate-limit' = 'true' ALIGNMENT);
CREATE TABLE fast (price BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime`)
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '6*FAST', 'next-event.rate' = 'FAST' ALIGNMENT);
CREATE TABLE out (stream STRING, `time` TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO out SELECT 'slow', `dateTime` FROM slow
UNION ALL SELECT 'fast', `dateTime` FROM fast WHERE MOD(price, 25) = 0;
";

/// By how many milliseconds the fast stream was ahead of the slow one at most, by the order in which rows were written.
fn greatest_lead(slow: u64, fast: u64, alignment: &str) -> i64 {
    let numbers = [("6*SLOW", 6 * slow), ("6*FAST", 6 * fast), ("SLOW", slow), ("FAST", fast)];
    let sql = numbers.iter().fold(ALIGNED.to_owned(), |sql, (name, number)| sql.replace(name, &number.to_string()));
    let sandbox = Sandbox::new(&sql.replace("ALIGNMENT", alignment));
    sandbox.run_ok(&["run", "job.sql", "-p", "1", "--checkpoint-interval", "1s"]);
    let files = files_by_epoch(&sandbox.path("out"));
    let (mut slow, mut lead) = (0, 0);
    for line in files.values().flatten().flat_map(text_of) {
        let row: Value = serde_json::from_str(&line).unwrap();
        let time = row["time"].as_str().unwrap();
        let (seconds, ms) = time.rsplit_once(':').unwrap().1.split_once('.').unwrap_or(("0", "0"));
        let ms = seconds.parse::<i64>().unwrap() * 1000 + format!("{ms:0<3}").parse::<i64>().unwrap();
        match row["stream"].as_str() {
            Some("slow") => slow = ms,
            _ => lead = lead.max(ms - slow),
        }
    }
    lead
}

fn text_of(file: &PathBuf) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn sources_of_a_group_keep_together_in_event_time() {
    // Slow machines are far ahead as well.
    let free = greatest_lead(250, 50_000, "");
    assert!(free > 3000, "without alignment the fast one does not wait, but was only {free} ms ahead");
    let group = ", 'scan.watermark.alignment.group' = 'g', 'scan.watermark.alignment.max-drift' = '500 ms'";
    let aligned = greatest_lead(1_000, 200_000, group);
    // The drift, what is on its way when a split is held, and the pace at which the slow one brings its rows.
    assert!(aligned < 1500, "{aligned} ms ahead");
}
