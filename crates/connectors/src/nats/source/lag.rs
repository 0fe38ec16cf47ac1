//! How many messages of a split are there and not decoded yet, for those who look on. Messages that flow say themselves how many
//! are behind them; while nobody takes what has come, the puller asks the server.

use std::sync::{Mutex, PoisonError};

use mainstem_core::lag::LagUnit;

use crate::lag::SplitLag;

/// How far a split is read, told by its puller and its reader.
#[derive(Debug)]
pub(super) struct Progress {
    shown: SplitLag,
    left: Mutex<Left>,
}

/// Messages that are not decoded.
#[derive(Debug, Default)]
struct Left {
    /// Handed to the reader.
    handed: u64,
    /// Behind those.
    behind: u64,
}

impl Progress {
    /// Nothing is known yet of the split whose lag is shown there.
    pub(super) fn new(shown: SplitLag) -> Progress {
        Progress { shown, left: Mutex::default() }
    }

    /// So many messages are there behind what was handed to the reader.
    pub(super) fn on_behind(&self, messages: u64) {
        self.change(|left| left.behind = messages);
    }

    /// So many messages are for the reader, and so many are there behind them.
    pub(super) fn on_handed(&self, messages: usize, behind: u64) {
        self.change(|left| *left = Left { handed: left.handed + messages as u64, behind });
    }

    /// So many messages are decoded.
    pub(super) fn on_decoded(&self, messages: usize) {
        self.change(|left| left.handed = left.handed.saturating_sub(messages as u64));
    }

    fn change(&self, change: impl FnOnce(&mut Left)) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut left);
        self.shown.set(LagUnit::Records, left.handed + left.behind);
    }
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::SplitId;

    use crate::lag::SplitLags;

    use super::*;

    #[test]
    fn what_waits_for_the_reader_is_not_read_yet() {
        let lags = SplitLags::default();
        let progress = Progress::new(lags.split(&SplitId("orders".to_owned())));
        let lag = || lags.read().map(|lag| lag.total);
        assert_eq!(lag(), None);
        progress.on_behind(10);
        assert_eq!(lag(), Some(10));
        progress.on_handed(3, 7);
        assert_eq!(lag(), Some(10));
        progress.on_decoded(2);
        assert_eq!(lag(), Some(8));
        progress.on_behind(9);
        assert_eq!(lag(), Some(10), "two have come since");
        progress.on_decoded(1);
        progress.on_handed(9, 0);
        progress.on_decoded(9);
        assert_eq!(lag(), Some(0));
    }
}
