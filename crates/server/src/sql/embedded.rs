//! Jobs of the shell that run in this process: the coordinator, the deployer and the engine of `mainstem run`, put together
//! for a graph that is at hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_coordinator::{
    CheckpointOptions, Control, JobCoordinator, JobHistory, JobOutcome, JobSpec, JobStatus, JobStore,
};
use mainstem_core::ids::JobId;
use mainstem_engine::{JobMetrics, MemoryBudget};
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_rt::{Clock, SystemClock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::deployer::LocalDeployer;
use crate::job;
use crate::run::Runtimes;

/// A job to run.
pub(super) struct Launch {
    pub(super) job: JobId,
    pub(super) graph: JobGraph,
    /// The text that it was planned from.
    pub(super) sql: String,
    pub(super) state_dir: PathBuf,
    pub(super) parallelism: u32,
    pub(super) key_groups: u16,
    pub(super) options: CheckpointOptions,
    /// What all jobs of this process share.
    pub(super) memory: Arc<MemoryBudget>,
}

/// A job that runs. When it is dropped, the job ends as if the process had been killed.
pub(super) struct Running {
    pub(super) job: JobId,
    pub(super) parallelism: u32,
    pub(super) status: watch::Receiver<JobStatus>,
    control: mpsc::Sender<Control>,
    metrics: Arc<JobMetrics>,
    graph: Arc<JobGraph>,
    pub(super) outcome: JoinHandle<JobOutcome>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.outcome.abort();
    }
}

impl Running {
    /// Asks for a last checkpoint and the end.
    pub(super) async fn stop(&self) {
        // A job that has ended does not hear it.
        let _ = self.control.send(Control::Stop).await;
    }

    /// Rows read and rows written so far.
    pub(super) fn rows(&self) -> (u64, u64) {
        let sum = |is: fn(&OperatorKind) -> bool, read: bool| {
            let ids = job::operators_of(&self.graph, is);
            let of = |id| {
                let operator = self.metrics.operator(id);
                if read { operator.rows_in.load(Ordering::Relaxed) } else { operator.rows_out.load(Ordering::Relaxed) }
            };
            ids.into_iter().map(of).sum()
        };
        (
            sum(|kind| matches!(kind, OperatorKind::Source(_)), true),
            sum(|kind| matches!(kind, OperatorKind::Sink(_)), false),
        )
    }
}

/// Starts a job, or goes on with it where it was.
pub(super) async fn launch(runtimes: &Runtimes, launch: Launch) -> anyhow::Result<Running> {
    let Launch { job: id, graph, sql, state_dir, parallelism, key_groups, options, memory } = launch;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut store = JobStore::open(&state_dir, &id, clock.clone()).await?;
    let stored = store.load().await?;
    let graph_json = serde_json::to_string(&graph).context("bug: the plan cannot be written")?;
    let (graph_json, graph, key_groups) = match stored {
        Some(stored) if stored.sql_hash != job::hash(&sql) && stored.graph_json != graph_json => bail!(
            "job '{id}' has state of another query; SET 'pipeline.name' to another name, or RESET it, and this becomes a new job"
        ),
        Some(stored) => {
            let graph = serde_json::from_str(&stored.graph_json);
            let graph =
                graph.with_context(|| format!("the stored plan of job '{id}' cannot be read by this version"))?;
            (stored.graph_json, graph, stored.key_groups)
        }
        None => (graph_json, graph, key_groups),
    };
    if parallelism > u32::from(key_groups) {
        bail!("parallelism {parallelism} is not between 1 and the job's {key_groups} key groups");
    }
    let graph = Arc::new(graph);
    let metrics = Arc::new(JobMetrics::of(&graph, parallelism));
    let spec = JobSpec {
        job: id.clone(),
        graph_json,
        sql_hash: job::hash(&sql),
        key_groups,
        parallelism,
        tasks: job::tasks(&graph, parallelism),
        sources: job::sources(&graph, parallelism)?,
        committers: job::committers(&graph, &id, &mainstem_engine::staging(store.checkpoints(), id.clone()))?,
        options,
        restore: None,
        history: JobHistory::new(clock.clone()),
    };
    let data_runtime = runtimes.data.handle().clone();
    let deployer =
        LocalDeployer::new(&spec, graph.clone(), metrics.clone(), store.checkpoints(), memory, data_runtime)?;
    let (control, wishes) = mpsc::channel(4);
    let (status_sender, status) = watch::channel(JobStatus::default());
    let coordinator = JobCoordinator::new(spec, store.into_home().await?, clock);
    let outcome = runtimes.control.spawn(coordinator.run(deployer, wishes, status_sender));
    Ok(Running { job: id, parallelism, status, control, metrics, graph, outcome })
}

/// A directory for the state of a query, which goes with it. Nobody else can read it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    pub(super) fn new(number: u64) -> anyhow::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("mainstem-sql-{process}-{number}-{}", crate::cluster::new_id()));
        let created = std::fs::DirBuilder::new().mode(0o700).create(&path);
        created.with_context(|| format!("cannot create '{}'; set TMPDIR to another place", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it. A write that was on its way may put something back, so it is looked at again for a while.
    pub(super) async fn remove(self) {
        for _ in 0..20 {
            let removed = std::fs::remove_dir_all(&self.0);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if removed.is_err() && !self.0.exists() {
                return;
            }
        }
        tracing::warn!(path = %self.0.display(), "the state of a query could not be removed");
    }
}
