//! How an assigner goes on where another one of the same attempt has left off, and what of its decisions must be known
//! for it. See [`crate::adoption`].

use std::collections::{BTreeMap, BTreeSet};

use super::{SplitAssigner, SplitCommand, SplitEvent};
use crate::ids::{SplitId, SubtaskId};
use crate::protocol::{SourceSplit, SplitState};

impl SplitAssigner {
    /// An assigner for an attempt that runs. `restored` is the full list of splits in its newest complete checkpoint, or
    /// as they were first found; `owned` says which subtask had been given which of them before its barrier.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn resumed(
        subtasks: BTreeSet<SubtaskId>,
        bounded: bool,
        restored: &[SplitState],
        owned: &BTreeMap<SplitId, SubtaskId>,
    ) -> Result<SplitAssigner, String> {
        let mut assigner = SplitAssigner::new(subtasks, bounded, Some(restored), false);
        for (split, subtask) in owned {
            assigner.take_from_waiting(split, *subtask)?;
        }
        Ok(assigner)
    }

    /// The splits that become known by the event.
    #[must_use]
    pub fn news(&self, event: &SplitEvent) -> Vec<SourceSplit> {
        let splits = match event {
            SplitEvent::Discovered { splits } if !self.replaying => splits,
            SplitEvent::ReplayDone => &self.found_early,
            _ => return Vec::new(),
        };
        let mut seen = BTreeSet::new();
        let is_news = |split: &&SourceSplit| !self.known.contains(&split.id) && seen.insert(split.id.clone());
        splits.iter().filter(is_news).cloned().collect()
    }

    /// The assigner before this one has found these splits.
    pub fn repeat_found(&mut self, splits: Vec<SourceSplit>) {
        self.add(splits);
    }

    /// The assigner before this one has handed out these splits, one after the other and without a barrier in between.
    /// Gives the messages that went with it: one for each subtask, then what is true of the rest.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn repeat_assigned(&mut self, assigned: &[(SplitId, SubtaskId)]) -> Result<Vec<SplitCommand>, String> {
        let mut shares = BTreeMap::<SubtaskId, Vec<SplitState>>::new();
        for (split, subtask) in assigned {
            let state = self.take_from_waiting(split, *subtask)?;
            shares.entry(*subtask).or_default().push(state);
        }
        let assign = |(subtask, splits)| SplitCommand::Assign { subtask, splits };
        let mut commands: Vec<_> = shares.into_iter().map(assign).collect();
        commands.extend(self.settle());
        Ok(commands)
    }

    fn take_from_waiting(&mut self, id: &SplitId, subtask: SubtaskId) -> Result<SplitState, String> {
        if !self.subtasks.contains(&subtask) {
            return Err(format!("split '{id}' was handed to {subtask}, which the attempt does not have"));
        }
        let position = self.waiting.iter().position(|state| state.split.id == *id);
        let Some(state) = position.and_then(|position| self.waiting.remove(position)) else {
            return Err(format!("split '{id}' was handed to {subtask} and was not there to be read"));
        };
        self.own(&state, subtask);
        Ok(state)
    }
}
