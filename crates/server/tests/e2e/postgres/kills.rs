//! Exactly once into PostgreSQL: the job's process is killed at random instants and within the commit window, the server in
//! between, while a reader watches that it never sees a part of an epoch.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::NoTls;

use super::server::{PASSWORD, Server, USER};
use super::{sandbox, staged};
use crate::support::cluster::LocalCluster;
use crate::support::{Sandbox, text};

const ROWS: u64 = 75_000;
/// Kills at random instants, unless more are asked for; as many as the rows last for.
const KILLS: usize = 12;

/// Each row comes twice, of which one takes back what the other adds: of a whole epoch nothing remains.
fn append(table: &str, rows: u64, rate: u64) -> String {
    format!(
        "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{rate}', 'splits' = '2',
           'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '{rows}');
         CREATE TABLE ledger (id BIGINT, amount BIGINT) WITH ({table}, 'table-name' = 'ledger');
         INSERT INTO ledger SELECT id, id FROM numbers UNION ALL SELECT id, -id FROM numbers;"
    )
}

const LEDGER: &str = "CREATE TABLE ledger (id bigint NOT NULL, amount bigint NOT NULL)";

/// Looks at the table all the time, until it is told to stop.
struct Reader {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn start(server: &Server, database: &'static str) -> Reader {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let port = server.port;
        let (stopped, counted) = (stop.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !stopped.load(Ordering::Relaxed) {
                // The server may be down in between.
                runtime.block_on(async {
                    let url = format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}");
                    let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                        return tokio::time::sleep(Duration::from_millis(20)).await;
                    };
                    tokio::spawn(connection);
                    while !stopped.load(Ordering::Relaxed) {
                        let look = "SELECT COALESCE(SUM(amount), 0)::bigint, COUNT(*), COUNT(DISTINCT id) FROM ledger";
                        let Ok(row) = client.query_one(look, &[]).await else { return };
                        let (sum, rows, ids): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
                        assert_eq!((sum, rows), (0, ids * 2), "a part of an epoch is visible");
                        counted.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
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

#[track_caller]
fn check(server: &Server, database: &str, sandbox: &Sandbox, rows: u64) {
    let found =
        server.query(database, "SELECT COUNT(*), COUNT(DISTINCT id), MIN(id), MAX(id), SUM(amount) FROM ledger");
    let expected: Vec<String> = [2 * rows, rows, 1, rows, 0].iter().map(u64::to_string).collect();
    assert_eq!(found, vec![expected]);
    let marked = server.value(database, "SELECT SUM(row_count) FROM mainstem_commits");
    assert_eq!(marked, (2 * rows).to_string());
    assert_eq!(staged(sandbox), Vec::<std::path::PathBuf>::new(), "published output is removed where it was staged");
}

#[test]
fn kills_leave_every_row_once_and_no_half_epoch() {
    let server = Server::start();
    let table = server.database("kills", LEDGER);
    let reader = Reader::start(&server, "kills");
    let at_random = crate::support::kills(KILLS);
    let rows = ROWS * at_random as u64 / KILLS as u64;
    let sandbox = sandbox(&append(&table, rows, 5_000));
    let mut random = SmallRng::seed_from_u64(0x706f7374);
    let mut kills = BTreeMap::new();
    let arguments = |parallelism: u32| {
        let parallelism = parallelism.to_string();
        ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism"]
            .map(str::to_owned)
            .into_iter()
            .chain([parallelism])
    };
    let window = [
        ("transaction-written", 4),
        ("transaction-committed", 4),
        ("epoch-complete", 2),
        ("published", 2),
        ("snapshots-durable", 2),
        ("manifest-durable", 2),
    ];
    for (edge, times) in window {
        for n in 0..times {
            let arguments: Vec<String> = arguments(1 + n % 3).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if sandbox.kill_at(&arguments, edge, 1 + u64::from(n)) {
                *kills.entry(edge).or_insert(0) += 1;
            }
        }
        for _ in 0..at_random.div_ceil(window.len()) {
            let arguments: Vec<String> = arguments(random.random_range(1..=3)).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let after = Duration::from_millis(random.random_range(20..600));
            *kills.entry("at random").or_insert(0) += i32::from(sandbox.run_and_kill(&arguments, after));
        }
    }
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "50 ms"]);
    let looks = reader.end();
    check(&server, "kills", &sandbox, rows);
    let within: i32 = window[..4].iter().filter_map(|(edge, _)| kills.get(edge)).sum();
    assert!(within >= 10 && kills["at random"] >= 6, "{kills:?}");
    assert!(looks > 100, "{looks}");
    println!("kills: {kills:?}; the reader looked {looks} times");
}

/// The leader publishes. It dies in the middle, or is held up there until another one has gone on: then it is too late.
#[test]
fn in_a_cluster_a_leader_dies_in_the_commit_window_or_wakes_up_too_late() {
    let server = Server::start();
    let table = server.database("leaders", LEDGER);
    let reader = Reader::start(&server, "leaders");
    let sql = append(&table, 40_000, 2_000);
    let sandbox = sandbox(&format!("SET 'execution.checkpointing.interval' = '100 ms';\n{sql}"));
    let cluster = LocalCluster::start(&sandbox, 3, 2, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "3"]);
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
    let logs = cluster.logs();
    assert!(!logs.contains("panicked"), "{}", cluster.story());
    let found = server.query("leaders", "SELECT COUNT(*), COUNT(DISTINCT id), SUM(amount) FROM ledger");
    assert_eq!(found, vec![vec!["80000".to_owned(), "40000".to_owned(), "0".to_owned()]], "{}", cluster.story());
}

#[test]
fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let mut server = Server::start();
    let table = server.database("restarts", LEDGER);
    let reader = Reader::start(&server, "restarts");
    let sandbox = sandbox(&append(&table, 40_000, 8_000));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "-p", "2"];
    let job = sandbox.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        let before = server.value("restarts", "SELECT COUNT(*) FROM ledger");
        for _ in 0..400 {
            if server.value("restarts", "SELECT COUNT(*) FROM ledger") != before {
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
    check(&server, "restarts", &sandbox, 40_000);
}

#[test]
fn a_job_started_anew_writes_again_and_one_whose_state_is_gone_is_refused() {
    let server = Server::start();
    let table = server.database("anew", LEDGER);
    let sandbox = sandbox(&append(&table, 1_000, 0));
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "20 ms"]);
    check(&server, "anew", &sandbox, 1_000);
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    assert_eq!(
        server.value("anew", "SELECT COUNT(*) FROM ledger"),
        "4000",
        "a new job, whose epochs count from one again"
    );
    std::fs::remove_dir_all(sandbox.path(".mainstem")).unwrap();
    let message = sandbox.run_err(&["run", "job.sql"]);
    crate::support::assert_says(&message, &["mainstem_commits", "another job name", "job 'job'"]);
    assert_eq!(server.value("anew", "SELECT COUNT(*) FROM ledger"), "4000");
    sandbox.run_ok(&["run", "job.sql", "--job-id", "other"]);
    assert_eq!(server.value("anew", "SELECT COUNT(*) FROM ledger"), "6000");
}
