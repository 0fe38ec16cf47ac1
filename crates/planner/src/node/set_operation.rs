//! INTERSECT and EXCEPT.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use mainstem_plan::operator::SetKind;

use crate::error::At;

/// Rows of two inputs whose columns have the same types. Columns: those of the left input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetOperation {
    pub(crate) left: Arc<LogicalPlan>,
    pub(crate) right: Arc<LogicalPlan>,
    pub(crate) kind: SetKind,
    pub(crate) all: bool,
    /// Where the second query stands in the text.
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

impl SetOperation {
    /// The node over planned inputs.
    pub(crate) fn new(left: LogicalPlan, right: LogicalPlan, kind: SetKind, all: bool, at: At) -> Result<SetOperation> {
        let pairs = left.schema().iter().zip(right.schema().fields());
        let fields = pairs.map(|((table, field), other)| {
            // Also of EXCEPT: rows of both inputs are kept, in one form.
            let nullable = field.is_nullable() || other.is_nullable();
            (table.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), left.schema().metadata().clone())?;
        Ok(SetOperation { left: Arc::new(left), right: Arc::new(right), kind, all, at, schema: Arc::new(schema) })
    }
}

impl Hash for SetOperation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.left, &self.right, self.kind, self.all).hash(state);
    }
}

impl PartialOrd for SetOperation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SetOperation {
    fn name(&self) -> &str {
        "SetOperation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SetOperation: {}{}", self.kind.keyword(), if self.all { " ALL" } else { "" })
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = |_| DataFusionError::Internal("a set operation has two inputs".to_owned());
        let [left, right] = <[LogicalPlan; 2]>::try_from(inputs).map_err(wrong)?;
        SetOperation::new(left, right, self.kind, self.all, self.at)
    }
}
