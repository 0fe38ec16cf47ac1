//! One attempt to run a job: feeds what subtasks report to the machines of `mainstem_core` and carries out what
//! they decide, in order.
//!
//! The event loop waits for nothing slow: publishing, discovery, manifests and deletions run beside it
//! ([`crate::lane`], [`Slow`]) and report back as events. Only records of the log, which are short, are written
//! in the loop itself.

mod checkpoints;
mod deletions;
mod draft;
mod resume;
mod savepoints;
mod splits;

use std::collections::{BTreeMap, BTreeSet};

use mainstem_core::adoption::Resumed;
use mainstem_core::checkpoint::{CheckpointCoordinator, CheckpointEvent, CheckpointStart, End};
use mainstem_core::cluster::messages::SlotFiles;
use mainstem_core::idleness::{Follow, Idleness, Member};
use mainstem_core::ids::{Epoch, OperatorId, SavepointId, SubtaskId};
use mainstem_core::job::{JobEvent, root_cause};
use mainstem_core::protocol::{Failure, FromSubtask, SourceSplit, SplitState, ToSubtask};
use mainstem_core::splits::{SplitAssigner, SplitCut, SplitEvent};
use mainstem_core::time::Timestamp;
use mainstem_rt::failpoint;
use tokio::task::{JoinError, JoinSet};

use self::deletions::Deletions;
use self::draft::Written;
use self::savepoints::Copied;
use crate::adoption::Adopted;
use crate::coordinator::{Driver, Halt, Source, fatal};
use crate::lane::Discovery;
use crate::meta_log::{DeployedAttempt, Record};
use crate::recovery::Recovered;
use crate::spec::{Attempt, Control, Deployer, Deployment, RestorePlan};

/// How long the consequences of a failure may arrive before its cause.
const ROOT_CAUSE_WAIT_MS: i64 = 500;

/// Reports that are dealt with together, at most.
const EVENTS_AT_ONCE: usize = 256;

/// An epoch between its barrier and the record of its completion.
struct OpenEpoch {
    cuts: BTreeMap<OperatorId, SplitCut>,
    injected_at: Timestamp,
    /// What restores each slot, once the snapshots are there and where the job wants standbys.
    files: SlotFiles,
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
    /// Whether decisions are recorded for a successor.
    is_journaled: bool,
    /// How often another coordinator went on with the attempt.
    adoptions: u32,
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
        markers: driver.spec.history.markers(driver.spec.options.latency_interval_ms),
    };
    driver.spec.history.deploying(recovered.generation, recovered.epoch());
    let mut attempt = driver.deploy(deployment).await?;
    failpoint::hit(failpoint::ATTEMPT_DEPLOYED);
    if let Err(failure) = record_deployed(driver, &recovered, &attempt).await {
        attempt.hold.end();
        return Err(failure.into());
    }
    let replaying = !recovered.replay.is_empty();
    let subtasks = driver.spec.source_subtasks();
    let assigner = |(operator, source): (&OperatorId, &Source)| {
        let of_source = subtasks.get(operator).cloned().unwrap_or_default();
        let bounded = source.monitor_interval.is_none();
        let assigner = SplitAssigner::new(of_source, bounded, Some(initial[operator].as_slice()), replaying);
        (*operator, assigner.read_side_by_side(source.side_by_side))
    };
    let assigners = driver.sources.iter().map(assigner).collect();
    let running = Running::new(driver, recovered, attempt, assigners);
    running.run_to_the_end(None).await
}

/// Goes on with an attempt that another coordinator has begun.
pub(crate) async fn go_on<D: Deployer>(driver: &mut Driver<D>, adopted: Adopted) -> Result<End, Halt> {
    let Adopted { recovered, attempt, mut resumed, adoptions } = adopted;
    let assigners = std::mem::take(&mut resumed.assigners);
    let mut running = Running::new(driver, recovered, attempt, assigners);
    running.adoptions = adoptions;
    running.run_to_the_end(Some(resumed)).await
}

/// Records where the attempt runs, if somebody else could go on with it.
async fn record_deployed<D: Deployer>(
    driver: &mut Driver<D>,
    recovered: &Recovered,
    attempt: &Attempt,
) -> Result<(), Failure> {
    let Some(slots) = attempt.slots.clone() else { return Ok(()) };
    let deployed = DeployedAttempt {
        generation: recovered.generation,
        restored: recovered.epoch(),
        parallelism: driver.spec.parallelism,
        first_epoch_now: recovered.first_epoch_now,
        replay_until: recovered.replay.last().map(|r| r.epoch),
        slots,
    };
    Ok(driver.home.log.append(Record::AttemptDeployed(deployed)).await?)
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
            let discovery = driver.sources[&operator].discovery.ask(Discovery::First);
            let splits = driver.attend_first(discovery).await?;
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
        assigners: BTreeMap<OperatorId, SplitAssigner>,
    ) -> Self {
        let now = driver.clock.monotonic();
        let subtasks: BTreeSet<SubtaskId> = attempt.subtasks.keys().copied().collect();
        let source_of: BTreeMap<OperatorId, OperatorId> =
            driver.spec.tasks.iter().filter_map(|t| t.source.map(|s| (t.head, s))).collect();
        let sources = subtasks.iter().filter(|s| source_of.contains_key(&s.operator)).copied().collect();
        let config = driver.spec.options.validate().expect("checked before the first attempt");
        if let Some(cadence) = &mut driver.cadence {
            cadence.on_attempt(now);
        }
        let checkpoints = CheckpointCoordinator::new(CheckpointStart {
            config,
            cadence: driver.cadence.clone(),
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
        let member = |subtask: &SubtaskId| {
            let source = *source_of.get(&subtask.operator)?;
            Some(Member { subtask: *subtask, source, group: driver.sources.get(&source)?.group? })
        };
        let idleness = Idleness::new(subtasks.iter().filter_map(member));
        let monitored = driver.sources.iter().filter(|(_, s)| s.monitor_interval.is_some());
        let discoveries = monitored.map(|(operator, _)| (*operator, now)).collect();
        Running {
            last_sources: recovered.manifest.as_ref().map(|m| m.sources.clone()).unwrap_or_default(),
            is_journaled: attempt.slots.is_some(),
            adoptions: 0,
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

    /// Begins, or goes on with what was resumed, and sees to it that nothing of the attempt goes on after its end.
    async fn run_to_the_end(mut self, resumed: Option<Resumed>) -> Result<End, Halt> {
        self.driver.spec.history.deployed(self.recovered.generation);
        let slots = self.attempt.slots.iter().flatten();
        self.driver.spec.history.placed(slots.map(|slot| slot.worker.clone()));
        let now = self.driver.clock.monotonic();
        let mut commands = self.driver.lifecycle.on(now, JobEvent::Deployed);
        if resumed.is_none() && self.driver.spec.parallelism != self.driver.wanted_parallelism {
            // What was in flight is worked off where it was; the checkpoint after it can be spread anew. Of an attempt that
            // is gone on with, `resume` finds that out.
            commands.extend(self.driver.lifecycle.on(now, JobEvent::RescaleRequested));
        }
        self.driver.publish_state();
        self.show_cadence();
        let outcome = self.run(resumed, !commands.is_empty()).await;
        self.driver.cadence = self.checkpoints.cadence().cloned();
        // Whatever still runs is told to end; the next deployment waits until it has.
        for subtask in self.attempt.subtasks.values() {
            let _ = subtask.try_send(ToSubtask::Cancel);
        }
        self.attempt.hold.end();
        // A publication that is under way is abandoned: its epoch is complete, so the next attempt publishes it. A
        // manifest that still reaches the disk is named by no record and goes with a later start.
        self.slow.shutdown().await;
        outcome
    }

    async fn run(&mut self, resumed: Option<Resumed>, mut stop_at_once: bool) -> Result<End, Halt> {
        match resumed {
            Some(resumed) => {
                self.delete_left();
                stop_at_once |= self.resume(resumed).await?;
            }
            None => {
                let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                for operator in operators {
                    let commands = self.assigner(operator).start();
                    self.carry_out_splits(operator, commands).await?;
                }
            }
        }
        if stop_at_once {
            self.checkpoint_event(CheckpointEvent::StopRequested).await?;
        }
        self.ask_for_savepoint().await?;
        let mut events = Vec::new();
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
                count = self.attempt.events.recv_many(&mut events, EVENTS_AT_ONCE), if !self.subtasks_gone => match count {
                    0 if self.checkpoints.every_subtask_has_finished() => self.subtasks_gone = true,
                    0 => return Err(fatal("bug: every subtask has ended and none said why".to_owned()).into()),
                    _ => self.on_events(std::mem::take(&mut events)).await?,
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
            let discovery = self.driver.sources[&operator].discovery.ask(Discovery::New);
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
                self.driver.spec.history.manifest_durable(epoch, self.recovered.generation);
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
                self.split_event(operator, SplitEvent::Discovered { splits }).await
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

    /// Splits that are asked for one after the other are handed out by one decision.
    async fn on_events(&mut self, events: Vec<FromSubtask>) -> Result<(), Failure> {
        let mut requests = Vec::new();
        let mut events = events.into_iter();
        while let Some(event) = events.next() {
            if !matches!(event, FromSubtask::RequestSplit { .. } | FromSubtask::Failed { .. }) {
                self.requested(std::mem::take(&mut requests)).await?;
            }
            match event {
                FromSubtask::RequestSplit { subtask } => requests.push(subtask),
                FromSubtask::SourceWatermark { subtask, status } => {
                    let follows = self.idleness.on_report(subtask, status);
                    let follow =
                        |f: Follow| self.tell(f.subtask, ToSubtask::FollowWatermark { watermark: f.watermark });
                    follows.into_iter().try_for_each(follow)?;
                }
                FromSubtask::Restored { subtask } => {
                    self.checkpoint_event(CheckpointEvent::SubtaskRestored { subtask }).await?;
                }
                FromSubtask::SnapshotDone { subtask, generation, epoch, snapshot } => {
                    self.driver.spec.history.acknowledged(epoch, generation, subtask, &snapshot);
                    let done = CheckpointEvent::SnapshotDone { subtask, generation, epoch, snapshot };
                    self.checkpoint_event(done).await?;
                }
                FromSubtask::MarkersArrived { generation, epoch, sink, arrivals, .. } => {
                    self.driver.spec.history.arrived(epoch, generation, sink, arrivals);
                }
                FromSubtask::InputExhausted { subtask } => {
                    self.checkpoint_event(CheckpointEvent::InputExhausted { subtask }).await?;
                }
                FromSubtask::Finished { subtask } => {
                    self.checkpoint_event(CheckpointEvent::SubtaskFinished { subtask }).await?;
                }
                FromSubtask::Failed { subtask, failure, .. } => {
                    let history = &self.driver.spec.history;
                    history.subtask_failed(subtask, &failure);
                    let others = events.filter_map(failure_of).inspect(|(subtask, failure)| {
                        history.subtask_failed(*subtask, failure);
                    });
                    let failures = [failure].into_iter().chain(others.map(|(_, failure)| failure)).collect();
                    return Err(self.find_root_cause(failures).await);
                }
            }
        }
        self.requested(requests).await
    }

    /// Neighbours of a failed subtask may report first that it is gone: waits a moment for the cause.
    async fn find_root_cause(&mut self, mut failures: Vec<Failure>) -> Failure {
        let deadline = self.driver.clock.monotonic().plus_ms(ROOT_CAUSE_WAIT_MS);
        while failures.iter().all(|f| f.consequence) {
            tokio::select! {
                event = self.attempt.events.recv() => match event {
                    Some(FromSubtask::Failed { subtask, failure, .. }) => {
                        self.driver.spec.history.subtask_failed(subtask, &failure);
                        failures.push(failure);
                    }
                    Some(_) => {}
                    None => break,
                },
                () = self.driver.clock.sleep_until(deadline) => break,
            }
        }
        root_cause(&failures).expect("at least the first").clone()
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

fn failure_of(event: FromSubtask) -> Option<(SubtaskId, Failure)> {
    match event {
        FromSubtask::Failed { subtask, failure, .. } => Some((subtask, failure)),
        _ => None,
    }
}
