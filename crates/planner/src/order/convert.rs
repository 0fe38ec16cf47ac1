//! Finds conditions on the number of a row and makes Top-N of them. Called for each SELECT, and once more when
//! conditions have been pushed to where they belong.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DataFusionError, Result};
use datafusion_expr::expr::{WindowFunction, WindowFunctionDefinition};
use datafusion_expr::{Expr, Filter, LogicalPlan, Projection, Window};
use datafusion_sql::sqlparser::tokenizer::Location;
use mainstem_plan::operator::{OverOrder, RankFunction};

use super::bounds;
use super::top_n::TopN;
use crate::error::{At, ErrorCode, SqlError};
use crate::time_attribute::{Role, of_expr, roles};
use crate::window::node::extension;

/// The plan with Top-N in the place of conditions on the number of a row. `at`: where the SELECT stands.
pub(crate) fn convert(plan: LogicalPlan, at: At) -> Result<LogicalPlan, SqlError> {
    let converted = plan.transform_up(|node| match node {
        LogicalPlan::Filter(filter) => match top_n(&filter, at).map_err(SqlError::into_datafusion)? {
            Some(converted) => Ok(Transformed::yes(converted)),
            None => Ok(Transformed::no(LogicalPlan::Filter(filter))),
        },
        other => Ok(Transformed::no(other)),
    });
    converted.map(|converted| converted.data).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// The function that numbers rows, if the expression calls one.
pub(crate) fn numbering(expr: &Expr) -> Option<(RankFunction, &WindowFunction)> {
    let Expr::WindowFunction(call) = expr else { return None };
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    let function = match function.name() {
        "row_number" => RankFunction::RowNumber,
        "rank" => RankFunction::Rank,
        "dense_rank" => RankFunction::DenseRank,
        _ => return None,
    };
    Some((function, call))
}

/// The expression itself, where it has been given other names.
pub(crate) fn without_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_alias(&alias.expr),
        other => other,
    }
}

/// By which time an OVER clause puts its rows in order, with the column's position; none: by something else.
/// Whether ascending or not matters to event time only.
pub(crate) fn timing(call: &WindowFunction, input: &LogicalPlan) -> Option<OverOrder> {
    let leading = call.params.order_by.first()?;
    match of_expr(&leading.expr, input, &roles(input)) {
        Role::ProcessingTime => Some(OverOrder::ProcessingTime),
        role if role.is_event_time() && leading.asc => {
            let Expr::Column(column) = leading.expr.clone().unalias() else { return None };
            input.schema().maybe_index_of_column(&column).map(OverOrder::EventTime)
        }
        _ => None,
    }
}

/// Where the text of an OVER clause is known to stand: at the first column that it names.
pub(crate) fn place_of(call: &WindowFunction, otherwise: At) -> At {
    let params = &call.params;
    place_in(params.order_by.iter().map(|sort| &sort.expr).chain(&params.partition_by).chain(&params.args))
        .or(otherwise)
}

/// Where the first of the expressions whose place is known stands.
pub(crate) fn place_in<'a>(exprs: impl Iterator<Item = &'a Expr>) -> At {
    let mut place = At::NOWHERE;
    for expr in exprs {
        let found = expr.exists(|expr| {
            let span = expr.spans().and_then(|spans| spans.first());
            if let Some(start) = span.map(|span| span.start).filter(|start| start.line > 0) {
                place = At(Location { line: start.line, column: start.column });
            }
            Ok(place != At::NOWHERE)
        });
        if found.unwrap_or(false) {
            break;
        }
    }
    place
}

/// The filter as a Top-N with what else it asks for; none where it is no condition on a number.
fn top_n(filter: &Filter, at: At) -> Result<Option<LogicalPlan>, SqlError> {
    let Some((window, numbers)) = numbers_below(&filter.input) else { return Ok(None) };
    let schema = filter.input.schema();
    for (column, number) in numbers {
        let name = Expr::Column(Column::from(schema.qualified_field(column)));
        let is_number = |expr: &Expr| match (expr, &name) {
            (Expr::Column(column), Expr::Column(name)) => {
                column.name == name.name && (column.relation == name.relation || column.relation.is_none())
            }
            _ => false,
        };
        let (bounds, rest) = bounds::split(filter.predicate.clone(), &is_number);
        let Some(to) = bounds.to else { continue };
        let from = bounds.from.unwrap_or(1).max(1);
        let (_, call) = numbering(&window.window_expr[number]).expect("listed as such");
        if to < from {
            let message = format!("this condition asks for rows from number {from} to {to}, which there are none of");
            return Err(SqlError::new(ErrorCode::Type, place_of(call, at), message));
        }
        // Bounds that no number reaches are as good as the greatest number.
        let number_of = |value: i128| u64::try_from(value).unwrap_or(u64::MAX);
        let bounds = (number_of(from), number_of(to));
        let failed = |error: DataFusionError| SqlError::from_datafusion(&error, at);
        let below = top_n_over(window, number, bounds, at)?;
        let input = replace_below((*filter.input).clone(), &below).map_err(failed)?;
        return Ok(Some(match rest {
            None => input,
            Some(rest) => LogicalPlan::Filter(Filter::try_new(rest, Arc::new(input)).map_err(failed)?),
        }));
    }
    Ok(None)
}

/// The OVER clauses below projections, and which columns of the plan are numbers: position, and which of the
/// window expressions it is.
fn numbers_below(plan: &LogicalPlan) -> Option<(&Window, Vec<(usize, usize)>)> {
    match plan {
        LogicalPlan::Window(window) => {
            let first = window.input.schema().fields().len();
            let numbers: Vec<(usize, usize)> = window
                .window_expr
                .iter()
                .enumerate()
                .filter(|(_, expr)| numbering(expr).is_some())
                .map(|(nth, _)| (first + nth, nth))
                .collect();
            (!numbers.is_empty()).then_some((window, numbers))
        }
        LogicalPlan::SubqueryAlias(alias) => numbers_below(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (window, below) = numbers_below(&projection.input)?;
            let schema = projection.input.schema();
            let number = |(position, expr): (usize, &Expr)| {
                let Expr::Column(column) = expr.clone().unalias() else { return None };
                let index = schema.maybe_index_of_column(&column)?;
                below.iter().find(|(column, _)| *column == index).map(|(_, number)| (position, *number))
            };
            Some((window, projection.expr.iter().enumerate().filter_map(number).collect()))
        }
        _ => None,
    }
}

/// The plan with `below` in the place of its OVER clauses, which has the same columns.
fn replace_below(plan: LogicalPlan, below: &LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Window(_) => Ok(below.clone()),
        other => {
            let inputs = other.inputs().into_iter().map(|input| replace_below(input.clone(), below));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            let exprs = other.expressions();
            other.with_new_exprs(exprs, inputs)
        }
    }
}

/// A Top-N by one of the window expressions, with the columns that the window has; the other window expressions
/// are computed below it, over all rows.
fn top_n_over(window: &Window, number: usize, bounds: (u64, u64), at: At) -> Result<LogicalPlan, SqlError> {
    let failed = |error: DataFusionError| SqlError::from_datafusion(&error, at);
    let first = window.input.schema().fields().len();
    let (qualifier, field) = window.schema.qualified_field(first + number);
    let number_field = (qualifier.cloned(), field.clone());
    let mut others = window.window_expr.clone();
    let chosen = others.remove(number);
    let (function, call) = numbering(&chosen).expect("the caller has chosen one");
    if others.is_empty() {
        return node(window.input.clone(), function, call, bounds, number_field, at);
    }
    let input = Window::try_new(others, window.input.clone()).map_err(failed)?;
    let top = node(Arc::new(LogicalPlan::Window(input)), function, call, bounds, number_field, at)?;
    let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
    Projection::try_new(columns, Arc::new(top)).map(LogicalPlan::Projection).map_err(failed)
}

fn node(
    input: Arc<LogicalPlan>,
    function: RankFunction,
    call: &WindowFunction,
    (from, to): (u64, u64),
    number: (Option<datafusion_common::TableReference>, arrow::datatypes::FieldRef),
    at: At,
) -> Result<LogicalPlan, SqlError> {
    let place = place_of(call, at);
    let roles = roles(&input);
    let role = |expr: &Expr| of_expr(expr, &input, &roles);
    let partition = call.params.partition_by.clone();
    let mut order = call.params.order_by.clone();
    let Some(leading) = order.first() else {
        let message = "the number of a row needs an order; add ORDER BY to the OVER clause";
        return Err(SqlError::new(ErrorCode::Type, place, message));
    };
    let by_arrival = role(&leading.expr) == Role::ProcessingTime;
    let newest_first = by_arrival && !leading.asc;
    if by_arrival {
        order.clear();
        if function != RankFunction::RowNumber {
            let message = "RANK and DENSE_RANK over processing time would be ROW_NUMBER, because no two rows come at once; write that";
            return Err(SqlError::unsupported(place, message));
        }
    }
    let window_end = partition.iter().position(|expr| role(expr) == Role::WindowEnd);
    let schema = TopN::output_schema(input.schema(), &number).map_err(|e| SqlError::from_datafusion(&e, at))?;
    Ok(extension(TopN {
        input,
        function,
        partition,
        order,
        newest_first,
        from,
        to,
        window_end,
        number,
        at: place,
        schema,
    }))
}
