//! The log as a file.

mod golden;

use mainstem_core::ids::{Epoch, Generation};
use mainstem_core::time::Timestamp;

use super::*;
use crate::meta_log::{JobCreated, JobEnd};

fn created(graph: &str) -> Record {
    let graph_json = graph.to_owned();
    Record::JobCreated(JobCreated { graph_json, sql_hash: "h".to_owned(), key_groups: 8, created_at: Timestamp(5) })
}

fn generation(generation: u64) -> Record {
    let (reason, at) = ("first start".to_owned(), Timestamp(0));
    Record::GenerationStarted { generation: Generation(generation), restored_from: Epoch(0), reason, at }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = LocalMetaLog::open(&path).unwrap();
    assert_eq!(*log.state(), JobRecord::default());
    log.append(created("{}")).await.unwrap();
    log.append(generation(1)).await.unwrap();
    assert!(matches!(log.append(generation(1)).await, Err(MetaLogError::Refused(_))));
    let state = log.state().clone();
    drop(log);
    let mut log = LocalMetaLog::open(&path).unwrap();
    assert_eq!(*log.state(), state);
    assert_eq!(log.state().generation, Generation(1));
    log.append(generation(2)).await.unwrap();
    drop(log);
    assert_eq!(LocalMetaLog::open(&path).unwrap().state().generation, Generation(2));
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_damage_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = LocalMetaLog::open(&path).unwrap();
    log.append(created("{}")).await.unwrap();
    let good = std::fs::metadata(&path).unwrap().len();
    log.append(generation(1)).await.unwrap();
    drop(log);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let mut log = LocalMetaLog::open(&path).unwrap();
    assert_eq!(log.state().generation, Generation(0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), good);
    log.append(generation(7)).await.unwrap();
    drop(log);
    assert_eq!(LocalMetaLog::open(&path).unwrap().state().generation, Generation(7));

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = LocalMetaLog::open(&path).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("byte 8"), "{error}");
}

#[tokio::test]
async fn a_large_log_becomes_one_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = LocalMetaLog::open_compacting_above(&path, 2_000).unwrap();
    log.append(created("{}")).await.unwrap();
    for number in 1..200 {
        log.append(generation(number)).await.unwrap();
        let reason = "x".repeat(50);
        let end = JobEnd::Failed { reason };
        log.append(Record::Ended { generation: Generation(0), end, at: Timestamp(1), counters: Default::default() })
            .await
            .unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 2_500);
    }
    let state = log.state().clone();
    assert_eq!(state.generation, Generation(199));
    drop(log);
    assert_eq!(*LocalMetaLog::open(&path).unwrap().state(), state);
    // A state that fills the limit by itself does not lead to a rewrite with each record.
    let path = directory.path().join("big");
    let mut log = LocalMetaLog::open_compacting_above(&path, 2_000).unwrap();
    log.append(created(&"g".repeat(5_000))).await.unwrap();
    log.append(generation(1)).await.unwrap();
    assert!(log.compact_above > 10_000);
}

#[tokio::test]
async fn nothing_is_taken_after_a_failed_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = LocalMetaLog::open(&path).unwrap();
    // A file that cannot be written to stands for a disk that fails.
    log.file = Some(File::open(&path).unwrap());
    let error = log.append(created("{}")).await.unwrap_err();
    assert!(matches!(error, MetaLogError::Io { action: "write", .. }), "{error}");
    assert_eq!(*log.state(), JobRecord::default());
    assert!(matches!(log.append(created("{}")).await, Err(MetaLogError::Closed { .. })));
}
