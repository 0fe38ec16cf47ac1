//! What is remembered of a job, and that it is bounded.

use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::ids::OperatorId;
use mainstem_core::latency::{Arrival, EpochArrivals, LatencyMarker};
use mainstem_core::protocol::{OperatorSnapshot, PartTimes};
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
    history.acknowledged(Epoch(1), FIRST, subtask(1), &SubtaskSnapshot::new());
    clock.advance_ms(5);
    for _ in 0..2 {
        // Said twice after a change of leaders.
        history.acknowledged(Epoch(1), FIRST, subtask(0), &SubtaskSnapshot::new());
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
    let slowest = SubtaskPart { subtask: subtask(0), after_ms: 15, alignment_ms: None, times: None };
    assert_eq!((note.acknowledged, note.slowest), (2, Some(slowest)));
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

/// Keeps what it is told.
#[derive(Default)]
struct Kept(Mutex<Vec<Passed>>);

impl HistoryWatcher for Kept {
    fn told(&self, passed: Passed) {
        self.0.lock().unwrap().push(passed);
    }
}

impl Kept {
    fn take(&self) -> Vec<Passed> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn watched() -> (ManualClock, Arc<JobHistory>, Arc<Kept>) {
    let (clock, kept) = (ManualClock::new(Timestamp(1_000)), Arc::new(Kept::default()));
    (clock.clone(), JobHistory::watched(Arc::new(clock), kept.clone()), kept)
}

#[test]
fn a_watcher_is_told_of_a_checkpoint_when_it_is_complete_and_of_its_publication_when_it_is_visible() {
    let (clock, history, kept) = watched();
    history.created(Some(Timestamp(900)));
    history.begun(Epoch(1), FIRST, 2);
    clock.advance_ms(10);
    let times = Some(PartTimes { capture_ms: 1, wait_ms: 0, upload_ms: 3, uploaded_bytes: 50 });
    let part = OperatorSnapshot { alignment_ms: Some(4), times, ..OperatorSnapshot::default() };
    let snapshot = SubtaskSnapshot::from([(OperatorId(3), part), (OperatorId(4), OperatorSnapshot::default())]);
    history.acknowledged(Epoch(1), FIRST, subtask(1), &snapshot);
    clock.advance_ms(5);
    history.acknowledged(Epoch(1), FIRST, subtask(0), &SubtaskSnapshot::new());
    history.snapshots_durable(Epoch(1), FIRST);
    assert_eq!(kept.take(), [], "it is under way");
    clock.advance_ms(5);
    history.manifest_durable(Epoch(1), FIRST);
    history.complete(Epoch(1), FIRST, Some(4), 100, None);
    let told = kept.take();
    let [Passed { created_at: Some(Timestamp(900)), what: What::Checkpoint(passed) }] = &told[..] else {
        panic!("one checkpoint: {told:?}");
    };
    assert_eq!((passed.note.stage, passed.note.epoch, passed.took_ms), (CheckpointStage::Complete, Epoch(1), 20));
    assert_eq!(
        passed.parts,
        [
            SubtaskPart { subtask: subtask(1), after_ms: 10, alignment_ms: Some(4), times },
            SubtaskPart { subtask: subtask(0), after_ms: 15, alignment_ms: None, times: None },
        ]
    );
    clock.advance_ms(2);
    history.publishing(Epoch(1), FIRST);
    clock.advance_ms(3);
    // By the attempt after it.
    history.published(Epoch(1), Generation(2));
    let publication = Publication { epoch: Epoch(1), made_by: FIRST, began_at: Timestamp(1_022), took_ms: 3 };
    assert_eq!(kept.take(), [Passed { created_at: Some(Timestamp(900)), what: What::Publication(publication) }]);
}

#[test]
fn of_very_many_subtasks_a_watcher_is_told_of_the_slowest_ones() {
    let (_, history, kept) = watched();
    history.begun(Epoch(1), FIRST, 1_000);
    for index in 0..1_000 {
        history.acknowledged(Epoch(1), FIRST, subtask(index), &SubtaskSnapshot::new());
    }
    history.complete(Epoch(1), FIRST, None, 1, None);
    let told = kept.take();
    let [Passed { what: What::Checkpoint(passed), .. }] = &told[..] else { panic!("one checkpoint: {told:?}") };
    let indexes: Vec<u32> = passed.parts.iter().map(|part| part.subtask.index).collect();
    assert_eq!((indexes, passed.note.acknowledged), ((872..1_000).collect(), 1_000));
}

#[test]
fn a_watcher_is_told_of_a_restart_with_its_cause_and_its_phases() {
    let (clock, history, kept) = watched();
    history.preparing("started", Generation(0));
    clock.advance_ms(2);
    history.deploying(FIRST, Epoch(0));
    clock.advance_ms(3);
    history.deployed(FIRST);
    history.begun(Epoch(7), FIRST, 1);
    clock.advance_ms(5);
    history.subtask_failed(subtask(1), &failure("the disk is full"));
    history.attempt_failed(FIRST, &failure("the disk is full"));
    clock.advance_ms(100);
    history.preparing("the disk is full", FIRST);
    clock.advance_ms(10);
    history.attempt_failed(FIRST, &failure("no answer"));
    history.preparing("no answer", FIRST);
    history.deploying(Generation(2), Epoch(6));
    clock.advance_ms(20);
    history.deployed(Generation(2));
    let told = kept.take();
    let failed = told.iter().filter_map(|passed| match &passed.what {
        What::Checkpoint(passed) => Some((passed.note.epoch, passed.note.stage, passed.took_ms)),
        _ => None,
    });
    assert_eq!(failed.collect::<Vec<_>>(), [(Epoch(7), CheckpointStage::Failed, 5)]);
    let starts: Vec<&StartedAttempt> = told
        .iter()
        .filter_map(|passed| match &passed.what {
            What::Start(start) => Some(start),
            _ => None,
        })
        .collect();
    let shown: Vec<_> =
        starts.iter().map(|s| (s.reason.as_str(), s.before.0, s.generation, s.restored, &s.phases[..])).collect();
    assert_eq!(
        shown,
        [
            ("started", 0, Some(FIRST), Some(Epoch(0)), &[(StartPhase::Prepare, 2), (StartPhase::Deploy, 3)][..]),
            ("the disk is full", 1, None, None, &[(StartPhase::Wait, 100), (StartPhase::Prepare, 10)][..]),
            (
                "no answer",
                1,
                Some(Generation(2)),
                Some(Epoch(6)),
                &[(StartPhase::Wait, 0), (StartPhase::Prepare, 0), (StartPhase::Deploy, 20)][..]
            ),
        ]
    );
    assert_eq!(starts[1].failed, Some(FailedAttempt { subtask: Some(subtask(1)), retryable: true }));
    let outcomes: Vec<&StartOutcome> = starts.iter().map(|start| &start.outcome).collect();
    assert_eq!(outcomes, [&StartOutcome::Runs, &StartOutcome::Failed("no answer".to_owned()), &StartOutcome::Runs]);
    history.attempt_failed(Generation(2), &failure("it is over"));
    history.ended(Generation(2), Some(&failure("it is over")));
    let told = kept.take();
    let [Passed { what: What::Start(last), .. }] = &told[..] else { panic!("one start: {told:?}") };
    assert_eq!((last.generation, &last.outcome), (None, &StartOutcome::Failed("it is over".to_owned())));
}

fn arrival(read_at: i64, is_traced: bool) -> Arrival {
    let trace = is_traced.then(Vec::new);
    let marker = LatencyMarker { source: subtask(0), number: 1, read_at: Timestamp(read_at), trace };
    Arrival { marker, at: Timestamp(read_at + 1) }
}

fn arrivals(kept: Vec<Arrival>) -> EpochArrivals {
    EpochArrivals { kept, traces_dropped: 0 }
}

const SINK: OperatorId = OperatorId(9);

#[test]
fn rows_are_visible_when_the_epoch_is_published_in_which_they_came_to_the_sink() {
    let (clock, history) = history();
    history.publishes([SINK].into_iter());
    history.begun(Epoch(1), FIRST, 1);
    history.arrived(Epoch(1), FIRST, SINK, arrivals(vec![arrival(700, false), arrival(900, false)]));
    history.arrived(Epoch(2), FIRST, SINK, arrivals(vec![arrival(950, false)]));
    clock.advance_ms(20);
    history.complete(Epoch(1), FIRST, None, 1, None);
    assert_eq!(history.latency().visible.get(&SINK), None);
    clock.advance_ms(30);
    history.published(Epoch(1), FIRST);
    let latency = history.latency();
    let visible = &latency.visible[&SINK];
    assert_eq!((visible.count(), visible.sum_ms()), (2, 350 + 150));
    assert_eq!((latency.checkpoints.sum_ms(), latency.publications.sum_ms()), (20, 30));
    // The attempt fails; the next one makes the second epoch anew, from rows that are read again.
    history.attempt_failed(FIRST, &failure("lost"));
    let second = Generation(2);
    history.begun(Epoch(2), second, 1);
    history.arrived(Epoch(2), second, SINK, arrivals(vec![arrival(1_040, false)]));
    history.complete(Epoch(2), second, None, 1, None);
    history.published(Epoch(2), second);
    let visible = &history.latency().visible[&SINK];
    assert_eq!((visible.count(), visible.sum_ms()), (3, 500 + 10), "what was read twice counts once");
}

#[test]
fn markers_that_wait_are_bounded_and_lost_traces_are_counted() {
    let (_, history) = history();
    history.publishes([SINK].into_iter());
    let of_epoch = || EpochArrivals { kept: vec![arrival(900, true); 1_000], traces_dropped: 2 };
    for epoch in 1..=40 {
        history.arrived(Epoch(epoch), FIRST, SINK, of_epoch());
    }
    assert_eq!(history.latency().traces_dropped, 40 * 2 + 8 * 1_000, "32 of them fit");
    (1..=40).for_each(|epoch| history.published(Epoch(epoch), FIRST));
    assert_eq!(history.latency().visible[&SINK].count(), 32_000);
    history.arrived(Epoch(41), FIRST, SINK, of_epoch());
    history.published(Epoch(41), FIRST);
    assert_eq!(history.latency().visible[&SINK].count(), 33_000, "there is room again");
}

#[test]
fn a_watcher_is_told_of_records_when_they_are_visible() {
    let (clock, history, kept) = watched();
    assert_eq!(history.markers(200).interval_ms, Some(200));
    assert!(history.markers(200).trace_every_ms.is_some());
    assert_eq!(history.markers(0).interval_ms, None);
    history.publishes([SINK].into_iter());
    history.placed([WorkerId("w1@a:1#2".to_owned())].into_iter());
    history.arrived(Epoch(1), FIRST, SINK, arrivals(vec![arrival(990, true), arrival(995, false)]));
    assert_eq!(kept.take(), []);
    clock.advance_ms(5);
    history.published(Epoch(1), FIRST);
    let told = kept.take();
    let [Passed { what: What::Record(record), .. }] = &told[..] else { panic!("one record: {told:?}") };
    assert_eq!((record.sink, record.visible_at, &record.arrival), (SINK, Some(Timestamp(1_005)), &arrival(990, true)));
    assert_eq!(record.workers[0].0, "w1@a:1#2");
    // Of a sink that publishes nothing at once.
    history.arrived(Epoch(2), FIRST, OperatorId(8), arrivals(vec![arrival(990, true)]));
    let told = kept.take();
    assert!(
        matches!(&told[..], [Passed { what: What::Record(record), .. }] if record.visible_at.is_none()),
        "{told:?}"
    );
}
