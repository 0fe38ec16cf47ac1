//! A job of a cluster between two topics, whose workers and coordinators are killed, and stopped for longer than they are waited
//! for.

use std::time::{Duration, Instant};

use super::PATIENCE;
use super::exactly_once::{Feeder, sql, whole_rows_of_partitions};
use crate::support::cluster::LocalCluster;
use crate::support::kafka::Broker;
use crate::support::{Sandbox, assert_says};

/// A worker of which nothing is heard for three seconds is given up; a leader, sooner.
const BEYOND_THE_BOUND: Duration = Duration::from_millis(4_500);

#[test]
fn cluster_nodes_are_killed_and_stopped_between_two_topics() {
    let broker = Broker::shared();
    broker.create("cluster-in", 4);
    broker.create("cluster-out", 2);
    let sql = sql(&broker, "cluster-in", "cluster-out", "");
    let sandbox = Sandbox::new(&format!("SET 'execution.checkpointing.interval' = '100 ms';\n{sql}"));
    let cluster = LocalCluster::start(&sandbox, 3, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "3"]);
    let feeder = Feeder::start(&broker, "cluster-in", 4);
    let visible = || whole_rows_of_partitions(&broker, "cluster-out");
    let goes_on = |after: &str, rows: usize| {
        let begun = Instant::now();
        while visible() < rows {
            assert!(begun.elapsed() < PATIENCE, "no more rows after {after}\n{}", cluster.story());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let stop = |node: &str| {
        cluster.signal(node, "STOP");
        std::thread::sleep(BEYOND_THE_BOUND);
        // Meanwhile others do its work; what it does when it wakes must come to nothing.
        goes_on("a node was stopped", visible() + 50);
        cluster.signal(node, "CONT");
    };
    let leader = || cluster.leader().unwrap_or_else(|| "coordinator-1".to_owned());
    let used_worker = || {
        let used = cluster.wait_until("it runs", |jobs| !jobs.used_workers().is_empty()).used_workers();
        used[0].split_once('@').unwrap().0.to_owned()
    };
    goes_on("its start", 50);
    let begun = Instant::now();
    let lag = loop {
        let status: serde_json::Value =
            serde_json::from_str(&cluster.command_ok(&["status", "job", "--json"])).unwrap();
        if status["lag"][0]["splits"].as_array().is_some_and(|splits| splits.len() == 4) {
            break status["lag"][0].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!((&lag["table"], &lag["unit"]), (&"t".into(), &"records".into()), "{lag}");
    assert_says(&cluster.command_ok(&["status", "job"]), &["lag          ", " records of 't'"]);
    for edge in ["transaction-written", "transaction-committed"] {
        cluster.arm(edge);
        cluster.wait_until("the leader dies", |jobs| !cluster.is_armed(edge) && jobs.leader().is_some());
        goes_on(edge, visible() + 50);
    }
    stop(&used_worker());
    goes_on("a worker was woken", visible() + 50);
    stop(&leader());
    goes_on("a leader was woken", visible() + 50);
    cluster.command_ok(&["rescale", "job", "-p", "2"]);
    cluster.wait_until("fewer subtasks write", |jobs| {
        jobs.job("job").is_some_and(|job| job["parallelism"] == 2 && job["status"]["state"] == "running")
    });
    goes_on("another parallelism", visible() + 50);
    cluster.signal(&used_worker(), "KILL");
    goes_on("the death of a worker", visible() + 50);
    for node in cluster.nodes("") {
        cluster.signal(&node, "KILL");
    }
    goes_on("the death of all", visible() + 50);
    let rows = feeder.end() as usize;
    goes_on("all of it", rows);
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    assert!(cluster.jobs().unwrap().number("job", "generation") > 2, "nothing was disturbed");
    cluster.command_ok(&["cancel", "job"]);
    cluster.wait_until("it has ended", |jobs| jobs.has_ended("job"));
    cluster.command_ok(&["remove", "job"]);
    // Nobody who reads has to wait for anything that it left.
    broker.wait_until_settled("cluster-out");
    assert_eq!(visible(), rows);
}
