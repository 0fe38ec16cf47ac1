//! Forms of Flink's expressions that DataFusion's planner has no ear for, as forms that it knows: intervals of two
//! fields or with a precision, `FLOOR(t TO unit)`, numbers with an exponent. Called by the statement layer and by
//! `resolve.rs`.

use std::str::FromStr;

use datafusion_sql::sqlparser::ast::{
    CastKind, CeilFloorKind, DataType, DateTimeField, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Spanned, Value,
};

use crate::error::{At, ErrorCode, SqlError};

/// Makes `INTERVAL '1 12:00' DAY TO MINUTE` an `INTERVAL '1 DAY 12 HOUR 0 MINUTE'`, and forgets precisions, which say how
/// many digits a field may have.
pub(crate) fn interval(expr: &mut Expr) -> Result<(), SqlError> {
    let Expr::Interval(interval) = expr else { return Ok(()) };
    interval.leading_precision = None;
    interval.fractional_seconds_precision = None;
    let (Some(first), Some(last)) = (interval.leading_field.clone(), interval.last_field.clone()) else {
        return Ok(());
    };
    let at = At::from(interval.value.span());
    let Interval { value, .. } = interval;
    let Expr::Value(text) = value.as_mut() else {
        return Err(SqlError::unsupported(at, format!("an interval {first} TO {last} needs a text between quotes")));
    };
    let (Value::SingleQuotedString(written), Some(units)) = (&text.value, units(&first, &last)) else {
        return Err(SqlError::unsupported(at, format!("intervals {first} TO {last} are not supported")));
    };
    let Some(parts) = parts(written, units) else {
        let example = example(units);
        let message = format!("'{written}' is no interval {first} TO {last}; write it like '{example}'");
        return Err(SqlError::new(ErrorCode::Syntax, at, message));
    };
    text.value = Value::SingleQuotedString(parts);
    (interval.leading_field, interval.last_field) = (None, None);
    Ok(())
}

/// Makes `FLOOR(t TO unit)` and `CEIL(t TO unit)` calls, and numbers such as `1e3` DOUBLE, as in Flink.
pub(crate) fn call(expr: &mut Expr) {
    use DateTimeField::NoDateTime;
    match expr {
        Expr::Floor { expr: of, field: CeilFloorKind::DateTimeField(unit) } if *unit != NoDateTime => {
            *expr = rounded("flink_floor", of.as_ref().clone(), unit);
        }
        Expr::Ceil { expr: of, field: CeilFloorKind::DateTimeField(unit) } if *unit != NoDateTime => {
            *expr = rounded("flink_ceil", of.as_ref().clone(), unit);
        }
        Expr::Value(value) => {
            if let Value::Number(text, _) = &value.value
                && text.contains(['e', 'E'])
                && f64::from_str(text).is_ok_and(f64::is_finite)
            {
                let text = Expr::Value(Value::SingleQuotedString(text.clone()).with_span(value.span));
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(text),
                    data_type: DataType::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
        }
        _ => {}
    }
}

fn rounded(function: &str, of: Expr, unit: &DateTimeField) -> Expr {
    let span = of.span();
    let unit = Expr::Value(Value::SingleQuotedString(unit.to_string().to_uppercase()).with_span(span));
    let args = [unit, of].map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).into();
    Expr::Function(Function {
        name: ObjectName::from(Ident::with_span(span, function)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// The fields from the first to the last one, each with what stands behind it.
type Units = &'static [(&'static str, char)];

fn units(first: &DateTimeField, last: &DateTimeField) -> Option<Units> {
    const MONTHS: Units = &[("YEAR", '-'), ("MONTH", ' ')];
    const SECONDS: Units = &[("DAY", ' '), ("HOUR", ':'), ("MINUTE", ':'), ("SECOND", ' ')];
    let place = |field: &DateTimeField, units: Units| {
        let name = field.to_string().to_uppercase();
        units.iter().position(|(unit, _)| *unit == name || format!("{unit}S") == name)
    };
    [MONTHS, SECONDS].into_iter().find_map(|units| {
        let (first, last) = (place(first, units)?, place(last, units)?);
        (first < last).then(|| &units[first..=last])
    })
}

/// Each number with its unit; `None` where the text does not have these fields.
fn parts(written: &str, units: Units) -> Option<String> {
    let written = written.trim();
    let (sign, mut rest) = match written.strip_prefix(['-', '+']) {
        Some(rest) => (if written.starts_with('-') { "-" } else { "" }, rest),
        None => ("", written),
    };
    let mut parts = Vec::new();
    for (place, (unit, separator)) in units.iter().enumerate() {
        let is_last = place + 1 == units.len();
        let (number, behind) = if is_last { (rest, "") } else { rest.split_once(*separator)? };
        rest = behind.trim_start();
        let digits = match number.split_once('.') {
            Some((whole, fraction)) if *unit == "SECOND" => [whole, fraction].concat(),
            _ => number.to_owned(),
        };
        if number.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
        parts.push(format!("{sign}{number} {unit}"));
    }
    Some(parts.join(" "))
}

fn example(units: Units) -> String {
    let mut text = String::new();
    for (place, (_, separator)) in units.iter().enumerate() {
        text.push_str(&(place + 1).to_string());
        if place + 1 < units.len() {
            text.push(*separator);
        }
    }
    text
}
