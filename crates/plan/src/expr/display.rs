//! An expression as SQL, for `EXPLAIN` and for the REST answers. Reads well rather than parses again: casts
//! that the planner added are shown.

use std::fmt;

use arrow::datatypes::Schema;
use datafusion_common::ScalarValue;

use super::{BinaryOperator, Expr, Literal, Test};
use crate::types::sql_type_name;

impl Expr {
    /// The expression with the column names of its input.
    #[must_use]
    pub fn display<'a>(&'a self, input: &'a Schema) -> impl fmt::Display + 'a {
        Shown { expr: self, input, inner: false }
    }
}

/// An expression with the names of its columns; `inner` where it stands beside an operator.
struct Shown<'a> {
    expr: &'a Expr,
    input: &'a Schema,
    inner: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let infix = matches!(
            self.expr,
            Expr::Binary { .. }
                | Expr::Not(_)
                | Expr::Is { .. }
                | Expr::Like { .. }
                | Expr::SimilarTo { .. }
                | Expr::InList { .. }
                | Expr::Between { .. }
        );
        if self.inner && infix {
            write!(f, "(")?;
            self.body(f)?;
            return write!(f, ")");
        }
        self.body(f)
    }
}

impl<'a> Shown<'a> {
    fn inner(&self, expr: &'a Expr) -> Shown<'a> {
        Shown { expr, input: self.input, inner: true }
    }

    fn outer(&self, expr: &'a Expr) -> Shown<'a> {
        Shown { expr, input: self.input, inner: false }
    }

    fn body(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self.expr {
            Expr::Column(index) => match self.input.fields().get(*index) {
                Some(field) => write!(f, "{}", Name(field.name())),
                None => write!(f, "?{index}"),
            },
            Expr::Literal(literal) => write!(f, "{literal}"),
            Expr::Binary { left, op, right } => self.binary(f, left, *op, right),
            Expr::Not(expr) => write!(f, "NOT {}", self.inner(expr)),
            Expr::Is { expr, test, negated } => {
                write!(f, "{} IS {}{}", self.inner(expr), not(negated), test.word())
            }
            Expr::Negative(expr) => write!(f, "-{}", self.inner(expr)),
            Expr::Case { operand, branches, otherwise } => {
                write!(f, "CASE")?;
                operand.iter().try_for_each(|e| write!(f, " {}", self.inner(e)))?;
                let mut branch = |(when, then)| write!(f, " WHEN {} THEN {}", self.outer(when), self.outer(then));
                branches.iter().try_for_each(|(when, then)| branch((when, then)))?;
                otherwise.iter().try_for_each(|e| write!(f, " ELSE {}", self.outer(e)))?;
                write!(f, " END")
            }
            Expr::Cast { expr, to } => write!(f, "CAST({} AS {})", self.outer(expr), sql_type_name(to)),
            Expr::TryCast { expr, to } => write!(f, "TRY_CAST({} AS {})", self.outer(expr), sql_type_name(to)),
            Expr::Like { negated, case_insensitive, expr, pattern } => {
                let word = if *case_insensitive { "ILIKE" } else { "LIKE" };
                write!(f, "{} {}{word} {}", self.inner(expr), not(negated), self.inner(pattern))
            }
            Expr::SimilarTo { negated, expr, pattern } => {
                write!(f, "{} {}SIMILAR TO {}", self.inner(expr), not(negated), self.inner(pattern))
            }
            Expr::InList { expr, list, negated } => {
                write!(f, "{} {}IN (", self.inner(expr), not(negated))?;
                self.list(f, list)
            }
            Expr::Between { expr, negated, low, high } => {
                let (low, high) = (self.inner(low), self.inner(high));
                write!(f, "{} {}BETWEEN {low} AND {high}", self.inner(expr), not(negated))
            }
            Expr::ScalarFunction { name, args, .. } => self.function(f, name, args),
        }
    }

    fn binary(&self, f: &mut fmt::Formatter<'_>, left: &'a Expr, op: BinaryOperator, right: &'a Expr) -> fmt::Result {
        let associative = matches!(op, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::StringConcat);
        let operand = |e: &'a Expr| match e {
            Expr::Binary { op: below, .. } if *below == op && associative => self.outer(e),
            _ => self.inner(e),
        };
        write!(f, "{} {} {}", operand(left), op.to_logical(), operand(right))
    }

    fn function(&self, f: &mut fmt::Formatter<'_>, name: &str, args: &'a [Expr]) -> fmt::Result {
        if let ("get_field", [base, path @ ..]) = (name, args) {
            write!(f, "{}", self.inner(base))?;
            return path.iter().try_for_each(|field| match field {
                Expr::Literal(Literal(ScalarValue::Utf8(Some(name)))) => write!(f, ".{}", Name(name)),
                other => write!(f, "[{}]", self.outer(other)),
            });
        }
        write!(f, "{}(", name.to_uppercase())?;
        self.list(f, args)
    }

    /// The items of a list and the bracket that ends it.
    fn list(&self, f: &mut fmt::Formatter<'_>, items: &'a [Expr]) -> fmt::Result {
        for (position, item) in items.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{}", self.outer(item))?;
        }
        write!(f, ")")
    }
}

impl Test {
    fn word(self) -> &'static str {
        match self {
            Test::Null => "NULL",
            Test::True => "TRUE",
            Test::False => "FALSE",
            Test::Unknown => "UNKNOWN",
        }
    }
}

/// A name, in backquotes where SQL would need them.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
        if first && self.0.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            return f.write_str(self.0);
        }
        write!(f, "`{}`", self.0.replace('`', "``"))
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            value if value.is_null() => f.write_str("NULL"),
            ScalarValue::Utf8(Some(text)) => write!(f, "'{}'", text.replace('\'', "''")),
            ScalarValue::Boolean(Some(value)) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
            ScalarValue::IntervalMonthDayNano(_)
            | ScalarValue::IntervalDayTime(_)
            | ScalarValue::IntervalYearMonth(_) => {
                write!(f, "INTERVAL '{}'", shown(&self.0).replace(".000000000 secs", " secs"))
            }
            ScalarValue::TimestampSecond(..)
            | ScalarValue::TimestampMillisecond(..)
            | ScalarValue::TimestampMicrosecond(..)
            | ScalarValue::TimestampNanosecond(..) => write!(f, "TIMESTAMP '{}'", shown(&self.0).replace('T', " ")),
            ScalarValue::Date32(_) => write!(f, "DATE '{}'", shown(&self.0)),
            other => f.write_str(&shown(other)),
        }
    }
}

/// The value as arrow shows it in a table.
fn shown(value: &ScalarValue) -> String {
    let text = value.to_array().ok().and_then(|a| arrow::util::display::array_value_to_string(&a, 0).ok());
    text.unwrap_or_else(|| value.to_string())
}
