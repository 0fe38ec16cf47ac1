//! Who leads, what is decided, and what is not.

use std::time::Duration;

use tokio::time::Instant;

use super::cluster::{Cluster, lines};
use super::{Lines, assert_says, soon, until};
use crate::{Consensus, ConsensusError, ProposeError, Role};

#[tokio::test]
async fn one_node_leads_and_the_others_say_which() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    for (i, line) in lines(0..5).iter().enumerate() {
        assert_eq!(cluster.node(leader).propose(line.clone()).await, Ok(i + 1));
    }
    cluster.all_have(&lines(0..5)).await;
    assert_eq!(cluster.node(leader).read(|state| state.lines.len()).await, Ok(5));

    let status = cluster.node(leader).status();
    assert_eq!((status.role, status.node, &status.members), (Role::Leader, leader, &cluster.members));
    let expected = Some((leader, cluster.members[&leader].clone()));
    for (node, consensus) in cluster.nodes().filter(|(node, _)| *node != leader) {
        until("the follower knows the leader", || consensus.leadership().borrow().leader == expected).await;
        assert!(!consensus.leadership().borrow().is_leader);
        assert_eq!(consensus.status().role, Role::Follower, "node {node}");
        let not_leader = Err(ProposeError::NotLeader { leader: expected.clone() });
        assert_eq!(consensus.propose("no".to_owned()).await, not_leader);
        assert_eq!(consensus.read(|state| state.lines.len()).await, not_leader);
        until("what was decided is known", || consensus.status().committed == status.committed).await;
        assert_eq!(Some(*consensus.applied().borrow()), status.applied);
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn when_the_leader_ends_another_follows_and_what_was_decided_stays() {
    let mut cluster = Cluster::started(3).await;
    for line in lines(0..10) {
        cluster.say(&line).await;
    }
    let old = cluster.leader().await;
    let old_term = cluster.node(old).leadership().borrow().term;
    let stopped = cluster.node(old);
    cluster.stop(old).await;
    let begun = Instant::now();
    let new = cluster.leader().await;
    println!("a new leader after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(12));
    let leadership = cluster.node(new).leadership().borrow().clone();
    assert!(leadership.term > old_term);
    // It leads only with all that was decided in its state.
    assert_eq!(cluster.node(new).read_stale(|state| state.lines.clone()), lines(0..10));
    cluster.say("line 10").await;
    assert!(matches!(stopped.propose("late".to_owned()).await, Err(ProposeError::Stopped { .. })));

    cluster.start(old).await.expect("it comes back");
    cluster.all_have(&lines(0..11)).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn all_come_back_from_their_disks_also_when_none_ended_in_order() {
    let mut cluster = Cluster::started(3).await;
    for line in lines(0..20) {
        cluster.say(&line).await;
    }
    cluster.stop_all().await;
    cluster.start_all().await;
    cluster.leader().await;
    cluster.all_have(&lines(0..20)).await;
    cluster.say("line 20").await;

    // As a power cut would leave them: open files, whose last change is on disk.
    let copies: Vec<_> = cluster.members.keys().map(|node| copy(&cluster.directory(*node))).collect();
    cluster.stop_all().await;
    for (node, copy) in cluster.members.keys().zip(&copies) {
        std::fs::remove_dir_all(cluster.directory(*node)).expect("removed");
        std::fs::rename(copy.path(), cluster.directory(*node)).expect("moved");
    }
    cluster.start_all().await;
    cluster.leader().await;
    cluster.all_have(&lines(0..21)).await;
    cluster.stop_all().await;
}

fn copy(directory: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::TempDir::with_prefix_in("copy", directory.parent().expect("a parent")).expect("a directory");
    for file in std::fs::read_dir(directory).expect("a directory") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
    }
    copy
}

#[tokio::test]
async fn a_leader_that_is_cut_off_decides_nothing_and_says_so() {
    let mut cluster = Cluster::started(3).await;
    cluster.say("line 0").await;
    let old = cluster.leader().await;
    let cut_off = cluster.node(old);
    cluster.isolate(old).await;
    // It still believes in itself and takes the line, but nobody hears of it.
    let lost = cut_off.propose("lost".to_owned()).await;
    assert!(matches!(lost, Err(ProposeError::NoQuorum { .. })), "{lost:?}");
    let read = cut_off.read(|state| state.lines.len()).await;
    assert!(matches!(read, Err(ProposeError::NoQuorum { .. })), "{read:?}");
    let leadership = cut_off.leadership();
    until("it no longer calls itself leader", || !leadership.borrow().is_leader).await;
    assert_eq!(leadership.borrow().leader, None);
    let refused = cut_off.propose("not even tried".to_owned()).await.expect_err("no majority");
    assert_says(&refused.to_string(), &["no majority", "nothing was proposed"]);
    assert_eq!(cut_off.read_stale(|state| state.lines.clone()), lines(0..1), "old, and honest about it");

    let others: Vec<u64> = cluster.members.keys().copied().filter(|node| *node != old).collect();
    let new = cluster.leader_among(&others).await;
    cluster.node(new).propose("line 1".to_owned()).await.expect("a majority");
    cluster.heal();
    let healed = Instant::now();
    cluster.all_have(&lines(0..2)).await;
    assert!(healed.elapsed() < Duration::from_secs(30), "converged after {:?}", healed.elapsed());
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_follower_that_is_cut_off_comes_back_without_harm() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let follower = *cluster.members.keys().find(|node| **node != leader).expect("a follower");
    cluster.isolate(follower).await;
    for line in lines(0..3) {
        cluster.say(&line).await;
    }
    let cut_off = cluster.node(follower);
    until("it stands for election in vain", || cut_off.status().role == Role::Candidate).await;
    assert_eq!(cut_off.read_stale(|state| state.lines.len()), 0);
    cluster.heal();
    cluster.all_have(&lines(0..3)).await;
    cluster.leader().await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn proposals_under_changing_leaders_are_decided_once_and_in_one_order() {
    let mut cluster = Cluster::started(3).await;
    let mut certain = Vec::new();
    let mut uncertain = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        let node = cluster.node(leader);
        let proposals: Vec<_> = (0..40)
            .map(|i| {
                let (node, line) = (node.clone(), format!("{round}/{i}"));
                tokio::spawn(async move { (line.clone(), node.propose(line).await) })
            })
            .collect();
        // In the midst of them.
        until("some are decided", || node.read_stale(|state| state.lines.len() > certain.len() + 3)).await;
        cluster.stop(leader).await;
        for proposal in proposals {
            let (line, outcome) = soon(proposal).await.expect("no panic");
            match outcome {
                Ok(_) => certain.push(line),
                Err(_) => uncertain.push(line),
            }
        }
        cluster.start(leader).await.expect("it comes back");
    }
    cluster.say("end").await;
    let leader = cluster.leader().await;
    let all = cluster.node(leader).read(|state| state.lines.clone()).await.expect("a leader");
    cluster.all_have(&all).await;
    for line in &certain {
        assert_eq!(all.iter().filter(|other| *other == line).count(), 1, "'{line}' was decided");
    }
    for line in &uncertain {
        assert!(all.iter().filter(|other| *other == line).count() <= 1, "'{line}' was decided more than once");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_single_node_leads_at_once_and_after_a_restart() {
    let mut cluster = Cluster::started(1).await;
    for line in lines(0..3) {
        cluster.say(&line).await;
    }
    assert_eq!(cluster.node(1).read(Lines::clone).await.expect("it leads").lines, lines(0..3));
    cluster.stop(1).await;
    cluster.start(1).await.expect("it comes back");
    cluster.leader().await;
    assert_eq!(cluster.node(1).read_stale(|state| state.lines.clone()), lines(0..3));
    cluster.stop_all().await;
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused_with_what_to_change() {
    let cluster = Cluster::new(3).await;
    let good = cluster.options(1);
    let mut wrong = vec![(good.clone(), "ids"), (good.clone(), "name"), (good.clone(), "heartbeat")];
    wrong[0].0.node = 0;
    wrong[1].0.cluster.clear();
    wrong[2].0.timing.election_min = wrong[2].0.timing.heartbeat;
    let mut twice = good;
    twice.members.insert(2, twice.members[&1].clone());
    wrong.push((twice, "two members"));
    for (options, part) in wrong {
        let error = Consensus::<Lines>::start(options).await.err().expect("the options do not fit");
        assert!(matches!(error, ConsensusError::Options { .. }), "{error}");
        assert_says(&error.to_string(), &[part]);
    }
}
