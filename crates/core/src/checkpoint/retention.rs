//! Which checkpoints are kept and which objects may go with the others. Used by the checkpoint coordinator;
//! knows only published checkpoints. Never names an object for deletion while anything kept or running refers
//! to it (I4).

use std::collections::{BTreeMap, BTreeSet};

use crate::bug::{Bug, is_put_back};
use crate::ids::Epoch;

/// Paths that could not be deleted and are remembered; what lies beyond is found by the clean-up at the next
/// start of the job.
const UNDELETED_MAX: usize = 10_000;

/// The published checkpoints of a job and the objects that each names.
#[derive(Clone, Debug)]
pub struct Retention {
    keep: usize,
    kept: BTreeMap<Epoch, BTreeSet<String>>,
    /// Cannot be restored, and may name more than is known: they go with the next that is retired, so that nothing is
    /// deleted while they are recorded.
    unreadable: BTreeMap<Epoch, BTreeSet<String>>,
    /// Being recorded as retired; their objects still count as present.
    retiring: BTreeMap<Epoch, BTreeSet<String>>,
    undeleted: BTreeSet<String>,
    /// Being copied, whether or not a checkpoint that is kept names them.
    held: BTreeSet<String>,
}

impl Retention {
    /// Keeps the newest `keep` (at least 1) of the given checkpoints and of those that are added. `unreadable` are
    /// others that are recorded, with what is known of their objects.
    #[must_use]
    pub fn new(
        keep: usize,
        kept: BTreeMap<Epoch, BTreeSet<String>>,
        unreadable: BTreeMap<Epoch, BTreeSet<String>>,
    ) -> Retention {
        assert!(keep > 0, "the newest checkpoint is always kept");
        Retention {
            keep,
            kept,
            unreadable,
            retiring: BTreeMap::new(),
            undeleted: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    /// Adds a published checkpoint; gives those that are to be retired for it.
    pub fn add(&mut self, epoch: Epoch, objects: BTreeSet<String>) -> Vec<Epoch> {
        self.kept.insert(epoch, objects);
        let mut retired: Vec<Epoch> = self.unreadable.keys().copied().collect();
        self.retiring.append(&mut self.unreadable);
        while self.kept.len() > self.keep {
            let (epoch, objects) = self.kept.pop_first().expect("more than `keep`, which is at least 1");
            self.retiring.insert(epoch, objects);
            retired.push(epoch);
        }
        retired
    }

    /// It is recorded that the epochs are retired: gives the objects that nothing refers to any more, with
    /// those whose deletion failed earlier. `in_use` are the objects of checkpoints that are being taken.
    pub fn remove<'a>(&mut self, epochs: &[Epoch], in_use: impl Iterator<Item = &'a String>) -> Vec<String> {
        let mut candidates = std::mem::take(&mut self.undeleted);
        for epoch in epochs {
            candidates.extend(self.retiring.remove(epoch).unwrap_or_default());
        }
        if is_put_back(Bug::SharedFilesDeleted) {
            return candidates.into_iter().collect();
        }
        for needed in in_use {
            candidates.remove(needed);
        }
        for needed in self.kept.values().chain(self.retiring.values()).flatten().chain(&self.held) {
            candidates.remove(needed);
        }
        candidates.into_iter().collect()
    }

    /// None of these is named for deletion from here on.
    pub fn hold(&mut self, objects: BTreeSet<String>) {
        self.held = objects;
    }

    /// What was held goes with the next removal, unless something refers to it then.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held).into_iter().collect();
        self.deletion_failed(held);
    }

    /// Whether some checkpoint is being retired: its objects are still to be named by [`Retention::remove`].
    #[must_use]
    pub fn is_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// These objects still exist; they come again with the next removal.
    pub fn deletion_failed(&mut self, paths: Vec<String>) {
        let room = UNDELETED_MAX.saturating_sub(self.undeleted.len());
        self.undeleted.extend(paths.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn shared_objects_stay_and_the_newest_checkpoints_are_kept() {
        let mut retention = Retention::new(2, BTreeMap::from([(Epoch(4), objects(&["a", "m4"]))]), BTreeMap::new());
        assert_eq!(retention.add(Epoch(5), objects(&["a", "b", "m5"])), vec![]);
        assert_eq!(retention.add(Epoch(6), objects(&["b", "c", "m6"])), vec![Epoch(4)]);
        assert_eq!(retention.remove(&[Epoch(4)], std::iter::empty()), vec!["m4"]);
        assert_eq!(retention.add(Epoch(7), objects(&["c", "m7"])), vec![Epoch(5)]);
        let running = ["a".to_owned()];
        assert_eq!(retention.remove(&[Epoch(5)], running.iter()), vec!["m5"]);
    }

    #[test]
    fn an_unreadable_checkpoint_goes_before_anything_is_deleted_that_it_may_name() {
        let kept = BTreeMap::from([(Epoch(2), objects(&["x", "m2"])), (Epoch(4), objects(&["y", "m4"]))]);
        let unreadable = BTreeMap::from([(Epoch(3), objects(&["m3"]))]);
        let mut retention = Retention::new(3, kept, unreadable);
        assert_eq!(retention.add(Epoch(5), objects(&["y", "m5"])), vec![Epoch(3)], "it takes no other's place");
        assert!(retention.is_retiring());
        assert_eq!(retention.remove(&[Epoch(3)], std::iter::empty()), vec!["m3"]);
        assert_eq!(retention.add(Epoch(6), objects(&["y", "m6"])), vec![Epoch(2)]);
        assert_eq!(retention.remove(&[Epoch(2)], std::iter::empty()), vec!["m2", "x"]);
    }

    #[test]
    fn what_is_held_stays_while_its_checkpoint_is_retired_and_goes_later() {
        let mut retention = Retention::new(1, BTreeMap::new(), BTreeMap::new());
        retention.add(Epoch(1), objects(&["m1", "a", "b"]));
        retention.hold(objects(&["m1", "a", "b"]));
        retention.add(Epoch(2), objects(&["m2", "b"]));
        assert_eq!(retention.remove(&[Epoch(1)], std::iter::empty()), Vec::<String>::new());
        retention.release();
        retention.add(Epoch(3), objects(&["m3", "b"]));
        assert_eq!(retention.remove(&[Epoch(2)], std::iter::empty()), vec!["a", "m1", "m2"]);
    }

    #[test]
    fn failed_deletions_come_again_unless_needed() {
        let mut retention = Retention::new(1, BTreeMap::new(), BTreeMap::new());
        retention.add(Epoch(1), objects(&["m1", "x"]));
        assert_eq!(retention.add(Epoch(2), objects(&["m2"])), vec![Epoch(1)]);
        assert_eq!(retention.remove(&[Epoch(1)], std::iter::empty()), vec!["m1", "x"]);
        retention.deletion_failed(vec!["x".to_owned()]);
        assert_eq!(retention.add(Epoch(3), objects(&["m3"])), vec![Epoch(2)]);
        assert_eq!(retention.remove(&[Epoch(2)], std::iter::empty()), vec!["m2", "x"]);
        assert_eq!(retention.remove(&[Epoch(9)], std::iter::empty()), Vec::<String>::new());
    }
}
