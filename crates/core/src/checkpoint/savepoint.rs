//! A savepoint of an attempt: when its epoch begins, when it is copied, when its outcome is recorded. Part of the
//! checkpoint coordinator; one at a time.
//!
//! A savepoint goes this way: a place is made sure of; the next epoch that begins is its epoch, and the last one
//! where the job shall end with it; when the output of that epoch is published, and that is recorded, the checkpoint
//! is copied; then the outcome is recorded. So a savepoint that counts as taken is the state of an epoch whose output
//! is visible, whatever crashes. An attempt that ends before leaves no outcome: whoever drives the job asks the next
//! attempt again, which takes an epoch of its own.
//!
//! Invariants:
//! - Nothing that the copy needs is deleted before the outcome is recorded (I4).
//! - An attempt that has begun its last epoch takes no request: it would have no epoch for it.
//! - Where the job ends with the savepoint, that is the last record of the attempt. Where the savepoint fails, the
//!   attempt ends as asked and the job goes on, see [`crate::job::JobLifecycle`].

use super::{CheckpointCommand, CheckpointCoordinator, refuse};
use crate::ids::{Epoch, SavepointId};

/// A savepoint that was asked for and has no recorded outcome.
#[derive(Clone, Debug)]
pub(super) struct Savepoint {
    id: SavepointId,
    stop: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Waiting,
    Taking(Epoch),
    Copying(Epoch),
    Copied(Epoch),
    Recording,
}

impl CheckpointCoordinator {
    pub(super) fn on_savepoint_requested(
        &mut self,
        id: SavepointId,
        stop: bool,
        commands: &mut Vec<CheckpointCommand>,
    ) {
        match &self.savepoint {
            Some(known) if known.id == id => {}
            Some(known) => refuse(commands, format!("savepoint {id} is asked for while {} is being taken", known.id)),
            None if self.end.is_some() => {}
            None => {
                commands.push(CheckpointCommand::PrepareSavepoint { savepoint: id.clone() });
                self.savepoint = Some(Savepoint { id, stop, phase: Phase::Preparing });
            }
        }
    }

    pub(super) fn on_savepoint_prepared(&mut self, id: &SavepointId, commands: &mut Vec<CheckpointCommand>) {
        match &mut self.savepoint {
            Some(known) if known.id == *id && known.phase == Phase::Preparing => known.phase = Phase::Waiting,
            _ => refuse(commands, format!("savepoint {id} was reported as prepared, which nobody asked for")),
        }
    }

    pub(super) fn on_savepoint_copied(&mut self, id: &SavepointId, commands: &mut Vec<CheckpointCommand>) {
        match &mut self.savepoint {
            Some(known) if known.id == *id && matches!(known.phase, Phase::Copying(_)) => {
                let Phase::Copying(epoch) = known.phase else { unreachable!("matched above") };
                if known.stop {
                    known.phase = Phase::Copied(epoch);
                } else {
                    known.phase = Phase::Recording;
                    commands.push(CheckpointCommand::RecordSavepoint { savepoint: id.clone(), epoch, end: None });
                }
            }
            _ => refuse(commands, format!("savepoint {id} was reported as copied, which nobody asked for")),
        }
    }

    pub(super) fn on_savepoint_failed(
        &mut self,
        id: &SavepointId,
        reason: String,
        commands: &mut Vec<CheckpointCommand>,
    ) {
        match &mut self.savepoint {
            Some(known) if known.id == *id && matches!(known.phase, Phase::Preparing | Phase::Copying(_)) => {
                known.phase = Phase::Recording;
                commands.push(CheckpointCommand::RecordSavepointFailure { savepoint: id.clone(), reason });
            }
            _ => refuse(commands, format!("savepoint {id} was reported as failed, which was not being worked on")),
        }
    }

    pub(super) fn on_savepoint_recorded(&mut self, id: &SavepointId, commands: &mut Vec<CheckpointCommand>) {
        match &self.savepoint {
            Some(known) if known.id == *id && known.phase == Phase::Recording => {
                self.savepoint = None;
                self.retention.release();
            }
            _ => refuse(commands, format!("savepoint {id} was reported as recorded, which nobody asked for")),
        }
    }

    /// Whether the savepoint waits for an epoch to begin.
    pub(super) fn savepoint_waits(&self) -> bool {
        self.savepoint.as_ref().is_some_and(|savepoint| savepoint.phase == Phase::Waiting)
    }

    /// Whether a place for the savepoint is being looked for: the last epoch does not begin before, or there would be
    /// none left for it.
    pub(super) fn savepoint_is_prepared_for(&self) -> bool {
        self.savepoint.as_ref().is_some_and(|savepoint| savepoint.phase == Phase::Preparing)
    }

    /// Whether the next epoch shall be the last one, for the savepoint's sake.
    pub(super) fn savepoint_stops(&self) -> bool {
        self.savepoint.as_ref().is_some_and(|savepoint| savepoint.stop && savepoint.phase == Phase::Waiting)
    }

    /// An epoch begins that is no replay.
    pub(super) fn note_savepoint_epoch(&mut self, epoch: Epoch) {
        if let Some(savepoint) = self.savepoint.as_mut().filter(|savepoint| savepoint.phase == Phase::Waiting) {
            savepoint.phase = Phase::Taking(epoch);
        }
    }

    /// An epoch is published and recorded so: gives the savepoint whose epoch it is, to be copied.
    pub(super) fn savepoint_of(&mut self, epoch: Epoch) -> Option<SavepointId> {
        let savepoint = self.savepoint.as_mut().filter(|savepoint| savepoint.phase == Phase::Taking(epoch))?;
        savepoint.phase = Phase::Copying(epoch);
        Some(savepoint.id.clone())
    }

    /// The attempt has nothing left to do but the savepoint with which it ends: gives the last record, if it is time
    /// for it.
    pub(super) fn savepoint_at_end(&mut self) -> Option<CheckpointCommand> {
        let (end, savepoint) = (self.end?, self.savepoint.as_mut()?);
        let Phase::Copied(epoch) = savepoint.phase else { return None };
        savepoint.phase = Phase::Recording;
        Some(CheckpointCommand::RecordSavepoint { savepoint: savepoint.id.clone(), epoch, end: Some(end) })
    }
}

#[cfg(test)]
mod tests;
