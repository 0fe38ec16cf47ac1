//! Carries out the coordinator's deployments with the engine, in this process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use mainstem_coordinator::{Attempt, Deployer, Deployment, JobSpec};
use mainstem_core::ids::JobId;
use mainstem_core::protocol::Failure;
use mainstem_engine::{JobMetrics, MemoryBudget, Placement, RunningAttempt};
use mainstem_plan::operator::JobGraph;
use mainstem_rt::Clock;
use mainstem_state::CheckpointStore;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Deploys attempts of one job onto the data runtime of this process.
pub(crate) struct LocalDeployer {
    job: JobId,
    graph: Arc<JobGraph>,
    key_groups: u16,
    working_dir: PathBuf,
    store: Arc<CheckpointStore>,
    metrics: Arc<JobMetrics>,
    /// The memory of this process.
    memory: Arc<MemoryBudget>,
    clock: Arc<dyn Clock>,
    /// Where subtasks run; apart from the coordinator's runtime, which they must not starve.
    data_runtime: Handle,
    /// The subtasks of the attempt that runs.
    running: JoinSet<()>,
}

impl LocalDeployer {
    /// Of the job of a specification, with its files in a store, subtasks on this runtime, and this memory for their state.
    pub(crate) fn new(
        spec: &JobSpec,
        graph: Arc<JobGraph>,
        metrics: Arc<JobMetrics>,
        store: Arc<CheckpointStore>,
        memory: Arc<MemoryBudget>,
        clock: Arc<dyn Clock>,
        data_runtime: Handle,
    ) -> anyhow::Result<LocalDeployer> {
        Ok(LocalDeployer {
            job: spec.job.clone(),
            graph,
            key_groups: spec.key_groups,
            working_dir: std::env::current_dir().context("cannot find the current directory")?,
            store,
            metrics,
            memory,
            clock,
            data_runtime,
            running: JoinSet::new(),
        })
    }
}

#[async_trait]
impl Deployer for LocalDeployer {
    async fn deploy(&mut self, deployment: Deployment) -> Result<Attempt, Failure> {
        // The attempt before must be gone: its subtasks write under another generation, but use the same memory.
        self.running.shutdown().await;
        let _entered = self.data_runtime.enter();
        let running = mainstem_engine::deploy(mainstem_engine::Deployment {
            job: self.job.clone(),
            graph: self.graph.clone(),
            generation: deployment.generation,
            parallelism: deployment.parallelism,
            key_groups: self.key_groups,
            first_epoch_now: deployment.first_epoch_now,
            restore: deployment.restore.operators,
            replay_until: deployment.replay_until,
            aligned_timeout_ms: deployment.aligned_timeout_ms,
            markers: deployment.markers,
            clock: self.clock.clone(),
            working_dir: self.working_dir.clone(),
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            memory: self.memory.clone(),
            placement: Placement::Alone,
        });
        let RunningAttempt { subtasks, events, tasks } = running.map_err(mainstem_engine::EngineError::into_failure)?;
        self.running = tasks;
        Ok(Attempt { subtasks, events, slots: None, hold: Box::new(()) })
    }
}
