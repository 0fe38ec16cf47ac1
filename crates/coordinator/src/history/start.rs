//! How an attempt comes to run: the phases from the failure of the one before, or from the wish to have one, until all of
//! its subtasks run. Pure.

use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::time::Timestamp;

/// An attempt that was started, or was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedAttempt {
    /// Why there was to be an attempt: the failure of the one before, or another reason.
    pub reason: String,
    /// The newest attempt before it; 0: there was none.
    pub before: Generation,
    /// What failed of the attempt before, where that is the reason.
    pub failed: Option<FailedAttempt>,
    /// Its number; none where it got none.
    pub generation: Option<Generation>,
    /// The epoch from which it went on; 0: from nothing.
    pub restored: Option<Epoch>,
    /// When the one before had failed, or it was decided.
    pub began_at: Timestamp,
    /// What was done in which time, in its order; the last one is where it ended.
    pub phases: Vec<(StartPhase, i64)>,
    /// What became of it.
    pub outcome: StartOutcome,
}

/// What failed of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Where, if a subtask said so.
    pub subtask: Option<SubtaskId>,
    /// Whether trying again can help.
    pub retryable: bool,
}

/// What is done before an attempt runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// Waiting after a failure.
    Wait,
    /// Finding the checkpoint, publishing what was left open, removing what the attempt before has left.
    Prepare,
    /// Waiting for slots, and starting the subtasks.
    Deploy,
}

/// What became of the start of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// Its subtasks run.
    Runs,
    /// It failed: why.
    Failed(String),
    /// It is not wanted any more.
    Abandoned,
}

/// A start that is under way.
pub(super) struct OpenStart {
    started: StartedAttempt,
    phase: StartPhase,
    /// When that began, by the clock that only goes forward.
    phase_began: Timestamp,
}

impl OpenStart {
    pub(super) fn new(
        at: Timestamp,
        now: Timestamp,
        reason: String,
        before: Generation,
        failed: Option<FailedAttempt>,
        phase: StartPhase,
    ) -> OpenStart {
        let started = StartedAttempt {
            reason,
            before,
            failed,
            generation: None,
            restored: None,
            began_at: at,
            phases: Vec::new(),
            outcome: StartOutcome::Abandoned,
        };
        OpenStart { started, phase, phase_began: now }
    }

    pub(super) fn waits(&self) -> bool {
        self.phase == StartPhase::Wait
    }

    pub(super) fn enter(&mut self, now: Timestamp, phase: StartPhase) {
        let began = std::mem::replace(&mut self.phase_began, now);
        self.started.phases.push((std::mem::replace(&mut self.phase, phase), now.since_ms(began)));
    }

    pub(super) fn deploys(&mut self, now: Timestamp, generation: Generation, restored: Epoch) {
        self.enter(now, StartPhase::Deploy);
        self.started.generation = Some(generation);
        self.started.restored = Some(restored);
    }

    pub(super) fn end(mut self, now: Timestamp, outcome: StartOutcome) -> StartedAttempt {
        self.started.phases.push((self.phase, now.since_ms(self.phase_began)));
        StartedAttempt { outcome, ..self.started }
    }
}
