//! What a condition says about the number of a row: least and greatest number, and what else it asks for.

use datafusion_common::ScalarValue;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Between, BinaryExpr, Expr, Operator};

/// Numbers from and to, both inclusive; none: without bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) from: Option<i128>,
    pub(super) to: Option<i128>,
}

/// The bounds of the number that a condition allows, and the rest of the condition, which still has to be tested.
/// `is_number`: whether an expression is the number.
pub(super) fn split(condition: Expr, is_number: &dyn Fn(&Expr) -> bool) -> (Bounds, Option<Expr>) {
    let mut bounds = Bounds { from: None, to: None };
    let mut rest = Vec::new();
    for part in split_conjunction_owned(condition) {
        let (found, exact) = match of_condition(&part, is_number) {
            Some(found) => found,
            None => {
                rest.push(part);
                continue;
            }
        };
        bounds.from = bounds.from.max(found.from);
        bounds.to = least(bounds.to, found.to);
        if !exact {
            rest.push(part);
        }
    }
    (bounds, conjunction(rest))
}

fn least(left: Option<i128>, right: Option<i128>) -> Option<i128> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, other) => one.or(other),
    }
}

/// Bounds of the number, and whether the condition asks for nothing else.
fn of_condition(condition: &Expr, is_number: &dyn Fn(&Expr) -> bool) -> Option<(Bounds, bool)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((left, _), (right, _)) = (of_condition(left, is_number)?, of_condition(right, is_number)?);
            let from = left.from.zip(right.from).map(|(left, right)| left.min(right));
            let to = left.to.zip(right.to).map(|(left, right)| left.max(right));
            Some((Bounds { from, to }, false))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let ((left, exact), (right, also)) = (of_condition(left, is_number)?, of_condition(right, is_number)?);
            Some((Bounds { from: left.from.max(right.from), to: least(left.to, right.to) }, exact && also))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = if is_number(without_cast(left)) {
                (*op, whole_number(right)?)
            } else if is_number(without_cast(right)) {
                (op.swap()?, whole_number(left)?)
            } else {
                return None;
            };
            let bounds = match op {
                Operator::Eq => Bounds { from: Some(value), to: Some(value) },
                Operator::Lt => Bounds { from: None, to: Some(value - 1) },
                Operator::LtEq => Bounds { from: None, to: Some(value) },
                Operator::Gt => Bounds { from: Some(value + 1), to: None },
                Operator::GtEq => Bounds { from: Some(value), to: None },
                _ => return None,
            };
            Some((bounds, true))
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_number(without_cast(expr)) => {
            Some((Bounds { from: Some(whole_number(low)?), to: Some(whole_number(high)?) }, true))
        }
        Expr::InList(list) if !list.negated && is_number(without_cast(&list.expr)) => {
            let values = list.list.iter().map(whole_number).collect::<Option<Vec<_>>>()?;
            Some((Bounds { from: values.iter().min().copied(), to: values.iter().max().copied() }, false))
        }
        _ => None,
    }
}

fn without_cast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => without_cast(&cast.expr),
        Expr::Alias(alias) => without_cast(&alias.expr),
        other => other,
    }
}

fn whole_number(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = without_cast(expr) else { return None };
    Some(match value {
        ScalarValue::Int8(Some(value)) => i128::from(*value),
        ScalarValue::Int16(Some(value)) => i128::from(*value),
        ScalarValue::Int32(Some(value)) => i128::from(*value),
        ScalarValue::Int64(Some(value)) => i128::from(*value),
        ScalarValue::UInt8(Some(value)) => i128::from(*value),
        ScalarValue::UInt16(Some(value)) => i128::from(*value),
        ScalarValue::UInt32(Some(value)) => i128::from(*value),
        ScalarValue::UInt64(Some(value)) => i128::from(*value),
        ScalarValue::Decimal128(Some(value), _, 0) => *value,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion_expr::{col, lit};

    use super::*;

    #[track_caller]
    fn check(condition: Expr, from: Option<i128>, to: Option<i128>, rest: Option<Expr>) {
        let found = split(condition, &|expr| *expr == col("rn"));
        assert_eq!(found, (Bounds { from, to }, rest));
    }

    #[test]
    fn every_form_of_comparison_is_a_bound() {
        check(col("rn").eq(lit(1)), Some(1), Some(1), None);
        check(col("rn").lt_eq(lit(5)), None, Some(5), None);
        check(lit(5).gt_eq(col("rn")), None, Some(5), None);
        check(lit(5).gt(col("rn")), None, Some(4), None);
        check(col("rn").between(lit(2), lit(4_i32)), Some(2), Some(4), None);
        check(col("rn").gt(lit(2)).and(col("rn").lt(lit(7))), Some(3), Some(6), None);
        let cast = datafusion_expr::cast(col("rn"), arrow::datatypes::DataType::Decimal128(20, 0));
        check(cast.lt(lit(ScalarValue::Decimal128(Some(3), 20, 0))), None, Some(2), None);
    }

    #[test]
    fn what_is_no_bound_is_left() {
        let other = col("x").gt(lit(3));
        check(col("rn").lt(lit(3)).and(other.clone()), None, Some(2), Some(other.clone()));
        let either = col("rn").eq(lit(1)).or(col("rn").eq(lit(4)));
        check(either.clone(), Some(1), Some(4), Some(either));
        let list = col("rn").in_list(vec![lit(2), lit(3)], false);
        check(list.clone(), Some(2), Some(3), Some(list));
        let either = col("rn").eq(lit(1)).or(other);
        check(either.clone(), None, None, Some(either));
        let unequal = col("rn").not_eq(lit(1));
        check(unequal.clone(), None, None, Some(unequal));
    }
}
