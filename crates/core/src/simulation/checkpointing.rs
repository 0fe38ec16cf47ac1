//! What a running attempt does for its checkpoints, as the coordinator does it: manifests, what follows each record, and
//! slow work on the outside, which may seem to fail and have taken place.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::driver::{Driver, Stage};
use super::plan::SOURCE;
use super::running::{Running, Slow};
use super::store::{Content, Effect, Manifest, Object, manifest_path};
use super::world::World;
use crate::bug::{Bug, is_put_back};
use crate::checkpoint::{CheckpointEvent, End};
use crate::cluster::messages::AttemptId;
use crate::ids::{Epoch, OperatorId, SubtaskId};
use crate::job_record::EpochRecord;
use crate::protocol::{Barrier, Committable, Failure, ManifestRef, OperatorSnapshot, SubtaskSnapshot};
use crate::splits::{SourceEpoch, SplitEvent};
use crate::time::Timestamp;

impl World {
    pub(super) fn write_manifest(
        &mut self,
        running: &mut Running,
        barrier: Barrier,
        epoch_now: Timestamp,
        snapshots: BTreeMap<SubtaskId, SubtaskSnapshot>,
        end: Option<End>,
    ) -> Result<(), Failure> {
        let AttemptId { job, generation } = running.attempt.clone();
        let epoch = barrier.epoch;
        let open = running.open.get_mut(&epoch).expect("open until it is complete");
        if is_put_back(Bug::SplitLostAtBarrier) {
            open.cut = running.assigner.cut();
        }
        let parts: Vec<_> = snapshots.iter().filter_map(|(s, parts)| Some((*s, parts.get(&SOURCE)?))).collect();
        let reports = parts.iter().map(|(subtask, part)| (*subtask, part.splits.as_slice()));
        let merged = open.cut.merge(&running.last_splits, reports);
        let splits = merged.map_err(|error| Failure {
            message: format!("bug: {error}"),
            retryable: false,
            consequence: false,
        })?;
        let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
        let source = SourceEpoch::between(&running.last_splits, &splits, &open.cut, &parts);
        running.last_splits.clone_from(&splits);
        let mut operators: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>> = BTreeMap::new();
        let mut committables: BTreeMap<OperatorId, Vec<Committable>> = BTreeMap::new();
        for (subtask, parts) in snapshots {
            for (operator, mut part) in parts {
                part.splits.clear();
                part.floors.clear();
                if !part.committables.is_empty() {
                    committables.entry(operator).or_default().append(&mut part.committables);
                }
                operators.entry(operator).or_default().push((subtask.index, part));
            }
        }
        let path = manifest_path(&job, epoch, generation);
        let record = EpochRecord {
            epoch,
            generation,
            manifest: ManifestRef { path: path.clone(), size: 0, crc32c: 0 },
            epoch_now,
            next_epoch_now: barrier.next_epoch_now,
            sources: BTreeMap::from([(SOURCE, source)]),
            committables,
            end,
            state_bytes: 0,
            unaligned: false,
            completed_at: Timestamp(self.now),
        };
        open.record = Some((record, splits.clone()));
        let parallelism = running.order.parallelism;
        let content = Content::Manifest(Rc::new(Manifest { barrier, parallelism, operators, splits }));
        let effect = Effect::Put { path: path.clone(), object: Object { job, generation, content } };
        let report = CheckpointEvent::ManifestDurable { epoch, path };
        running.slow.push(Slow { effect, done: false, report });
        Ok(())
    }

    pub(super) fn on_complete_recorded(&mut self, driver: &mut Driver, epoch: Epoch) {
        let Stage::Running(running) = &mut driver.stage else { return };
        let open = running.open.remove(&epoch).expect("open until it is complete");
        let (_, splits) = open.record.expect("its manifest was written");
        running.assigner.on(SplitEvent::EpochComplete { splits });
        running.news.push_back(CheckpointEvent::CompleteRecorded { epoch });
    }

    pub(super) fn on_commit_recorded(&mut self, driver: &mut Driver, epoch: Epoch) {
        if let Stage::Running(running) = &mut driver.stage {
            running.news.push_back(CheckpointEvent::CommitRecorded { epoch });
        }
    }

    pub(super) fn on_retired_recorded(&mut self, driver: &mut Driver, epochs: Vec<Epoch>) {
        if let Stage::Running(running) = &mut driver.stage {
            running.news.push_back(CheckpointEvent::RetiredRecorded { epochs });
        }
    }

    /// Something slow takes place, or its end is told.
    pub(super) fn slow_step(&mut self, running: &mut Running) {
        if running.slow.is_empty() {
            return;
        }
        let choice = self.random.below(running.slow.len());
        let slow = &mut running.slow[choice];
        if slow.done {
            let slow = running.slow.swap_remove(choice);
            running.news.push_back(slow.report);
            return self.delete_next(running);
        }
        // It seems to fail, and has taken place: it is done once more.
        slow.done = !self.faults.store || !self.random.one_in(5);
        let (effect, fails) = (slow.effect.clone(), self.faults.store && self.random.one_in(6));
        if let (Effect::Delete { paths }, true) = (&effect, fails) {
            slow.done = true;
            slow.report = CheckpointEvent::Deleted { failed: paths.clone() };
            return;
        }
        if fails && matches!(effect, Effect::Publish { .. }) && is_put_back(Bug::FailedCommitSkipped) {
            slow.done = true;
            return;
        }
        self.apply(&effect);
    }

    pub(super) fn delete_next(&mut self, running: &mut Running) {
        let runs = running.slow.iter().any(|slow| matches!(slow.effect, Effect::Delete { .. }));
        if let Some(paths) = (!runs).then(|| running.deletions.pop_front()).flatten() {
            let report = CheckpointEvent::Deleted { failed: Vec::new() };
            running.slow.push(Slow { effect: Effect::Delete { paths }, done: false, report });
        }
    }
}
