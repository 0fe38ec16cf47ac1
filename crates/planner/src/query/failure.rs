//! What to say when DataFusion cannot plan a SELECT: its message in the user's words, and the place of the
//! expression that is to blame. Called by `select.rs`, only after a failure.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::DFSchemaRef;
use datafusion_expr::ExprSchemable;
use datafusion_expr::utils::find_aggregate_exprs;
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_sql::sqlparser::ast::{Expr, Function, GroupByExpr, Select, SelectItem, Spanned, Visit, Visitor};
use mainstem_plan::sql_type_name;

use crate::context::{self, Surroundings};
use crate::error::{At, ErrorCode, SqlError};
use crate::window::aggregate::Places;
use crate::window::marker;

/// The error with a better message and place. `original` is the SELECT as written, `resolved` as it was
/// planned.
pub(super) fn explain(
    mut error: SqlError,
    original: &Select,
    resolved: &Select,
    schema: &DFSchemaRef,
    surroundings: &Surroundings,
    places: Places,
) -> SqlError {
    if error.message.contains("must appear in the GROUP BY clause") {
        if let Some(mismatch) = auxiliary_mismatch(original) {
            return mismatch;
        }
        let column =
            error.message.split('"').nth(1).map(|name| format!("column '{name}'")).unwrap_or("a column".to_owned());
        error.message =
            format!("{column} must be in GROUP BY or inside of an aggregate, because this SELECT aggregates");
        error.code = ErrorCode::Name;
    }
    if error.line == 0 {
        if let Some(exact) = locate(resolved, schema, surroundings) {
            return exact;
        }
        (error.line, error.column) = (places.select.0.line, places.select.0.column);
    }
    error
}

/// The first expression that cannot be planned alone.
fn locate(select: &Select, schema: &DFSchemaRef, surroundings: &Surroundings) -> Option<SqlError> {
    if let Some(condition) = &select.selection {
        let checked = check_condition(condition, schema, surroundings, "WHERE");
        if let Err(error) = checked {
            return Some(error);
        }
    }
    let items = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let groups = match &select.group_by {
        GroupByExpr::Expressions(exprs, _) => exprs.as_slice(),
        GroupByExpr::All(_) => &[],
    };
    items.chain(groups).find_map(|expr| try_plan(expr, schema, surroundings).err())
}

fn try_plan(expr: &Expr, schema: &DFSchemaRef, surroundings: &Surroundings) -> Result<DataType, SqlError> {
    let at = At::from(expr.span());
    let planned = context::plan_expr_within(expr.clone(), schema, surroundings).and_then(|planned| {
        let context = SimplifyContext::builder().with_schema(Arc::clone(schema)).build();
        ExprSimplifier::new(context).coerce(planned, schema)?.get_type(schema)
    });
    planned.map_err(|error| SqlError::from_datafusion(&error, at))
}

/// Whether an expression is a condition on single rows; `clause` is where it stands.
pub(super) fn check_condition(
    expr: &Expr,
    schema: &DFSchemaRef,
    surroundings: &Surroundings,
    clause: &str,
) -> Result<(), SqlError> {
    match try_plan(expr, schema, surroundings)? {
        DataType::Boolean | DataType::Null => {
            let Ok(planned) = context::plan_expr_within(expr.clone(), schema, surroundings) else { return Ok(()) };
            if find_aggregate_exprs([&planned]).is_empty() {
                return Ok(());
            }
            let message = format!("aggregates are not allowed in {clause}; conditions on them belong in HAVING");
            Err(SqlError::new(ErrorCode::Type, expr.span(), message))
        }
        other => {
            let message = format!("{clause} needs a condition, this is of type {}", sql_type_name(&other));
            Err(SqlError::new(ErrorCode::Type, expr.span(), message))
        }
    }
}

/// An error for `TUMBLE_START(ts, a)` beside `GROUP BY TUMBLE(ts, b)`.
fn auxiliary_mismatch(select: &Select) -> Option<SqlError> {
    struct Finder(Vec<Function>);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr {
                self.0.push(function.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let mut grouped = Finder(Vec::new());
    let mut all = Finder(Vec::new());
    // Neither of the two ever breaks off.
    let _ = select.group_by.visit(&mut grouped);
    let _ = select.visit(&mut all);
    let windows: Vec<(String, String)> = grouped
        .0
        .iter()
        .map(|function| (function.name.to_string().to_lowercase(), function.args.to_string()))
        .collect();
    all.0.iter().find_map(|function| {
        let name = function.name.to_string().to_lowercase();
        let (shape, _) = marker::auxiliary(&name)?;
        if windows.contains(&(shape.to_owned(), function.args.to_string())) {
            return None;
        }
        let message =
            format!("{} must have the arguments of a {}(...) in GROUP BY", name.to_uppercase(), shape.to_uppercase());
        Some(SqlError::new(ErrorCode::Window, function.name.span(), message))
    })
}
