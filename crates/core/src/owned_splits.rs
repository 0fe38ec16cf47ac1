//! The splits of a source subtask: how far each has been read, the watermark that the subtask sends, and what
//! of it must be recorded so that a replay repeats it (I6). Driven by the subtask's task; time is told to it.
//!
//! Idleness is resolved here and nowhere downstream: a subtask sends plain watermarks that never go back. With
//! a split that is neither finished nor idle it sends the least of theirs; without one it follows what the
//! coordinator tells it ([`crate::idleness`]).
//!
//! Invariants:
//! - The watermark of a split that is being read and not idle is at or above what the subtask has sent: a split
//!   that joins late, or comes back, is raised to it (its *floor*). Since every watermark downstream is at or
//!   below what any subtask has sent, a row that is on time for its own split is on time everywhere.
//! - Every floor is noted with the position at which it was given. An idle spell lasts at least the time-out,
//!   which has a least value, so that an epoch holds few of them.
//! - In a replay nothing is judged by time: floors come from the record, and what is sent stays at or below the
//!   recorded watermark until all of the epoch has been read, then reaches it.

mod replay;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::replay::Piece;
use self::replay::Replay;
use crate::bug::{Bug, is_put_back};
use crate::ids::SplitId;
use crate::protocol::{Floor, OperatorSnapshot, SourceStatus, SplitProgress, SplitState};
use crate::time::Timestamp;

#[derive(Clone, Debug)]
struct OwnedSplit {
    state: SplitState,
    watermark: Timestamp,
    silent: Duration,
    /// It is too far ahead of others to be read on.
    is_held: bool,
}

impl OwnedSplit {
    fn position(&self) -> Option<&String> {
        match &self.state.progress {
            Some(SplitProgress::Reading { position, .. }) => Some(position),
            Some(SplitProgress::Finished) | None => None,
        }
    }

    fn set_watermark(&mut self, to: Timestamp) {
        self.watermark = to;
        if let Some(SplitProgress::Reading { watermark, .. }) = &mut self.state.progress {
            *watermark = to;
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct OwnedSplits {
    splits: BTreeMap<SplitId, OwnedSplit>,
    /// Lower bound on the watermarks of splits that nobody has begun.
    unassigned: Timestamp,
    no_more: bool,
    idle_timeout: Option<Duration>,
    /// The greatest watermark of the splits that are finished.
    finished: Timestamp,
    /// The greatest watermark that the coordinator has told to follow.
    followed: Timestamp,
    /// The subtask's watermark.
    emitted: Timestamp,
    /// What of it the caller has been given to send.
    sent: Timestamp,
    /// Floors given in this epoch, in their order.
    floors: Vec<Floor>,
    replay: Option<Replay>,
}

impl OwnedSplits {
    /// No splits yet. A split that is silent for `idle_timeout` does not hold back the watermark. `start` is
    /// the watermark that the source had reached in the checkpoint that was restored, [`Timestamp::MIN`]
    /// without one; `replaying` says that recorded epochs are run again first.
    #[must_use]
    pub fn new(idle_timeout: Option<Duration>, start: Timestamp, replaying: bool) -> Self {
        OwnedSplits {
            splits: BTreeMap::new(),
            unassigned: Timestamp::MIN,
            no_more: false,
            idle_timeout,
            finished: Timestamp::MIN,
            followed: Timestamp::MIN,
            emitted: if is_put_back(Bug::WatermarkNotRestored) { Timestamp::MIN } else { start },
            sent: Timestamp::MIN,
            floors: Vec::new(),
            replay: replaying.then(|| Replay::new(start)),
        }
    }

    /// Takes on a split.
    pub fn add(&mut self, state: SplitState) {
        let watermark = match &state.progress {
            Some(SplitProgress::Reading { watermark, .. }) => *watermark,
            Some(SplitProgress::Finished) | None => Timestamp::MIN,
        };
        let id = state.split.id.clone();
        self.splits.insert(id.clone(), OwnedSplit { state, watermark, silent: Duration::ZERO, is_held: false });
        if self.replay.is_none() {
            self.raise(&id, self.emitted);
        }
    }

    /// Whether a split was given to the subtask and was not finished before this epoch.
    #[must_use]
    pub fn holds(&self, id: &SplitId) -> bool {
        self.splits.contains_key(id)
    }

    /// Rows of a split have come: it is not idle any more. Gives the watermark against which they are judged.
    pub fn wake(&mut self, id: &SplitId) -> Timestamp {
        let returns = self.splits.get(id).is_some_and(|split| self.is_idle(split));
        if returns && !is_put_back(Bug::ReturningSplitNotRaised) {
            self.raise(id, self.emitted);
        }
        let Some(split) = self.splits.get_mut(id) else { return self.emitted };
        split.silent = Duration::ZERO;
        split.watermark
    }

    /// A split has been read up to a position.
    pub fn progress(&mut self, id: &SplitId, position: String, watermark: Timestamp) {
        if let Some(split) = self.splits.get_mut(id) {
            split.watermark = split.watermark.max(watermark);
            split.state.progress = Some(SplitProgress::Reading { position, watermark: split.watermark });
        }
    }

    /// A split that is being read goes on at another position, though nothing was read.
    pub fn note_position(&mut self, id: &SplitId, position: String) {
        let split = self.splits.get_mut(id);
        if let Some(SplitProgress::Reading { position: known, .. }) =
            split.and_then(|split| split.state.progress.as_mut())
        {
            *known = position;
        }
    }

    /// A split has been read to its end.
    pub fn finish(&mut self, id: &SplitId) {
        if let Some(split) = self.splits.get_mut(id) {
            split.state.progress = Some(SplitProgress::Finished);
            self.finished = self.finished.max(split.watermark);
        }
    }

    /// A bound on what splits that nobody has begun may still bring.
    pub fn bound_unassigned(&mut self, bound: Timestamp) {
        self.unassigned = bound;
    }

    /// While the subtask is idle it is to send this watermark on.
    pub fn follow(&mut self, watermark: Timestamp) {
        self.followed = self.followed.max(watermark);
    }

    /// No split will be added any more.
    pub fn no_more(&mut self) {
        self.no_more = true;
    }

    /// Whether no split will be added any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.no_more
    }

    /// Whether nothing will be read any more.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.no_more && self.unfinished() == 0
    }

    /// Splits that are not read to their end.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.splits.values().filter(|s| !s.state.is_finished()).count()
    }

    /// All splits, with their progress.
    #[must_use]
    pub fn states(&self) -> Vec<SplitState> {
        self.splits.values().map(|s| s.state.clone()).collect()
    }

    /// Some time has passed in which every split was listened to that is not held. Means nothing in a replay.
    pub fn tick(&mut self, passed: Duration) {
        if self.replay.is_none() {
            let listened_to = self.splits.values_mut().filter(|s| !s.is_held);
            listened_to.for_each(|s| s.silent = s.silent.saturating_add(passed));
        }
    }

    /// Whether some split is held.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.splits.values().any(|split| split.is_held)
    }

    /// Holds the splits whose watermarks are ahead of `bound`, and lets the others go. Gives those for which that is new,
    /// with whether they are held. In a replay none is held.
    pub fn hold_ahead_of(&mut self, bound: Timestamp) -> Vec<(SplitId, bool)> {
        let is_replay = self.replay.is_some();
        let mut changed = Vec::new();
        for (id, split) in &mut self.splits {
            let is_held = !is_replay && split.watermark > bound && !split.state.is_finished();
            if is_held != split.is_held {
                split.is_held = is_held;
                changed.push((id.clone(), is_held));
            }
        }
        changed
    }

    /// The subtask's watermark, where it has to be sent. Never goes back.
    pub fn advance(&mut self) -> Option<Timestamp> {
        let target = match (&self.replay, self.own()) {
            (Some(replay), _) if replay.is_read() => replay.watermark(),
            (Some(replay), own) => own.unwrap_or(Timestamp::MIN).min(replay.watermark()),
            (None, own) => own.unwrap_or(self.followed),
        };
        self.emitted = self.emitted.max(target);
        let news = self.emitted > self.sent;
        self.sent = self.emitted;
        news.then_some(self.emitted)
    }

    /// What the coordinator is to know.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        let greatest = self.splits.values().map(|s| s.watermark).max().unwrap_or(Timestamp::MIN).max(self.finished);
        match self.own() {
            _ if self.is_exhausted() => SourceStatus::Ended { greatest },
            Some(_) => SourceStatus::Active { watermark: self.emitted },
            None if is_put_back(Bug::IdleIsEndOfTime) => SourceStatus::Idle { greatest: Timestamp::MAX },
            None => SourceStatus::Idle { greatest },
        }
    }

    /// Ends the epoch: gives its part of the checkpoint. Splits that are finished are told once, and dropped.
    pub fn end_epoch(&mut self) -> OperatorSnapshot {
        let floors = std::mem::take(&mut self.floors);
        // The checkpoint has no place for the watermark of a split of which nothing has been read.
        let unread = self.splits.values().filter(|s| s.state.progress.is_none() && s.watermark > Timestamp::MIN);
        let floor = |s: &OwnedSplit| Floor { split: s.state.split.id.clone(), position: None, watermark: s.watermark };
        self.floors = unread.map(floor).collect();
        let splits = self.states();
        self.splits.retain(|_, split| !split.state.is_finished());
        OperatorSnapshot { splits, floors, watermark: Some(self.sent), ..OperatorSnapshot::default() }
    }

    /// What the subtask's own splits allow to send; none where it is idle.
    fn own(&self) -> Option<Timestamp> {
        if self.is_exhausted() {
            return Some(Timestamp::MAX);
        }
        let reading = self.splits.values().filter(|s| !s.state.is_finished() && !self.is_idle(s));
        let watermarks = reading.map(|s| s.watermark);
        let least = if is_put_back(Bug::FastestSplitLeads) { watermarks.max() } else { watermarks.min() };
        match least {
            Some(least) => Some(least.min(self.unassigned)),
            // Nothing to read at the moment, but more may come: nobody waits for this subtask meanwhile,
            // unless there are splits that no one has begun.
            None => Some(self.unassigned).filter(|bound| *bound < Timestamp::MAX),
        }
    }

    fn is_idle(&self, split: &OwnedSplit) -> bool {
        self.replay.is_none() && self.idle_timeout.is_some_and(|timeout| split.silent > timeout)
    }

    /// Raises a split's watermark to a floor, and notes it.
    fn raise(&mut self, id: &SplitId, floor: Timestamp) {
        let Some(split) = self.splits.get_mut(id).filter(|s| !s.state.is_finished() && s.watermark < floor) else {
            return;
        };
        self.floors.push(Floor { split: id.clone(), position: split.position().cloned(), watermark: floor });
        split.set_watermark(floor);
    }
}

#[cfg(test)]
mod tests;
