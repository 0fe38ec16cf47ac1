//! Who reads which split of a source. One [`SplitAssigner`] a source operator and attempt; driven by the job's
//! coordinator, which carries out its commands in order, each subtask's over one ordered channel.
//!
//! Invariants:
//! - A split has one owner, or waits, or is finished; it is never handed out twice within an attempt.
//! - [`SplitAssigner::cut`] at a barrier, merged with what the subtasks report for that barrier, holds every
//!   split that was known at the barrier once ([`SplitCut::merge`] refuses anything else): a split that was
//!   handed over around the barrier can be neither lost nor read twice.
//! - What is known of a finished split is its name, and that only while the source still lists it: see
//!   [`SplitEvent::Discovered`].
//! - Where subtasks read many splits side by side, none has more than its share: one that starts late finds splits to
//!   read, and those of a stream without an end stay with who has them.
//! - The bound on the watermarks of waiting splits is raised only after the message that hands out the last
//!   of those that it covers, so that a watermark never passes rows that are still to come.

mod resumption;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::bug::{Bug, is_put_back};
use crate::ids::{SplitId, SubtaskId};
use crate::protocol::{Barrier, Floor, OperatorSnapshot, ReplayPart, SourceSplit, SplitProgress, SplitState};
use crate::time::Timestamp;

/// What happened to the source.
#[derive(Clone, Debug, PartialEq)]
pub enum SplitEvent {
    /// The enumerator has looked and these splits exist. Those that are known already are ignored. A finished
    /// split that does not exist any more is left out of the next checkpoint and forgotten when that is
    /// complete; from then on its name stands for a new split. A search that finds nothing at all forgets
    /// nothing: it may have looked at a disk that is not mounted.
    Discovered {
        /// All that exist, in the order in which they should be read.
        splits: Vec<SourceSplit>,
    },
    /// A subtask has room for one more split. Asking again before one came changes nothing.
    Requested {
        /// Who asks.
        subtask: SubtaskId,
    },
    /// A checkpoint is complete that says of these splits (as merged) how far they have been read.
    EpochComplete {
        /// Every split of the source.
        splits: Vec<SplitState>,
    },
    /// An epoch whose output is visible already is to be run again over exactly the ranges it had.
    Replay {
        /// Its barrier.
        barrier: Barrier,
        /// What the epoch did to the source.
        epoch: SourceEpoch,
    },
    /// All epochs that had to be replayed have been.
    ReplayDone,
}

/// What the driver sends.
#[derive(Clone, Debug, PartialEq)]
pub enum SplitCommand {
    /// Splits to read, to one subtask.
    Assign {
        /// To whom.
        subtask: SubtaskId,
        /// The splits, with the progress to resume from.
        splits: Vec<SplitState>,
    },
    /// To all subtasks of the source: a lower bound on the watermarks of all splits that wait.
    Bound {
        /// `Timestamp::MAX` when none wait.
        bound: Timestamp,
    },
    /// To all subtasks of the source: no split will come any more.
    NoMoreSplits,
    /// To one subtask: read exactly what the epoch had read of its splits, then send the barrier.
    ReplayTo {
        /// To whom.
        subtask: SubtaskId,
        /// The barrier.
        barrier: Barrier,
        /// What to read.
        part: ReplayPart,
    },
}

/// What one epoch did to a source. Recorded with the epoch, so that it can be run again over the same ranges
/// when its own checkpoint turns out to be unreadable (I6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEpoch {
    /// Splits that became known or moved during the epoch, with their progress at its end.
    pub changed: Vec<SplitState>,
    /// Floors that splits were given in the epoch; for each split in their order.
    pub floors: Vec<Floor>,
    /// The watermark of the source at the barrier: the least that its subtasks had sent.
    pub watermark: Timestamp,
    /// The bound on the watermarks of waiting splits at the barrier; none was told where absent.
    pub bound: Option<Timestamp>,
    /// Whether the subtasks had been told that no more splits come.
    pub no_more: bool,
}

impl Default for SourceEpoch {
    fn default() -> Self {
        let (changed, floors, watermark) = (Vec::new(), Vec::new(), Timestamp::MIN);
        SourceEpoch { changed, floors, watermark, bound: None, no_more: false }
    }
}

/// The watermark of a source at a barrier, out of what its subtasks contribute to the checkpoint.
pub fn source_watermark<'a>(parts: impl IntoIterator<Item = &'a OperatorSnapshot>) -> Timestamp {
    parts.into_iter().map(|part| part.watermark.unwrap_or(Timestamp::MIN)).min().unwrap_or(Timestamp::MIN)
}

impl SourceEpoch {
    /// What happened from one checkpoint to the next, each the full list of a source's splits; `parts` is what
    /// its subtasks contribute to the second.
    #[must_use]
    pub fn between(
        before: &[SplitState],
        after: &[SplitState],
        cut: &SplitCut,
        parts: &[&OperatorSnapshot],
    ) -> SourceEpoch {
        let before: BTreeMap<&SplitId, &SplitState> = before.iter().map(|s| (&s.split.id, s)).collect();
        // A finished split has its payload in the epoch in which it was finished, and only there: so a new one
        // of the name of a remembered one is told apart.
        let same = |old: &SplitState, new: &SplitState| {
            old.progress == new.progress && (!new.is_finished() || new.split.payload.is_empty())
        };
        let unchanged = |s: &SplitState| before.get(&s.split.id).is_some_and(|old| same(old, s));
        let changed = after.iter().filter(|s| !unchanged(s)).cloned().collect();
        let floors = parts.iter().flat_map(|part| part.floors.iter().cloned()).collect();
        let watermark = source_watermark(parts.iter().copied());
        SourceEpoch { changed, floors, watermark, bound: cut.bound, no_more: cut.no_more }
    }
}

/// Why the reports of subtasks do not fit what was handed out: our own mistake, and the checkpoint is void.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// A split was handed out and nobody reports it.
    #[error("split '{0}' was handed to a subtask that does not report it")]
    Missing(SplitId),
    /// Two subtasks report the same split.
    #[error("split '{0}' is reported by two subtasks")]
    Doubled(SplitId),
    /// A split is reported by a subtask that it was not handed to.
    #[error("split '{0}' is reported by {1}, which does not own it")]
    Foreign(SplitId, SubtaskId),
}

/// The assigner's part of a checkpoint: taken in the moment in which the barrier is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitCut {
    waiting: Vec<SplitState>,
    finished: Vec<SplitId>,
    owned: BTreeMap<SplitId, SubtaskId>,
    bound: Option<Timestamp>,
    no_more: bool,
}

impl SplitCut {
    /// Joins the reports of the source's subtasks to it. `before` is what this gave for the checkpoint before:
    /// a subtask reports once that it has finished a split, the assigner learns of it only when that checkpoint
    /// is complete, and the next barrier may come in between. Gives every split that was known at the barrier,
    /// once, in the order in which a restore should hand them out: begun, waiting, finished.
    pub fn merge<'a>(
        &self,
        before: &[SplitState],
        reports: impl IntoIterator<Item = (SubtaskId, &'a [SplitState])>,
    ) -> Result<Vec<SplitState>, CutError> {
        let mut reported = BTreeMap::<&SplitId, &SplitState>::new();
        for (subtask, splits) in reports {
            for split in splits {
                let id = &split.split.id;
                match self.owned.get(id) {
                    Some(owner) if *owner == subtask => {}
                    _ => return Err(CutError::Foreign(id.clone(), subtask)),
                }
                if reported.insert(id, split).is_some() {
                    return Err(CutError::Doubled(id.clone()));
                }
            }
        }
        let mut finished = self.finished.clone();
        let mut unreported: BTreeSet<&SplitId> = self.owned.keys().filter(|id| !reported.contains_key(id)).collect();
        for split in before.iter().filter(|s| s.is_finished()) {
            if unreported.remove(&split.split.id) {
                finished.push(split.split.id.clone());
            }
        }
        if let Some(missing) = unreported.first().filter(|_| !is_put_back(Bug::SplitLostAtBarrier)) {
            return Err(CutError::Missing((*missing).clone()));
        }
        let reported = || reported.values().map(|s| (*s).clone());
        let mut merged: Vec<_> =
            reported().filter(|s| matches!(s.progress, Some(SplitProgress::Reading { .. }))).collect();
        merged.extend(reported().filter(|s| s.progress.is_none()));
        merged.extend(self.waiting.iter().cloned());
        // With its payload: a replay of just this epoch reads it.
        merged.extend(reported().filter(SplitState::is_finished));
        merged.extend(finished.into_iter().map(SplitState::remembered));
        Ok(merged)
    }
}

/// Hands out the splits of one source operator within one attempt.
#[derive(Clone, Debug)]
pub struct SplitAssigner {
    subtasks: BTreeSet<SubtaskId>,
    bounded: bool,
    /// Subtasks ask for more before they have read what they have.
    side_by_side: bool,
    discovered: bool,
    replaying: bool,
    known: BTreeSet<SplitId>,
    waiting: VecDeque<SplitState>,
    /// Found while epochs are replayed, to which they must stay unknown.
    found_early: Vec<SourceSplit>,
    owned: BTreeMap<SplitId, SubtaskId>,
    finished: BTreeSet<SplitId>,
    /// Finished splits that a search did not find; no cut holds them any more, and they are forgotten when a
    /// checkpoint without them is complete.
    gone: BTreeSet<SplitId>,
    hungry: VecDeque<SubtaskId>,
    bound_told: Option<Timestamp>,
    no_more_told: bool,
}

impl SplitAssigner {
    /// An assigner for an attempt. `restored` is the full list of splits in the checkpoint that the attempt
    /// starts from, none at the first start; `bounded` says that after one discovery no split is added;
    /// `replaying` that the attempt begins by replaying epochs. Call [`SplitAssigner::start`] next.
    #[must_use]
    pub fn new(
        subtasks: BTreeSet<SubtaskId>,
        bounded: bool,
        restored: Option<&[SplitState]>,
        replaying: bool,
    ) -> SplitAssigner {
        let mut assigner = SplitAssigner {
            subtasks,
            bounded,
            side_by_side: false,
            discovered: restored.is_some(),
            replaying,
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            found_early: Vec::new(),
            owned: BTreeMap::new(),
            finished: BTreeSet::new(),
            gone: BTreeSet::new(),
            hungry: VecDeque::new(),
            bound_told: None,
            no_more_told: false,
        };
        let restored = restored.unwrap_or_default();
        assigner.known = restored.iter().map(|s| s.split.id.clone()).collect();
        let is_begun = |s: &&SplitState| matches!(s.progress, Some(SplitProgress::Reading { .. }));
        assigner.waiting.extend(restored.iter().filter(is_begun).cloned());
        assigner.waiting.extend(restored.iter().filter(|s| s.progress.is_none()).cloned());
        if is_put_back(Bug::FinishedSplitsReadAgain) {
            let unread = |s: &SplitState| SplitState { progress: None, ..s.clone() };
            assigner.waiting.extend(restored.iter().filter(|s| s.is_finished()).map(unread));
        }
        let finished = restored.iter().filter(|s| s.is_finished());
        assigner.finished = finished.map(|s| s.split.id.clone()).collect();
        assigner
    }

    /// Whether subtasks read many splits side by side; otherwise each asks for the next when it has read the one before.
    #[must_use]
    pub fn read_side_by_side(mut self, side_by_side: bool) -> SplitAssigner {
        self.side_by_side = side_by_side;
        self
    }

    /// The first messages of the attempt.
    pub fn start(&mut self) -> Vec<SplitCommand> {
        self.settle()
    }

    /// Splits that nobody reads yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Splits that are remembered only because they are finished and must not be read again.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Whether splits have been looked for at least once, in this attempt or before the checkpoint.
    #[must_use]
    pub fn is_discovered(&self) -> bool {
        self.discovered
    }

    /// Takes an event; gives what to send, in order. Time plays no part in it.
    pub fn on(&mut self, event: SplitEvent) -> Vec<SplitCommand> {
        match event {
            SplitEvent::Discovered { splits } => {
                if self.replaying {
                    self.found_early = splits;
                } else {
                    self.discovered = true;
                    self.found(splits);
                }
                self.settle()
            }
            SplitEvent::Requested { subtask } => {
                if self.subtasks.contains(&subtask) && !self.hungry.contains(&subtask) {
                    self.hungry.push_back(subtask);
                }
                self.settle()
            }
            SplitEvent::EpochComplete { splits } => {
                let mut finished = BTreeSet::new();
                for split in splits.into_iter().filter(SplitState::is_finished) {
                    self.owned.remove(&split.split.id);
                    finished.insert(split.split.id);
                }
                let recorded = |id: &SplitId| finished.contains(id);
                let forgotten: Vec<SplitId> = self.gone.iter().filter(|id| !recorded(id)).cloned().collect();
                self.finished.append(&mut finished);
                forgotten.iter().for_each(|id| self.forget(id));
                Vec::new()
            }
            SplitEvent::Replay { barrier, epoch } => self.replay(barrier, epoch),
            SplitEvent::ReplayDone => {
                self.replaying = false;
                let found = std::mem::take(&mut self.found_early);
                self.discovered |= !found.is_empty();
                self.found(found);
                self.settle()
            }
        }
    }

    /// The assigner's part of the checkpoint whose barrier is sent now.
    #[must_use]
    pub fn cut(&self) -> SplitCut {
        SplitCut {
            waiting: self.waiting.iter().filter(|split| !is_forgotten(split)).cloned().collect(),
            finished: self.finished.difference(&self.gone).cloned().collect(),
            owned: self.owned.clone(),
            bound: self.bound_told,
            no_more: self.no_more_told,
        }
    }

    /// Hands waiting splits to those who asked, then tells what has become true by it.
    fn settle(&mut self) -> Vec<SplitCommand> {
        let mut commands = Vec::new();
        // During a replay splits are handed out by `replay`; requests and new splits wait until it is over.
        if self.replaying {
            return commands;
        }
        let mut owned = self.owned_by_subtask();
        let share = (self.owned.len() + self.waiting.len()).div_ceil(self.subtasks.len().max(1));
        let side_by_side = self.side_by_side;
        let has_room = |subtask: &SubtaskId, owned: &BTreeMap<SubtaskId, usize>| {
            !side_by_side || owned.get(subtask).is_none_or(|owned| *owned < share)
        };
        while !self.waiting.is_empty()
            && let Some(next) = self.hungry.iter().position(|subtask| has_room(subtask, &owned))
        {
            let subtask = self.hungry.remove(next).expect("found just now");
            let split = self.waiting.pop_front().expect("checked above");
            *owned.entry(subtask).or_default() += 1;
            self.own(&split, subtask);
            commands.push(SplitCommand::Assign { subtask, splits: vec![split] });
        }
        if self.discovered {
            // Only now, after the assignments above: see the invariant.
            self.tell_bound(self.bound(), &mut commands);
            if self.bounded && self.waiting.is_empty() && !self.no_more_told {
                self.no_more_told = true;
                commands.push(SplitCommand::NoMoreSplits);
            }
        }
        commands
    }

    fn owned_by_subtask(&self) -> BTreeMap<SubtaskId, usize> {
        let mut owned = BTreeMap::new();
        for subtask in self.owned.values() {
            *owned.entry(*subtask).or_default() += 1;
        }
        owned
    }

    /// A replayed epoch: every split that is known at its end is handed out first, round robin, so that the
    /// watermark is held back by the same splits as it was then.
    fn replay(&mut self, barrier: Barrier, epoch: SourceEpoch) -> Vec<SplitCommand> {
        self.replaying = true;
        let mut commands = Vec::new();
        // A finished split that moves again is another one of the same name: the first run had forgotten the
        // finished one by then.
        for change in &epoch.changed {
            if self.finished.contains(&change.split.id) {
                self.forget(&change.split.id);
            }
        }
        self.add(epoch.changed.iter().map(|change| change.split.clone()));
        let mut shares: BTreeMap<SubtaskId, Vec<SplitState>> = BTreeMap::new();
        let receivers: Vec<SubtaskId> = self.subtasks.iter().copied().collect();
        let already_owned = self.owned.len();
        for (position, split) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let subtask = receivers[(already_owned + position) % receivers.len()];
            self.own(&split, subtask);
            shares.entry(subtask).or_default().push(split);
        }
        commands.extend(shares.into_iter().map(|(subtask, splits)| SplitCommand::Assign { subtask, splits }));
        if let Some(bound) = epoch.bound {
            self.tell_bound(bound, &mut commands);
        }
        if epoch.no_more && !self.no_more_told {
            self.no_more_told = true;
            commands.push(SplitCommand::NoMoreSplits);
        }
        for subtask in receivers {
            let owns = |id: &SplitId| self.owned.get(id) == Some(&subtask);
            let moved = epoch.changed.iter().filter(|s| s.progress.is_some() && owns(&s.split.id));
            let part = ReplayPart {
                splits: moved.cloned().collect(),
                floors: epoch.floors.iter().filter(|floor| owns(&floor.split)).cloned().collect(),
                watermark: epoch.watermark,
            };
            commands.push(SplitCommand::ReplayTo { subtask, barrier, part });
        }
        commands
    }

    /// Takes over what a search has found: adds what is new, and marks the finished splits that are gone. One
    /// that comes back before it was forgotten is still the old one, in every checkpoint so far; it becomes new
    /// afterwards.
    fn found(&mut self, splits: Vec<SourceSplit>) {
        if !splits.is_empty() {
            let listed: BTreeSet<&SplitId> = splits.iter().map(|s| &s.id).collect();
            self.gone.extend(self.finished.iter().filter(|id| !listed.contains(id)).cloned());
        }
        self.add(splits);
    }

    fn forget(&mut self, id: &SplitId) {
        self.gone.remove(id);
        self.finished.remove(id);
        self.known.remove(id);
    }

    /// Puts the splits that are not known yet behind those that wait.
    fn add(&mut self, splits: impl IntoIterator<Item = SourceSplit>) {
        for split in splits {
            if self.known.insert(split.id.clone()) {
                self.waiting.push_back(SplitState { split, progress: None });
            }
        }
    }

    fn own(&mut self, split: &SplitState, subtask: SubtaskId) {
        let before = self.owned.insert(split.split.id.clone(), subtask);
        assert!(before.is_none(), "split '{}' is handed out twice", split.split.id);
    }

    /// The least watermark that a waiting split can bring along.
    fn bound(&self) -> Timestamp {
        let watermark = |s: &SplitState| match &s.progress {
            Some(SplitProgress::Reading { watermark, .. }) => *watermark,
            _ => Timestamp::MIN,
        };
        self.waiting.iter().map(watermark).min().unwrap_or(Timestamp::MAX)
    }

    fn tell_bound(&mut self, bound: Timestamp, commands: &mut Vec<SplitCommand>) {
        if self.bound_told != Some(bound) {
            self.bound_told = Some(bound);
            commands.push(SplitCommand::Bound { bound });
        }
    }
}

fn is_forgotten(split: &SplitState) -> bool {
    split.progress.is_some() && is_put_back(Bug::RestoredSplitsForgotten)
}

#[cfg(test)]
mod tests;
