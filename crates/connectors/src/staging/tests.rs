//! Staged output against a store in memory.

use arrow::array::{ArrayRef, Int64Array};
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::JobId;

use super::testing::MemoryStore;
use super::*;
use crate::sink::WriterContext;

fn writer(store: &Arc<MemoryStore>, generation: u64, subtask: u32) -> StagingWriter {
    StagingWriter::new(&WriterContext {
        job: JobId::new("j").unwrap(),
        operator: OperatorId(3),
        subtask,
        generation: Generation(generation),
        working_dir: "/".into(),
        changes: ChangeMode::Append,
        staging: Staging::new(store.clone()),
    })
}

fn rows(numbers: Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

async fn read(store: &Arc<MemoryStore>, files: &[StagedFile]) -> Vec<i64> {
    let mut numbers = Vec::new();
    for file in files {
        let file = StagedFile::of_committable(&file.to_committable()).unwrap();
        for rows in Staging::new(store.clone()).read(&file).await.unwrap() {
            let column = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            numbers.extend(column.values());
        }
    }
    numbers
}

#[tokio::test]
async fn an_epoch_is_read_as_it_was_written_over_several_files() {
    let store = Arc::new(MemoryStore::default());
    let mut writer = writer(&store, 1, 0);
    let per_batch = FILE_ROWS / 2;
    for batch in 0..5 {
        writer.write(rows(batch * per_batch..(batch + 1) * per_batch)).await.unwrap();
    }
    let first = writer.seal();
    writer.write(rows(0..3)).await.unwrap();
    let (first, second) = (first.await.unwrap(), writer.seal().await.unwrap());
    assert_eq!(first.len(), 3, "two full files and a rest");
    assert_eq!(read(&store, &first).await, (0..5 * per_batch).collect::<Vec<_>>());
    assert_eq!(read(&store, &second).await, vec![0, 1, 2]);
    assert!(writer.seal().await.unwrap().is_empty(), "an epoch without rows has no files");
}

/// Rows of one file.
const FILE_ROWS: i64 = 1 << 20;

#[tokio::test]
async fn clean_up_takes_what_old_attempts_left_and_nothing_else() {
    let store = Arc::new(MemoryStore::default());
    for generation in 1..4 {
        let mut writer = writer(&store, generation, 1);
        writer.write(rows(0..1)).await.unwrap();
        writer.seal().await.unwrap();
    }
    store.put("0-g1-op33-1.arrow", Bytes::new()).await.unwrap();
    store.put("foreign", Bytes::new()).await.unwrap();
    let staging = Staging::new(store.clone());
    staging.clean_up(OperatorId(3), &(Generation(1)..Generation(3))).await.unwrap();
    assert_eq!(store.list().await.unwrap(), ["0-g1-op33-1.arrow", "0-g3-op3-1.arrow", "foreign"]);
}

#[tokio::test]
async fn what_is_lost_or_changed_is_named() {
    let store = Arc::new(MemoryStore::default());
    let mut writer = writer(&store, 1, 0);
    writer.write(rows(0..100)).await.unwrap();
    let files = writer.seal().await.unwrap();
    let staging = Staging::new(store.clone());
    let mut bytes = store.get(&files[0].name).await.unwrap().unwrap().to_vec();
    bytes[40] ^= 1;
    store.remove(&files[0].name).await.unwrap();
    store.put(&files[0].name, bytes.into()).await.unwrap();
    let error = staging.read(&files[0]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Lost);
    assert!(error.message.contains("'0-g1-op3-0.arrow'"), "{error}");
    staging.remove(&files).await;
    assert!(staging.read(&files[0]).await.unwrap_err().message.contains("not there"));
    let elsewhere =
        Committable { payload: r#"{"name":"../x","generation":1,"nonce":1,"size":1,"rows":1,"crc32c":1}"#.into() };
    assert!(StagedFile::of_committable(&elsewhere).is_err());
}
