//! A relation whose rows are kept for a while only, as a hint says.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{DFSchemaRef, DataFusionError, Result};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::hint;

/// The rows of its input, for which the first operator that keeps them has a time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateTtl {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) ttl: hint::StateTtl,
}

impl Hash for StateTtl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.ttl.relation, self.ttl.ttl_ms).hash(state);
    }
}

impl PartialOrd for StateTtl {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for StateTtl {
    fn name(&self) -> &str {
        "StateTtl"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StateTtl: {} ms", self.ttl.ttl_ms)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = |_| DataFusionError::Internal("a time to live has one input".to_owned());
        let [input] = <[LogicalPlan; 1]>::try_from(inputs).map_err(wrong)?;
        Ok(StateTtl { input: Arc::new(input), ttl: self.ttl.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}
