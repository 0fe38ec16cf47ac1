//! The subtasks of a worker at work: each takes steps, writes its parts of checkpoints, and sends elements to the next
//! task, which may run on a worker that is gone, cut off, or takes nothing of an older attempt.

use std::collections::VecDeque;

use super::plan::COUNTER;
use super::source::Io;
use super::subtask::{Role, Subtask};
use super::worker::Local;
use super::world::World;
use crate::checkpoint::CheckpointEvent;
use crate::cluster::messages::AttemptId;
use crate::ids::SubtaskId;
use crate::protocol::{Failure, FromSubtask};

/// Elements of one sender that may wait at a receiver.
const RECEIVED_MAX: usize = 5;

impl World {
    /// Some subtask of the worker takes a step.
    pub(super) fn subtask_turn(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !worker.up || worker.stalled_until > self.now || worker.attempts.is_empty() {
            return;
        }
        let choice = self.random.below(worker.attempts.len());
        let (attempt, local) = worker.attempts.iter_mut().nth(choice).expect("below their number");
        let attempt = attempt.clone();
        let choice = self.random.below(local.subtasks.len());
        let subtask = &mut local.subtasks[choice];
        if subtask.gone {
            return;
        }
        let mut reports = Vec::new();
        let Subtask { control, out, uploads, role, .. } = subtask;
        match role {
            Role::Source(source) => {
                let mut io = Io { random: &mut self.random, out, reports: &mut reports, uploads };
                (0..3).for_each(|_| source.step(control, &mut io));
            }
            Role::Counter(counter) => (0..4).for_each(|_| counter.step(&mut self.random, uploads)),
        }
        if subtask.is_done() && subtask.out.iter().all(VecDeque::is_empty) {
            subtask.gone = true;
            reports.push(FromSubtask::Finished { subtask: subtask.id });
        }
        self.pass_on(at, &attempt, reports);
        self.upload(at, &attempt, choice);
        for receiver in 0..self.receivers(at, &attempt, choice) {
            self.transport(at, &attempt, choice, receiver);
        }
    }

    fn receivers(&self, at: usize, attempt: &AttemptId, subtask: usize) -> usize {
        let local = self.workers[at].attempts.get(attempt);
        local.and_then(|local| local.subtasks.get(subtask)).map_or(0, |subtask| subtask.out.len())
    }

    /// Makes the next part of a checkpoint durable, or reports it.
    fn upload(&mut self, at: usize, attempt: &AttemptId, subtask: usize) {
        let Some(local) = self.workers[at].attempts.get_mut(attempt) else { return };
        let Subtask { id, uploads, gone: false, .. } = &mut local.subtasks[subtask] else { return };
        let Some(upload) = uploads.front_mut() else { return };
        if let Some(effect) = upload.effects.pop() {
            // A write that seems to fail, and has taken place, is written again.
            let again = self.faults.store && self.random.one_in(6);
            if again {
                upload.effects.push(effect.clone());
            }
            return self.apply(&effect);
        }
        if self.random.one_in(3) {
            return;
        }
        let (subtask, generation) = (*id, attempt.generation);
        let upload = uploads.pop_front().expect("looked at above");
        let done = FromSubtask::SnapshotDone { subtask, generation, epoch: upload.epoch, snapshot: upload.snapshot };
        if let FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot } = done.clone()
            && self.faults.duplicates
        {
            let old = CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot };
            self.remember(&attempt.job, old);
        }
        let times = if self.faults.duplicates && self.random.one_in(5) { 2 } else { 1 };
        self.pass_on(at, attempt, vec![done; times]);
    }

    /// Moves elements to a receiver, where there is one and it has room.
    fn transport(&mut self, at: usize, attempt: &AttemptId, subtask: usize, receiver: usize) {
        let Some(local) = self.workers[at].attempts.get(attempt) else { return };
        let sender = &local.subtasks[subtask];
        if sender.gone || sender.out[receiver].is_empty() {
            return;
        }
        let (index, target) = (sender.id.index as usize, &local.order.slots[receiver].worker);
        let Some(to) = self.workers.iter().position(|worker| worker.up && worker.id == *target) else {
            return self.fail(at, attempt, subtask, "its neighbour is gone");
        };
        if self.data_cut(at, to) {
            return self.fail(at, attempt, subtask, "its neighbour cannot be reached");
        }
        if !self.workers[to].fences.may_run(attempt) {
            self.saw("rows of an older attempt were refused");
            return self.fail(at, attempt, subtask, "its neighbour takes nothing of it");
        }
        let there = |local: &Local| {
            local.subtasks.iter().position(|s| s.id == SubtaskId { operator: COUNTER, index: receiver as u32 })
        };
        // It has not started there yet.
        let Some(place) = self.workers[to].attempts.get(attempt).and_then(there) else { return };
        let room = match &self.workers[to].attempts[attempt].subtasks[place].role {
            Role::Counter(counter) => RECEIVED_MAX.saturating_sub(counter.inputs[index].len()),
            Role::Source(_) => 0,
        };
        let out = &mut self.workers[at].attempts.get_mut(attempt).expect("looked at above").subtasks[subtask].out;
        let count = room.min(out[receiver].len());
        let moved: Vec<_> = out[receiver].drain(..count).collect();
        let target = &mut self.workers[to].attempts.get_mut(attempt).expect("looked at above").subtasks[place];
        if let Role::Counter(counter) = &mut target.role {
            counter.inputs[index].extend(moved);
        }
    }

    fn fail(&mut self, at: usize, attempt: &AttemptId, subtask: usize, reason: &str) {
        let subtask = &mut self.workers[at].attempts.get_mut(attempt).expect("runs here").subtasks[subtask];
        subtask.gone = true;
        let failure = Failure { message: reason.to_owned(), retryable: true, consequence: true };
        let event = FromSubtask::Failed { subtask: subtask.id, generation: attempt.generation, failure };
        self.pass_on(at, attempt, vec![event]);
    }
}
