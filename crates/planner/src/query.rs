//! Queries to logical plans. WITH, FROM, UNION ALL and sub-queries are planned here, so that every name has a
//! place and every relation its event time; DataFusion plans what is inside one SELECT. Called by
//! [`crate::plan`]. What is not supported is refused here by name and place.

pub(crate) mod casts;
mod failure;
mod from;
mod join;
mod pattern;
mod select;
mod sets;
mod shape;
mod subquery;
mod tail;
mod unnest;
mod values;
mod wildcard;

use std::sync::Arc;

use datafusion_common::{Column, TableReference};
use datafusion_expr::{Expr, LogicalPlan, Projection};
use datafusion_sql::sqlparser::ast::{Ident, Query, SetExpr, Spanned};

use self::tail::Tail;
use crate::catalog::Catalog;
use crate::error::{At, ErrorCode, SqlError};
use crate::hint::StateTtl;
use crate::resolve::Names;

/// Deepest nesting of queries. Each level is analysed with all below it.
const DEPTH_MAX: usize = 64;

/// The names that a query sees.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    catalog: &'a Catalog,
    /// Names of WITH; later ones hide earlier ones.
    with: Vec<(String, Arc<LogicalPlan>)>,
    /// Columns of the queries in whose expressions this one stands, outermost first.
    outer: Vec<Names>,
    /// What hints say of the relations of the FROM clause at hand.
    hints: Vec<StateTtl>,
    depth: usize,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Scope<'a> {
        Scope { catalog, with: Vec::new(), outer: Vec::new(), hints: Vec::new(), depth: 0 }
    }

    fn deeper(&self, at: At) -> Result<Scope<'a>, SqlError> {
        if self.depth >= DEPTH_MAX {
            return Err(SqlError::new(ErrorCode::Limit, at, format!("queries may be nested {DEPTH_MAX} deep at most")));
        }
        Ok(Scope { depth: self.depth + 1, hints: Vec::new(), ..self.clone() })
    }

    /// The plan of a query; types are settled, windows are in place, nothing is optimised.
    pub(crate) fn plan(&self, query: &Query) -> Result<LogicalPlan, SqlError> {
        shape::check_query(query)?;
        let mut scope = self.deeper(query.span().into())?;
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = &cte.alias.name;
            let plan = scope.plan(&cte.query)?;
            let columns: Vec<Ident> = cte.alias.columns.iter().map(|column| column.name.clone()).collect();
            let plan = rename(plan, &columns, name.span.into())?;
            scope.with.push((name.value.clone(), Arc::new(plan)));
        }
        let tail = Tail::of(query)?;
        match (query.body.as_ref(), tail) {
            (SetExpr::Select(select), tail) => scope.select(select.as_ref().clone(), tail),
            (body, None) => scope.set_expr(body),
            (body, Some(tail)) => tail.over(scope.set_expr(body)?, body.span().into()),
        }
    }

    fn set_expr(&self, body: &SetExpr) -> Result<LogicalPlan, SqlError> {
        match body {
            SetExpr::Select(select) => self.select(select.as_ref().clone(), None),
            SetExpr::Query(query) => self.plan(query),
            SetExpr::SetOperation { .. } => self.set_operation(body),
            SetExpr::Values(values) => self.values(values),
            SetExpr::Table(_) => {
                Err(SqlError::unsupported(body.span(), "TABLE as a query is not supported; write SELECT * FROM"))
            }
            other => Err(SqlError::unsupported(other.span(), "only a SELECT can stand here")),
        }
    }
}

/// The plan with its columns under other names; no names: as it is.
pub(crate) fn rename(plan: LogicalPlan, names: &[Ident], at: At) -> Result<LogicalPlan, SqlError> {
    if names.is_empty() {
        return Ok(plan);
    }
    let width = plan.schema().fields().len();
    if names.len() != width {
        let message = format!("{} column names are given for a query with {width} columns", names.len());
        return Err(SqlError::new(ErrorCode::Name, names[0].span, message));
    }
    let columns = plan.schema().columns().into_iter().zip(names);
    let exprs: Vec<Expr> = columns.map(|(column, name)| Expr::Column(column).alias(&name.value)).collect();
    let projection = Projection::try_new(exprs, Arc::new(plan));
    projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// The plan under a name by which its columns can be qualified. As a projection, not as DataFusion's
/// `SubqueryAlias`: the optimiser merges projections, but not across an alias.
fn alias(plan: LogicalPlan, name: &str, at: At) -> Result<LogicalPlan, SqlError> {
    let table = TableReference::bare(name.to_owned());
    let columns = plan.schema().columns().into_iter();
    let exprs = columns.map(|column| {
        let name = column.name.clone();
        Expr::Column(column).alias_qualified(Some(table.clone()), name)
    });
    let projection = Projection::try_new(exprs.collect(), Arc::new(plan));
    projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// All columns of a plan, unqualified, as they are.
pub(crate) fn column_exprs(plan: &LogicalPlan) -> Vec<Expr> {
    let columns: Vec<Column> = plan.schema().columns();
    columns.into_iter().map(Expr::Column).collect()
}
