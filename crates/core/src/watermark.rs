//! Merging the watermarks of several inputs into the watermark of a subtask: the minimum over the inputs that
//! are not idle. Called by the engine for exchange inputs and for the splits of a source. The result never
//! goes back.

use crate::time::Timestamp;

/// The watermark of one input, or that the input is idle and holds nobody back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkStatus {
    /// No row with an event time at or below it is still to come.
    Active(Timestamp),
    /// Nothing has come for a while; others need not wait.
    Idle,
}

/// Keeps the watermark of each input and the minimum over those that are active.
#[derive(Clone, Debug)]
pub struct WatermarkMerger {
    inputs: Vec<WatermarkStatus>,
    merged: WatermarkStatus,
    /// The greatest watermark that was ever given out; kept apart because an idle spell hides it.
    emitted: Timestamp,
}

impl WatermarkMerger {
    /// A merger of so many inputs, none of which has shown anything yet.
    #[must_use]
    pub fn new(inputs: usize) -> Self {
        let unknown = WatermarkStatus::Active(Timestamp::MIN);
        WatermarkMerger { inputs: vec![unknown; inputs], merged: unknown, emitted: Timestamp::MIN }
    }

    /// Takes the news of one input and gives the merged status, if that changed. An input's own watermark
    /// never goes back; an older one is ignored.
    pub fn update(&mut self, input: usize, status: WatermarkStatus) -> Option<WatermarkStatus> {
        self.inputs[input] = match (self.inputs[input], status) {
            (WatermarkStatus::Active(old), WatermarkStatus::Active(new)) => WatermarkStatus::Active(old.max(new)),
            (_, new) => new,
        };
        let minimum = self.inputs.iter().filter_map(|s| match s {
            WatermarkStatus::Active(watermark) => Some(*watermark),
            WatermarkStatus::Idle => None,
        });
        let merged = match minimum.min() {
            // An input that was idle may come back behind the others; what was given out stands.
            Some(watermark) => WatermarkStatus::Active(watermark.max(self.emitted)),
            None => WatermarkStatus::Idle,
        };
        if merged == self.merged {
            return None;
        }
        self.merged = merged;
        if let WatermarkStatus::Active(watermark) = merged {
            self.emitted = watermark;
        }
        Some(merged)
    }

    /// The greatest watermark given out so far.
    #[must_use]
    pub fn emitted(&self) -> Timestamp {
        self.emitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(ms: i64) -> WatermarkStatus {
        WatermarkStatus::Active(Timestamp(ms))
    }

    #[test]
    fn the_minimum_of_active_inputs_wins_and_never_goes_back() {
        let mut merger = WatermarkMerger::new(2);
        assert_eq!(merger.update(0, active(10)), None, "the other input has shown nothing");
        assert_eq!(merger.update(1, active(5)), Some(active(5)));
        assert_eq!(merger.update(1, active(3)), None, "an input's watermark does not go back");
        assert_eq!(merger.update(1, active(20)), Some(active(10)));
        assert_eq!(merger.update(0, WatermarkStatus::Idle), Some(active(20)));
        assert_eq!(merger.update(1, WatermarkStatus::Idle), Some(WatermarkStatus::Idle));
        assert_eq!(merger.update(0, active(12)), Some(active(20)), "a woken input does not pull it back");
        assert_eq!(merger.emitted(), Timestamp(20));
    }
}
