//! Sub-queries in expressions: `IN`, `EXISTS` and those that stand for a value. Each is planned on its own, over
//! the names of the queries around it too, and a placeholder takes its place in the expression. Called for each
//! SELECT. The optimiser makes joins of them.

use std::ops::ControlFlow;

use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr as Logical, LogicalPlan, Operator};
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, GroupByExpr, Query, Select, SelectFlavor, SelectItem, Spanned, TableWithJoins,
    UnaryOperator, Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
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
        let mut planning = Planning { scope, planned: Vec::new() };
        for condition in [&mut select.selection, &mut select.having].into_iter().flatten() {
            planning.condition(condition, true)?;
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                planning.values(expr, false)?;
            }
        }
        Ok(Surroundings { outer, subqueries: planning.planned })
    }
}

struct Planning<'a> {
    scope: Scope<'a>,
    planned: Vec<LogicalPlan>,
}

impl Planning<'_> {
    /// Sub-queries of a condition of which only the rows count for which it is true. `alone`: it holds only where all
    /// that is beside it holds too; then rows can be tested one after another, and NULL is as good as false.
    fn condition(&mut self, expr: &mut Expr, alone: bool) -> Result<(), SqlError> {
        let at = At::from(expr.span());
        match expr {
            Expr::Nested(inner) => self.condition(inner, alone),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.condition(left, alone)?;
                self.condition(right, alone)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                self.condition(left, false)?;
                self.condition(right, false)
            }
            Expr::InSubquery { expr: value, subquery, negated } if !*negated || alone => {
                if *negated && !reads_column(value) {
                    let message = "NOT IN (SELECT ...) needs a column on its left; write NOT EXISTS (SELECT ...)";
                    return Err(SqlError::unsupported(at, message));
                }
                self.values(value, true)?;
                let plan = self.plan(subquery, at, Some("IN"))?;
                if *negated && asks_for_equality(plan, value) {
                    let subquery = std::mem::replace(subquery, Box::new(block(all_of(""))));
                    *expr = Expr::Exists { subquery, negated: true };
                }
                Ok(())
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } if alone => match in_parentheses(inner) {
                Expr::InSubquery { negated: negated @ false, .. } => {
                    *negated = true;
                    *expr = std::mem::replace(in_parentheses(inner), Expr::value(ast::Value::Null));
                    self.condition(expr, alone)
                }
                _ => self.values(expr, true),
            },
            _ => self.values(expr, true),
        }
    }

    /// Sub-queries inside of an expression. `conditions`: EXISTS may be among them.
    fn values(&mut self, expr: &mut Expr, conditions: bool) -> Result<(), SqlError> {
        let mut visitor = Values { planning: self, conditions };
        match VisitMut::visit(expr, &mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// `for_what`: what the sub-query stands for, where that takes a single column.
    fn plan(&mut self, subquery: &mut Query, at: At, for_what: Option<&str>) -> Result<&LogicalPlan, SqlError> {
        let at = At::from(subquery.span()).or(at);
        let plan = self.scope.plan(subquery)?;
        let width = plan.schema().fields().len();
        if let Some(what) = for_what
            && width != 1
        {
            let message = format!("a sub-query for {what} must have one column, this one has {width}");
            return Err(SqlError::new(ErrorCode::Type, at, message));
        }
        let name = placeholder_name(self.planned.len());
        *subquery = block(all_of(&name));
        self.planned.push(plan);
        Ok(&self.planned[self.planned.len() - 1])
    }
}

struct Values<'a, 'b> {
    planning: &'a mut Planning<'b>,
    conditions: bool,
}

impl VisitorMut for Values<'_, '_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match self.visit(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Values<'_, '_> {
    fn visit(&mut self, expr: &mut Expr) -> Result<(), SqlError> {
        let at = At::from(expr.span());
        match expr {
            Expr::InSubquery { subquery, .. } | Expr::Exists { subquery, .. } if !self.conditions => {
                let at = at.or(subquery.span().into());
                let message = "IN (SELECT ...) and EXISTS are conditions on rows; they belong in WHERE";
                Err(SqlError::unsupported(at, message))
            }
            Expr::InSubquery { .. } => {
                let message = "this IN (SELECT ...) could be NULL in a place where that is not the same as false; \
                               put it beside AND or OR, NOT IN beside AND, or write EXISTS (SELECT ...)";
                Err(SqlError::unsupported(at, message))
            }
            Expr::Exists { subquery, .. } => self.planning.plan(subquery, at, None).map(drop),
            Expr::Subquery(subquery) => {
                let at = At::from(subquery.span()).or(at);
                let plan = self.planning.plan(subquery, at, Some("a value"))?;
                // One that depends on the row is tested by DataFusion.
                if plan.all_out_ref_exprs().is_empty() && plan.max_rows().is_none_or(|rows| rows > 1) {
                    let message = "a sub-query that stands for a value must give one row; aggregate it, for example \
                                   by MAX(...)";
                    return Err(SqlError::unsupported(at, message));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether the WHERE of a sub-query says itself that what it gives equals `value`, a column of the query around it. Then
/// NOT IN means NOT EXISTS; DataFusion would take the two equalities for one, and a NULL for a match.
fn asks_for_equality(plan: &LogicalPlan, value: &Expr) -> bool {
    let parts: Vec<&str> = match value {
        Expr::Identifier(name) => vec![&name.value],
        Expr::CompoundIdentifier(parts) => parts.iter().map(|part| part.value.as_str()).collect(),
        _ => return false,
    };
    let is_value = |expr: &Logical| {
        let Logical::OuterReferenceColumn(_, column) = expr else { return false };
        let named = [column.relation.as_ref().map_or("", |table| table.table()), &column.name];
        named.iter().rev().zip(parts.iter().rev()).all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let LogicalPlan::Projection(projection) = plan else { return false };
    let LogicalPlan::Filter(filter) = projection.input.as_ref() else { return false };
    let given = projection.expr[0].clone().unalias();
    split_conjunction(&filter.predicate).into_iter().any(|condition| match condition {
        Logical::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            (is_value(left) && **right == given) || (is_value(right) && **left == given)
        }
        _ => false,
    })
}

fn in_parentheses(expr: &mut Expr) -> &mut Expr {
    match expr {
        Expr::Nested(inner) => in_parentheses(inner),
        other => other,
    }
}

fn reads_column(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder).is_break()
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
