//! The coordinator of a job: its metadata log, its recovery, and the driver that feeds the pure machines of
//! `mainstem_core` and carries out what they decide. A decision about the protocol that appears here belongs
//! in `mainstem_core`.

mod adoption;
mod attempt;
mod audit_files;
pub mod cluster;
mod coordinator;
mod error;
mod history;
mod job_store;
mod lane;
mod meta_log;
mod recovery;
mod retry;
mod spec;

pub use audit_files::{AuditFault, AuditFiles, AuditOptions, AuditVerdict, verify as verify_audit_files};
pub use coordinator::JobCoordinator;
pub use error::CoordinatorError;
pub use history::{
    CheckpointNote, CheckpointStage, EventKind, EventNote, FailedAttempt, FailureNote, HistoryView, HistoryWatcher,
    JobHistory, JobLatency, Passed, PassedCheckpoint, PassedRecord, Publication, StartOutcome, StartPhase,
    StartedAttempt, SubtaskPart, Totals, What,
};
pub use job_store::{JobHome, JobStore, StoredJob, recorded};
pub use mainstem_core::checkpoint::{CadenceBounds, CheckpointOptions};
pub use meta_log::{
    DeployedAttempt, EpochRecord, JobCreated, JobEnd, JobRecord, JobRestored, LocalMetaLog, MetaLog, MetaLogError,
    Record, RestoredFrom, RunningAttempt, SavepointOutcome, SavepointRecord,
};
pub use spec::{
    Attempt, AttemptHold, Control, Deployer, Deployment, JobOutcome, JobSpec, JobStatus, RestoreFrom, RestorePlan,
    SavepointRequest, SavepointStatus, SourceSpec, TaskSpec,
};
