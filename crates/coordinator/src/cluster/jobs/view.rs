//! What is shown of the jobs: what is agreed on and, where this coordinator drives them, how they stand.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use mainstem_core::cluster::StandbyStatus;
use mainstem_core::cluster::messages::{OperatorCounters, WorkerId};
use mainstem_core::cluster::state::JobEntry;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::time::Timestamp;

use super::{Agreed, ClusterJobs, JobFactory};
use crate::CheckpointOptions;
use crate::history::JobHistory;
use crate::meta_log::{JobEnd, RestoredFrom, SavepointRecord};
use crate::spec::{JobStatus, SavepointRequest};

/// What is shown of a job. Of what the coordinators have agreed on, only as much as is shown: a job's records are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// Its dataflow.
    pub graph_json: String,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// Key groups; fixed for its life.
    pub key_groups: u16,
    /// When checkpoints are taken, and how failures are met.
    pub options: CheckpointOptions,
    /// Where relative paths of the user start.
    pub working_dir: String,
    /// When it was handed in.
    pub submitted_at: Timestamp,
    /// The worker of each slot of the newest attempt; subtask `i` of every task runs on slot `i`.
    pub slots: Vec<WorkerId>,
    /// Epochs that are complete and not known to be visible, with when they were complete.
    pub unpublished: Vec<(Epoch, Timestamp)>,
    /// Whether a coordinator has to drive it.
    pub active: bool,
    /// The newest attempt.
    pub generation: Generation,
    /// The newest epoch that is complete.
    pub complete: Epoch,
    /// The newest epoch that is visible.
    pub committed: Epoch,
    /// How it ended, where it has.
    pub end: Option<JobEnd>,
    /// The savepoint that is wanted and has no outcome yet.
    pub savepoint: Option<SavepointRequest>,
    /// The newest outcomes of savepoints, oldest first.
    pub savepoints: Vec<SavepointRecord>,
    /// The savepoint with which it began.
    pub restored: Option<RestoredFrom>,
    /// The live status; none where this coordinator does not drive the job.
    pub status: Option<JobStatus>,
    /// Counters by operator, over all workers: of a job that has ended, those of its last attempt; empty where this
    /// coordinator does not drive the job.
    pub counters: BTreeMap<OperatorId, OperatorCounters>,
    /// Who stands by for its slots; none where nobody is to, or this coordinator does not drive the job.
    pub standbys: Option<StandbyStatus>,
}

impl JobView {
    /// Without what only a driver knows.
    fn of(job: &JobId, entry: &JobEntry) -> JobView {
        let (submission, record) = (&entry.submission, &entry.record);
        let slots = record.running.as_ref().filter(|_| entry.active).map(|running| &running.deployed.slots);
        let unpublished = record.epochs.range(record.committed.next()..);
        JobView {
            key_groups: submission.key_groups,
            options: submission.options.clone(),
            working_dir: submission.working_dir.clone(),
            submitted_at: submission.submitted_at,
            slots: slots.into_iter().flatten().map(|slot| slot.worker.clone()).collect(),
            unpublished: unpublished.map(|(epoch, record)| (*epoch, record.completed_at)).collect(),
            job: job.clone(),
            graph_json: entry.submission.graph_json.clone(),
            parallelism: entry.submission.parallelism,
            active: entry.active,
            generation: record.generation,
            complete: record.newest(),
            committed: record.committed,
            end: record.end.clone(),
            savepoint: entry.savepoint.clone(),
            savepoints: record.savepoints.clone(),
            restored: record.restored.clone(),
            status: None,
            counters: record.counters.clone(),
            standbys: None,
        }
    }
}

impl<F: JobFactory> ClusterJobs<F> {
    /// Every job as this coordinator knows it, which may be old where it does not lead.
    pub fn views(&self) -> Vec<JobView> {
        let agreed = |state: &Agreed| state.jobs.iter().map(|(job, entry)| JobView::of(job, entry)).collect::<Vec<_>>();
        let mut views = self.consensus.read_stale(agreed);
        views.iter_mut().for_each(|view| self.add_live(view));
        views
    }

    /// One job, in the same way.
    pub fn view(&self, job: &JobId) -> Option<JobView> {
        let mut view = self.consensus.read_stale(|state| state.jobs.get(job).map(|entry| JobView::of(job, entry)))?;
        self.add_live(&mut view);
        Some(view)
    }

    /// What has happened to a job since this coordinator drives it.
    pub fn history(&self, job: &JobId) -> Option<Arc<JobHistory>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }

    fn add_live(&self, view: &mut JobView) {
        view.status = self.lock().get(&view.job).map(|driven| driven.status.borrow().clone());
        if view.active {
            view.counters = self.fleet.counters(&view.job);
            view.standbys = self.fleet.standbys(&view.job);
        }
    }
}
