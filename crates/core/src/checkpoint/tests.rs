//! The checkpoint coordinator: events in, commands out.

use super::*;
use crate::key_group::KeyGroupRange;
use crate::protocol::{OperatorSnapshot, StateHandle};

pub(super) const SOURCE: SubtaskId = SubtaskId { operator: OperatorId(0), index: 0 };
pub(super) const SINK: SubtaskId = SubtaskId { operator: OperatorId(1), index: 0 };
const WALL: Timestamp = Timestamp(5_000);

pub(super) fn start() -> CheckpointStart {
    CheckpointStart {
        cadence: None,
        config: CheckpointConfig {
            interval_ms: 100,
            min_pause_ms: 10,
            timeout_ms: 1_000,
            in_flight_max: 1,
            retained: 1,
        },
        generation: Generation(3),
        subtasks: BTreeSet::from([SOURCE, SINK]),
        sources: BTreeSet::from([SOURCE]),
        restored: Epoch(0),
        epoch_now: Timestamp(1_000),
        replay: Vec::new(),
        retained: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        started_at: Timestamp(0),
    }
}

pub(super) fn machine() -> CheckpointCoordinator {
    let mut machine = CheckpointCoordinator::new(start());
    for subtask in [SOURCE, SINK] {
        assert_eq!(machine.on(Timestamp(0), CheckpointEvent::SubtaskRestored { subtask }), vec![]);
    }
    machine
}

pub(super) fn tick(machine: &mut CheckpointCoordinator, now: i64) -> Vec<CheckpointCommand> {
    machine.on(Timestamp(now), CheckpointEvent::Tick { wall: WALL })
}

fn snapshot(epoch: u64, state: &[&str], output: &[&str]) -> SubtaskSnapshot {
    let handle = |path: &&str| StateHandle {
        path: (*path).to_owned(),
        size: 1,
        crc32c: 0,
        key_groups: KeyGroupRange { start: 0, end: 1 },
        epoch: Epoch(epoch),
    };
    let part = OperatorSnapshot {
        state: state.iter().map(handle).collect(),
        committables: output.iter().map(|o| Committable { payload: (*o).to_owned() }).collect(),
        ..OperatorSnapshot::default()
    };
    BTreeMap::from([(OperatorId(1), part)])
}

fn done(subtask: SubtaskId, generation: u64, epoch: u64, snapshot: SubtaskSnapshot) -> CheckpointEvent {
    CheckpointEvent::SnapshotDone { subtask, generation: Generation(generation), epoch: Epoch(epoch), snapshot }
}

/// Both snapshots, then the storage steps up to the recorded completion; gives what the last step asked for.
pub(super) fn complete(
    machine: &mut CheckpointCoordinator,
    now: i64,
    epoch: u64,
    state: &[&str],
) -> Vec<CheckpointCommand> {
    let now = Timestamp(now);
    assert_eq!(machine.on(now, done(SOURCE, 3, epoch, SubtaskSnapshot::new())), vec![]);
    let commands = machine.on(now, done(SINK, 3, epoch, snapshot(epoch, state, &[&format!("out{epoch}")])));
    assert!(matches!(commands.as_slice(), [CheckpointCommand::WriteManifest { .. }]), "{commands:?}");
    let path = format!("manifest{epoch}");
    let commands = machine.on(now, CheckpointEvent::ManifestDurable { epoch: Epoch(epoch), path });
    assert_eq!(commands, vec![CheckpointCommand::RecordComplete { epoch: Epoch(epoch) }]);
    machine.on(now, CheckpointEvent::CompleteRecorded { epoch: Epoch(epoch) })
}

pub(super) fn publish(machine: &mut CheckpointCoordinator, now: i64, epoch: u64) -> Vec<CheckpointCommand> {
    let epoch = Epoch(epoch);
    let commands = machine.on(Timestamp(now), CheckpointEvent::Committed { epoch });
    assert_eq!(commands, vec![CheckpointCommand::RecordCommitted { epoch }]);
    machine.on(Timestamp(now), CheckpointEvent::CommitRecorded { epoch })
}

pub(super) fn inject(epoch: u64, last: bool) -> CheckpointCommand {
    CheckpointCommand::InjectBarrier { barrier: Barrier { epoch: Epoch(epoch), next_epoch_now: WALL }, last }
}

#[test]
fn an_epoch_goes_through_its_steps_and_the_next_one_follows() {
    let mut machine = machine();
    assert_eq!(machine.next_wakeup(), Timestamp(100));
    assert_eq!(tick(&mut machine, 99), vec![]);
    assert_eq!(tick(&mut machine, 100), vec![inject(1, false)]);
    // One at a time.
    assert_eq!(tick(&mut machine, 250), vec![]);
    assert_eq!(machine.next_wakeup(), Timestamp(1_100));
    let commands = complete(&mut machine, 260, 1, &["s1"]);
    let output = BTreeMap::from([(OperatorId(1), vec![Committable { payload: "out1".to_owned() }])]);
    assert_eq!(commands, vec![CheckpointCommand::Commit { epoch: Epoch(1), committables: output }]);
    // The interval is over, the pause is not.
    assert_eq!(machine.next_wakeup(), Timestamp(270));
    assert_eq!(publish(&mut machine, 265, 1), vec![]);
    assert_eq!(tick(&mut machine, 269), vec![]);
    assert_eq!(tick(&mut machine, 270), vec![inject(2, false)]);
}

#[test]
fn reading_state_back_is_no_part_of_a_checkpoints_time() {
    let restored = |subtask| CheckpointEvent::SubtaskRestored { subtask };
    let ends = |commands: &[CheckpointCommand], with: &str| match commands {
        [CheckpointCommand::FailAttempt { failure }] => failure.message.contains(with),
        _ => false,
    };
    let mut machine = CheckpointCoordinator::new(start());
    assert_eq!(machine.on(Timestamp(0), restored(SOURCE)), vec![]);
    assert_eq!(tick(&mut machine, 100), vec![inject(1, false)]);
    assert_eq!(tick(&mut machine, 5_000), vec![], "a subtask still reads its state");
    let mut stuck = machine.clone();
    assert_eq!(stuck.next_wakeup(), Timestamp(16_100));
    assert!(ends(&tick(&mut stuck, 16_100), "1 of 2 subtasks, op1/0 among them, do not have their state back"));
    assert_eq!(machine.on(Timestamp(6_000), restored(SINK)), vec![]);
    assert_eq!(machine.next_wakeup(), Timestamp(7_000));
    assert_eq!(tick(&mut machine, 6_999), vec![]);
    let mut answers = machine.clone();
    assert!(ends(&tick(&mut machine, 7_000), "2 of 2 subtasks are missing"));
    complete(&mut answers, 6_999, 1, &["s1"]);
    // Whose word was lost has its state when it answers a barrier.
    let mut machine = CheckpointCoordinator::new(start());
    assert_eq!(tick(&mut machine, 100), vec![inject(1, false)]);
    complete(&mut machine, 200, 1, &["s1"]);
    publish(&mut machine, 200, 1);
    assert_eq!(tick(&mut machine, 210), vec![inject(2, false)]);
    assert_eq!(machine.next_wakeup(), Timestamp(1_210));
}

#[test]
fn the_next_epoch_does_not_wait_for_a_slow_publication_and_the_one_after_does() {
    let mut machine = machine();
    assert_eq!(tick(&mut machine, 100), vec![inject(1, false)]);
    assert!(matches!(complete(&mut machine, 110, 1, &[]).as_slice(), [CheckpointCommand::Commit { .. }]));
    assert_eq!(tick(&mut machine, 200), vec![inject(2, false)]);
    // Its output waits for that of the first.
    assert_eq!(complete(&mut machine, 210, 2, &[]), vec![]);
    assert_eq!(machine.next_wakeup(), Timestamp::MAX);
    assert_eq!(tick(&mut machine, 300), vec![]);
    assert!(matches!(publish(&mut machine, 310, 1).as_slice(), [CheckpointCommand::Commit { epoch: Epoch(2), .. }]));
    assert_eq!(tick(&mut machine, 310), vec![inject(3, false)]);
}

#[test]
fn old_checkpoints_are_retired_before_their_objects_go() {
    let mut machine = machine();
    tick(&mut machine, 100);
    complete(&mut machine, 100, 1, &["s1", "shared"]);
    publish(&mut machine, 100, 1);
    tick(&mut machine, 200);
    complete(&mut machine, 200, 2, &["shared", "s2"]);
    let epochs = vec![Epoch(1)];
    assert_eq!(publish(&mut machine, 200, 2), vec![CheckpointCommand::RecordRetired { epochs: epochs.clone() }]);
    let commands = machine.on(Timestamp(201), CheckpointEvent::RetiredRecorded { epochs });
    let paths = vec!["manifest1".to_owned(), "s1".to_owned()];
    assert_eq!(commands, vec![CheckpointCommand::DeleteObjects { paths }]);
}

#[test]
fn snapshots_of_others_are_refused_and_duplicates_change_nothing() {
    let mut machine = machine();
    tick(&mut machine, 100);
    let now = Timestamp(110);
    let refused = |commands: Vec<CheckpointCommand>| matches!(commands.as_slice(), [CheckpointCommand::Refused { .. }]);
    assert!(refused(machine.on(now, done(SINK, 2, 1, SubtaskSnapshot::new()))));
    assert!(refused(machine.on(now, done(SINK, 4, 1, SubtaskSnapshot::new()))));
    assert!(refused(
        machine.on(now, done(SubtaskId { operator: OperatorId(1), index: 1 }, 3, 1, SubtaskSnapshot::new()))
    ));
    assert!(refused(machine.on(now, done(SINK, 3, 2, SubtaskSnapshot::new()))));
    assert_eq!(machine.on(now, done(SINK, 3, 1, SubtaskSnapshot::new())), vec![]);
    assert_eq!(machine.on(now, done(SINK, 3, 1, SubtaskSnapshot::new())), vec![]);
    let commands = machine.on(now, done(SOURCE, 3, 1, SubtaskSnapshot::new()));
    assert!(matches!(commands.as_slice(), [CheckpointCommand::WriteManifest { .. }]));
    assert_eq!(machine.on(now, done(SOURCE, 3, 1, SubtaskSnapshot::new())), vec![]);
    assert!(refused(machine.on(now, CheckpointEvent::CompleteRecorded { epoch: Epoch(1) })));
    assert!(refused(machine.on(now, CheckpointEvent::Committed { epoch: Epoch(1) })));
}

#[test]
fn epochs_in_flight_take_each_step_in_their_order() {
    let mut start = start();
    start.config.in_flight_max = 2;
    let mut machine = CheckpointCoordinator::new(start);
    tick(&mut machine, 100);
    assert_eq!(tick(&mut machine, 200), vec![inject(2, false)]);
    assert_eq!(tick(&mut machine, 300), vec![]);
    let now = Timestamp(310);
    for epoch in [2, 1] {
        machine.on(now, done(SOURCE, 3, epoch, SubtaskSnapshot::new()));
        machine.on(now, done(SINK, 3, epoch, SubtaskSnapshot::new()));
    }
    let durable = |epoch| CheckpointEvent::ManifestDurable { epoch: Epoch(epoch), path: "m".to_owned() };
    assert_eq!(machine.on(now, durable(2)), vec![]);
    assert_eq!(machine.on(now, durable(1)), vec![CheckpointCommand::RecordComplete { epoch: Epoch(1) }]);
    let commands = machine.on(now, CheckpointEvent::CompleteRecorded { epoch: Epoch(1) });
    let commit = |epoch| CheckpointCommand::Commit { epoch: Epoch(epoch), committables: BTreeMap::new() };
    assert_eq!(commands, vec![commit(1), CheckpointCommand::RecordComplete { epoch: Epoch(2) }]);
    assert_eq!(machine.on(now, CheckpointEvent::CompleteRecorded { epoch: Epoch(2) }), vec![]);
    assert_eq!(publish(&mut machine, 320, 1), vec![commit(2)]);
}

#[test]
fn the_end_of_input_takes_a_last_checkpoint_and_finishes() {
    let mut machine = machine();
    assert_eq!(machine.on(Timestamp(5), CheckpointEvent::InputExhausted { subtask: SOURCE }), vec![]);
    assert_eq!(machine.next_wakeup(), Timestamp::MIN);
    assert_eq!(tick(&mut machine, 6), vec![inject(1, true)]);
    assert_eq!(tick(&mut machine, 500), vec![]);
    for subtask in [SOURCE, SINK] {
        assert_eq!(machine.on(Timestamp(7), CheckpointEvent::SubtaskFinished { subtask }), vec![]);
    }
    complete(&mut machine, 8, 1, &[]);
    assert_eq!(publish(&mut machine, 9, 1), vec![CheckpointCommand::Finish { end: End::InputEnd }]);
    assert_eq!(machine.next_wakeup(), Timestamp::MAX);
}

#[test]
fn a_stop_waits_for_the_running_checkpoint() {
    let mut machine = machine();
    tick(&mut machine, 100);
    machine.on(Timestamp(101), CheckpointEvent::StopRequested);
    assert_eq!(tick(&mut machine, 102), vec![]);
    complete(&mut machine, 103, 1, &[]);
    publish(&mut machine, 104, 1);
    assert_eq!(tick(&mut machine, 104), vec![inject(2, true)]);
    complete(&mut machine, 105, 2, &[]);
    publish(&mut machine, 106, 2);
    machine.on(Timestamp(107), CheckpointEvent::RetiredRecorded { epochs: vec![Epoch(1)] });
    machine.on(Timestamp(108), CheckpointEvent::SubtaskFinished { subtask: SOURCE });
    let commands = machine.on(Timestamp(109), CheckpointEvent::SubtaskFinished { subtask: SINK });
    assert_eq!(commands, vec![CheckpointCommand::Finish { end: End::Stop }]);
}

#[test]
fn a_checkpoint_that_takes_too_long_fails_the_attempt_and_names_who_is_missing() {
    let mut machine = machine();
    tick(&mut machine, 100);
    machine.on(Timestamp(101), done(SINK, 3, 1, SubtaskSnapshot::new()));
    assert_eq!(tick(&mut machine, 1_099), vec![]);
    let commands = tick(&mut machine, 1_100);
    let [CheckpointCommand::FailAttempt { failure }] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(failure.retryable && !failure.consequence);
    assert!(failure.message.contains("1 of 2 subtasks are missing, among them op0/0"), "{}", failure.message);
    assert_eq!(machine.on(Timestamp(1_200), done(SOURCE, 3, 1, SubtaskSnapshot::new())), vec![]);
}

#[test]
fn a_subtask_that_ends_too_early_fails_the_attempt() {
    let commands = machine().on(Timestamp(1), CheckpointEvent::SubtaskFinished { subtask: SINK });
    assert!(matches!(commands.as_slice(), [CheckpointCommand::FailAttempt { .. }]));
}

#[test]
fn time_for_queries_never_runs_backwards() {
    let mut start = start();
    start.epoch_now = Timestamp(9_000);
    let commands = tick(&mut CheckpointCoordinator::new(start), 100);
    let barrier = Barrier { epoch: Epoch(1), next_epoch_now: Timestamp(9_000) };
    assert_eq!(commands, vec![CheckpointCommand::InjectBarrier { barrier, last: false }]);
}

#[test]
fn replayed_epochs_come_first_and_are_not_published_again() {
    let barrier = |epoch: u64| Barrier { epoch: Epoch(epoch), next_epoch_now: Timestamp(1_000 + epoch as i64) };
    let mut start = start();
    start.restored = Epoch(4);
    start.replay = vec![barrier(5), barrier(6)];
    start.retained = BTreeMap::from([(Epoch(4), BTreeSet::from(["m4".to_owned()]))]);
    let mut machine = CheckpointCoordinator::new(start);
    assert_eq!(machine.next_wakeup(), Timestamp::MIN);
    assert_eq!(tick(&mut machine, 0), vec![CheckpointCommand::Replay { barrier: barrier(5) }]);
    assert_eq!(
        complete(&mut machine, 1, 5, &["s5"]),
        vec![CheckpointCommand::RecordRetired { epochs: vec![Epoch(4)] }]
    );
    assert_eq!(tick(&mut machine, 2), vec![CheckpointCommand::Replay { barrier: barrier(6) }]);
    let commands = complete(&mut machine, 3, 6, &["s6"]);
    let retired = CheckpointCommand::RecordRetired { epochs: vec![Epoch(5)] };
    assert_eq!(commands, vec![retired, CheckpointCommand::ReplayDone]);
    assert_eq!(tick(&mut machine, 200), vec![inject(7, false)]);
    let commands = complete(&mut machine, 201, 7, &[]);
    assert!(matches!(commands.as_slice(), [CheckpointCommand::Commit { epoch: Epoch(7), .. }]), "{commands:?}");
}

#[test]
fn epochs_that_another_coordinator_has_begun_are_gone_on_with() {
    let barrier = |epoch| Barrier { epoch: Epoch(epoch), next_epoch_now: WALL };
    let mut machine = machine();
    machine.resume(Timestamp(5), None, [(barrier(1), None)]);
    assert_eq!((machine.last_begun(), machine.in_flight(), machine.end()), (Epoch(1), 1, None));
    assert_eq!(tick(&mut machine, 6), vec![], "one at a time");
    complete(&mut machine, 10, 1, &["s1"]);
    publish(&mut machine, 10, 1);
    assert_eq!(tick(&mut machine, 20), vec![inject(2, false)], "its interval was over");

    let mut machine = CheckpointCoordinator::new(start());
    machine.resume(Timestamp(5), None, [(barrier(1), None), (barrier(2), Some(End::Stop))]);
    assert_eq!(machine.on(Timestamp(6), CheckpointEvent::StopRequested), vec![], "there is a last one");
    for subtask in [SOURCE, SINK] {
        assert_eq!(machine.on(Timestamp(7), CheckpointEvent::SubtaskFinished { subtask }), vec![]);
    }
    complete(&mut machine, 10, 1, &["s1"]);
    publish(&mut machine, 10, 1);
    complete(&mut machine, 10, 2, &["s2"]);
    let epochs = vec![Epoch(1)];
    assert_eq!(publish(&mut machine, 10, 2), vec![CheckpointCommand::RecordRetired { epochs: epochs.clone() }]);
    let commands = machine.on(Timestamp(10), CheckpointEvent::RetiredRecorded { epochs });
    assert_eq!(commands.last(), Some(&CheckpointCommand::Finish { end: End::Stop }));

    let mut machine = CheckpointCoordinator::new(start());
    machine.resume(Timestamp(5), Some(End::InputEnd), []);
    assert_eq!((tick(&mut machine, 200), machine.next_wakeup()), (vec![], Timestamp::MAX), "nothing follows");
    assert_eq!(machine.on(Timestamp(201), CheckpointEvent::SubtaskFinished { subtask: SINK }), vec![]);
    let commands = machine.on(Timestamp(202), CheckpointEvent::SubtaskFinished { subtask: SOURCE });
    assert_eq!(commands, vec![CheckpointCommand::Finish { end: End::InputEnd }]);
}
