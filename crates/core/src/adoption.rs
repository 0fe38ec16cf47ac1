//! What a new leader has to know of an attempt that runs, so that it can go on with it instead of beginning a new one:
//! the decisions of its predecessors since the newest complete epoch, in their order. Recorded before they are carried
//! out, so a predecessor can have told nobody what is not here. All the rest comes from the subtasks, which report again
//! what no complete epoch covers.
//!
//! [`Journal::resume`] makes the machines of the attempt anew. The assigner's part of each checkpoint that is under way
//! is a function of the order of the decisions, so it comes out as it was; and every message is sent again, because a
//! subtask may have got any first part of what it was told, and knows what it has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checkpoint::End;
use crate::ids::{Epoch, OperatorId, SplitId, SubtaskId};
use crate::protocol::{Barrier, SourceSplit, SplitState};
use crate::splits::{SourceEpoch, SplitAssigner, SplitCommand, SplitCut};

/// A decision about a running attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// A barrier goes to the sources.
    EpochBegun {
        /// The barrier.
        barrier: Barrier,
        /// Set where the sources stop after it.
        end: Option<End>,
    },
    /// A source has splits that were not known before.
    SplitsFound {
        /// The source.
        operator: OperatorId,
        /// The splits, in the order in which they should be read.
        splits: Vec<SourceSplit>,
    },
    /// Splits of a source are handed to subtasks.
    SplitsAssigned {
        /// The source.
        operator: OperatorId,
        /// Each split with its subtask.
        splits: Vec<(SplitId, SubtaskId)>,
    },
}

impl Decision {
    fn epoch(&self) -> Option<Epoch> {
        match self {
            Decision::EpochBegun { barrier, .. } => Some(barrier.epoch),
            Decision::SplitsFound { .. } | Decision::SplitsAssigned { .. } => None,
        }
    }
}

/// The decisions about an attempt that its newest complete epoch does not cover. Its size follows from the splits that
/// are read at a time, and from what is decided between two checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    last_begun: Epoch,
    /// Who had which split at the barrier of the newest complete epoch, by source; without those that were finished.
    owned: BTreeMap<OperatorId, BTreeMap<SplitId, SubtaskId>>,
    decisions: Vec<Decision>,
}

/// A source of an attempt that is gone on with.
#[derive(Clone, Debug)]
pub struct ResumedSource<'a> {
    /// The subtasks that read it.
    pub subtasks: BTreeSet<SubtaskId>,
    /// Whether splits are looked for only once.
    pub bounded: bool,
    /// See [`SplitAssigner::read_side_by_side`].
    pub side_by_side: bool,
    /// All splits as of the newest complete epoch; without one, as they were first found.
    pub splits: &'a [SplitState],
}

/// An epoch that has begun and is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunEpoch {
    /// Its barrier.
    pub barrier: Barrier,
    /// Set where the attempt ends with it.
    pub end: Option<End>,
    /// The assigner's part of its checkpoint, by source.
    pub cuts: BTreeMap<OperatorId, SplitCut>,
}

/// A message that is sent again.
#[derive(Clone, Debug, PartialEq)]
pub enum Repeat {
    /// About the splits of a source.
    Splits {
        /// The source.
        operator: OperatorId,
        /// The last epoch that had begun.
        after: Epoch,
        /// What.
        command: SplitCommand,
    },
    /// A barrier, to every source subtask.
    Barrier {
        /// The barrier.
        barrier: Barrier,
        /// Whether the sources stop after it.
        last: bool,
    },
}

/// An attempt as its new leader goes on with it.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Who reads which split, by source.
    pub assigners: BTreeMap<OperatorId, SplitAssigner>,
    /// The epochs under way, oldest first.
    pub begun: Vec<BegunEpoch>,
    /// What to send, in order, before anything else.
    pub repeats: Vec<Repeat>,
}

impl Journal {
    /// Of an attempt that begins from the checkpoint of an epoch (0: from nothing).
    #[must_use]
    pub fn new(restored: Epoch) -> Journal {
        Journal { last_begun: restored, ..Journal::default() }
    }

    /// Whether the decision may follow.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, decision: &Decision) -> Result<(), String> {
        let Some(epoch) = decision.epoch() else { return Ok(()) };
        if epoch != self.last_begun.next() {
            return Err(format!("epoch {epoch} begins after epoch {}", self.last_begun));
        }
        let is_last = |decision: &Decision| matches!(decision, Decision::EpochBegun { end: Some(_), .. });
        if self.decisions.iter().any(is_last) {
            return Err(format!("epoch {epoch} begins after the last one"));
        }
        Ok(())
    }

    /// Adds a decision that was checked.
    pub fn record(&mut self, decision: Decision) {
        self.last_begun = decision.epoch().unwrap_or(self.last_begun);
        self.decisions.push(decision);
    }

    /// An epoch is complete, of which `sources` says what it did to each source: its checkpoint holds what was decided
    /// before its barrier.
    pub fn complete(&mut self, epoch: Epoch, sources: &BTreeMap<OperatorId, SourceEpoch>) {
        let Some(barrier) = self.decisions.iter().position(|decision| decision.epoch() == Some(epoch)) else { return };
        for decision in self.decisions.drain(..=barrier) {
            if let Decision::SplitsAssigned { operator, splits } = decision {
                self.owned.entry(operator).or_default().extend(splits);
            }
        }
        for (operator, source) in sources {
            let Some(owned) = self.owned.get_mut(operator) else { continue };
            for finished in source.changed.iter().filter(|state| state.is_finished()) {
                owned.remove(&finished.split.id);
            }
        }
    }

    /// The attempt as of the newest complete epoch (0: none), to be gone on with.
    ///
    /// # Errors
    /// What contradicts what; then the attempt must not be gone on with.
    pub fn resume(
        &self,
        complete: Epoch,
        sources: &BTreeMap<OperatorId, ResumedSource<'_>>,
    ) -> Result<Resumed, String> {
        let mut resumed = Resumed { assigners: BTreeMap::new(), begun: Vec::new(), repeats: Vec::new() };
        let nothing = BTreeMap::new();
        for (operator, source) in sources {
            let owned = self.owned.get(operator).unwrap_or(&nothing);
            let assigner = SplitAssigner::resumed(source.subtasks.clone(), source.bounded, source.splits, owned)?;
            resumed.assigners.insert(*operator, assigner.read_side_by_side(source.side_by_side));
        }
        let (mut after, mut assigned) = (complete, BTreeMap::new());
        for decision in &self.decisions {
            match decision {
                Decision::SplitsFound { operator, splits } => {
                    resumed.assigner(*operator)?.repeat_found(splits.clone());
                }
                Decision::SplitsAssigned { operator, splits } => {
                    resumed.assigner(*operator)?;
                    assigned.entry(*operator).or_insert_with(Vec::new).extend(splits.iter().cloned());
                }
                Decision::EpochBegun { barrier, end } => {
                    if barrier.epoch != after.next() {
                        return Err(format!("epoch {} has begun, and epoch {after} was the one before", barrier.epoch));
                    }
                    resumed.repeat_splits(after, std::mem::take(&mut assigned))?;
                    after = barrier.epoch;
                    resumed.repeats.push(Repeat::Barrier { barrier: *barrier, last: end.is_some() });
                    let cuts = resumed.assigners.iter().map(|(operator, assigner)| (*operator, assigner.cut()));
                    let epoch = BegunEpoch { barrier: *barrier, end: *end, cuts: cuts.collect() };
                    resumed.begun.push(epoch);
                }
            }
        }
        resumed.repeat_splits(after, assigned)?;
        Ok(resumed)
    }
}

impl Resumed {
    fn assigner(&mut self, operator: OperatorId) -> Result<&mut SplitAssigner, String> {
        self.assigners.get_mut(&operator).ok_or_else(|| format!("{operator} has splits and is no source"))
    }

    /// Everything between two barriers.
    fn repeat_splits(
        &mut self,
        after: Epoch,
        mut assigned: BTreeMap<OperatorId, Vec<(SplitId, SubtaskId)>>,
    ) -> Result<(), String> {
        for (operator, assigner) in &mut self.assigners {
            let commands = assigner.repeat_assigned(&assigned.remove(operator).unwrap_or_default())?;
            let repeat = |command| Repeat::Splits { operator: *operator, after, command };
            self.repeats.extend(commands.into_iter().map(repeat));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
