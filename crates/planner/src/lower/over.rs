//! OVER clauses to operators: one for each partition, order and frame.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, NullTreatment, WindowFunction, WindowFunctionDefinition};
use datafusion_expr::{Expr as LogicalExpr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, cast};
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::functions::registry;
use mainstem_plan::operator::{Frame, Operator, OperatorKind, OverAggregate, OverCall, OverOrder};

use super::sort::sort_key;
use super::{Lowering, Stream, arrow_schema};
use crate::error::{At, ErrorCode, SqlError};
use crate::order::{numbering, place_of, timing, without_alias};
use crate::window::interval::milliseconds;

/// Calls over one partition, order and frame.
struct Group<'a> {
    /// The call that speaks for all.
    first: &'a WindowFunction,
    /// Absent while no call of the group has a frame that matters.
    frame: Option<Frame>,
    /// Positions among the window's expressions.
    calls: Vec<(usize, &'a WindowFunction)>,
}

impl Lowering {
    pub(super) fn over(&mut self, window: &Window) -> Result<Stream, SqlError> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (nth, expr) in window.window_expr.iter().enumerate() {
            let LogicalExpr::WindowFunction(call) = without_alias(expr) else {
                return Err(self.internal(format!("'{expr}' is no OVER clause")));
            };
            let at = place_of(call, self.at);
            let frame = if has_frame(call) { Some(frame_of(call, window.input.schema(), at)?) } else { None };
            let same = |group: &&mut Group<'_>| {
                let params = &group.first.params;
                let same =
                    (&params.partition_by, &params.order_by) == (&call.params.partition_by, &call.params.order_by);
                same && (group.frame.is_none() || frame.is_none() || group.frame == frame)
            };
            match groups.iter_mut().find(same) {
                Some(group) => {
                    group.frame = group.frame.or(frame);
                    group.calls.push((nth, call));
                }
                None => groups.push(Group { first: call, frame, calls: vec![(nth, call)] }),
            }
        }
        let input = self.whole_input(&window.input)?;
        let width = window.input.schema().fields().len();
        let mut columns: Vec<usize> = (0..width).collect();
        columns.resize(width + window.window_expr.len(), 0);
        let mut operator = input;
        for group in &groups {
            let first;
            (operator, first) = self.over_group(window, group, operator)?;
            for (place, (nth, _)) in group.calls.iter().enumerate() {
                columns[width + nth] = first + place;
            }
        }
        Ok(Stream { operator, columns })
    }

    /// Adds the operator of a group; gives it and the position of its first result.
    fn over_group(
        &mut self,
        window: &Window,
        group: &Group<'_>,
        input: OperatorId,
    ) -> Result<(OperatorId, usize), SqlError> {
        let schema = window.input.schema();
        let params = &group.first.params;
        let at = place_of(group.first, self.at);
        // Everything that is to be a column: partition, order, then what LAG reads.
        let lags: Vec<Option<LagArguments>> =
            group.calls.iter().map(|(_, call)| lag_arguments(call, schema, at)).collect::<Result<_, _>>()?;
        let lag_exprs = lags.iter().flatten().flat_map(|lag| std::iter::once(&lag.value).chain(&lag.default));
        let exprs: Vec<&LogicalExpr> =
            params.partition_by.iter().chain(params.order_by.iter().map(|sort| &sort.expr)).chain(lag_exprs).collect();
        let (input, found) = self.with_columns(input, schema, &exprs)?;
        let (partition, rest) = found.split_at(params.partition_by.len());
        let (order, lagged) = rest.split_at(params.order_by.len());
        let mut lagged = lagged.iter().copied();
        let input_schema = self.graph.node(input).op.schema.clone();
        let mut calls = Vec::new();
        for ((_, call), lag) in group.calls.iter().zip(&lags) {
            calls.push(match (lag, numbering_of(call)) {
                (Some(lag), _) => OverCall::Lag {
                    column: lagged.next().ok_or_else(|| self.internal("LAG without a column".to_owned()))?,
                    offset: lag.offset,
                    default: lag.default.as_ref().and_then(|_| lagged.next()),
                },
                (None, Some(function)) => OverCall::Rank(function),
                (None, None) => OverCall::Aggregate(self.over_aggregate(call, schema, at)?),
            });
        }
        let keys: Vec<_> = params.order_by.iter().zip(order).map(|(sort, column)| sort_key(sort, *column)).collect();
        let by = self.over_order(window, group, input, order, &calls, at)?;
        let over = OverAggregate {
            partition: partition.to_vec(),
            order: keys,
            by,
            frame: group.frame.unwrap_or(Frame::Rows { preceding: None }),
            calls,
            input_schema: input_schema.clone(),
            ttl_ms: self.ttl_of(&window.input),
        };
        let mut fields: Vec<Arc<Field>> = input_schema.fields().iter().cloned().collect();
        let first = fields.len();
        let typed = arrow_schema(&window.schema);
        for (nth, call) in &group.calls {
            let field = typed.field(schema.fields().len() + nth);
            let name = free_name(call.fun.name(), &fields);
            fields.push(Arc::new(field.clone().with_name(name).with_nullable(true)));
        }
        let keys = over.partition.clone();
        let op = Operator::new(Arc::new(Schema::new(fields)), OperatorKind::OverAggregate(over));
        let operator = self.add("over", op, &[(input, Exchange::Hash { keys })]).map_err(|error| error.or_at(at))?;
        Ok((operator, first))
    }

    /// When rows are put in order.
    fn over_order(
        &self,
        window: &Window,
        group: &Group<'_>,
        input: OperatorId,
        order: &[usize],
        calls: &[OverCall],
        at: At,
    ) -> Result<OverOrder, SqlError> {
        let leads = calls.iter().any(|call| matches!(call, OverCall::Lag { offset, .. } if *offset < 0));
        let changes = self.graph.node(input).op.changes != ChangeMode::Append;
        let wrong = |message: String| Err(SqlError::unsupported(at, message));
        match timing(group.first, &window.input) {
            Some(OverOrder::ProcessingTime) if changes => wrong(format!(
                "OVER by processing time needs rows that never change, and '{}' changes rows that it gave before",
                self.origin_of_updates(input)
            )),
            Some(OverOrder::ProcessingTime) if leads => wrong(
                "LEAD over processing time would wait for rows for ever; order by a column of the rows".to_owned(),
            ),
            Some(OverOrder::ProcessingTime) if !group.first.params.order_by[0].asc => {
                wrong("OVER by processing time goes from the oldest row to the newest; take out DESC".to_owned())
            }
            Some(OverOrder::ProcessingTime) => Ok(OverOrder::ProcessingTime),
            Some(OverOrder::EventTime(_)) if !changes && !leads => Ok(OverOrder::EventTime(order[0])),
            _ => {
                let number = group.calls.iter().find_map(|(_, call)| numbering_of(call));
                if let (Some(number), Some(source)) = (number, self.unbounded_source(input)) {
                    let name = number.name();
                    return wrong(format!(
                        "{name} over all rows of '{source}', which has no end, would be given again for all rows behind each new one; keep the first rows of each partition with a condition such as rn <= 10, or order by event time, ascending"
                    ));
                }
                Ok(OverOrder::Updating)
            }
        }
    }

    fn over_aggregate(&self, call: &WindowFunction, schema: &DFSchema, at: At) -> Result<AggregateCall, SqlError> {
        let func = match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => Some(function.clone()),
            // Over the rows of a frame in order these are what the aggregates of the same name are.
            WindowFunctionDefinition::WindowUDF(function)
                if matches!(function.name(), "first_value" | "last_value" | "nth_value") =>
            {
                registry().aggregate(function.name())
            }
            WindowFunctionDefinition::WindowUDF(_) => None,
        };
        let Some(func) = func else {
            let name = call.fun.name().to_uppercase();
            let message = format!("{name} needs to know how many rows there will be, which a stream does not tell");
            return Err(SqlError::unsupported(at, message));
        };
        let params = &call.params;
        let aggregate = LogicalExpr::AggregateFunction(AggregateFunction::new_udf(
            func,
            params.args.clone(),
            params.distinct,
            params.filter.clone(),
            vec![],
            params.null_treatment,
        ));
        let name = call.fun.name().to_owned();
        AggregateCall::from_logical(&aggregate, schema, name).map_err(|error| self.plan_error(&error))
    }
}

fn numbering_of(call: &WindowFunction) -> Option<mainstem_plan::operator::RankFunction> {
    numbering(&LogicalExpr::WindowFunction(Box::new(call.clone()))).map(|(function, _)| function)
}

/// Whether the frame matters to the function.
fn has_frame(call: &WindowFunction) -> bool {
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => true,
        WindowFunctionDefinition::WindowUDF(function) => {
            matches!(function.name(), "first_value" | "last_value" | "nth_value")
        }
    }
}

fn free_name(name: &str, fields: &[Arc<Field>]) -> String {
    let mut free = name.to_owned();
    let mut number = 1;
    while fields.iter().any(|field| *field.name() == free) {
        number += 1;
        free = format!("{name} {number}");
    }
    free
}

fn frame_of(call: &WindowFunction, schema: &DFSchema, at: At) -> Result<Frame, SqlError> {
    use datafusion_expr::ExprSchemable;
    let WindowFrame { units, start_bound, end_bound, .. } = &call.params.window_frame;
    let wrong = |message: &str| Err(SqlError::unsupported(at, message));
    let Some(order) = call.params.order_by.first() else {
        return wrong("OVER needs ORDER BY: without an order every row would see all others, also those to come");
    };
    if *end_bound != WindowFrameBound::CurrentRow {
        return wrong("a frame must end at CURRENT ROW: ROWS or RANGE BETWEEN ... PRECEDING AND CURRENT ROW");
    }
    let preceding = match start_bound {
        WindowFrameBound::Preceding(value) if value.is_null() => None,
        WindowFrameBound::Preceding(value) => Some(value),
        WindowFrameBound::CurrentRow => Some(&ScalarValue::UInt64(Some(0))),
        WindowFrameBound::Following(_) => return wrong("a frame cannot begin behind the current row"),
    };
    match units {
        WindowFrameUnits::Rows => {
            let number = |value: &ScalarValue| value.cast_to(&DataType::UInt64).ok();
            let preceding = match preceding.map(number) {
                None => None,
                Some(Some(ScalarValue::UInt64(Some(rows)))) => Some(rows),
                Some(_) => return wrong("the frame's number of rows must be a constant"),
            };
            Ok(Frame::Rows { preceding })
        }
        WindowFrameUnits::Range => {
            let Some(value) = preceding else { return Ok(Frame::Range { preceding: None }) };
            let data_type = order.expr.get_type(schema).map_err(|error| SqlError::from_datafusion(&error, at))?;
            let distance = match (&data_type, value) {
                (_, ScalarValue::UInt64(Some(0))) => 0,
                (DataType::Timestamp(..) | DataType::Date32, value) => {
                    milliseconds(&LogicalExpr::Literal(value.clone(), None), "the distance of RANGE", at)?
                }
                (data_type, value) if data_type.is_integer() && *data_type != DataType::UInt64 => {
                    match value.cast_to(&DataType::Int64) {
                        Ok(ScalarValue::Int64(Some(distance))) => distance,
                        _ => return wrong("the distance of RANGE must be a constant whole number"),
                    }
                }
                _ => return wrong("RANGE with a distance needs an order by a time or a whole number; use ROWS"),
            };
            Ok(Frame::Range { preceding: Some(distance) })
        }
        WindowFrameUnits::Groups => wrong("GROUPS is not supported in a frame; use ROWS or RANGE"),
    }
}

/// The arguments of LAG and LEAD.
struct LagArguments {
    value: LogicalExpr,
    /// Rows before; negative: behind.
    offset: i64,
    default: Option<LogicalExpr>,
}

fn lag_arguments(call: &WindowFunction, schema: &DFSchema, at: At) -> Result<Option<LagArguments>, SqlError> {
    use datafusion_expr::ExprSchemable;
    let sign = match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) if function.name() == "lag" => 1,
        WindowFunctionDefinition::WindowUDF(function) if function.name() == "lead" => -1,
        _ => return Ok(None),
    };
    let name = call.fun.name().to_uppercase();
    let wrong = |message: String| Err(SqlError::unsupported(at, message));
    if call.params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return wrong(format!("{name} with IGNORE NULLS is not supported"));
    }
    if call.params.filter.is_some() || call.params.distinct {
        return wrong(format!("{name} takes neither FILTER nor DISTINCT"));
    }
    if call.params.order_by.is_empty() {
        return wrong(format!("{name} needs ORDER BY in its OVER clause"));
    }
    let Some(value) = call.params.args.first().cloned() else {
        return Err(SqlError::new(ErrorCode::Type, at, format!("{name} takes a column")));
    };
    let offset = match call.params.args.get(1).map(|offset| offset.clone().unalias()) {
        None => 1,
        Some(LogicalExpr::Literal(number, _)) => match number.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(number))) => number,
            _ => return wrong(format!("the distance of {name} must be a constant whole number")),
        },
        Some(_) => return wrong(format!("the distance of {name} must be a constant whole number")),
    };
    let data_type = value.get_type(schema).map_err(|error| SqlError::from_datafusion(&error, at))?;
    let default = call
        .params
        .args
        .get(2)
        .cloned()
        .filter(|default| !matches!(default, LogicalExpr::Literal(value, _) if value.is_null()));
    let default = default.map(|default| match default.get_type(schema) {
        Ok(same) if same == data_type => default,
        _ => cast(default, data_type.clone()),
    });
    Ok(Some(LagArguments { value, offset: sign * offset, default }))
}
