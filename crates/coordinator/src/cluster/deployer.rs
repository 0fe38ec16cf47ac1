//! Deploys the attempts of a job on the workers of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstem_core::cluster::messages::{AttemptId, AttemptOrder, OperatorCounters, ToWorker, WorkerId, WorkerOffer};
use mainstem_core::ids::{JobId, OperatorId, SubtaskId};
use mainstem_core::protocol::{Failure, ToSubtask};
use mainstem_rt::failpoint;
use tokio::sync::{mpsc, watch};

use super::fleet::{FleetService, Hold};
use crate::spec::{Attempt, Deployer, Deployment, JobStatus, TaskSpec};

/// Messages that may wait for a subtask.
const CONTROL_MAX: usize = 64;
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
        let (hold, slots) = self.slots(&attempt, needed).await;
        let order = AttemptOrder {
            attempt,
            graph_json: self.graph_json.clone(),
            parallelism: deployment.parallelism,
            key_groups: self.key_groups,
            first_epoch_now: deployment.first_epoch_now,
            replay_until: deployment.replay_until,
            aligned_timeout_ms: deployment.aligned_timeout_ms,
            restore: deployment.restore.operators,
            working_dir: self.working_dir.clone(),
            store: self.store.clone(),
            slots,
        };
        let (events_sender, events) = mpsc::channel(EVENTS_PER_SUBTASK * subtasks.len());
        let (deployed_sender, deployed) = mpsc::channel(4 * order.slots.len());
        let outboxes = self.fleet.deploy(&order, events_sender, deployed_sender)?;
        failpoint::hit(failpoint::ORDERS_SENT);
        await_deployed(deployed, outboxes.keys().cloned().collect()).await?;
        let route = |subtask: SubtaskId| {
            let outbox = order.place(subtask).and_then(|slot| outboxes.get(&slot.worker))?;
            Some((subtask, forward(order.attempt.clone(), subtask, outbox.clone())))
        };
        let subtasks: BTreeMap<_, _> = subtasks.into_iter().filter_map(route).collect();
        Ok(Attempt { subtasks, events, hold: Box::new(hold) })
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

/// The way to a subtask through its worker's connection.
fn forward(attempt: AttemptId, subtask: SubtaskId, outbox: mpsc::Sender<ToWorker>) -> mpsc::Sender<ToSubtask> {
    let (sender, mut messages) = mpsc::channel(CONTROL_MAX);
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            let tell = ToWorker::Tell { attempt: attempt.clone(), subtask, message };
            if outbox.send(tell).await.is_err() {
                // The worker is lost, which the attempt is told.
                return;
            }
        }
    });
    sender
}
