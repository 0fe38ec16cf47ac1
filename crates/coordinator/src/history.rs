//! What has happened to a job while this process drives it: its newest checkpoints with their phases, why its attempts
//! failed, and its newest events. For those who look on; nothing is decided by it. Told by the job's driver, bounded, and
//! gone with the process: what must last is in the job's log and in the audit trail.

mod latency;
mod start;
mod view;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::job::JobState;
use mainstem_core::protocol::{Failure, SubtaskSnapshot};
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;

pub use self::latency::{JobLatency, PassedRecord};
pub use self::start::{FailedAttempt, StartOutcome, StartPhase, StartedAttempt};
pub use self::view::{CheckpointNote, CheckpointStage, EventKind, EventNote, FailureNote, HistoryView, Totals};
pub use self::watch::{HistoryWatcher, Passed, PassedCheckpoint, Publication, SubtaskPart, What};

use self::latency::Latencies;
use self::start::OpenStart;
use self::watch::OpenPublication;

/// Checkpoints that are remembered.
const CHECKPOINTS_MAX: usize = 100;
/// Failures that are remembered.
const FAILURES_MAX: usize = 50;
/// Events that are remembered.
const EVENTS_MAX: usize = 512;
/// Bytes of a message that are remembered.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Subtasks whose part in a checkpoint is told of to a watcher: the slowest ones.
const PARTS_MAX: usize = 128;
/// Failures of subtasks among which the cause of an attempt's failure is looked for.
const SUSPECTS_MAX: usize = 64;

/// See the module.
pub struct JobHistory {
    clock: Arc<dyn Clock>,
    /// Is told of everything, if there is anybody.
    watcher: Option<Arc<dyn HistoryWatcher>>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Told apart from another history of the same job.
    began_at: Timestamp,
    totals: Totals,
    checkpoints: VecDeque<Checkpoint>,
    failures: VecDeque<FailureNote>,
    events: VecDeque<EventNote>,
    /// Of the next event.
    seq: u64,
    state: Option<JobState>,
    /// The newest attempt that was deployed.
    attempt: Option<Generation>,
    /// What subtasks of the attempt have reported of failures.
    suspects: Vec<(SubtaskId, String)>,
    /// For the watcher: when the job was created.
    created_at: Option<Timestamp>,
    /// The start of an attempt that is under way.
    start: Option<OpenStart>,
    /// The publication that is under way.
    publishing: Option<OpenPublication>,
    latencies: Latencies,
}

struct Checkpoint {
    note: CheckpointNote,
    /// When its phases ended, by the clock that only goes forward.
    began: Timestamp,
    phase_began: Timestamp,
    acknowledged: BTreeSet<SubtaskId>,
    /// For the watcher, the newest ones.
    parts: VecDeque<SubtaskPart>,
}

impl JobHistory {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<JobHistory> {
        JobHistory::begin(clock, None)
    }

    fn begin(clock: Arc<dyn Clock>, watcher: Option<Arc<dyn HistoryWatcher>>) -> Arc<JobHistory> {
        let inner = Inner {
            began_at: clock.now(),
            totals: Totals::default(),
            checkpoints: VecDeque::new(),
            failures: VecDeque::new(),
            events: VecDeque::new(),
            seq: 1,
            state: None,
            attempt: None,
            suspects: Vec::new(),
            created_at: None,
            start: None,
            publishing: None,
            latencies: Latencies::default(),
        };
        Arc::new(JobHistory { clock, watcher, inner: Mutex::new(inner) })
    }

    /// All that is remembered, newest first; events apart.
    #[must_use]
    pub fn view(&self) -> HistoryView {
        let inner = self.lock();
        let checkpoints = inner.checkpoints.iter().rev().map(|checkpoint| checkpoint.note.clone()).collect();
        HistoryView { totals: inner.totals, checkpoints, failures: inner.failures.iter().rev().cloned().collect() }
    }

    /// How often what has happened.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Events after that number of the history that began then, oldest first; all where it is another one. With when this
    /// one began.
    #[must_use]
    pub fn events_after(&self, began_at: Timestamp, seq: u64) -> (Timestamp, Vec<EventNote>) {
        let inner = self.lock();
        let after = if began_at == inner.began_at { seq } else { 0 };
        (inner.began_at, inner.events.iter().filter(|event| event.seq > after).cloned().collect())
    }

    /// A barrier has been sent, or is known to have been.
    pub(crate) fn begun(&self, epoch: Epoch, generation: Generation, subtasks: usize) {
        let (at, began) = (self.clock.now(), self.clock.monotonic());
        let mut inner = self.lock();
        let note = CheckpointNote::begun(epoch, generation, at, u32::try_from(subtasks).unwrap_or(u32::MAX));
        let (acknowledged, parts) = (BTreeSet::new(), VecDeque::new());
        let checkpoint = Checkpoint { note, began, phase_began: began, acknowledged, parts };
        push(&mut inner.checkpoints, CHECKPOINTS_MAX, checkpoint);
    }

    /// A subtask's part is durable.
    pub(crate) fn acknowledged(
        &self,
        epoch: Epoch,
        generation: Generation,
        subtask: SubtaskId,
        snapshot: &SubtaskSnapshot,
    ) {
        let now = self.clock.monotonic();
        self.change(epoch, generation, |checkpoint| {
            if checkpoint.note.stage == CheckpointStage::Running && checkpoint.acknowledged.insert(subtask) {
                checkpoint.note.acknowledged += 1;
                // The last one is the slowest.
                let part = SubtaskPart::new(subtask, now.since_ms(checkpoint.began), snapshot);
                checkpoint.note.slowest = Some(part);
                if self.watcher.is_some() {
                    push(&mut checkpoint.parts, PARTS_MAX, part);
                }
            }
        });
    }

    /// Every subtask's part is durable.
    pub(crate) fn snapshots_durable(&self, epoch: Epoch, generation: Generation) {
        self.phase(epoch, generation, |note, took| note.snapshot_ms = Some(took));
    }

    /// Its manifest is durable.
    pub(crate) fn manifest_durable(&self, epoch: Epoch, generation: Generation) {
        self.phase(epoch, generation, |note, took| note.manifest_ms = Some(took));
    }

    /// It is recorded as complete; the longest alignment, bytes of state, and of what was in flight.
    pub(crate) fn complete(
        &self,
        epoch: Epoch,
        generation: Generation,
        alignment_ms: Option<u64>,
        bytes: u64,
        in_flight_bytes: Option<u64>,
    ) {
        let now = self.clock.monotonic();
        self.change(epoch, generation, |checkpoint| {
            let took = now.since_ms(checkpoint.began);
            let phase_began = std::mem::replace(&mut checkpoint.phase_began, now);
            let note = &mut checkpoint.note;
            note.stage = CheckpointStage::Complete;
            (note.record_ms, note.duration_ms) = (Some(now.since_ms(phase_began)), Some(took));
            (note.alignment_ms, note.bytes, note.in_flight_bytes) = (alignment_ms, Some(bytes), in_flight_bytes);
            checkpoint.acknowledged.clear();
        });
        let mut inner = self.lock();
        inner.totals.completed += 1;
        inner.totals.unaligned += u64::from(in_flight_bytes.is_some());
        let created_at = inner.created_at;
        let of = |c: &&mut Checkpoint| c.note.epoch == epoch && c.note.generation == generation;
        let checkpoint = inner.checkpoints.iter_mut().rev().find(of);
        let duration_ms = checkpoint.as_ref().and_then(|checkpoint| checkpoint.note.duration_ms);
        let passed = checkpoint.filter(|_| self.watcher.is_some()).map(|c| c.pass(created_at, now));
        inner.totals.duration_ms += duration_ms.map_or(0, |ms| u64::try_from(ms).unwrap_or(0));
        inner.latencies.complete(epoch, generation, duration_ms);
        let event =
            EventNote { epoch, generation, duration_ms, bytes: Some(bytes), ..self.event(EventKind::Checkpoint) };
        inner.tell(event);
        drop(inner);
        self.tell(passed);
    }

    /// Its output is visible, and that is recorded. Also of an attempt before this one.
    pub(crate) fn published(&self, epoch: Epoch, generation: Generation) {
        let (at, now) = (self.clock.now(), self.clock.monotonic());
        let event = EventNote { epoch, generation, ..self.event(EventKind::Published) };
        let mut inner = self.lock();
        let of = |c: &&mut Checkpoint| c.note.epoch == epoch && c.note.stage == CheckpointStage::Complete;
        if let Some(checkpoint) = inner.checkpoints.iter_mut().rev().find(of) {
            checkpoint.note.stage = CheckpointStage::Published;
            checkpoint.note.published_at = Some(at);
            let publish_ms = now.since_ms(checkpoint.phase_began);
            checkpoint.note.publish_ms = Some(publish_ms);
            inner.latencies.publication_took(publish_ms);
        }
        inner.tell(event);
        let mut passed: Vec<Passed> = inner.end_publication(epoch, now).into_iter().collect();
        passed.extend(inner.records_visible(epoch, at));
        drop(inner);
        self.tell(passed);
    }

    /// All subtasks of an attempt run.
    pub(crate) fn deployed(&self, generation: Generation) {
        let event = EventNote { generation, ..self.event(EventKind::Restart) };
        let mut inner = self.lock();
        inner.suspects.clear();
        if inner.attempt.replace(generation).is_some_and(|before| before != generation) {
            inner.tell(event);
        }
        let passed = inner.end_start(self.clock.monotonic(), StartOutcome::Runs);
        drop(inner);
        self.tell(passed);
    }

    /// A subtask says that it has failed.
    pub(crate) fn subtask_failed(&self, subtask: SubtaskId, failure: &Failure) {
        let mut inner = self.lock();
        if inner.suspects.len() < SUSPECTS_MAX && !failure.consequence {
            inner.suspects.push((subtask, shortened(&failure.message)));
        }
    }

    /// An attempt has failed.
    pub(crate) fn attempt_failed(&self, generation: Generation, failure: &Failure) {
        let (at, now) = (self.clock.now(), self.clock.monotonic());
        let message = shortened(&failure.message);
        let event = EventNote { generation, message: Some(message.clone()), ..self.event(EventKind::Failure) };
        let mut inner = self.lock();
        let suspects = std::mem::take(&mut inner.suspects);
        let subtask = suspects.into_iter().find(|(_, said)| *said == message).map(|(subtask, _)| subtask);
        let (mut failed, mut passed) = (0, Vec::new());
        let Inner { created_at, .. } = *inner;
        for checkpoint in inner.checkpoints.iter_mut().filter(|c| c.note.stage == CheckpointStage::Running) {
            checkpoint.note.stage = CheckpointStage::Failed;
            checkpoint.note.failure = Some(message.clone());
            checkpoint.acknowledged.clear();
            if self.watcher.is_some() {
                passed.push(checkpoint.pass(created_at, now));
            }
            failed += 1;
        }
        inner.totals.failed += failed;
        inner.totals.failures += 1;
        let retryable = failure.retryable;
        if self.watcher.is_some() {
            passed.extend(inner.end_start(now, StartOutcome::Failed(message.clone())));
            let failed = Some(FailedAttempt { subtask, retryable });
            inner.start = Some(OpenStart::new(at, now, message.clone(), generation, failed, StartPhase::Wait));
        }
        let note = FailureNote { at, generation, message, retryable, is_last: false, subtask };
        push(&mut inner.failures, FAILURES_MAX, note);
        inner.tell(event);
        drop(inner);
        self.tell(passed);
    }

    /// The job has ended, by itself or because of this failure.
    pub(crate) fn ended(&self, generation: Generation, failure: Option<&Failure>) {
        let at = self.clock.now();
        let message = failure.map(|failure| shortened(&failure.message));
        let event = EventNote { generation, message: message.clone(), ..self.event(EventKind::End) };
        let mut inner = self.lock();
        let outcome = message.clone().map_or(StartOutcome::Abandoned, StartOutcome::Failed);
        let passed = inner.end_start(self.clock.monotonic(), outcome);
        if let (Some(failure), Some(message)) = (failure, message) {
            match inner.failures.back_mut().filter(|last| last.message == message) {
                Some(last) => last.is_last = true,
                None => {
                    let retryable = failure.retryable;
                    let note = FailureNote { at, generation, message, retryable, is_last: true, subtask: None };
                    push(&mut inner.failures, FAILURES_MAX, note);
                }
            }
        }
        inner.tell(event);
        drop(inner);
        self.tell(passed);
    }

    /// Where the job stands; told when it is news.
    pub(crate) fn state(&self, generation: Generation, state: JobState) {
        let event = EventNote { generation, state: Some(state), ..self.event(EventKind::State) };
        let mut inner = self.lock();
        if inner.state.replace(state) != Some(state) {
            inner.tell(event);
        }
    }

    fn event(&self, kind: EventKind) -> EventNote {
        EventNote::new(kind, self.clock.now())
    }

    /// A phase of a checkpoint has ended, whose time is given.
    fn phase(&self, epoch: Epoch, generation: Generation, note: impl FnOnce(&mut CheckpointNote, i64)) {
        let now = self.clock.monotonic();
        self.change(epoch, generation, |checkpoint| {
            let began = std::mem::replace(&mut checkpoint.phase_began, now);
            note(&mut checkpoint.note, now.since_ms(began));
        });
    }

    fn change(&self, epoch: Epoch, generation: Generation, change: impl FnOnce(&mut Checkpoint)) {
        let mut inner = self.lock();
        let of = |c: &&mut Checkpoint| c.note.epoch == epoch && c.note.generation == generation;
        if let Some(checkpoint) = inner.checkpoints.iter_mut().rev().find(of) {
            change(checkpoint);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, event: EventNote) {
        let seq = self.seq;
        self.seq += 1;
        push(&mut self.events, EVENTS_MAX, EventNote { seq, ..event });
    }
}

fn push<T>(ring: &mut VecDeque<T>, most: usize, item: T) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(item);
}

fn shortened(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests;
