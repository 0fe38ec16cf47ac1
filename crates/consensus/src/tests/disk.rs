//! Disks that fail, and power that does: what was acknowledged is there afterwards, and a failed write is the last.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use openraft::RaftLogId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::cluster::Cluster;
use super::damage::{entry, id};
use super::{Lines, assert_says, soon, until};
use crate::disk::Disk;
use crate::raft_types::Vote;
use crate::store::{LogFile, Store};
use crate::{Consensus, ProposeError, Role};

/// Random changes, a power cut in the midst of one, and what must be there afterwards.
fn power_cut(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut disk = Disk::default();
    let mut log = Vec::new();
    let mut vote = None;
    let mut term = 1;
    for _ in 0..4 {
        let file = LogFile::open_backend(disk.clone()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let entries = file.entries(.., usize::MAX).expect("readable");
        assert_eq!(entries, log, "seed {seed}: the log after a power cut");
        assert_eq!(file.vote().expect("readable"), vote, "seed {seed}: the vote after a power cut");
        let mut image = Disk::of(disk.image_after_power_cut(&mut random));
        for _ in 0..random.random_range(1..12) {
            match random.random_range(0..4) {
                0 => {
                    term += 1;
                    vote = Some(Vote::new(term, 1));
                    file.set_vote(&Vote::new(term, 1)).expect("written");
                }
                1 if log.len() > 3 => {
                    let from = log.len() - random.random_range(1..3);
                    let first = log.first().map_or(0, |first: &crate::raft_types::Entry| first.get_log_id().index);
                    file.truncate(first + from as u64).expect("written");
                    log.truncate(from);
                }
                2 => file.set_committed(log.last().map(|last| last.log_id)).expect("written"),
                _ => {
                    let next = log.last().map_or(0, |last| last.get_log_id().index + 1);
                    let new: Vec<_> =
                        (next..next + random.random_range(1..9)).map(|index| entry(term, index)).collect();
                    file.append(&new).expect("written");
                    log.extend(new);
                }
            }
            image = Disk::of(disk.image_after_power_cut(&mut random));
        }
        disk = image;
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..60 {
        power_cut(seed);
    }
}

#[test]
fn a_log_is_cut_at_both_ends_and_knows_its_ends() {
    let file = LogFile::open_backend(Disk::default()).expect("a new file");
    assert_eq!(file.ends().expect("readable"), crate::store::LogEnds::default());
    file.append(&(0..10).map(|index| entry(1, index)).collect::<Vec<_>>()).expect("written");
    file.truncate(8).expect("written");
    file.purge(id(1, 3)).expect("written");
    let ends = file.ends().expect("readable");
    assert_eq!((ends.purged, ends.last), (Some(id(1, 3)), Some(id(1, 7))));
    let indexes: Vec<u64> =
        file.entries(.., usize::MAX).expect("readable").iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, [4, 5, 6, 7]);
    assert_eq!(file.entries(4..8, 1).expect("readable").len(), 1, "one at least, however large");
    file.purge(id(1, 20)).expect("written");
    let ends = file.ends().expect("readable");
    assert_eq!((ends.purged, ends.last), (Some(id(1, 20)), Some(id(1, 20))));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_written() {
    let disk = Disk::default();
    let file = LogFile::open_backend(disk.clone()).expect("a new file");
    let store = Store::over(file, "disk".into()).expect("a thread");
    store.run(|file| file.set_vote(&Vote::new(1, 1))).await.expect("written");
    disk.syncs_left.store(1, Ordering::Relaxed);
    let first = store.run(|file| file.set_vote(&Vote::new(2, 1))).await.expect_err("the disk failed");
    assert_says(&first.to_string(), &["disk", "failed"]);
    let second = store.run(|file| file.set_vote(&Vote::new(3, 1))).await.expect_err("it is no better than before");
    assert_eq!(second.to_string(), first.to_string());
    store.close(super::DEADLINE).await;
    let file = LogFile::open_backend(disk.after_power_cut(0)).expect("it is sound");
    assert_eq!(file.vote().expect("readable"), Some(Vote::new(1, 1)));
}

/// The disk of the only test that starts a node on one.
static FAILING: Mutex<Option<Disk>> = Mutex::new(None);

#[tokio::test]
async fn a_node_whose_disk_fails_stops_and_says_why() {
    let cluster = Cluster::new(1).await;
    let disk = Disk::default();
    *FAILING.lock().expect("no panic") = Some(disk.clone());
    let open = |options: &crate::Options| {
        let disk = FAILING.lock().expect("no panic").clone().expect("it was put there");
        let file = LogFile::open_backend(disk).expect("a new file");
        let identity = file.identity(false, options.node, &options.cluster).expect("written");
        Ok((Store::over(file, "disk".into())?, identity))
    };
    let node: Consensus<Lines> = soon(Consensus::start_on(cluster.options(1), open)).await.expect("it starts");
    until("it leads", || node.leadership().borrow().is_leader).await;
    assert_eq!(node.propose("line 0".to_owned()).await, Ok(1));
    disk.syncs_left.store(1, Ordering::Relaxed);
    let lost = node.propose("line 1".to_owned()).await.expect_err("the disk failed");
    assert!(matches!(lost, ProposeError::Stopped { .. }), "{lost}");
    let stopped = node.stopped();
    until("it stops", || stopped.borrow().is_some()).await;
    assert_says(stopped.borrow().as_deref().unwrap_or_default(), &["the disk failed"]);
    until("it leads no more", || !node.leadership().borrow().is_leader).await;
    assert_eq!(node.status().role, Role::Stopped);
    assert!(matches!(node.propose("line 2".to_owned()).await, Err(ProposeError::Stopped { .. })));
    node.shutdown().await;
}
