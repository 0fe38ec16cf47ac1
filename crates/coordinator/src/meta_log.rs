//! The metadata of a job: a log of the few facts that must survive everything (I1), and the state that they
//! add up to. [`LocalMetaLog`] keeps it in one file, [`ServiceMetaLog`] in an object of an object store; a replicated log
//! comes behind the same trait.

mod audited;
#[cfg(test)]
#[path = "../../state/src/golden.rs"]
mod golden;
mod local;
mod service;

use async_trait::async_trait;
pub use mainstem_core::job_record::{
    DeployedAttempt, EpochRecord, JobCreated, JobEnd, JobRecord, JobRestored, Record, RestoredFrom, RunningAttempt,
    SavepointOutcome, SavepointRecord,
};

pub(crate) use self::audited::AuditedLog;
pub use self::local::LocalMetaLog;
pub(crate) use self::service::{Found, ServiceMetaLog};

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MetaLogError {
    /// The record contradicts what is recorded: an older attempt, a step out of order. Nothing was written.
    #[error("bug: {0}; please report it")]
    Refused(String),
    /// The record cannot be taken at all, as it is too large. Nothing was written.
    #[error("the coordinators do not take a record of the job: {0}")]
    Unacceptable(String),
    /// The log holds bytes that were not written so.
    #[error(
        "metadata log '{path}' is damaged at byte {offset}: {reason}; restore it from a backup, or start the job anew with --fresh"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Writing failed. Whether the record is durable is unknown, so the log takes nothing more until it is
    /// opened again.
    #[error("cannot {action} the metadata log '{path}': {source}; {}; then start the job again", mainstem_state::advice(.source.kind()))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Writing or reading it in an object store failed.
    #[error("cannot {action} the metadata log '{path}': {message}; then start the job again")]
    Service {
        /// What was attempted.
        action: &'static str,
        /// The object.
        path: String,
        /// What the service says, and what to do.
        message: String,
    },
    /// Another process has begun to run the job since this one did.
    #[error(
        "another process ({owner}) has begun to run the job since this one did, and has taken over its log '{path}':          this one ends, and has no effect any more; stop the other one first where the job is to run here"
    )]
    TakenOver {
        /// The object.
        path: String,
        /// Process id and host of the other one, as far as known.
        owner: String,
    },
    /// An earlier write has failed.
    #[error(
        "the metadata log '{path}' takes nothing more after a failed write; check the disk, then start the job again"
    )]
    Closed {
        /// The file.
        path: String,
    },
}

/// The log of one job. One owner, who holds the job's lock.
#[async_trait]
pub trait MetaLog: Send + Sync {
    /// What the records so far add up to.
    fn state(&self) -> &JobRecord;

    /// Adds a record. On return it survives a crash of the machine. Not cancel-safe: a caller that drops the
    /// future must not use the log again.
    async fn append(&mut self, record: Record) -> Result<(), MetaLogError>;
}
