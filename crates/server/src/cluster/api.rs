//! What commands say to a coordinator and what it answers.

use mainstem_coordinator::cluster::{Wish, WorkerStatus};
use mainstem_coordinator::{JobEnd, JobStatus};
use mainstem_core::ids::{Generation, JobId};
use serde::{Deserialize, Serialize};

/// From a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Plan a job and run it.
    Submit(SubmitRequest),
    /// Tell of all jobs.
    Jobs,
    /// Make a job do something.
    Wish { job: JobId, wish: Wish },
    /// Run a job at another parallelism.
    Rescale { job: JobId, parallelism: u32 },
}

/// A job to plan and run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SubmitRequest {
    /// The SQL files by name, read as one.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) job: Option<JobId>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) checkpoint_interval_ms: Option<u64>,
    /// Where relative paths of the user start.
    pub(crate) working_dir: String,
}

/// From a coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The job was taken.
    Submitted { job: JobId },
    /// All jobs.
    Jobs {
        /// Whether this coordinator leads. Otherwise what it knows may be old.
        leads: bool,
        /// Who leads, as far as it knows.
        leader: Option<String>,
        jobs: Vec<JobSummary>,
        workers: Vec<WorkerStatus>,
    },
    /// Done.
    Done,
    /// Not done, and why.
    Refused { reason: String },
    /// Only the coordinator that leads does this.
    NotLeader { leader: Option<String> },
}

/// A job in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobSummary {
    pub(crate) job: JobId,
    pub(crate) parallelism: u32,
    /// Whether it is to run.
    pub(crate) active: bool,
    pub(crate) generation: Generation,
    /// The newest epoch that is complete, and that is visible.
    pub(crate) complete: u64,
    pub(crate) committed: u64,
    /// How it ended, where it has.
    pub(crate) end: Option<JobEnd>,
    /// Live; none from a coordinator that does not lead.
    pub(crate) status: Option<JobStatus>,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) late_rows: u64,
    pub(crate) dropped_records: u64,
}

impl JobSummary {
    /// Where it stands, in a word.
    pub(crate) fn state(&self) -> String {
        match (&self.status, &self.end, self.active) {
            (_, Some(JobEnd::Finished), false) => "finished".to_owned(),
            (_, Some(JobEnd::Stopped), false) => "stopped".to_owned(),
            (_, Some(JobEnd::Failed { .. }), false) => "failed".to_owned(),
            (Some(status), _, true) if status.waiting.is_some() => "waiting".to_owned(),
            (Some(status), _, true) => status.state.to_string(),
            (None, _, true) => "active".to_owned(),
            (_, None, false) => "ended".to_owned(),
        }
    }
}
