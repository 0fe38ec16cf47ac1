//! Going on with an attempt that another coordinator has begun: its epochs are taken over, and its subtasks are told again
//! what they may have missed.

use mainstem_core::adoption::{Repeat, Resumed};
use mainstem_core::checkpoint::End;
use mainstem_core::cluster::messages::SlotFiles;
use mainstem_core::ids::OperatorId;
use mainstem_core::job::JobEvent;
use mainstem_core::protocol::{Failure, ToSubtask};

use super::{OpenEpoch, Running};
use crate::spec::Deployer;

impl<D: Deployer> Running<'_, D> {
    /// Gives whether the attempt is to take its last checkpoint: where it began to do so for another parallelism, or
    /// another one is wanted now. Where it is a stop that was asked for, that will be said again.
    pub(super) async fn resume(&mut self, resumed: Resumed) -> Result<bool, Failure> {
        let now = self.driver.clock.monotonic();
        let end = self.recorded_end();
        let was_stopping = resumed.begun.iter().map(|epoch| epoch.end).chain([end]).any(|end| end == Some(End::Stop));
        self.checkpoints.resume(now, end, resumed.begun.iter().map(|epoch| (epoch.barrier, epoch.end)));
        for epoch in resumed.begun {
            let open = OpenEpoch { cuts: epoch.cuts, injected_at: now, files: SlotFiles::new(), written: None };
            self.open.insert(epoch.barrier.epoch, open);
            let subtasks = self.attempt.subtasks.len();
            self.driver.spec.history.begun(epoch.barrier.epoch, self.recovered.generation, subtasks);
        }
        let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
        for repeat in resumed.repeats {
            match repeat {
                Repeat::Splits { operator, after, command } => self.tell_of_splits(operator, after, command)?,
                Repeat::Barrier { barrier, last } => {
                    let inject = ToSubtask::InjectBarrier { barrier, last };
                    operators.iter().try_for_each(|operator| self.tell_all(*operator, &inject))?;
                }
            }
        }
        operators.iter().try_for_each(|operator| self.tell_all(*operator, &ToSubtask::Resume))?;
        self.show_splits();
        if !was_stopping && self.driver.wanted_parallelism == self.driver.spec.parallelism {
            return Ok(false);
        }
        let commands = self.driver.lifecycle.on(now, JobEvent::RescaleRequested);
        self.driver.publish_state();
        Ok(!commands.is_empty())
    }

    /// With what the attempt ends, where its last epoch is complete.
    fn recorded_end(&self) -> Option<End> {
        let (_, newest) = self.driver.home.log.state().epochs.last_key_value()?;
        newest.end.filter(|_| newest.generation == self.recovered.generation)
    }
}
