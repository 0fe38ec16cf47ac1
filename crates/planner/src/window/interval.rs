//! Lengths of windows: constant intervals as milliseconds, and the windows that they make. Called by the
//! window table functions and the functions of GROUP BY.

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use mainstem_plan::operator::WindowKind;

use crate::error::{At, ErrorCode, SqlError};

const MS_PER_DAY: i64 = 86_400_000;
const NS_PER_MS: i64 = 1_000_000;
/// Longest window, in milliseconds: a thousand years, so that sums with timestamps cannot overflow.
const LENGTH_MS_MAX: i64 = 1_000 * 366 * MS_PER_DAY;

/// Whether the expression is of an interval type.
pub(crate) fn is_interval(expr: &Expr) -> bool {
    constant(expr).is_some()
}

/// The milliseconds of a constant interval; `what` names it in messages.
pub(crate) fn milliseconds(expr: &Expr, what: &str, at: At) -> Result<i64, SqlError> {
    let wrong = |message: String| SqlError::new(ErrorCode::Window, at, message);
    let interval = constant(expr).ok_or_else(|| not_constant(what, at))?;
    if interval.months != 0 {
        return Err(wrong(format!("{what} is in months or years, whose lengths differ; give it in days or less")));
    }
    if interval.nanoseconds % NS_PER_MS != 0 {
        return Err(wrong(format!("{what} is not a whole number of milliseconds")));
    }
    let total = i64::from(interval.days) * MS_PER_DAY + interval.nanoseconds / NS_PER_MS;
    if total.abs() > LENGTH_MS_MAX {
        return Err(wrong(format!("{what} is longer than a thousand years")));
    }
    Ok(total)
}

/// The error for a length that depends on a row.
pub(crate) fn not_constant(what: &str, at: At) -> SqlError {
    SqlError::new(ErrorCode::Window, at, format!("{what} must be a constant interval such as INTERVAL '10' SECOND"))
}

struct Interval {
    months: i32,
    days: i32,
    nanoseconds: i64,
}

fn constant(expr: &Expr) -> Option<Interval> {
    let simplified = ExprSimplifier::new(SimplifyContext::default()).simplify(expr.clone()).ok()?;
    let Expr::Literal(value, _) = simplified else { return None };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(value)) => {
            Some(Interval { months: value.months, days: value.days, nanoseconds: value.nanoseconds })
        }
        ScalarValue::IntervalDayTime(Some(value)) => {
            Some(Interval { months: 0, days: value.days, nanoseconds: i64::from(value.milliseconds) * NS_PER_MS })
        }
        ScalarValue::IntervalYearMonth(Some(months)) => Some(Interval { months, days: 0, nanoseconds: 0 }),
        _ => None,
    }
}

/// The kinds of windows that SQL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Shape {
    /// From the name of its function.
    pub(crate) fn from_name(name: &str) -> Option<Shape> {
        match name.to_ascii_lowercase().as_str() {
            "tumble" => Some(Shape::Tumble),
            "hop" => Some(Shape::Hop),
            "cumulate" => Some(Shape::Cumulate),
            "session" => Some(Shape::Session),
            _ => None,
        }
    }

    /// Names of its intervals, in order. The first ones must be there, an offset need not.
    pub(crate) fn intervals(self) -> &'static [&'static str] {
        match self {
            Shape::Tumble => &["SIZE", "OFFSET"],
            Shape::Hop => &["SLIDE", "SIZE", "OFFSET"],
            Shape::Cumulate => &["STEP", "SIZE", "OFFSET"],
            Shape::Session => &["GAP"],
        }
    }

    /// How many intervals must be there.
    pub(crate) fn required(self) -> usize {
        match self {
            Shape::Tumble | Shape::Session => 1,
            Shape::Hop | Shape::Cumulate => 2,
        }
    }

    /// The windows with these intervals (in milliseconds, in the order of [`Shape::intervals`]), or what is
    /// wrong with them.
    pub(crate) fn windows(self, lengths: &[i64], at: At) -> Result<WindowKind, SqlError> {
        let name = format!("{self:?}").to_uppercase();
        let wrong = |message: String| Err(SqlError::new(ErrorCode::Window, at, message));
        let required = self.required();
        if let Some(position) = lengths[..required].iter().position(|length| *length <= 0) {
            return wrong(format!("the {} of {name} must be positive", self.intervals()[position].to_lowercase()));
        }
        let offset_ms = lengths.get(required).copied().unwrap_or(0);
        let multiple = |part: &str, part_ms: i64, size_ms: i64| {
            (size_ms % part_ms == 0).then_some(()).ok_or_else(|| {
                let message =
                    format!("the size of {name} ({size_ms} ms) must be a multiple of its {part} ({part_ms} ms)");
                SqlError::new(ErrorCode::Window, at, message)
            })
        };
        Ok(match self {
            Shape::Tumble => WindowKind::Tumble { size_ms: lengths[0], offset_ms },
            Shape::Session => WindowKind::Session { gap_ms: lengths[0] },
            Shape::Hop => {
                multiple("slide", lengths[0], lengths[1])?;
                WindowKind::Hop { slide_ms: lengths[0], size_ms: lengths[1], offset_ms }
            }
            Shape::Cumulate => {
                multiple("step", lengths[0], lengths[1])?;
                WindowKind::Cumulate { step_ms: lengths[0], size_ms: lengths[1], offset_ms }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use datafusion_common::arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    fn interval(months: i32, days: i32, nanoseconds: i64) -> Expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds })), None)
    }

    #[test]
    fn only_fixed_lengths_in_whole_milliseconds_are_taken() {
        let read = |expr: &Expr| milliseconds(expr, "the size", At::NOWHERE);
        assert_eq!(read(&interval(0, 1, 5_000_000)), Ok(86_400_005));
        assert!(read(&interval(1, 0, 0)).is_err());
        assert!(read(&interval(0, 0, 5)).is_err());
        assert!(read(&interval(0, i32::MAX, 0)).is_err());
    }

    #[test]
    fn sizes_are_multiples_of_slides() {
        assert!(Shape::Hop.windows(&[2_000, 10_000], At::NOWHERE).is_ok());
        let error = Shape::Hop.windows(&[3_000, 10_000], At::NOWHERE).unwrap_err();
        assert_eq!(error.message, "the size of HOP (10000 ms) must be a multiple of its slide (3000 ms)");
        assert!(Shape::Tumble.windows(&[0], At::NOWHERE).is_err());
        assert_eq!(
            Shape::Tumble.windows(&[10, -3], At::NOWHERE),
            Ok(WindowKind::Tumble { size_ms: 10, offset_ms: -3 })
        );
    }
}
