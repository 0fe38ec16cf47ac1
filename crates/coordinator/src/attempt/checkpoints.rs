//! What the checkpoint machine asks for, carried out: short things at once, slow ones beside the event loop.

use std::collections::{BTreeMap, VecDeque};

use mainstem_core::adoption::Decision;
use mainstem_core::checkpoint::{CheckpointCommand, CheckpointEvent, End};
use mainstem_core::cluster::messages::SlotFiles;
use mainstem_core::ids::{Epoch, OperatorId, SubtaskId};
use mainstem_core::protocol::{Barrier, Failure, SubtaskSnapshot, ToSubtask};
use mainstem_core::splits::{SourceEpoch, SplitEvent};
use mainstem_core::time::Timestamp;
use mainstem_rt::failpoint;
use mainstem_state::Manifest;
use tracing::{Instrument, error_span};

use super::draft::{self, Draft, Written};
use super::{OpenEpoch, Running, Slow, deletions};
use crate::coordinator::fatal;
use crate::lane::Publication;
use crate::meta_log::Record;
use crate::recovery;
use crate::spec::Deployer;

impl<D: Deployer> Running<'_, D> {
    /// Feeds an event to the checkpoint machine and carries out what comes of it, until nothing more does.
    pub(super) async fn checkpoint_event(&mut self, event: CheckpointEvent) -> Result<(), Failure> {
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
                let end = self.checkpoints.end();
                self.record(Decision::EpochBegun { barrier, end }).await?;
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
                    self.split_event(operator, SplitEvent::Replay { barrier, epoch }).await?;
                }
                self.record(Decision::EpochBegun { barrier, end: None }).await?;
                self.open_epoch(barrier);
                Ok(None)
            }
            CheckpointCommand::ReplayDone => {
                let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                for operator in operators {
                    self.split_event(operator, SplitEvent::ReplayDone).await?;
                }
                Ok(None)
            }
            CheckpointCommand::WriteManifest { barrier, epoch_now, snapshots, end } => {
                self.write_manifest(barrier, epoch_now, snapshots, end)?;
                Ok(None)
            }
            CheckpointCommand::RecordComplete { epoch } => self.record_complete(epoch).await.map(Some),
            CheckpointCommand::Commit { epoch, committables } => {
                self.driver.spec.history.publishing(epoch, self.recovered.generation);
                let published = self.driver.publisher.ask(Publication::Epoch { epoch, committables });
                self.slow.spawn(async move { Slow::Published { epoch, result: published.await } });
                Ok(None)
            }
            CheckpointCommand::RecordCommitted { epoch } => {
                self.driver.record_committed(self.recovered.generation, epoch).await?;
                self.show_cadence();
                Ok(Some(CheckpointEvent::CommitRecorded { epoch }))
            }
            CheckpointCommand::RecordRetired { epochs } => {
                let generation = self.recovered.generation;
                self.driver.home.log.append(Record::EpochsRetired { generation, epochs: epochs.clone() }).await?;
                if let Some(newest) = epochs.iter().max() {
                    let operators: Vec<OperatorId> = self.assigners.keys().copied().collect();
                    for operator in operators {
                        self.tell_all(operator, &ToSubtask::Retired { below: newest.next() })?;
                    }
                }
                Ok(Some(CheckpointEvent::RetiredRecorded { epochs }))
            }
            CheckpointCommand::DeleteObjects { paths } => {
                let failed = self.deletions.add(paths);
                self.delete_next();
                Ok((!failed.is_empty()).then_some(CheckpointEvent::Deleted { failed }))
            }
            CheckpointCommand::PrepareSavepoint { savepoint } => {
                self.prepare_savepoint(savepoint);
                Ok(None)
            }
            CheckpointCommand::CopySavepoint { savepoint, epoch } => {
                self.copy_savepoint(savepoint, epoch)?;
                Ok(None)
            }
            CheckpointCommand::RecordSavepoint { savepoint, epoch, end } => {
                self.record_savepoint(savepoint, epoch, end).await.map(Some)
            }
            CheckpointCommand::RecordSavepointFailure { savepoint, reason } => {
                self.record_savepoint_failure(savepoint, reason).await.map(Some)
            }
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

    /// Shows what was chosen of the time between checkpoints, where that is chosen.
    pub(super) fn show_cadence(&self) {
        let Some(cadence) = self.checkpoints.cadence() else { return };
        let choice = cadence.choice(self.driver.clock.monotonic());
        self.driver.status.send_modify(|status| status.cadence = Some(choice));
    }

    fn open_epoch(&mut self, barrier: Barrier) {
        let cuts = self.assigners.iter().map(|(operator, assigner)| (*operator, assigner.cut())).collect();
        let injected_at = self.driver.clock.monotonic();
        self.open.insert(barrier.epoch, OpenEpoch { cuts, injected_at, files: SlotFiles::new(), written: None });
        self.driver.spec.history.begun(barrier.epoch, self.recovered.generation, self.attempt.subtasks.len());
    }

    /// Puts the manifest together and has it written.
    fn write_manifest(
        &mut self,
        barrier: Barrier,
        epoch_now: Timestamp,
        snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
        end: Option<End>,
    ) -> Result<(), Failure> {
        failpoint::hit(failpoint::SNAPSHOTS_DURABLE);
        let epoch = barrier.epoch;
        self.driver.spec.history.snapshots_durable(epoch, self.recovered.generation);
        let mut sources = BTreeMap::new();
        let mut source_epochs = BTreeMap::new();
        for (operator, cut) in &self.open[&epoch].cuts {
            let parts: Vec<_> = snapshots.iter().filter_map(|(s, parts)| Some((*s, parts.get(operator)?))).collect();
            let reports = parts.iter().map(|(subtask, part)| (*subtask, part.splits.as_slice()));
            let before = self.last_sources.get(operator).map(Vec::as_slice).unwrap_or_default();
            let merged = cut.merge(before, reports).map_err(|e| fatal(format!("bug: {e}")))?;
            let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
            source_epochs.insert(*operator, SourceEpoch::between(before, &merged, cut, &parts));
            sources.insert(*operator, merged);
        }
        // The next epoch may follow before this one is recorded.
        self.last_sources.clone_from(&sources);
        let (operators, committables) = draft::by_operator(snapshots.into_iter().map(|(s, parts)| (s.index, parts)));
        if self.driver.spec.options.standbys > 0 {
            self.open.get_mut(&epoch).expect("open until it is complete").files = draft::files_by_slot(&operators);
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
        let adoptions = self.adoptions;
        let draft = Draft { manifest, adoptions, epoch_now, source_epochs, committables, end };
        let (store, retry) = (self.driver.home.checkpoints.clone(), self.driver.retry.clone());
        let write = async move { Slow::ManifestWritten { epoch, result: draft.write(&store, &retry).await } };
        self.slow.spawn(write.instrument(error_span!("checkpoint", epoch = epoch.0)));
        Ok(())
    }

    async fn record_complete(&mut self, epoch: Epoch) -> Result<CheckpointEvent, Failure> {
        let open = self.open.remove(&epoch).expect("its manifest was written");
        let Written { record, sources, sizes, alignment_ms, in_flight_bytes } =
            *open.written.expect("its manifest was written");
        let (bytes, at) = (record.state_bytes, record.completed_at);
        self.driver.home.log.append(Record::EpochComplete(record)).await?;
        let (history, generation) = (&self.driver.spec.history, self.recovered.generation);
        history.complete(epoch, generation, alignment_ms, bytes, in_flight_bytes);
        self.attempt.hold.complete(epoch, &open.files);
        for (operator, splits) in sources {
            if let Some(listener) = self.driver.sources.get_mut(&operator).and_then(|source| source.listener.as_mut()) {
                listener.complete(&splits);
            }
            self.split_event(operator, SplitEvent::EpochComplete { splits }).await?;
        }
        let took = self.driver.clock.monotonic().since_ms(open.injected_at);
        if let Some(bytes) = in_flight_bytes {
            tracing::info!(job = %self.driver.spec.job, %epoch, bytes, "checkpoint did not wait for what was in flight");
        }
        self.driver.status.send_modify(|s| {
            s.last_complete = Some(epoch);
            s.last_checkpoint_at = Some(at);
            s.last_checkpoint_duration_ms = Some(took);
            s.last_checkpoint_bytes = Some(bytes);
            s.last_checkpoint_alignment_ms = alignment_ms;
            s.last_checkpoint_in_flight_bytes = in_flight_bytes;
            s.unaligned_checkpoints += u64::from(in_flight_bytes.is_some());
            s.state_sizes = sizes;
        });
        Ok(CheckpointEvent::CompleteRecorded { epoch })
    }

    /// What was recorded as retired is not told again to who goes on with the attempt, nor what was not recorded at all.
    pub(super) fn delete_left(&mut self) {
        let (store, job) = (self.driver.home.checkpoints.clone(), self.driver.spec.job.clone());
        let named = self.recovered.retained.values().flatten().cloned().collect();
        let (generation, adoptions) = (self.recovered.generation, self.adoptions);
        self.deletions.begin();
        self.slow.spawn(async move {
            Slow::Deleted { failed: deletions::delete_left(&store, &job, &named, generation, adoptions).await }
        });
    }

    pub(super) fn delete_next(&mut self) {
        if let Some(paths) = self.deletions.next() {
            let (store, job) = (self.driver.home.checkpoints.clone(), self.driver.spec.job.clone());
            self.slow.spawn(async move { Slow::Deleted { failed: deletions::delete(&store, &job, paths).await } });
        }
    }
}
