//! What the assigners of the sources decide, recorded where a successor must know it, and then carried out.

use mainstem_core::adoption::Decision;
use mainstem_core::ids::{Epoch, OperatorId, SplitId, SubtaskId};
use mainstem_core::protocol::{Failure, ToSubtask};
use mainstem_core::splits::{SplitAssigner, SplitCommand, SplitEvent};

use super::Running;
use crate::coordinator::fatal;
use crate::meta_log::Record;
use crate::spec::Deployer;

/// Finished splits that may be remembered before the user is told.
const FINISHED_WARN_ABOVE: usize = 100_000;

impl<D: Deployer> Running<'_, D> {
    pub(super) fn assigner(&mut self, operator: OperatorId) -> &mut SplitAssigner {
        self.assigners.get_mut(&operator).expect("every source has an assigner")
    }

    /// Subtasks ask for a split each.
    pub(super) async fn requested(&mut self, subtasks: Vec<SubtaskId>) -> Result<(), Failure> {
        let mut commands = std::collections::BTreeMap::<OperatorId, Vec<SplitCommand>>::new();
        for subtask in subtasks {
            let task = self.driver.spec.tasks.iter().find(|t| t.head == subtask.operator);
            let Some(operator) = task.and_then(|t| t.source) else {
                return Err(fatal(format!("bug: {subtask} asks for a split and reads no source")));
            };
            let more = self.assigner(operator).on(SplitEvent::Requested { subtask });
            commands.entry(operator).or_default().extend(more);
        }
        for (operator, commands) in commands {
            self.carry_out_splits(operator, commands).await?;
        }
        Ok(())
    }

    pub(super) async fn split_event(&mut self, operator: OperatorId, event: SplitEvent) -> Result<(), Failure> {
        if self.is_journaled {
            let splits = self.assigner(operator).news(&event);
            if !splits.is_empty() {
                self.record(Decision::SplitsFound { operator, splits }).await?;
            }
        }
        let commands = self.assigner(operator).on(event);
        self.carry_out_splits(operator, commands).await
    }

    pub(super) async fn carry_out_splits(
        &mut self,
        operator: OperatorId,
        commands: Vec<SplitCommand>,
    ) -> Result<(), Failure> {
        let assigned = handed_out(&commands);
        if !assigned.is_empty() {
            self.record(Decision::SplitsAssigned { operator, splits: assigned }).await?;
        }
        let after = self.checkpoints.last_begun();
        commands.into_iter().try_for_each(|command| self.tell_of_splits(operator, after, command))?;
        self.show_splits();
        Ok(())
    }

    /// Records a decision before it is carried out, where somebody else could have to go on from it.
    pub(super) async fn record(&mut self, decision: Decision) -> Result<(), Failure> {
        if self.is_journaled {
            let generation = self.recovered.generation;
            self.driver.home.log.append(Record::Decided { generation, decision }).await?;
        }
        Ok(())
    }

    pub(super) fn tell_of_splits(
        &self,
        operator: OperatorId,
        after: Epoch,
        command: SplitCommand,
    ) -> Result<(), Failure> {
        match command {
            SplitCommand::Assign { subtask, splits } => self.tell(subtask, ToSubtask::AssignSplits { after, splits }),
            SplitCommand::Bound { bound } => self.tell_all(operator, &ToSubtask::UnassignedWatermark { bound }),
            SplitCommand::NoMoreSplits => self.tell_all(operator, &ToSubtask::NoMoreSplits),
            SplitCommand::ReplayTo { subtask, barrier, part } => {
                self.tell(subtask, ToSubtask::ReplayTo { barrier, part })
            }
        }
    }

    /// Keeps the status up to date, and says once when very many finished splits have to be remembered.
    pub(super) fn show_splits(&mut self) {
        let waiting = self.assigners.values().map(SplitAssigner::waiting).sum();
        let monitored = self.assigners.iter().filter(|(o, _)| self.driver.sources[o].monitor_interval.is_some());
        let finished = monitored.map(|(_, assigner)| assigner.finished()).sum();
        if finished > FINISHED_WARN_ABOVE && !self.driver.warned_of_finished {
            self.driver.warned_of_finished = true;
            tracing::warn!(
                job = %self.driver.spec.job, finished,
                "very many files of monitored directories have been read and are still there; checkpoints name each \
                 of them: move files away once they have been read, the job then forgets them"
            );
        }
        self.driver.status.send_modify(|s| (s.splits_waiting, s.splits_finished) = (waiting, finished));
    }
}

/// Each split that is handed out, with its subtask.
fn handed_out(commands: &[SplitCommand]) -> Vec<(SplitId, SubtaskId)> {
    let of_command = |command: &SplitCommand| match command {
        SplitCommand::Assign { subtask, splits } => {
            splits.iter().map(|state| (state.split.id.clone(), *subtask)).collect()
        }
        SplitCommand::Bound { .. } | SplitCommand::NoMoreSplits | SplitCommand::ReplayTo { .. } => Vec::new(),
    };
    commands.iter().flat_map(of_command).collect()
}
