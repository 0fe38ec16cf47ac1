//! A running attempt, as its driver sees it: the real machines for checkpoints, splits and idleness, fed with what
//! subtasks report, and what they ask for, carried out. Mirrors the coordinator's own event loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::driver::{Control, Driver, Halt, Stage, Then};
use super::plan::{COUNTER, SOURCE};
use super::recovery::Deployed;
use super::store::Effect;
use super::world::World;
use crate::checkpoint::{CheckpointCommand, CheckpointCoordinator, CheckpointEvent, CheckpointStart, End};
use crate::cluster::messages::{AttemptId, AttemptOrder, ToWorker, WorkerId};
use crate::idleness::{Idleness, Member};
use crate::ids::{Epoch, OperatorId, SubtaskId};
use crate::job::JobEvent;
use crate::job_record::{EpochRecord, Record};
use crate::protocol::{Failure, FromSubtask, SplitState, ToSubtask};
use crate::splits::{SourceEpoch, SplitAssigner, SplitCommand, SplitCut, SplitEvent};
use crate::time::Timestamp;

/// An epoch between its barrier and the record of its completion.
pub(super) struct Open {
    pub(super) cut: SplitCut,
    pub(super) record: Option<(EpochRecord, Vec<SplitState>)>,
}

/// Something slow beside the event loop.
pub(super) struct Slow {
    pub(super) effect: Effect,
    pub(super) done: bool,
    pub(super) report: CheckpointEvent,
}

pub(super) struct Running {
    pub(super) attempt: AttemptId,
    pub(super) order: AttemptOrder,
    outboxes: BTreeMap<WorkerId, u64>,
    machine: CheckpointCoordinator,
    pub(super) assigner: SplitAssigner,
    idleness: Idleness,
    pub(super) open: BTreeMap<Epoch, Open>,
    pub(super) last_splits: Vec<SplitState>,
    replay: BTreeMap<Epoch, SourceEpoch>,
    /// What the machine has asked for and is not done yet, then what it is to be told.
    todo: VecDeque<CheckpointCommand>,
    pub(super) news: VecDeque<CheckpointEvent>,
    pub(super) slow: Vec<Slow>,
    /// Deletions that wait for the one that runs.
    pub(super) deletions: VecDeque<Vec<String>>,
    end: Option<End>,
}

impl Running {
    pub(super) fn into_unfinished(self) -> Vec<Effect> {
        self.slow.into_iter().filter(|slow| !slow.done).map(|slow| slow.effect).collect()
    }

    fn subtasks(&self, operator: OperatorId) -> impl Iterator<Item = SubtaskId> + use<> {
        (0..self.order.parallelism).map(move |index| SubtaskId { operator, index })
    }
}

impl World {
    pub(super) fn start_running(&mut self, driver: &mut Driver) {
        let Stage::Placing(recovered) = std::mem::replace(&mut driver.stage, Stage::Over) else { return };
        let initial = World::initial_splits(driver, &recovered.found);
        let Some(Deployed { order, outboxes, .. }) = recovered.deployed else { return };
        let (found, now) = (recovered.found, Timestamp(self.now));
        let replay: Vec<EpochRecord> =
            driver.log.epochs.range(found.restored().next()..).map(|(_, record)| record.clone()).collect();
        let of = |operator| (0..order.parallelism).map(move |index| SubtaskId { operator, index });
        let sources: BTreeSet<SubtaskId> = of(SOURCE).collect();
        let machine = CheckpointCoordinator::new(CheckpointStart {
            cadence: None,
            config: driver.options.validate().expect("in range"),
            generation: order.attempt.generation,
            subtasks: of(SOURCE).chain(of(COUNTER)).collect(),
            sources: sources.clone(),
            restored: found.restored(),
            epoch_now: recovered.first_epoch_now,
            replay: replay.iter().map(EpochRecord::barrier).collect(),
            retained: found.retained.clone(),
            unreadable: found.unreadable.clone(),
            started_at: now,
        });
        let member = |subtask: &SubtaskId| Member { subtask: *subtask, source: SOURCE, group: SOURCE };
        let mut running = Box::new(Running {
            attempt: order.attempt.clone(),
            idleness: Idleness::new(sources.iter().map(member)),
            assigner: SplitAssigner::new(sources, true, Some(&initial), !replay.is_empty()),
            order,
            outboxes,
            machine,
            open: BTreeMap::new(),
            last_splits: found.manifest.as_ref().map(|manifest| manifest.splits.clone()).unwrap_or_default(),
            replay: replay.into_iter().map(|mut r| (r.epoch, r.sources.remove(&SOURCE).unwrap_or_default())).collect(),
            todo: VecDeque::new(),
            news: VecDeque::new(),
            slow: Vec::new(),
            deletions: VecDeque::new(),
            end: None,
        });
        let commands = driver.lifecycle.on(now, JobEvent::Deployed);
        let splits = running.assigner.start();
        self.carry_out_splits(&running, splits);
        if !commands.is_empty() {
            running.news.push_back(CheckpointEvent::StopRequested);
        }
        self.saw("an attempt ran");
        driver.stage = Stage::Running(running);
    }

    /// Ends what still runs of an attempt.
    pub(super) fn stop_running(&mut self, at: usize, running: Running) {
        for subtask in running.subtasks(SOURCE).chain(running.subtasks(COUNTER)) {
            self.tell(&running, subtask, ToSubtask::Cancel);
        }
        self.release(at, &running.attempt);
        running.into_unfinished().into_iter().for_each(|effect| self.leave_behind(effect));
    }

    pub(super) fn running_step(&mut self, at: usize, driver: &mut Driver) {
        let Stage::Running(mut running) = std::mem::replace(&mut driver.stage, Stage::Unsettled) else { return };
        let ended = self.turn(at, driver, &mut running);
        driver.stage = Stage::Running(running);
        if let Some(ended) = ended {
            self.end_attempt(at, driver, ended);
        }
    }

    fn turn(&mut self, at: usize, driver: &mut Driver, running: &mut Running) -> Option<Result<End, Halt>> {
        if !running.todo.is_empty() || !running.news.is_empty() {
            return self.pump(at, driver, running).err().map(|failure| Err(Halt::Failed(failure)));
        }
        let deletes = running.slow.iter().any(|slow| matches!(slow.effect, Effect::Delete { .. }));
        if let Some(end) = running.end.filter(|_| !deletes && running.deletions.is_empty()) {
            return Some(Ok(end));
        }
        match self.random.below(8) {
            0 => match driver.next_control() {
                Some(Control::Cancel) => return Some(Err(Halt::Cancelled)),
                Some(Control::Stop) => {
                    driver.lifecycle.on(Timestamp(self.now), JobEvent::StopRequested);
                    running.news.push_back(CheckpointEvent::StopRequested);
                }
                Some(Control::Rescale(parallelism)) => {
                    driver.wanted = parallelism;
                    if !driver.lifecycle.on(Timestamp(self.now), JobEvent::RescaleRequested).is_empty() {
                        self.saw("a change of parallelism took a checkpoint");
                        running.news.push_back(CheckpointEvent::StopRequested);
                    }
                }
                None => {}
            },
            1 | 2 => self.slow_step(running),
            3 => {
                if running.machine.next_wakeup() <= Timestamp(self.now) || self.random.one_in(4) {
                    let wall = Timestamp(self.now + self.coordinators[at].skew_ms);
                    running.news.push_back(CheckpointEvent::Tick { wall });
                }
            }
            4 if self.faults.duplicates && self.random.one_in(4) => {
                running.news.extend(self.old_report(&driver.job));
            }
            _ => {
                let event = driver.events.pop_front()?;
                if let Err(failure) = self.on_event(running, event) {
                    return Some(Err(Halt::Failed(failure)));
                }
            }
        }
        self.pump(at, driver, running).err().map(|failure| Err(Halt::Failed(failure)))
    }

    fn on_event(&mut self, running: &mut Running, event: FromSubtask) -> Result<(), Failure> {
        let news = match event {
            FromSubtask::RequestSplit { subtask } => {
                let commands = running.assigner.on(SplitEvent::Requested { subtask });
                self.carry_out_splits(running, commands);
                return Ok(());
            }
            FromSubtask::SourceWatermark { subtask, status } => {
                for follow in running.idleness.on_report(subtask, status) {
                    self.saw("an idle source was told to follow");
                    self.tell(running, follow.subtask, ToSubtask::FollowWatermark { watermark: follow.watermark });
                }
                return Ok(());
            }
            FromSubtask::Restored { subtask } => CheckpointEvent::SubtaskRestored { subtask },
            FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot } => {
                CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot }
            }
            // Nothing is measured here.
            FromSubtask::MarkersArrived { .. } => return Ok(()),
            FromSubtask::InputExhausted { subtask } => CheckpointEvent::InputExhausted { subtask },
            FromSubtask::Finished { subtask } => CheckpointEvent::SubtaskFinished { subtask },
            FromSubtask::Failed { failure, .. } => return Err(failure),
        };
        running.news.push_back(news);
        Ok(())
    }

    /// Tells the machine what has happened and does what it asks for, until a record has to be waited for.
    fn pump(&mut self, at: usize, driver: &mut Driver, running: &mut Running) -> Result<(), Failure> {
        loop {
            if let Some(command) = running.todo.pop_front() {
                self.carry_out(at, driver, running, command)?;
                if driver.is_waiting() || driver.lost {
                    return Ok(());
                }
            } else if let Some(event) = running.news.pop_front() {
                let foreign = matches!(&event, CheckpointEvent::SnapshotDone { generation, .. }
                    if *generation != running.attempt.generation);
                running.todo.extend(running.machine.on(Timestamp(self.now), event));
                if foreign && running.end.is_none() {
                    let refused = running.todo.iter().any(|c| matches!(c, CheckpointCommand::Refused { .. }));
                    assert!(refused, "I3: a report of another attempt was taken");
                    self.saw("a report of an older attempt was refused");
                }
            } else {
                return Ok(());
            }
        }
    }

    fn carry_out(
        &mut self,
        at: usize,
        driver: &mut Driver,
        running: &mut Running,
        command: CheckpointCommand,
    ) -> Result<(), Failure> {
        let generation = running.attempt.generation;
        match command {
            CheckpointCommand::InjectBarrier { barrier, last } => {
                running.open.insert(barrier.epoch, Open { cut: running.assigner.cut(), record: None });
                for subtask in running.subtasks(SOURCE) {
                    self.tell(running, subtask, ToSubtask::InjectBarrier { barrier, last });
                }
            }
            CheckpointCommand::Replay { barrier } => {
                let epoch = running.replay.remove(&barrier.epoch).unwrap_or_default();
                let commands = running.assigner.on(SplitEvent::Replay { barrier, epoch });
                self.carry_out_splits(running, commands);
                running.open.insert(barrier.epoch, Open { cut: running.assigner.cut(), record: None });
            }
            CheckpointCommand::ReplayDone => {
                let commands = running.assigner.on(SplitEvent::ReplayDone);
                self.carry_out_splits(running, commands);
            }
            CheckpointCommand::WriteManifest { barrier, epoch_now, snapshots, end } => {
                self.write_manifest(running, barrier, epoch_now, snapshots, end)?;
            }
            CheckpointCommand::RecordComplete { epoch } => {
                let (record, _) = running.open[&epoch].record.as_ref().expect("its manifest was written");
                let record = Record::EpochComplete(record.clone());
                self.record(at, driver, record, Then::Complete(epoch));
            }
            CheckpointCommand::Commit { epoch, committables } => {
                let effect = Effect::Publish { job: driver.job.clone(), epoch, committables };
                running.slow.push(Slow { effect, done: false, report: CheckpointEvent::Committed { epoch } });
            }
            CheckpointCommand::RecordCommitted { epoch } => {
                self.record(at, driver, Record::EpochCommitted { generation, epoch }, Then::Committed(epoch));
            }
            CheckpointCommand::RecordRetired { epochs } => {
                let record = Record::EpochsRetired { generation, epochs: epochs.clone() };
                self.record(at, driver, record, Then::Retired(epochs));
            }
            CheckpointCommand::DeleteObjects { paths } => {
                running.deletions.push_back(paths);
                self.delete_next(running);
            }
            CheckpointCommand::PrepareSavepoint { .. }
            | CheckpointCommand::CopySavepoint { .. }
            | CheckpointCommand::RecordSavepoint { .. }
            | CheckpointCommand::RecordSavepointFailure { .. } => unreachable!("nobody asks for savepoints here"),
            CheckpointCommand::Refused { .. } => self.saw("a message was refused"),
            CheckpointCommand::Finish { end } => running.end = Some(end),
            CheckpointCommand::FailAttempt { failure } => return Err(failure),
        }
        Ok(())
    }

    fn carry_out_splits(&mut self, running: &Running, commands: Vec<SplitCommand>) {
        let after = running.machine.last_begun();
        for command in commands {
            let to_all = match command {
                SplitCommand::Assign { subtask, splits } => {
                    self.tell(running, subtask, ToSubtask::AssignSplits { after, splits });
                    continue;
                }
                SplitCommand::ReplayTo { subtask, barrier, part } => {
                    self.tell(running, subtask, ToSubtask::ReplayTo { barrier, part });
                    continue;
                }
                SplitCommand::Bound { bound } => ToSubtask::UnassignedWatermark { bound },
                SplitCommand::NoMoreSplits => ToSubtask::NoMoreSplits,
            };
            for subtask in running.subtasks(SOURCE) {
                self.tell(running, subtask, to_all.clone());
            }
        }
    }

    fn tell(&mut self, running: &Running, subtask: SubtaskId, message: ToSubtask) {
        let slot = running.order.place(subtask).and_then(|slot| running.outboxes.get(&slot.worker));
        let Some(link) = slot.copied() else { return };
        self.send(link, ToWorker::Tell { attempt: running.attempt.clone(), subtask, message });
    }
}
