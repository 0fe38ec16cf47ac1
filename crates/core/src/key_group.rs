//! Key groups: the fixed partitions of the key space of a job, and their placement on subtasks. A key's group
//! never changes; rescaling moves whole groups. Called by the exchange (routing) and by state (placement).

use serde::{Deserialize, Serialize};

use crate::bug::{Bug, is_put_back};
use crate::ids::KeyGroup;

/// Key groups of a job unless it says otherwise.
pub const KEY_GROUPS_DEFAULT: u16 = 256;

/// A half-open range of key groups, `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// First group of the range.
    pub start: u16,
    /// One past the last group.
    pub end: u16,
}

impl KeyGroupRange {
    /// The range that subtask `index` of `parallelism` owns out of `groups` key groups. Ranges of all subtasks
    /// are disjoint, cover every group, and differ in size by at most one.
    ///
    /// # Panics
    /// Where `parallelism` is 0 or above `groups`, or `index` is not below `parallelism`: the planner has
    /// checked both.
    #[must_use]
    pub fn of_subtask(groups: u16, parallelism: u32, index: u32) -> KeyGroupRange {
        assert!(parallelism > 0 && parallelism <= u32::from(groups), "{parallelism} subtasks for {groups} key groups");
        assert!(index < parallelism, "subtask {index} of {parallelism}");
        // ceil(i * groups / parallelism) is the least group g with floor(g * parallelism / groups) >= i, see `owner`.
        let bound = |i: u32| {
            u16::try_from((u64::from(i) * u64::from(groups)).div_ceil(u64::from(parallelism)))
                .expect("at most `groups`")
        };
        KeyGroupRange { start: bound(index), end: bound(index + 1) }
    }

    /// Whether the group lies in the range.
    #[must_use]
    pub fn contains(&self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 < self.end
    }

    /// The groups that lie in both ranges; empty (start at or behind its end) where there are none.
    #[must_use]
    pub fn intersection(&self, other: &KeyGroupRange) -> KeyGroupRange {
        KeyGroupRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// Whether the two ranges share a group.
    #[must_use]
    pub fn overlaps(&self, other: &KeyGroupRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The group of a key, from the key's 64-bit hash.
#[must_use]
pub fn group_of_hash(hash: u64, groups: u16) -> KeyGroup {
    // Multiply-shift instead of a remainder: uses the high bits, so that hash tables may use the low ones.
    KeyGroup(((u128::from(hash) * u128::from(groups)) >> 64) as u16)
}

/// The subtask that owns a key group.
#[must_use]
pub fn owner(group: KeyGroup, groups: u16, parallelism: u32) -> u32 {
    if is_put_back(Bug::KeyGroupElsewhere) {
        return u32::from(group.0) % parallelism;
    }
    (u32::from(group.0) * parallelism) / u32::from(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_partition_the_groups_and_agree_with_owner() {
        for groups in [1u16, 2, 7, 128, 256, 1000] {
            for parallelism in 1..=u32::from(groups).min(40) {
                let mut next = 0;
                for index in 0..parallelism {
                    let range = KeyGroupRange::of_subtask(groups, parallelism, index);
                    assert_eq!(range.start, next);
                    next = range.end;
                    for group in range.start..range.end {
                        assert_eq!(
                            owner(KeyGroup(group), groups, parallelism),
                            index,
                            "{groups} {parallelism} {group}"
                        );
                    }
                }
                assert_eq!(next, groups);
            }
        }
    }

    #[test]
    fn hashes_spread_over_all_groups() {
        assert_eq!(group_of_hash(0, 256), KeyGroup(0));
        assert_eq!(group_of_hash(u64::MAX, 256), KeyGroup(255));
    }
}
