//! What is told of state, against rows that are known.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use mainstem_core::ids::{Epoch, Generation, OperatorId};

use super::*;
use crate::state_file::{GroupedTable, TableDelta};

fn job() -> JobId {
    JobId::new("j").unwrap()
}

/// Rows of the keys, filed under the group that is the key's number modulo 16.
fn table(name: &str, keys: impl Iterator<Item = i64>) -> GroupedTable {
    let mut keys: Vec<i64> = keys.collect();
    keys.sort_by_key(|key| key % 16);
    let key_groups = keys.iter().map(|key| (key % 16) as u16).collect();
    let names = keys.iter().map(|key| (*key != 7).then(|| format!("k{key}")));
    let names: ArrayRef = Arc::new(StringArray::from_iter(names));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().copied()));
    let rows = RecordBatch::try_from_iter_with_nullable([("name", names, true), ("n", numbers, false)]).unwrap();
    TableDelta { table: name.to_owned(), version: 1, key: vec![0], key_groups, rows }.into()
}

#[tokio::test]
async fn rows_keys_and_groups_are_counted_over_all_files_once() {
    let store = CheckpointStore::in_memory();
    let write = async |epoch: u64, tables: Vec<GroupedTable>| {
        let (generation, operator) = (Generation(1), OperatorId(2));
        store.write_state(&job(), generation, Epoch(epoch), operator, 0, "", tables).await.unwrap()
    };
    let first = write(1, vec![table("a", 0..100), table("b", 0..3)]).await;
    let second = write(2, vec![table("a", [5, 5, 5, 7].into_iter())]).await;
    // Two subtasks share the first file, each with its half of the groups.
    let half = |start, end| {
        let state = vec![StateHandle { key_groups: KeyGroupRange { start, end }, ..first.clone() }];
        OperatorSnapshot { state, ..OperatorSnapshot::default() }
    };
    let mut low = half(0, 8);
    low.state.push(second);
    let files = StateFiles::Checkpoint(store.clone(), job());
    let tables = files.tables(&[(0, low), (1, half(8, 16))], 16, 3).await.unwrap();
    let [a, b] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!((a.table.as_str(), a.rows, b.table.as_str(), b.rows), ("a", 104, "b", 3));
    let keys = a.keys.as_ref().unwrap();
    let hot = |key: &str, rows| HotKey { key: vec![key.to_owned()], rows };
    assert_eq!((keys.keys, keys.hot.as_slice()), (100, [hot("k5", 4), hot("NULL", 2)].as_slice()));
    assert_eq!(b.keys.as_ref().unwrap().hot, []);
    assert_eq!((a.spread.used, a.spread.fullest[0]), (16, (5, 9)));
    assert!((a.spread.skew - 9.0 / 6.5).abs() < 1e-9, "{:?}", a.spread);
}

#[tokio::test]
async fn a_changed_byte_is_found_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = CheckpointStore::local(directory.path()).unwrap();
    let (generation, operator) = (Generation(1), OperatorId(2));
    let tables = vec![table("a", 0..100)];
    let handle = store.write_state(&job(), generation, Epoch(1), operator, 0, "", tables).await.unwrap();
    let files = StateFiles::Checkpoint(store, job());
    files.verify(&handle).await.unwrap();
    let path = directory.path().join("jobs/j").join(&handle.path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = files.verify(&handle).await.unwrap_err().to_string();
    assert!(error.contains(&handle.path) && error.contains("is damaged: its checksum is"), "{error}");
}
