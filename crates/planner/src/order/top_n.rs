//! The logical node of a Top-N.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::{DFSchema, DFSchemaRef, Result, TableReference};
use datafusion_expr::expr::Sort;
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use mainstem_plan::operator::RankFunction;

use crate::error::At;
use crate::window::node::positions;

/// The rows of each partition whose number in an order lies in a range: the input's columns, then the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopN {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) function: RankFunction,
    pub(crate) partition: Vec<Expr>,
    /// Empty: by arrival.
    pub(crate) order: Vec<Sort>,
    /// By arrival: the last row is the first.
    pub(crate) newest_first: bool,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Which expression of the partition is the end of the window that the rows carry, if one is.
    pub(crate) window_end: Option<usize>,
    /// The number's qualifier and field.
    pub(crate) number: (Option<TableReference>, FieldRef),
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

impl TopN {
    /// The columns of an input, with the number.
    pub(super) fn output_schema(input: &DFSchema, number: &(Option<TableReference>, FieldRef)) -> Result<DFSchemaRef> {
        let mut fields: Vec<_> = input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.push(number.clone());
        Ok(Arc::new(DFSchema::new_with_metadata(fields, input.metadata().clone())?))
    }

    /// Position of the number in the output.
    pub(crate) fn number_position(&self) -> usize {
        self.schema.fields().len() - 1
    }
}

impl Hash for TopN {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.partition, &self.order, self.from, self.to).hash(state);
    }
}

impl PartialOrd for TopN {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for TopN {
    fn name(&self) -> &str {
        "TopN"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.partition.iter().cloned().chain(self.order.iter().map(|sort| sort.expr.clone())).collect()
    }

    /// Only a condition on the partition can be tested before rows are numbered.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_partition = |name: &str| {
            let mut same = self.schema.iter().filter(|(_, field)| field.name() == name);
            let Some(column) = same.next().map(Expr::from) else { return false };
            same.next().is_none() && self.partition.contains(&column)
        };
        let names = self.schema.fields().iter().map(|field| field.name());
        names.filter(|name| !is_partition(name)).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TopN: {:?} {} to {}", self.function, self.from, self.to)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let internal = |what: &str| datafusion_common::DataFusionError::Internal(what.to_owned());
        let input = inputs.pop().ok_or_else(|| internal("a Top-N has one input"))?;
        let mut exprs = exprs.into_iter();
        let partition = exprs.by_ref().take(self.partition.len()).collect();
        let order = self.order.iter().zip(exprs).map(|(sort, expr)| Sort { expr, ..sort.clone() }).collect();
        let schema = Self::output_schema(input.schema(), &self.number)?;
        Ok(TopN { input: Arc::new(input), partition, order, schema, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let mut needed = positions(&self.expressions(), input);
        needed.extend(output_columns.iter().copied().filter(|column| *column < input.fields().len()));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
