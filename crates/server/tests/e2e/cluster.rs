//! A cluster of real processes: `mainstem cluster` and the commands that speak to it, while processes are killed
//! and stopped. The output is compared with that of one process that nobody disturbs.

mod audit;
mod leaders;
mod operate;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::cluster::LocalCluster;
use crate::support::known::{Forward, difference, seed, undisturbed, windows};
use crate::support::{Sandbox, assert_says, text};

/// Disturbs a running job until it has ended, and compares; gives how many attempts there were.
#[expect(clippy::print_stdout, reason = "to repeat a failure")]
fn disturbed(seed: u64, coordinators: usize, mut disturb: impl FnMut(&mut SmallRng, &LocalCluster<'_>)) -> u64 {
    const PER_SECOND: u64 = 40_000;
    // Rows come for longer than it is disturbed, so that commands do not meet a job that has ended.
    const EVENTS: u64 = 16 * PER_SECOND;
    println!("seed {seed}");
    let expected = undisturbed(EVENTS, PER_SECOND);
    let mut random = SmallRng::seed_from_u64(seed);
    let aligned = ["none", "0 ms", "10 ms"][random.random_range(0..3)];
    let sandbox = Sandbox::new(&windows(EVENTS, PER_SECOND, true, aligned));
    let cluster = LocalCluster::start(&sandbox, coordinators, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    let mut forward = Forward::new(&sandbox.path(".mainstem-cluster/state"));
    // Whatever else comes: the job runs on every worker, so this ends the first attempt.
    cluster.signal(&pick(&mut random, cluster.nodes("worker")), "KILL");
    let (begun, mut disturbed_at) = (Instant::now(), Instant::now());
    while !forward.look(cluster.jobs().as_ref()) {
        assert!(begun.elapsed() < Duration::from_secs(300), "it does not end\n{}", cluster.story());
        // As long as rows come.
        if begun.elapsed() < Duration::from_secs(12) && disturbed_at.elapsed() > Duration::from_millis(1_500) {
            disturb(&mut random, &cluster);
            disturbed_at = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_says(&text(&sandbox.run_ok(&["status", "job"]).stdout), &["state        finished"]);
    assert!(forward.compared > 0, "no offsets were compared");
    println!("{} attempts, {} epochs, aligned for {aligned}", forward.attempt, forward.published);
    assert_same(&sandbox, &cluster, &expected);
    forward.attempt
}

/// The output is what it should be, and nothing has panicked.
fn assert_same(sandbox: &Sandbox, cluster: &LocalCluster<'_>, expected: &BTreeMap<String, usize>) {
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    let found = sandbox.lines("out");
    assert_eq!(difference(expected, &found), (0, 0), "of {} lines\n{}", expected.len(), cluster.story());
}

fn pick(random: &mut SmallRng, mut nodes: Vec<String>) -> String {
    nodes.swap_remove(random.random_range(0..nodes.len()))
}

#[test]
fn cluster_workers_are_killed_and_stopped() {
    let attempts = disturbed(seed(), 1, |random, cluster| {
        let worker = pick(random, cluster.nodes("worker"));
        match random.random_range(0..3) {
            0 => {
                cluster.signal(&worker, "STOP");
                std::thread::sleep(Duration::from_millis(random.random_range(100..5_000)));
                cluster.signal(&worker, "CONT");
            }
            _ => cluster.signal(&worker, "KILL"),
        }
    });
    assert!(attempts > 1, "nothing was disturbed");
}

#[test]
fn cluster_coordinators_are_killed_and_stopped() {
    disturbed(seed(), 3, |random, cluster| {
        let node = match random.random_range(0..4) {
            0 => pick(random, cluster.nodes("coordinator")),
            1 => pick(random, cluster.nodes("worker")),
            _ => cluster.leader().unwrap_or_else(|| "coordinator-1".to_owned()),
        };
        match random.random_range(0..3) {
            0 => {
                cluster.signal(&node, "STOP");
                std::thread::sleep(Duration::from_millis(random.random_range(100..5_000)));
                cluster.signal(&node, "CONT");
            }
            _ => cluster.signal(&node, "KILL"),
        }
    });
}

#[test]
fn cluster_everything_is_killed_at_once() {
    let attempts = disturbed(seed(), 3, |_, cluster| {
        for node in cluster.nodes("") {
            cluster.signal(&node, "KILL");
        }
        // All are started again after two seconds.
        std::thread::sleep(Duration::from_secs(4));
    });
    assert!(attempts > 1, "nothing was disturbed");
}

#[test]
fn cluster_jobs_are_rescaled_stopped_and_go_on() {
    let mut parallelism = 4;
    let attempts = disturbed(seed(), 1, |random, cluster| {
        match random.random_range(0..3) {
            0 => {
                cluster.command_ok(&["stop", "job"]);
                cluster.command_ok(&["submit", "job.sql", "-p", "3"]);
            }
            1 => {
                cluster.command_ok(&["cancel", "job"]);
                cluster.command_ok(&["submit", "job.sql", "-p", "2"]);
            }
            _ => {
                parallelism = parallelism % 6 + 1;
                cluster.command_ok(&["rescale", "job", "-p", &parallelism.to_string()]);
            }
        };
    });
    assert!(attempts > 1, "nothing was disturbed");
}

#[test]
fn cluster_a_job_waits_for_slots_and_says_so() {
    let sandbox = Sandbox::new(&windows(100_000, 50_000, true, "none"));
    let cluster = LocalCluster::start(&sandbox, 1, 1, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "3"]);
    cluster.wait_until("it waits", |jobs| jobs.job("job").is_some_and(|job| job["status"]["waiting"].is_string()));
    let shown = text(&sandbox.run_ok(&["status", "job"]).stdout);
    assert_says(&shown, &["state        waiting", "it needs 3, 2 of 2 on 1 workers are free"]);
    let refused = sandbox.run_err(&["submit", "job.sql"]);
    assert_says(&refused, &["job 'job' runs already"]);
    assert_says(
        &sandbox.run_err(&["rescale", "job", "-p", "999"]),
        &["999 is not between 1 and the job's 256 key groups"],
    );
    sandbox.run_ok(&["rescale", "job", "-p", "2"]);
    cluster.wait_until("it has finished", |jobs| jobs.has_ended("job"));
    assert_says(&sandbox.run_err(&["submit", "job.sql"]), &["has finished before"]);
    assert_says(&sandbox.run_err(&["status", "other"]), &["there is no job 'other'"]);
    drop(cluster);
    let elsewhere = Sandbox::new("SELECT 1;");
    assert_says(&elsewhere.run_err(&["jobs"]), &["no coordinators are known", "mainstem cluster"]);
}
