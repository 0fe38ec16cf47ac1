//! One SELECT: its names are resolved, DataFusion plans it over the planned FROM clause, its types are
//! settled, its aggregation becomes a windowed one. Called by `query.rs`.

use std::sync::Arc;

use datafusion_common::TableReference;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    Spanned, Statement, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::{Scope, shape};
use crate::context;
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::Resolver;
use crate::window::aggregate::{Places, convert};
use crate::window::interval::Shape;
use crate::window::marker;

impl Scope<'_> {
    pub(super) fn select(&self, mut select: Select) -> Result<LogicalPlan, SqlError> {
        shape::check_select(&select)?;
        let at = At::from(select.select_token.0.span);
        let from = std::mem::take(&mut select.from);
        let input = self.deeper(at)?.relation(&from[0].relation)?;
        let places = Places { select: at, group_by: group_by_place(&select).or(at), window_function: window_function_place(&select).or(at) };
        name_items(&mut select);
        resolve(&mut select, &input)?;
        select.from = vec![TableWithJoins { relation: placeholder(), joins: vec![] }];
        let planned = context::plan_select(Statement::Query(Box::new(block(select))), input);
        let planned = planned.map_err(|error| explain_failure(&error, places))?;
        convert(settle_types(planned)?, places)
    }
}

/// Makes the types of operands and arguments fit, as DataFusion would before it runs a plan.
pub(super) fn settle_types(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let at = At::NOWHERE;
    let analyzer = Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]);
    let settled = analyzer.execute_and_check(plan, context::options(), |_, _| {});
    settled.map_err(|error| SqlError::from_datafusion(&error, at))
}

fn explain_failure(error: &datafusion_common::DataFusionError, places: Places) -> SqlError {
    let mut error = SqlError::from_datafusion(error, places.select);
    if error.message.contains("must appear in the GROUP BY clause") || error.message.contains("could not be resolved from available columns") {
        error.message = format!("{}; every column of the SELECT must be in GROUP BY or inside of an aggregate", error.message.trim_end_matches(['.', ' ']));
        error.code = ErrorCode::Name;
    }
    error
}

fn block(select: Select) -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

/// Stands for the FROM clause that is planned already.
fn placeholder() -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(Ident::new("input")),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn group_by_place(select: &Select) -> At {
    match &select.group_by {
        GroupByExpr::Expressions(exprs, _) => exprs.first().map_or(At::NOWHERE, |expr| expr.span().into()),
        GroupByExpr::All(_) => At::NOWHERE,
    }
}

/// The first window function: in GROUP BY if there is one, else in the SELECT list or elsewhere.
fn window_function_place(select: &Select) -> At {
    struct Finder;
    impl Visitor for Finder {
        type Break = At;
        fn pre_visit_expr(&mut self, expr: &Expr) -> std::ops::ControlFlow<At> {
            if let Expr::Function(function) = expr {
                let name = function.name.to_string().to_lowercase();
                if marker::function(&name).is_some() || marker::auxiliary(&name).is_some() {
                    return std::ops::ControlFlow::Break(function.name.span().into());
                }
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let in_group_by = select.group_by.visit(&mut Finder).break_value();
    in_group_by.or_else(|| select.visit(&mut Finder).break_value()).unwrap_or(At::NOWHERE)
}

/// Gives items without a name the one that they have in Flink, where DataFusion's differs, and tells equal
/// names apart: `SELECT a, a` is legal.
fn name_items(select: &mut Select) {
    let mut taken: Vec<String> = Vec::new();
    for item in &mut select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => taken.push(alias.value.clone()),
            SelectItem::UnnamedExpr(expr) => {
                let (name, own) = match natural_name(expr) {
                    Some(name) => (name, true),
                    None => (expr.to_string(), false),
                };
                let count = taken.iter().filter(|known| **known == name).count();
                let simple = matches!(expr, Expr::Identifier(_));
                if count > 0 || (own && !simple) {
                    let alias = if count == 0 { name.clone() } else { free_name(&name, &taken) };
                    taken.push(alias.clone());
                    let expr = expr.clone();
                    *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', alias) };
                } else {
                    taken.push(name);
                }
            }
            _ => {}
        }
    }
}

fn free_name(name: &str, taken: &[String]) -> String {
    let mut number = 0;
    loop {
        let candidate = format!("{name}{number}");
        if !taken.contains(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// The name of a column or nested field, and of a window function.
fn natural_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.clone()),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(ident))) => Some(ident.value.clone()),
            _ => None,
        },
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let is_window = marker::auxiliary(&name).is_some() || (Shape::from_name(&name).is_some() && marker::function(&name).is_some());
            is_window.then_some(name)
        }
        _ => None,
    }
}

fn resolve(select: &mut Select, input: &LogicalPlan) -> Result<(), SqlError> {
    let schema = input.schema().as_ref();
    let in_clause = |clause, aliases| Resolver { schema, aliases, clause };
    let aliases: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| if let SelectItem::ExprWithAlias { alias, .. } = item { Some(alias.value.clone()) } else { None })
        .collect();
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => in_clause("the SELECT list", &[]).expr(expr)?,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => resolve_qualifier(name, input)?,
            _ => {}
        }
    }
    if let Some(condition) = &mut select.selection {
        in_clause("WHERE", &[]).expr(condition)?;
    }
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        for expr in exprs {
            in_clause("GROUP BY", &aliases).expr(expr)?;
        }
    }
    if let Some(having) = &mut select.having {
        in_clause("HAVING", &aliases).expr(having)?;
    }
    Ok(())
}

/// The table of `table.*`, whose case may differ.
fn resolve_qualifier(name: &mut ObjectName, input: &LogicalPlan) -> Result<(), SqlError> {
    let span = name.span();
    let mut known: Vec<&str> = input.schema().iter().filter_map(|(qualifier, _)| qualifier.map(TableReference::table)).collect();
    known.dedup();
    let wanted = match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.clone()).unwrap_or_default(),
        _ => name.to_string(),
    };
    if known.contains(&wanted.as_str()) {
        return Ok(());
    }
    match crate::resolve::unique_without_case(&wanted, known.iter().copied(), span)? {
        Some(found) => {
            *name = ObjectName::from(Ident::with_span(span, found));
            Ok(())
        }
        None => {
            let advice = crate::suggest::advice(&wanted, "known here are", &known);
            Err(SqlError::new(ErrorCode::Name, span, format!("unknown table '{wanted}' in the SELECT list{advice}")))
        }
    }
}
