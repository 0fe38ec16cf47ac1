//! Checkpoint coordination of one attempt (generation) of a job: when a barrier is sent, when an epoch counts
//! as complete, when its output is published, and what may be deleted. Driven by the job's coordinator, which
//! carries out the commands in order and reports their completion as events.
//!
//! An epoch goes this way, each step only after the one before has been reported:
//! barrier sent, all snapshots durable, manifest durable, recorded as complete, output committed, commit
//! recorded. The epochs of an attempt take each step in their order.
//!
//! Invariants:
//! - I1: [`CheckpointCommand::Commit`] for an epoch only after [`CheckpointEvent::CompleteRecorded`] for it.
//! - I2: one `Commit` an epoch and attempt, in the order of epochs; none for a replayed epoch.
//! - I3: a snapshot of another generation, or of a subtask that this attempt does not have, is refused.
//! - I4: an object is deleted only when no retained checkpoint and no running one names it; an epoch is
//!   retired only when its output is published and enough newer ones of the same kind are kept.

mod cadence;
mod messages;
mod options;
mod retention;
mod savepoint;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

pub use self::cadence::{Cadence, CadenceBounds, CadenceChoice};
pub use self::messages::{CheckpointCommand, CheckpointEvent, End};
pub use self::options::CheckpointOptions;
pub use self::retention::Retention;
use self::savepoint::Savepoint;
use crate::bug::{Bug, is_put_back};
use crate::ids::{Epoch, Generation, OperatorId, SubtaskId};
use crate::protocol::{Barrier, Committable, Failure, OperatorSnapshot, SubtaskSnapshot};
use crate::time::Timestamp;

/// Reading state back may take so many times as long as a checkpoint.
const RESTORE_TIMEOUTS: i64 = 16;

/// When checkpoints are taken and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// From one barrier to the next, in milliseconds.
    pub interval_ms: u64,
    /// Least time between the end of one checkpoint and the next barrier, in milliseconds.
    pub min_pause_ms: u64,
    /// A checkpoint that is not complete after so many milliseconds fails the attempt; the time in which subtasks read
    /// their state back does not count.
    pub timeout_ms: u64,
    /// Checkpoints that may run at a time, at least 1; until they are complete.
    pub in_flight_max: usize,
    /// Checkpoints that are kept, at least 1. With 2, one unreadable file does not stop the job.
    pub retained: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { interval_ms: 10_000, min_pause_ms: 0, timeout_ms: 600_000, in_flight_max: 1, retained: 2 }
    }
}

/// Where an attempt starts.
#[derive(Clone, Debug)]
pub struct CheckpointStart {
    /// When checkpoints are taken.
    pub config: CheckpointConfig,
    /// Chooses the time between them; none: it is that of `config`.
    pub cadence: Option<Cadence>,
    /// The attempt.
    pub generation: Generation,
    /// Every subtask of the attempt.
    pub subtasks: BTreeSet<SubtaskId>,
    /// Those that read sources and send barriers; a subset of `subtasks`.
    pub sources: BTreeSet<SubtaskId>,
    /// The epoch of the checkpoint that was restored; 0 without one.
    pub restored: Epoch,
    /// What the clock says in the first epoch of the attempt.
    pub epoch_now: Timestamp,
    /// Barriers of epochs to run again that are complete and published already: those that follow `restored`,
    /// without a gap.
    pub replay: Vec<Barrier>,
    /// Published checkpoints up to `restored` that still exist, each with every object that it names.
    pub retained: BTreeMap<Epoch, BTreeSet<String>>,
    /// Those up to `restored` that are recorded and cannot be read, each with what is known of its objects.
    pub unreadable: BTreeMap<Epoch, BTreeSet<String>>,
    /// Now, by the clock of the events.
    pub started_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Collecting,
    WritingManifest,
    ManifestDurable,
    RecordingComplete,
    Complete,
    Committing,
    Committed,
    RecordingCommitted,
    Done,
}

#[derive(Clone, Debug)]
struct Running {
    barrier: Barrier,
    epoch_now: Timestamp,
    injected_at: Timestamp,
    replayed: bool,
    end: Option<End>,
    phase: Phase,
    snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
    committables: BTreeMap<OperatorId, Vec<Committable>>,
    objects: BTreeSet<String>,
}

/// The machine. See the head of the file.
#[derive(Clone, Debug)]
pub struct CheckpointCoordinator {
    config: CheckpointConfig,
    cadence: Option<Cadence>,
    generation: Generation,
    subtasks: BTreeSet<SubtaskId>,
    sources: BTreeSet<SubtaskId>,
    replay: VecDeque<Barrier>,
    replaying: bool,
    running: BTreeMap<Epoch, Running>,
    retention: Retention,
    last_begun: Epoch,
    epoch_now: Timestamp,
    due_at: Timestamp,
    /// Subtasks that are not known to have their state back.
    restoring: BTreeSet<SubtaskId>,
    /// When the last of them had it.
    restored_at: Timestamp,
    exhausted: BTreeSet<SubtaskId>,
    finished: BTreeSet<SubtaskId>,
    stop_requested: bool,
    end: Option<End>,
    savepoint: Option<Savepoint>,
    closed: bool,
}

impl CheckpointCoordinator {
    /// A machine for an attempt.
    ///
    /// # Panics
    /// Where the limits are 0, a source is not a subtask, or the replayed epochs do not follow the restored
    /// one: the caller has checked all of it.
    #[must_use]
    pub fn new(start: CheckpointStart) -> CheckpointCoordinator {
        let config = start.config;
        assert!(config.in_flight_max > 0 && config.retained > 0, "limits of checkpoints start at 1");
        assert!(start.sources.is_subset(&start.subtasks), "a source that is not a subtask");
        let expected = (start.restored.0 + 1..).map(Epoch);
        assert!(
            start.replay.iter().zip(expected).all(|(b, e)| b.epoch == e),
            "replayed epochs follow the restored one"
        );
        let mut machine = CheckpointCoordinator {
            config,
            cadence: start.cadence,
            generation: start.generation,
            restoring: start.subtasks.clone(),
            restored_at: start.started_at,
            subtasks: start.subtasks,
            sources: start.sources,
            replaying: !start.replay.is_empty(),
            replay: start.replay.into(),
            running: BTreeMap::new(),
            retention: Retention::new(config.retained, start.retained, start.unreadable),
            last_begun: start.restored,
            epoch_now: start.epoch_now,
            due_at: start.started_at,
            exhausted: BTreeSet::new(),
            finished: BTreeSet::new(),
            stop_requested: false,
            end: None,
            savepoint: None,
            closed: false,
        };
        machine.due_at = machine.next_due(start.started_at);
        machine
    }

    /// What has been measured, where the time between checkpoints is chosen.
    #[must_use]
    pub fn cadence(&self) -> Option<&Cadence> {
        self.cadence.as_ref()
    }

    /// When the barrier after one of now is due.
    fn next_due(&self, now: Timestamp) -> Timestamp {
        let chosen = self.cadence.as_ref().map(|cadence| cadence.choice(now).interval_ms);
        now.plus_ms(to_ms(chosen.unwrap_or(self.config.interval_ms)))
    }

    /// Goes on with epochs that another coordinator has begun in the same attempt, oldest first; call it before anything
    /// else. Their barriers have been sent; what the subtasks have reported of them is reported again. `end` is set where
    /// the last epoch of the attempt is complete already.
    ///
    /// # Panics
    /// Where they do not follow the restored epoch, or follow the last one of the job.
    pub fn resume(
        &mut self,
        now: Timestamp,
        end: Option<End>,
        begun: impl IntoIterator<Item = (Barrier, Option<End>)>,
    ) {
        assert!(!self.replaying, "what is replayed is not gone on with");
        self.end = end;
        for (barrier, end) in begun {
            assert!(self.end.is_none(), "epoch {} follows the last one", barrier.epoch);
            self.begin(now, barrier, false, end);
        }
        // The change has cost time already.
        self.due_at = now;
        // Who has said so before does not say it again.
        self.restoring.clear();
    }

    /// When a [`CheckpointEvent::Tick`] is due, by the clock of the events; not needed before.
    #[must_use]
    pub fn next_wakeup(&self) -> Timestamp {
        if self.closed {
            return Timestamp::MAX;
        }
        let timeouts = self.running.values().filter(|r| r.phase < Phase::Complete);
        let timeouts = timeouts.map(|r| self.times_out_at(r));
        let next = if !self.has_room() || self.end.is_some() {
            Timestamp::MAX
        } else if !self.replay.is_empty() || self.begins_last() || self.savepoint_waits() {
            Timestamp::MIN
        } else {
            self.due_at
        };
        timeouts.min().unwrap_or(Timestamp::MAX).min(next)
    }

    /// Takes an event at `now` (milliseconds of a clock that never steps back) and gives what to do, in order.
    pub fn on(&mut self, now: Timestamp, event: CheckpointEvent) -> Vec<CheckpointCommand> {
        let mut commands = Vec::new();
        if self.closed {
            return commands;
        }
        match event {
            CheckpointEvent::Tick { wall } => self.on_tick(now, wall, &mut commands),
            CheckpointEvent::SubtaskRestored { subtask } => self.on_restored(now, subtask),
            CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot } => {
                if generation == self.generation {
                    self.on_restored(now, subtask);
                }
                self.on_snapshot(subtask, generation, epoch, snapshot, &mut commands);
            }
            CheckpointEvent::InputExhausted { subtask } => {
                if self.sources.contains(&subtask) {
                    self.exhausted.insert(subtask);
                } else {
                    refuse(&mut commands, format!("end of input from {subtask}, which is not a source subtask"));
                }
            }
            CheckpointEvent::SubtaskFinished { subtask } => self.on_finished(subtask, &mut commands),
            CheckpointEvent::ManifestDurable { epoch, path } => {
                if self.step(epoch, Phase::WritingManifest, Phase::ManifestDurable, &mut commands) {
                    self.running.get_mut(&epoch).expect("stepped").objects.insert(path);
                }
            }
            CheckpointEvent::CompleteRecorded { epoch } => {
                if self.step(epoch, Phase::RecordingComplete, Phase::Complete, &mut commands) {
                    self.measure(now, epoch, Cadence::on_complete);
                    self.due_at = self.due_at.max(now.plus_ms(to_ms(self.config.min_pause_ms)));
                }
            }
            CheckpointEvent::Committed { epoch } => {
                self.step(epoch, Phase::Committing, Phase::Committed, &mut commands);
            }
            CheckpointEvent::CommitRecorded { epoch } => {
                if self.step(epoch, Phase::RecordingCommitted, Phase::Done, &mut commands) {
                    self.measure(now, epoch, Cadence::on_published);
                }
            }
            CheckpointEvent::RetiredRecorded { epochs } => {
                let in_use = self.running.values().flat_map(|r| r.objects.iter().chain(state_paths(&r.snapshots)));
                let paths = self.retention.remove(&epochs, in_use);
                if !paths.is_empty() {
                    commands.push(CheckpointCommand::DeleteObjects { paths });
                }
            }
            CheckpointEvent::Deleted { failed } => self.retention.deletion_failed(failed),
            CheckpointEvent::StopRequested => self.stop_requested = true,
            CheckpointEvent::SavepointRequested { savepoint, stop } => {
                self.on_savepoint_requested(savepoint, stop, &mut commands);
            }
            CheckpointEvent::SavepointPrepared { savepoint } => self.on_savepoint_prepared(&savepoint, &mut commands),
            CheckpointEvent::SavepointCopied { savepoint } => self.on_savepoint_copied(&savepoint, &mut commands),
            CheckpointEvent::SavepointFailed { savepoint, reason } => {
                self.on_savepoint_failed(&savepoint, reason, &mut commands);
            }
            CheckpointEvent::SavepointRecorded { savepoint } => self.on_savepoint_recorded(&savepoint, &mut commands),
        }
        self.advance(&mut commands);
        commands
    }

    /// The last epoch whose barrier was sent in this attempt, or the restored one.
    #[must_use]
    pub fn last_begun(&self) -> Epoch {
        self.last_begun
    }

    /// With what the attempt ends, once its last barrier was sent.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Checkpoints that have begun and are not published yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Whether every subtask has taken its last snapshot and ended.
    #[must_use]
    pub fn every_subtask_has_finished(&self) -> bool {
        self.finished == self.subtasks
    }

    fn on_tick(&mut self, now: Timestamp, wall: Timestamp, commands: &mut Vec<CheckpointCommand>) {
        let late = |r: &&Running| r.phase < Phase::Complete && now >= self.times_out_at(r);
        if let Some(late) = self.running.values().find(late) {
            let message = self.timeout_message(late);
            self.fail(message, commands);
            return;
        }
        if !self.has_room() || self.end.is_some() {
            return;
        }
        if let Some(barrier) = self.replay.pop_front() {
            self.begin(now, barrier, true, None);
            commands.push(CheckpointCommand::Replay { barrier });
        } else if self.begins_last() || self.savepoint_waits() || now >= self.due_at {
            // Not before the running epoch's own time, or time would run backwards for `NOW()` where the
            // clock of the machine was set back.
            let least = if is_put_back(Bug::ClockGoesBack) { wall } else { self.epoch_now };
            let barrier = Barrier { epoch: self.last_begun.next(), next_epoch_now: wall.max(least) };
            let end = self.begins_last().then(|| if self.is_exhausted() { End::InputEnd } else { End::Stop });
            self.begin(now, barrier, false, end);
            self.note_savepoint_epoch(barrier.epoch);
            self.due_at = self.next_due(now);
            commands.push(CheckpointCommand::InjectBarrier { barrier, last: end.is_some() });
        }
    }

    /// When a checkpoint counts as failed. Barriers wait where subtasks still read their state, which takes as long as there is
    /// much of it.
    fn times_out_at(&self, running: &Running) -> Timestamp {
        let timeout_ms = to_ms(self.config.timeout_ms);
        match self.restoring.is_empty() {
            true => running.injected_at.max(self.restored_at).plus_ms(timeout_ms),
            false => running.injected_at.plus_ms(timeout_ms.saturating_mul(RESTORE_TIMEOUTS)),
        }
    }

    fn on_restored(&mut self, now: Timestamp, subtask: SubtaskId) {
        if self.restoring.remove(&subtask) && self.restoring.is_empty() {
            self.restored_at = now;
        }
    }

    fn begin(&mut self, now: Timestamp, barrier: Barrier, replayed: bool, end: Option<End>) {
        assert!(barrier.epoch > self.last_begun, "epoch {} begun after {}", barrier.epoch, self.last_begun);
        let running = Running {
            barrier,
            epoch_now: self.epoch_now,
            injected_at: now,
            replayed,
            end,
            phase: Phase::Collecting,
            snapshots: BTreeMap::new(),
            committables: BTreeMap::new(),
            objects: BTreeSet::new(),
        };
        self.running.insert(barrier.epoch, running);
        self.last_begun = barrier.epoch;
        self.epoch_now = barrier.next_epoch_now;
        self.end = end;
    }

    fn on_snapshot(
        &mut self,
        subtask: SubtaskId,
        generation: Generation,
        epoch: Epoch,
        snapshot: SubtaskSnapshot,
        commands: &mut Vec<CheckpointCommand>,
    ) {
        if generation != self.generation && !is_put_back(Bug::OlderReportCounts) {
            refuse(
                commands,
                format!(
                    "snapshot of {subtask} for epoch {epoch} is of generation {generation}, not {}",
                    self.generation
                ),
            );
        } else if !self.subtasks.contains(&subtask) {
            refuse(commands, format!("snapshot for epoch {epoch} is of {subtask}, which this attempt does not have"));
        } else if epoch > self.last_begun {
            refuse(commands, format!("snapshot of {subtask} is for epoch {epoch}, which has not begun"));
        } else if let Some(running) = self.running.get_mut(&epoch)
            && running.phase == Phase::Collecting
        {
            let missing = self.subtasks.iter().find(|s| !running.snapshots.contains_key(s));
            let subtask = missing.filter(|_| is_put_back(Bug::WrongSubtaskCounted)).copied().unwrap_or(subtask);
            // The first one counts: a duplicate says the same.
            running.snapshots.entry(subtask).or_insert(snapshot);
        }
    }

    fn on_finished(&mut self, subtask: SubtaskId, commands: &mut Vec<CheckpointCommand>) {
        if !self.subtasks.contains(&subtask) {
            refuse(commands, format!("end of {subtask}, which this attempt does not have"));
        } else if self.end.is_none() {
            self.fail(format!("subtask {subtask} ended before the job did"), commands);
        } else {
            self.finished.insert(subtask);
        }
    }

    /// Takes down how long after its barrier an epoch has come so far. Replayed ones are in a hurry and say nothing.
    fn measure(&mut self, now: Timestamp, epoch: Epoch, note: fn(&mut Cadence, i64)) {
        let running = self.running.get(&epoch).filter(|running| !running.replayed);
        if let (Some(cadence), Some(running)) = (&mut self.cadence, running) {
            note(cadence, now.since_ms(running.injected_at));
        }
    }

    /// Moves an epoch to its next phase when it is in the one before; a report that comes twice or for an
    /// unknown epoch is refused.
    fn step(&mut self, epoch: Epoch, from: Phase, to: Phase, commands: &mut Vec<CheckpointCommand>) -> bool {
        match self.running.get_mut(&epoch) {
            Some(running) if running.phase == from => {
                running.phase = to;
                true
            }
            _ => {
                refuse(commands, format!("epoch {epoch} was reported as past {from:?}, where it is not"));
                false
            }
        }
    }

    /// Lets every running epoch, oldest first, take the steps that have become possible.
    fn advance(&mut self, commands: &mut Vec<CheckpointCommand>) {
        if self.closed {
            return;
        }
        // The phase of the epoch before; an epoch never overtakes it.
        let mut ahead = Phase::Done;
        for running in self.running.values_mut() {
            let epoch = running.barrier.epoch;
            match running.phase {
                Phase::Collecting
                    if running.snapshots.len() == self.subtasks.len() && ahead >= Phase::WritingManifest =>
                {
                    commands.push(running.write_manifest());
                }
                Phase::ManifestDurable if ahead >= Phase::Complete => {
                    if is_put_back(Bug::CommitBeforeRecord) {
                        let committables = running.committables.clone();
                        commands.push(CheckpointCommand::Commit { epoch, committables });
                    }
                    running.phase = Phase::RecordingComplete;
                    commands.push(CheckpointCommand::RecordComplete { epoch });
                }
                Phase::Complete if running.replayed && ahead == Phase::Done => running.phase = Phase::Done,
                Phase::Complete if running.end.is_some() && is_put_back(Bug::LastEpochNotPublished) => {
                    running.phase = Phase::Done;
                }
                Phase::Complete if ahead == Phase::Done || is_put_back(Bug::CommitsOvertake) => {
                    running.phase = Phase::Committing;
                    let committables = std::mem::take(&mut running.committables);
                    commands.push(CheckpointCommand::Commit { epoch, committables });
                }
                Phase::Committed => {
                    running.phase = Phase::RecordingCommitted;
                    commands.push(CheckpointCommand::RecordCommitted { epoch });
                }
                _ => {}
            }
            ahead = running.phase;
        }
        self.close_done(commands);
    }

    /// Takes out the epochs that are through, retires older ones for them, and ends the attempt after the last.
    fn close_done(&mut self, commands: &mut Vec<CheckpointCommand>) {
        while let Some(first) = self.running.first_entry()
            && first.get().phase == Phase::Done
        {
            let (epoch, done) = first.remove_entry();
            if let Some(savepoint) = self.savepoint_of(epoch) {
                self.retention.hold(done.objects.clone());
                commands.push(CheckpointCommand::CopySavepoint { savepoint, epoch });
            }
            let epochs = self.retention.add(epoch, done.objects);
            if !epochs.is_empty() {
                commands.push(CheckpointCommand::RecordRetired { epochs });
            }
        }
        if self.replaying && self.replay.is_empty() && self.running.is_empty() {
            self.replaying = false;
            commands.push(CheckpointCommand::ReplayDone);
        }
        if let Some(end) = self.end
            && self.running.is_empty()
            && self.every_subtask_has_finished()
            && !self.retention.is_retiring()
        {
            if self.savepoint.is_none() {
                self.closed = true;
                commands.push(CheckpointCommand::Finish { end });
            } else {
                commands.extend(self.savepoint_at_end());
            }
        }
    }

    fn fail(&mut self, message: String, commands: &mut Vec<CheckpointCommand>) {
        self.closed = true;
        let failure = Failure { message, retryable: true, consequence: false };
        commands.push(CheckpointCommand::FailAttempt { failure });
    }

    fn timeout_message(&self, late: &Running) -> String {
        let epoch = late.barrier.epoch;
        let timeout_ms = self.config.timeout_ms;
        let missing: Vec<_> = self.subtasks.iter().filter(|s| !late.snapshots.contains_key(s)).collect();
        if let Some(one) = self.restoring.first() {
            return format!(
                "{} of {} subtasks, {one} among them, do not have their state back after {RESTORE_TIMEOUTS} times the \
                 {timeout_ms} ms of 'execution.checkpointing.timeout'; check the store, or raise the time-out",
                self.restoring.len(),
                self.subtasks.len()
            );
        }
        if late.phase != Phase::Collecting {
            return format!("checkpoint {epoch} was not recorded within {timeout_ms} ms; check the state directory");
        }
        let first: Vec<_> = missing.iter().take(5).map(ToString::to_string).collect();
        format!(
            "checkpoint {epoch} was not complete within {timeout_ms} ms: {} of {} subtasks are missing, among them {}; \
             raise 'execution.checkpointing.timeout' or find out what slows them down",
            missing.len(),
            self.subtasks.len(),
            first.join(", ")
        )
    }

    /// Whether another epoch may begin. Beside those that are being taken, one may wait for its output to become visible: that
    /// takes as long as the outside needs, and nothing but its order depends on it.
    fn has_room(&self) -> bool {
        if self.replaying {
            return self.running.is_empty();
        }
        let taken = self.running.values().filter(|running| running.phase < Phase::Complete).count();
        taken < self.config.in_flight_max && self.running.len() <= self.config.in_flight_max
    }

    fn is_exhausted(&self) -> bool {
        self.exhausted == self.sources
    }

    /// Whether the next epoch is the last one.
    fn begins_last(&self) -> bool {
        let wanted = self.stop_requested || self.is_exhausted() || self.savepoint_stops();
        wanted && !self.savepoint_is_prepared_for()
    }
}

impl Running {
    /// All snapshots are here.
    fn write_manifest(&mut self) -> CheckpointCommand {
        self.phase = Phase::WritingManifest;
        let mut snapshots = std::mem::take(&mut self.snapshots);
        for snapshot in snapshots.values_mut() {
            for (operator, part) in snapshot {
                if self.replayed && !is_put_back(Bug::ReplayPublishedAgain) {
                    // The output of this epoch is visible already, from its first run.
                    part.committables.clear();
                } else if !part.committables.is_empty() {
                    self.committables.entry(*operator).or_default().extend(part.committables.iter().cloned());
                }
            }
        }
        self.objects.extend(state_paths(&snapshots).cloned());
        let (barrier, epoch_now, end) = (self.barrier, self.epoch_now, self.end);
        CheckpointCommand::WriteManifest { barrier, epoch_now, snapshots, end }
    }
}

fn state_paths(snapshots: &BTreeMap<SubtaskId, SubtaskSnapshot>) -> impl Iterator<Item = &String> {
    snapshots.values().flat_map(|s| s.values()).flat_map(OperatorSnapshot::files).map(|handle| &handle.path)
}

fn refuse(commands: &mut Vec<CheckpointCommand>, reason: String) {
    commands.push(CheckpointCommand::Refused { reason });
}

fn to_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
