//! What is remembered of a job, and that it is bounded.

use mainstem_core::ids::OperatorId;
use mainstem_rt::ManualClock;

use super::*;

const FIRST: Generation = Generation(1);

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(3), index }
}

fn failure(message: &str) -> Failure {
    Failure { message: message.to_owned(), retryable: true, consequence: false }
}

fn history() -> (ManualClock, Arc<JobHistory>) {
    let clock = ManualClock::new(Timestamp(1_000));
    (clock.clone(), JobHistory::new(Arc::new(clock)))
}

#[test]
fn phases_follow_each_other_and_the_last_subtask_is_the_slowest() {
    let (clock, history) = history();
    history.begun(Epoch(1), FIRST, 2);
    clock.advance_ms(10);
    history.acknowledged(Epoch(1), FIRST, subtask(1));
    clock.advance_ms(5);
    for _ in 0..2 {
        // Said twice after a change of leaders.
        history.acknowledged(Epoch(1), FIRST, subtask(0));
    }
    history.snapshots_durable(Epoch(1), FIRST);
    clock.advance_ms(3);
    history.manifest_durable(Epoch(1), FIRST);
    clock.advance_ms(2);
    history.complete(Epoch(1), FIRST, Some(4), 100, None);
    clock.advance_ms(7);
    history.published(Epoch(1), Generation(2));
    let view = history.view();
    let [note] = &view.checkpoints[..] else { panic!("one checkpoint: {view:?}") };
    assert_eq!((note.snapshot_ms, note.manifest_ms, note.record_ms), (Some(15), Some(3), Some(2)));
    assert_eq!((note.duration_ms, note.publish_ms, note.stage), (Some(20), Some(7), CheckpointStage::Published));
    assert_eq!((note.acknowledged, note.slowest), (2, Some((subtask(0), 15))));
    assert_eq!((view.totals.completed, view.totals.duration_ms), (1, 20));
}

#[test]
fn the_cause_of_a_failure_is_found_at_the_subtask_that_said_it() {
    let (_, history) = history();
    history.deployed(FIRST);
    history.begun(Epoch(1), FIRST, 2);
    history.subtask_failed(subtask(0), &Failure { consequence: true, ..failure("a neighbour is gone") });
    history.subtask_failed(subtask(1), &failure("the disk is full"));
    history.attempt_failed(FIRST, &failure("the disk is full"));
    history.deployed(Generation(2));
    history.attempt_failed(Generation(2), &failure("no answer"));
    history.ended(Generation(2), Some(&failure("no answer")));
    let view = history.view();
    let causes: Vec<_> = view.failures.iter().map(|f| (f.message.as_str(), f.subtask, f.is_last)).collect();
    assert_eq!(causes, [("no answer", None, true), ("the disk is full", Some(subtask(1)), false)]);
    assert_eq!(view.checkpoints[0].stage, CheckpointStage::Failed);
    assert_eq!((view.totals.failed, view.totals.failures), (1, 2));
    let (_, events) = history.events_after(Timestamp(0), 0);
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Failure, EventKind::Restart, EventKind::Failure, EventKind::End]);
}

#[test]
fn a_reader_goes_on_where_it_was_and_begins_anew_with_another_history() {
    let (_, history) = history();
    for state in [JobState::Created, JobState::Running, JobState::Running, JobState::Stopping] {
        history.state(FIRST, state);
    }
    let (began_at, all) = history.events_after(Timestamp(0), 99);
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(history.events_after(began_at, 2).1, all[2..]);
}

#[test]
fn nothing_grows_without_end() {
    let (_, history) = history();
    for n in 0..1_000 {
        history.begun(Epoch(n), FIRST, 1);
        history.complete(Epoch(n), FIRST, None, 1, None);
        history.attempt_failed(FIRST, &failure(&"é".repeat(MESSAGE_BYTES_MAX)));
    }
    let view = history.view();
    assert_eq!((view.checkpoints.len(), view.failures.len()), (CHECKPOINTS_MAX, FAILURES_MAX));
    assert_eq!(view.checkpoints[0].epoch, Epoch(999), "the newest first");
    assert!(view.failures[0].message.len() <= MESSAGE_BYTES_MAX);
    assert_eq!(history.events_after(Timestamp(0), 0).1.len(), EVENTS_MAX);
}
