//! In how many steps an aggregation without a window runs: a step before the exchange that adds up each batch by key, so
//! that a hot key is not the work of one subtask, and one that finds the distinct values of a key, so that they are not
//! all kept by one. Either only where the result is exactly the same.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::PlanError;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{GroupAggregate, Operator, OperatorKind};

use super::super::Lowering;
use super::super::window::Names;
use crate::error::SqlError;

/// What the settings say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    phases: Phases,
    split_distinct: bool,
}

/// `table.optimizer.agg-phase-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phases {
    /// In two where the result is the same; the first only while it pays.
    #[default]
    Auto,
    /// In one.
    One,
    /// In two where the result is the same.
    Two,
}

impl Steps {
    /// Of settings, whose values have been checked.
    pub(crate) fn of<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Steps {
        let is = |key: &str, word: &str| setting(key).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
        let strategy = "table.optimizer.agg-phase-strategy";
        let phases = match () {
            () if is(strategy, "ONE_PHASE") => Phases::One,
            () if is(strategy, "TWO_PHASE") => Phases::Two,
            () => Phases::Auto,
        };
        Steps { phases, split_distinct: is("table.optimizer.distinct-agg.split.enabled", "true") }
    }
}

impl Lowering {
    /// The step before the exchange, where there may be one: all calls can be put together of parts, to exactly what they
    /// would be.
    fn first_step(
        &mut self,
        spec: &GroupAggregate,
        input: OperatorId,
        name: &str,
    ) -> Result<Option<OperatorId>, SqlError> {
        if self.steps.phases == Phases::One || spec.input_retracts {
            return Ok(None);
        }
        let mut fields: Vec<Field> = spec.keys.iter().map(|key| spec.input_schema.field(*key).clone()).collect();
        let mut names = Names::default();
        for field in &mut fields {
            *field = field.clone().with_name(names.take(field.name().clone()));
        }
        for call in &spec.aggregates {
            let compiled = call.compile(&spec.input_schema, &EvalContext::default());
            let types = compiled.and_then(|compiled| call.partial_types(&compiled, &spec.input_schema));
            let Some(types) = types.map_err(|error: PlanError| self.plan_error(&error))? else { return Ok(None) };
            fields.extend(types.into_iter().map(|of| Field::new(names.take(call.name.clone()), of, true)));
        }
        // What concerns the second step alone must not keep two of the same first steps apart.
        let aggregate = GroupAggregate { ttl_ms: None, mini_batch_ms: None, mini_batch_rows: None, ..spec.clone() };
        let kind = OperatorKind::GroupPartial { aggregate, adaptive: self.steps.phases == Phases::Auto };
        let op = Operator::new(Arc::new(Schema::new(fields)), kind);
        self.add(&format!("partial {name}"), op, &[(input, Exchange::Forward)]).map(Some)
    }

    /// What an aggregation takes its rows from, and how.
    pub(super) fn before(
        &mut self,
        spec: &mut GroupAggregate,
        input: OperatorId,
        name: &str,
    ) -> Result<(OperatorId, Exchange), SqlError> {
        Ok(match self.first_step(spec, input, name)? {
            Some(first) => {
                spec.merges_partials = true;
                (first, Exchange::Hash { keys: (0..spec.keys.len()).collect() })
            }
            None => (input, Exchange::Hash { keys: spec.keys.clone() }),
        })
    }

    /// An aggregation with DISTINCT as two: the first has the value as one more key, so that the values of a key are
    /// spread over all subtasks and each is there once; the second adds up what the first gives. Gives the second, and the
    /// operator of the first. Only where all DISTINCT calls are over one column, and state is kept for ever: a value that
    /// has not come for long would be forgotten alone, and counted again when it comes.
    pub(super) fn split_distinct(
        &mut self,
        spec: &GroupAggregate,
        input: OperatorId,
    ) -> Result<Option<(GroupAggregate, OperatorId)>, SqlError> {
        let Some(value) = spec.aggregates.iter().find(|call| call.distinct).and_then(distinct_column) else {
            return Ok(None);
        };
        let may = !spec.input_retracts && spec.ttl_ms.is_none() && !spec.keys.contains(&value);
        if !self.steps.split_distinct || !may {
            return Ok(None);
        }
        let (values, others): (Vec<&AggregateCall>, _) = spec.aggregates.iter().partition(|call| call.distinct);
        if spec.aggregates.iter().any(|call| !call.order_by.is_empty())
            || values.iter().any(|call| distinct_column(call) != Some(value) || call.filter.is_some())
            || others.iter().any(|call| again(call, 0).is_none())
        {
            return Ok(None);
        }
        let width = spec.keys.len() + 1;
        let mut first = GroupAggregate {
            keys: spec.keys.iter().copied().chain([value]).collect(),
            aggregates: others.into_iter().cloned().collect(),
            ..spec.clone()
        };
        if first.aggregates.is_empty() {
            // What it gives is never taken back: nothing becomes less by holding it.
            (first.mini_batch_ms, first.mini_batch_rows) = (None, None);
        }
        let mut names = Names::default();
        let mut fields: Vec<Field> = Vec::new();
        for key in &first.keys {
            let field = first.input_schema.field(*key).clone();
            fields.push(field.clone().with_name(names.take(field.name().clone())));
        }
        for call in &first.aggregates {
            let compiled = self.compiled(call, &first.input_schema)?;
            fields.push(compiled.as_ref().clone().with_name(names.take(call.name.clone())));
        }
        let schema = Arc::new(Schema::new(fields));
        let mut position = width;
        let mut calls = Vec::new();
        for call in &spec.aggregates {
            let mut call_again = match call.distinct {
                true => AggregateCall { args: vec![Expr::Column(width - 1)], distinct: false, ..call.clone() },
                false => {
                    position += 1;
                    again(call, position - 1).expect("looked at before")
                }
            };
            // A sum of sums may have more digits than the sum; one of floats depends on the order.
            let (was, is) = (self.compiled(call, &spec.input_schema)?, self.compiled(&call_again, &schema)?);
            let rounds = was.data_type().is_floating() && !["min", "max"].contains(&call.function.as_str());
            if was.data_type() != is.data_type() || rounds {
                return Ok(None);
            }
            call_again.name = call.name.clone();
            calls.push(call_again);
        }
        let name = if first.aggregates.is_empty() { "distinct" } else { "group aggregate by value" };
        let before = self.before(&mut first, input, name)?;
        let op = Operator::new(schema.clone(), OperatorKind::GroupAggregate(first));
        let operator = self.add(name, op, &[before])?;
        let second = GroupAggregate {
            keys: (0..spec.keys.len()).collect(),
            aggregates: calls,
            input_schema: schema,
            input_retracts: self.graph.node(operator).op.changes != ChangeMode::Append,
            ..spec.clone()
        };
        Ok(Some((second, operator)))
    }

    fn compiled(&self, call: &AggregateCall, input: &SchemaRef) -> Result<Arc<Field>, SqlError> {
        let compiled = call.compile(input, &EvalContext::default());
        compiled.map(|compiled| compiled.output_field()).map_err(|error: PlanError| self.plan_error(&error))
    }
}

/// The column whose distinct values a call is over.
fn distinct_column(call: &AggregateCall) -> Option<usize> {
    match call.args.as_slice() {
        [Expr::Column(column)] if ["count", "sum", "avg"].contains(&call.function.as_str()) => Some(*column),
        _ => None,
    }
}

/// The call that puts results of this one together, which stand in a column.
fn again(call: &AggregateCall, column: usize) -> Option<AggregateCall> {
    let function = match call.function.as_str() {
        "count" | "sum" => "sum",
        "min" => "min",
        "max" => "max",
        _ => return None,
    };
    let args = vec![Expr::Column(column)];
    Some(AggregateCall { function: function.to_owned(), args, filter: None, ..call.clone() })
}
