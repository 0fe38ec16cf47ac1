//! One attempt to run a job: feeds what subtasks report to the machines of `mainstem_core` and carries out what
//! they decide, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstem_core::checkpoint::{CheckpointCommand, CheckpointCoordinator, CheckpointEvent, CheckpointStart, End};
use mainstem_core::ids::{Epoch, OperatorId, SubtaskId};
use mainstem_core::job::{JobEvent, root_cause};
use mainstem_core::protocol::{Barrier, Failure, FromSubtask, SplitState, SubtaskSnapshot, ToSubtask};
use mainstem_core::retry::Backoff;
use mainstem_core::splits::{SourceEpoch, SplitAssigner, SplitCommand, SplitCut, SplitEvent};
use mainstem_core::time::Timestamp;
use mainstem_rt::failpoint;
use mainstem_state::Manifest;

use crate::coordinator::{Driver, fatal};
use crate::meta_log::{EpochRecord, MetaLog, Record};
use crate::recovery::{self, Recovered};
use crate::spec::{Attempt, Control, Deployer, Deployment, RestorePlan};

/// How long the consequences of a failure may arrive before its cause.
const ROOT_CAUSE_WAIT_MS: i64 = 500;

/// How an attempt ended, when it did not fail.
pub(crate) enum AttemptEnd {
    /// Everything is published.
    Ended(End),
    /// The user wanted it gone at once.
    Cancelled,
}

/// An epoch between its barrier and the record of its completion.
struct OpenEpoch {
    cuts: BTreeMap<OperatorId, SplitCut>,
    record: Option<EpochRecord>,
    sources: BTreeMap<OperatorId, Vec<SplitState>>,
}

struct Running<'a, D> {
    driver: &'a mut Driver<D>,
    recovered: Recovered,
    attempt: Attempt,
    checkpoints: CheckpointCoordinator,
    assigners: BTreeMap<OperatorId, SplitAssigner>,
    /// When each monitored source is looked at next.
    discoveries: BTreeMap<OperatorId, Timestamp>,
    open: BTreeMap<Epoch, OpenEpoch>,
    /// Splits as of the newest complete epoch.
    last_sources: BTreeMap<OperatorId, Vec<SplitState>>,
    injected_at: BTreeMap<Epoch, Timestamp>,
    end: Option<End>,
}

/// Runs an attempt to its end.
pub(crate) async fn run<D: Deployer>(driver: &mut Driver<D>, recovered: Recovered) -> Result<AttemptEnd, Failure> {
    let initial = initial_splits(driver, &recovered).await?;
    let restore = RestorePlan {
        epoch: recovered.manifest.as_ref().map(|m| m.epoch),
        operators: recovered.manifest.as_ref().map(|m| m.operators.clone()).unwrap_or_default(),
    };
    let deployment = Deployment {
        generation: recovered.generation,
        first_epoch_now: recovered.first_epoch_now,
        restore,
        replay_until: recovered.replay.last().map(|r| r.epoch),
    };
    let attempt = driver.deployer.deploy(deployment).await?;
    let mut running = Running::new(driver, recovered, attempt, &initial);
    let events = running.driver.lifecycle.on(running.driver.clock.monotonic(), JobEvent::Deployed);
    let stop_at_once = !events.is_empty();
    let outcome = running.run(&initial, stop_at_once).await;
    // Whatever still runs is told to end; the next deployment waits until it has.
    for subtask in running.attempt.subtasks.values() {
        let _ = subtask.try_send(ToSubtask::Cancel);
    }
    outcome
}

/// The splits of each source at the start: of the checkpoint, or as first found and recorded, or found now.
async fn initial_splits<D: Deployer>(
    driver: &mut Driver<D>,
    recovered: &Recovered,
) -> Result<BTreeMap<OperatorId, Vec<SplitState>>, Failure> {
    let mut initial = BTreeMap::new();
    let operators: Vec<OperatorId> = driver.spec.sources.keys().copied().collect();
    for operator in operators {
        if let Some(manifest) = &recovered.manifest {
            initial.insert(operator, manifest.sources.get(&operator).cloned().unwrap_or_default());
            continue;
        }
        if !driver.log.state().initial_splits.contains_key(&operator) {
            let splits = discover(driver, operator).await?;
            let generation = recovered.generation;
            driver.log.append(Record::SplitsDiscovered { generation, operator, splits }).await?;
        }
        let splits = driver.log.state().initial_splits[&operator].iter();
        let unread = splits.map(|split| SplitState { split: split.clone(), progress: None });
        initial.insert(operator, unread.collect());
    }
    Ok(initial)
}

async fn discover<D: Deployer>(
    driver: &mut Driver<D>,
    operator: OperatorId,
) -> Result<Vec<mainstem_core::protocol::SourceSplit>, Failure> {
    let mut backoff = Backoff::new(driver.spec.options.operation);
    loop {
        let random = driver.random();
        let source = driver.spec.sources.get_mut(&operator).expect("the caller goes through the sources");
        let error = match source.enumerator.discover().await {
            Ok(splits) => return Ok(splits),
            Err(error) => error,
        };
        let wait = backoff.on_failure(driver.clock.monotonic(), random).filter(|_| error.is_retryable());
        let Some(ms) = wait else {
            return Err(Failure { message: error.to_string(), retryable: error.is_retryable(), consequence: false });
        };
        driver.sleep(ms).await;
    }
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
            started_at: now,
            subtasks: subtasks.clone(),
        });
        let replaying = !recovered.replay.is_empty();
        let assigner = |(operator, spec): (&OperatorId, &crate::spec::SourceSpec)| {
            let of_source = subtasks.iter().filter(|s| source_of.get(&s.operator) == Some(operator)).copied().collect();
            let bounded = spec.monitor_interval.is_none();
            let restored = Some(initial[operator].as_slice());
            (*operator, SplitAssigner::new(of_source, bounded, restored, replaying))
        };
        let assigners = driver.spec.sources.iter().map(assigner).collect();
        let monitored = driver.spec.sources.iter().filter(|(_, s)| s.monitor_interval.is_some());
        let discoveries = monitored.map(|(operator, _)| (*operator, now)).collect();
        Running {
            last_sources: recovered.manifest.as_ref().map(|m| m.sources.clone()).unwrap_or_default(),
            driver,
            recovered,
            attempt,
            checkpoints,
            assigners,
            discoveries,
            open: BTreeMap::new(),
            injected_at: BTreeMap::new(),
            end: None,
        }
    }

    async fn run(
        &mut self,
        initial: &BTreeMap<OperatorId, Vec<SplitState>>,
        stop_at_once: bool,
    ) -> Result<AttemptEnd, Failure> {
        let operators: Vec<OperatorId> = initial.keys().copied().collect();
        for operator in operators {
            let commands = self.assigner(operator).start();
            self.carry_out_splits(operator, commands)?;
        }
        if stop_at_once {
            self.checkpoint_event(CheckpointEvent::StopRequested).await?;
        }
        loop {
            if let Some(end) = self.end {
                return Ok(AttemptEnd::Ended(end));
            }
            let discovery = self.discoveries.values().min().copied().unwrap_or(Timestamp::MAX);
            let wakeup = self.driver.clock.sleep_until(self.checkpoints.next_wakeup().min(discovery));
            tokio::select! {
                biased;
                // Without anybody who could ask for something, the job goes on by itself.
                Some(control) = self.driver.control.recv() => match control {
                    Control::Stop => {
                        self.driver.lifecycle.on(self.driver.clock.monotonic(), JobEvent::StopRequested);
                        self.checkpoint_event(CheckpointEvent::StopRequested).await?;
                    }
                    Control::Cancel => return Ok(AttemptEnd::Cancelled),
                },
                event = self.attempt.events.recv() => match event {
                    Some(event) => self.on_event(event).await?,
                    None => return Err(fatal("bug: every subtask has ended and none said why".to_owned())),
                },
                () = wakeup => self.on_wakeup().await?,
            }
        }
    }

    async fn on_wakeup(&mut self) -> Result<(), Failure> {
        let now = self.driver.clock.monotonic();
        let due: Vec<OperatorId> = self.discoveries.iter().filter(|(_, at)| **at <= now).map(|(o, _)| *o).collect();
        for operator in due {
            let splits = discover(self.driver, operator).await?;
            let interval = self.driver.spec.sources[&operator].monitor_interval.unwrap_or_default();
            let next = now.plus_ms(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
            self.discoveries.insert(operator, next);
            self.split_event(operator, SplitEvent::Discovered { splits })?;
        }
        let wall = self.driver.clock.now();
        self.checkpoint_event(CheckpointEvent::Tick { wall }).await
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
                SplitCommand::ReplayTo { subtask, barrier, splits } => {
                    self.tell(subtask, ToSubtask::ReplayTo { barrier, splits })?;
                }
            }
        }
        let waiting = self.assigners.values().map(SplitAssigner::waiting).sum();
        self.driver.status.send_modify(|s| s.splits_waiting = waiting);
        Ok(())
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

    /// Feeds an event to the checkpoint machine and carries out what comes of it, until nothing more does.
    async fn checkpoint_event(&mut self, event: CheckpointEvent) -> Result<(), Failure> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let commands = self.checkpoints.on(self.driver.clock.monotonic(), event);
            for command in commands {
                events.extend(self.carry_out(command).await?);
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, command: CheckpointCommand) -> Result<Option<CheckpointEvent>, Failure> {
        match command {
            CheckpointCommand::InjectBarrier { barrier, last } => {
                self.open_epoch(barrier);
                let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                for operator in operators {
                    self.tell_all(operator, &ToSubtask::InjectBarrier { barrier, last })?;
                }
                Ok(None)
            }
            CheckpointCommand::Replay { barrier } => {
                let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                for operator in operators {
                    let epoch = self.recovered.source_epoch(barrier.epoch, operator);
                    self.split_event(operator, SplitEvent::Replay { barrier, epoch })?;
                }
                self.open_epoch(barrier);
                Ok(None)
            }
            CheckpointCommand::ReplayDone => {
                let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                for operator in operators {
                    self.split_event(operator, SplitEvent::ReplayDone)?;
                }
                Ok(None)
            }
            CheckpointCommand::WriteManifest { barrier, epoch_now, snapshots, end } => {
                self.write_manifest(barrier, epoch_now, snapshots, end).await.map(Some)
            }
            CheckpointCommand::RecordComplete { epoch } => self.record_complete(epoch).await.map(Some),
            CheckpointCommand::Commit { epoch, committables } => {
                self.driver.commit(epoch, &committables).await?;
                Ok(Some(CheckpointEvent::Committed { epoch }))
            }
            CheckpointCommand::RecordCommitted { epoch } => {
                self.driver.record_committed(self.recovered.generation, epoch).await?;
                Ok(Some(CheckpointEvent::CommitRecorded { epoch }))
            }
            CheckpointCommand::RecordRetired { epochs } => {
                let generation = self.recovered.generation;
                self.driver.log.append(Record::EpochsRetired { generation, epochs: epochs.clone() }).await?;
                Ok(Some(CheckpointEvent::RetiredRecorded { epochs }))
            }
            CheckpointCommand::DeleteObjects { paths } => Ok(Some(self.delete(paths).await)),
            CheckpointCommand::Refused { reason } => {
                tracing::warn!(job = %self.driver.spec.job, reason, "message refused");
                Ok(None)
            }
            CheckpointCommand::Finish { end } => {
                self.end = Some(end);
                Ok(None)
            }
            CheckpointCommand::FailAttempt { failure } => Err(failure),
        }
    }

    fn open_epoch(&mut self, barrier: Barrier) {
        let cuts = self.assigners.iter().map(|(operator, assigner)| (*operator, assigner.cut())).collect();
        self.open.insert(barrier.epoch, OpenEpoch { cuts, record: None, sources: BTreeMap::new() });
        self.injected_at.insert(barrier.epoch, self.driver.clock.monotonic());
    }

    async fn write_manifest(
        &mut self,
        barrier: Barrier,
        epoch_now: Timestamp,
        snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
        end: Option<End>,
    ) -> Result<CheckpointEvent, Failure> {
        failpoint::hit(failpoint::SNAPSHOTS_DURABLE);
        let epoch = barrier.epoch;
        let open = self.open.get_mut(&epoch).expect("opened with its barrier");
        let mut sources = BTreeMap::new();
        let mut source_epochs = BTreeMap::new();
        for (operator, cut) in &open.cuts {
            let reports = snapshots.iter().filter_map(|(s, parts)| Some((*s, parts.get(operator)?.splits.as_slice())));
            let merged = cut.merge(reports).map_err(|e| fatal(format!("bug: {e}")))?;
            let before = self.last_sources.get(operator).map(Vec::as_slice).unwrap_or_default();
            source_epochs.insert(*operator, SourceEpoch::between(before, &merged, cut));
            sources.insert(*operator, merged);
        }
        let mut operators: BTreeMap<OperatorId, Vec<_>> = BTreeMap::new();
        let mut committables: BTreeMap<OperatorId, Vec<_>> = BTreeMap::new();
        for (subtask, parts) in snapshots {
            for (operator, mut part) in parts {
                part.splits.clear();
                if !part.committables.is_empty() {
                    committables.entry(operator).or_default().append(&mut part.committables);
                }
                operators.entry(operator).or_default().push((subtask.index, part));
            }
        }
        let manifest = Manifest {
            job: self.driver.spec.job.clone(),
            epoch,
            generation: self.recovered.generation,
            next_epoch_now: barrier.next_epoch_now,
            graph_hash: recovery::graph_hash(&self.driver.spec),
            key_groups: self.driver.spec.key_groups,
            parallelism: self.driver.spec.tasks.iter().map(|t| (t.head, t.parallelism)).collect(),
            operators,
            sources,
            created_at: self.driver.clock.now(),
        };
        let written = self.driver.store.checkpoints().write_manifest(&manifest).await;
        let written =
            written.map_err(|e| Failure { message: e.to_string(), retryable: e.is_retryable(), consequence: false })?;
        failpoint::hit(failpoint::MANIFEST_DURABLE);
        let path = written.path.clone();
        open.record = Some(EpochRecord {
            epoch,
            generation: self.recovered.generation,
            manifest: written,
            epoch_now,
            next_epoch_now: barrier.next_epoch_now,
            sources: source_epochs,
            committables,
            end,
            state_bytes: manifest.state_bytes(),
            completed_at: manifest.created_at,
        });
        open.sources = manifest.sources;
        Ok(CheckpointEvent::ManifestDurable { epoch, path })
    }

    async fn record_complete(&mut self, epoch: Epoch) -> Result<CheckpointEvent, Failure> {
        let open = self.open.remove(&epoch).expect("its manifest was written");
        let record = open.record.expect("its manifest was written");
        let (bytes, at) = (record.state_bytes, record.completed_at);
        self.driver.log.append(Record::EpochComplete(record)).await?;
        self.last_sources.clone_from(&open.sources);
        for (operator, splits) in open.sources {
            self.split_event(operator, SplitEvent::EpochComplete { splits })?;
        }
        let now = self.driver.clock.monotonic();
        let took = now.since_ms(self.injected_at.remove(&epoch).unwrap_or(now));
        self.driver.status.send_modify(|s| {
            s.last_complete = Some(epoch);
            s.last_checkpoint_at = Some(at);
            s.last_checkpoint_duration_ms = Some(took);
            s.last_checkpoint_bytes = Some(bytes);
        });
        Ok(CheckpointEvent::CompleteRecorded { epoch })
    }

    async fn delete(&self, paths: Vec<String>) -> CheckpointEvent {
        let store = self.driver.store.checkpoints();
        let mut failed = Vec::new();
        for path in paths {
            if let Err(error) = store.delete(&self.driver.spec.job, &path).await {
                tracing::warn!(job = %self.driver.spec.job, path, %error, "checkpoint file cannot be deleted");
                failed.push(path);
            }
        }
        CheckpointEvent::Deleted { failed }
    }
}
