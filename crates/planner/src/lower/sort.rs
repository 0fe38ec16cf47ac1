//! ORDER BY and LIMIT to operators.

use std::sync::Arc;

use datafusion_expr::expr::Sort as SortExpr;
use datafusion_expr::{Expr as LogicalExpr, FetchType, Limit, LogicalPlan, Projection, SkipType, Sort};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{Operator, OperatorKind, Rank, RankFunction, Sort as SortOperator, SortKey};

use super::{Lowering, Stream, changes};
use crate::error::{At, ErrorCode, SqlError};
use crate::order::place_in;
use crate::time_attribute::{of_expr, roles};

/// How many rows LIMIT and OFFSET leave out and let pass.
#[derive(Clone, Copy, Debug)]
struct Range {
    offset: u64,
    limit: Option<u64>,
}

impl Lowering {
    /// ORDER BY without LIMIT. `outermost`: whether the rows leave the job in this order.
    pub(super) fn sort(&mut self, sort: &Sort, outermost: bool) -> Result<Stream, SqlError> {
        if !outermost {
            let message = "ORDER BY in a sub-query orders nothing, because what follows does not keep an order; take it out, or add LIMIT";
            return Err(SqlError::unsupported(self.place(&sort.expr), message));
        }
        let mut range = Range { offset: 0, limit: None };
        if let Some(fetch) = sort.fetch {
            range.limit = Some(fetch as u64);
        }
        self.sorted(sort, range, false)
    }

    /// LIMIT and OFFSET.
    pub(super) fn limit(&mut self, limit: &Limit, outermost: bool) -> Result<Stream, SqlError> {
        let range = self.range(limit)?;
        match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => self.sorted(sort, range, !outermost),
            // The projection takes out columns that only ORDER BY needed.
            LogicalPlan::Projection(projection) if is_sorted(&projection.input) => {
                let below = Limit { input: projection.input.clone(), ..limit.clone() };
                let below = Arc::new(LogicalPlan::Limit(below));
                let above = Projection::try_new(projection.expr.clone(), below);
                let above = above.map_err(|error| SqlError::from_datafusion(&error, self.at))?;
                self.outermost = outermost;
                self.projection(&above, None)
            }
            other => {
                let input = self.whole_input(other)?;
                self.top(input, Vec::new(), range, self.at)
            }
        }
    }

    fn range(&self, limit: &Limit) -> Result<Range, SqlError> {
        let wrong = |message: &str| Err(SqlError::unsupported(self.at, message));
        let failed = |error| SqlError::from_datafusion(&error, self.at);
        let not_constant = "LIMIT and OFFSET take constant numbers";
        let offset = match limit.get_skip_type().map_err(failed)? {
            SkipType::Literal(offset) => offset as u64,
            SkipType::UnsupportedExpr => return wrong(not_constant),
        };
        let limit = match limit.get_fetch_type().map_err(failed)? {
            FetchType::Literal(limit) => limit.map(|limit| limit as u64),
            FetchType::UnsupportedExpr => return wrong(not_constant),
        };
        if limit == Some(0) {
            return Err(SqlError::new(ErrorCode::Type, self.at, "LIMIT 0 leaves no row"));
        }
        Ok(Range { offset, limit })
    }

    /// Rows of a range in an order. `inside`: what follows only needs to know which rows these are.
    fn sorted(&mut self, sort: &Sort, range: Range, inside: bool) -> Result<Stream, SqlError> {
        let at = self.place(&sort.expr);
        let schema = sort.input.schema().clone();
        let input_roles = roles(&sort.input);
        let leading = sort.expr.first();
        let by_event_time = leading
            .is_some_and(|leading| leading.asc && of_expr(&leading.expr, &sort.input, &input_roles).is_event_time());
        let input = self.whole_input(&sort.input)?;
        let width = schema.fields().len();
        let exprs: Vec<&LogicalExpr> = sort.expr.iter().map(|sort| &sort.expr).collect();
        let (input, columns) = self.with_columns(input, &schema, &exprs)?;
        let order: Vec<SortKey> = sort.expr.iter().zip(columns).map(|(sort, column)| sort_key(sort, column)).collect();
        let input_retracts = self.graph.node(input).op.changes != ChangeMode::Append;
        let by_event_time = by_event_time && !input_retracts;
        let unbounded = self.unbounded_source(input);
        let stream = match (&unbounded, range.limit) {
            (end, _) if !inside && (end.is_none() || by_event_time) => {
                self.sort_rows(input, order, by_event_time, input_retracts, range)?
            }
            (None, _) | (Some(_), Some(_)) => self.top(input, order, range, at)?,
            (Some(source), None) => {
                let message = format!(
                    "ORDER BY needs all rows, and '{source}' has no end; order by its event time, ascending, or add LIMIT"
                );
                return Err(SqlError::unsupported(at, message));
            }
        };
        Ok(Stream { operator: stream.operator, columns: stream.columns[..width].to_vec() })
    }

    fn sort_rows(
        &mut self,
        input: OperatorId,
        order: Vec<SortKey>,
        by_event_time: bool,
        input_retracts: bool,
        range: Range,
    ) -> Result<Stream, SqlError> {
        let schema = self.graph.node(input).op.schema.clone();
        let kind = OperatorKind::Sort(SortOperator {
            order,
            by_event_time,
            input_retracts,
            offset: range.offset,
            limit: range.limit,
        });
        let name = if range.limit.is_some() { "sort and limit" } else { "sort" };
        let exchange = Exchange::Hash { keys: Vec::new() };
        let operator = self.add(name, Operator::new(schema, kind), &[(input, exchange)])?;
        Ok(self.whole(operator))
    }

    /// The first rows in an order, as a table that changes; without an order, the first to come.
    fn top(&mut self, input: OperatorId, order: Vec<SortKey>, range: Range, at: At) -> Result<Stream, SqlError> {
        let input_retracts = self.graph.node(input).op.changes != ChangeMode::Append;
        if let (None, Some(source)) = (range.limit, self.unbounded_source(input))
            && (input_retracts || !order.is_empty())
        {
            let message = format!("OFFSET needs all rows, and '{source}' has no end; add LIMIT");
            return Err(SqlError::unsupported(at, message));
        }
        let rank = Rank {
            function: RankFunction::RowNumber,
            partition: Vec::new(),
            order,
            newest_first: false,
            from: range.offset.saturating_add(1),
            to: range.limit.map_or(u64::MAX, |limit| range.offset.saturating_add(limit)),
            rank_column: false,
            input_schema: self.graph.node(input).op.schema.clone(),
            input_retracts,
            input_unique: changes::unique_key(&self.graph, input),
            window_end: None,
            ttl_ms: None,
        };
        let operator = self.rank(rank, input, at)?;
        Ok(self.whole(operator))
    }

    /// The name of a source before the operator that never ends.
    pub(super) fn unbounded_source(&self, id: OperatorId) -> Option<String> {
        let node = self.graph.node(id);
        if let OperatorKind::Source(source) = &node.op.kind {
            let is_bounded = mainstem_connectors::source(&source.table).is_ok_and(|source| source.is_bounded());
            return (!is_bounded).then(|| source.table.name.clone());
        }
        self.graph.inputs(id).find_map(|edge| self.unbounded_source(edge.from))
    }

    fn place(&self, exprs: &[SortExpr]) -> At {
        place_in(exprs.iter().map(|sort| &sort.expr)).or(self.at)
    }
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}

/// A column of an order.
pub(super) fn sort_key(sort: &SortExpr, column: usize) -> SortKey {
    SortKey { column, descending: !sort.asc, nulls_first: sort.nulls_first }
}
