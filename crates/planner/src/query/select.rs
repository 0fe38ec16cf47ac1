//! One SELECT: its names are resolved, DataFusion plans it over the planned FROM clause, its types are
//! settled, its aggregation becomes a windowed one. Called by `query.rs`.

use std::sync::Arc;

use datafusion_common::TableReference;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, GroupByExpr, Ident, NamedWindowDefinition, NamedWindowExpr, ObjectName, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Statement, TableFactor, TableWithJoins, Value,
    Visit, Visitor,
};

use super::tail::Tail;
use super::{Scope, casts, failure, shape, wildcard};
use crate::common_types::CommonTypes;
use crate::context;
use crate::error::{At, ErrorCode, SqlError};
use crate::hint;
use crate::order;
use crate::resolve::{Around, Resolver};
use crate::window::aggregate::{Places, convert};
use crate::window::interval::Shape;
use crate::window::marker;

impl Scope<'_> {
    /// `tail`: what stands behind the SELECT.
    pub(super) fn select(&self, mut select: Select, tail: Option<Tail>) -> Result<LogicalPlan, SqlError> {
        shape::check_select(&select)?;
        let at = At::from(select.select_token.0.span);
        let hints = hint::take(&mut select)?;
        let from = std::mem::take(&mut select.from);
        let from = Scope { hints, ..self.clone() }.from(&from)?;
        wildcard::expand(&mut select, &from)?;
        let places = Places {
            select: at,
            group_by: group_by_place(&select).or(at),
            window_function: window_function_place(&select).or(at),
        };
        let original = select.clone();
        let written: Vec<bool> =
            select.projection.iter().map(|item| matches!(item, SelectItem::ExprWithAlias { .. })).collect();
        name_expressions(&mut select);
        let surroundings = self.subqueries(&mut select, from.names())?;
        let around = Around { merged: &from.merged, outer: &self.outer, subqueries: false };
        resolve(&mut select, &from.plan, around)?;
        name_columns(&mut select, &written)?;
        let schema = from.plan.schema().clone();
        let mut tail = tail.unwrap_or_default();
        tail.resolve(&schema, &aliases(&select), around)?;
        let resolved = select.clone();
        select.from = vec![TableWithJoins { relation: placeholder("input"), joins: vec![] }];
        let mut query = block(select);
        tail.put(&mut query);
        casts::tell_apart(&mut query);
        let planned = context::plan_select(Statement::Query(Box::new(query)), from.plan, &surroundings);
        let settled = planned.map_err(|error| SqlError::from_datafusion(&error, At::NOWHERE)).and_then(settle_types);
        let settled =
            settled.map_err(|error| failure::explain(error, &original, &resolved, &schema, &surroundings, places))?;
        order::convert(convert(settled, places)?, at)
    }
}

/// Makes the types of operands and arguments fit, as DataFusion would before it runs a plan.
pub(super) fn settle_types(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let analyzer = Analyzer::with_rules(vec![Arc::new(CommonTypes), Arc::new(TypeCoercion::new())]);
    let settled = analyzer.execute_and_check(plan, context::options(), |_, _| {});
    settled.map_err(|error| SqlError::from_datafusion(&error, At::NOWHERE))
}

/// The SELECT as a whole query.
pub(super) fn block(select: Select) -> Query {
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

/// Stands for what is planned already.
pub(super) fn placeholder(name: &str) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(Ident::new(name)),
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

/// Longest text of an expression that becomes its column's name.
const NAME_CHARACTERS_MAX: usize = 64;

/// Names computed columns that have no name by their text. Before names are resolved, because window functions
/// are rewritten there.
fn name_expressions(select: &mut Select) {
    for (index, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let text = expr.to_string();
        let name = match &*expr {
            Expr::Function(function) if is_window_function(&function.name.to_string()) => {
                function.name.to_string().to_lowercase()
            }
            expr if own_name(expr).is_some() => continue,
            _ if text.chars().count() <= NAME_CHARACTERS_MAX => text,
            _ => format!("EXPR${index}"),
        };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('`', name) };
    }
}

fn is_window_function(name: &str) -> bool {
    let name = name.to_lowercase();
    marker::auxiliary(&name).is_some() || (Shape::from_name(&name).is_some() && marker::function(&name).is_some())
}

/// The name of a column or nested field.
fn own_name(expr: &Expr) -> Option<Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned(),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(ident))) => Some(ident.clone()),
            // A field whose name is resolved.
            Some(AccessExpr::Dot(Expr::Value(value))) => match &value.value {
                Value::SingleQuotedString(name) => Some(Ident::with_span(value.span, name)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Gives qualified columns and nested fields their own name, as Flink does, and tells equal names apart:
/// `SELECT a, a` is legal. After names are resolved. `written`: which items have an alias in the text.
fn name_columns(select: &mut Select, written: &[bool]) -> Result<(), SqlError> {
    let mut taken = Vec::<(String, bool)>::new();
    for (item, written) in select.projection.iter_mut().zip(written) {
        let (expr, name, place) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.value.clone(), At::from(alias.span)),
            SelectItem::UnnamedExpr(expr) => match own_name(expr) {
                Some(name) => (expr.clone(), name.value.clone(), At::from(name.span)),
                None => continue,
            },
            _ => continue,
        };
        let before = taken.iter().find(|(known, _)| *known == name);
        if before.is_some_and(|(_, before)| *before || *written) {
            let message =
                format!("two columns of this SELECT are named '{name}'; give one of them another name with AS");
            return Err(SqlError::new(ErrorCode::Name, place, message));
        }
        let free = if before.is_some() { free_name(&name, &taken) } else { name };
        if own_name(&expr).is_none_or(|ident| ident.value != free) || !matches!(expr, Expr::Identifier(_)) {
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', free.clone()) };
        }
        taken.push((free, *written));
    }
    Ok(())
}

fn free_name(name: &str, taken: &[(String, bool)]) -> String {
    let mut number = 0;
    loop {
        let candidate = format!("{name}{number}");
        if taken.iter().all(|(known, _)| *known != candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// The names that the SELECT list gives.
fn aliases(select: &Select) -> Vec<String> {
    let alias = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    };
    select.projection.iter().filter_map(alias).collect()
}

fn resolve(select: &mut Select, input: &LogicalPlan, around: Around<'_>) -> Result<(), SqlError> {
    let schema = input.schema().as_ref();
    let in_clause = |clause, aliases| Resolver { schema, aliases, clause, around };
    let with_subqueries =
        |clause, aliases| Resolver { schema, aliases, clause, around: Around { subqueries: true, ..around } };
    let aliases = aliases(select);
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                with_subqueries("the SELECT list", &[]).expr(expr)?
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                resolve_qualifier(name, input)?
            }
            _ => {}
        }
    }
    if let Some(condition) = &mut select.selection {
        with_subqueries("WHERE", &[]).expr(condition)?;
    }
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        for expr in exprs {
            in_clause("GROUP BY", &aliases).expr(expr)?;
        }
    }
    if let Some(having) = &mut select.having {
        with_subqueries("HAVING", &aliases).expr(having)?;
    }
    if let Some(qualify) = &mut select.qualify {
        in_clause("QUALIFY", &aliases).expr(qualify)?;
    }
    for NamedWindowDefinition(_, window) in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(window) = window {
            in_clause("WINDOW", &[]).window(window)?;
        }
    }
    Ok(())
}

/// The table of `table.*`, whose case may differ.
pub(super) fn resolve_qualifier(name: &mut ObjectName, input: &LogicalPlan) -> Result<(), SqlError> {
    let span = name.span();
    let mut known: Vec<&str> =
        input.schema().iter().filter_map(|(qualifier, _)| qualifier.map(TableReference::table)).collect();
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
