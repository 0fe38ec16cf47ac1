//! Top-N to operators.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::expr::Sort;
use datafusion_expr::{Expr as LogicalExpr, LogicalPlan};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{NamedExpr, Operator, OperatorKind, Rank, RankFunction};

use super::sort::sort_key;
use super::{Lowering, Stream, changes};
use crate::error::{At, SqlError};
use crate::order::TopN;
use crate::time_attribute::has_processing_time_windows;
use crate::window::node::{downcast, positions};

/// Why an operator by arrival needs a stream of inserts.
const BY_ARRIVAL: &str = "an order by processing time needs rows that never change, and";

impl Lowering {
    /// `number_is_read`: whether whoever takes the rows reads their number.
    pub(super) fn top_n(&mut self, node: &TopN, number_is_read: bool) -> Result<Stream, SqlError> {
        let at = node.at.or(self.at);
        let input = self.whole_input(&node.input)?;
        let exprs: Vec<&LogicalExpr> =
            node.partition.iter().chain(node.order.iter().map(|sort: &Sort| &sort.expr)).collect();
        let (input, columns) = self.with_columns(input, node.input.schema(), &exprs)?;
        let (partition, order) = columns.split_at(node.partition.len());
        let input_retracts = self.graph.node(input).op.changes != ChangeMode::Append;
        if input_retracts && node.order.is_empty() {
            let message = format!("{BY_ARRIVAL} '{}' changes rows that it gave before", self.origin_of_updates(input));
            return Err(SqlError::unsupported(at, message));
        }
        // Rows that change are ranked as they come, whatever window they carry.
        let window_end = node.window_end.filter(|_| !input_retracts);
        if window_end.is_some() && has_processing_time_windows(&node.input) {
            let message = "ranks within windows of processing time are not supported; use windows of event time";
            return Err(SqlError::unsupported(at, message));
        }
        let order = node.order.iter().zip(order).map(|(sort, column)| sort_key(sort, *column));
        let rank = Rank {
            function: node.function,
            order: order.collect(),
            newest_first: node.newest_first,
            from: node.from,
            to: node.to,
            rank_column: number_is_read,
            input_schema: self.graph.node(input).op.schema.clone(),
            input_retracts,
            input_unique: changes::unique_key(&self.graph, input),
            window_end: window_end.map(|nth| partition[nth]),
            ttl_ms: self.ttl_of(&node.input),
            partition: partition.to_vec(),
        };
        let operator = self.rank(rank, input, at)?;
        let width = node.input.schema().fields().len();
        let ranked = self.whole(operator).columns.len() - 1;
        // Nobody reads the number if there is none.
        Ok(Stream { operator, columns: (0..width).chain([if number_is_read { ranked } else { 0 }]).collect() })
    }

    /// Adds the operator.
    pub(super) fn rank(&mut self, rank: Rank, input: OperatorId, at: At) -> Result<OperatorId, SqlError> {
        let mut fields: Vec<Arc<Field>> = rank.input_schema.fields().iter().cloned().collect();
        if rank.rank_column {
            let mut name = rank.function.name().to_lowercase();
            while rank.input_schema.index_of(&name).is_ok() {
                name.push('_');
            }
            fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
        }
        let name = match (rank.from, rank.to) {
            (1, 1) if rank.function == RankFunction::RowNumber => "first of each".to_owned(),
            (1, to) => format!("top {to}"),
            (from, to) => format!("top {from} to {to}"),
        };
        let keys = rank.partition.clone();
        let op = Operator::new(Arc::new(Schema::new(fields)), OperatorKind::Rank(rank));
        self.add(&name, op, &[(input, Exchange::Hash { keys })]).map_err(|error| error.or_at(at))
    }

    /// The operator with a column for each of the expressions, and where these are.
    pub(super) fn with_columns(
        &mut self,
        input: OperatorId,
        schema: &DFSchema,
        exprs: &[&LogicalExpr],
    ) -> Result<(OperatorId, Vec<usize>), SqlError> {
        let base = self.whole(input);
        let given = self.graph.node(input).op.schema.clone();
        let mut project = self.columns_as_exprs(&base, &given);
        let mut fields: Vec<Arc<Field>> = given.fields().iter().cloned().collect();
        let mut columns = Vec::new();
        for expr in exprs {
            let lowered = self.expr(expr, schema, &base)?;
            if let Some(known) = project.iter().position(|named| named.expr == lowered) {
                columns.push(known);
                continue;
            }
            let (data_type, nullable) = type_of(expr, schema, self)?;
            let name = format!("__column_{}", project.len());
            fields.push(Arc::new(Field::new(&name, data_type, nullable)));
            columns.push(project.len());
            project.push(NamedExpr { name, expr: lowered });
        }
        if project.len() == given.fields().len() {
            return Ok((input, columns));
        }
        let operator = self.calc(&base, None, Some(project), Arc::new(Schema::new(fields)))?;
        Ok((operator, columns))
    }

    /// The input of a projection or filter, if it is a Top-N whose number the given expressions do not read.
    pub(super) fn lower_unnumbered(
        &mut self,
        input: &LogicalPlan,
        readers: &[&LogicalExpr],
    ) -> Result<Option<Stream>, SqlError> {
        let Some(node) = downcast::<TopN>(input) else { return Ok(None) };
        let reads = positions(readers.iter().copied(), &node.schema).contains(&node.number_position());
        self.top_n(node, reads).map(Some)
    }
}

fn type_of(expr: &LogicalExpr, schema: &DFSchema, lowering: &Lowering) -> Result<(DataType, bool), SqlError> {
    use datafusion_expr::ExprSchemable;
    let failed = |error| SqlError::from_datafusion(&error, lowering.at);
    let plain = |data_type: DataType| mainstem_plan::plain_schema(&Schema::new(vec![Field::new("c", data_type, true)]));
    let data_type = plain(expr.get_type(schema).map_err(failed)?).field(0).data_type().clone();
    Ok((data_type, expr.nullable(schema).map_err(failed)?))
}
