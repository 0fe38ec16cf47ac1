//! Members come and go.

use std::time::Duration;

use super::cluster::{Cluster, free_address, lines};
use super::{assert_says, until};
use crate::{MembershipError, ProposeError, Role};

/// Starts a node that is no founding member.
async fn join(cluster: &mut Cluster, node: u64) -> String {
    let address = free_address().await;
    let options = cluster.options(node);
    cluster.members.insert(node, address.clone());
    cluster.start_with(options, &address).await.expect("it starts and waits");
    address
}

#[tokio::test]
async fn a_group_grows_from_one_to_three_and_shrinks_again() {
    let mut cluster = Cluster::started(1).await;
    cluster.say("line 0").await;
    for node in [2, 3] {
        let address = join(&mut cluster, node).await;
        until("it waits to be added", || cluster.node(node).status().role == Role::Learner).await;
        cluster.node(1).add_member(node, address.clone()).await.expect("it is added");
        assert_eq!(cluster.node(1).status().members.get(&node), Some(&address));
    }
    cluster.say("line 1").await;
    cluster.all_have(&lines(0..2)).await;

    // The leader goes; the two others go on and need no restart for it.
    cluster.node(1).remove_member(1).await.expect("it is removed");
    let new = cluster.leader_among(&[2, 3]).await;
    cluster.node(new).propose("line 2".to_owned()).await.expect("two of two");
    until("who was removed names no leader of old, and one who is left", || {
        let leadership = cluster.node(1).leadership().borrow().clone();
        leadership.leader.is_none() && leadership.whom_to_ask() == cluster.members.get(&2).cloned()
    })
    .await;
    cluster.stop(1).await;
    cluster.node(new).propose("line 3".to_owned()).await.expect("the first is not needed");
    cluster.all_have(&lines(0..4)).await;

    // A member that is down can be removed only while the others are a majority.
    let third = join(&mut cluster, 4).await;
    cluster.node(new).add_member(4, third).await.expect("it is added");
    let down = if new == 2 { 3 } else { 2 };
    cluster.stop(down).await;
    cluster.node(new).remove_member(down).await.expect("two of three are there");
    assert_eq!(cluster.node(new).status().members.into_keys().collect::<Vec<_>>(), [new, 4]);
    cluster.stop_all().await;
    cluster.start(new).await.expect("it comes back");
    cluster.start(4).await.expect("it comes back");
    cluster.leader().await;
    cluster.all_have(&lines(0..4)).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(3).await;
    cluster.catch_up_max = Duration::from_secs(2);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let follower = cluster.members.keys().copied().find(|id| *id != leader).expect("a follower");
    let refused = |outcome: Result<(), MembershipError>| match outcome {
        Err(MembershipError::Refused { reason }) => reason,
        other => panic!("{other:?} is no refusal"),
    };
    assert_says(&refused(node.add_member(follower, "127.0.0.1:1").await), &["already"]);
    assert_says(&refused(node.remove_member(9).await), &["no member"]);
    let elsewhere = cluster.node(follower).remove_member(leader).await;
    assert!(matches!(elsewhere, Err(MembershipError::Propose(ProposeError::NotLeader { .. }))), "{elsewhere:?}");

    // Nobody is there, so it is taken out again, and meanwhile nothing else is changed.
    let absent = free_address().await;
    let adding = tokio::spawn({
        let (node, absent) = (node.clone(), absent.clone());
        async move { node.add_member(7, absent).await }
    });
    until("it listens", || node.status().learners.contains_key(&7)).await;
    assert_says(&refused(node.remove_member(follower).await), &["under way"]);
    assert_says(&refused(super::soon(adding).await.expect("no panic")), &["node 7", "taken out", "running"]);
    until("it is gone", || node.status().learners.is_empty()).await;
    assert_eq!(node.status().members, cluster.members);
    cluster.say("line 0").await;
    cluster.stop_all().await;
}

/// Else somebody whose command got no answer would look, and count on a node that has no vote.
#[tokio::test]
async fn who_is_not_a_member_yet_is_not_shown_as_one() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let (node, address) = (cluster.node(leader), free_address().await);
    let adding = tokio::spawn({
        let (node, address) = (node.clone(), address.clone());
        async move { node.add_member(4, address).await }
    });
    until("it listens", || node.status().learners.contains_key(&4)).await;
    // The leader reaches the new node alone, and so cannot give it a vote.
    cluster.isolate(leader).await;
    let options = cluster.options(4);
    cluster.start_with(options, &address).await.expect("it starts and waits");
    let outcome = super::soon(adding).await.expect("no panic");
    assert!(matches!(outcome, Err(MembershipError::Propose(ProposeError::NoQuorum { .. }))), "{outcome:?}");
    let noted = node.inner.raft.metrics().borrow().membership_config.clone();
    assert!(noted.voter_ids().any(|id| id == 4), "it stands in the leader's log: {noted:?}");
    assert_eq!(node.status().members, cluster.members);
    assert!(node.status().learners.contains_key(&4), "{:?}", node.status());
    cluster.members.insert(4, address.clone());
    cluster.heal();
    let leader = cluster.leader_among(&[1, 2, 3]).await;
    // Either the change was not known to who leads now, or it has come to be.
    let again = cluster.node(leader).add_member(4, address).await;
    assert!(again.is_ok() || cluster.node(leader).status().members == cluster.members, "{again:?}");
    cluster.say("line 0").await;
    cluster.all_have(&["line 0".to_owned()]).await;
    cluster.stop_all().await;
}
