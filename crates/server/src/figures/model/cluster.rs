//! What is told of the nodes, and of decisions.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// The workers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WorkersAnswer {
    pub(crate) stale: bool,
    pub(crate) leader: Option<String>,
    pub(crate) now_ms: i64,
    pub(crate) workers: Vec<Worker>,
}

/// A worker.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Worker {
    /// This life of it.
    #[schema(example = "w1@127.0.0.1:4000#00000000000000a1")]
    pub(crate) worker: String,
    /// As its user named it.
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) slots: u32,
    pub(crate) used: u32,
    /// Whether it takes nothing new.
    pub(crate) draining: bool,
    /// Jobs that run on it.
    pub(crate) jobs: Vec<String>,
}

/// The coordinators, and how far they agree.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CoordinatorsAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    /// Whether who tells this leads.
    pub(crate) leads: bool,
    pub(crate) leader: Option<Leader>,
    /// Raft's term.
    pub(crate) term: u64,
    /// The last entry that is agreed on, counted from 0.
    pub(crate) committed: Option<u64>,
    pub(crate) members: Vec<Member>,
}

/// The coordinator that leads.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Leader {
    pub(crate) id: u64,
    pub(crate) address: String,
}

/// A coordinator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) address: String,
    /// `leader`, `member` or `joining`.
    #[schema(example = "member")]
    pub(crate) role: String,
}

/// Who has decided what, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditAnswer {
    pub(crate) stale: bool,
    pub(crate) now_ms: i64,
    pub(crate) head: ChainHead,
    pub(crate) records: Vec<Decision>,
}

/// How far the chain of all decisions has come.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ChainHead {
    pub(crate) seq: u64,
    pub(crate) hash: String,
}

/// A decision.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Decision {
    pub(crate) seq: u64,
    pub(crate) at_ms: i64,
    pub(crate) by: String,
    #[schema(example = "job-submitted")]
    pub(crate) what: String,
    pub(crate) job: Option<String>,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) reason: String,
}

/// How this node was started.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ConfigurationAnswer {
    pub(crate) stale: bool,
    pub(crate) node: String,
    pub(crate) settings: Vec<Setting>,
}

/// One setting of a node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Who asks, and whom.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SessionAnswer {
    pub(crate) stale: bool,
    /// `viewer`, `operator` or `admin`.
    #[schema(example = "viewer")]
    pub(crate) role: String,
    pub(crate) user: String,
    /// Whether this server demands tokens.
    pub(crate) authenticated: bool,
    /// `cluster`, `run` or `worker`.
    #[schema(example = "cluster")]
    pub(crate) mode: String,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) now_ms: i64,
}
