//! Carries out the coordinator's deployments with the engine, in this process.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mainstem_coordinator::{Attempt, Deployer, Deployment};
use mainstem_core::ids::JobId;
use mainstem_core::protocol::Failure;
use mainstem_engine::{JobMetrics, MemoryBudget, Placement, RunningAttempt};
use mainstem_plan::operator::JobGraph;
use mainstem_state::CheckpointStore;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Deploys attempts of one job onto the data runtime of this process.
pub(crate) struct LocalDeployer {
    pub(crate) job: JobId,
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) key_groups: u16,
    pub(crate) working_dir: PathBuf,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) metrics: Arc<JobMetrics>,
    /// The memory of this process.
    pub(crate) memory: Arc<MemoryBudget>,
    /// Where subtasks run; apart from the coordinator's runtime, which they must not starve.
    pub(crate) data_runtime: Handle,
    /// The subtasks of the attempt that runs.
    pub(crate) running: JoinSet<()>,
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
