//! What is told of jobs and of the cluster, as the REST API gives it. A coordinator that leads makes it, and others hand it on
//! unread. What is not known is null; points in time are milliseconds since 1970-01-01 UTC, rates are per second.

mod cluster;
mod graph;
mod job;
mod lineage;

use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::cluster::*;
pub(crate) use self::graph::*;
pub(crate) use self::job::*;
pub(crate) use self::lineage::*;

/// How far a source is behind.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Lag {
    /// The table that it reads.
    pub(crate) table: String,
    /// `records` or `bytes`.
    #[schema(example = "records")]
    pub(crate) unit: String,
    /// Over all splits.
    #[schema(example = 12)]
    pub(crate) total: u64,
    /// The splits with the largest lag, largest first; at most 100.
    pub(crate) splits: Vec<SplitLag>,
}

/// The lag of a split.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SplitLag {
    #[schema(example = "orders/0")]
    pub(crate) split: String,
    #[schema(example = 12)]
    pub(crate) lag: u64,
}
