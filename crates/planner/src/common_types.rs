//! The type that values have where they stand beside each other (comparisons, CASE, COALESCE and the like, columns of UNION),
//! where Flink and DataFusion differ. DECIMAL beside FLOAT or DOUBLE is taken as DOUBLE: DataFusion would take the DOUBLE
//! as DECIMAL(30, 15), so large numbers and NaN would fail the job, and small ones become 0. A text beside a TIMESTAMP is
//! taken as one of microseconds: DataFusion would take both as nanoseconds, which end in the year 2262. Comes before
//! DataFusion settles types. Called by `query.rs` and `catalog.rs`.

use std::sync::Arc;

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Between, BinaryExpr, Cast, InList, InSubquery, Like, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::type_coercion::binary::comparison_coercion;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{
    Case, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF, cast, lit, not,
};
use datafusion_optimizer::analyzer::AnalyzerRule;
use mainstem_plan::functions;

/// The rule for plans.
#[derive(Debug)]
pub(crate) struct CommonTypes;

impl AnalyzerRule for CommonTypes {
    fn name(&self) -> &'static str {
        "common_types"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(rewrite(expr, &schema)?.update_data(|expr| name.restore(expr)))
            })?
            // A cast inside of a sub-query changes the types of what stands above it.
            .map_data(LogicalPlan::recompute_schema)
        })
        .map(|plan| plan.data)
    }
}

/// The same for one expression over the columns of `schema`.
pub(crate) fn expression(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    rewrite(expr, schema).map(|expr| expr.data)
}

/// The types, changed where another is beside them for which they have to be.
pub(crate) fn common(types: &[DataType]) -> Vec<DataType> {
    // Lists are long, but of few types.
    let mut distinct: Vec<&DataType> = Vec::new();
    for of in types {
        if !distinct.contains(&of) {
            distinct.push(of);
        }
    }
    types.iter().map(|of| distinct.iter().fold(of.clone(), |of, other| beside(&of, other))).collect()
}

/// Rows of VALUES over the columns of `schema`, of which there are none.
pub(crate) fn rows(rows: Vec<Vec<Expr>>, schema: &DFSchema) -> Vec<Vec<Expr>> {
    let width = rows.first().map_or(0, Vec::len);
    let mut columns: Vec<Vec<Expr>> = vec![Vec::new(); width];
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let columns = columns.into_iter().map(|column| made_common(column, schema));
    let mut columns: Vec<_> = columns.map(Vec::into_iter).collect();
    let count = columns.first().map_or(0, ExactSizeIterator::len);
    (0..count).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect()
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| operands(expr, schema))
}

fn operands(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let [left, right] = together([left, right], schema);
            let left = duration(left, &right, schema)?;
            let right = duration(right, &left, schema)?;
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = together([expr, low, high], schema);
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut all = vec![*expr];
            all.extend(list);
            let mut all = made_common(all, schema).into_iter();
            let expr = Box::new(all.next().expect("the value comes first"));
            Transformed::yes(Expr::InList(InList { expr, list: all.collect(), negated }))
        }
        Expr::InSubquery(subquery) => in_subquery(subquery, schema)?,
        Expr::Case(case) => Transformed::yes(Expr::Case(branches(case, schema))),
        Expr::ScalarFunction(call) => Transformed::yes(self::call(call, schema)),
        Expr::SimilarTo(like) => similar_to(like),
        other => Transformed::no(other),
    })
}

/// The difference of two timestamps is a duration, which DataFusion would compare with an interval by months first, then
/// by days: 40 hours would be less than a day.
fn duration(expr: Box<Expr>, other: &Expr, schema: &DFSchema) -> Result<Box<Expr>> {
    match (other.get_type(schema), expr.get_type(schema)) {
        (Ok(DataType::Duration(_)), Ok(DataType::Interval(_))) => {}
        _ => return Ok(expr),
    }
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expr.as_ref() else {
        return plan_err!("the difference of two timestamps is compared with a constant interval; use TIMESTAMPDIFF");
    };
    if interval.months != 0 {
        return plan_err!(
            "the difference of two timestamps cannot be compared with months or years, whose lengths differ; use TIMESTAMPDIFF"
        );
    }
    const US_PER_DAY: i64 = 86_400_000_000;
    let microseconds = i64::from(interval.days) * US_PER_DAY + interval.nanoseconds / 1000;
    Ok(Box::new(lit(ScalarValue::DurationMicrosecond(Some(microseconds)))))
}

/// `SIMILAR TO` as a call: where both sides are constant, DataFusion would take the pattern for a regular expression.
fn similar_to(like: Like) -> Transformed<Expr> {
    let regex = match like.pattern.as_ref() {
        Expr::Literal(pattern, _) => pattern.try_as_str().flatten(),
        _ => None,
    };
    let regex = regex.and_then(|pattern| functions::similar_to_regex(pattern, like.escape_char).ok());
    let (Some(regex), Some(function)) = (regex, functions::registry().scalar("regexp")) else {
        return Transformed::no(Expr::SimilarTo(like));
    };
    let call = function.call(vec![*like.expr, lit(regex)]);
    Transformed::yes(if like.negated { not(call) } else { call })
}

/// Boxed operands, in their order.
fn together<const N: usize>(operands: [Box<Expr>; N], schema: &DFSchema) -> [Box<Expr>; N] {
    let exprs = made_common(operands.into_iter().map(|operand| *operand).collect(), schema);
    let boxed: Vec<Box<Expr>> = exprs.into_iter().map(Box::new).collect();
    boxed.try_into().expect("as many come back")
}

/// What has no type is left alone: what is wrong with it is said where types are settled.
fn made_common(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>();
    let Ok(types) = types else { return exprs };
    with_types(exprs, &types, &common(&types))
}

fn with_types(exprs: Vec<Expr>, types: &[DataType], wanted: &[DataType]) -> Vec<Expr> {
    let types = types.iter().zip(wanted);
    exprs
        .into_iter()
        .zip(types)
        .map(|(expr, (found, wanted))| if found == wanted { expr } else { cast(expr, wanted.clone()) })
        .collect()
}

fn in_subquery(InSubquery { expr, mut subquery, negated }: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Ok(found) = expr.get_type(schema) else {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    };
    let types = [found, subquery.subquery.schema().field(0).data_type().clone()];
    let mut wanted = common(&types);
    if wanted[0] != wanted[1]
        && let Some(common) = comparison_coercion(&wanted[0], &wanted[1])
    {
        wanted = vec![common.clone(), common];
    }
    if wanted == types {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    }
    let expr = if wanted[0] == types[0] { expr } else { Box::new(cast(*expr, wanted[0].clone())) };
    if wanted[1] != types[1] {
        let column = Expr::Column(subquery.subquery.schema().columns()[0].clone());
        let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
        // With a name of its own: a condition of the sub-query may need the column as it is, beside this one.
        let value = cast(column, wanted[1].clone()).alias("__in");
        subquery.subquery = Arc::new(plan.project([value])?.build()?);
    }
    Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
}

/// `CASE x WHEN y` of a FLOAT or DOUBLE becomes `CASE WHEN x = y`: DataFusion compares the former by bits, for which 0.0
/// and -0.0 differ.
fn branches(Case { expr, when_then_expr, else_expr }: Case, schema: &DFSchema) -> Case {
    let (whens, thens): (Vec<Expr>, Vec<Expr>) = when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let (expr, whens) = match expr {
        None => (None, whens),
        Some(expr) => {
            let mut all = made_common(std::iter::once(*expr).chain(whens).collect(), schema).into_iter();
            let expr = all.next().expect("the value comes first");
            match is_float(&expr, schema) {
                true => (None, all.map(|when| expr.clone().eq(when)).collect()),
                false => (Some(Box::new(expr)), all.collect()),
            }
        }
    };
    let count = thens.len();
    let mut results = made_common(thens.into_iter().chain(else_expr.map(|expr| *expr)).collect(), schema);
    let else_expr = results.drain(count..).next().map(Box::new);
    let when_then_expr = whens.into_iter().map(Box::new).zip(results.into_iter().map(Box::new)).collect();
    Case { expr, when_then_expr, else_expr }
}

fn call(ScalarFunction { func, args }: ScalarFunction, schema: &DFSchema) -> Expr {
    let types = args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>();
    let Ok(types) = types else { return Expr::ScalarFunction(ScalarFunction { func, args }) };
    if let ("floor" | "ceil", [of]) = (func.name(), types.as_slice()) {
        return whole(func, args, of, schema);
    }
    if func.name() == "nullif" && types.len() == 2 && types.iter().any(DataType::is_floating) {
        // It compares as CASE does.
        let [value, other] = made_common(args, schema).try_into().expect("two arguments");
        let null = Box::new(lit(ScalarValue::Null));
        let when = (Box::new(value.clone().eq(other)), null);
        return Expr::Case(Case { expr: None, when_then_expr: vec![when], else_expr: Some(Box::new(value)) });
    }
    let wanted = common(&types);
    let fields: Vec<FieldRef> = types.iter().map(|of| Arc::new(Field::new("", of.clone(), true))).collect();
    // A call stays as it is, unless the function would take a DOUBLE as a DECIMAL.
    let changes = wanted != types
        && fields_with_udf(&fields, func.as_ref())
            .is_ok_and(|taken| types.iter().zip(&taken).any(|(of, taken)| loses(of, taken.data_type())));
    let args = if changes { with_types(args, &types, &wanted) } else { args };
    Expr::ScalarFunction(ScalarFunction { func, args })
}

/// `FLOOR` and `CEIL` of a DECIMAL give one without digits behind the point, and of a whole number the number, as in Flink.
/// DataFusion's keep the type of a DECIMAL, into which the result may not fit: 99.5 becomes 100.0.
fn whole(func: Arc<ScalarUDF>, args: Vec<Expr>, of: &DataType, schema: &DFSchema) -> Expr {
    // A plan comes here once for each query around it.
    let has_room = |arg: &Expr, precision: u8| match arg {
        Expr::Cast(Cast { expr, .. }) => {
            matches!(expr.get_type(schema), Ok(DataType::Decimal128(narrower, _)) if narrower < precision)
        }
        _ => false,
    };
    match (of, args.as_slice()) {
        (DataType::Decimal128(precision, scale @ 1..), [arg])
            if *precision < DECIMAL128_MAX_PRECISION && !has_room(arg, *precision) =>
        {
            let arg = cast(arg.clone(), DataType::Decimal128(precision + 1, *scale));
            cast(func.call(vec![arg]), DataType::Decimal128(precision + 1 - scale.unsigned_abs(), 0))
        }
        (of, [arg]) if of.is_integer() => arg.clone(),
        _ => Expr::ScalarFunction(ScalarFunction { func, args }),
    }
}

/// The type beside a value of the other type.
fn beside(of: &DataType, other: &DataType) -> DataType {
    use DataType::{List, Map, Struct, Timestamp};
    use TimeUnit::{Microsecond, Millisecond, Second};
    match (of, other) {
        (decimal, float) if decimal.is_decimal() && float.is_floating() => DataType::Float64,
        (text, Timestamp(Second | Millisecond | Microsecond, zone)) if text.is_string() => {
            Timestamp(Microsecond, zone.clone())
        }
        (List(of), List(other)) => List(with_type(of, beside(of.data_type(), other.data_type()))),
        (Map(of, sorted), Map(other, _)) => Map(with_type(of, beside(of.data_type(), other.data_type())), *sorted),
        (Struct(of), Struct(other)) if of.len() == other.len() => {
            let fields = of.iter().zip(other);
            Struct(fields.map(|(of, other)| with_type(of, beside(of.data_type(), other.data_type()))).collect())
        }
        (of, _) => of.clone(),
    }
}

/// Whether a FLOAT or DOUBLE of the one type is a DECIMAL in the other.
fn loses(from: &DataType, to: &DataType) -> bool {
    use DataType::{List, Map, Struct};
    match (from, to) {
        (from, to) if from.is_floating() => to.is_decimal(),
        (List(from), List(to)) | (Map(from, _), Map(to, _)) => loses(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => from.iter().zip(to).any(|(from, to)| loses(from.data_type(), to.data_type())),
        _ => false,
    }
}

fn with_type(field: &FieldRef, of: DataType) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(of))
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|of| of.is_floating())
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
