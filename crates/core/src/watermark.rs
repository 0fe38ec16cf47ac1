//! Merging the watermarks of several inputs into the watermark of a subtask: the least of them. Called by the
//! engine for exchange inputs. Nothing here knows of idle inputs: sources see to it that every input moves on
//! (see [`crate::owned_splits`] and [`crate::idleness`]). The result never goes back.

use crate::time::Timestamp;

/// Keeps the watermark of each input and the least of them.
#[derive(Clone, Debug)]
pub struct WatermarkMerger {
    inputs: Vec<Timestamp>,
    merged: Timestamp,
}

impl WatermarkMerger {
    /// A merger of so many inputs, none of which has shown anything yet.
    #[must_use]
    pub fn new(inputs: usize) -> Self {
        WatermarkMerger { inputs: vec![Timestamp::MIN; inputs], merged: Timestamp::MIN }
    }

    /// Takes the watermark of one input and gives the merged one, if that has advanced. An input's own
    /// watermark never goes back; an older one is ignored.
    pub fn update(&mut self, input: usize, watermark: Timestamp) -> Option<Timestamp> {
        let before = &mut self.inputs[input];
        *before = (*before).max(watermark);
        let merged = self.inputs.iter().copied().min()?;
        if merged == self.merged {
            return None;
        }
        self.merged = merged;
        Some(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_input_wins_and_never_goes_back() {
        let mut merger = WatermarkMerger::new(2);
        assert_eq!(merger.update(0, Timestamp(10)), None, "the other input has shown nothing");
        assert_eq!(merger.update(1, Timestamp(5)), Some(Timestamp(5)));
        assert_eq!(merger.update(1, Timestamp(3)), None, "an input's watermark does not go back");
        assert_eq!(merger.update(1, Timestamp(20)), Some(Timestamp(10)));
        assert_eq!(merger.update(0, Timestamp::MAX), Some(Timestamp(20)));
    }
}
