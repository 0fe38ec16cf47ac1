//! The splits of a source subtask: how far each has been read, and the watermark over all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstem_core::ids::SplitId;
use mainstem_core::protocol::{SplitProgress, SplitState};
use mainstem_core::time::Timestamp;
use mainstem_core::watermark::WatermarkStatus;

struct OwnedSplit {
    state: SplitState,
    watermark: Timestamp,
    silent: Duration,
    /// In a replay: whether the split is finished where its reader ends.
    replay_finishes: bool,
}

impl OwnedSplit {
    fn is_finished(&self) -> bool {
        self.state.progress == Some(SplitProgress::Finished)
    }
}

/// See the module.
pub(crate) struct OwnedSplits {
    splits: BTreeMap<SplitId, OwnedSplit>,
    /// Lower bound on the watermarks of splits that nobody has begun.
    unassigned: Timestamp,
    no_more: bool,
    idle_timeout: Option<Duration>,
    emitted: WatermarkStatus,
    greatest: Timestamp,
}

impl OwnedSplits {
    /// No splits yet. A split that is silent for `idle_timeout` does not hold back the watermark.
    pub(crate) fn new(idle_timeout: Option<Duration>) -> Self {
        OwnedSplits {
            splits: BTreeMap::new(),
            unassigned: Timestamp::MIN,
            no_more: false,
            idle_timeout,
            emitted: WatermarkStatus::Active(Timestamp::MIN),
            greatest: Timestamp::MIN,
        }
    }

    /// The time-out after which a silent split is idle.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// Takes on a split.
    pub(crate) fn add(&mut self, state: SplitState) {
        let watermark = match &state.progress {
            Some(SplitProgress::Reading { watermark, .. }) => *watermark,
            Some(SplitProgress::Finished) | None => Timestamp::MIN,
        };
        let owned = OwnedSplit { state, watermark, silent: Duration::ZERO, replay_finishes: false };
        self.splits.insert(owned.state.split.id.clone(), owned);
    }

    /// The split's watermark; none for a split that is not owned.
    pub(crate) fn watermark_of(&self, id: &SplitId) -> Timestamp {
        self.splits.get(id).map_or(Timestamp::MIN, |s| s.watermark)
    }

    /// A split has been read up to a position.
    pub(crate) fn progress(&mut self, id: &SplitId, position: String, watermark: Timestamp) {
        if let Some(split) = self.splits.get_mut(id) {
            split.watermark = split.watermark.max(watermark);
            split.silent = Duration::ZERO;
            split.state.progress = Some(SplitProgress::Reading { position, watermark: split.watermark });
        }
    }

    /// A split has been read to its end.
    pub(crate) fn finish(&mut self, id: &SplitId) {
        if let Some(split) = self.splits.get_mut(id) {
            split.state.progress = Some(SplitProgress::Finished);
        }
    }

    /// A bound on what splits that nobody has begun may still bring.
    pub(crate) fn bound_unassigned(&mut self, bound: Timestamp) {
        self.unassigned = bound;
    }

    /// No split will be added any more.
    pub(crate) fn no_more(&mut self) {
        self.no_more = true;
    }

    /// Whether no split will be added any more.
    pub(crate) fn is_complete(&self) -> bool {
        self.no_more
    }

    /// Whether nothing will be read any more.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.no_more && self.active() == 0
    }

    /// Splits that are being read.
    pub(crate) fn active(&self) -> usize {
        self.splits.values().filter(|s| !s.is_finished()).count()
    }

    /// All splits, with their progress, for a checkpoint. Those that are finished are told once, and dropped.
    pub(crate) fn report(&mut self) -> Vec<SplitState> {
        let states = self.states();
        self.splits.retain(|_, split| !split.is_finished());
        states
    }

    /// All splits, with their progress.
    pub(crate) fn states(&self) -> Vec<SplitState> {
        self.splits.values().map(|s| s.state.clone()).collect()
    }

    /// One split with its progress.
    pub(crate) fn state(&self, id: &SplitId) -> Option<SplitState> {
        self.splits.get(id).map(|s| s.state.clone())
    }

    /// In a replay: whether the split is finished where its reader will end.
    pub(crate) fn set_replay_end(&mut self, id: &SplitId, finishes: bool) {
        if let Some(split) = self.splits.get_mut(id) {
            split.replay_finishes = finishes;
        }
    }

    /// See [`OwnedSplits::set_replay_end`].
    pub(crate) fn replay_finishes(&self, id: &SplitId) -> bool {
        self.splits.get(id).is_some_and(|s| s.replay_finishes)
    }

    /// Some time has passed.
    pub(crate) fn tick(&mut self, passed: Duration) {
        self.splits.values_mut().for_each(|s| s.silent += passed);
    }

    /// The watermark over all splits, if it is news. Never goes back.
    pub(crate) fn advance(&mut self) -> Option<WatermarkStatus> {
        let status = self.status();
        if status == self.emitted {
            return None;
        }
        self.emitted = status;
        if let WatermarkStatus::Active(watermark) = status {
            self.greatest = watermark;
        }
        Some(status)
    }

    fn status(&self) -> WatermarkStatus {
        if self.is_exhausted() {
            return WatermarkStatus::Active(Timestamp::MAX);
        }
        let is_idle = |s: &OwnedSplit| self.idle_timeout.is_some_and(|timeout| s.silent > timeout);
        let reading = self.splits.values().filter(|s| !s.is_finished() && !is_idle(s));
        match reading.map(|s| s.watermark).min() {
            Some(least) => WatermarkStatus::Active(least.min(self.unassigned).max(self.greatest)),
            // Nothing to read at the moment, but more may come: nobody waits for this subtask meanwhile,
            // unless there are splits that no one has begun.
            None if self.unassigned == Timestamp::MAX => WatermarkStatus::Idle,
            None => WatermarkStatus::Active(self.unassigned.max(self.greatest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::protocol::SourceSplit;

    use super::*;

    fn split(name: &str) -> SplitState {
        let split = SourceSplit { id: SplitId(name.to_owned()), payload: String::new() };
        SplitState { split, progress: None }
    }

    fn read(splits: &mut OwnedSplits, name: &str, watermark: i64) -> Option<WatermarkStatus> {
        splits.progress(&SplitId(name.to_owned()), String::new(), Timestamp(watermark));
        splits.advance()
    }

    #[test]
    fn a_split_that_nobody_has_begun_holds_the_watermark_back() {
        let mut splits = OwnedSplits::new(None);
        splits.add(split("a"));
        assert_eq!(read(&mut splits, "a", 10), None);
        splits.bound_unassigned(Timestamp::MAX);
        assert_eq!(splits.advance(), Some(WatermarkStatus::Active(Timestamp(10))));
        splits.add(split("b"));
        assert_eq!(read(&mut splits, "a", 20), None, "b is owned and has shown nothing");
        assert_eq!(read(&mut splits, "b", 15), Some(WatermarkStatus::Active(Timestamp(15))));
        splits.finish(&SplitId("b".into()));
        assert_eq!(splits.advance(), Some(WatermarkStatus::Active(Timestamp(20))));
        splits.finish(&SplitId("a".into()));
        assert_eq!(splits.advance(), Some(WatermarkStatus::Idle), "more splits may come");
        splits.no_more();
        assert_eq!(splits.advance(), Some(WatermarkStatus::Active(Timestamp::MAX)));
    }

    #[test]
    fn a_silent_split_is_idle_after_its_time() {
        let mut splits = OwnedSplits::new(Some(Duration::from_secs(1)));
        splits.bound_unassigned(Timestamp::MAX);
        splits.add(split("a"));
        splits.add(split("b"));
        assert_eq!(read(&mut splits, "a", 10), None);
        splits.tick(Duration::from_secs(2));
        assert_eq!(read(&mut splits, "a", 11), Some(WatermarkStatus::Active(Timestamp(11))));
        assert_eq!(read(&mut splits, "b", 5), None, "it comes back behind, the watermark stays");
    }
}
