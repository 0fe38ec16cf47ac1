//! Manifests: what is written is read, and damage is named.

mod golden;

use mainstem_core::ids::SplitId;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::{Committable, SourceSplit, SplitProgress, StateHandle};

use super::*;

fn job() -> JobId {
    JobId::new("j").unwrap()
}

fn manifest(state: Vec<StateHandle>) -> Manifest {
    let committables = vec![Committable { payload: "{\"file\":\"a\"}".to_owned() }];
    let snapshot = OperatorSnapshot {
        state,
        committables,
        meta: Some("{}".to_owned()),
        watermark: Some(Timestamp(5)),
        state_rows: Some(4),
        ..OperatorSnapshot::default()
    };
    let progress = SplitProgress::Reading { position: "{\"row\":3}".to_owned(), watermark: Timestamp::MIN };
    let split = SplitState {
        split: SourceSplit { id: SplitId("s".to_owned()), payload: "null".to_owned() },
        progress: Some(progress),
    };
    Manifest {
        job: job(),
        epoch: Epoch(7),
        generation: Generation(2),
        next_epoch_now: Timestamp(1_000),
        graph_hash: "abc".to_owned(),
        key_groups: 256,
        parallelism: BTreeMap::from([(OperatorId(0), 2)]),
        operators: BTreeMap::from([(OperatorId(3), vec![(1, snapshot)])]),
        sources: BTreeMap::from([(OperatorId(0), vec![split])]),
        created_at: Timestamp(999),
    }
}

#[tokio::test]
async fn a_manifest_is_read_as_it_was_written_and_writing_it_twice_is_harmless() {
    let store = CheckpointStore::in_memory();
    let manifest = manifest(Vec::new());
    let written = store.write_manifest(&manifest).await.unwrap();
    assert_eq!(written.path, "manifests/7-g2.manifest");
    assert_eq!(store.write_manifest(&manifest).await.unwrap(), written);
    assert_eq!(store.read_manifest(&job(), &written).await.unwrap(), manifest);
    let other = Manifest { created_at: Timestamp(1), ..manifest };
    assert!(matches!(store.write_manifest(&other).await, Err(StateError::Conflict { .. })));
    let by_another = store.write_manifest_after(&other, 2).await.unwrap();
    assert_eq!(by_another.path, "manifests/7-g2-a2.manifest");
    assert_eq!(store.read_manifest(&job(), &by_another).await.unwrap(), other);
}

#[test]
fn every_changed_byte_and_every_truncation_is_noticed() {
    let bytes = manifest(Vec::new()).encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest(Vec::new()));
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << bit;
            assert!(Manifest::decode(&damaged).is_err(), "byte {position}, bit {bit}");
        }
        assert!(Manifest::decode(&bytes[..position]).is_err(), "cut at {position}");
    }
}

#[tokio::test]
async fn damage_names_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::local(directory.path()).unwrap();
    let written = store.write_manifest(&manifest(Vec::new())).await.unwrap();
    let file = directory.path().join("jobs/j/manifests/7-g2.manifest");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = store.read_manifest(&job(), &written).await.unwrap_err();
    assert!(error.is_damage());
    assert_eq!(error.to_string(), "checkpoint file 'jobs/j/manifests/7-g2.manifest' is damaged: wrong checksum");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(store.read_manifest(&job(), &written).await, Err(StateError::Missing { .. })));
}

#[tokio::test]
async fn verification_reads_every_named_file() {
    let store = CheckpointStore::in_memory();
    let content = Bytes::from_static(b"some state");
    store.put_new(&job(), "state/7-g2-op3-1.state", content.clone()).await.unwrap();
    let handle = StateHandle {
        path: "state/7-g2-op3-1.state".to_owned(),
        size: content.len() as u64,
        crc32c: crc32c::crc32c(&content),
        key_groups: KeyGroupRange { start: 0, end: 256 },
        epoch: Epoch(7),
    };
    let good = manifest(vec![handle.clone(), handle.clone()]);
    good.verify_files(&store).await.unwrap();
    assert_eq!(good.state_bytes(), content.len() as u64);
    let size = StateSize { rows: 4, bytes: content.len() as u64 };
    assert_eq!(good.state_sizes(), BTreeMap::from([(OperatorId(3), size)]));
    for (bad, word) in [
        (StateHandle { size: 99, ..handle.clone() }, "truncated"),
        (StateHandle { size: 2, ..handle.clone() }, "too long"),
        (StateHandle { crc32c: 1, ..handle.clone() }, "checksum"),
        (StateHandle { path: "state/none.state".to_owned(), ..handle.clone() }, "missing"),
        (StateHandle { path: "../../x".to_owned(), ..handle.clone() }, "not a legal path"),
    ] {
        let error = manifest(vec![bad.clone()]).verify_files(&store).await.unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(&bad.path), "{error}");
    }
}
