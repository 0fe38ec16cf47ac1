//! Where readers say how far their splits are behind what could be read. The engine shows it; nothing else depends on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstem_core::ids::SplitId;
use mainstem_core::lag::{LagUnit, SourceLag};

/// The lag of the splits that the subtasks of a source read in this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SplitLags {
    of: Arc<Mutex<BTreeMap<SplitId, (LagUnit, u64)>>>,
}

impl SplitLags {
    /// Where the lag of a split can be set.
    #[must_use]
    pub fn split(&self, split: &SplitId) -> SplitLag {
        SplitLag { lags: self.clone(), split: split.clone() }
    }

    /// What is known now; none where no reader has said anything. A source counts one thing in all of its splits.
    #[must_use]
    pub fn read(&self) -> Option<SourceLag> {
        let of = self.lock();
        let (unit, _) = of.values().next()?;
        Some(SourceLag::of(*unit, of.iter().map(|(split, (_, lag))| (split.clone(), *lag))))
    }

    /// Forgets everything: other readers begin.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SplitId, (LagUnit, u64)>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lag of one split. With it goes what it said.
#[derive(Debug)]
pub struct SplitLag {
    lags: SplitLags,
    split: SplitId,
}

impl SplitLag {
    /// So much could be read and was not yet.
    pub fn set(&self, unit: LagUnit, lag: u64) {
        self.lags.lock().insert(self.split.clone(), (unit, lag));
    }
}

impl Drop for SplitLag {
    fn drop(&mut self) {
        self.lags.lock().remove(&self.split);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_known_as_long_as_somebody_tells_it() {
        let lags = SplitLags::default();
        assert_eq!(lags.read(), None);
        let splits = ["a", "b"].map(|name| lags.split(&SplitId(name.to_owned())));
        assert_eq!(lags.read(), None, "nothing was said yet");
        splits[0].set(LagUnit::Records, 3);
        splits[1].set(LagUnit::Records, 5);
        splits[1].set(LagUnit::Records, 4);
        assert_eq!(lags.read().unwrap().total, 7);
        let [gone, left] = splits;
        drop(gone);
        assert_eq!(lags.read().unwrap().splits, [(SplitId("b".to_owned()), 4)]);
        drop(left);
        assert_eq!(lags.read(), None);
    }
}
