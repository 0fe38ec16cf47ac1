//! Hot standbys on real processes: who takes over the slot of a killed worker has its state already, a standby that dies is
//! replaced, and another leader goes on with those that there are.

use serde_json::Value;

use super::{all_restored, assert_ends_well, job, undisturbed, wait_for_attempt};
use crate::support::cluster::{Jobs, LocalCluster};
use crate::support::{Sandbox, assert_says, text};

/// The job of the other tests with so many standbys, and epochs that are far enough apart for a kill between two of them.
fn with_standbys(standbys: u32) -> String {
    let every = |seconds: &str| format!("SET 'execution.checkpointing.interval' = '{seconds}';");
    let job = job(true).replace(&every("200 ms"), &every("3 s"));
    assert!(job.contains("'3 s'"), "{job}");
    format!("SET 'standby' = '{standbys}';\n{job}")
}

/// The standby of each slot, with the epoch that it has.
fn standbys(jobs: &Jobs) -> Vec<(String, u64)> {
    let slots = jobs.job("job").and_then(|job| job["standbys"]["slots"].as_array());
    let of = |standby: &Value| (standby["worker"].as_str().unwrap().to_owned(), standby["epoch"].as_u64().unwrap_or(0));
    slots.map(|slots| slots.iter().map(of).collect()).unwrap_or_default()
}

/// Waits until an epoch after this one has just become complete and both slots have a standby that has it; gives them.
fn wait_for_standbys(cluster: &LocalCluster<'_>, after: u64) -> (u64, [String; 2]) {
    let jobs = cluster.wait_until("standbys follow", |jobs| {
        let complete = jobs.number("job", "complete");
        let standbys = standbys(jobs);
        complete > after && standbys.len() == 2 && standbys.iter().all(|(_, epoch)| *epoch == complete)
    });
    let workers: Vec<String> = standbys(&jobs).into_iter().map(|(worker, _)| worker).collect();
    (jobs.number("job", "complete"), workers.try_into().unwrap())
}

/// The node of a worker.
fn node(worker: &str) -> &str {
    worker.split_once('@').unwrap().0
}

/// Kills the worker of the second slot, and gives what its successor, which had run nothing, has read of its state: bytes
/// from copies, and from the store.
fn fail_over(wanted: u32) -> (u64, u64) {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&with_standbys(wanted));
    let cluster = LocalCluster::start(&sandbox, 1, 3, 1);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    if wanted > 0 {
        let (mut epoch, workers) = wait_for_standbys(&cluster, 1);
        assert_eq!(workers.each_ref().map(|worker| node(worker)), ["worker-3", "worker-3"]);
        // The next epoch may be complete by the time at which it is asked.
        loop {
            let shown = text(&sandbox.run_ok(&["status", "job"]).stdout);
            assert_says(&shown, &["standby      slot 0: worker-3@", "standby      slot 1: worker-3@"]);
            let is_there = shown.contains(", 0 behind; 0 files");
            (epoch, _) = wait_for_standbys(&cluster, epoch);
            if is_there {
                break;
            }
        }
    } else {
        cluster.wait_until("epochs are complete", |jobs| jobs.number("job", "complete") >= 2);
    }
    cluster.signal("worker-2", "KILL");
    let attempt = wait_for_attempt(&cluster, 1);
    let [survivor, successor] = all_restored((&sandbox, &cluster), ["worker-1", "worker-3"], attempt);
    assert!(survivor.0 > 0 && survivor.1 == 0, "{survivor:?}\n{}", cluster.story());
    assert_ends_well(&sandbox, &cluster, &expected);
    successor
}

#[test]
fn copies_of_a_standby_are_all_that_a_fail_over_reads() {
    let (local, store) = fail_over(1);
    assert!(local > 10_000 && store == 0, "{local} bytes from copies, {store} from the store");
}

#[test]
fn copies_are_missing_where_nobody_stands_by() {
    let (local, store) = fail_over(0);
    assert!(local == 0 && store > 10_000, "{local} bytes from copies, {store} from the store");
}

#[test]
fn copies_are_followed_by_another_worker_when_a_standby_dies_and_under_another_leader() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&with_standbys(1));
    let cluster = LocalCluster::start(&sandbox, 3, 4, 1);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    let (epoch, before) = wait_for_standbys(&cluster, 0);
    assert_ne!(before[0], before[1], "they are spread");
    cluster.signal(node(&before[0]), "KILL");
    let (epoch, after) = wait_for_standbys(&cluster, epoch);
    assert_ne!(after[0], before[0], "a process that is gone stands by for nothing");
    assert_eq!(after[1], before[1]);
    let leader = cluster.leader().unwrap();
    cluster.signal(&leader, "KILL");
    let (_, last) = wait_for_standbys(&cluster, epoch);
    assert_eq!(last, after, "another leader stays with those who follow\n{}", cluster.story());
    let jobs = cluster.jobs().unwrap();
    assert_eq!(jobs.number("job", "generation"), 1, "the job has not noticed\n{}", cluster.story());
    assert_ends_well(&sandbox, &cluster, &expected);
}
