//! The store over a directory and over memory.

use std::sync::Arc as Shared;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use mainstem_core::ids::{Epoch, Generation, OperatorId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_objects::simulation::{Fault, FaultyStore, Operation};
use mainstem_objects::{ObjectUrl, Objects};

use super::*;
use crate::state_file::{GroupedTable, TableDelta};

fn job() -> JobId {
    JobId::new("j").unwrap()
}

pub(super) fn grouped(tables: Vec<TableDelta>) -> Vec<GroupedTable> {
    tables.into_iter().map(GroupedTable::from).collect()
}

pub(super) fn tables(rows: i64) -> Vec<TableDelta> {
    let values: ArrayRef = Shared::new(Int64Array::from_iter_values(0..rows));
    let rows_of = |name: &str| RecordBatch::try_from_iter([(name, values.clone())]).unwrap();
    let key_groups: Vec<u16> = (0..rows).map(|row| (row * 100 / rows) as u16).collect();
    let table = |name: &str| TableDelta {
        table: name.to_owned(),
        version: 1,
        key: vec![0],
        key_groups: key_groups.clone(),
        rows: rows_of(name),
    };
    vec![table("a"), table("b")]
}

async fn write(store: &CheckpointStore, part: &str, rows: i64) -> StateHandle {
    store.write_state(&job(), Generation(2), Epoch(5), OperatorId(3), 0, part, grouped(tables(rows))).await.unwrap()
}

#[tokio::test]
async fn state_is_read_back_whole_and_by_key_group() {
    let directory = tempfile::tempdir().unwrap();
    for store in [CheckpointStore::in_memory(), CheckpointStore::local(directory.path()).unwrap()] {
        let handle = write(&store, "", 1_000).await;
        assert_eq!(handle.path, "state/5-g2-op3-0.state");
        assert_eq!(handle.key_groups, KeyGroupRange { start: 0, end: 100 });
        store.verify(&job(), &handle).await.unwrap();
        let all = store.read_state(&job(), &handle, KeyGroupRange { start: 0, end: 256 }).await.unwrap().tables;
        assert_eq!(all, tables(1_000));
        let some = store.read_state(&job(), &handle, KeyGroupRange { start: 10, end: 12 }).await.unwrap().tables;
        assert_eq!(some.iter().map(|d| d.rows.num_rows()).collect::<Vec<_>>(), vec![20, 20]);
        assert!(some.iter().all(|d| d.key_groups.iter().all(|g| (10..12).contains(g))));
        let none = store.read_state(&job(), &handle, KeyGroupRange { start: 200, end: 256 }).await.unwrap().tables;
        assert_eq!(none, vec![]);
        assert_eq!(write(&store, "2", 10).await.path, "state/5-g2-op3-0-2.state");
    }
}

#[tokio::test]
async fn a_name_is_written_once() {
    let store = CheckpointStore::in_memory();
    let first = write(&store, "", 10).await;
    // The answer to the first try was lost, the second finds its own bytes.
    assert_eq!(write(&store, "", 10).await, first);
    let other = store.write_state(&job(), Generation(2), Epoch(5), OperatorId(3), 0, "", grouped(tables(11))).await;
    assert!(matches!(other, Err(StateError::Conflict { .. })));
    let hostile =
        store.write_state(&job(), Generation(2), Epoch(5), OperatorId(3), 0, "../x", grouped(tables(1))).await;
    assert!(matches!(hostile, Err(StateError::Bug(_))));
}

#[tokio::test]
async fn every_changed_byte_of_a_file_is_noticed_and_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::local(directory.path()).unwrap();
    let handle = write(&store, "", 3).await;
    let file = directory.path().join("jobs/j").join(&handle.path);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len() as u64, handle.size);
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        std::fs::write(&file, &damaged).unwrap();
        let error = store.read_state(&job(), &handle, KeyGroupRange { start: 0, end: 256 }).await.unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(&handle.path), "{error}");
        assert!(store.verify(&job(), &handle).await.unwrap_err().is_damage());
    }
    for length in [0, 1, 15, 16, 40, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        for end in [20, 256] {
            let error = store.read_state(&job(), &handle, KeyGroupRange { start: 0, end }).await.unwrap_err();
            assert!(error.to_string().contains("truncated"), "{error}");
        }
    }
    std::fs::remove_file(&file).unwrap();
    for end in [20, 256] {
        let error = store.read_state(&job(), &handle, KeyGroupRange { start: 0, end }).await.unwrap_err();
        assert!(matches!(error, StateError::Missing { .. }), "{error}");
    }
}

#[tokio::test]
async fn deleting_is_repeatable_and_all_can_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::local(directory.path()).unwrap();
    assert_eq!(store.list(&job(), "state").await.unwrap(), Vec::<String>::new());
    let handle = write(&store, "", 3).await;
    write(&store, "x", 3).await;
    assert_eq!(store.list(&job(), "state").await.unwrap().len(), 2);
    store.delete(&job(), &handle.path).await.unwrap();
    store.delete(&job(), &handle.path).await.unwrap();
    store.delete_all(&job()).await.unwrap();
    assert_eq!(store.list(&job(), "state").await.unwrap(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_bad_days_keeps_state_files_once() {
    let bucket = Shared::new(FaultyStore::default());
    let url = ObjectUrl::parse("s3://b/state").unwrap().unwrap();
    let store = CheckpointStore::of_service(Objects::over(bucket.clone(), &url).unwrap());
    for fault in [Fault::LostAnswer, Fault::Conflict, Fault::Overload] {
        bucket.plan(Operation::Put, fault);
    }
    let handle = write(&store, "", 1_000).await;
    assert_eq!(write(&store, "", 1_000).await, handle);
    store.verify(&job(), &handle).await.unwrap();
    let some = store.read_state(&job(), &handle, KeyGroupRange { start: 10, end: 12 }).await.unwrap();
    assert_eq!(some.tables.iter().map(|d| d.rows.num_rows()).collect::<Vec<_>>(), vec![20, 20]);
    let other = store.write_state(&job(), Generation(2), Epoch(5), OperatorId(3), 0, "", grouped(tables(11))).await;
    assert!(matches!(other, Err(StateError::Conflict { .. })));
    assert_eq!(store.place_of(&job()), "s3://b/state/jobs/j");
    bucket.plan(Operation::Put, Fault::Denied);
    let hopeless = store.write_state(&job(), Generation(2), Epoch(6), OperatorId(3), 0, "", grouped(tables(11))).await;
    let error = hopeless.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("s3://b/state/jobs/j/state/6-g2-op3-0"), "{error}");
    store.delete_up_to(&job(), Generation(2)).await.unwrap();
    assert!(!store.is_in_place(&job()).await.unwrap());
    let error = store.read_state(&job(), &handle, KeyGroupRange { start: 0, end: 256 }).await.unwrap_err();
    assert!(matches!(error, StateError::Missing { .. }), "{error}");
}
