//! Files that are not what was written are refused, whatever is wrong with them, or read as if nothing were.

use std::path::Path;

use openraft::{CommittedLeaderId, EntryPayload};

use super::cluster::Cluster;
use super::{Lines, assert_says, soon};
use crate::raft_types::{Entry, LogId, SnapshotMeta, Vote};
use crate::store::{Identity, Store};
use crate::{Consensus, ConsensusError, StoreError};

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

pub(super) fn entry(term: u64, index: u64) -> Entry {
    let text = format!("entry {index} of term {term} {}", "x".repeat(index as usize * 7 % 300));
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(text) }
}

/// All that a node relies on.
#[derive(Debug, PartialEq)]
struct Content {
    identity: Identity,
    vote: Option<Vote>,
    entries: Vec<Entry>,
    purged: Option<LogId>,
    snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

async fn content(directory: &Path) -> Result<Content, ConsensusError> {
    let path = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || Store::open(&path, 1, "test")).await.expect("no panic");
    let (store, identity) = opened?;
    let read = store
        .run(|file| Ok((file.vote()?, file.entries(.., usize::MAX)?, file.ends()?.purged, file.snapshot()?)))
        .await;
    store.close(super::DEADLINE).await;
    let (vote, entries, purged, snapshot) = read?;
    let snapshot = snapshot.map(|record| (record.meta, record.bytes));
    Ok(Content { identity, vote, entries, purged, snapshot })
}

#[tokio::test]
async fn no_byte_of_the_file_can_change_unnoticed() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (store, _) = Store::open(directory.path(), 1, "test").expect("a new file");
    let filled = store.run(|file| {
        file.append(&(0..120).map(|index| entry(3, index)).collect::<Vec<_>>())?;
        file.set_vote(&Vote::new_committed(3, 1))?;
        let meta = SnapshotMeta { last_log_id: Some(id(3, 30)), ..SnapshotMeta::default() };
        file.set_snapshot(&meta, "{\"lines\":[]}".repeat(2000).as_bytes())?;
        file.purge(id(3, 20))?;
        file.truncate(110)
    });
    filled.await.expect("written");
    store.close(super::DEADLINE).await;
    let good = content(directory.path()).await.expect("it is sound");
    assert_eq!(good.entries.len(), 89);

    let path = directory.path().join("consensus.redb");
    let sound = std::fs::read(&path).expect("read");
    let (mut refused, mut unharmed) = (0, 0);
    // Each page in two places, and beyond those the whole of the header.
    let places = (0..sound.len()).step_by(2048).map(|page| page + 37).chain(0..300);
    for place in places.filter(|place| *place < sound.len()) {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&path, &damaged).expect("written");
        match content(directory.path()).await {
            Ok(read) => {
                assert_eq!(read, good, "byte {place} changed what is read");
                unharmed += 1;
            }
            Err(error) => {
                assert_says(&error.to_string(), &["consensus.redb"]);
                refused += 1;
            }
        }
    }
    assert!(refused > 20 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}

#[tokio::test]
async fn a_torn_file_is_refused_and_the_message_says_what_to_do() {
    let mut cluster = Cluster::started(1).await;
    for line in super::cluster::lines(0..50) {
        cluster.say(&line).await;
    }
    cluster.stop(1).await;
    let path = cluster.directory(1).join("consensus.redb");
    let sound = std::fs::read(&path).expect("read");
    for kept in [0, 10, 5000, sound.len() / 2, sound.len() - 4096] {
        std::fs::write(&path, &sound[..kept]).expect("written");
        let error = soon(Consensus::<Lines>::start(cluster.options(1))).await.err();
        let error = error.unwrap_or_else(|| panic!("{kept} of {} bytes are not enough", sound.len()));
        let is_damage = matches!(
            error,
            ConsensusError::Store(StoreError::Damaged { .. } | StoreError::Io { .. }) | ConsensusError::Identity { .. }
        );
        assert!(is_damage, "{error}");
        assert_says(&error.to_string(), &[&cluster.directory(1).display().to_string()]);
    }
    std::fs::write(&path, b"this is no database, but long enough to look like one ".repeat(1000)).expect("written");
    let error = soon(Consensus::<Lines>::start(cluster.options(1))).await.err().expect("refused");
    assert_says(&error.to_string(), &["consensus.redb", "damaged", "new id"]);
}
