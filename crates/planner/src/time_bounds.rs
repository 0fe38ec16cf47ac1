//! What a join's condition says of the distance in time between rows of its two sides. Read by the lowering, which
//! chooses the operator by it, and by `time_attribute.rs`, because behind a join that is bounded in time the event
//! time of both sides is still event time.

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion_common::ScalarValue;
use mainstem_plan::expr::{BinaryOperator, Expr};

const NANOS_PER_MS: i128 = 1_000_000;

/// `right + lower <= left <= right + upper`, for one time of each side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TimeBounds {
    /// Position of the time in the left side.
    pub(crate) left: usize,
    /// Position of the time in the right side.
    pub(crate) right: usize,
    pub(crate) lower_ms: i64,
    pub(crate) upper_ms: i64,
    /// What the condition says besides.
    pub(crate) rest: Option<Expr>,
}

/// The two sides of a join.
pub(crate) struct Sides<'a> {
    /// Columns of the left, then of the right side.
    pub(crate) schema: &'a Schema,
    /// How many of them are the left side's.
    pub(crate) left_width: usize,
    /// Which columns the watermark follows.
    pub(crate) is_time: &'a [bool],
}

/// What one comparison says: bounds of left minus right time, in nanoseconds.
struct Comparison {
    left: usize,
    right: usize,
    lower: Option<i128>,
    upper: Option<i128>,
    /// Whether the times are whole milliseconds, so that the bounds say all that the comparison does.
    exact: bool,
}

/// The bounds of a condition over both sides, where it bounds a pair of times from below and from above.
/// `equal` are pairs of columns, by position in their sides, that the keys of the join make equal.
pub(crate) fn find(sides: &Sides<'_>, equal: &[(usize, usize)], condition: Option<&Expr>) -> Option<TimeBounds> {
    let mut conjuncts = Vec::new();
    condition.iter().for_each(|condition| split(condition, &mut conjuncts));
    let compared: Vec<Vec<Comparison>> = conjuncts.iter().map(|conjunct| comparisons(sides, conjunct)).collect();
    let equal = equal.iter().filter(|(left, right)| sides.is_time[*left] && sides.is_time[sides.left_width + right]);
    let equal: Vec<Comparison> = equal
        .map(|(left, right)| {
            let right = sides.left_width + right;
            Comparison { left: *left, right, lower: Some(0), upper: Some(0), exact: true }
        })
        .collect();
    let all = || compared.iter().flatten().chain(&equal);
    let bounds_of = |left: usize, right: usize| {
        let of_pair = || all().filter(move |found| found.left == left && found.right == right);
        // A comparison of parts of milliseconds may say a little more or less than one of milliseconds.
        let lower = |found: &Comparison| Some(found.lower?.div_euclid(NANOS_PER_MS) - i128::from(!found.exact));
        let upper = |found: &Comparison| Some(-(-found.upper?).div_euclid(NANOS_PER_MS) + i128::from(!found.exact));
        let (lower, upper) = (of_pair().filter_map(lower).max()?, of_pair().filter_map(upper).min()?);
        Some((i64::try_from(lower).ok()?, i64::try_from(upper).ok()?))
    };
    let (left, right, (lower_ms, upper_ms)) =
        all().find_map(|found| Some((found.left, found.right, bounds_of(found.left, found.right)?)))?;
    let said = |comparisons: &Vec<Comparison>| {
        !comparisons.is_empty()
            && comparisons.iter().all(|found| found.exact && (found.left, found.right) == (left, right))
    };
    let rest = conjuncts.into_iter().zip(&compared).filter(|(_, compared)| !said(compared)).map(|(expr, _)| expr);
    let rest = rest.cloned().reduce(|left, right| binary(left, BinaryOperator::And, right));
    Some(TimeBounds { left, right: right - sides.left_width, lower_ms, upper_ms, rest })
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Binary { left: Box::new(left), op, right: Box::new(right) }
}

fn split<'a>(expr: &'a Expr, conjuncts: &mut Vec<&'a Expr>) {
    match expr {
        Expr::Binary { left, op: BinaryOperator::And, right } => {
            split(left, conjuncts);
            split(right, conjuncts);
        }
        other => conjuncts.push(other),
    }
}

/// What a conjunct says of distances in time: all that it says, or nothing.
fn comparisons(sides: &Sides<'_>, conjunct: &Expr) -> Vec<Comparison> {
    let found = match conjunct {
        Expr::Binary { left, op, right } => vec![comparison(sides, left, *op, right)],
        Expr::Between { expr, negated: false, low, high } => vec![
            comparison(sides, expr, BinaryOperator::GtEq, low),
            comparison(sides, expr, BinaryOperator::LtEq, high),
        ],
        _ => Vec::new(),
    };
    found.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn comparison(sides: &Sides<'_>, a: &Expr, op: BinaryOperator, b: &Expr) -> Option<Comparison> {
    use BinaryOperator as B;
    let ((a, a_offset), (b, b_offset)) = (shifted(sides, a)?, shifted(sides, b)?);
    let (left, right, op, distance) = match (a < sides.left_width, b < sides.left_width) {
        (true, false) => (a, b, op, b_offset - a_offset),
        (false, true) => {
            let turned = match op {
                B::Lt => B::Gt,
                B::LtEq => B::GtEq,
                B::Gt => B::Lt,
                B::GtEq => B::LtEq,
                other => other,
            };
            (b, a, turned, a_offset - b_offset)
        }
        _ => return None,
    };
    let whole =
        |column: usize| matches!(sides.schema.field(column).data_type(), DataType::Timestamp(TimeUnit::Millisecond, _));
    let exact = whole(left) && whole(right) && distance % NANOS_PER_MS == 0;
    let step = if exact { NANOS_PER_MS } else { 0 };
    let (lower, upper) = match op {
        B::Eq => (Some(distance), Some(distance)),
        B::Lt => (None, Some(distance - step)),
        B::LtEq => (None, Some(distance)),
        B::Gt => (Some(distance + step), None),
        B::GtEq => (Some(distance), None),
        _ => return None,
    };
    Some(Comparison { left, right, lower, upper, exact })
}

/// The time column that an expression is, and what it adds to it (ns).
fn shifted(sides: &Sides<'_>, expr: &Expr) -> Option<(usize, i128)> {
    match expr {
        Expr::Column(column) => sides.is_time.get(*column)?.then_some((*column, 0)),
        Expr::Cast { expr, to } => {
            let from = expr.data_type(sides.schema).ok()?;
            keeps_time(&from, to).then(|| shifted(sides, expr))?
        }
        Expr::Binary { left, op: BinaryOperator::Plus, right } => match (interval(left), interval(right)) {
            (None, Some(added)) => shifted(sides, left).map(|(column, offset)| (column, offset + added)),
            (Some(added), None) => shifted(sides, right).map(|(column, offset)| (column, offset + added)),
            _ => None,
        },
        Expr::Binary { left, op: BinaryOperator::Minus, right } => {
            let taken = interval(right)?;
            shifted(sides, left).map(|(column, offset)| (column, offset - taken))
        }
        _ => None,
    }
}

/// Whether a cast changes only how finely a time is told.
fn keeps_time(from: &DataType, to: &DataType) -> bool {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match (from, to) {
        (DataType::Timestamp(from, from_zone), DataType::Timestamp(to, to_zone)) => {
            digits(to) >= digits(from) && from_zone == to_zone
        }
        _ => false,
    }
}

/// The nanoseconds of an interval of fixed length.
fn interval(expr: &Expr) -> Option<i128> {
    let Expr::Literal(literal) = expr else { return None };
    const DAY: i128 = 86_400_000 * NANOS_PER_MS;
    match literal.0 {
        ScalarValue::IntervalMonthDayNano(Some(value)) if value.months == 0 => {
            Some(i128::from(value.days) * DAY + i128::from(value.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(value)) => {
            Some(i128::from(value.days) * DAY + i128::from(value.milliseconds) * NANOS_PER_MS)
        }
        ScalarValue::DurationSecond(Some(value)) => Some(i128::from(value) * 1_000 * NANOS_PER_MS),
        ScalarValue::DurationMillisecond(Some(value)) => Some(i128::from(value) * NANOS_PER_MS),
        ScalarValue::DurationMicrosecond(Some(value)) => Some(i128::from(value) * 1_000),
        ScalarValue::DurationNanosecond(Some(value)) => Some(i128::from(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, IntervalMonthDayNano};

    use super::*;

    fn ms(ms: i64) -> Expr {
        Expr::literal(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, ms * 1_000_000))))
    }

    fn time(unit: TimeUnit) -> Field {
        Field::new("t", DataType::Timestamp(unit, None), true)
    }

    /// Two sides of a number and a time each.
    fn bounds(unit: TimeUnit, condition: &Expr) -> Option<TimeBounds> {
        let number = || Field::new("n", DataType::Int64, true);
        let schema = Schema::new(vec![number(), time(TimeUnit::Millisecond), number(), time(unit)]);
        let sides = Sides { schema: &schema, left_width: 2, is_time: &[false, true, false, true] };
        find(&sides, &[], Some(condition))
    }

    fn and(left: Expr, right: Expr) -> Expr {
        binary(left, BinaryOperator::And, right)
    }

    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, Minus, NotEq, Plus};
    const L: Expr = Expr::Column(1);
    const R: Expr = Expr::Column(3);

    #[test]
    fn comparisons_of_either_direction_bound_the_distance() {
        // r <= l + 5 s AND l < r + 2 s.
        let condition = and(binary(R, LtEq, binary(L, Plus, ms(5_000))), binary(L, Lt, binary(R, Plus, ms(2_000))));
        let expected = TimeBounds { left: 1, right: 1, lower_ms: -5_000, upper_ms: 1_999, rest: None };
        assert_eq!(bounds(TimeUnit::Millisecond, &condition), Some(expected));
        let between = Expr::Between {
            expr: Box::new(R),
            negated: false,
            low: Box::new(binary(L, Minus, ms(7))),
            high: Box::new(L),
        };
        let expected = TimeBounds { left: 1, right: 1, lower_ms: 0, upper_ms: 7, rest: None };
        assert_eq!(bounds(TimeUnit::Millisecond, &between), Some(expected));
    }

    #[test]
    fn the_tightest_bounds_count_and_the_rest_is_kept() {
        let other = binary(Expr::Column(0), NotEq, Expr::Column(2));
        let condition = [
            binary(L, Gt, R),
            binary(L, GtEq, binary(R, Plus, ms(9))),
            other.clone(),
            binary(L, Lt, binary(R, Plus, ms(20))),
        ];
        let condition = condition.into_iter().reduce(and).unwrap();
        let expected = TimeBounds { left: 1, right: 1, lower_ms: 9, upper_ms: 19, rest: Some(other) };
        assert_eq!(bounds(TimeUnit::Millisecond, &condition), Some(expected));
        let equal = binary(L, Eq, binary(R, Plus, ms(3)));
        let expected = TimeBounds { left: 1, right: 1, lower_ms: 3, upper_ms: 3, rest: None };
        assert_eq!(bounds(TimeUnit::Millisecond, &equal), Some(expected));
    }

    #[test]
    fn parts_of_milliseconds_leave_room_and_the_condition() {
        let condition = and(binary(L, Gt, R), binary(L, Lt, binary(R, Plus, ms(20))));
        let expected = TimeBounds { left: 1, right: 1, lower_ms: -1, upper_ms: 21, rest: Some(condition.clone()) };
        assert_eq!(bounds(TimeUnit::Microsecond, &condition), Some(expected));
    }

    #[test]
    fn one_bound_or_months_are_not_enough() {
        assert_eq!(bounds(TimeUnit::Millisecond, &binary(L, Gt, R)), None);
        let month = Expr::literal(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, 0, 0))));
        let condition = and(binary(L, Gt, R), binary(L, Lt, binary(R, Plus, month)));
        assert_eq!(bounds(TimeUnit::Millisecond, &condition), None);
        let not_a_time = and(binary(Expr::Column(0), Gt, R), binary(Expr::Column(0), Lt, R));
        assert_eq!(bounds(TimeUnit::Millisecond, &not_a_time), None);
    }
}
