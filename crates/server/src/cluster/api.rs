//! What commands say to a coordinator and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstem_coordinator::cluster::{Wish, WorkerStatus};
use mainstem_coordinator::{JobEnd, JobStatus, RestoredFrom, SavepointRecord, SavepointRequest};
use mainstem_core::audit::{AuditRecord, Head};
use mainstem_core::cluster::StandbyStatus;
use mainstem_core::ids::{Generation, JobId};
use serde::{Deserialize, Serialize};

use crate::figures::{Question, RowLatency};
use crate::job;
use crate::lag::TableLag;
use crate::memory::OperatorMemory;

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
    /// Let a worker take nothing new, and move what it runs.
    Drain { worker: String },
    /// Tell of the coordinators.
    Members,
    /// Take another coordinator in.
    AddMember { id: u64, address: String },
    /// Leave a coordinator out.
    RemoveMember { id: u64 },
    /// Take a savepoint of a job. Said twice, it is one.
    Savepoint { job: JobId, request: SavepointRequest },
    /// Forget a job that has ended.
    Remove { job: JobId },
    /// Tell of the newest decisions.
    Audit(AuditRequest),
    /// Tell of jobs and workers as the REST API does.
    Look(Question),
}

impl Request {
    /// How long the answer may take: a new member reads all that was agreed on.
    pub(crate) fn answer_within(&self) -> Duration {
        Duration::from_secs(if matches!(self, Request::AddMember { .. }) { 60 } else { 10 })
    }
}

/// Which decisions to tell of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AuditRequest {
    /// Only those about this job.
    pub(crate) job: Option<JobId>,
    /// At most so many.
    pub(crate) limit: usize,
    /// Also those that come with every checkpoint.
    pub(crate) routine: bool,
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
    /// The savepoint with which it begins.
    pub(crate) from_savepoint: Option<String>,
    /// Whether it may write output once more that is there already.
    pub(crate) repeat_output: bool,
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
    /// The coordinators.
    Members(MembersView),
    /// The newest decisions.
    Audit(AuditView),
    /// Figures.
    Look(LookView),
    /// Done.
    Done,
    /// Not done, and why.
    Refused { reason: String },
    /// Whether it was done is not known, nor whether it will be.
    Unknown { reason: String },
    /// Only the coordinator that leads does this, or only one that is a member; and who to ask instead, where known.
    NotLeader { leader: Option<String> },
    /// There is nothing here that could do it.
    NotHere { reason: String },
}

impl Response {
    /// Whether a coordinator that leads tells what it knows.
    pub(crate) fn leads(&self) -> bool {
        match self {
            Response::Jobs { leads, .. }
            | Response::Members(MembersView { leads, .. })
            | Response::Look(LookView { leads, .. })
            | Response::Audit(AuditView { leads, .. }) => *leads,
            _ => false,
        }
    }

    /// The address of the coordinator that leads, where one that does not has answered and knows it.
    pub(crate) fn leader(&self) -> Option<&str> {
        match self {
            Response::Jobs { leads: false, leader, .. }
            | Response::Audit(AuditView { leads: false, leader, .. })
            | Response::Look(LookView { leads: false, leader, .. })
            | Response::NotLeader { leader } => leader.as_deref(),
            Response::Members(MembersView { leads: false, leader, .. }) => {
                leader.as_ref().map(|(_, address)| address.as_str())
            }
            _ => None,
        }
    }
}

/// Who belongs to the coordinators, as one of them knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MembersView {
    /// Whether this coordinator leads. Otherwise what it knows may be old.
    pub(crate) leads: bool,
    /// Who leads, by id and address, as far as it knows.
    pub(crate) leader: Option<(u64, String)>,
    /// Who votes, by id, with addresses.
    pub(crate) members: BTreeMap<u64, String>,
    /// Who is being added.
    pub(crate) learners: BTreeMap<u64, String>,
    /// Raft's term.
    pub(crate) term: u64,
    /// The last entry that is agreed on, counted from 0.
    pub(crate) committed: Option<u64>,
}

/// The newest decisions, as one of the coordinators knows them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AuditView {
    /// Whether this coordinator leads. Otherwise what it knows may be old.
    pub(crate) leads: bool,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<String>,
    /// How far the chain of all decisions has come.
    pub(crate) head: Head,
    /// Oldest first.
    pub(crate) records: Vec<AuditRecord>,
}

/// Figures, as one of the coordinators knows them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LookView {
    /// Whether this coordinator leads. Otherwise what it knows may be old.
    pub(crate) leads: bool,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<String>,
    /// What was asked for; none: there is no such job.
    pub(crate) found: Option<serde_json::Value>,
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
    /// Bytes of state files with which the newest attempt has begun, read from local copies on the workers.
    pub(crate) restored_local_bytes: u64,
    /// The same, read from the store.
    pub(crate) restored_store_bytes: u64,
    /// Who stands by for its slots; none where nobody is to.
    #[serde(default)]
    pub(crate) standbys: Option<StandbyStatus>,
    /// What the state of each operator takes in memory.
    #[serde(default)]
    pub(crate) memory: Vec<OperatorMemory>,
    #[serde(default)]
    pub(crate) dead_letters: u64,
    /// Of the sources whose readers know.
    #[serde(default)]
    pub(crate) lag: Vec<TableLag>,
    /// How long rows take to each sink.
    #[serde(default)]
    pub(crate) latency: Vec<RowLatency>,
    /// The savepoint that is wanted and has no outcome yet.
    pub(crate) savepoint: Option<SavepointRequest>,
    /// The newest outcomes of savepoints, oldest first.
    pub(crate) savepoints: Vec<SavepointRecord>,
    /// The savepoint with which it began.
    pub(crate) restored: Option<RestoredFrom>,
}

impl JobSummary {
    /// Where it stands, in a word.
    pub(crate) fn state(&self) -> String {
        job::state_in_a_word(self.status.as_ref(), self.end.as_ref(), self.active)
    }
}
