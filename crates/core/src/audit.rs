//! The audit trail: a record of each decision about a cluster or a job, in the order in which they were made, each with a
//! hash over itself and the hash before. [`decisions`] says what becomes a record, [`Trail`] numbers and chains records and
//! keeps the newest, [`lines`] is how they stand in files and how a file is verified. Pure: time and names come with what is
//! decided; called where decisions are applied, so a record cannot say anything else than what was decided.
//!
//! Invariants: numbers have no gap; a record is never changed; whoever applies the same decisions has the same chain.

mod chain;
pub mod decisions;
pub mod lines;
mod trail;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::chain::{AuditHash, Head};
pub use self::trail::{Part, Trail};
use crate::ids::JobId;
use crate::time::Timestamp;

/// Bytes of a reason, at most; what is longer is cut and ends in `…`.
const REASON_BYTES_MAX: usize = 1_000;
/// Bytes of a fact, at most.
const FACT_BYTES_MAX: usize = 300;

/// Which of the newest records stand beside each other, so that frequent ones do not crowd out the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// What users have asked for.
    Asked,
    /// What the cluster has decided by itself.
    Own,
    /// What is decided with every checkpoint.
    Routine,
}

macro_rules! whats {
    ($($(#[$doc:meta])* $variant:ident $name:literal $class:ident;)*) => {
        /// What was decided.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum What {
            $($(#[$doc])* $variant,)*
        }

        impl What {
            /// All of them.
            pub const ALL: &[What] = &[$(What::$variant),*];

            /// Its name in files and on the screen.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(What::$variant => $name,)*
                }
            }

            /// With which others it is kept.
            #[must_use]
            pub fn class(self) -> Class {
                match self {
                    $(What::$variant => Class::$class,)*
                }
            }
        }
    };
}

whats! {
    /// A job is to run: a new one, or one that goes on.
    JobSubmitted "job-submitted" Asked;
    /// A job is to take a last checkpoint and stop.
    StopAsked "stop-asked" Asked;
    /// A job is to stop at once.
    CancelAsked "cancel-asked" Asked;
    /// A job is to run at another parallelism.
    RescaleAsked "rescale-asked" Asked;
    /// A savepoint is to be taken.
    SavepointAsked "savepoint-asked" Asked;
    /// A job is known no more; its checkpoints are to be deleted.
    JobForgotten "job-forgotten" Asked;
    /// A worker takes nothing new, and what it runs moves away.
    WorkerDrained "worker-drained" Asked;
    /// A coordinator is to be taken in.
    MemberAddAsked "member-add-asked" Asked;
    /// A coordinator is to be left out.
    MemberRemoveAsked "member-remove-asked" Asked;
    /// Another coordinator leads.
    LeaderChanged "leader-changed" Own;
    /// A coordinator has a vote.
    MemberAdded "member-added" Own;
    /// A coordinator has no vote any more.
    MemberRemoved "member-removed" Own;
    /// A worker has come.
    WorkerJoined "worker-joined" Own;
    /// A worker counts as lost.
    WorkerLost "worker-lost" Own;
    /// One process runs a job, from where its log stands.
    RunBegan "run-began" Own;
    /// The job's dataflow is fixed.
    JobCreated "job-created" Own;
    /// A job begins with a savepoint.
    JobRestored "job-restored" Own;
    /// An attempt begins, and fences all before.
    AttemptStarted "attempt-started" Own;
    /// All subtasks of an attempt run.
    AttemptDeployed "attempt-deployed" Own;
    /// Another leader goes on with an attempt.
    AttemptAdopted "attempt-adopted" Own;
    /// A savepoint is complete.
    SavepointTaken "savepoint-taken" Own;
    /// A savepoint that was asked for is not taken.
    SavepointFailed "savepoint-failed" Own;
    /// A job has ended.
    JobEnded "job-ended" Own;
    /// The checkpoints of a forgotten job are deleted.
    CheckpointsDeleted "checkpoints-deleted" Own;
    /// A checkpoint is complete: its output will be published whatever happens.
    CheckpointCompleted "checkpoint-completed" Routine;
    /// The output of an epoch is visible.
    OutputPublished "output-published" Routine;
    /// Checkpoints can no longer be restored.
    CheckpointsRetired "checkpoints-retired" Routine;
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<What> for String {
    fn from(what: What) -> String {
        what.name().to_owned()
    }
}

impl TryFrom<String> for What {
    type Error = String;

    fn try_from(name: String) -> Result<What, String> {
        let known = What::ALL.iter().find(|what| what.name() == name);
        known.copied().ok_or_else(|| format!("this release knows no decision '{name}'"))
    }
}

/// A decision, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    what: What,
    job: Option<JobId>,
    facts: BTreeMap<String, String>,
    reason: String,
}

impl Event {
    /// A decision, about this job where it is about one.
    #[must_use]
    pub fn new(what: What, job: Option<&JobId>) -> Event {
        Event { what, job: job.cloned(), facts: BTreeMap::new(), reason: String::new() }
    }

    /// Adds a detail.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl ToString) -> Event {
        self.facts.insert(name.to_owned(), bounded(value.to_string(), FACT_BYTES_MAX));
        self
    }

    /// Says why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Event {
        self.reason = bounded(reason.into(), REASON_BYTES_MAX);
        self
    }
}

/// A decision in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number, from 1 on without gaps.
    pub seq: u64,
    /// When, by the clock of who proposed it; 0 where an older release did.
    pub at: Timestamp,
    /// Who decided: a coordinator, or a user through one.
    pub by: String,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What was decided.
    pub what: What,
    /// Details by their names.
    pub facts: BTreeMap<String, String>,
    /// Why.
    pub reason: String,
    /// The hash of the record before.
    pub before: AuditHash,
    /// The hash of this one, over the one before and all of the above.
    pub hash: AuditHash,
}

impl AuditRecord {
    /// Puts a decision behind the last one.
    #[must_use]
    pub fn chained(head: Head, at: Timestamp, by: &str, event: Event) -> AuditRecord {
        let Event { what, job, facts, reason } = event;
        let by = bounded(by.to_owned(), FACT_BYTES_MAX);
        let (seq, before, hash) = (head.seq + 1, head.hash, AuditHash::default());
        let record = AuditRecord { seq, at, by, job, what, facts, reason, before, hash };
        AuditRecord { hash: chain::record_hash(&record), ..record }
    }

    /// Whether its hash is that of its content.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        chain::record_hash(self) == self.hash
    }

    /// The chain up to and including it.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }
}

fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
