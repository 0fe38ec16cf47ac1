//! Which worker gets which subtasks: a subtask goes to where the state of its key groups lies, so that it is read from
//! the copies there instead of from the store. Called by [`super::Fleet`], which says how many slots are free.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::WorkerId;

/// Chooses a worker for each of `needed` slots. `before` has the worker that holds the state of each slot that the job
/// had, none where it is gone; `standbys` those who follow its state, for each slot, the best first. There are at least
/// `needed` slots in `free`.
///
/// Where the number of slots stays, so does each of them. Those that are lost go to who stands by for them, and else to the
/// workers with most free slots. Where it changes, the slots are spread over the workers first, so that a worker that has joined is used; then each
/// worker takes those for which it holds most.
pub(super) fn choose(
    before: &[Option<WorkerId>],
    standbys: &[Vec<WorkerId>],
    needed: u32,
    free: BTreeMap<WorkerId, u32>,
) -> Vec<WorkerId> {
    let changes = !before.is_empty() && before.len() != needed as usize;
    let mut room = if changes { Room::spread(free, needed) } else { Room { free, floor: 0, last: needed } };
    let mut chosen = BTreeMap::<u32, WorkerId>::new();
    for (slot, worker) in by_share(before, needed) {
        if !chosen.contains_key(&slot) && room.take(worker) {
            chosen.insert(slot, worker.clone());
        }
    }
    if standbys.len() == needed as usize {
        for (slot, workers) in (0..).zip(standbys) {
            if !chosen.contains_key(&slot)
                && let Some(worker) = workers.iter().find(|worker| room.take(worker))
            {
                chosen.insert(slot, worker.clone());
            }
        }
    }
    (0..needed).map(|slot| chosen.remove(&slot).unwrap_or_else(|| room.take_most_free())).collect()
}

/// How many slots each worker may still take.
struct Room {
    free: BTreeMap<WorkerId, u32>,
    /// So many slots of each worker stay free.
    floor: u32,
    /// So many workers, or all, may take the last one above.
    last: u32,
}

impl Room {
    /// Just enough for `needed` slots, spread so that all workers of which any is taken have the same number of free ones
    /// left, or one more.
    fn spread(free: BTreeMap<WorkerId, u32>, needed: u32) -> Room {
        let mut room = Room { free: free.clone(), floor: 0, last: needed };
        let taken: Vec<WorkerId> = (0..needed).map(|_| room.take_most_free()).collect();
        // Each one was taken from a worker with most of them.
        let floor = taken.last().map_or(0, |worker| room.free[worker]);
        let above: u32 = free.values().map(|slots| slots.saturating_sub(floor + 1)).sum();
        Room { free, floor, last: needed.saturating_sub(above) }
    }

    /// Takes a slot of the worker, where it has one to take.
    fn take(&mut self, worker: &WorkerId) -> bool {
        let Some(slots) = self.free.get_mut(worker).filter(|slots| **slots > self.floor) else { return false };
        if *slots == self.floor + 1 {
            let Some(last) = self.last.checked_sub(1) else { return false };
            self.last = last;
        }
        *slots -= 1;
        true
    }

    /// Takes a slot of the worker with most free slots; of several, the first by name.
    fn take_most_free(&mut self) -> WorkerId {
        let most = self.free.iter().rev().max_by_key(|(_, slots)| **slots);
        let worker = most.map(|(worker, _)| worker.clone()).expect("as many slots as are needed");
        assert!(self.take(&worker), "there are as many slots as are needed");
        worker
    }
}

/// Slots with the workers that hold some of their state, those with most of it first. Of several the first slot, and for
/// that the worker with the first part of it: what runs in one subtask alone runs on slot 0, and its state stays there.
fn by_share(before: &[Option<WorkerId>], needed: u32) -> Vec<(u32, &WorkerId)> {
    let mut shares = Vec::new();
    for slot in 0..needed {
        let mut of_slot = BTreeMap::<&WorkerId, (u64, usize)>::new();
        for (index, worker) in before.iter().enumerate() {
            let share = overlap(index as u64, before.len() as u64, u64::from(slot), u64::from(needed));
            if let Some(worker) = worker.as_ref().filter(|_| share > 0) {
                of_slot.entry(worker).or_insert((0, index)).0 += share;
            }
        }
        shares.extend(of_slot.into_iter().map(|(worker, (share, first))| (u64::MAX - share, slot, first, worker)));
    }
    shares.sort_unstable();
    shares.into_iter().map(|(_, slot, _, worker)| (slot, worker)).collect()
}

/// How much of the key space the subtasks `one` of `ones` and `other` of `others` share, in parts of which there are
/// `ones * others`; see [`crate::key_group::KeyGroupRange::of_subtask`].
fn overlap(one: u64, ones: u64, other: u64, others: u64) -> u64 {
    let start = (one * others).max(other * ones);
    let end = ((one + 1) * others).min((other + 1) * ones);
    end.saturating_sub(start)
}

/// The worker that holds what `worker` held: itself while it lives, else its next life, which has its directory. That is
/// one at the same address, or one of the same name where no two workers have had that name at a time (`shared`).
pub(super) fn heir<'a>(
    worker: &WorkerId,
    alive: impl Iterator<Item = &'a WorkerId>,
    shared: &BTreeSet<String>,
) -> Option<WorkerId> {
    let alive: Vec<&WorkerId> = alive.collect();
    if alive.contains(&worker) {
        return Some(worker.clone());
    }
    let same_place = || alive.iter().find(|other| other.place() == worker.place());
    let same_name = || {
        let mut named = alive.iter().filter(|other| other.name() == worker.name() && !shared.contains(worker.name()));
        named.next().filter(|_| named.next().is_none())
    };
    same_place().or_else(same_name).map(|heir| (*heir).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chooses; workers are named by a letter, `-` is a worker that is gone.
    fn check(before: &str, free: &[(&str, u32)], needed: u32, expected: &str) {
        check_with(before, "", free, needed, expected);
    }

    /// The same with those who stand by, for each slot a word of letters; `-` is nobody.
    fn check_with(before: &str, standbys: &str, free: &[(&str, u32)], needed: u32, expected: &str) {
        let standbys: Vec<Vec<WorkerId>> = standbys
            .split_whitespace()
            .map(|word| word.chars().filter(|c| *c != '-').map(|c| WorkerId(c.to_string())).collect())
            .collect();
        let worker = |name: &str| WorkerId(name.to_owned());
        let before: Vec<_> = before.split_whitespace().map(|name| (name != "-").then(|| worker(name))).collect();
        let free = free.iter().map(|(name, slots)| (worker(name), *slots)).collect();
        let chosen = choose(&before, &standbys, needed, free);
        let chosen: Vec<&str> = chosen.iter().map(|worker| worker.0.as_str()).collect();
        assert_eq!(chosen.join(" "), expected, "{needed} after {before:?}");
    }

    #[test]
    fn survivors_stay_and_what_is_lost_spreads() {
        check("a b c a b c", &[("a", 4), ("b", 4), ("c", 4)], 6, "a b c a b c");
        check("a - c a - c", &[("a", 4), ("c", 4)], 6, "a a c a c c");
        check("a - c a - c", &[("a", 2), ("c", 2), ("d", 4)], 6, "a d c a d c");
        // Other jobs have taken slots meanwhile.
        check("a a b b", &[("a", 1), ("b", 1), ("c", 2)], 4, "a c b c");
        check("", &[("a", 1), ("b", 2)], 3, "b a b");
    }

    #[test]
    fn what_is_lost_goes_to_who_stands_by() {
        // The one with most free slots would be d.
        check_with("a - c", "c c a", &[("a", 1), ("c", 2), ("d", 4)], 3, "a c c");
        check_with("- -", "bc bc", &[("b", 1), ("c", 1), ("d", 4)], 2, "b c");
        // Who stands by has no slot, or nobody does.
        check_with("a -", "b b", &[("a", 1), ("b", 0), ("d", 1)], 2, "a d");
        check_with("a -", "b -", &[("a", 1), ("b", 1), ("d", 2)], 2, "a d");
        // One that stands by does not lose its slot to another one that is lost and has nobody.
        check_with("- -", "- b", &[("b", 1), ("d", 1)], 2, "d b");
        // Slots of another parallelism are other slots.
        check_with("a -", "- b", &[("a", 2), ("b", 1), ("d", 2)], 3, "a a d");
    }

    #[test]
    fn a_change_of_parallelism_keeps_most_of_the_state_where_it_is() {
        // Each half of a subtask's key groups stays with it.
        check("a b", &[("a", 2), ("b", 2)], 4, "a a b b");
        check("a a b b", &[("a", 2), ("b", 2)], 2, "a b");
        check("a b c", &[("a", 2), ("b", 2), ("c", 2)], 2, "a c");
        // The last of four has nothing of a, the second has less of it than the first.
        check("a b c", &[("a", 2), ("b", 2), ("c", 2)], 4, "a b b c");
        check("a b c", &[("a", 3), ("b", 3), ("c", 3)], 6, "a a b b c c");
        // What runs in one subtask alone stays on slot 0.
        check("b a", &[("a", 2), ("b", 2)], 1, "b");
    }

    #[test]
    fn a_worker_that_has_joined_is_used_by_a_change_of_parallelism() {
        check("a b", &[("a", 4), ("b", 4), ("c", 4)], 3, "a c b");
        check("a - c", &[("a", 2), ("c", 2), ("d", 2)], 4, "a a d c");
    }

    #[test]
    fn the_space_is_shared_out_whole() {
        for (ones, others) in [(1, 7), (3, 4), (5, 5), (8, 3)] {
            for one in 0..ones {
                let sum: u64 = (0..others).map(|other| overlap(one, ones, other, others)).sum();
                assert_eq!(sum, others, "{one} of {ones} among {others}");
            }
        }
    }

    #[test]
    fn the_next_life_of_a_worker_is_known_by_its_address_or_its_own_name() {
        let alive = ["a@h1:1#8", "b@h2:9#9", "worker@h3:1#1", "worker@h4:1#2"].map(|id| WorkerId(id.to_owned()));
        let shared = BTreeSet::from(["worker".to_owned()]);
        let heir_of = |id: &str| heir(&WorkerId(id.to_owned()), alive.iter(), &shared).map(|heir| heir.0);
        assert_eq!(heir_of("a@h1:1#8").as_deref(), Some("a@h1:1#8"), "itself");
        assert_eq!(heir_of("a@h1:1#7").as_deref(), Some("a@h1:1#8"), "at the same address");
        assert_eq!(heir_of("b@h2:1#7").as_deref(), Some("b@h2:9#9"), "of the same name");
        assert_eq!(heir_of("worker@h4:1#7").as_deref(), Some("worker@h4:1#2"));
        assert_eq!(heir_of("worker@h5:1#7"), None, "many have that name");
        assert_eq!(heir_of("c@h6:1#7"), None);
        let one = [WorkerId("worker@h3:1#1".to_owned())];
        assert_eq!(heir(&WorkerId("worker@h4:1#2".to_owned()), one.iter(), &shared), None, "both lived at a time");
    }
}
