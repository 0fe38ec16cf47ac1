//! A manifest as the first version of the format has it, with everything that one can hold.

use mainstem_core::protocol::{InFlight, PartTimes};

use super::*;
use crate::golden::{assert_still_written, golden};

const FILE: &str = "manifest-1.manifest";
/// With what has been added since to tell users.
const TIMES: &str = "manifest-1-times.manifest";
/// With what a restore goes by.
const MEMORY: &str = "manifest-1-memory.manifest";
/// Without what has been added to the first version since.
const OLD: &str = "manifest-1-oldest.manifest";

fn handle(path: &str, epoch: u64) -> StateHandle {
    let key_groups = KeyGroupRange { start: 0, end: 128 };
    StateHandle { path: path.to_owned(), size: 1234, crc32c: 0xdead_beef, key_groups, epoch: Epoch(epoch) }
}

fn split(id: &str, payload: &str, progress: Option<SplitProgress>) -> SplitState {
    SplitState { split: SourceSplit { id: SplitId(id.to_owned()), payload: payload.to_owned() }, progress }
}

fn full() -> Manifest {
    let reading = SplitProgress::Reading { position: "{\"row\":3}".to_owned(), watermark: Timestamp(-1) };
    let source = OperatorSnapshot { watermark: Some(Timestamp(5_000)), ..OperatorSnapshot::default() };
    let aggregate = OperatorSnapshot {
        state: vec![handle("state/5-g1-op2-0.state", 5), handle("state/7-g2-op2-0-p0_3.state", 7)],
        meta: Some("{\"watermark\":4000}".to_owned()),
        state_rows: Some(12),
        in_flight: Some(InFlight { files: vec![handle("state/7-g2-op2-0-in_flight.state", 7)] }),
        alignment_ms: Some(250),
        ..OperatorSnapshot::default()
    };
    let committables = vec![Committable { payload: "{\"file\":\"a\"}".to_owned() }];
    let sink = OperatorSnapshot { committables, ..OperatorSnapshot::default() };
    Manifest {
        job: job(),
        epoch: Epoch(7),
        generation: Generation(2),
        next_epoch_now: Timestamp(1_700_000_000_000),
        graph_hash: "abc".to_owned(),
        key_groups: 256,
        parallelism: BTreeMap::from([(OperatorId(0), 1), (OperatorId(2), 2)]),
        operators: BTreeMap::from([
            (OperatorId(0), vec![(0, source)]),
            (OperatorId(2), vec![(0, aggregate), (1, OperatorSnapshot::default())]),
            (OperatorId(3), vec![(0, sink)]),
        ]),
        sources: BTreeMap::from([(
            OperatorId(0),
            vec![
                split("begun", "\"a.json\"", Some(reading)),
                split("waiting", "\"b.json\"", None),
                SplitState::remembered(SplitId("finished".to_owned())),
            ],
        )]),
        created_at: Timestamp(1_700_000_000_500),
    }
}

#[test]
fn the_first_version_is_read_and_written_as_ever() {
    let written = full().encode().unwrap();
    let golden = golden(FILE, &written);
    assert_eq!(Manifest::decode(&golden).unwrap(), full());
    assert_still_written(FILE, &golden, &written, "docs/formats/manifest.md");
}

/// The file above is without these times, as builds of before have written it.
#[test]
fn times_of_a_part_are_read_and_written_as_ever() {
    let mut timed = full();
    let times = PartTimes { capture_ms: 3, wait_ms: 40, upload_ms: 500, uploaded_bytes: 2_468 };
    timed.operators.get_mut(&OperatorId(2)).unwrap()[0].1.times = Some(times);
    let written = timed.encode().unwrap();
    let golden = golden(TIMES, &written);
    assert_eq!(Manifest::decode(&golden).unwrap(), timed);
    assert_still_written(TIMES, &golden, &written, "docs/formats/manifest.md");
}

/// The files above are without the memory that state takes, as builds of before have written them.
#[test]
fn memory_of_a_part_is_read_and_written_as_ever() {
    let mut sized = full();
    sized.operators.get_mut(&OperatorId(2)).unwrap()[0].1.memory_bytes = Some(1 << 33);
    let written = sized.encode().unwrap();
    let golden = golden(MEMORY, &written);
    assert_eq!(Manifest::decode(&golden).unwrap(), sized);
    assert_still_written(MEMORY, &golden, &written, "docs/formats/manifest.md");
}

/// Builds of before wrote none of the keys that may be absent.
#[test]
fn what_was_written_before_keys_were_added_is_still_read() {
    let json = r#"{"job":"j","epoch":1,"generation":1,"next_epoch_now":5,"graph_hash":"abc","key_groups":8,"parallelism":{"0":1},
"operators":{"2":[[0,{"state":[],"splits":[],"committables":[],"meta":null}]]},"sources":{},"created_at":6}"#;
    let golden = golden(OLD, &seal(MAGIC, json.as_bytes()));
    let expected = Manifest {
        epoch: Epoch(1),
        generation: Generation(1),
        next_epoch_now: Timestamp(5),
        key_groups: 8,
        parallelism: BTreeMap::from([(OperatorId(0), 1)]),
        operators: BTreeMap::from([(OperatorId(2), vec![(0, OperatorSnapshot::default())])]),
        sources: BTreeMap::new(),
        created_at: Timestamp(6),
        ..full()
    };
    assert_eq!(Manifest::decode(&golden).unwrap(), expected);
}
