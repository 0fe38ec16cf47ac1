//! The log is cut, and whoever is too far behind gets a snapshot.

use std::time::Duration;

use super::cluster::{Cluster, free_address, lines};
use super::{DEADLINE, until};
use crate::options::ENTRIES_KEPT;

#[tokio::test]
async fn the_log_stays_short_and_a_follower_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(3).await;
    cluster.snapshot_after_entries = 50;
    cluster.start_all().await;
    cluster.say("line 0").await;
    let leader = cluster.leader().await;
    let behind = *cluster.members.keys().find(|node| **node != leader).expect("a follower");
    cluster.stop(behind).await;
    for line in lines(1..400) {
        cluster.say(&line).await;
    }
    let node = cluster.node(cluster.leader().await);
    until("a snapshot of late entries", || node.status().snapshot.is_some_and(|index| index > 300)).await;
    let kept = || node.log_entries();
    until("a short log", || kept() <= ENTRIES_KEPT + 2 * cluster.snapshot_after_entries).await;

    cluster.start(behind).await.expect("it comes back");
    cluster.all_have(&lines(0..400)).await;
    assert!(cluster.node(behind).status().snapshot.is_some_and(|index| index > 300), "it got a snapshot");
    cluster.say("line 400").await;
    cluster.all_have(&lines(0..401)).await;

    // From the snapshot and what stands behind it.
    cluster.stop_all().await;
    cluster.start_all().await;
    cluster.leader().await;
    cluster.all_have(&lines(0..401)).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_snapshot_of_many_parts_arrives_also_when_it_is_interrupted() {
    let mut cluster = Cluster::new(3).await;
    cluster.snapshot_after_entries = 4;
    cluster.start_all().await;
    // About 2.4 MB, so five parts.
    let long = |i: usize| format!("{i} {}", "ö".repeat(60_000));
    for i in 0..20 {
        cluster.say(&long(i)).await;
    }
    let leader = cluster.leader().await;
    until("a snapshot", || cluster.node(leader).status().snapshot.is_some()).await;
    let address = free_address().await;
    let options = cluster.options(4);
    cluster.members.insert(4, address.clone());
    cluster.start_with(options, &address).await.expect("it starts and waits");
    let adding = async {
        // A busy machine may change the leader in the middle, and then the new one is asked.
        while cluster.node(cluster.leader_among(&[1, 2, 3]).await).add_member(4, address.clone()).await.is_err() {}
    };
    let disturbing = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            cluster.isolate(4).await;
            cluster.heal();
        }
    };
    tokio::time::timeout(DEADLINE * 2, async { tokio::join!(adding, disturbing) }).await.expect("it joins");
    let all: Vec<String> = (0..20).map(long).collect();
    cluster.all_have(&all).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn few_large_entries_are_cut_off_too() {
    let mut cluster = Cluster::started(1).await;
    cluster.say("line 0").await;
    for i in 0..12 {
        cluster.say(&format!("{i} {}", "x".repeat(1 << 20))).await;
    }
    let node = cluster.node(1);
    until("a short log", || node.log_entries() < 6).await;
    let all = node.read_stale(|state| state.lines.clone());
    cluster.stop(1).await;
    cluster.start(1).await.expect("it comes back");
    cluster.all_have(&all).await;
    cluster.stop_all().await;
}
