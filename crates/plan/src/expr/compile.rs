//! From our stored form to DataFusion's physical expressions. Called by the engine when it builds operators.
//! Columns go by position, so that inputs may have columns of the same name.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::Operator;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_physical_expr::expressions::{self, Column, Literal as PhysicalLiteral};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::{Expr, Literal, Test, column};
use crate::error::PlanError;
use crate::eval::EvalContext;
use crate::functions::registry;

type Compiled = Result<Arc<dyn PhysicalExpr>, PlanError>;

static CONFIG: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(ConfigOptions::default()));

impl Expr {
    /// The expression over batches with the columns of `input`, bound to the cells of `ctx`.
    ///
    /// # Errors
    /// Where the plan does not fit the input or this version: an unknown function, a missing column.
    pub fn compile(&self, input: &SchemaRef, ctx: &EvalContext) -> Compiled {
        Compiler { input, ctx }.compile(self)
    }

    /// Compiled only to learn type and nullability.
    pub(super) fn compile_here(&self, input: &Schema) -> Compiled {
        Compiler { input, ctx: &EvalContext::default() }.compile(self)
    }
}

struct Compiler<'a> {
    input: &'a Schema,
    ctx: &'a EvalContext,
}

impl Compiler<'_> {
    fn compile(&self, expr: &Expr) -> Compiled {
        match expr {
            Expr::Column(index) => Ok(Arc::new(Column::new(column(*index, self.input)?.name(), *index))),
            Expr::Literal(Literal(value)) => Ok(Arc::new(PhysicalLiteral::new(value.clone()))),
            Expr::Binary { left, op, right } => self.binary(left, op.to_logical(), right),
            Expr::Not(expr) => Ok(expressions::not(self.compile(expr)?)?),
            Expr::Is { expr, test, negated } => self.is(expr, *test, *negated),
            Expr::Negative(expr) => Ok(expressions::negative(self.compile(expr)?, self.input)?),
            Expr::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref())
            }
            Expr::Cast { expr, to } => self.cast(self.compile(expr)?, to),
            Expr::TryCast { expr, to } => Ok(expressions::try_cast(self.compile(expr)?, self.input, to.clone())?),
            Expr::Like { negated, case_insensitive, expr, pattern } => {
                let (expr, pattern) = (self.compile(expr)?, self.compile(pattern)?);
                Ok(expressions::like(*negated, *case_insensitive, expr, pattern, self.input)?)
            }
            Expr::SimilarTo { negated, expr, pattern } => {
                Ok(expressions::similar_to(*negated, false, self.compile(expr)?, self.compile(pattern)?)?)
            }
            Expr::InList { expr, list, negated } => {
                let list = list.iter().map(|e| self.compile(e)).collect::<Result<_, _>>()?;
                Ok(expressions::in_list(self.compile(expr)?, list, negated, self.input)?)
            }
            Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            Expr::ScalarFunction { name, args, return_type } => self.function(name, args, return_type),
        }
    }

    fn binary(&self, left: &Expr, op: Operator, right: &Expr) -> Compiled {
        let left = self.compile(left)?;
        let right = match right {
            Expr::Literal(Literal(interval)) if matches!(op, Operator::Plus | Operator::Minus) => {
                match as_duration(interval, &left.data_type(self.input)?) {
                    Some(duration) => Arc::new(PhysicalLiteral::new(duration)),
                    None => self.compile(right)?,
                }
            }
            _ => self.compile(right)?,
        };
        Ok(expressions::binary(left, op, right, self.input)?)
    }

    fn cast(&self, expr: Arc<dyn PhysicalExpr>, to: &DataType) -> Compiled {
        if expr.data_type(self.input)? == *to {
            return Ok(expr);
        }
        Ok(expressions::cast(expr, self.input, to.clone())?)
    }

    fn is(&self, expr: &Expr, test: Test, negated: bool) -> Compiled {
        let expr = self.compile(expr)?;
        let value = match (test, negated) {
            (Test::Null, false) => return Ok(expressions::is_null(expr)?),
            (Test::Null, true) => return Ok(expressions::is_not_null(expr)?),
            (Test::True, _) => Some(true),
            (Test::False, _) => Some(false),
            (Test::Unknown, _) => None,
        };
        let op = if negated { Operator::IsDistinctFrom } else { Operator::IsNotDistinctFrom };
        let value = Arc::new(PhysicalLiteral::new(ScalarValue::Boolean(value)));
        Ok(expressions::binary(expr, op, value, self.input)?)
    }

    fn case(&self, operand: Option<&Expr>, branches: &[(Expr, Expr)], otherwise: Option<&Expr>) -> Compiled {
        let branch = |(when, then): &(Expr, Expr)| Ok::<_, PlanError>((self.compile(when)?, self.compile(then)?));
        let branches = branches.iter().map(branch).collect::<Result<Vec<_>, _>>()?;
        let operand = operand.map(|e| self.compile(e)).transpose()?;
        let otherwise = otherwise.map(|e| self.compile(e)).transpose()?;
        Ok(expressions::case(operand, branches, otherwise)?)
    }

    fn between(&self, expr: &Expr, negated: bool, low: &Expr, high: &Expr) -> Compiled {
        let value = self.compile(expr)?;
        let above = expressions::binary(value.clone(), Operator::GtEq, self.compile(low)?, self.input)?;
        let below = expressions::binary(value, Operator::LtEq, self.compile(high)?, self.input)?;
        let within = expressions::binary(above, Operator::And, below, self.input)?;
        if negated { Ok(expressions::not(within)?) } else { Ok(within) }
    }

    fn function(&self, name: &str, args: &[Expr], return_type: &DataType) -> Compiled {
        let function = registry().bound(name, self.ctx).ok_or_else(|| {
            PlanError::stored(format!("the plan calls the function '{name}', which this version does not have"))
        })?;
        let args = args.iter().map(|e| self.compile(e)).collect::<Result<Vec<_>, _>>()?;
        let fields = args.iter().map(|e| e.return_field(self.input)).collect::<Result<Vec<_>, _>>()?;
        // The planner coerced to types that may have been views; what the function wants for plain ones may differ.
        let wanted = fields_with_udf(&fields, function.as_ref())?;
        let args = args.into_iter().zip(&wanted).map(|(arg, field)| cast_argument(arg, field.data_type(), self.input));
        let args = args.collect::<Result<Vec<_>, _>>()?;
        let call = ScalarFunctionExpr::try_new(function, args, self.input, CONFIG.clone())?;
        self.cast(Arc::new(call), return_type)
    }
}

/// An interval of a fixed length as what is added to times of a type: whole units of theirs. Arrow's way with intervals goes
/// through the calendar, time by time.
fn as_duration(interval: &ScalarValue, time: &DataType) -> Option<ScalarValue> {
    let (ScalarValue::IntervalMonthDayNano(Some(interval)), DataType::Timestamp(unit, zone)) = (interval, time) else {
        return None;
    };
    // A day of a zone with summer time may have another length.
    if interval.months != 0 || (interval.days != 0 && zone.is_some()) {
        return None;
    }
    let nanoseconds = i64::from(interval.days).checked_mul(86_400_000_000_000)?.checked_add(interval.nanoseconds)?;
    let of_unit = |length: i64| (nanoseconds % length == 0).then_some(Some(nanoseconds / length));
    Some(match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(of_unit(1_000_000_000)?),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(of_unit(1_000_000)?),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(of_unit(1_000)?),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(of_unit(1)?),
    })
}

/// An argument in the type that a function wants. A constant stays a constant: functions look for those.
pub(crate) fn cast_argument(arg: Arc<dyn PhysicalExpr>, to: &DataType, input: &Schema) -> Compiled {
    if arg.data_type(input)? == *to {
        return Ok(arg);
    }
    if let Some(literal) = arg.downcast_ref::<PhysicalLiteral>() {
        return Ok(Arc::new(PhysicalLiteral::new(literal.value().cast_to(to)?)));
    }
    Ok(expressions::cast(arg, input, to.clone())?)
}
