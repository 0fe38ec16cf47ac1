//! What stands behind a query's body: ORDER BY, LIMIT, OFFSET and FETCH. Called for each query that has some of it.

use datafusion_common::DFSchema;
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::{
    Expr, Fetch, LimitClause, OrderBy, OrderByKind, Query, Spanned, Statement, Value,
};

use super::select::{block, settle_types};
use super::subquery::all_of;
use crate::context::{self, Surroundings};
use crate::error::{At, SqlError};
use crate::resolve::{Around, Resolver};

/// See the module. What is in it is supported.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    order_by: Option<OrderBy>,
    limit_clause: Option<LimitClause>,
}

impl Tail {
    /// What stands behind the query's body; none where nothing does.
    pub(super) fn of(query: &Query) -> Result<Option<Tail>, SqlError> {
        let at = At::from(query.body.span());
        if let Some(order_by) = &query.order_by {
            check_order_by(order_by, at)?;
        }
        let limit_clause = match (&query.limit_clause, &query.fetch) {
            (limit, None) => limit.clone(),
            (limit, Some(fetch)) => Some(with_fetch(limit.as_ref(), fetch, at)?),
        };
        if let Some(LimitClause::LimitOffset { limit_by, .. }) = &limit_clause
            && let Some(first) = limit_by.first()
        {
            return Err(SqlError::unsupported(
                first.span(),
                "LIMIT BY is not supported; use ROW_NUMBER() OVER (PARTITION BY ...)",
            ));
        }
        let tail = Tail { order_by: query.order_by.clone(), limit_clause };
        Ok((tail.order_by.is_some() || tail.limit_clause.is_some()).then_some(tail))
    }

    /// Resolves the names of ORDER BY: columns of `schema`, or `aliases` of the SELECT list.
    pub(super) fn resolve(
        &mut self,
        schema: &DFSchema,
        aliases: &[String],
        around: Around<'_>,
    ) -> Result<(), SqlError> {
        let resolver = Resolver { schema, aliases, clause: "ORDER BY", around };
        if let Some(OrderBy { kind: OrderByKind::Expressions(exprs), .. }) = &mut self.order_by {
            for order in exprs {
                resolver.expr(&mut order.expr)?;
            }
        }
        Ok(())
    }

    /// Puts it behind the body of a query.
    pub(super) fn put(self, query: &mut Query) {
        query.order_by = self.order_by;
        query.limit_clause = self.limit_clause;
    }

    /// Puts it behind a plan, by whose columns it goes.
    pub(super) fn over(mut self, plan: LogicalPlan, at: At) -> Result<LogicalPlan, SqlError> {
        self.resolve(plan.schema().as_ref(), &[], Around::default())?;
        let mut query = block(all_of("input"));
        self.put(&mut query);
        let planned = context::plan_select(Statement::Query(Box::new(query)), plan, &Surroundings::default());
        planned.map_err(|error| SqlError::from_datafusion(&error, at)).and_then(settle_types)
    }
}

fn check_order_by(order_by: &OrderBy, at: At) -> Result<(), SqlError> {
    let OrderBy { kind, interpolate } = order_by;
    let OrderByKind::Expressions(exprs) = kind else {
        return Err(SqlError::unsupported(at, "ORDER BY ALL is not supported; name the columns"));
    };
    let fill = exprs.iter().find(|order| order.with_fill.is_some());
    if interpolate.is_some() || fill.is_some() {
        let at = At::from(exprs.first().map(|order| order.expr.span()).unwrap_or_else(|| order_by.span())).or(at);
        return Err(SqlError::unsupported(at, "WITH FILL and INTERPOLATE are not supported"));
    }
    Ok(())
}

/// `FETCH FIRST n ROWS ONLY` as the LIMIT that it is.
fn with_fetch(limit_clause: Option<&LimitClause>, fetch: &Fetch, at: At) -> Result<LimitClause, SqlError> {
    let Fetch { with_ties, percent, quantity } = fetch;
    let at = quantity.as_ref().map_or(at, |quantity| At::from(quantity.span()).or(at));
    if *with_ties || *percent {
        let message = "FETCH with TIES or PERCENT is not supported; for ties use RANK() OVER (ORDER BY ...)";
        return Err(SqlError::unsupported(at, message));
    }
    let offset = match limit_clause {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) if limit_by.is_empty() => offset.clone(),
        Some(_) => return Err(SqlError::unsupported(at, "a query takes LIMIT or FETCH, not both")),
    };
    let one = || Expr::Value(Value::Number("1".to_owned(), false).into());
    Ok(LimitClause::LimitOffset { limit: Some(quantity.clone().unwrap_or_else(one)), offset, limit_by: vec![] })
}
