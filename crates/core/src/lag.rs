//! How far a source is behind what could be read of it: told by its readers, put together for those who look on. No decision
//! depends on it.

use serde::{Deserialize, Serialize};

use crate::ids::SplitId;

/// Splits of a source that are shown one by one: those with the largest lag.
pub const SPLITS_SHOWN_MAX: usize = 100;

/// What a lag counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LagUnit {
    /// Records, such as the messages of a broker.
    Records,
    /// Bytes of a log.
    Bytes,
}

/// The lag of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLag {
    /// What is counted.
    pub unit: LagUnit,
    /// Over all splits of which it is known.
    pub total: u64,
    /// The splits with the largest lag, largest first; at most [`SPLITS_SHOWN_MAX`].
    pub splits: Vec<(SplitId, u64)>,
}

impl SourceLag {
    /// The lag of a source with these splits.
    #[must_use]
    pub fn of(unit: LagUnit, splits: impl IntoIterator<Item = (SplitId, u64)>) -> SourceLag {
        let mut splits: Vec<_> = splits.into_iter().collect();
        let total = splits.iter().fold(0_u64, |total, (_, lag)| total.saturating_add(*lag));
        keep_largest(&mut splits);
        SourceLag { unit, total, splits }
    }

    /// Adds what other readers of the same source tell.
    pub fn add(&mut self, other: &SourceLag) {
        self.total = self.total.saturating_add(other.total);
        self.splits.extend_from_slice(&other.splits);
        keep_largest(&mut self.splits);
    }
}

impl std::fmt::Display for LagUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LagUnit::Records => "records",
            LagUnit::Bytes => "bytes",
        })
    }
}

fn keep_largest(splits: &mut Vec<(SplitId, u64)>) {
    splits.sort_unstable_by(|(a, a_lag), (b, b_lag)| b_lag.cmp(a_lag).then_with(|| a.cmp(b)));
    splits.truncate(SPLITS_SHOWN_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(numbers: std::ops::Range<u64>) -> SourceLag {
        SourceLag::of(LagUnit::Records, numbers.map(|n| (SplitId(format!("t/{n}")), n)))
    }

    #[test]
    fn everything_is_summed_and_the_largest_are_shown() {
        let mut sum = lag(0..80);
        sum.add(&lag(80..160));
        assert_eq!(sum.total, (0..160).sum::<u64>());
        assert_eq!(sum.splits.len(), SPLITS_SHOWN_MAX);
        assert_eq!(sum.splits[0], (SplitId("t/159".to_owned()), 159));
        assert_eq!(sum.splits[SPLITS_SHOWN_MAX - 1].1, 60);
    }

    #[test]
    fn splits_of_the_same_lag_stand_in_order() {
        let of = |names: [&str; 2]| SourceLag::of(LagUnit::Bytes, names.map(|name| (SplitId(name.to_owned()), 1)));
        assert_eq!(of(["b", "a"]), of(["a", "b"]));
    }
}
