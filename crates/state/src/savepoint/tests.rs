//! Savepoints as directories: what is written is read, by whatever way it has come, and nothing unfinished counts.

mod golden;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::{OperatorSnapshot, StateHandle};
use mainstem_core::time::Timestamp;
use mainstem_objects::simulation::{Fault, FaultyStore, Operation};
use mainstem_objects::{ObjectUrl, Objects};

use super::*;
use crate::CheckpointStore;

fn job() -> JobId {
    JobId::new("j").unwrap()
}

async fn savepoint(store: &CheckpointStore, files: &[(&str, &[u8])]) -> Savepoint {
    let mut state = Vec::new();
    for (path, bytes) in files {
        store.put_new(&job(), path, Bytes::copy_from_slice(bytes)).await.unwrap();
        state.push(StateHandle {
            path: (*path).to_owned(),
            size: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            key_groups: KeyGroupRange { start: 0, end: 8 },
            epoch: Epoch(5),
        });
    }
    let snapshot = OperatorSnapshot { state, ..OperatorSnapshot::default() };
    let manifest = Manifest {
        job: job(),
        epoch: Epoch(5),
        generation: Generation(2),
        next_epoch_now: Timestamp(1),
        graph_hash: "abc".to_owned(),
        key_groups: 8,
        parallelism: BTreeMap::new(),
        // Two subtasks that share the files.
        operators: BTreeMap::from([(OperatorId(3), vec![(0, snapshot.clone()), (1, snapshot)])]),
        sources: BTreeMap::new(),
        created_at: Timestamp(2),
    };
    let (graph_json, sql_hash) = ("{}".to_owned(), "h".to_owned());
    Savepoint { id: SavepointId::of(9), version: "1".to_owned(), graph_json, sql_hash, manifest }
}

const FILES: [(&str, &[u8]); 2] = [("state/4-g1-op3-0.state", b"four"), ("state/5-g2-op3-1.state", b"five!")];
const NAME: &str = "savepoint-j-5-g2-0000000000000009";

#[tokio::test]
async fn a_savepoint_is_read_as_it_was_written_wherever_it_was_moved() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = CheckpointStore::in_memory();
    let savepoint = savepoint(&store, &FILES).await;
    let told = Mutex::new(Vec::new());
    let tell = |progress| told.lock().unwrap().push(progress);
    for _ in 0..2 {
        // The second time it is found.
        let path = savepoint.write(&store, directory.path(), &tell).await.unwrap();
        assert_eq!(path, directory.path().join(NAME));
    }
    let all = SavepointProgress { files: 2, files_all: 2, bytes: 9, bytes_all: 9 };
    assert_eq!(told.lock().unwrap().last(), Some(&all));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    let moved = elsewhere.path().join("kept under another name");
    std::fs::rename(directory.path().join(NAME), &moved).unwrap();
    let opened = OpenSavepoint::open(&moved).await.unwrap();
    assert_eq!(opened.savepoint(), &savepoint);
    let (target, other) = (CheckpointStore::in_memory(), JobId::new("other").unwrap());
    for _ in 0..2 {
        let written = opened.copy_into(&target, &other, "def", Generation(7), &|_| {}).await.unwrap();
        let manifest = target.read_manifest(&other, &written).await.unwrap();
        assert_eq!((manifest.job.as_str(), manifest.graph_hash.as_str()), ("other", "def"));
        manifest.verify_files(&target).await.unwrap();
    }
}

/// A job is removed and begins anew with its own savepoint, while a coordinator that has not heard of it still deletes.
#[tokio::test]
async fn what_a_job_begins_with_is_no_part_of_a_removed_job_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::in_memory();
    let savepoint = savepoint(&store, &FILES).await;
    let path = savepoint.write(&store, directory.path(), &|_| {}).await.unwrap();
    let last = Generation(6);
    store.delete_up_to(&job(), last).await.unwrap();
    let opened = OpenSavepoint::open(&path).await.unwrap();
    let written = opened.copy_into(&store, &job(), "def", last.next(), &|_| {}).await.unwrap();
    store.delete_up_to(&job(), last).await.unwrap();
    let manifest = store.read_manifest(&job(), &written).await.unwrap();
    manifest.verify_files(&store).await.unwrap();
    let names: Vec<String> = manifest.state_paths().into_iter().collect();
    assert_eq!(names, ["state/4-g7-from-g1-op3-0.state", "state/5-g7-from-g2-op3-1.state"]);
    store.delete_up_to(&job(), last.next()).await.unwrap();
    assert!(store.list(&job(), "state").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_checkpoint_makes_no_savepoint() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::in_memory();
    let mut savepoint = savepoint(&store, &FILES).await;
    savepoint.manifest.operators.values_mut().flatten().for_each(|(_, part)| part.state[1].crc32c ^= 1);
    let error = savepoint.write(&store, directory.path(), &|_| {}).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("5-g2-op3-1.state"), "{error}");
    let error = OpenSavepoint::open(directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("is unfinished") && error.contains(".unfinished-savepoint-j-5"), "{error}");
}

#[tokio::test]
async fn what_earlier_tries_of_the_same_savepoint_left_goes_and_all_else_stays() {
    let directory = tempfile::tempdir().unwrap();
    let id = SavepointId::of(9);
    for name in [NAME, ".unfinished-savepoint-j-4-g1-0000000000000009", "savepoint-j-5-g2-000000000000000a", "mine"] {
        std::fs::create_dir_all(directory.path().join(name).join("state")).unwrap();
    }
    // Of a process that has died while it looked whether it could write.
    std::fs::write(directory.path().join(".unfinished-0000000000000009"), "x").unwrap();
    prepare_savepoints(directory.path(), &id).await.unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["mine", "savepoint-j-5-g2-000000000000000a"]);
    prepare_savepoints(&directory.path().join("new/one"), &id).await.unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(prepare_savepoints(&file, &id).await.is_err());
}

#[tokio::test]
async fn a_directory_with_several_is_not_guessed_at_and_paths_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::in_memory();
    let mut savepoint = savepoint(&store, &FILES).await;
    savepoint.write(&store, directory.path(), &|_| {}).await.unwrap();
    OpenSavepoint::open(directory.path()).await.unwrap();
    savepoint.id = SavepointId::of(10);
    savepoint.write(&store, directory.path(), &|_| {}).await.unwrap();
    let error = OpenSavepoint::open(directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("it holds 2") && error.contains(NAME), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = OpenSavepoint::open(empty.path()).await.unwrap_err().to_string();
    assert!(error.contains("it holds none"), "{error}");
    for (path, inside) in [("state/a", true), ("../a", false), ("/a", false), ("", false), ("a/../../b", false)] {
        assert_eq!(is_inside(path), inside, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_savepoint_in_an_object_store_counts_once_it_is_described() {
    let bucket = Arc::new(FaultyStore::default());
    let url = ObjectUrl::parse("s3://b/kept").unwrap().unwrap();
    let kept = Objects::over(bucket.clone(), &url).unwrap();
    let (store, id) = (CheckpointStore::in_memory(), SavepointId::of(9));
    let savepoint = savepoint(&store, &FILES).await;
    service::prepare_in(&kept, &id).await.unwrap();
    assert!(kept.list("", 9).await.unwrap().is_empty(), "the probe is gone");
    let one = kept.below(NAME).unwrap();
    // All but the description is there.
    one.create(FILES[0].0, Bytes::from_static(FILES[0].1)).await.unwrap();
    let error = service::open_in(&kept).await.unwrap_err();
    assert!(matches!(error, SavepointError::Unfinished { .. }), "{error}");
    for operation in [Operation::Put, Operation::Put, Operation::Get] {
        bucket.plan(operation, Fault::LostAnswer);
    }
    let mut path = savepoint.write_in(&store, &one, &|_| {}).await;
    while let Err(error) = path {
        assert!(error.is_retryable(), "{error}");
        path = savepoint.write_in(&store, &one, &|_| {}).await;
    }
    assert_eq!(path.unwrap().display().to_string(), format!("s3://b/kept/{NAME}"));
    // By the place itself, and by the one that holds it.
    for place in [&one, &kept] {
        let opened = service::open_in(place).await.unwrap();
        assert_eq!(opened.savepoint(), &savepoint);
        let target = CheckpointStore::of_service(Objects::over(bucket.clone(), &url.join("state")).unwrap());
        for _ in 0..2 {
            let written = opened.copy_into(&target, &job(), "def", Generation(7), &|_| {}).await.unwrap();
            target.read_manifest(&job(), &written).await.unwrap().verify_files(&target).await.unwrap();
        }
        target.delete_all(&job()).await.unwrap();
    }
    one.remove(FILES[1].0).await.unwrap();
    let error = service::open_in(&kept).await.unwrap_err().to_string();
    assert!(error.contains("5-g2-op3-1.state' is missing"), "{error}");
    service::prepare_in(&kept, &id).await.unwrap();
    let error = service::open_in(&kept).await.unwrap_err().to_string();
    assert!(error.contains("it holds none"), "{error}");
}
