//! Queries to logical plans. WITH, FROM, UNION ALL and sub-queries are planned here, so that every name has a
//! place and every relation its event time; DataFusion plans what is inside one SELECT. Called by
//! [`crate::plan`]. What is not supported is refused here by name and place.

mod failure;
mod from;
mod join;
mod select;
mod shape;
mod subquery;
mod tail;
mod wildcard;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Column, TableReference};
use datafusion_expr::logical_plan::builder;
use datafusion_expr::{Expr, LogicalPlan, Projection};
use datafusion_sql::sqlparser::ast::{Ident, Query, SetExpr, SetOperator, SetQuantifier, Spanned};
use mainstem_plan::sql_type_name;

use self::tail::Tail;
use crate::catalog::Catalog;
use crate::error::{At, ErrorCode, SqlError};
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
    depth: usize,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Scope<'a> {
        Scope { catalog, with: Vec::new(), outer: Vec::new(), depth: 0 }
    }

    fn deeper(&self, at: At) -> Result<Scope<'a>, SqlError> {
        if self.depth >= DEPTH_MAX {
            return Err(SqlError::new(ErrorCode::Limit, at, format!("queries may be nested {DEPTH_MAX} deep at most")));
        }
        Ok(Scope { depth: self.depth + 1, ..self.clone() })
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
            SetExpr::SetOperation { .. } => self.union(body),
            SetExpr::Values(values) => {
                Err(SqlError::unsupported(values.span(), "VALUES is not supported; a query reads from a table"))
            }
            SetExpr::Table(_) => {
                Err(SqlError::unsupported(body.span(), "TABLE as a query is not supported; write SELECT * FROM"))
            }
            other => Err(SqlError::unsupported(other.span(), "only a SELECT can stand here")),
        }
    }

    /// A chain of UNION ALL, as one operator. The parser makes a left-deep tree of it.
    fn union(&self, body: &SetExpr) -> Result<LogicalPlan, SqlError> {
        let mut members = Vec::new();
        let mut rest = body;
        while let SetExpr::SetOperation { left, op, set_quantifier, right } = rest {
            let at = At::from(right.span());
            let refuse =
                |what: &str| Err(SqlError::unsupported(at, format!("{what} is not supported yet; UNION ALL is")));
            match (op, set_quantifier) {
                (SetOperator::Union, SetQuantifier::All) => {}
                (SetOperator::Union, SetQuantifier::None | SetQuantifier::Distinct) => {
                    return refuse("UNION that removes equal rows");
                }
                (SetOperator::Union, _) => return refuse("UNION BY NAME"),
                (other, _) => return refuse(&other.to_string()),
            }
            members.push(right.as_ref());
            rest = left;
        }
        members.push(rest);
        members.reverse();
        let mut plans = Vec::new();
        for member in &members {
            plans.push((self.set_expr(member)?, At::from(member.span())));
        }
        self.unite(plans)
    }

    fn unite(&self, plans: Vec<(LogicalPlan, At)>) -> Result<LogicalPlan, SqlError> {
        let width = plans[0].0.schema().fields().len();
        if let Some((plan, at)) = plans.iter().find(|(plan, _)| plan.schema().fields().len() != width) {
            let message = format!(
                "this query of the UNION ALL has {} columns, the first has {width}",
                plan.schema().fields().len()
            );
            return Err(SqlError::new(ErrorCode::Type, *at, message));
        }
        for column in 0..width {
            check_union_column(&plans, column)?;
        }
        let at = plans[0].1;
        let inputs: Vec<LogicalPlan> = plans.into_iter().map(|(plan, _)| plan).collect();
        let united = inputs
            .into_iter()
            .map(Ok)
            .reduce(|left, right| builder::union(left?, right?))
            .expect("a union has members");
        let united = united.and_then(|plan| select::settle_types(plan).map_err(SqlError::into_datafusion));
        united.map(flatten).map_err(|error| SqlError::from_datafusion(&error, at))
    }
}

/// DataFusion would turn numbers beside texts into texts.
fn check_union_column(plans: &[(LogicalPlan, At)], column: usize) -> Result<(), SqlError> {
    let type_of = |plan: &LogicalPlan| plan.schema().field(column).data_type().clone();
    let first = type_of(&plans[0].0);
    let differs = |other: &DataType| {
        *other != DataType::Null && first != DataType::Null && other.is_string() != first.is_string()
    };
    match plans.iter().find(|(plan, _)| differs(&type_of(plan))) {
        None => Ok(()),
        Some((plan, at)) => {
            let (name, found) = (plan.schema().field(column).name(), sql_type_name(&type_of(plan)));
            let first = sql_type_name(&first);
            let number = column + 1;
            let message = format!(
                "column {number} ('{name}') of this query of the UNION ALL is of type {found}, in the first query it is {first}; write a CAST"
            );
            Err(SqlError::new(ErrorCode::Type, *at, message))
        }
    }
}

/// Unions of unions as one.
fn flatten(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Union(mut union) = plan else { return plan };
    let mut inputs = Vec::new();
    for input in std::mem::take(&mut union.inputs) {
        match flatten(Arc::unwrap_or_clone(input)) {
            LogicalPlan::Union(inner) if inner.schema.fields() == union.schema.fields() => inputs.extend(inner.inputs),
            other => inputs.push(Arc::new(other)),
        }
    }
    union.inputs = inputs;
    LogicalPlan::Union(union)
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
