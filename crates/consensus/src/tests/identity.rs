//! A directory is one node's, and a node is one directory's.

use super::cluster::{Cluster, free_address, listen};
use super::{Lines, assert_says, soon, until};
use crate::{Consensus, ConsensusError, Role};

/// Why a node does not start.
async fn refusal(options: crate::Options) -> ConsensusError {
    soon(Consensus::<Lines>::start(options)).await.err().expect("it must not start")
}

#[tokio::test]
async fn a_directory_serves_no_other_node_cluster_or_process() {
    let mut cluster = Cluster::started(1).await;
    cluster.say("line 0").await;
    let in_use = refusal(cluster.options(1)).await;
    assert_says(&in_use.to_string(), &["in use", &cluster.directory(1).display().to_string()]);
    cluster.stop(1).await;

    let mut other_node = cluster.options(1);
    other_node.node = 2;
    let mut other_cluster = cluster.options(1);
    other_cluster.cluster = "other".to_owned();
    for options in [other_node, other_cluster] {
        let error = refusal(options).await;
        assert!(matches!(error, ConsensusError::Identity { .. }), "{error}");
        assert_says(&error.to_string(), &["belongs to node 1 of cluster 'test'"]);
    }
    cluster.start(1).await.expect("nothing has happened to it");
    cluster.leader().await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_node_without_its_log_does_not_begin_anew() {
    let mut cluster = Cluster::started(1).await;
    cluster.say("line 0").await;
    cluster.stop(1).await;
    std::fs::remove_file(cluster.directory(1).join("consensus.redb")).expect("removed");
    let error = refusal(cluster.options(1)).await;
    assert!(matches!(error, ConsensusError::Identity { .. }), "{error}");
    assert_says(&error.to_string(), &["log is gone", "new id"]);
}

#[tokio::test]
async fn a_node_with_a_lost_directory_is_found_out_by_the_others() {
    let mut cluster = Cluster::started(3).await;
    cluster.say("line 0").await;
    cluster.all_have(&super::cluster::lines(0..1)).await;
    let leader = cluster.leader().await;
    let wiped = cluster.members.keys().copied().find(|id| *id != leader).expect("a follower");
    let third = cluster.members.keys().copied().find(|id| *id != leader && *id != wiped).expect("another");
    cluster.stop(wiped).await;
    std::fs::remove_dir_all(cluster.directory(wiped)).expect("removed");
    let error = refusal(cluster.options(wiped)).await;
    assert!(matches!(error, ConsensusError::Identity { .. }), "{error}");
    assert_says(&error.to_string(), &[&format!("node {wiped}"), "new id"]);

    // Started while nobody can tell: it is found out as soon as it meets another, and helps nobody to a majority.
    std::fs::remove_dir_all(cluster.directory(wiped)).expect("removed");
    cluster.stop(leader).await;
    cluster.stop(third).await;
    cluster.start(wiped).await.expect("nobody objects");
    let stopped = cluster.node(wiped).stopped();
    cluster.start(third).await.expect("it comes back");
    until("it stops", || stopped.borrow().is_some()).await;
    assert_says(stopped.borrow().as_deref().unwrap_or_default(), &[&format!("node {wiped}"), "new id"]);
    assert_eq!(cluster.node(wiped).status().role, Role::Stopped);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!cluster.node(third).leadership().borrow().is_leader, "one of three is no majority");

    cluster.start(leader).await.expect("it comes back");
    cluster.leader_among(&[leader, third]).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn nodes_that_began_with_different_members_do_not_mix() {
    let mut cluster = Cluster::started(1).await;
    cluster.say("line 0").await;
    let address = free_address().await;
    let mut options = cluster.options(2);
    options.members.insert(2, address.clone());
    let listener = soon(listen(&address)).await;
    let second = soon(Consensus::start(options)).await.expect("it starts");
    cluster.serve(2, second.clone(), listener);
    // It asks the first for its vote, in vain.
    until("it stands for election", || second.status().role == Role::Candidate).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!second.leadership().borrow().is_leader);
    assert_eq!(cluster.node(1).status().members.len(), 1);
    cluster.say("line 1").await;
    cluster.stop_all().await;
}
