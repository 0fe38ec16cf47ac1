//! Clusters whose hosts are cut off from each other: packets vanish and nobody is told. Whatever is cut, the job goes on
//! or recovers within bounds, its output is that of one process that nobody disturbs, and nothing goes back.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::cluster::Jobs;
use crate::support::hosts::HostedCluster;
use crate::support::known::{difference, seed, undisturbed, windows};
use crate::support::{Sandbox, assert_says, text};

/// Rows a second.
const PER_SECOND: u64 = 10_000;
/// Silence counts as loss after three seconds; a slow machine that runs other tests needs more. Without that, connections
/// would be noticed to be cut after minutes.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// From a cut to output again: that silence is noticed, and a new attempt runs.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// Runs a job for about so many seconds on three coordinators and three workers of two slots, which are cut off from each
/// other meanwhile.
#[expect(clippy::print_stdout, reason = "to be seen where a test fails")]
fn partitioned(seconds: u64, cut: impl FnOnce(&mut HostedCluster<'_>)) {
    let events = seconds * PER_SECOND;
    let expected = undisturbed(events, PER_SECOND);
    let sandbox = Sandbox::new(&windows(events, PER_SECOND, true, "none"));
    let mut cluster = HostedCluster::start(&sandbox, 3, 3, 2);
    let submitted = cluster.run(&["submit", "job.sql", "-p", "4"]);
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
    cluster.until("the first epoch is published", RECOVERS_WITHIN, |jobs| jobs.number("job", "committed") > 0);
    cut(&mut cluster);
    cluster.until("it has ended", Duration::from_secs(300), |jobs| jobs.has_ended("job"));
    let (attempts, epochs, compared) = cluster.progress();
    println!("{attempts} attempts, {epochs} epochs, {compared} checkpoints compared");
    assert!(compared > 10, "offsets of only {compared} checkpoints were compared");
    let status = cluster.run(&["status", "job"]);
    assert_says(&text(&status.stdout), &["state        finished"]);
    let story = cluster.story();
    assert!(!story.contains("panicked"), "{story}");
    assert_eq!(difference(&expected, &sandbox.lines("out")), (0, 0), "of {} lines\n{story}", expected.len());
}

/// Whoever is on the minority's side says that what it knows may be old.
fn says_that_it_may_be_old(cluster: &HostedCluster<'_>, host: usize) {
    let shown = cluster.run_at(host, &["jobs"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert_says(&text(&shown.stdout), &["job "]);
    assert_says(&text(&shown.stderr), &["no coordinator that leads was found", "may be old"]);
}

#[test]
fn partition_the_leader_alone() {
    partitioned(50, |cluster| {
        let leader = cluster.leader();
        let others = cluster.all_but(&[leader]);
        cluster.network.cut(&[leader], &others);
        cluster.another_leads(leader, NOTICED_WITHIN);
        // It looks for a leader for a while.
        let cancels = cluster.start_at(leader, &["cancel", "job"]);
        cluster.goes_on(5, RECOVERS_WITHIN);
        says_that_it_may_be_old(cluster, leader);
        let cancelled = cancels.wait_with_output().unwrap();
        assert!(!cancelled.status.success());
        assert_says(&text(&cancelled.stderr), &["no coordinator leads at the moment"]);
        // Who knows all of them is not stopped by the one that led before.
        let rescaled = cluster.run(&["rescale", "job", "-p", "3"]);
        assert!(rescaled.status.success(), "{}", text(&rescaled.stderr));
        cluster.network.heal(&[leader], &others);
        cluster.goes_on(5, RECOVERS_WITHIN);
        cluster.until("all of them are heard", RECOVERS_WITHIN, |jobs| jobs.workers() == 3);
    });
}

#[test]
fn partition_the_leader_with_a_worker_on_the_side_of_the_minority() {
    partitioned(30, |cluster| {
        let leader = cluster.leader();
        let some = [leader, cluster.used_hosts()[0]];
        let others = cluster.all_but(&some);
        cluster.network.cut(&some, &others);
        cluster.another_leads(leader, NOTICED_WITHIN);
        cluster.goes_on(5, RECOVERS_WITHIN);
        cluster.network.heal(&some, &others);
        cluster.until("the worker is back", RECOVERS_WITHIN, |jobs| jobs.workers() == 3);
    });
}

#[test]
fn partition_two_workers_that_the_leader_reaches() {
    partitioned(30, |cluster| {
        let &[one, other, ..] = cluster.used_hosts().as_slice() else { panic!("it runs on one worker") };
        cluster.network.cut(&[one], &[other]);
        let names = [cluster.worker(one), cluster.worker(other)];
        let says = |jobs: &Jobs| {
            let failure = jobs.job("job").and_then(|job| job["status"]["last_failure"].as_str()).unwrap_or_default();
            failure.contains("workers cannot reach each other") && names.iter().all(|name| failure.contains(name))
        };
        cluster.until("it says which two", NOTICED_WITHIN, says);
        // There are slots without one of the two.
        cluster.goes_on(5, RECOVERS_WITHIN);
        cluster.until("the leader hears all of them", RECOVERS_WITHIN, |jobs| jobs.workers() == 3);
        // Now there are none, and it says why nothing goes on.
        let attempts = cluster.progress().0;
        assert!(cluster.run(&["rescale", "job", "-p", "6"]).status.success());
        cluster.until("it fails again and says why", RECOVERS_WITHIN, |jobs| {
            says(jobs) && jobs.number("job", "generation") > attempts + 1
        });
        cluster.network.heal(&[one], &[other]);
        cluster.goes_on(5, RECOVERS_WITHIN);
    });
}

#[test]
fn partition_a_worker_alone_and_then_in_one_direction() {
    partitioned(50, |cluster| {
        let used = cluster.used_hosts();
        let alone = used[0];
        let others = cluster.all_but(&[alone]);
        cluster.network.cut(&[alone], &others);
        cluster.until("it counts as lost", NOTICED_WITHIN, |jobs| jobs.leads() && jobs.workers() == 2);
        cluster.goes_on(5, RECOVERS_WITHIN);
        cluster.network.heal(&[alone], &others);
        cluster.until("it is back", RECOVERS_WITHIN, |jobs| jobs.workers() == 3);
        // It hears everything, and nobody hears it.
        others.iter().for_each(|other| cluster.network.cut_one_way(alone, *other));
        cluster.until("it counts as lost", NOTICED_WITHIN, |jobs| jobs.leads() && jobs.workers() == 2);
        cluster.goes_on(5, RECOVERS_WITHIN);
        others.iter().for_each(|other| cluster.network.heal_one_way(alone, *other));
        cluster.until("it is back", RECOVERS_WITHIN, |jobs| jobs.workers() == 3);
        // The leader hears nobody, and everybody hears the leader.
        let leader = cluster.leader();
        cluster.all_but(&[leader]).iter().for_each(|other| cluster.network.cut_one_way(*other, leader));
        cluster.another_leads(leader, NOTICED_WITHIN);
        cluster.goes_on(5, RECOVERS_WITHIN);
    });
}

#[test]
fn partition_that_comes_and_goes() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    partitioned(30, |cluster| {
        for _ in 0..4 {
            let hosts = cluster.all_but(&[]);
            let some: Vec<usize> = hosts.iter().copied().filter(|_| random.random_ratio(1, 3)).collect();
            let others = cluster.all_but(&some);
            cluster.network.cut(&some, &others);
            cluster.pass(Duration::from_secs(2));
            cluster.network.heal(&some, &others);
            cluster.pass(Duration::from_secs(2));
        }
        cluster.goes_on(5, RECOVERS_WITHIN);
    });
}

#[test]
fn partition_of_everything_for_longer_than_any_silence() {
    partitioned(24, |cluster| {
        let (leader, hosts) = (cluster.leader(), cluster.all_but(&[]));
        cluster.network.cut(&hosts, &hosts);
        let nobody_leads = |cluster: &HostedCluster<'_>| {
            cluster.coordinator_hosts().iter().all(|host| !cluster.jobs_at(*host).leads())
        };
        cluster.pass(Duration::from_secs(4));
        assert!(nobody_leads(cluster), "host {leader} led before\n{}", cluster.story());
        let before = cluster.jobs_at(leader).number("job", "committed");
        cluster.pass(Duration::from_secs(5));
        assert!(nobody_leads(cluster), "{}", cluster.story());
        assert_eq!(
            cluster.jobs_at(leader).number("job", "committed"),
            before,
            "an epoch is complete without a majority"
        );
        cluster.network.heal(&hosts, &hosts);
        cluster.goes_on(5, RECOVERS_WITHIN);
    });
}
