//! Kafka to Kafka, exactly once: whatever is killed when, a reader of committed messages sees each row once, and never a
//! part of an epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{PATIENCE, Running, counted, with};
use crate::support::Sandbox;
use crate::support::kafka::{Broker, Seen};

/// Kills at random instants, unless more are asked for.
const KILLS: usize = 12;
/// Kills at the edges of durability.
const KILLS_AT_EDGES: usize = 15;
/// Between two handfuls of rows.
const PAUSE: Duration = Duration::from_millis(20);

/// Copies each row to two rows of one topic, which one epoch always has both of.
pub(super) fn sql(broker: &Broker, from: &str, to: &str, more: &str) -> String {
    format!(
        "CREATE TABLE t (id BIGINT) {};
         CREATE TABLE o (id BIGINT, half STRING) {};
         INSERT INTO o SELECT id, half FROM t CROSS JOIN UNNEST(ARRAY['a', 'b']) AS h (half);",
        with(broker, "kafka", from, "'format' = 'json', 'scan.startup.mode' = 'earliest-offset'"),
        with(broker, "kafka", to, &format!("'format' = 'json'{more}")),
    )
}

/// Feeds a topic with rows whose ids count up, until it is told to end.
pub(super) struct Feeder {
    thread: Option<std::thread::JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicI64>,
}

impl Feeder {
    pub(super) fn start(broker: &Arc<Broker>, topic: &'static str, partitions: i32) -> Feeder {
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (flag, count, broker) = (ended.clone(), sent.clone(), broker.clone());
        let thread = std::thread::spawn(move || {
            let producer = broker.producer();
            while !flag.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let id = count.fetch_add(1, Ordering::Relaxed);
                    let partition = (id % i64::from(partitions)) as i32;
                    producer.send(topic, Some(partition), None, Some(&format!(r#"{{"id":{id}}}"#)));
                }
                std::thread::sleep(PAUSE);
            }
            producer.flush();
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

/// How many rows there are; each at most once, and with its other half.
#[track_caller]
pub(super) fn whole_rows(seen: &[Seen]) -> usize {
    let values = counted(seen.iter().map(|message| message.value.as_deref().unwrap()));
    let doubled: Vec<_> = values.iter().filter(|(_, n)| **n != 1).take(5).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let [a, b] = halves(seen);
    assert!(a == b, "half of an epoch: {:?}", a.symmetric_difference(&b).take(5).collect::<Vec<_>>());
    assert_eq!(a.len() + b.len(), seen.len());
    a.len()
}

/// The ids of the rows of which there is the one half, and the other.
fn halves(seen: &[Seen]) -> [BTreeSet<i64>; 2] {
    ["a", "b"].map(|half| {
        let end = format!(r#","half":"{half}"}}"#);
        let id = |value: &str| value.strip_prefix(r#"{"id":"#)?.strip_suffix(&end)?.parse().ok();
        seen.iter().filter_map(|message| id(message.value.as_deref()?)).collect()
    })
}

/// As [`whole_rows`], of a topic with several partitions. The brokers show a transaction in one partition after the other,
/// so what is there by half is read again.
#[track_caller]
pub(super) fn whole_rows_of_partitions(broker: &Broker, topic: &str) -> usize {
    let begun = Instant::now();
    loop {
        let seen = broker.read(topic);
        let [a, b] = halves(&seen);
        if a == b || begun.elapsed() > PATIENCE {
            return whole_rows(&seen);
        }
    }
}

#[track_caller]
pub(super) fn complete(broker: &Broker, sandbox: &Sandbox, mut job: Running, topic: &str, rows: i64) {
    job.until(sandbox, "all rows", || whole_rows(&broker.read(topic)) as i64 >= rows);
    job.kill();
    assert_eq!(whole_rows(&broker.read(topic)) as i64, rows);
}

const ARGUMENTS: [&str; 6] = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", "2"];

#[test]
fn kills_at_random_instants_leave_no_trace() {
    let broker = Broker::shared();
    broker.create("random-in", 4);
    broker.create("random-out", 1);
    let sandbox = Sandbox::new(&sql(&broker, "random-in", "random-out", ""));
    let feeder = Feeder::start(&broker, "random-in", 4);
    let mut random = SmallRng::seed_from_u64(0x6b61_666b);
    // The first lives until it has published something, however slow the machine is.
    let mut first = Running::start(&sandbox, &ARGUMENTS);
    first.until(&sandbox, "the first rows", || !broker.read("random-out").is_empty());
    first.kill();
    let mut seen = whole_rows(&broker.read("random-out"));
    let mut kills = 1;
    while kills < crate::support::kills(KILLS) {
        // Long enough for some epochs, or too short for one.
        let parallelism = random.random_range(1..=3).to_string();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", &parallelism];
        let after = Duration::from_millis(random.random_range(100..1500));
        kills += usize::from(sandbox.run_and_kill(&arguments, after));
        let now = whole_rows(&broker.read("random-out"));
        assert!(now >= seen, "rows have vanished");
        seen = now;
    }
    let rows = feeder.end();
    complete(&broker, &sandbox, Running::start(&sandbox, &ARGUMENTS), "random-out", rows);
    println!("{kills} kills, {rows} rows, {seen} of them visible before the last run");
}

#[test]
fn kills_inside_the_commit_leave_no_trace() {
    let broker = Broker::shared();
    broker.create("edges-in", 4);
    broker.create("edges-out", 1);
    let sandbox = Sandbox::new(&sql(&broker, "edges-in", "edges-out", ""));
    let feeder = Feeder::start(&broker, "edges-in", 4);
    let edges = ["transaction-written", "transaction-committed", "epoch-complete", "published", "manifest-durable"];
    let mut kills = BTreeMap::<&str, usize>::new();
    for n in 0..crate::support::kills(KILLS_AT_EDGES) {
        let edge = edges[n % edges.len()];
        assert!(sandbox.kill_at(&ARGUMENTS, edge, 1 + (n / edges.len() % 3) as u64), "{edge}");
        *kills.entry(edge).or_default() += 1;
        whole_rows(&broker.read("edges-out"));
    }
    // From "complete" to "known to be published".
    let within: usize = edges[..4].iter().map(|edge| kills[edge]).sum();
    assert!(within >= 10, "{kills:?}");
    println!("kills by edge: {kills:?}");
    let rows = feeder.end();
    complete(&broker, &sandbox, Running::start(&sandbox, &ARGUMENTS), "edges-out", rows);
}

#[test]
fn down_for_longer_than_the_transaction_may_last() {
    let broker = Broker::shared();
    broker.create("outage-in", 1);
    broker.create("outage-out", 1);
    let timeout = ", 'properties.transaction.timeout.ms' = '1500'";
    let sandbox = Sandbox::new(&sql(&broker, "outage-in", "outage-out", timeout));
    let feeder = Feeder::start(&broker, "outage-in", 1);
    assert!(sandbox.kill_at(&ARGUMENTS, "transaction-written", 2));
    let rows = feeder.end();
    let sent = broker.read_as("outage-out", "read_uncommitted").len();
    let committed = broker.read("outage-out").len();
    assert!(sent > committed, "the transaction was open when the job died: {sent} messages, {committed} committed");
    // The broker gives the transaction up: what follows it can be read.
    let begun = Instant::now();
    let producer = broker.producer();
    for half in ["a", "b"] {
        producer.send("outage-out", Some(0), None, Some(&format!(r#"{{"id":-1,"half":"{half}"}}"#)));
    }
    producer.flush();
    let there = |broker: &Broker| broker.read("outage-out").iter().any(|m| m.value.as_deref().unwrap().contains("-1"));
    while !there(&broker) {
        assert!(begun.elapsed() < PATIENCE, "the transaction stays open");
        std::thread::sleep(Duration::from_millis(200));
    }
    complete(&broker, &sandbox, Running::start(&sandbox, &ARGUMENTS), "outage-out", rows + 1);
}

#[test]
fn a_job_that_begins_afresh_publishes_afresh() {
    let broker = Broker::shared();
    broker.create("afresh-in", 1);
    broker.create("afresh-out", 1);
    let producer = broker.producer();
    for id in 0..100 {
        producer.send("afresh-in", Some(0), None, Some(&format!(r#"{{"id":{id}}}"#)));
    }
    producer.flush();
    let text = sql(&broker, "afresh-in", "afresh-out", "").replace(
        "'scan.startup.mode' = 'earliest-offset'",
        "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'",
    );
    let sandbox = Sandbox::new(&text);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(whole_rows(&broker.read("afresh-out")), 100);
    // The same job has nothing left to do; one of the same name that begins anew must not take the other's progress for its own.
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(broker.read("afresh-out").len(), 200);
    sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    assert_eq!(broker.read("afresh-out").len(), 400);
    // Nothing stays behind of what was staged.
    let staged = std::fs::read_dir(sandbox.path(".mainstem/jobs/job/staged")).map(|entries| {
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".staged")).count()
    });
    assert_eq!(staged.unwrap(), 0);
}
