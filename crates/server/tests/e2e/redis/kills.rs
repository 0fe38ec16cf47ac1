//! Exactly once into Redis: the job's process is killed at random instants and within the commit window, the server in
//! between, while a reader watches that no count ever goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::sandbox;
use crate::support::cluster::LocalCluster;
use crate::support::redis::{PASSWORD, Redis};
use crate::support::{assert_says, text};

const KEYS: u64 = 300;

/// Counts that grow, and rows that come and go: a key is in `rest` unless its count is a multiple of three.
fn counts(server: &Redis, rows: u64, rate: u64) -> String {
    let table = server.options();
    format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{rate}', 'splits' = '2',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '{rows}');
         CREATE TABLE counts (k BIGINT, n BIGINT, total BIGINT, PRIMARY KEY (k) NOT ENFORCED)
           WITH ({table}, 'batch-size' = '70');
         CREATE TABLE rest (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ({table}, 'mode' = 'string');
         INSERT INTO counts SELECT id % {KEYS}, COUNT(*), SUM(id) FROM numbers GROUP BY id % {KEYS};
         INSERT INTO rest SELECT id % {KEYS}, COUNT(*) FROM numbers GROUP BY id % {KEYS}
           HAVING COUNT(*) % 3 <> 0;"
    )
}

#[track_caller]
fn check(server: &Redis, rows: u64) {
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for id in 1..=rows {
        let (n, total) = expected.entry(format!("counts:{}", id % KEYS)).or_default();
        (*n, *total) = (*n + 1, *total + id);
    }
    let found: BTreeMap<String, (u64, u64)> = server
        .hashes("counts:")
        .into_iter()
        .map(|(key, hash)| (key, (hash["n"].parse().unwrap(), hash["total"].parse().unwrap())))
        .collect();
    assert!(found == expected, "{} keys of {}", found.len(), expected.len());
    let left = |(key, (n, _)): (&String, &(u64, u64))| (n % 3 != 0).then(|| key.replace("counts", "rest"));
    let left: Vec<String> = expected.iter().filter_map(left).collect();
    let mut found: Vec<String> = server.ask(&["KEYS", "rest:*"]);
    found.sort();
    assert_eq!(found, left);
}

/// Looks at a few counts all the time, until it is told to stop.
struct Reader {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn start(server: &Redis) -> Reader {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, port) = (stop.clone(), looks.clone(), server.port);
        let thread = std::thread::spawn(move || {
            let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{port}")).unwrap();
            let mut newest = [0_u64; 5];
            while !stopped.load(Ordering::Relaxed) {
                // The server may be down in between.
                std::thread::sleep(Duration::from_millis(5));
                let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_millis(500)) else {
                    continue;
                };
                while !stopped.load(Ordering::Relaxed) {
                    let mut pipe = redis::pipe();
                    for key in 0..5 {
                        pipe.cmd("HGET").arg(format!("counts:{}", key * 50)).arg("n");
                    }
                    let Ok(now) = pipe.query::<Vec<Option<u64>>>(&mut connection) else { break };
                    for (now, newest) in now.into_iter().zip(&mut newest) {
                        let now = now.unwrap_or_default();
                        assert!(now >= *newest, "a count goes back from {newest} to {now}");
                        *newest = now;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Reader { stop, looks, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.looks.load(Ordering::Relaxed)
    }
}

#[test]
fn kills_leave_every_change_once_and_nothing_goes_back() {
    let server = Redis::start();
    let reader = Reader::start(&server);
    let sandbox = sandbox(&counts(&server, 40_000, 3_000));
    let mut random = SmallRng::seed_from_u64(0x7265_6469);
    let mut kills = BTreeMap::new();
    let window = [
        ("transaction-written", 5),
        ("transaction-committed", 5),
        ("epoch-complete", 2),
        ("published", 2),
        ("snapshots-durable", 2),
        ("manifest-durable", 2),
    ];
    for (edge, times) in window {
        for n in 0..times {
            let parallelism = (1 + n % 3).to_string();
            let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", &parallelism];
            *kills.entry(edge).or_insert(0) += i32::from(sandbox.kill_at(&arguments, edge, 1 + 2 * n));
        }
        for _ in 0..2 {
            let after = Duration::from_millis(random.random_range(50..500));
            let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
            *kills.entry("at random").or_insert(0) += i32::from(sandbox.run_and_kill(&arguments, after));
        }
    }
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "50 ms"]);
    let looks = reader.end();
    check(&server, 40_000);
    let within = kills["transaction-written"] + kills["transaction-committed"] + kills["epoch-complete"];
    assert!(within >= 9 && kills["at random"] >= 7, "{kills:?}");
    assert!(looks > 100, "{looks}");
    println!("kills: {kills:?}; the reader looked {looks} times");
}

#[test]
fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let mut server = Redis::start();
    let reader = Reader::start(&server);
    let sandbox = sandbox(&counts(&server, 40_000, 8_000));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "-p", "2"];
    let job = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..4 {
        let newest = |server: &Redis| server.ask::<Option<u64>>(&["HGET", "counts:0", "n"]).unwrap_or_default();
        let before = newest(&server);
        for _ in 0..400 {
            if newest(&server) != before {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        server.kill();
        std::thread::sleep(Duration::from_millis(300));
        server.go_on();
    }
    let output = job.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(reader.end() > 20);
    check(&server, 40_000);
}

/// The leader writes. It dies in the middle, or is held up until another one has gone on: then it is too late.
#[test]
fn in_a_cluster_a_leader_dies_in_the_commit_window_or_wakes_up_too_late() {
    let server = Redis::start();
    let reader = Reader::start(&server);
    let sql = counts(&server, 30_000, 1_500);
    let sandbox = sandbox(&format!("SET 'execution.checkpointing.interval' = '100 ms';\n{sql}"));
    let cluster = LocalCluster::start(&sandbox, 3, 2, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    let mut deaths = 0;
    for point in ["", "transaction-committed", "transaction-written"] {
        let jobs = cluster.wait_until("it publishes", |jobs| jobs.number("job", "committed") > 2);
        // On a machine that is busy it may have ended by now.
        if jobs.has_ended("job") {
            break;
        }
        let before = jobs.number("job", "committed");
        if point.is_empty() {
            cluster.leader_wakes_up_too_late();
        } else {
            deaths += i32::from(cluster.leader_dies_at(point));
        }
        cluster.wait_until("it goes on", |jobs| jobs.has_ended("job") || jobs.number("job", "committed") > before + 2);
    }
    cluster.wait_until("it ends", |jobs| jobs.has_ended("job"));
    assert!(reader.end() > 50);
    assert!(deaths > 0, "{}", cluster.story());
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    check(&server, 30_000);
}

#[test]
fn a_server_that_forgets_is_found_out() {
    // Nothing is kept: what is killed comes back empty.
    let mut server = Redis::start_with(&["--appendonly", "no"]);
    // Far more than is read until it is found out.
    let sandbox = sandbox(&counts(&server, 800_000, 8_000));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
    let job = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    // A second epoch comes only when the job knows that the first one was taken: one of which it does not know is sent again.
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.extend(server.ask::<Option<u64>>(&["HGET", "counts:0", "n"]));
        assert!(begun.elapsed() < Duration::from_secs(180), "nothing is written: {seen:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.kill();
    server.go_on();
    let output = job.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert_says(&text(&output.stderr), &["has forgotten epoch", "'appendonly yes'", "--fresh"]);
}

#[test]
fn a_job_started_anew_writes_again_and_one_whose_state_is_gone_is_refused() {
    let server = Redis::start();
    let sandbox = sandbox(&counts(&server, 2_000, 0));
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "20 ms"]);
    check(&server, 2_000);
    server.ask::<u64>(&["DEL", "counts:1"]);
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    check(&server, 2_000);
    std::fs::remove_dir_all(sandbox.path(".mainstem")).unwrap();
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["mainstem:commits:job/", "another job name", "job 'job'"]);
    sandbox.run_ok(&["run", "job.sql", "--job-id", "other"]);
}
