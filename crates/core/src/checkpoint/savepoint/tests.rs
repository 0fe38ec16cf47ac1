//! Savepoints: events in, commands out.

use std::collections::{BTreeMap, BTreeSet};

use super::super::tests::{SINK, SOURCE, complete, inject, machine, publish, start, tick};
use super::super::{CheckpointCommand, CheckpointCoordinator, CheckpointEvent, End};
use crate::ids::{Epoch, SavepointId};
use crate::protocol::Barrier;
use crate::time::Timestamp;

fn id() -> SavepointId {
    SavepointId::of(7)
}

fn on(machine: &mut CheckpointCoordinator, now: i64, event: CheckpointEvent) -> Vec<CheckpointCommand> {
    machine.on(Timestamp(now), event)
}

fn request(machine: &mut CheckpointCoordinator, now: i64, stop: bool) -> Vec<CheckpointCommand> {
    on(machine, now, CheckpointEvent::SavepointRequested { savepoint: id(), stop })
}

fn prepared(machine: &mut CheckpointCoordinator, now: i64) {
    assert_eq!(on(machine, now, CheckpointEvent::SavepointPrepared { savepoint: id() }), vec![]);
}

fn prepare() -> CheckpointCommand {
    CheckpointCommand::PrepareSavepoint { savepoint: id() }
}

fn copy(epoch: u64) -> CheckpointCommand {
    CheckpointCommand::CopySavepoint { savepoint: id(), epoch: Epoch(epoch) }
}

fn record(epoch: u64, end: Option<End>) -> CheckpointCommand {
    CheckpointCommand::RecordSavepoint { savepoint: id(), epoch: Epoch(epoch), end }
}

fn both_finish(machine: &mut CheckpointCoordinator, now: i64) -> Vec<CheckpointCommand> {
    let finished = |subtask| CheckpointEvent::SubtaskFinished { subtask };
    assert_eq!(on(machine, now, finished(SOURCE)), vec![]);
    on(machine, now, finished(SINK))
}

#[test]
fn an_epoch_begins_at_once_and_is_copied_when_it_is_published() {
    let mut machine = machine();
    assert_eq!(request(&mut machine, 1, false), vec![prepare()]);
    assert_eq!(request(&mut machine, 1, false), vec![], "asked for twice");
    assert_eq!(tick(&mut machine, 2), vec![]);
    prepared(&mut machine, 3);
    assert_eq!(machine.next_wakeup(), Timestamp::MIN);
    assert_eq!(tick(&mut machine, 3), vec![inject(1, false)]);
    complete(&mut machine, 4, 1, &["s1"]);
    assert_eq!(publish(&mut machine, 5, 1), vec![copy(1)]);
    assert_eq!(on(&mut machine, 6, CheckpointEvent::SavepointCopied { savepoint: id() }), vec![record(1, None)]);
    assert_eq!(on(&mut machine, 7, CheckpointEvent::SavepointRecorded { savepoint: id() }), vec![]);
    // And once more, by the same name or another.
    assert_eq!(request(&mut machine, 8, false), vec![prepare()]);
}

#[test]
fn nothing_that_is_copied_goes_and_it_goes_afterwards() {
    let mut machine = machine();
    request(&mut machine, 1, false);
    prepared(&mut machine, 1);
    tick(&mut machine, 2);
    complete(&mut machine, 3, 1, &["s1"]);
    assert_eq!(publish(&mut machine, 4, 1), vec![copy(1)]);
    let retire = |machine: &mut CheckpointCoordinator, epoch: u64| {
        let now = 100 * epoch as i64 + 200;
        assert_eq!(tick(machine, now).len(), 1);
        complete(machine, now, epoch, &[]);
        let epochs = vec![Epoch(epoch - 1)];
        assert_eq!(publish(machine, now, epoch), vec![CheckpointCommand::RecordRetired { epochs: epochs.clone() }]);
        on(machine, now, CheckpointEvent::RetiredRecorded { epochs })
    };
    assert_eq!(retire(&mut machine, 2), vec![], "I4");
    let delete = |paths: &[&str]| {
        vec![CheckpointCommand::DeleteObjects { paths: paths.iter().map(|path| (*path).to_owned()).collect() }]
    };
    assert_eq!(retire(&mut machine, 3), delete(&["manifest2"]));
    on(&mut machine, 600, CheckpointEvent::SavepointCopied { savepoint: id() });
    on(&mut machine, 600, CheckpointEvent::SavepointRecorded { savepoint: id() });
    assert_eq!(retire(&mut machine, 4), delete(&["manifest1", "manifest3", "s1"]));
}

#[test]
fn a_stop_ends_with_the_savepoint_as_its_last_record() {
    let mut machine = machine();
    request(&mut machine, 1, true);
    assert_eq!(tick(&mut machine, 2), vec![], "no last epoch before there is a place");
    prepared(&mut machine, 3);
    assert_eq!(tick(&mut machine, 3), vec![inject(1, true)]);
    complete(&mut machine, 4, 1, &[]);
    assert_eq!(publish(&mut machine, 5, 1), vec![copy(1)]);
    assert_eq!(on(&mut machine, 6, CheckpointEvent::SavepointCopied { savepoint: id() }), vec![]);
    assert_eq!(both_finish(&mut machine, 7), vec![record(1, Some(End::Stop))]);
    let finish = vec![CheckpointCommand::Finish { end: End::Stop }];
    assert_eq!(on(&mut machine, 8, CheckpointEvent::SavepointRecorded { savepoint: id() }), finish);
}

#[test]
fn a_last_epoch_waits_for_the_place_and_the_end_for_the_savepoint() {
    for input_ends in [false, true] {
        let mut machine = machine();
        request(&mut machine, 1, false);
        let (event, end) = match input_ends {
            true => (CheckpointEvent::InputExhausted { subtask: SOURCE }, End::InputEnd),
            false => (CheckpointEvent::StopRequested, End::Stop),
        };
        on(&mut machine, 2, event);
        assert_eq!(tick(&mut machine, 3), vec![]);
        assert_eq!(machine.next_wakeup(), Timestamp(100), "the regular one");
        prepared(&mut machine, 4);
        assert_eq!(tick(&mut machine, 4), vec![inject(1, true)]);
        complete(&mut machine, 5, 1, &[]);
        assert_eq!(publish(&mut machine, 6, 1), vec![copy(1)]);
        assert_eq!(both_finish(&mut machine, 7), vec![]);
        assert_eq!(on(&mut machine, 8, CheckpointEvent::SavepointCopied { savepoint: id() }), vec![record(1, None)]);
        let finish = vec![CheckpointCommand::Finish { end }];
        assert_eq!(on(&mut machine, 9, CheckpointEvent::SavepointRecorded { savepoint: id() }), finish);
    }
}

#[test]
fn a_failure_is_recorded_and_the_attempt_goes_on_or_ends_as_it_had_begun_to() {
    let failed = |reason: &str| CheckpointEvent::SavepointFailed { savepoint: id(), reason: reason.to_owned() };
    let recorded =
        |reason: &str| vec![CheckpointCommand::RecordSavepointFailure { savepoint: id(), reason: reason.to_owned() }];
    // Without a place nothing begins.
    let mut without = machine();
    request(&mut without, 1, true);
    assert_eq!(on(&mut without, 2, failed("no place")), recorded("no place"));
    assert_eq!(on(&mut without, 3, CheckpointEvent::SavepointRecorded { savepoint: id() }), vec![]);
    assert_eq!(tick(&mut without, 100), vec![inject(1, false)]);
    // Later the last epoch is behind it.
    let mut full = machine();
    request(&mut full, 1, true);
    prepared(&mut full, 1);
    tick(&mut full, 2);
    complete(&mut full, 3, 1, &[]);
    publish(&mut full, 4, 1);
    assert_eq!(on(&mut full, 5, failed("disk full")), recorded("disk full"));
    assert_eq!(both_finish(&mut full, 6), vec![]);
    let finish = vec![CheckpointCommand::Finish { end: End::Stop }];
    assert_eq!(on(&mut full, 7, CheckpointEvent::SavepointRecorded { savepoint: id() }), finish);
}

#[test]
fn what_comes_too_late_or_out_of_turn_does_nothing() {
    let mut machine = machine();
    on(&mut machine, 1, CheckpointEvent::StopRequested);
    tick(&mut machine, 2);
    assert_eq!(request(&mut machine, 3, false), vec![], "the next attempt is asked, if there is one");
    let refused = |commands: Vec<CheckpointCommand>| matches!(commands.as_slice(), [CheckpointCommand::Refused { .. }]);
    let mut other = super::super::tests::machine();
    for event in [
        CheckpointEvent::SavepointPrepared { savepoint: id() },
        CheckpointEvent::SavepointCopied { savepoint: id() },
        CheckpointEvent::SavepointFailed { savepoint: id(), reason: String::new() },
        CheckpointEvent::SavepointRecorded { savepoint: id() },
    ] {
        assert!(refused(on(&mut other, 1, event.clone())), "{event:?}");
    }
    request(&mut other, 1, false);
    assert!(refused(on(&mut other, 1, CheckpointEvent::SavepointCopied { savepoint: id() })));
    let another = CheckpointEvent::SavepointRequested { savepoint: SavepointId::of(8), stop: true };
    assert!(refused(on(&mut other, 1, another)));
}

#[test]
fn a_replayed_epoch_is_no_savepoint() {
    let mut start = start();
    start.restored = Epoch(4);
    start.replay = vec![Barrier { epoch: Epoch(5), next_epoch_now: Timestamp(1_005) }];
    start.retained = BTreeMap::from([(Epoch(4), BTreeSet::from(["m4".to_owned()]))]);
    let mut machine = CheckpointCoordinator::new(start);
    request(&mut machine, 0, false);
    prepared(&mut machine, 0);
    assert!(matches!(tick(&mut machine, 0).as_slice(), [CheckpointCommand::Replay { .. }]));
    let commands = complete(&mut machine, 1, 5, &["s5"]);
    let retired = CheckpointCommand::RecordRetired { epochs: vec![Epoch(4)] };
    assert_eq!(commands, vec![retired, CheckpointCommand::ReplayDone]);
    assert_eq!(tick(&mut machine, 2), vec![inject(6, false)]);
}
