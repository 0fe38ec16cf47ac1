//! Window nodes to operators: assignment alone, or the two steps of a windowed aggregation with the exchange
//! between them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::LogicalPlan;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::operator::{NamedExpr, Operator, OperatorKind, SLICE_COLUMNS, WindowAggregate, WindowKind};

use super::{Lowering, Stream, arrow_schema};
use crate::error::SqlError;
use crate::window::node::{WindowAggregation, WindowTableFunction, Windows};

impl Lowering {
    pub(super) fn window_assign(&mut self, node: &WindowTableFunction) -> Result<Stream, SqlError> {
        if matches!(node.window, WindowKind::Session { .. }) {
            let message = "a SESSION window needs an aggregation right over it: GROUP BY window_start, window_end and the keys of its PARTITION BY, \
                           with nothing between that computes with the window's columns";
            return Err(SqlError::unsupported(node.at, message));
        }
        let input = self.whole_input(&node.input)?;
        let time = self.position(node.input.schema(), &node.time)?;
        if !node.processing_time {
            self.check_time(input, time, node.at)?;
        }
        let op =
            Operator::new(arrow_schema(&node.schema), OperatorKind::WindowAssign { window: node.window.clone(), time });
        let name = format!("{} windows", kind_name(&node.window));
        let operator = self.add(&name, op, &[(input, Exchange::Forward)])?;
        Ok(self.whole(operator))
    }

    pub(super) fn window_aggregate(&mut self, node: &WindowAggregation) -> Result<Stream, SqlError> {
        let input = self.whole_input(&node.input)?;
        let aggregate = self.aggregate(node, input)?;
        match aggregate.window {
            _ if node.processing_time => {}
            WindowKind::Attached { end, .. } => self.check_time(input, end, node.at)?,
            _ => self.check_time(input, aggregate.time, node.at)?,
        }
        let name = kind_name(&aggregate.window);
        let schema = self.partial_schema(&aggregate, node)?;
        let partial = Operator::new(schema, OperatorKind::WindowPartial(aggregate.clone()));
        let keys = (0..aggregate.keys.len()).collect();
        let first = self.add(&format!("{name} partial aggregate"), partial, &[(input, Exchange::Forward)])?;
        let last = Operator::new(final_schema(&aggregate, node), OperatorKind::WindowFinal(aggregate));
        let last = self.add(&format!("{name} aggregate"), last, &[(first, Exchange::Hash { keys })])?;
        Ok(self.whole(last))
    }

    pub(super) fn whole_input(&mut self, plan: &LogicalPlan) -> Result<OperatorId, SqlError> {
        self.outermost = false;
        let stream = self.lower(plan)?;
        self.materialize(stream, &arrow_schema(plan.schema()), false)
    }

    pub(super) fn position(&self, schema: &DFSchema, column: &Column) -> Result<usize, SqlError> {
        schema.index_of_column(column).map_err(|error| SqlError::from_datafusion(&error, self.at))
    }

    fn aggregate(&self, node: &WindowAggregation, input: OperatorId) -> Result<WindowAggregate, SqlError> {
        let schema = node.input.schema();
        let whole = self.whole(input);
        let (window, time) = match &node.windows {
            Windows::Assigned { window, time } => (window.clone(), self.position(schema, time)?),
            Windows::Attached { start, end } => {
                (WindowKind::Attached { start: self.position(schema, start)?, end: self.position(schema, end)? }, 0)
            }
        };
        let input_schema = self.graph.node(input).op.schema.clone();
        let mut names = Names::default();
        let mut keys = Vec::new();
        for key in &node.keys {
            let expr = self.expr(key, schema, &whole)?;
            let name = names.take(expr.display(&input_schema).to_string());
            keys.push(NamedExpr { name, expr });
        }
        let mut aggregates = Vec::new();
        for expr in &node.aggregates {
            let call = AggregateCall::from_logical(expr, schema, "");
            let mut call = call.map_err(|error| self.plan_error(&error))?;
            call.name = names.take(call.display(&input_schema));
            aggregates.push(call);
        }
        let first_property = keys.len() + aggregates.len();
        let properties = node.properties.iter().enumerate();
        let name = |index: usize| node.schema.field(first_property + index).name().clone();
        let properties = properties.map(|(index, property)| (names.take(name(index)), *property)).collect();
        let processing_time = node.processing_time;
        Ok(WindowAggregate {
            window,
            time,
            processing_time,
            keys,
            aggregates,
            properties,
            input_schema,
            late_output: false,
        })
    }

    fn partial_schema(&self, aggregate: &WindowAggregate, node: &WindowAggregation) -> Result<SchemaRef, SqlError> {
        let mut fields: Vec<Arc<Field>> = final_schema(aggregate, node).fields()[..aggregate.keys.len()].to_vec();
        let types = [DataType::Int64, DataType::Int64, DataType::Boolean];
        fields.extend(
            SLICE_COLUMNS.iter().zip(types).map(|(name, data_type)| Arc::new(Field::new(*name, data_type, false))),
        );
        for call in &aggregate.aggregates {
            let compiled = call.compile(&aggregate.input_schema, &EvalContext::default());
            fields.extend(
                compiled.and_then(|compiled| compiled.state_fields()).map_err(|error| self.plan_error(&error))?,
            );
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// The node's columns under the names that the operator gives them.
fn final_schema(aggregate: &WindowAggregate, node: &WindowAggregation) -> SchemaRef {
    let keys = aggregate.keys.iter().map(|key| &key.name);
    let calls = aggregate.aggregates.iter().map(|call| &call.name);
    let names = keys.chain(calls).chain(aggregate.properties.iter().map(|(name, _)| name));
    let typed = arrow_schema(&node.schema);
    let fields = typed.fields().iter().zip(names).map(|(field, name)| field.as_ref().clone().with_name(name));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Names of the columns of one operator: readable ones, and each only once.
#[derive(Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// The name, or one like it that is free.
    pub(super) fn take(&mut self, name: String) -> String {
        let mut free = name.clone();
        let mut number = 1;
        while self.0.contains(&free) {
            number += 1;
            free = format!("{name} {number}");
        }
        self.0.push(free.clone());
        free
    }
}

fn kind_name(window: &WindowKind) -> &'static str {
    match window {
        WindowKind::Tumble { .. } => "tumble",
        WindowKind::Hop { .. } => "hop",
        WindowKind::Cumulate { .. } => "cumulate",
        WindowKind::Session { .. } => "session",
        WindowKind::Attached { .. } => "window",
    }
}
