//! What a history tells at once to somebody who looks at everything, such as an exporter of traces: each checkpoint,
//! publication and start of an attempt when it has come to its end, with its times. Nothing of it is noted where nobody watches.

use std::sync::Arc;

use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::protocol::{PartTimes, SubtaskSnapshot};
use mainstem_core::time::Timestamp;
use mainstem_rt::Clock;

use super::latency::PassedRecord;
use super::start::{OpenStart, StartOutcome, StartPhase, StartedAttempt};
use super::{Checkpoint, CheckpointNote, Inner, JobHistory};

/// Is told what has come to an end.
pub trait HistoryWatcher: Send + Sync {
    /// Called by the job's driver, which goes on when this returns: it must not wait.
    fn told(&self, passed: Passed);
}

/// Something that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// When the job was created, by which it is told from another one of its name; none before that is recorded.
    pub created_at: Option<Timestamp>,
    /// What it is.
    pub what: What,
}

/// What has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A checkpoint is complete, or has failed with its attempt.
    Checkpoint(PassedCheckpoint),
    /// The output of an epoch is visible.
    Publication(Publication),
    /// An attempt runs, or could not be started.
    Start(StartedAttempt),
    /// Rows have come from a source to a sink, and are visible.
    Record(PassedRecord),
}

/// A checkpoint that is complete or has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedCheckpoint {
    /// What is known of it as a whole.
    pub note: CheckpointNote,
    /// From its start to its end.
    pub took_ms: i64,
    /// Subtasks whose part is durable, in the order in which they said so; of very many, the slowest ones.
    pub parts: Vec<SubtaskPart>,
}

/// The part of a subtask in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubtaskPart {
    /// Whose.
    pub subtask: SubtaskId,
    /// When it was known to be durable, counted from the start of the checkpoint.
    pub after_ms: i64,
    /// How long the barrier was aligned; none where there was nothing to align.
    pub alignment_ms: Option<u64>,
    /// How long what followed took.
    pub times: Option<PartTimes>,
}

/// The publication of an epoch, by the attempt that made it or by one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Which epoch.
    pub epoch: Epoch,
    /// The attempt that made its checkpoint.
    pub made_by: Generation,
    /// When the committers were told.
    pub began_at: Timestamp,
    /// Until it was recorded as visible.
    pub took_ms: i64,
}

/// The publication that is under way.
pub(super) struct OpenPublication {
    epoch: Epoch,
    made_by: Generation,
    began_at: Timestamp,
    began: Timestamp,
}

impl JobHistory {
    /// As [`JobHistory::new`], with somebody who is told of everything.
    #[must_use]
    pub fn watched(clock: Arc<dyn Clock>, watcher: Arc<dyn HistoryWatcher>) -> Arc<JobHistory> {
        JobHistory::begin(clock, Some(watcher))
    }

    /// When the job was created, as far as that is known.
    pub(crate) fn created(&self, at: Option<Timestamp>) {
        self.lock().created_at = at;
    }

    /// Committers are about to be told of an epoch, whose checkpoint that attempt has made.
    pub(crate) fn publishing(&self, epoch: Epoch, made_by: Generation) {
        if self.watcher.is_some() {
            let (began_at, began) = (self.clock.now(), self.clock.monotonic());
            self.lock().publishing = Some(OpenPublication { epoch, made_by, began_at, began });
        }
    }

    /// Another attempt is being set up, because of that; the newest one before it has that number, 0 if there was none.
    pub(crate) fn preparing(&self, reason: &str, before: Generation) {
        if self.watcher.is_none() {
            return;
        }
        let (at, now) = (self.clock.now(), self.clock.monotonic());
        let mut inner = self.lock();
        let abandoned = match &mut inner.start {
            Some(open) if open.waits() => {
                open.enter(now, StartPhase::Prepare);
                return;
            }
            Some(_) => inner.end_start(now, StartOutcome::Abandoned),
            None => None,
        };
        inner.start = Some(OpenStart::new(at, now, reason.to_owned(), before, None, StartPhase::Prepare));
        drop(inner);
        self.tell(abandoned);
    }

    /// Its subtasks are about to be started, from that epoch; 0: from nothing.
    pub(crate) fn deploying(&self, generation: Generation, restored: Epoch) {
        if self.watcher.is_some() {
            let now = self.clock.monotonic();
            if let Some(open) = &mut self.lock().start {
                open.deploys(now, generation, restored);
            }
        }
    }

    /// Whether anybody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    pub(super) fn tell(&self, passed: impl IntoIterator<Item = Passed>) {
        if let Some(watcher) = &self.watcher {
            passed.into_iter().for_each(|passed| watcher.told(passed));
        }
    }
}

impl Inner {
    /// Ends the start of an attempt that is open.
    pub(super) fn end_start(&mut self, now: Timestamp, outcome: StartOutcome) -> Option<Passed> {
        let started = self.start.take()?.end(now, outcome);
        Some(Passed { created_at: self.created_at, what: What::Start(started) })
    }

    /// The publication that is under way has come to its end.
    pub(super) fn end_publication(&mut self, epoch: Epoch, now: Timestamp) -> Option<Passed> {
        let OpenPublication { made_by, began_at, began, .. } =
            self.publishing.take().filter(|open| open.epoch == epoch)?;
        let published = Publication { epoch, made_by, began_at, took_ms: now.since_ms(began) };
        Some(Passed { created_at: self.created_at, what: What::Publication(published) })
    }
}

impl Checkpoint {
    /// As it stands now, with the parts of its subtasks, which are forgotten here.
    pub(super) fn pass(&mut self, created_at: Option<Timestamp>, now: Timestamp) -> Passed {
        let parts = std::mem::take(&mut self.parts).into();
        let passed = PassedCheckpoint { note: self.note.clone(), took_ms: now.since_ms(self.began), parts };
        Passed { created_at, what: What::Checkpoint(passed) }
    }
}

impl SubtaskPart {
    pub(super) fn new(subtask: SubtaskId, after_ms: i64, snapshot: &SubtaskSnapshot) -> SubtaskPart {
        let alignment_ms = snapshot.values().filter_map(|part| part.alignment_ms).max();
        SubtaskPart { subtask, after_ms, alignment_ms, times: snapshot.values().find_map(|part| part.times) }
    }
}
