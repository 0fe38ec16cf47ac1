//! Pairs of workers that cannot speak with each other while the leader hears both. Used by [`super::Fleet`] so that a
//! job is not placed where it has just failed, as long as there are slots elsewhere.

use std::collections::BTreeMap;

use super::messages::WorkerId;
use crate::time::Timestamp;

/// A pair is tried again after so many milliseconds: nobody tells when a network is whole again.
const REMEMBERED_MS: i64 = 60_000;

/// The pairs that are known, each with the time until which it is avoided.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    until: BTreeMap<(WorkerId, WorkerId), Timestamp>,
}

impl Cuts {
    /// One of the two could not reach the other. Which one does not matter to who needs both.
    pub(super) fn note(&mut self, now: Timestamp, one: &WorkerId, other: &WorkerId) {
        let pair = (one.min(other).clone(), one.max(other).clone());
        self.until.insert(pair, now.plus_ms(REMEMBERED_MS));
    }

    /// Forgets what is old.
    pub(super) fn on_tick(&mut self, now: Timestamp) {
        self.until.retain(|_, until| *until > now);
    }

    /// The worker is gone; another life of it has another id.
    pub(super) fn on_lost(&mut self, worker: &WorkerId) {
        self.until.retain(|(one, other), _| one != worker && other != worker);
    }

    /// Those of the free slots by worker among which no known pair is, where `needed` slots are left so; else all of
    /// them. Workers with most such neighbours are left out first, of several the one with fewest slots.
    pub(super) fn avoid(&self, free: &BTreeMap<WorkerId, u32>, needed: u32) -> BTreeMap<WorkerId, u32> {
        let mut left: BTreeMap<WorkerId, u32> =
            free.iter().filter(|(_, n)| **n > 0).map(|(w, n)| (w.clone(), *n)).collect();
        loop {
            let pairs = self.until.keys().filter(|(one, other)| left.contains_key(one) && left.contains_key(other));
            let mut neighbours = BTreeMap::<&WorkerId, u32>::new();
            for worker in pairs.flat_map(|(one, other)| [one, other]) {
                *neighbours.entry(worker).or_default() += 1;
            }
            let order = |(worker, count): &(&&WorkerId, &u32)| (**count, u32::MAX - left[**worker]);
            let Some((worker, _)) = neighbours.iter().max_by_key(order) else { return left };
            let worker = (*worker).clone();
            left.remove(&worker);
            if left.values().sum::<u32>() < needed {
                return free.clone();
            }
        }
    }
}
