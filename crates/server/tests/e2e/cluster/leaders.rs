//! The coordinator that leads dies or stops, and the next one goes on with the attempt that runs: nothing is restored, and
//! rows are read while nobody leads.

use std::time::{Duration, Instant};

use super::{assert_same, undisturbed, windows};
use crate::support::Sandbox;
use crate::support::cluster::{Jobs, LocalCluster};

/// For three quarters of a minute: also a slow machine elects somebody several times by then.
const EVENTS: u64 = 45 * PER_SECOND;
const PER_SECOND: u64 = 30_000;
/// Rows that the job prints as they come begin with this.
const SEEN: &str = "seen> ";

/// The job of all tests, which also prints some of its rows. Its barriers are aligned for so long.
fn job(aligned: &str) -> String {
    let windows = windows(EVENTS, PER_SECOND, true, aligned);
    format!(
        "{windows}
         CREATE TABLE seen (auction BIGINT, bidder BIGINT) WITH ('connector' = 'print', 'print-identifier' = 'seen');
         INSERT INTO seen SELECT auction, bidder FROM bid WHERE MOD(price, 300) = 0;"
    )
}

fn printed(cluster: &LocalCluster<'_>) -> usize {
    cluster.logs().matches(SEEN).count()
}

/// A cluster that runs the job, with all of its coordinators.
fn start(sandbox: &Sandbox) -> LocalCluster<'_> {
    let cluster = LocalCluster::start(sandbox, 3, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    cluster
}

fn is_driven(jobs: &Jobs) -> bool {
    jobs.job("job").is_some_and(|job| !job["status"].is_null())
}

fn is_running(jobs: &Jobs) -> bool {
    jobs.job("job").is_some_and(|job| job["status"]["state"] == "running")
}

/// What somebody answers.
fn jobs(cluster: &LocalCluster<'_>) -> Jobs {
    cluster.wait_until("somebody answers", |jobs| jobs.job("job").is_some())
}

/// The coordinator that leads, with its process, and the newest epoch that is visible.
struct Leader {
    node: String,
    process: u32,
    committed: u64,
}

fn leader(cluster: &LocalCluster<'_>) -> Leader {
    // Only who drives the job knows its status.
    let jobs = cluster.wait_until("somebody leads", |jobs| jobs.leader().is_some() && is_driven(jobs));
    let (node, process) = cluster.leading(&jobs).expect("waited for above");
    Leader { node, process, committed: jobs.number("job", "committed") }
}

/// Waits until another one leads and has published something, or the job has ended under it.
fn wait_for_successor(cluster: &LocalCluster<'_>, old: &Leader) {
    cluster.wait_until("the next leader publishes", |jobs| {
        if jobs.has_ended("job") {
            return true;
        }
        is_driven(jobs)
            && cluster.leading(jobs).is_some_and(|(_, process)| process != old.process)
            && jobs.number("job", "committed") > old.committed
    });
}

fn wait_for_the_end(cluster: &LocalCluster<'_>) {
    let begun = Instant::now();
    while !cluster.jobs().is_some_and(|jobs| jobs.has_ended("job")) {
        assert!(begun.elapsed() < Duration::from_secs(100), "it does not end\n{}", cluster.story());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn cluster_a_new_leader_goes_on_with_the_attempt_that_runs() {
    let expected = undisturbed(EVENTS, PER_SECOND);
    let sandbox = Sandbox::new(&job("0 ms"));
    let cluster = start(&sandbox);
    for round in 0..4 {
        if jobs(&cluster).has_ended("job") {
            assert!(round >= 2, "the job has ended before its leader was killed and stopped");
            break;
        }
        let old = leader(&cluster);
        if round % 2 == 0 {
            cluster.signal(&old.node, "KILL");
            // Nobody can have been elected before 800 ms have passed.
            std::thread::sleep(Duration::from_millis(250));
            let before = printed(&cluster);
            std::thread::sleep(Duration::from_millis(450));
            let after = printed(&cluster);
            assert!(after > before, "round {round}: rows are not read without a leader\n{}", cluster.story());
            wait_for_successor(&cluster, &old);
            // It is started again after two seconds: a majority lives when the next one dies.
            std::thread::sleep(Duration::from_millis(3_000));
        } else {
            cluster.signal(&old.node, "STOP");
            wait_for_successor(&cluster, &old);
            cluster.signal(&old.node, "CONT");
            std::thread::sleep(Duration::from_millis(1_000));
        }
    }
    wait_for_the_end(&cluster);
    assert_eq!(jobs(&cluster).number("job", "generation"), 1, "{}", cluster.story());
    assert_same(&sandbox, &cluster, &expected);
}

#[test]
fn cluster_a_leader_and_a_worker_that_die_together_cost_a_restart() {
    let expected = undisturbed(EVENTS, PER_SECOND);
    let sandbox = Sandbox::new(&job("none"));
    let cluster = start(&sandbox);
    let old = leader(&cluster);
    cluster.signal(&old.node, "KILL");
    cluster.signal("worker-2", "KILL");
    wait_for_successor(&cluster, &old);
    wait_for_the_end(&cluster);
    assert_eq!(jobs(&cluster).number("job", "generation"), 2, "{}", cluster.story());
    let logs = cluster.logs();
    assert!(logs.contains("cannot be gone on with"), "{}", cluster.story());
    assert_same(&sandbox, &cluster, &expected);
}

#[test]
fn cluster_a_change_of_parallelism_goes_on_under_the_next_leader() {
    let expected = undisturbed(EVENTS, PER_SECOND);
    let sandbox = Sandbox::new(&job("10 ms"));
    let cluster = start(&sandbox);
    for parallelism in ["3", "5"] {
        let old = leader(&cluster);
        let attempt = cluster.wait_until("it runs", is_running).number("job", "generation");
        cluster.command_ok(&["rescale", "job", "-p", parallelism]);
        cluster.signal(&old.node, "KILL");
        wait_for_successor(&cluster, &old);
        cluster.wait_until("it runs at the new parallelism", |jobs| {
            jobs.number("job", "generation") > attempt && is_running(jobs)
        });
        std::thread::sleep(Duration::from_millis(2_500));
    }
    wait_for_the_end(&cluster);
    assert_same(&sandbox, &cluster, &expected);
}
