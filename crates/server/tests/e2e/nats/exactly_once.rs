//! NATS to NATS, exactly once: whatever is killed when, the stream holds each row once, in the order of its writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::with;
use crate::kafka::{Running, counted};
use crate::support::Sandbox;
use crate::support::nats::{Server, Stored};

/// Kills at random instants.
const KILLS: usize = 12;
/// Between two handfuls of rows.
const PAUSE: Duration = Duration::from_millis(20);
/// The server forgets identities after so long, which is shorter than most restarts take.
const WINDOW: Duration = Duration::from_millis(100);

/// Copies each row of a stream to two rows of another.
pub(super) fn sql(server: &Server, from: &str, to: &str) -> String {
    let out = format!("'format' = 'json', 'subject' = '{}.x'", to.to_lowercase());
    format!(
        "CREATE TABLE t (id BIGINT) {};
         CREATE TABLE o (id BIGINT, half STRING) {};
         INSERT INTO o SELECT id, half FROM t CROSS JOIN UNNEST(ARRAY['a', 'b']) AS h (half);",
        with(server, from, &format!("'format' = 'json', 'subjects' = '{0}.0;{0}.1'", from.to_lowercase())),
        with(server, to, &out),
    )
}

/// Publishes rows whose ids count up, until it is told to end.
pub(super) struct Feeder {
    thread: Option<std::thread::JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicI64>,
}

impl Feeder {
    pub(super) fn start(server: &Arc<Server>, stream: &str, subjects: i64) -> Feeder {
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (flag, count, server, subject) = (ended.clone(), sent.clone(), server.clone(), stream.to_lowercase());
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let first = count.fetch_add(20, Ordering::Relaxed);
                let message = |id: i64| (format!("{subject}.{}", id % subjects), format!(r#"{{"id":{id}}}"#));
                server.publish((first..first + 20).map(message));
                std::thread::sleep(PAUSE);
            }
        });
        Feeder { thread: Some(thread), ended, sent }
    }

    /// Ends, and gives how many rows there are.
    pub(super) fn end(mut self) -> i64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// How many messages of the job there are; each at most once.
#[track_caller]
pub(super) fn distinct(stored: &[Stored]) -> usize {
    let values =
        counted(stored.iter().filter(|message| message.subject.ends_with(".x")).map(|message| &message.payload));
    let doubled: Vec<_> = values.iter().filter(|(_, n)| **n != 1).take(5).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    values.len()
}

#[track_caller]
pub(super) fn complete(server: &Server, sandbox: &Sandbox, mut job: Running, stream: &str, rows: i64) {
    job.until(sandbox, "all rows", || distinct(&server.read(stream)) as i64 >= 2 * rows);
    job.kill();
    let stored = server.read(stream);
    assert_eq!(distinct(&stored) as i64, 2 * rows);
    for half in ["a", "b"] {
        for id in [0, rows / 2, rows - 1] {
            let payload = format!(r#"{{"id":{id},"half":"{half}"}}"#);
            assert!(stored.iter().any(|message| message.payload == payload), "{payload}");
        }
    }
}

pub(super) const ARGUMENTS: [&str; 6] = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", "2"];

#[test]
fn kills_at_random_instants_leave_no_trace() {
    let server = Server::shared();
    server.create("RANDOMIN");
    server.create_with("RANDOMOUT", |config| async_nats::jetstream::stream::Config {
        duplicate_window: WINDOW,
        ..config
    });
    let sandbox = Sandbox::new(&sql(&server, "RANDOMIN", "RANDOMOUT"));
    let feeder = Feeder::start(&server, "RANDOMIN", 2);
    let mut random = SmallRng::seed_from_u64(0x6e61_7473);
    let (mut seen, mut kills) = (0, 0);
    while kills < KILLS || (seen == 0 && kills < 10 * KILLS) {
        // Long enough for some epochs, or too short for one.
        let parallelism = random.random_range(1..=3).to_string();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", &parallelism];
        let after = Duration::from_millis(random.random_range(100..1500));
        kills += usize::from(sandbox.run_and_kill(&arguments, after));
        let now = distinct(&server.read("RANDOMOUT"));
        assert!(now >= seen, "rows have vanished");
        seen = now;
    }
    let rows = feeder.end();
    complete(&server, &sandbox, Running::start(&sandbox, &ARGUMENTS), "RANDOMOUT", rows);
    assert!(seen > 0, "no run lived long enough to publish anything");
    println!("{kills} kills, {rows} rows, {seen} of them visible before the last run");
}

#[test]
fn kills_inside_the_commit_leave_no_trace() {
    let server = Server::shared();
    server.create("EDGESIN");
    server
        .create_with("EDGESOUT", |config| async_nats::jetstream::stream::Config { duplicate_window: WINDOW, ..config });
    let sandbox = Sandbox::new(&sql(&server, "EDGESIN", "EDGESOUT"));
    let feeder = Feeder::start(&server, "EDGESIN", 2);
    let edges = ["output-noted", "output-sending", "output-sent", "epoch-complete", "published", "manifest-durable"];
    let mut halves = 0;
    for n in 1..=4 {
        for edge in edges {
            assert!(sandbox.kill_at(&ARGUMENTS, edge, n), "{edge}");
            distinct(&server.read("EDGESOUT"));
            // Others may write between an epoch's messages, and to whatever subject.
            server.publish([("edgesout.other".to_owned(), "other".to_owned())]);
            halves += usize::from(edge == "output-sending");
        }
    }
    assert_eq!(halves, 4);
    let rows = feeder.end();
    complete(&server, &sandbox, Running::start(&sandbox, &ARGUMENTS), "EDGESOUT", rows);
}

#[test]
fn down_for_longer_than_the_server_remembers_identities() {
    let server = Server::shared();
    server.create("OUTAGEIN");
    let window = Duration::from_secs(1);
    server.create_with("OUTAGEOUT", |config| async_nats::jetstream::stream::Config {
        duplicate_window: window,
        ..config
    });
    // Enough for several bursts, so that the first epoch is published in part when the process dies.
    server.publish((0..2000).map(|id| (format!("outagein.{}", id % 2), format!(r#"{{"id":{id}}}"#))));
    let sandbox = Sandbox::new(&sql(&server, "OUTAGEIN", "OUTAGEOUT"));
    assert!(sandbox.kill_at(&ARGUMENTS, "output-sending", 2));
    let before = distinct(&server.read("OUTAGEOUT"));
    assert!(before > 0 && before < 4000, "the epoch was half published: {before}");
    std::thread::sleep(2 * window);
    complete(&server, &sandbox, Running::start(&sandbox, &ARGUMENTS), "OUTAGEOUT", 2000);
}

#[test]
fn a_job_that_begins_afresh_publishes_afresh() {
    let server = Server::shared();
    server.create("AFRESHIN");
    server.create("AFRESHOUT");
    server.publish((0..100).map(|id| (format!("afreshin.{}", id % 2), format!(r#"{{"id":{id}}}"#))));
    let text =
        sql(&server, "AFRESHIN", "AFRESHOUT").replace("'subjects'", "'scan.bounded.mode' = 'latest', 'subjects'");
    let sandbox = Sandbox::new(&text);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(distinct(&server.read("AFRESHOUT")), 200);
    // The same job has nothing left to do; one of the same name that begins anew must not be taken for a repetition, though
    // the server still remembers the identities.
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(server.read("AFRESHOUT").len(), 200);
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    assert_eq!(server.read("AFRESHOUT").len(), 400);
    // Nothing stays behind of what was staged.
    let staged = std::fs::read_dir(sandbox.path(".mainstem/jobs/job/staged")).map(|entries| {
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".arrow")).count()
    });
    assert_eq!(staged.unwrap(), 0);
}
