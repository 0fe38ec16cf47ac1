//! The logical plan nodes of windows. Made while a query is planned, carried through the optimiser, read by
//! the lowering. Expressions name columns of the input, never positions, because the optimiser removes
//! columns below.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use mainstem_plan::operator::{WindowKind, WindowProperty};

use crate::error::At;

/// `TABLE(TUMBLE(...))`: the input's columns, then start, end and time of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowTableFunction {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) window: WindowKind,
    pub(crate) time: Column,
    /// Whether the time is processing time.
    pub(crate) processing_time: bool,
    /// `PARTITION BY` of a session window.
    pub(crate) partition_by: Vec<Column>,
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

/// A windowed aggregation: keys, aggregates, then properties of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowAggregation {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) windows: Windows,
    /// Whether the windows are over processing time.
    pub(crate) processing_time: bool,
    pub(crate) keys: Vec<Expr>,
    pub(crate) aggregates: Vec<Expr>,
    pub(crate) properties: Vec<WindowProperty>,
    /// Name of the struct column that stands for the window in the query, if it has one.
    pub(crate) struct_column: Option<String>,
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

/// Where the windows of an aggregation come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    /// From the event time of each row.
    Assigned { window: WindowKind, time: Column },
    /// The rows carry them.
    Attached { start: Column, end: Column },
}

/// A node as a plan.
pub(crate) fn extension(node: impl UserDefinedLogicalNodeCore) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(node) })
}

/// The node, if the plan is one of that type.
pub(crate) fn downcast<T: UserDefinedLogicalNodeCore>(plan: &LogicalPlan) -> Option<&T> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// Positions of the columns that the expressions read.
pub(crate) fn positions<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> Vec<usize> {
    let mut found = HashSet::new();
    for expr in exprs {
        expr.apply(|expr| {
            if let Expr::Column(column) = expr
                && let Some(index) = schema.maybe_index_of_column(column)
            {
                found.insert(index);
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .expect("the visitor never fails");
    }
    let mut found: Vec<usize> = found.into_iter().collect();
    found.sort_unstable();
    found
}

/// The column that an expression is, whatever the optimiser called it.
pub(crate) fn column(expr: Expr) -> Result<Column> {
    match expr {
        Expr::Column(column) => Ok(column),
        Expr::Alias(alias) => column(*alias.expr),
        other => Err(datafusion_common::DataFusionError::Internal(format!(
            "the optimiser made {other} of a window's column"
        ))),
    }
}

/// Takes the only input.
fn only(mut inputs: Vec<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    match (inputs.pop(), inputs.is_empty()) {
        (Some(input), true) => Ok(Arc::new(input)),
        _ => Err(datafusion_common::DataFusionError::Internal("a window node has one input".to_owned())),
    }
}

impl WindowTableFunction {
    /// The columns of an input with those of the window.
    pub(crate) fn output_schema(input: &DFSchema) -> Result<DFSchemaRef> {
        let window = [super::WINDOW_START, super::WINDOW_END, super::WINDOW_TIME];
        let added = window.map(|name| arrow::datatypes::Field::new(name, super::marker::window_timestamp(), false));
        let mut fields: Vec<_> = input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.extend(added.into_iter().map(|field| (None, Arc::new(field))));
        Ok(Arc::new(DFSchema::new_with_metadata(fields, input.metadata().clone())?))
    }
}

impl Hash for WindowTableFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.time, &self.partition_by).hash(state);
    }
}

impl PartialOrd for WindowTableFunction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowTableFunction {
    fn name(&self) -> &str {
        "WindowTableFunction"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.partition_by).cloned().map(Expr::Column).collect()
    }

    /// A condition on the window cannot be tested before the window is there.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        [super::WINDOW_START, super::WINDOW_END, super::WINDOW_TIME].map(str::to_owned).into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowTableFunction: {:?} on {}", self.window, self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut columns = exprs.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let input = only(inputs)?;
        let time = columns.remove(0);
        let schema = Self::output_schema(input.schema())?;
        Ok(WindowTableFunction { input, time, partition_by: columns, schema, ..self.clone() })
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

impl Hash for WindowAggregation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.keys, &self.aggregates).hash(state);
    }
}

impl PartialOrd for WindowAggregation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowAggregation {
    fn name(&self) -> &str {
        "WindowAggregation"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let windows = match &self.windows {
            Windows::Assigned { time, .. } => vec![time.clone()],
            Windows::Attached { start, end } => vec![start.clone(), end.clone()],
        };
        let windows = windows.into_iter().map(Expr::Column);
        windows.chain(self.keys.iter().cloned()).chain(self.aggregates.iter().cloned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "WindowAggregation: {:?}, {} keys, {} aggregates",
            self.windows,
            self.keys.len(),
            self.aggregates.len()
        )
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut next = || column(exprs.next().expect("as many expressions as were given out"));
        let windows = match &self.windows {
            Windows::Assigned { window, .. } => Windows::Assigned { window: window.clone(), time: next()? },
            Windows::Attached { .. } => Windows::Attached { start: next()?, end: next()? },
        };
        let keys = exprs.by_ref().take(self.keys.len()).collect();
        let aggregates = exprs.collect();
        Ok(WindowAggregation { input: only(inputs)?, windows, keys, aggregates, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![positions(&self.expressions(), self.input.schema())])
    }
}
