//! Time to live of partitions, or of rows (a slot is either): which of them have not changed for so long that they are
//! forgotten. Judged by the time of the epoch, so that a replay forgets the same (I6): before the first rows of the epoch,
//! and where it ends, which is the same. State that is not in memory meanwhile forgets when it comes back, before its next
//! rows.

use std::collections::BTreeMap;

use crate::memory;

/// In the place of the time of a slot that holds nothing.
const FORGOTTEN: i64 = i64::MIN;

/// When each partition has last changed.
pub(crate) struct Expiry {
    ttl_ms: Option<i64>,
    /// By slot of the partition (ms).
    changed: Vec<i64>,
    /// Whether a slot is in `due`, by slot.
    is_noted: Vec<bool>,
    /// Slots, once each, by a time at which they changed: one that has changed since is put off when it comes up.
    due: BTreeMap<i64, Vec<u32>>,
}

impl Expiry {
    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        // A slot that is noted has four bytes in `due`.
        memory::of_vec(&self.changed) + self.is_noted.capacity() * (1 + size_of::<u32>())
    }

    /// Absent: nothing is ever forgotten, and nothing is kept about it.
    pub(crate) fn new(ttl_ms: Option<u64>) -> Self {
        let ttl_ms = ttl_ms.map(|ttl| i64::try_from(ttl).unwrap_or(i64::MAX));
        Expiry { ttl_ms, changed: Vec::new(), is_noted: Vec::new(), due: BTreeMap::new() }
    }

    /// Whether anything is ever forgotten.
    pub(crate) fn is_on(&self) -> bool {
        self.ttl_ms.is_some()
    }

    /// Notes that a partition has changed at that time of the epoch (ms).
    pub(crate) fn touch(&mut self, slot: u32, now_ms: i64) {
        if self.ttl_ms.is_none() {
            return;
        }
        let index = slot as usize;
        if index >= self.changed.len() {
            self.changed.resize(index + 1, FORGOTTEN);
            self.is_noted.resize(index + 1, false);
        }
        self.changed[index] = self.changed[index].max(now_ms);
        if !std::mem::replace(&mut self.is_noted[index], true) {
            self.due.entry(now_ms).or_default().push(slot);
        }
    }

    /// When the partition has last changed (ms); 0 where nothing is ever forgotten.
    pub(crate) fn changed(&self, slot: u32) -> i64 {
        self.changed.get(slot as usize).copied().unwrap_or(0)
    }

    /// Partitions that are to be forgotten at that time, ascending; they are no longer known here.
    pub(crate) fn expire(&mut self, now_ms: i64) -> Vec<u32> {
        let Some(ttl_ms) = self.ttl_ms else { return Vec::new() };
        let mut expired = Vec::new();
        while let Some(entry) = self.due.first_entry()
            && entry.key().saturating_add(ttl_ms) <= now_ms
        {
            for slot in entry.remove() {
                let changed = self.changed[slot as usize];
                if changed != FORGOTTEN && changed.saturating_add(ttl_ms) > now_ms {
                    self.due.entry(changed).or_default().push(slot);
                    continue;
                }
                self.is_noted[slot as usize] = false;
                if changed != FORGOTTEN {
                    self.forget(slot);
                    expired.push(slot);
                }
            }
        }
        expired.sort_unstable();
        expired
    }

    /// The partition is gone.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(changed) = self.changed.get_mut(slot as usize) {
            *changed = FORGOTTEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_expire_when_they_have_not_changed() {
        let mut expiry = Expiry::new(Some(100));
        expiry.touch(0, 10);
        expiry.touch(1, 10);
        expiry.touch(0, 50);
        assert_eq!(expiry.expire(109), Vec::<u32>::new());
        assert_eq!(expiry.expire(110), vec![1]);
        // The slot is taken by another partition.
        expiry.touch(1, 120);
        assert_eq!(expiry.expire(160), vec![0]);
        assert_eq!(expiry.expire(220), vec![1]);
    }

    #[test]
    fn what_changes_all_the_time_takes_no_more_memory() {
        let mut expiry = Expiry::new(Some(100));
        (0..1_000).for_each(|now| (0..2).for_each(|slot| expiry.touch(slot, now)));
        assert_eq!(expiry.due.values().map(Vec::len).sum::<usize>(), 2);
        expiry.forget(0);
        expiry.touch(0, 1_000);
        assert_eq!((expiry.expire(1_098), expiry.expire(1_099)), (vec![], vec![1]));
        expiry.forget(0);
        assert_eq!((expiry.expire(2_000), expiry.due.len()), (vec![], 0), "somebody else has forgotten it");
        expiry.touch(0, 2_000);
        assert_eq!(expiry.expire(2_100), vec![0]);
    }
}
