//! Aggregation without windows to operators: a projection to what is needed with the keys as columns, the exchange
//! by the keys, the aggregation; where it may, a first step of it before the exchange.

mod steps;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::{Aggregate, Expr as LogicalExpr, LogicalPlan};
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::OperatorId;
use mainstem_plan::aggregate::{AggregateCall, comparable};
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{GroupAggregate, NamedExpr, Operator, OperatorKind};
use mainstem_plan::{PlanError, sql_type_name};

pub(crate) use self::steps::Steps;
use super::window::Names;
use super::{Lowering, Stream, arrow_schema};
use crate::error::SqlError;

impl Lowering {
    /// `GROUP BY` without a window.
    pub(super) fn group_aggregate(&mut self, aggregate: &Aggregate) -> Result<Stream, SqlError> {
        let input = &aggregate.input;
        let output = arrow_schema(&aggregate.schema);
        self.aggregate_over(input, &aggregate.group_expr, &aggregate.aggr_expr, &output)
    }

    /// `SELECT DISTINCT`: all columns are keys.
    pub(super) fn distinct(&mut self, input: &LogicalPlan) -> Result<Stream, SqlError> {
        let keys: Vec<LogicalExpr> = input.schema().columns().into_iter().map(LogicalExpr::Column).collect();
        self.aggregate_over(input, &keys, &[], &arrow_schema(input.schema()))
    }

    fn aggregate_over(
        &mut self,
        input: &LogicalPlan,
        keys: &[LogicalExpr],
        calls: &[LogicalExpr],
        output: &SchemaRef,
    ) -> Result<Stream, SqlError> {
        let base = self.lower(input)?;
        let base_schema = self.graph.node(base.operator).op.schema.clone();
        let mut columns = Columns::default();
        for key in keys {
            let expr = self.expr(key, input.schema(), &base)?;
            columns.key(expr, &base_schema);
        }
        let aggregates = self.calls(calls, input.schema(), &base, &mut columns)?;
        let first_key = columns.keys.clone();
        let operator = self.columns_of(&base, columns, keys.len(), output)?;
        let mut spec = GroupAggregate {
            keys: first_key,
            aggregates,
            input_schema: self.graph.node(operator).op.schema.clone(),
            input_retracts: self.graph.node(operator).op.changes != ChangeMode::Append,
            ttl_ms: self.ttl_of(input),
            mini_batch_ms: self.mini_batch.map(|(latency, _)| latency),
            mini_batch_rows: self.mini_batch.and_then(|(_, rows)| rows),
            merges_partials: false,
        };
        self.name_calls(&mut spec);
        self.check(&spec)?;
        let (mut spec, operator) = match self.split_distinct(&spec, operator)? {
            Some((second, first)) => (second, first),
            None => (spec, operator),
        };
        let fields =
            output.fields().iter().enumerate().map(|(position, field)| match position.checked_sub(keys.len()) {
                Some(call) => field.as_ref().clone().with_name(&spec.aggregates[call].name),
                None => field.as_ref().clone().with_name(spec.input_schema.field(spec.keys[position]).name()),
            });
        let mut names = Names::default();
        let fields = fields.map(|field| {
            let name = names.take(field.name().clone());
            field.with_name(name)
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let name = match (spec.aggregates.is_empty(), spec.keys.is_empty()) {
            (true, _) => "distinct",
            (false, true) => "aggregate of all rows",
            (false, false) => "group aggregate",
        };
        let before = self.before(&mut spec, operator, name)?;
        let op = Operator::new(schema, OperatorKind::GroupAggregate(spec));
        let operator = self.add(name, op, &[before])?;
        Ok(self.whole(operator))
    }

    /// The calls over the columns that the aggregation is to get.
    fn calls(
        &self,
        calls: &[LogicalExpr],
        schema: &DFSchema,
        base: &Stream,
        columns: &mut Columns,
    ) -> Result<Vec<AggregateCall>, SqlError> {
        let base_schema = &self.graph.node(base.operator).op.schema;
        let mut converted = Vec::new();
        for call in calls {
            let call = AggregateCall::from_logical(call, schema, "");
            let mut call = call.map_err(|error| self.plan_error(&error))?;
            call.remap_columns(&|column| base.columns[column]);
            let read: Vec<(usize, usize)> =
                call.columns().into_iter().map(|column| (column, columns.column(column, base_schema))).collect();
            let position = |column: usize| read.iter().find(|(from, _)| *from == column).map_or(column, |(_, to)| *to);
            call.remap_columns(&position);
            converted.push(call);
        }
        Ok(converted)
    }

    /// The operator that gives just these columns of the input.
    fn columns_of(
        &mut self,
        base: &Stream,
        columns: Columns,
        keys: usize,
        output: &SchemaRef,
    ) -> Result<OperatorId, SqlError> {
        let base_schema = self.graph.node(base.operator).op.schema.clone();
        let chosen: Vec<Option<usize>> = columns
            .exprs
            .iter()
            .map(|named| if let Expr::Column(column) = named.expr { Some(column) } else { None })
            .collect();
        if chosen.iter().copied().eq((0..base_schema.fields().len()).map(Some)) {
            return Ok(base.operator);
        }
        let key_of = |position: usize| columns.keys[..keys].iter().position(|column| *column == position);
        let fields = columns.exprs.iter().enumerate().map(|(position, named)| {
            let field = match (chosen[position], key_of(position)) {
                (Some(column), _) => base_schema.field(column),
                (None, Some(key)) => output.field(key),
                (None, None) => return Err(self.internal("a column that is neither key nor argument".to_owned())),
            };
            Ok(field.clone().with_name(&named.name))
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Result<Vec<Field>, SqlError>>()?));
        self.calc(base, None, Some(columns.exprs), schema)
    }

    /// Names the calls by what they are.
    fn name_calls(&self, spec: &mut GroupAggregate) {
        let mut names = Names::default();
        for key in &spec.keys {
            names.take(spec.input_schema.field(*key).name().clone());
        }
        for call in &mut spec.aggregates {
            call.name = names.take(call.display(&spec.input_schema));
        }
    }

    /// What the engine could not run is refused here.
    fn check(&self, spec: &GroupAggregate) -> Result<(), SqlError> {
        for key in &spec.keys {
            let field = spec.input_schema.field(*key);
            if !comparable(std::slice::from_ref(field.data_type())) {
                let message = format!(
                    "rows cannot be grouped by '{}': values of type {} cannot be compared with each other; \
                     CAST it or use a field of it",
                    field.name(),
                    sql_type_name(field.data_type())
                );
                return Err(SqlError::unsupported(self.at, message));
            }
        }
        for call in &spec.aggregates {
            let compiled = call.compile(&spec.input_schema, &EvalContext::default());
            let form = compiled.and_then(|compiled| call.form(&compiled, &spec.input_schema, spec.input_retracts));
            form.map_err(|error: PlanError| self.plan_error(&error))?;
        }
        Ok(())
    }
}

/// The columns that an aggregation gets, each once.
#[derive(Default)]
struct Columns {
    exprs: Vec<NamedExpr>,
    names: Names,
    /// Position of each key.
    keys: Vec<usize>,
}

impl Columns {
    fn key(&mut self, expr: Expr, base: &Schema) {
        let position = self.position(expr, base);
        self.keys.push(position);
    }

    fn column(&mut self, column: usize, base: &Schema) -> usize {
        self.position(Expr::Column(column), base)
    }

    fn position(&mut self, expr: Expr, base: &Schema) -> usize {
        if let Some(known) = self.exprs.iter().position(|named| named.expr == expr) {
            return known;
        }
        let name = match &expr {
            Expr::Column(column) => base.field(*column).name().clone(),
            computed => computed.display(base).to_string(),
        };
        self.exprs.push(NamedExpr { name: self.names.take(name), expr });
        self.exprs.len() - 1
    }
}
