//! Savepoints of an attempt, carried out: the place, the copy and the record. All that is slow runs beside the event
//! loop; where the attempt ends, it is abandoned, and the next attempt is asked for the savepoint again.

use std::collections::BTreeMap;
use std::path::Path;

use mainstem_core::checkpoint::{CheckpointEvent, End};
use mainstem_core::ids::{Epoch, SavepointId};
use mainstem_core::job::JobEvent;
use mainstem_core::protocol::Failure;
use mainstem_rt::failpoint;
use mainstem_state::{Savepoint, SavepointProgress, prepare_savepoints};

use super::{Running, Slow};
use crate::coordinator::{Driver, fatal};
use crate::meta_log::{JobEnd, MetaLogError, Record, SavepointOutcome, SavepointRecord};
use crate::spec::{Deployer, SavepointRequest, SavepointStatus};

/// A savepoint that is durable and complete.
pub(super) struct Copied {
    path: String,
    files: u64,
    bytes: u64,
}

impl<D: Deployer> Running<'_, D> {
    /// Asks for the savepoint that is wanted and has no outcome yet, if there is one.
    pub(super) async fn ask_for_savepoint(&mut self) -> Result<(), Failure> {
        let Some(request) = self.driver.savepoint.clone() else { return Ok(()) };
        let (savepoint, stop) = (request.id.clone(), request.stop);
        let copied = SavepointProgress::default();
        let shown = SavepointStatus { request, epoch: None, copied };
        self.driver.status.send_modify(|s| s.savepoint = Some(shown));
        self.checkpoint_event(CheckpointEvent::SavepointRequested { savepoint, stop }).await
    }

    pub(super) fn prepare_savepoint(&mut self, savepoint: SavepointId) {
        let Some(directory) = self.driver.savepoint.as_ref().map(|request| request.directory.clone()) else { return };
        let retry = self.driver.retry.clone();
        self.slow.spawn(async move {
            let mut tries = retry.tries("take the savepoint");
            let result = loop {
                match tries.within_timeout(prepare_savepoints(Path::new(&directory), &savepoint)).await {
                    Ok(()) => break Ok(()),
                    Err(error) => {
                        if let Err(failure) = tries.wait(error).await {
                            break Err(failure);
                        }
                    }
                }
            };
            Slow::SavepointPrepared { savepoint, result }
        });
    }

    pub(super) async fn on_savepoint_prepared(
        &mut self,
        savepoint: SavepointId,
        result: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let event = match result {
            Ok(()) => CheckpointEvent::SavepointPrepared { savepoint },
            Err(Failure { message: reason, .. }) => CheckpointEvent::SavepointFailed { savepoint, reason },
        };
        self.checkpoint_event(event).await
    }

    /// Copies the checkpoint of an epoch. Its record is read now: later the epoch may be retired, while its files stay.
    pub(super) fn copy_savepoint(&mut self, savepoint: SavepointId, epoch: Epoch) -> Result<(), Failure> {
        let record = self.driver.home.log.state().epochs.get(&epoch);
        let manifest = record.map(|record| record.manifest.clone());
        let (Some(manifest), Some(request)) = (manifest, self.driver.savepoint.clone()) else {
            return Err(fatal(format!("bug: savepoint {savepoint} of epoch {epoch}, which nobody knows")));
        };
        let (store, retry, job) =
            (self.driver.home.checkpoints.clone(), self.driver.retry.clone(), self.driver.spec.job.clone());
        let (graph_json, sql_hash) = (self.driver.spec.graph_json.clone(), self.driver.spec.sql_hash.clone());
        let status = self.driver.status.clone();
        status.send_modify(|s| {
            if let Some(shown) = &mut s.savepoint {
                shown.epoch = Some(epoch);
            }
        });
        let told = move |copied: SavepointProgress| {
            status.send_modify(|s| {
                if let Some(shown) = &mut s.savepoint {
                    shown.copied = copied;
                }
            });
            failpoint::hit(failpoint::SAVEPOINT_COPYING);
        };
        self.slow.spawn(async move {
            let mut tries = retry.tries("take the savepoint");
            let result = loop {
                let copy = async {
                    let manifest = store.read_manifest(&job, &manifest).await?;
                    let files = manifest.state_paths().len() as u64;
                    let bytes = manifest.state_bytes();
                    let taken = Savepoint {
                        id: savepoint.clone(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        graph_json: graph_json.clone(),
                        sql_hash: sql_hash.clone(),
                        manifest,
                    };
                    let path = taken.write(&store, Path::new(&request.directory), &told).await?;
                    Ok::<_, mainstem_state::SavepointError>(Copied { path: path.display().to_string(), files, bytes })
                };
                match copy.await {
                    Ok(copied) => break Ok(copied),
                    Err(error) => {
                        if let Err(failure) = tries.wait(error.into()).await {
                            break Err(failure);
                        }
                    }
                }
            };
            Slow::SavepointCopied { savepoint, result }
        });
        Ok(())
    }

    pub(super) async fn on_savepoint_copied(
        &mut self,
        savepoint: SavepointId,
        result: Result<Copied, Failure>,
    ) -> Result<(), Failure> {
        let event = match result {
            Ok(copied) => {
                failpoint::hit(failpoint::SAVEPOINT_COPIED);
                self.copied = Some(copied);
                CheckpointEvent::SavepointCopied { savepoint }
            }
            Err(Failure { message: reason, .. }) => CheckpointEvent::SavepointFailed { savepoint, reason },
        };
        self.checkpoint_event(event).await
    }

    pub(super) async fn record_savepoint(
        &mut self,
        id: SavepointId,
        epoch: Epoch,
        end: Option<End>,
    ) -> Result<CheckpointEvent, Failure> {
        let Some(Copied { path, files, bytes }) = self.copied.take() else {
            return Err(fatal(format!("bug: savepoint {id} is recorded and was not copied")));
        };
        let outcome = SavepointOutcome::Taken { path, epoch, files, bytes };
        let record = SavepointRecord { id: id.clone(), outcome, at: self.driver.clock.now() };
        let job_end = end.map(|end| match end {
            End::InputEnd => JobEnd::Finished,
            End::Stop => JobEnd::Stopped,
        });
        self.driver.record_savepoint(record, job_end).await?;
        if end == Some(End::Stop) {
            // What the last checkpoint was taken for does not matter any more.
            self.driver.lifecycle.on(self.driver.clock.monotonic(), JobEvent::StopRequested);
            self.driver.publish_state();
        }
        Ok(CheckpointEvent::SavepointRecorded { savepoint: id })
    }

    pub(super) async fn record_savepoint_failure(
        &mut self,
        id: SavepointId,
        reason: String,
    ) -> Result<CheckpointEvent, Failure> {
        tracing::warn!(job = %self.driver.spec.job, savepoint = %id, reason, "savepoint not taken");
        let outcome = SavepointOutcome::Failed { reason };
        let record = SavepointRecord { id: id.clone(), outcome, at: self.driver.clock.now() };
        self.driver.record_savepoint(record, None).await?;
        Ok(CheckpointEvent::SavepointRecorded { savepoint: id })
    }
}

impl<D: Deployer> Driver<D> {
    /// Records what became of the savepoint that was asked for, and with it the job's end, where it ends with it.
    async fn record_savepoint(&mut self, savepoint: SavepointRecord, end: Option<JobEnd>) -> Result<(), MetaLogError> {
        let ends = end.is_some();
        let counters = if ends { self.deployer.counters() } else { BTreeMap::new() };
        let generation = self.home.log.state().generation;
        let shown = savepoint.clone();
        self.home.log.append(Record::Savepoint { generation, savepoint, end, counters }).await?;
        self.savepoint = None;
        self.ended_with_savepoint |= ends;
        self.status.send_modify(|s| {
            s.savepoint = None;
            s.last_savepoint = Some(shown);
        });
        Ok(())
    }

    /// The job ends: a savepoint that is still wanted will not be.
    pub(crate) async fn give_up_savepoint(&mut self) -> Result<(), MetaLogError> {
        let Some(SavepointRequest { id, .. }) = self.savepoint.take() else { return Ok(()) };
        let reason = "the job ended before it was taken".to_owned();
        let outcome = SavepointOutcome::Failed { reason };
        let at = self.clock.now();
        self.record_savepoint(SavepointRecord { id, outcome, at }, None).await
    }
}
