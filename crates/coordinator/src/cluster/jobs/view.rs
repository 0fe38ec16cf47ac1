//! What is shown of the jobs: what is agreed on and, where this coordinator drives them, how they stand.

use std::collections::BTreeMap;

use mainstem_core::cluster::messages::OperatorCounters;
use mainstem_core::cluster::state::JobEntry;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};

use super::{Agreed, ClusterJobs, JobFactory};
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
}

impl JobView {
    /// Without what only a driver knows.
    fn of(job: &JobId, entry: &JobEntry) -> JobView {
        let record = &entry.record;
        JobView {
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
        }
    }
}

impl<F: JobFactory> ClusterJobs<F> {
    /// Every job as this coordinator knows it, which may be old where it does not lead.
    pub fn views(&self) -> Vec<JobView> {
        let agreed = |state: &Agreed| state.jobs.iter().map(|(job, entry)| JobView::of(job, entry)).collect::<Vec<_>>();
        let mut views = self.consensus.read_stale(agreed);
        for view in &mut views {
            view.status = self.lock().get(&view.job).map(|driven| driven.status.borrow().clone());
            if view.active {
                view.counters = self.fleet.counters(&view.job);
            }
        }
        views
    }
}
