//! Who stands by for the slots of a job: other workers, which follow its state epoch by epoch into their local copies, so
//! that whoever takes a slot over finds its state on its own disk. Called by [`super::Fleet`].
//!
//! Nothing waits for a standby and nothing relies on one: what it lacks is read from the store. Each is told all that it is
//! to have, whenever that changes or it has connected anew, so no message needs an answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::messages::{AttemptId, FollowOrder, FollowedSlot, SlotFiles, WorkerId};
use crate::ids::{Epoch, Generation, JobId};

/// Standbys that a slot may have at most.
pub const STANDBYS_MAX: u32 = 3;

/// What is shown of those who stand by for a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// Standbys that each slot should have.
    pub wanted: u32,
    /// Those that there are, by slot.
    pub slots: Vec<SlotStandby>,
    /// Standbys that are missing, over all slots.
    pub missing: u32,
    /// Why, where some are.
    pub lacking: Option<String>,
}

/// Who stands by for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStandby {
    /// The slot.
    pub slot: u32,
    /// Who.
    pub worker: WorkerId,
    /// The newest epoch of which it has had every file; none yet.
    pub epoch: Option<Epoch>,
    /// How many epochs have completed since that one.
    pub epochs_behind: u64,
    /// Files that it has still to fetch.
    pub files_waiting: u64,
    /// Their bytes.
    pub bytes_waiting: u64,
}

/// A worker that could stand by: it has room, and keeps copies.
pub(super) struct Candidate {
    /// Its free slots.
    pub(super) free: u32,
    /// The machine that it is on.
    pub(super) host: String,
}

/// The standbys of one job.
pub(super) struct Standbys {
    wanted: u32,
    store: String,
    /// The attempt that runs; none between two.
    running: Option<Generation>,
    /// The newest complete epoch, with the files that each slot needs.
    complete: Option<(Epoch, SlotFiles)>,
    /// By slot.
    chosen: Vec<Vec<Standby>>,
    /// What each worker was told last.
    told: BTreeMap<WorkerId, Told>,
}

#[derive(Clone)]
struct Standby {
    worker: WorkerId,
    followed: FollowedSlot,
}

type Told = (Generation, Epoch, BTreeSet<u32>);

impl Standbys {
    /// A job that wants so many for each slot, whose checkpoints lie in that store.
    pub(super) fn new(wanted: u32, store: &str) -> Standbys {
        Standbys {
            wanted,
            store: store.to_owned(),
            running: None,
            complete: None,
            chosen: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// An attempt runs on so many slots. Who stood by goes on with it, unless the slots are others.
    pub(super) fn on_attempt(&mut self, generation: Generation, slots: usize, wanted: u32, store: &str) {
        if self.chosen.len() != slots {
            self.chosen = vec![Vec::new(); slots];
            self.complete = None;
        }
        self.wanted = wanted;
        store.clone_into(&mut self.store);
        self.running = Some(generation);
    }

    /// An epoch of the attempt is complete, and these files restore it.
    pub(super) fn on_complete(&mut self, generation: Generation, epoch: Epoch, files: SlotFiles) {
        if self.running == Some(generation) {
            self.complete = Some((epoch, files));
        }
    }

    /// No attempt runs. Who stands by is still known to who places the next one.
    pub(super) fn on_released(&mut self) {
        self.running = None;
    }

    /// A worker is gone.
    pub(super) fn on_gone(&mut self, worker: &WorkerId) {
        self.told.remove(worker);
        self.chosen.iter_mut().for_each(|of_slot| of_slot.retain(|standby| standby.worker != *worker));
    }

    /// A worker could not be told.
    pub(super) fn on_untold(&mut self, worker: &WorkerId) {
        self.told.remove(worker);
    }

    /// A worker says how far it is. One that follows a slot already stays with it under a new leader, who has chosen nobody
    /// before the first epoch.
    pub(super) fn on_followed(
        &mut self,
        worker: &WorkerId,
        generation: Generation,
        slots: &BTreeMap<u32, FollowedSlot>,
    ) {
        for (slot, followed) in slots {
            let Some(of_slot) = self.chosen.get_mut(*slot as usize) else { continue };
            if let Some(known) = of_slot.iter_mut().find(|standby| standby.worker == *worker) {
                known.followed = FollowedSlot { epoch: followed.epoch.max(known.followed.epoch), ..*followed };
            } else if self.complete.is_none()
                && self.running == Some(generation)
                && of_slot.len() < self.wanted as usize
            {
                of_slot.push(Standby { worker: worker.clone(), followed: *followed });
            }
        }
    }

    /// Those who stand by for each slot, the one with the newest epoch first.
    pub(super) fn by_slot(&self) -> Vec<Vec<WorkerId>> {
        let sorted = |of_slot: &Vec<Standby>| {
            let mut sorted: Vec<&Standby> = of_slot.iter().collect();
            sorted.sort_by_key(|standby| (Reverse(standby.followed.epoch), standby.followed.bytes_waiting));
            sorted.into_iter().map(|standby| standby.worker.clone()).collect()
        };
        self.chosen.iter().map(sorted).collect()
    }

    /// Sees to it that each slot has who stands by for it, as far as there are workers for it. `running`: the worker of each
    /// slot, with its machine where that is known.
    pub(super) fn review(
        &mut self,
        running: &[(WorkerId, Option<String>)],
        candidates: &BTreeMap<WorkerId, Candidate>,
    ) {
        if self.running.is_none() || self.complete.is_none() || running.len() != self.chosen.len() {
            return;
        }
        let mut ground = Ground { running, candidates, load: BTreeMap::new(), taken: BTreeMap::new() };
        for (slot, of_slot) in self.chosen.iter_mut().enumerate() {
            of_slot.truncate(self.wanted as usize);
            of_slot.retain(|standby| ground.take(slot, &standby.worker));
        }
        // One after the other for all slots, so that a second one takes nobody from a slot that has none.
        for count in 1..=self.wanted as usize {
            for (slot, of_slot) in self.chosen.iter_mut().enumerate().filter(|(_, of_slot)| of_slot.len() < count) {
                let others: BTreeSet<&WorkerId> = of_slot.iter().map(|standby| &standby.worker).collect();
                if let Some(worker) = ground.best(slot, &others) {
                    assert!(ground.take(slot, &worker), "the best one can stand by");
                    of_slot.push(Standby { worker, followed: FollowedSlot::default() });
                }
            }
        }
    }

    /// What has to be told, and counts as told from here on.
    pub(super) fn orders(&mut self, job: &JobId) -> Vec<(WorkerId, FollowOrder)> {
        let (Some(generation), Some((epoch, files))) = (self.running, &self.complete) else { return Vec::new() };
        let mut wanted = BTreeMap::<WorkerId, BTreeSet<u32>>::new();
        for (slot, of_slot) in (0..).zip(&self.chosen) {
            for standby in of_slot {
                wanted.entry(standby.worker.clone()).or_default().insert(slot);
            }
        }
        for worker in self.told.keys() {
            wanted.entry(worker.clone()).or_default();
        }
        let mut orders = Vec::new();
        for (worker, slots) in wanted {
            let told = (generation, *epoch, slots);
            if self.told.get(&worker) == Some(&told) {
                continue;
            }
            let files_of = |slot: &u32| (*slot, files.get(slot).cloned().unwrap_or_default());
            let order = FollowOrder {
                attempt: AttemptId { job: job.clone(), generation },
                epoch: *epoch,
                store: self.store.clone(),
                slots: told.2.iter().map(files_of).collect(),
            };
            if told.2.is_empty() {
                self.told.remove(&worker);
            } else {
                self.told.insert(worker.clone(), told);
            }
            orders.push((worker, order));
        }
        orders
    }

    /// What is shown.
    pub(super) fn status(&self) -> StandbyStatus {
        let newest = self.complete.as_ref().map_or(0, |(epoch, _)| epoch.0);
        let mut status = StandbyStatus { wanted: self.wanted, ..StandbyStatus::default() };
        let mut short = Vec::new();
        for (slot, of_slot) in (0..).zip(&self.chosen) {
            for Standby { worker, followed } in of_slot {
                status.slots.push(SlotStandby {
                    slot,
                    worker: worker.clone(),
                    epoch: followed.epoch,
                    epochs_behind: newest.saturating_sub(followed.epoch.unwrap_or_default().0),
                    files_waiting: followed.files_waiting,
                    bytes_waiting: followed.bytes_waiting,
                });
            }
            let missing = self.wanted.saturating_sub(u32::try_from(of_slot.len()).unwrap_or(u32::MAX));
            if missing > 0 {
                status.missing += missing;
                short.push(slot.to_string());
            }
        }
        status.lacking = match &self.complete {
            _ if short.is_empty() => None,
            None => Some("no epoch is complete yet that could be followed".to_owned()),
            Some(_) => Some(format!(
                "slots {} have fewer than {}: no other worker that keeps local copies has a free slot for them; \
                 start workers, or give them more slots",
                short.join(", "),
                self.wanted
            )),
        };
        status
    }
}

/// Where standbys are looked for.
struct Ground<'a> {
    /// The worker of each slot.
    running: &'a [(WorkerId, Option<String>)],
    candidates: &'a BTreeMap<WorkerId, Candidate>,
    /// Slots that each worker stands by for.
    load: BTreeMap<WorkerId, u32>,
    /// How many of the slots of one worker another one stands by for.
    taken: BTreeMap<(WorkerId, WorkerId), u32>,
}

impl Ground<'_> {
    /// Whether the worker could take over the slot, beside all others of the same worker that it stands by for.
    fn fits(&self, slot: usize, worker: &WorkerId) -> bool {
        let (runs, _) = &self.running[slot];
        let taken = self.taken.get(&(runs.clone(), worker.clone())).copied().unwrap_or_default();
        runs != worker && self.candidates.get(worker).is_some_and(|candidate| taken < candidate.free)
    }

    /// Has the worker stand by for the slot, where it fits.
    fn take(&mut self, slot: usize, worker: &WorkerId) -> bool {
        let fits = self.fits(slot, worker);
        if fits {
            *self.load.entry(worker.clone()).or_default() += 1;
            *self.taken.entry((self.running[slot].0.clone(), worker.clone())).or_default() += 1;
        }
        fits
    }

    /// Who should stand by for a slot for which `others` do already: on another machine than the slot and they, with little
    /// else to follow, with many free slots.
    fn best(&self, slot: usize, others: &BTreeSet<&WorkerId>) -> Option<WorkerId> {
        let host_of = |worker: &WorkerId| self.candidates.get(worker).map(|candidate| &candidate.host);
        let own_host = self.running[slot].1.as_ref();
        let fits = self.candidates.iter().filter(|(worker, _)| !others.contains(worker) && self.fits(slot, worker));
        let rank = |(worker, candidate): &(&WorkerId, &Candidate)| {
            let is_own = own_host == Some(&candidate.host);
            let is_others = others.iter().any(|other| host_of(other) == Some(&candidate.host));
            let load = self.load.get(*worker).copied().unwrap_or_default();
            (is_own, is_others, load, Reverse(candidate.free), (*worker).clone())
        };
        fits.min_by_key(rank).map(|(worker, _)| worker.clone())
    }
}

#[cfg(test)]
mod tests;
