//! A log as the first version of the format has it, with a record of each kind, and one of the first builds, which did not
//! know of some of its keys.

use std::collections::BTreeMap;

use mainstem_core::adoption::Decision;
use mainstem_core::checkpoint::End;
use mainstem_core::cluster::messages::{OperatorCounters, WorkerId, WorkerOffer};
use mainstem_core::ids::{JobId, OperatorId, SavepointId, SplitId, SubtaskId};
use mainstem_core::protocol::{Barrier, Committable, Floor, ManifestRef, SourceSplit, SplitProgress, SplitState};
use mainstem_core::splits::SourceEpoch;

use super::*;
use crate::meta_log::golden::{assert_still_written, golden};
use crate::meta_log::{DeployedAttempt, EpochRecord, JobRestored, RestoredFrom, SavepointOutcome, SavepointRecord};

const FIRST: Generation = Generation(1);
const SOURCE: OperatorId = OperatorId(0);

fn split(id: &str) -> SourceSplit {
    SourceSplit { id: SplitId(id.to_owned()), payload: format!("\"{id}.json\"") }
}

fn epoch(number: u64) -> EpochRecord {
    let reading = SplitProgress::Reading { position: "{\"row\":3}".to_owned(), watermark: Timestamp(50) };
    let position = Some("{\"row\":1}".to_owned());
    let source = SourceEpoch {
        changed: vec![SplitState { split: split("a"), progress: Some(reading) }],
        floors: vec![Floor { split: SplitId("a".to_owned()), position, watermark: Timestamp(40) }],
        watermark: Timestamp(50),
        bound: Some(Timestamp::MAX),
        no_more: true,
    };
    EpochRecord {
        epoch: Epoch(number),
        generation: FIRST,
        manifest: ManifestRef { path: format!("manifests/{number}-g1.manifest"), size: 900, crc32c: 7 },
        epoch_now: Timestamp(1_000),
        next_epoch_now: Timestamp(2_000),
        sources: BTreeMap::from([(SOURCE, source)]),
        committables: BTreeMap::from([(OperatorId(3), vec![Committable { payload: "{\"file\":\"f\"}".to_owned() }])]),
        end: None,
        state_bytes: 123,
        unaligned: false,
        completed_at: Timestamp(2_001),
    }
}

fn savepoint(number: u64, outcome: SavepointOutcome, end: Option<JobEnd>) -> Record {
    let savepoint = SavepointRecord { id: SavepointId::of(number), outcome, at: Timestamp(6) };
    Record::Savepoint { generation: FIRST, savepoint, end, counters: BTreeMap::new() }
}

/// A job from its beginning to its end, with every kind of record but those with which another log begins.
fn records() -> Vec<Record> {
    let subtask = SubtaskId { operator: SOURCE, index: 1 };
    let worker = WorkerOffer {
        worker: WorkerId("w@127.0.0.1:7000#5".to_owned()),
        data_address: "127.0.0.1:7000".to_owned(),
        slots: 2,
        draining: false,
    };
    let deployed = DeployedAttempt {
        generation: FIRST,
        restored: Epoch(0),
        parallelism: 2,
        first_epoch_now: Timestamp(1_000),
        replay_until: None,
        slots: vec![worker],
    };
    let decided = |decision| Record::Decided { generation: FIRST, decision };
    let begun = |number: u64, end| {
        let barrier = Barrier { epoch: Epoch(number), next_epoch_now: Timestamp(2_000) };
        decided(Decision::EpochBegun { barrier, end })
    };
    let (path, reason) = ("/saved/savepoint-j-2-g1-a".to_owned(), "the disk is full".to_owned());
    let counters = OperatorCounters { rows_in: 4, rows_out: 3, late_rows: 1, ..OperatorCounters::default() };
    vec![
        created("{\"nodes\":[]}"),
        generation(1),
        Record::SplitsDiscovered { generation: FIRST, operator: SOURCE, splits: vec![split("a")] },
        Record::AttemptDeployed(deployed),
        decided(Decision::SplitsFound { operator: SOURCE, splits: vec![split("b")] }),
        decided(Decision::SplitsAssigned { operator: SOURCE, splits: vec![(SplitId("a".to_owned()), subtask)] }),
        begun(1, None),
        Record::AttemptAdopted { generation: FIRST, at: Timestamp(9) },
        Record::EpochComplete(epoch(1)),
        Record::EpochCommitted { generation: FIRST, epoch: Epoch(1) },
        begun(2, Some(End::Stop)),
        Record::EpochComplete(EpochRecord { end: Some(End::Stop), unaligned: true, ..epoch(2) }),
        Record::EpochCommitted { generation: FIRST, epoch: Epoch(2) },
        Record::EpochsRetired { generation: FIRST, epochs: vec![Epoch(1)] },
        savepoint(9, SavepointOutcome::Failed { reason }, None),
        savepoint(10, SavepointOutcome::Taken { path, epoch: Epoch(2), files: 3, bytes: 99 }, None),
        Record::Ended {
            generation: FIRST,
            end: JobEnd::Stopped,
            at: Timestamp(10),
            counters: BTreeMap::from([(SOURCE, counters)]),
        },
    ]
}

fn restored() -> Record {
    let Record::JobCreated(created) = created("{}") else { unreachable!() };
    let from = RestoredFrom {
        id: SavepointId::of(10),
        job: JobId::new("before").unwrap(),
        epoch: Epoch(2),
        path: "/saved".to_owned(),
        base: FIRST,
    };
    let epoch = EpochRecord { committables: BTreeMap::new(), ..epoch(2) };
    Record::JobRestored(Box::new(JobRestored { created, epoch, from }))
}

fn log(records: &[Vec<u8>]) -> Vec<u8> {
    let frames = records.iter().flat_map(|record| frame::encode(record).unwrap());
    HEADER.into_iter().chain(frames).collect()
}

fn sum(records: &[Record]) -> JobRecord {
    let mut state = JobRecord::default();
    for record in records {
        state.check(record).unwrap();
        state.apply(record.clone());
    }
    state
}

/// Reads and writes a log of the first version.
#[track_caller]
fn check(name: &str, records: &[Record]) {
    let written = log(&records.iter().map(|record| encode(record).unwrap()).collect::<Vec<_>>());
    let golden = golden(name, &written);
    let read: Vec<Record> = frame::scan(&golden)
        .unwrap()
        .records
        .into_iter()
        .map(|(_, json)| serde_json::from_slice(json).unwrap())
        .collect();
    assert_eq!(read, records);
    assert_eq!(replay(Path::new(name), &golden).unwrap(), (sum(records), golden.len()));
    assert_still_written(name, &golden, &written, "docs/formats/metadata-log.md");
}

#[test]
fn the_first_version_is_read_and_written_as_ever() {
    let records = records();
    check("metadata-log-1", &records);
    check("metadata-log-1-restored", &[restored(), generation(2)]);
    // In the middle of the job, so that it holds what is known of a running attempt.
    check("metadata-log-1-snapshot", &[Record::Snapshot(Box::new(sum(&records[..12])))]);
}

#[test]
fn a_log_of_the_first_builds_is_still_read() {
    let json = [
        r#"{"JobCreated":{"graph_json":"{}","sql_hash":"h","key_groups":8,"created_at":5}}"#,
        r#"{"GenerationStarted":{"generation":1,"restored_from":0,"reason":"first start","at":0}}"#,
        r#"{"EpochComplete":{"epoch":1,"generation":1,"manifest":{"path":"m","size":1,"crc32c":2},"epoch_now":1,"next_epoch_now":2,"sources":{},"committables":{},"end":"input_end","state_bytes":0,"completed_at":3}}"#,
        r#"{"EpochCommitted":{"generation":1,"epoch":1}}"#,
        r#"{"Ended":{"end":"Finished","at":9}}"#,
    ];
    let snapshot = r#"{"Snapshot":{"created":null,"generation":4,"initial_splits":{},"epochs":{},"committed":0,"end":{"Failed":{"reason":"r"}}}}"#;
    let bytes = |records: &[&str]| log(&records.iter().map(|record| record.as_bytes().to_vec()).collect::<Vec<_>>());
    let name = "metadata-log-1-oldest";
    let (state, _) = replay(Path::new(name), &golden(name, &bytes(&json))).unwrap();
    assert_eq!((state.newest(), state.committed, state.end), (Epoch(1), Epoch(1), Some(JobEnd::Finished)));
    assert!(!state.epochs[&Epoch(1)].unaligned && state.counters.is_empty());
    let name = "metadata-log-1-oldest-snapshot";
    let (state, _) = replay(Path::new(name), &golden(name, &bytes(&[snapshot]))).unwrap();
    let end = Some(JobEnd::Failed { reason: "r".to_owned() });
    assert_eq!(state, JobRecord { generation: Generation(4), end, ..JobRecord::default() });
}
