//! `MATCH_RECOGNIZE`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use mainstem_plan::expr as plan;
use mainstem_plan::operator::{AfterMatch, MatchEnd, PatternElement};

use crate::error::At;
use crate::window::node::{column, positions};

/// A row for each match of a pattern. Columns: those of the partition, then the measures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PatternMatch {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) partition: Vec<Column>,
    /// The first is the event time.
    pub(crate) order: Vec<OrderColumn>,
    /// What conditions and measures read.
    pub(crate) references: Vec<Reference>,
    pub(crate) rules: Arc<MatchRules>,
    /// Where the clause stands in the text.
    pub(crate) at: At,
    pub(crate) schema: DFSchemaRef,
}

/// A column of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderColumn {
    pub(crate) column: Column,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// What is read of the rows of a variable (by position), or of all rows of a match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) variable: Option<usize>,
    /// Of which row; absent: an aggregate over them.
    pub(crate) row: Option<(MatchEnd, u32)>,
    /// A column of the input, or an aggregate over its columns.
    pub(crate) expr: Expr,
}

/// What does not name columns of the input: expressions are over the references.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MatchRules {
    pub(crate) variables: Vec<(String, Option<plan::Expr>)>,
    pub(crate) elements: Vec<PatternElement>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) skip: AfterMatch,
    pub(crate) within_ms: Option<i64>,
    /// One column for each reference.
    pub(crate) reference_schema: DFSchemaRef,
}

/// A column that a match gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measure {
    pub(crate) field: Field,
    pub(crate) expr: plan::Expr,
    /// Whether it is the event time of the match's last row, which is the event time of the match.
    pub(crate) is_time: bool,
}

impl PatternMatch {
    /// The node over a planned input.
    pub(crate) fn new(
        input: LogicalPlan,
        partition: Vec<Column>,
        order: Vec<OrderColumn>,
        references: Vec<Reference>,
        rules: Arc<MatchRules>,
        at: At,
    ) -> Result<PatternMatch> {
        let mut fields = Vec::new();
        for column in &partition {
            let (table, field) = input.schema().qualified_field(input.schema().index_of_column(column)?);
            fields.push((table.cloned(), field.clone()));
        }
        fields.extend(rules.measures.iter().map(|measure| (None, Arc::new(measure.field.clone()))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(PatternMatch { input: Arc::new(input), partition, order, references, rules, at, schema })
    }
}

impl Eq for PatternMatch {}

impl Hash for PatternMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.partition, &self.references, self.rules.measures.len()).hash(state);
    }
}

impl PartialOrd for PatternMatch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for PatternMatch {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = self.partition.iter().chain(self.order.iter().map(|order| &order.column));
        let columns = columns.cloned().map(Expr::Column);
        columns.chain(self.references.iter().map(|reference| reference.expr.clone())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "MatchRecognize: {} variables", self.rules.variables.len())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = || DataFusionError::Internal("MATCH_RECOGNIZE has one input and as many expressions".to_owned());
        let input = inputs.pop().ok_or_else(wrong)?;
        let mut exprs = exprs.into_iter();
        let mut next = || exprs.next().ok_or_else(wrong);
        let partition = self.partition.iter().map(|_| column(next()?)).collect::<Result<_>>()?;
        let mut order = self.order.clone();
        for key in &mut order {
            key.column = column(next()?)?;
        }
        let mut references = self.references.clone();
        for reference in &mut references {
            reference.expr = next()?;
        }
        PatternMatch::new(input, partition, order, references, self.rules.clone(), self.at)
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![positions(&self.expressions(), self.input.schema())])
    }
}
