//! Aggregation without windows: its result is a table that changes with each row.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::aggregate::AggregateCall;

/// `GROUP BY` without a window, and `SELECT DISTINCT` (no aggregates). Output: the keys, then the aggregates.
/// The input is partitioned by the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupAggregate {
    /// Positions of the group keys in the input; none: one group, which exists from the first row on.
    pub keys: Vec<usize>,
    /// Aggregates, over the input.
    pub aggregates: Vec<AggregateCall>,
    /// Columns of the input; where it merges partial aggregates, of the input of the first step.
    pub input_schema: SchemaRef,
    /// Whether the input may take rows away.
    pub input_retracts: bool,
    /// A group that has not changed for so long is forgotten. Milliseconds; absent: never.
    pub ttl_ms: Option<u64>,
    /// Changes are held back for so long, so that a group that changes often gives one change in this time.
    /// Milliseconds; absent: each batch gives its changes.
    pub mini_batch_ms: Option<u64>,
    /// Changes are held back for no more than so many rows of the input; absent: whatever their number.
    #[serde(default)]
    pub mini_batch_rows: Option<u64>,
    /// Whether the input is what [`super::OperatorKind::GroupPartial`] with the same specification gives: the keys, then
    /// the columns of each aggregate ([`AggregateForm::partial_types`](crate::aggregate::AggregateForm::partial_types)).
    #[serde(default)]
    pub merges_partials: bool,
}
