//! Jobs that run in this process beside something else: the coordinator, the deployer and the engine of `mainstem run`, put
//! together for a graph that is at hand. For the shell, and for previews of the HTTP port.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use mainstem_connectors::{Collector, ConnectorError, SplitEnumerator};
use mainstem_coordinator::{
    CheckpointOptions, Control, JobCoordinator, JobHistory, JobOutcome, JobSpec, JobStatus, JobStore, SourceSpec,
};
use mainstem_core::ids::JobId;
use mainstem_core::protocol::SourceSplit;
use mainstem_engine::{JobMetrics, MemoryBudget};
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_planner::JobPlan;
use mainstem_rt::{Clock, SystemClock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::deployer::LocalDeployer;
use crate::job;
use crate::run::Runtimes;
use crate::status::{Totals, totals_of};

/// A job to run.
pub(crate) struct Launch {
    pub(crate) job: JobId,
    pub(crate) graph: JobGraph,
    /// The text that it was planned from.
    pub(crate) sql: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) parallelism: u32,
    pub(crate) key_groups: u16,
    pub(crate) options: CheckpointOptions,
    /// What all jobs of this process share.
    pub(crate) memory: Arc<MemoryBudget>,
    /// Whether nobody outside is to be told how far it has read, such as a consumer group.
    pub(crate) unheard: bool,
}

/// Finds splits as another does, and has nobody who is told how far they have been read.
struct Unheard(Box<dyn SplitEnumerator>);

#[async_trait]
impl SplitEnumerator for Unheard {
    async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
        self.0.discover().await
    }

    fn go_on(&mut self) {
        self.0.go_on();
    }
}

/// A job that runs. When it is dropped, the job ends as if the process had been killed.
pub(crate) struct Running {
    pub(crate) job: JobId,
    pub(crate) parallelism: u32,
    pub(crate) status: watch::Receiver<JobStatus>,
    control: mpsc::Sender<Control>,
    metrics: Arc<JobMetrics>,
    graph: Arc<JobGraph>,
    pub(crate) outcome: JoinHandle<JobOutcome>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.outcome.abort();
    }
}

impl Running {
    /// Asks for a last checkpoint and the end.
    pub(crate) async fn stop(&self) {
        // A job that has ended does not hear it.
        let _ = self.control.send(Control::Stop).await;
    }

    /// What has been counted so far.
    pub(crate) fn totals(&self) -> Totals {
        totals_of(&self.graph, &self.metrics)
    }
}

/// The graph of a query with its first sink leading here, and without any other that writes.
pub(crate) fn watched(plan: &JobPlan, collector: &Collector) -> JobGraph {
    let mut graph = plan.graph.clone();
    let shown = plan.sinks[0].operator;
    for node in &mut graph.nodes {
        let OperatorKind::Sink(sink) = &mut node.op.kind else { continue };
        if node.id == shown {
            collector.take(&mut sink.table);
        } else {
            // Of bad records, where a table wants to have them.
            sink.table.options = [("connector".to_owned(), "blackhole".to_owned())].into();
        }
    }
    graph
}

/// Starts a job, or goes on with it where it was.
pub(crate) async fn launch(runtimes: &Runtimes, launch: Launch) -> anyhow::Result<Running> {
    let Launch { job: id, graph, sql, state_dir, parallelism, key_groups, options, memory, unheard } = launch;
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
    let mut sources = job::sources(&graph, parallelism)?;
    if unheard {
        let unheard = |spec: SourceSpec| SourceSpec { enumerator: Box::new(Unheard(spec.enumerator)), ..spec };
        sources = sources.into_iter().map(|(operator, spec)| (operator, unheard(spec))).collect();
    }
    let spec = JobSpec {
        job: id.clone(),
        graph_json,
        sql_hash: job::hash(&sql),
        key_groups,
        parallelism,
        tasks: job::tasks(&graph, parallelism),
        sources,
        committers: job::committers(&graph, &id, &mainstem_engine::staging(store.checkpoints(), id.clone()))?,
        options,
        restore: None,
        history: JobHistory::new(clock.clone()),
    };
    let data_runtime = runtimes.data.handle().clone();
    let deployer = LocalDeployer::new(
        &spec,
        graph.clone(),
        metrics.clone(),
        store.checkpoints(),
        memory,
        clock.clone(),
        data_runtime,
    )?;
    let (control, wishes) = mpsc::channel(4);
    let (status_sender, status) = watch::channel(JobStatus::default());
    let coordinator = JobCoordinator::new(spec, store.into_home().await?, clock);
    let outcome = runtimes.control.spawn(coordinator.run(deployer, wishes, status_sender));
    Ok(Running { job: id, parallelism, status, control, metrics, graph, outcome })
}

/// A directory for the state of a query, which goes with it. Nobody else can read it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new one; `what` it is for stands in its name.
    pub(crate) fn new(what: &str) -> anyhow::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("mainstem-{what}-{process}-{}", crate::cluster::new_id()));
        let created = std::fs::DirBuilder::new().mode(0o700).create(&path);
        created.with_context(|| format!("cannot create '{}'; set TMPDIR to another place", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it. A write that was on its way may put something back, so it is looked at again for a while.
    pub(crate) async fn remove(self) {
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

#[cfg(test)]
mod tests {
    use mainstem_connectors::CheckpointListener;
    use mainstem_core::protocol::SplitState;

    use super::*;

    struct Heard;

    impl CheckpointListener for Heard {
        fn complete(&mut self, _splits: &[SplitState]) {}
    }

    #[async_trait]
    impl SplitEnumerator for Heard {
        async fn discover(&mut self) -> Result<Vec<SourceSplit>, ConnectorError> {
            Ok(Vec::new())
        }

        fn listener(&self) -> Option<Box<dyn CheckpointListener>> {
            Some(Box::new(Heard))
        }
    }

    #[test]
    fn nobody_is_told_of_what_is_read_unheard() {
        assert!(Heard.listener().is_some());
        assert!(Unheard(Box::new(Heard)).listener().is_none());
    }
}
