//! Sub-queries in expressions: `IN`, `EXISTS` and those that stand for a value. Each is planned on its own, over
//! the names of the queries around it too, and a placeholder takes its place in the expression. Called for each
//! SELECT. The optimiser makes joins of them.

use std::ops::ControlFlow;

use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SelectFlavor, SelectItem, Spanned, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};

use super::Scope;
use super::select::{block, placeholder};
use crate::context::{Surroundings, placeholder_name};
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::Names;

impl Scope<'_> {
    /// Plans the sub-queries in a SELECT's expressions, whose own columns are `names`. Gives what DataFusion needs
    /// to know to plan the SELECT.
    pub(super) fn subqueries(&self, select: &mut Select, names: Names) -> Result<Surroundings, SqlError> {
        let outer = self.outer.iter().map(|names| names.schema.clone()).collect();
        let mut scope = self.clone();
        scope.outer.push(names);
        let mut visitor = Planning { scope, planned: Vec::new(), values_only: false };
        let mut result = ControlFlow::Continue(());
        if let Some(condition) = &mut select.selection {
            result = VisitMut::visit(condition, &mut visitor);
        }
        if let (ControlFlow::Continue(()), Some(condition)) = (&result, &mut select.having) {
            result = VisitMut::visit(condition, &mut visitor);
        }
        visitor.values_only = true;
        for item in &mut select.projection {
            if let (ControlFlow::Continue(()), SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                (&result, item)
            {
                result = VisitMut::visit(expr, &mut visitor);
            }
        }
        match result {
            ControlFlow::Continue(()) => Ok(Surroundings { outer, subqueries: visitor.planned }),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

struct Planning<'a> {
    scope: Scope<'a>,
    planned: Vec<LogicalPlan>,
    /// Only sub-queries that stand for a value are allowed here.
    values_only: bool,
}

impl VisitorMut for Planning<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let at = At::from(expr.span());
        let result = match expr {
            Expr::InSubquery { subquery, .. } | Expr::Exists { subquery, .. } if self.values_only => {
                let at = at.or(subquery.span().into());
                Err(SqlError::unsupported(
                    at,
                    "IN (SELECT ...) and EXISTS are conditions on rows; they belong in WHERE",
                ))
            }
            Expr::InSubquery { subquery, .. } => self.plan(subquery, at, Some("IN")),
            Expr::Exists { subquery, .. } => self.plan(subquery, at, None),
            Expr::Subquery(subquery) => self.plan(subquery, at, Some("a value")),
            _ => Ok(()),
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Planning<'_> {
    /// `for_value`: what the sub-query stands for, where that takes a single column.
    fn plan(&mut self, subquery: &mut Query, at: At, for_value: Option<&str>) -> Result<(), SqlError> {
        let at = At::from(subquery.span()).or(at);
        let plan = self.scope.plan(subquery)?;
        let width = plan.schema().fields().len();
        if let Some(what) = for_value
            && width != 1
        {
            let message = format!("a sub-query for {what} must have one column, this one has {width}");
            return Err(SqlError::new(ErrorCode::Type, at, message));
        }
        let name = placeholder_name(self.planned.len());
        self.planned.push(plan);
        *subquery = block(all_of(&name));
        Ok(())
    }
}

/// `SELECT * FROM name`.
pub(super) fn all_of(name: &str) -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())],
        exclude: None,
        into: None,
        from: vec![TableWithJoins { relation: placeholder(name), joins: vec![] }],
        lateral_views: vec![],
        prewhere: None,
        selection: None,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}
