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
        let op = Operator { schema: arrow_schema(&node.schema), kind: OperatorKind::WindowAssign { window: node.window.clone(), time } };
        let name = format!("{} windows", kind_name(&node.window));
        let operator = self.add(&name, op, &[(input, Exchange::Forward)])?;
        Ok(self.whole(operator))
    }

    pub(super) fn window_aggregate(&mut self, node: &WindowAggregation) -> Result<Stream, SqlError> {
        let input = self.whole_input(&node.input)?;
        let aggregate = self.aggregate(node, input)?;
        let name = kind_name(&aggregate.window);
        let schema = self.partial_schema(&aggregate, node)?;
        let partial = Operator { schema, kind: OperatorKind::WindowPartial(aggregate.clone()) };
        let keys = (0..aggregate.keys.len()).collect();
        let first = self.add(&format!("{name} partial aggregate"), partial, &[(input, Exchange::Forward)])?;
        let last = Operator { schema: arrow_schema(&node.schema), kind: OperatorKind::WindowFinal(aggregate) };
        let last = self.add(&format!("{name} aggregate"), last, &[(first, Exchange::Hash { keys })])?;
        Ok(self.whole(last))
    }

    fn whole_input(&mut self, plan: &LogicalPlan) -> Result<OperatorId, SqlError> {
        let stream = self.lower(plan)?;
        self.materialize(stream, &arrow_schema(plan.schema()), false)
    }

    fn position(&self, schema: &DFSchema, column: &Column) -> Result<usize, SqlError> {
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
        let name = |index: usize| node.schema.field(index).name().clone();
        let mut keys = Vec::new();
        for (index, key) in node.keys.iter().enumerate() {
            keys.push(NamedExpr { name: name(index), expr: self.expr(key, schema, &whole)? });
        }
        let mut aggregates = Vec::new();
        for (index, expr) in node.aggregates.iter().enumerate() {
            let expr = expr.clone().unalias();
            let call = AggregateCall::from_logical(&expr, schema, name(keys.len() + index));
            aggregates.push(call.map_err(|error| self.plan_error(&error))?);
        }
        let first_property = keys.len() + aggregates.len();
        let properties = node.properties.iter().enumerate().map(|(index, property)| (name(first_property + index), *property));
        let properties = properties.collect();
        let input_schema = self.graph.node(input).op.schema.clone();
        Ok(WindowAggregate { window, time, keys, aggregates, properties, input_schema, late_output: false })
    }

    fn partial_schema(&self, aggregate: &WindowAggregate, node: &WindowAggregation) -> Result<SchemaRef, SqlError> {
        let output = arrow_schema(&node.schema);
        let mut fields: Vec<Arc<Field>> = output.fields()[..aggregate.keys.len()].to_vec();
        let types = [DataType::Int64, DataType::Int64, DataType::Boolean];
        fields.extend(SLICE_COLUMNS.iter().zip(types).map(|(name, data_type)| Arc::new(Field::new(*name, data_type, false))));
        for call in &aggregate.aggregates {
            let compiled = call.compile(&aggregate.input_schema, &EvalContext::default());
            fields.extend(compiled.and_then(|compiled| compiled.state_fields()).map_err(|error| self.plan_error(&error))?);
        }
        Ok(Arc::new(Schema::new(fields)))
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
