//! `left JOIN right FOR SYSTEM_TIME AS OF time ON condition`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{DFSchemaRef, DataFusionError, Result};
use datafusion_expr::logical_plan::builder::build_join_schema;
use datafusion_expr::{Expr, JoinType, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::At;
use crate::time_attribute::roles;
use crate::window::node::positions;

/// Each left row with the right row of the version that was valid at a time of the left row's. Columns: those of
/// the left, then of the right input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemporalJoin {
    pub(crate) left: Arc<LogicalPlan>,
    /// A table, view or query whose rows are versions.
    pub(crate) right: Arc<LogicalPlan>,
    /// `Inner` or `Left`.
    pub(crate) kind: JoinType,
    /// The whole condition, over the columns of both inputs.
    pub(crate) on: Expr,
    /// The time, over the columns of the left input.
    pub(crate) time: Expr,
    /// Where the table that has versions stands in the text.
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

impl TemporalJoin {
    /// The node over planned inputs.
    pub(crate) fn new(
        left: LogicalPlan,
        right: LogicalPlan,
        kind: JoinType,
        on: Expr,
        time: Expr,
        at: At,
    ) -> Result<TemporalJoin> {
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(TemporalJoin { left: Arc::new(left), right: Arc::new(right), kind, on, time, at, schema })
    }
}

impl Hash for TemporalJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.left, &self.right, &self.kind, &self.on, &self.time).hash(state);
    }
}

impl PartialOrd for TemporalJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for TemporalJoin {
    fn name(&self) -> &str {
        "TemporalJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.on.clone(), self.time.clone()]
    }

    /// A filter below the join would hide versions, not rows.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TemporalJoin: {} as of {} on {}", self.kind, self.time, self.on)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = || DataFusionError::Internal("a temporal join has two expressions and two inputs".to_owned());
        let [on, time] = <[Expr; 2]>::try_from(exprs).map_err(|_| wrong())?;
        let [left, right] = <[LogicalPlan; 2]>::try_from(inputs).map_err(|_| wrong())?;
        TemporalJoin::new(left, right, self.kind, on, time, self.at)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let exprs = self.expressions();
        let mut left = positions(&exprs, self.left.schema());
        let mut right = positions(&exprs, self.right.schema());
        for column in output_columns {
            if *column < width { left.push(*column) } else { right.push(*column - width) }
        }
        // The time from which a version is valid, whether or not the query reads it.
        let times = roles(&self.right).into_iter().enumerate().filter(|(_, role)| role.is_event_time());
        right.extend(times.map(|(column, _)| column));
        let sorted = |mut columns: Vec<usize>| {
            columns.sort_unstable();
            columns.dedup();
            columns
        };
        Some(vec![sorted(left), sorted(right)])
    }
}
