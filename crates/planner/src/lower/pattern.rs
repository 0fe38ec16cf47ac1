//! MATCH_RECOGNIZE to its operator.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::{
    MatchEnd, NamedExpr, Operator, OperatorKind, PatternMatch, PatternVariable, Reference, SortKey,
};

use super::relation::distinct_names;
use super::{Lowering, Stream, arrow_schema};
use crate::error::SqlError;
use crate::node;

impl Lowering {
    pub(super) fn pattern_match(&mut self, node: &node::PatternMatch) -> Result<Stream, SqlError> {
        let statement = std::mem::replace(&mut self.at, node.at);
        let lowered = self.matches_of(node);
        self.at = statement;
        lowered
    }

    fn matches_of(&mut self, node: &node::PatternMatch) -> Result<Stream, SqlError> {
        let input = self.whole_input(&node.input)?;
        let schema = node.input.schema();
        let input_schema = self.graph.node(input).op.schema.clone();
        let partition: Vec<usize> =
            node.partition.iter().map(|column| self.position(schema, column)).collect::<Result<_, _>>()?;
        let mut order = Vec::new();
        for key in &node.order {
            let column = self.position(schema, &key.column)?;
            order.push(SortKey { column, descending: key.descending, nulls_first: key.nulls_first });
        }
        self.check_time(input, order[0].column, node.at)?;
        let references = self.references(node, input)?;
        let rules = &node.rules;
        let variable = |(position, (name, condition)): (usize, &(String, Option<Expr>))| {
            let (row_condition, match_condition) = match condition {
                Some(condition) => split(condition, position, &references),
                None => (None, None),
            };
            PatternVariable { name: name.clone(), row_condition, match_condition }
        };
        let variables = rules.variables.iter().enumerate().map(variable).collect();
        let measure =
            |measure: &node::Measure| NamedExpr { name: measure.field.name().clone(), expr: measure.expr.clone() };
        let spec = PatternMatch {
            partition: partition.clone(),
            order,
            variables,
            elements: rules.elements.clone(),
            reference_schema: reference_schema(node, &references),
            references,
            measures: rules.measures.iter().map(measure).collect(),
            skip: rules.skip,
            within_ms: rules.within_ms,
            input_schema,
        };
        let output = distinct_names(&arrow_schema(&node.schema));
        let op = Operator::new(output, OperatorKind::PatternMatch(spec));
        let operator = self.add("match", op, &[(input, Exchange::Hash { keys: partition })])?;
        Ok(self.whole(operator))
    }

    fn references(&self, node: &node::PatternMatch, input: OperatorId) -> Result<Vec<Reference>, SqlError> {
        let schema = node.input.schema();
        let whole = self.whole(input);
        let mut references = Vec::new();
        for (position, reference) in node.references.iter().enumerate() {
            let variable = reference.variable;
            references.push(match reference.row {
                Some((from, offset)) => match self.expr(&reference.expr, schema, &whole)? {
                    Expr::Column(column) => Reference::Column { variable, from, offset, column },
                    _ => return Err(self.internal(format!("'{}' is no column", reference.expr))),
                },
                None => {
                    let name = node.rules.reference_schema.field(position).name().clone();
                    let call = AggregateCall::from_logical(&reference.expr, schema, name);
                    Reference::Aggregate { variable, call: call.map_err(|error| self.plan_error(&error))? }
                }
            });
        }
        Ok(references)
    }
}

/// Columns of references, in plain types. The names are those by which the expressions were planned.
fn reference_schema(node: &node::PatternMatch, references: &[Reference]) -> Arc<Schema> {
    debug_assert_eq!(node.rules.reference_schema.fields().len(), references.len());
    let fields: Vec<Arc<Field>> = arrow_schema(&node.rules.reference_schema).fields().iter().cloned().collect();
    Arc::new(Schema::new(fields))
}

/// Splits the condition of a variable into what it asks of the row alone, over the input, and the rest.
fn split(condition: &Expr, variable: usize, references: &[Reference]) -> (Option<Expr>, Option<Expr>) {
    let own = |reference: usize| match &references[reference] {
        Reference::Column { variable: of, from: MatchEnd::Last, offset: 0, column }
            if of.is_none_or(|of| of == variable) =>
        {
            Some(*column)
        }
        _ => None,
    };
    let (mut row, mut rest) = (None, None);
    for conjunct in conjuncts(condition) {
        if conjunct.columns().into_iter().all(|reference| own(reference).is_some()) {
            let mut conjunct = conjunct.clone();
            conjunct.remap_columns(&|reference| own(reference).unwrap_or(reference));
            row = Some(and(row, conjunct));
        } else {
            rest = Some(and(rest, conjunct.clone()));
        }
    }
    (row, rest)
}

fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Binary { left, op: BinaryOperator::And, right } => [conjuncts(left), conjuncts(right)].concat(),
        other => vec![other],
    }
}

fn and(left: Option<Expr>, right: Expr) -> Expr {
    match left {
        Some(left) => Expr::Binary { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) },
        None => right,
    }
}
