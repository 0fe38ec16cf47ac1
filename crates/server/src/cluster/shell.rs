//! What the SQL shell and `why` ask of a cluster: to run a job, to tell of jobs, to stop one.

use anyhow::{Context, bail};
use mainstem_coordinator::JobEnd;
use mainstem_coordinator::cluster::Wish;
use mainstem_core::ids::JobId;
use serde_json::Value;

use super::api::{JobSummary, LookView, Request, Response, SubmitRequest};
use super::client::{Client, LOOK_EVERY, unexpected};
use crate::cli::ClientArgs;
use crate::figures::Question;

/// The cluster, as the shell sees it.
pub(crate) struct ShellClient(Client);

impl ShellClient {
    /// By the addresses of its coordinators.
    pub(crate) fn new(args: &ClientArgs) -> anyhow::Result<ShellClient> {
        Ok(ShellClient(Client::new(args)?))
    }

    /// Runs a text of SQL as a job.
    pub(crate) async fn submit(&self, job: &JobId, sql: String, parallelism: Option<u32>) -> anyhow::Result<()> {
        let working_dir = std::env::current_dir().context("cannot find the current directory")?;
        let request = SubmitRequest {
            files: vec![("sql".to_owned(), sql)],
            job: Some(job.clone()),
            parallelism,
            checkpoint_interval_ms: None,
            working_dir: working_dir.display().to_string(),
            from_savepoint: None,
            repeat_output: false,
        };
        match self.0.ask_leader(&Request::Submit(request)).await? {
            Response::Submitted { .. } => Ok(()),
            _ => unexpected(),
        }
    }

    /// A line for each job: name, state, parallelism, published epochs, rows in and out.
    pub(crate) async fn jobs(&self) -> anyhow::Result<Vec<Vec<String>>> {
        let Response::Jobs { jobs, .. } = self.0.ask_any(&Request::Jobs).await? else { return unexpected() };
        let line = |job: JobSummary| {
            let numbers = [u64::from(job.parallelism), job.committed, job.rows_in, job.rows_out];
            let [parallelism, committed, rows_in, rows_out] = numbers.map(|number| number.to_string());
            vec![job.job.to_string(), job.state(), parallelism, committed, rows_in, rows_out]
        };
        Ok(jobs.into_iter().map(line).collect())
    }

    /// What is known of one job.
    pub(crate) async fn job(&self, job: &JobId) -> anyhow::Result<JobSummary> {
        let Response::Jobs { jobs, .. } = self.0.ask_any(&Request::Jobs).await? else { return unexpected() };
        jobs.into_iter().find(|summary| summary.job == *job).with_context(|| format!("there is no job '{job}'"))
    }

    /// Live figures, as the HTTP port shows them.
    pub(crate) async fn look(&self, question: Question) -> anyhow::Result<Option<Value>> {
        match self.0.ask_leader(&Request::Look(question)).await? {
            Response::Look(LookView { found, .. }) => Ok(found),
            _ => unexpected(),
        }
    }

    /// Asks for a last checkpoint of a job and its end.
    pub(crate) async fn stop(&self, job: &JobId) -> anyhow::Result<()> {
        self.0.ask_leader(&Request::Wish { job: job.clone(), wish: Wish::Stop }).await.map(|_| ())
    }

    /// Waits until a job has ended, and says how. Cancel-safe.
    pub(crate) async fn wait(&self, job: &JobId) -> anyhow::Result<String> {
        loop {
            // Coordinators may change while a job runs.
            if let Ok(summary) = self.0.led_job(job).await
                && !summary.active
                && let Some(end) = &summary.end
            {
                match end {
                    JobEnd::Failed { reason } => bail!("job '{job}' failed: {reason}"),
                    JobEnd::Finished | JobEnd::Stopped => return Ok(summary.state()),
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
