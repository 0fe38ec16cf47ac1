//! Each request once for a receiver that honours keys: the job's process is killed at random instants and in the middle of
//! sending, and the receiver is overloaded, loses answers and is slow.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{counts, numbers};
use crate::support::Sandbox;
use crate::support::cluster::LocalCluster;
use crate::support::http::{Answer, Receiver};

const ROWS: u64 = 30_000;

/// A receiver with every fault, by the number of the request.
fn faulty() -> Receiver {
    Receiver::start(|number, _| match number % 41 {
        7 | 8 => Answer::Refuse(503, "", "try again".to_owned()),
        13 => Answer::Refuse(429, "Retry-After: 0\r\n", String::new()),
        19 | 30 => Answer::TakeSilently,
        25 => Answer::TakeSlowly(Duration::from_millis(30)),
        33 => Answer::Refuse(409, "", "it is being worked on".to_owned()),
        _ => Answer::Take,
    })
}

#[track_caller]
fn check(receiver: &Receiver, rows: u64) {
    let taken = receiver.taken_once();
    let counts = counts(taken.values());
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(twice.is_empty(), "rows in several requests: {twice:?}");
    assert!(counts.keys().copied().eq(1..=i64::try_from(rows).unwrap()), "{} of {rows} rows", counts.len());
}

#[test]
fn kills_and_faults_leave_each_request_with_one_key_and_one_body() {
    let receiver = faulty();
    let options = "'batch-size' = '25', 'retry.delay' = '2 ms', 'retry.delay-max' = '20 ms', 'retry.max' = '20'";
    let sandbox = Sandbox::new(&numbers(&receiver, ROWS, 2_700, options));
    let mut random = SmallRng::seed_from_u64(0x6874_7470);
    let mut kills = BTreeMap::new();
    let window = [
        ("request-answered", 6),
        ("epoch-complete", 2),
        ("published", 2),
        ("snapshots-durable", 2),
        ("manifest-durable", 2),
    ];
    for (edge, times) in window {
        for n in 0..times {
            let parallelism = (1 + n % 3).to_string();
            let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", &parallelism];
            let count = if edge == "request-answered" { 1 + 9 * n } else { 1 + n };
            *kills.entry(edge).or_insert(0) += i32::from(sandbox.kill_at(&arguments, edge, count));
        }
        for _ in 0..2 {
            let after = Duration::from_millis(random.random_range(50..500));
            let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
            *kills.entry("at random").or_insert(0) += i32::from(sandbox.run_and_kill(&arguments, after));
        }
    }
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "50 ms"]);
    check(&receiver, ROWS);
    assert!(kills["request-answered"] >= 5 && kills["at random"] >= 6, "{kills:?}");
    let seen = receiver.seen();
    let keys = receiver.taken_once().len();
    let taken = seen.iter().filter(|seen| seen.taken).count();
    assert!(taken > keys, "some requests came again after they were taken");
    println!("kills: {kills:?}; {} requests, {taken} taken, {keys} keys", seen.len());
}

/// The leader sends. It dies in the middle, or is held up there until another one has gone on.
#[test]
fn in_a_cluster_another_leader_sends_the_same_requests() {
    let receiver = faulty();
    let options = "'batch-size' = '20', 'retry.delay' = '2 ms', 'retry.delay-max' = '20 ms', 'retry.max' = '20'";
    let sql = numbers(&receiver, 20_000, 1_250, options);
    let sandbox = Sandbox::new(&format!("SET 'execution.checkpointing.interval' = '100 ms';\n{sql}"));
    let cluster = LocalCluster::start(&sandbox, 3, 2, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "3"]);
    let mut deaths = 0;
    for round in 0..3 {
        let jobs = cluster.wait_until("it publishes", |jobs| jobs.number("job", "committed") > 2);
        // On a machine that is busy it may have ended by now.
        if jobs.has_ended("job") {
            break;
        }
        let before = jobs.number("job", "committed");
        if round == 0 {
            cluster.leader_wakes_up_too_late();
        } else {
            deaths += i32::from(cluster.leader_dies_at("request-answered"));
        }
        cluster.wait_until("it goes on", |jobs| jobs.has_ended("job") || jobs.number("job", "committed") > before + 2);
    }
    cluster.wait_until("it ends", |jobs| jobs.has_ended("job"));
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    assert!(deaths > 0, "{}", cluster.story());
    check(&receiver, 20_000);
}

#[test]
fn at_least_once_loses_nothing() {
    let receiver = faulty();
    let options = "'batch-size' = '10', 'retry.delay' = '2 ms', 'retry.delay-max' = '20 ms', 'retry.max' = '20', \
                   'sink.delivery-guarantee' = 'at-least-once'";
    let sandbox = Sandbox::new(&numbers(&receiver, 6_000, 4_000, options));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
    let mut killed = 0;
    for n in 0..4 {
        killed += i32::from(sandbox.run_and_kill(&arguments, Duration::from_millis(150 + 100 * n)));
    }
    sandbox.run_ok(&arguments);
    let bodies: Vec<String> = receiver.seen().into_iter().filter(|seen| seen.taken).map(|seen| seen.body).collect();
    assert!(counts(bodies.iter()).keys().copied().eq(1..=6_000));
    assert!(killed >= 3, "{killed}");
}
