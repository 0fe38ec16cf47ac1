//! Deploys the attempts of a job on the workers of a cluster, and takes over those that run there.

mod asking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstem_core::cluster::messages::{AttemptId, AttemptOrder, OperatorCounters, ToWorker, WorkerId, WorkerOffer};
use mainstem_core::ids::{Epoch, JobId, OperatorId, SubtaskId};
use mainstem_core::protocol::{Failure, ToSubtask};
use mainstem_rt::failpoint;
use tokio::sync::{mpsc, watch};

use self::asking::Asking;
use super::fleet::{FleetService, Hold};
use crate::meta_log::DeployedAttempt;
use crate::spec::{Attempt, Deployer, Deployment, JobStatus, TaskSpec};

/// Messages of each subtask that may wait for the coordinator.
const EVENTS_PER_SUBTASK: usize = 64;
/// Workers have so long to build their subtasks.
const DEPLOY_WITHIN: Duration = Duration::from_secs(30);

/// Deploys the attempts of one job.
pub(crate) struct ClusterDeployer {
    pub(crate) job: JobId,
    pub(crate) graph_json: String,
    pub(crate) key_groups: u16,
    pub(crate) working_dir: String,
    /// Directory of the checkpoint store.
    pub(crate) store: String,
    /// Workers that are to follow the state of each slot.
    pub(crate) standbys: u32,
    pub(crate) tasks: Vec<TaskSpec>,
    pub(crate) fleet: Arc<FleetService>,
    pub(crate) status: watch::Sender<JobStatus>,
}

#[async_trait]
impl Deployer for ClusterDeployer {
    async fn deploy(&mut self, deployment: Deployment) -> Result<Attempt, Failure> {
        let attempt = AttemptId { job: self.job.clone(), generation: deployment.generation };
        // Whatever of it still runs must be gone before the new attempt reads what it has written.
        self.fleet.fence(&self.job, deployment.generation);
        let subtasks = self.subtasks(deployment.parallelism);
        let needed = subtasks.iter().map(|subtask| subtask.index + 1).max().unwrap_or(1);
        let (mut hold, slots) = self.slots(&attempt, needed).await;
        let order = AttemptOrder {
            attempt,
            graph_json: self.graph_json.clone(),
            parallelism: deployment.parallelism,
            key_groups: self.key_groups,
            first_epoch_now: deployment.first_epoch_now,
            replay_until: deployment.replay_until,
            aligned_timeout_ms: deployment.aligned_timeout_ms,
            markers: deployment.markers,
            restore: deployment.restore.operators,
            working_dir: self.working_dir.clone(),
            store: self.store.clone(),
            slots,
        };
        let (events_sender, events) = mpsc::channel(EVENTS_PER_SUBTASK * subtasks.len());
        let (deployed_sender, deployed) = mpsc::channel(4 * order.slots.len());
        let outboxes = self.fleet.deploy(&order, &hold, events_sender, deployed_sender)?;
        failpoint::hit(failpoint::ORDERS_SENT);
        await_deployed(deployed, outboxes.keys().cloned().collect()).await?;
        hold.stand_by(self.standbys, &self.store);
        let subtasks = routes(&mut hold, subtasks, &order.slots, &outboxes);
        Ok(Attempt { subtasks, events, slots: Some(order.slots), hold: Box::new(hold.stay()) })
    }

    async fn adopt(&mut self, running: &DeployedAttempt, complete: Epoch) -> Result<Attempt, String> {
        let attempt = AttemptId { job: self.job.clone(), generation: running.generation };
        let subtasks = self.subtasks(running.parallelism);
        if subtasks.iter().any(|subtask| subtask.index as usize >= running.slots.len()) {
            return Err("it has more subtasks than slots".to_owned());
        }
        let (events_sender, events) = mpsc::channel(EVENTS_PER_SUBTASK * subtasks.len());
        let (deployed_sender, deployed) = mpsc::channel(4 * running.slots.len());
        let mut hold = self.fleet.take_over(&attempt, running.slots.clone(), events_sender, deployed_sender);
        let asking = Asking { fleet: &self.fleet, attempt: &attempt, slots: &running.slots, complete };
        let outboxes = asking.until_all_run(&subtasks, deployed).await?;
        hold.take_slots();
        hold.stand_by(self.standbys, &self.store);
        let subtasks = routes(&mut hold, subtasks, &running.slots, &outboxes);
        Ok(Attempt { subtasks, events, slots: Some(running.slots.clone()), hold: Box::new(hold) })
    }

    fn counters(&self) -> BTreeMap<OperatorId, OperatorCounters> {
        self.fleet.final_counters(&self.job)
    }
}

impl ClusterDeployer {
    fn subtasks(&self, parallelism: u32) -> Vec<SubtaskId> {
        let of_task = |task: &TaskSpec| {
            let operator = task.head;
            let parallelism = if task.scales { parallelism } else { task.parallelism };
            (0..parallelism).map(move |index| SubtaskId { operator, index })
        };
        self.tasks.iter().flat_map(of_task).collect()
    }

    /// Waits until there are slots enough, and says meanwhile what is missing.
    async fn slots(&self, attempt: &AttemptId, needed: u32) -> (Hold, Vec<WorkerOffer>) {
        let mut changes = self.fleet.changes();
        loop {
            changes.mark_unchanged();
            match self.fleet.place(attempt, needed) {
                Ok(placed) => {
                    self.status.send_modify(|status| status.waiting = None);
                    return placed;
                }
                Err(shortage) => self.status.send_modify(|status| status.waiting = Some(shortage.to_string())),
            }
            // The sender lives in the fleet.
            let _ = changes.changed().await;
        }
    }
}

/// Waits until every worker runs its part.
async fn await_deployed(
    mut deployed: mpsc::Receiver<(WorkerId, Result<(), Failure>)>,
    mut missing: BTreeSet<WorkerId>,
) -> Result<(), Failure> {
    let all = async {
        while !missing.is_empty() {
            let Some((worker, result)) = deployed.recv().await else {
                let message = "the job was deployed by a coordinator that leads no longer".to_owned();
                return Err(Failure { message, retryable: true, consequence: false });
            };
            result?;
            missing.remove(&worker);
        }
        Ok(())
    };
    match tokio::time::timeout(DEPLOY_WITHIN, all).await {
        Ok(result) => result,
        Err(_) => {
            let names: Vec<&str> = missing.iter().map(|worker| worker.0.as_str()).collect();
            let seconds = DEPLOY_WITHIN.as_secs();
            let message = format!("workers {} have not started their subtasks within {seconds} s", names.join(", "));
            Err(Failure { message, retryable: true, consequence: false })
        }
    }
}

/// The ways to the subtasks of an attempt: subtask `i` of every task on slot `i`.
fn routes(
    hold: &mut Hold,
    subtasks: Vec<SubtaskId>,
    slots: &[WorkerOffer],
    outboxes: &BTreeMap<WorkerId, mpsc::Sender<ToWorker>>,
) -> BTreeMap<SubtaskId, mpsc::Sender<ToSubtask>> {
    let route = |subtask: SubtaskId| {
        let outbox = slots.get(subtask.index as usize).and_then(|slot| outboxes.get(&slot.worker))?;
        Some((subtask, hold.relay(subtask, outbox.clone())))
    };
    subtasks.into_iter().filter_map(route).collect()
}

#[cfg(test)]
mod tests;
