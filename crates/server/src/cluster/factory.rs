//! Makes what the driver of a submitted job needs.

use std::path::PathBuf;
use std::sync::Arc;

use mainstem_coordinator::cluster::{JobFactory, Submission};
use mainstem_coordinator::{JobHistory, JobSpec};
use mainstem_core::ids::JobId;
use mainstem_plan::operator::JobGraph;
use mainstem_rt::Clock;
use mainstem_state::CheckpointStore;

use crate::job;
use crate::traces::Traces;

/// Reads stored plans and finds their connectors.
pub(crate) struct GraphFactory {
    /// Where checkpoints lie.
    pub(crate) store: PathBuf,
    /// Where spans go, if anywhere.
    pub(crate) traces: Option<Arc<Traces>>,
}

impl JobFactory for GraphFactory {
    fn spec(&self, id: &JobId, submission: &Submission, history: Arc<JobHistory>) -> Result<JobSpec, String> {
        let graph: JobGraph = serde_json::from_str(&submission.graph_json)
            .map_err(|error| format!("the stored plan of job '{id}' cannot be read by this version: {error}"))?;
        let parallelism = submission.parallelism;
        let text = |error: anyhow::Error| format!("{error:#}");
        let store = CheckpointStore::open(&self.store).map_err(|error| error.to_string())?;
        let staging = mainstem_engine::staging(Arc::new(store), id.clone());
        Ok(JobSpec {
            job: id.clone(),
            graph_json: submission.graph_json.clone(),
            sql_hash: submission.sql_hash.clone(),
            key_groups: submission.key_groups,
            parallelism,
            tasks: job::tasks(&graph, parallelism),
            sources: job::sources(&graph, parallelism).map_err(text)?,
            committers: job::committers(&graph, id, &staging).map_err(text)?,
            options: submission.options.clone(),
            restore: submission.restore.clone(),
            history,
        })
    }

    fn history(&self, id: &JobId, submission: &Submission, clock: Arc<dyn Clock>) -> Arc<JobHistory> {
        let Some(traces) = &self.traces else { return JobHistory::new(clock) };
        // A plan of another version names nothing here; the driver says why it cannot run.
        let graph: JobGraph = serde_json::from_str(&submission.graph_json).unwrap_or_default();
        traces.history(id, &graph, clock)
    }
}
