//! From the columns of a query to those of the table that it is written to: by position or by the named
//! columns, with the casts that Flink makes on its own. Called for each INSERT.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::{DFSchema, ExprSchema, ScalarValue};
use datafusion_expr::{Expr, LogicalPlan, Operator, Projection, cast, lit};
use datafusion_sql::sqlparser::ast::{Ident, Query, SelectItem, SetExpr, Spanned};
use mainstem_plan::{functions, sql_type_name};

use crate::catalog::Table;
use crate::error::{At, ErrorCode, SqlError};
use crate::query::column_exprs;
use crate::resolve::unique_without_case;
use crate::statement::InsertTarget;
use crate::suggest::advice;

/// The query's plan with a projection to the table's physical columns on top.
pub(crate) fn to_sink(
    plan: LogicalPlan,
    query: &Query,
    target: &InsertTarget,
    table: &Table,
) -> Result<LogicalPlan, SqlError> {
    let at = At::from(target.table.span);
    let fields = table.written.schema.fields();
    let targets = target_positions(target, table)?;
    let exprs = column_exprs(&plan);
    if exprs.len() != targets.len() {
        let names: Vec<&str> = targets.iter().map(|position| fields[*position].name().as_str()).collect();
        let message = format!(
            "table '{}' takes {} columns ({}), the query gives {}",
            table.spec.name,
            targets.len(),
            names.join(", "),
            exprs.len()
        );
        return Err(SqlError::new(ErrorCode::Type, at, message));
    }
    let places = item_places(query, exprs.len());
    let mut columns: Vec<Option<Expr>> = vec![None; fields.len()];
    for (index, (expr, position)) in exprs.into_iter().zip(targets).enumerate() {
        let given = plan.schema().field(index);
        let place = places.as_ref().map_or(at, |places| places[index].or(at));
        // DataFusion takes every whole number for a BIGINT, Flink takes it for an INT where it fits.
        let flink_type = match integer_bits(&plan, index) {
            Some(bits) if given.data_type().is_signed_integer() => integer_type(bits),
            _ => given.data_type().clone(),
        };
        let wanted = &fields[position];
        check_fit(given.name(), &flink_type, wanted, &table.spec.name, place)?;
        let same = given.data_type() == wanted.data_type();
        columns[position] = Some(if same { expr } else { converted(expr, given.data_type(), wanted.data_type()) });
    }
    let columns = columns.into_iter().zip(fields).map(|(column, field)| match column {
        Some(expr) => Ok(expr.alias(field.name())),
        None if field.is_nullable() => {
            Ok(cast(Expr::Literal(ScalarValue::Null, None), field.data_type().clone()).alias(field.name()))
        }
        None => {
            let message =
                format!("column '{}' of table '{}' is NOT NULL and must be written", field.name(), table.spec.name);
            Err(SqlError::new(ErrorCode::Type, at, message))
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let projection = Projection::try_new(columns, Arc::new(plan));
    projection.map(LogicalPlan::Projection).map_err(|error| SqlError::from_datafusion(&error, at))
}

/// The value in the type of the table's column. Fields of rows belong together by their order.
fn converted(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    let names = functions::field_names(to).filter(|names| functions::field_names(from).as_ref() != Some(names));
    let renamed = match names.zip(functions::registry().scalar(functions::RENAME_FIELDS)) {
        Some((names, function)) if *from != DataType::Null => function.call(vec![expr, lit(names)]),
        _ => expr,
    };
    cast(renamed, to.clone())
}

fn target_positions(target: &InsertTarget, table: &Table) -> Result<Vec<usize>, SqlError> {
    let schema = &table.written.schema;
    if target.columns.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut positions = Vec::new();
    for name in &target.columns {
        let position = target_position(name, table)?;
        if positions.contains(&position) {
            return Err(SqlError::new(
                ErrorCode::Name,
                name.span,
                format!("the column '{}' is given twice", name.value),
            ));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn target_position(name: &Ident, table: &Table) -> Result<usize, SqlError> {
    let schema = &table.written.schema;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let exact = names.iter().position(|known| *known == name.value);
    let found = match exact {
        Some(position) => Some(position),
        None => unique_without_case(&name.value, names.iter().copied(), name.span)?
            .and_then(|found| names.iter().position(|known| *known == found)),
    };
    found.ok_or_else(|| {
        let computed = table.schema.index_of(&name.value).is_ok();
        let message = if table.spec.schema.index_of(&name.value).is_ok() {
            format!("column '{}' of table '{}' is VIRTUAL and cannot be written", name.value, table.spec.name)
        } else if computed {
            format!("column '{}' of table '{}' is computed and cannot be written", name.value, table.spec.name)
        } else {
            format!(
                "table '{}' has no column '{}'{}",
                table.spec.name,
                name.value,
                advice(&name.value, "it has", &names)
            )
        };
        SqlError::new(ErrorCode::Name, name.span, message)
    })
}

/// Places of the query's columns, where they can be told one by one.
fn item_places(query: &Query, count: usize) -> Option<Vec<At>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let places = select.projection.iter().map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(At::from(expr.span())),
        _ => None,
    });
    places.collect::<Option<Vec<_>>>().filter(|places| places.len() == count)
}

fn check_fit(given: &str, from: &DataType, wanted: &Field, table: &str, at: At) -> Result<(), SqlError> {
    let to = wanted.data_type();
    if *from == DataType::Null && !wanted.is_nullable() {
        let message = format!("column '{}' of table '{table}' is NOT NULL, the query gives NULL", wanted.name());
        return Err(SqlError::new(ErrorCode::Type, at, message));
    }
    if from == to || implicit(from, to) {
        return Ok(());
    }
    let (from, to) = (sql_type_name(from), sql_type_name(to));
    let message = format!(
        "column '{}' of table '{table}' is of type {to}, the query gives {from}; write CAST({given} AS {to}) if that is meant",
        wanted.name()
    );
    Err(SqlError::new(ErrorCode::Type, at, message))
}

/// The width of the integer that a query's column is in Flink's typing, where it can be told: literals are as
/// narrow as INT allows, and arithmetic is as wide as its operands. A value that is too large after all fails
/// the job when it is cast.
fn integer_bits(plan: &LogicalPlan, column: usize) -> Option<u8> {
    if let LogicalPlan::Values(values) = plan {
        let mut bits = values.values.iter().map(|row| bits_of(&row[column], &DFSchema::empty()));
        return bits.try_fold(0, |widest, bits| Some(widest.max(bits?)));
    }
    let LogicalPlan::Projection(projection) = plan else { return None };
    let expr = &projection.expr[column];
    if let (LogicalPlan::Values(_), Expr::Column(renamed)) = (projection.input.as_ref(), expr.clone().unalias()) {
        return integer_bits(&projection.input, projection.input.schema().maybe_index_of_column(&renamed)?);
    }
    bits_of(expr, projection.input.schema())
}

fn bits_of(expr: &Expr, schema: &DFSchema) -> Option<u8> {
    match expr {
        Expr::Alias(alias) => bits_of(&alias.expr, schema),
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => Some(if i32::try_from(*value).is_ok() { 32 } else { 64 }),
        Expr::Negative(inner) => bits_of(inner, schema),
        Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => {
            Some(bits_of(&binary.left, schema)?.max(bits_of(&binary.right, schema)?))
        }
        // The casts that made both operands a BIGINT.
        Expr::Cast(widened) if *widened.field.data_type() == DataType::Int64 => bits_of(&widened.expr, schema),
        Expr::Column(column) => match schema.field_from_column(column).ok()?.data_type() {
            DataType::Int8 => Some(8),
            DataType::Int16 => Some(16),
            DataType::Int32 => Some(32),
            DataType::Int64 => Some(64),
            _ => None,
        },
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            branches.map(|branch| bits_of(branch, schema)).try_fold(0, |widest, bits| Some(widest.max(bits?)))
        }
        _ => None,
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

fn integer_type(bits: u8) -> DataType {
    match bits {
        8 => DataType::Int8,
        16 => DataType::Int16,
        32 => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// Whether Flink casts on its own: to wider numbers, between strings, between points in time.
fn implicit(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let width = |data_type: &DataType| match data_type {
        T::Int8 => Some(8),
        T::UInt8 => Some(9),
        T::Int16 => Some(16),
        T::UInt16 => Some(17),
        T::Int32 => Some(32),
        T::UInt32 => Some(33),
        T::Int64 => Some(64),
        // Some functions count in UInt64; no count gets near to the sign bit, and the cast would fail loudly.
        T::UInt64 => Some(64),
        _ => None,
    };
    let is_decimal = |data_type: &DataType| matches!(data_type, T::Decimal128(..) | T::Decimal256(..));
    let is_string = |data_type: &DataType| matches!(data_type, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let is_bytes =
        |data_type: &DataType| matches!(data_type, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_));
    let is_exact = width(from).is_some() || is_decimal(from);
    match to {
        _ if *from == T::Null || from.equals_datatype(to) => true,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => width(from).zip(width(to)).is_some_and(|(from, to)| from <= to),
        T::Float32 => is_exact,
        T::Float64 => is_exact || *from == T::Float32,
        T::Decimal128(..) => is_exact || matches!(from, T::Float32 | T::Float64),
        T::Utf8 => is_string(from),
        T::Binary => is_bytes(from),
        T::Timestamp(..) => matches!(from, T::Timestamp(..) | T::Date32),
        T::Date32 => matches!(from, T::Timestamp(_, None)),
        T::Time32(_) => matches!(from, T::Time32(_) | T::Time64(_) | T::Timestamp(_, None)),
        T::List(to) => {
            matches!(from, T::List(from) if from.data_type() == to.data_type() || implicit(from.data_type(), to.data_type()))
        }
        T::Struct(to) => match from {
            T::Struct(from) if from.len() == to.len() => from
                .iter()
                .zip(to)
                .all(|(from, to)| from.data_type() == to.data_type() || implicit(from.data_type(), to.data_type())),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn only_casts_that_lose_nothing_are_made_unasked() {
        assert!(implicit(&DataType::Int32, &DataType::Int64));
        assert!(!implicit(&DataType::Int64, &DataType::Int32));
        assert!(implicit(&DataType::UInt64, &DataType::Int64));
        assert!(!implicit(&DataType::Float64, &DataType::Float32));
        assert!(implicit(&DataType::Decimal128(24, 3), &DataType::Decimal128(23, 3)));
        assert!(!implicit(&DataType::Utf8, &DataType::Int64));
        assert!(!implicit(&DataType::Int64, &DataType::Utf8));
        let local = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        assert!(implicit(&DataType::Timestamp(TimeUnit::Microsecond, None), &local));
    }
}
