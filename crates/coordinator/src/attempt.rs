//! One attempt to run a job: feeds what subtasks report to the machines of `mainstem_core` and carries out what
//! they decide, in order.
//!
//! The event loop waits for nothing slow: publishing, discovery, manifests and deletions run beside it
//! ([`crate::lane`], [`Slow`]) and report back as events. Only records of the log, which are short, are written
//! in the loop itself.

mod checkpoints;
mod deletions;
mod draft;
mod savepoints;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_core::checkpoint::{CheckpointCoordinator, CheckpointEvent, CheckpointStart, End};
use mainstem_core::idleness::{Follow, Idleness, Member};
use mainstem_core::ids::{Epoch, OperatorId, SavepointId, SubtaskId};
use mainstem_core::job::{JobEvent, root_cause};
use mainstem_core::protocol::{Failure, FromSubtask, SourceSplit, SplitState, ToSubtask};
use mainstem_core::splits::{SplitAssigner, SplitCommand, SplitCut, SplitEvent};
use mainstem_core::time::Timestamp;
use mainstem_rt::failpoint;
use tokio::task::{JoinError, JoinSet};

use self::deletions::Deletions;
use self::draft::Written;
use self::savepoints::Copied;
use crate::coordinator::{Driver, Halt, Source, fatal};
use crate::meta_log::Record;
use crate::recovery::Recovered;
use crate::spec::{Attempt, Control, Deployer, Deployment, RestorePlan};

/// How long the consequences of a failure may arrive before its cause.
const ROOT_CAUSE_WAIT_MS: i64 = 500;

/// Finished splits that may be remembered before the user is told.
const FINISHED_WARN_ABOVE: usize = 100_000;

/// An epoch between its barrier and the record of its completion.
struct OpenEpoch {
    cuts: BTreeMap<OperatorId, SplitCut>,
    injected_at: Timestamp,
    /// Set when the manifest is durable.
    written: Option<Box<Written>>,
}

/// The end of something slow that ran beside the event loop.
enum Slow {
    ManifestWritten { epoch: Epoch, result: Result<Box<Written>, Failure> },
    Published { epoch: Epoch, result: Result<(), Failure> },
    Discovered { operator: OperatorId, result: Result<Vec<SourceSplit>, Failure> },
    Deleted { failed: Vec<String> },
    SavepointPrepared { savepoint: SavepointId, result: Result<(), Failure> },
    SavepointCopied { savepoint: SavepointId, result: Result<Copied, Failure> },
}

struct Running<'a, D> {
    driver: &'a mut Driver<D>,
    recovered: Recovered,
    attempt: Attempt,
    checkpoints: CheckpointCoordinator,
    assigners: BTreeMap<OperatorId, SplitAssigner>,
    idleness: Idleness,
    /// When each monitored source is looked at next; absent while that is being done.
    discoveries: BTreeMap<OperatorId, Timestamp>,
    open: BTreeMap<Epoch, OpenEpoch>,
    /// Splits as of the newest epoch whose manifest was put together.
    last_sources: BTreeMap<OperatorId, Vec<SplitState>>,
    /// What runs beside the loop. Bounded: one manifest an open epoch, one publication, one discovery a source,
    /// one batch of deletions, one savepoint.
    slow: JoinSet<Slow>,
    deletions: Deletions,
    /// The savepoint that lies there and is not recorded yet.
    copied: Option<Copied>,
    /// Whether every subtask has ended, as it should at the end.
    subtasks_gone: bool,
    end: Option<End>,
}

/// Runs an attempt to its end.
pub(crate) async fn run<D: Deployer>(driver: &mut Driver<D>, recovered: Recovered) -> Result<End, Halt> {
    let initial = initial_splits(driver, &recovered).await?;
    let restore = RestorePlan {
        epoch: recovered.manifest.as_ref().map(|m| m.epoch),
        operators: recovered.manifest.as_ref().map(|m| m.operators.clone()).unwrap_or_default(),
    };
    let deployment = Deployment {
        generation: recovered.generation,
        parallelism: driver.spec.parallelism,
        first_epoch_now: recovered.first_epoch_now,
        restore,
        replay_until: recovered.replay.last().map(|r| r.epoch),
        aligned_timeout_ms: driver.spec.options.aligned_timeout_ms,
    };
    let attempt = driver.deploy(deployment).await?;
    failpoint::hit(failpoint::ATTEMPT_DEPLOYED);
    let mut running = Running::new(driver, recovered, attempt, &initial);
    let mut events = running.driver.lifecycle.on(running.driver.clock.monotonic(), JobEvent::Deployed);
    if running.driver.spec.parallelism != running.driver.wanted_parallelism {
        // What was in flight is worked off where it was; the checkpoint after it can be spread anew.
        let now = running.driver.clock.monotonic();
        events.extend(running.driver.lifecycle.on(now, JobEvent::RescaleRequested));
    }
    running.driver.publish_state();
    let stop_at_once = !events.is_empty();
    let outcome = running.run(&initial, stop_at_once).await;
    // Whatever still runs is told to end; the next deployment waits until it has.
    for subtask in running.attempt.subtasks.values() {
        let _ = subtask.try_send(ToSubtask::Cancel);
    }
    // A publication that is under way is abandoned: its epoch is complete, so the next attempt publishes it. A
    // manifest that still reaches the disk is named by no record and goes with a later start.
    running.slow.shutdown().await;
    outcome
}

/// The splits of each source at the start: of the checkpoint, or as first found and recorded, or found now.
async fn initial_splits<D: Deployer>(
    driver: &mut Driver<D>,
    recovered: &Recovered,
) -> Result<BTreeMap<OperatorId, Vec<SplitState>>, Halt> {
    let mut initial = BTreeMap::new();
    let operators: Vec<OperatorId> = driver.sources.keys().copied().collect();
    for operator in operators {
        if let Some(manifest) = &recovered.manifest {
            initial.insert(operator, manifest.sources.get(&operator).cloned().unwrap_or_default());
            continue;
        }
        if !driver.home.log.state().initial_splits.contains_key(&operator) {
            let discovery = driver.sources[&operator].discovery.ask(());
            let splits = driver.attend(discovery).await?;
            let generation = recovered.generation;
            driver.home.log.append(Record::SplitsDiscovered { generation, operator, splits }).await?;
        }
        let splits = driver.home.log.state().initial_splits[&operator].iter();
        let unread = splits.map(|split| SplitState { split: split.clone(), progress: None });
        initial.insert(operator, unread.collect());
    }
    Ok(initial)
}

impl<'a, D: Deployer> Running<'a, D> {
    fn new(
        driver: &'a mut Driver<D>,
        recovered: Recovered,
        attempt: Attempt,
        initial: &BTreeMap<OperatorId, Vec<SplitState>>,
    ) -> Self {
        let now = driver.clock.monotonic();
        let subtasks: BTreeSet<SubtaskId> = attempt.subtasks.keys().copied().collect();
        let source_of: BTreeMap<OperatorId, OperatorId> =
            driver.spec.tasks.iter().filter_map(|t| t.source.map(|s| (t.head, s))).collect();
        let sources = subtasks.iter().filter(|s| source_of.contains_key(&s.operator)).copied().collect();
        let config = driver.spec.options.validate().expect("checked before the first attempt");
        let checkpoints = CheckpointCoordinator::new(CheckpointStart {
            config,
            generation: recovered.generation,
            sources,
            restored: recovered.epoch(),
            epoch_now: recovered.first_epoch_now,
            replay: recovered.barriers(),
            retained: recovered.retained.clone(),
            unreadable: recovered.unreadable.clone(),
            started_at: now,
            subtasks: subtasks.clone(),
        });
        let replaying = !recovered.replay.is_empty();
        let assigner = |(operator, source): (&OperatorId, &Source)| {
            let of_source = subtasks.iter().filter(|s| source_of.get(&s.operator) == Some(operator)).copied().collect();
            let bounded = source.monitor_interval.is_none();
            let restored = Some(initial[operator].as_slice());
            (*operator, SplitAssigner::new(of_source, bounded, restored, replaying))
        };
        let assigners = driver.sources.iter().map(assigner).collect();
        let member = |subtask: &SubtaskId| {
            let source = *source_of.get(&subtask.operator)?;
            Some(Member { subtask: *subtask, source, group: driver.sources.get(&source)?.group? })
        };
        let idleness = Idleness::new(subtasks.iter().filter_map(member));
        let monitored = driver.sources.iter().filter(|(_, s)| s.monitor_interval.is_some());
        let discoveries = monitored.map(|(operator, _)| (*operator, now)).collect();
        Running {
            last_sources: recovered.manifest.as_ref().map(|m| m.sources.clone()).unwrap_or_default(),
            driver,
            recovered,
            attempt,
            checkpoints,
            assigners,
            idleness,
            discoveries,
            open: BTreeMap::new(),
            slow: JoinSet::new(),
            deletions: Deletions::default(),
            copied: None,
            subtasks_gone: false,
            end: None,
        }
    }

    async fn run(&mut self, initial: &BTreeMap<OperatorId, Vec<SplitState>>, stop_at_once: bool) -> Result<End, Halt> {
        let operators: Vec<OperatorId> = initial.keys().copied().collect();
        for operator in operators {
            let commands = self.assigner(operator).start();
            self.carry_out_splits(operator, commands)?;
        }
        if stop_at_once {
            self.checkpoint_event(CheckpointEvent::StopRequested).await?;
        }
        self.ask_for_savepoint().await?;
        loop {
            if let Some(end) = self.end.filter(|_| self.deletions.is_idle()) {
                return Ok(end);
            }
            let discovery = self.discoveries.values().min().copied().unwrap_or(Timestamp::MAX);
            let wakeup = self.driver.clock.sleep_until(self.checkpoints.next_wakeup().min(discovery));
            tokio::select! {
                biased;
                // Without anybody who could ask for something, the job goes on by itself.
                Some(control) = self.driver.control.recv() => match control {
                    Control::Stop => {
                        self.driver.lifecycle.on(self.driver.clock.monotonic(), JobEvent::StopRequested);
                        self.driver.publish_state();
                        self.checkpoint_event(CheckpointEvent::StopRequested).await?;
                    }
                    Control::Rescale(parallelism) => {
                        self.driver.wanted_parallelism = parallelism;
                        let commands = self.driver.lifecycle.on(self.driver.clock.monotonic(), JobEvent::RescaleRequested);
                        self.driver.publish_state();
                        if !commands.is_empty() {
                            self.checkpoint_event(CheckpointEvent::StopRequested).await?;
                        }
                    }
                    Control::Savepoint(request) => {
                        self.driver.savepoint = Some(request);
                        self.ask_for_savepoint().await?;
                    }
                    Control::Cancel => return Err(Halt::Cancelled),
                },
                Some(done) = self.slow.join_next() => self.on_slow(done).await?,
                event = self.attempt.events.recv(), if !self.subtasks_gone => match event {
                    Some(event) => self.on_event(event).await?,
                    None if self.checkpoints.every_subtask_has_finished() => self.subtasks_gone = true,
                    None => return Err(fatal("bug: every subtask has ended and none said why".to_owned()).into()),
                },
                () = wakeup => self.on_wakeup().await?,
            }
        }
    }

    async fn on_wakeup(&mut self) -> Result<(), Failure> {
        let now = self.driver.clock.monotonic();
        let due: Vec<OperatorId> = self.discoveries.iter().filter(|(_, at)| **at <= now).map(|(o, _)| *o).collect();
        for operator in due {
            self.discoveries.remove(&operator);
            let discovery = self.driver.sources[&operator].discovery.ask(());
            self.slow.spawn(async move { Slow::Discovered { operator, result: discovery.await } });
        }
        let wall = self.driver.clock.now();
        self.checkpoint_event(CheckpointEvent::Tick { wall }).await
    }

    async fn on_slow(&mut self, done: Result<Slow, JoinError>) -> Result<(), Failure> {
        match done.map_err(|e| fatal(format!("bug: a task of the coordinator has failed: {e}; please report it")))? {
            Slow::ManifestWritten { epoch, result } => {
                let written = result?;
                failpoint::hit(failpoint::MANIFEST_DURABLE);
                let path = written.record.manifest.path.clone();
                self.open.get_mut(&epoch).expect("open until it is complete").written = Some(written);
                self.checkpoint_event(CheckpointEvent::ManifestDurable { epoch, path }).await
            }
            Slow::Published { epoch, result } => {
                result?;
                self.checkpoint_event(CheckpointEvent::Committed { epoch }).await
            }
            Slow::Discovered { operator, result } => {
                let splits = result?;
                let interval = self.driver.sources[&operator].monitor_interval.unwrap_or_default();
                let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
                self.discoveries.insert(operator, self.driver.clock.monotonic().plus_ms(interval_ms));
                self.split_event(operator, SplitEvent::Discovered { splits })
            }
            Slow::Deleted { failed } => {
                self.deletions.done();
                self.delete_next();
                self.checkpoint_event(CheckpointEvent::Deleted { failed }).await
            }
            Slow::SavepointPrepared { savepoint, result } => self.on_savepoint_prepared(savepoint, result).await,
            Slow::SavepointCopied { savepoint, result } => self.on_savepoint_copied(savepoint, result).await,
        }
    }

    async fn on_event(&mut self, event: FromSubtask) -> Result<(), Failure> {
        match event {
            FromSubtask::RequestSplit { subtask } => {
                let task = self.driver.spec.tasks.iter().find(|t| t.head == subtask.operator);
                match task.and_then(|t| t.source) {
                    Some(operator) => self.split_event(operator, SplitEvent::Requested { subtask }),
                    None => Err(fatal(format!("bug: {subtask} asks for a split and reads no source"))),
                }
            }
            FromSubtask::SourceWatermark { subtask, status } => {
                let follows = self.idleness.on_report(subtask, status);
                let follow = |f: Follow| self.tell(f.subtask, ToSubtask::FollowWatermark { watermark: f.watermark });
                follows.into_iter().try_for_each(follow)
            }
            FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot } => {
                self.checkpoint_event(CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot }).await
            }
            FromSubtask::InputExhausted { subtask } => {
                self.checkpoint_event(CheckpointEvent::InputExhausted { subtask }).await
            }
            FromSubtask::Finished { subtask } => {
                self.checkpoint_event(CheckpointEvent::SubtaskFinished { subtask }).await
            }
            FromSubtask::Failed { failure, .. } => Err(self.find_root_cause(failure).await),
        }
    }

    /// Neighbours of a failed subtask may report first that it is gone: waits a moment for the cause.
    async fn find_root_cause(&mut self, first: Failure) -> Failure {
        let mut failures = vec![first];
        let deadline = self.driver.clock.monotonic().plus_ms(ROOT_CAUSE_WAIT_MS);
        while failures.iter().all(|f| f.consequence) {
            tokio::select! {
                event = self.attempt.events.recv() => match event {
                    Some(FromSubtask::Failed { failure, .. }) => failures.push(failure),
                    Some(_) => {}
                    None => break,
                },
                () = self.driver.clock.sleep_until(deadline) => break,
            }
        }
        root_cause(&failures).expect("at least the first").clone()
    }

    fn assigner(&mut self, operator: OperatorId) -> &mut SplitAssigner {
        self.assigners.get_mut(&operator).expect("every source has an assigner")
    }

    fn split_event(&mut self, operator: OperatorId, event: SplitEvent) -> Result<(), Failure> {
        let commands = self.assigner(operator).on(event);
        self.carry_out_splits(operator, commands)
    }

    fn carry_out_splits(&mut self, operator: OperatorId, commands: Vec<SplitCommand>) -> Result<(), Failure> {
        for command in commands {
            match command {
                SplitCommand::Assign { subtask, splits } => self.tell(subtask, ToSubtask::AssignSplits { splits })?,
                SplitCommand::Bound { bound } => self.tell_all(operator, &ToSubtask::UnassignedWatermark { bound })?,
                SplitCommand::NoMoreSplits => self.tell_all(operator, &ToSubtask::NoMoreSplits)?,
                SplitCommand::ReplayTo { subtask, barrier, part } => {
                    self.tell(subtask, ToSubtask::ReplayTo { barrier, part })?;
                }
            }
        }
        self.show_splits();
        Ok(())
    }

    /// Keeps the status up to date, and says once when very many finished splits have to be remembered.
    fn show_splits(&mut self) {
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

    fn subtasks_of(&self, source: OperatorId) -> Vec<SubtaskId> {
        let head = self.driver.spec.tasks.iter().find(|t| t.source == Some(source)).map(|t| t.head);
        self.attempt.subtasks.keys().filter(|s| Some(s.operator) == head).copied().collect()
    }

    fn tell_all(&self, source: OperatorId, message: &ToSubtask) -> Result<(), Failure> {
        self.subtasks_of(source).into_iter().try_for_each(|subtask| self.tell(subtask, message.clone()))
    }

    fn tell(&self, subtask: SubtaskId, message: ToSubtask) -> Result<(), Failure> {
        let Some(sender) = self.attempt.subtasks.get(&subtask) else {
            return Err(fatal(format!("bug: {subtask} is told something and does not exist")));
        };
        match sender.try_send(message) {
            // A subtask that has ended has said why, or will.
            Ok(()) | Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => {
                let message = format!("subtask {subtask} does not take its messages: it is stuck");
                Err(Failure { message, retryable: true, consequence: false })
            }
        }
    }
}
