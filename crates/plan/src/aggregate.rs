//! Aggregate calls in the form in which they are stored, and their accumulators. The planner makes the calls,
//! the engine compiles them; every call is used in two phases (partial states are merged, and merged again
//! after a restore), so what cannot be merged is refused here.

mod decimal_sum;
mod form;
mod plain;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion_common::{DFSchema, Result as DataFusionResult};
use datafusion_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{Accumulator, Expr as Logical, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::PhysicalSortExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::eval::EvalContext;
use crate::expr::{Expr, cast_argument, location};
use crate::functions::{LISTAGG_SEPARATOR, registry};
use crate::types::plain_type;
use decimal_sum::{DecimalSum, DecimalSums};
use plain::PlainAccumulator;

pub use self::decimal_sum::does_not_fit;
pub use self::form::{AggregateForm, INTEGER_SUM, comparable};

/// Functions whose result depends on the order of their input, unless ORDER BY fixes it.
const ORDERED: [&str; 5] = ["array_agg", "first_value", "last_value", "listagg", "string_agg"];

/// Functions whose ORDER BY is part of what they compute (`WITHIN GROUP`).
const ORDERED_SET: [&str; 3] = ["approx_percentile_cont", "approx_percentile_cont_with_weight", "percentile_cont"];

/// Functions that obey DISTINCT, or whose result it cannot change. Others would silently ignore it.
const DISTINCT: [&str; 17] = [
    "any_value",
    "approx_distinct",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "listagg",
    "max",
    "median",
    "min",
    "percentile_cont",
    "string_agg",
    "sum",
];

/// A call of an aggregate function over the rows of an operator's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateCall {
    /// Name of the output column.
    pub name: String,
    /// Name of the function in the registry.
    pub function: String,
    /// Arguments; never empty (`COUNT(*)` counts a constant).
    pub args: Vec<Expr>,
    /// Only rows for which this is true are counted.
    pub filter: Option<Expr>,
    /// Whether equal arguments count once.
    pub distinct: bool,
    /// `ORDER BY` within the call: expression, ascending, NULLs first. Empty where order means nothing.
    pub order_by: Vec<(Expr, bool, bool)>,
    /// `IGNORE NULLS`.
    pub ignore_nulls: bool,
}

/// A call with everything to build accumulators from.
#[derive(Clone, Debug)]
pub struct CompiledAggregate {
    /// DataFusion's form of the call.
    pub function: AggregateFunctionExpr,
    /// What is evaluated on each batch and handed to `update_batch`: the arguments, then the ORDER BY.
    pub args: Vec<Arc<dyn PhysicalExpr>>,
    /// Evaluated on each batch and handed to `update_batch` as its filter.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

impl AggregateCall {
    /// The stored form of an aggregate expression, which may stand under an alias, over rows with the columns
    /// of `schema`. `name` is that of the output column.
    ///
    /// # Errors
    /// Where the expression is not an aggregate, or one that cannot be computed in two phases.
    pub fn from_logical(expr: &Logical, schema: &DFSchema, name: impl Into<String>) -> Result<Self, PlanError> {
        let mut inner = expr;
        while let Logical::Alias(alias) = inner {
            inner = &alias.expr;
        }
        let Logical::AggregateFunction(call) = inner else {
            return Err(PlanError::unsupported(format!("'{inner}' is not a call of an aggregate function")));
        };
        Self::from_call(call, schema, name.into()).map_err(|e| e.at(location(inner)))
    }

    fn from_call(call: &AggregateFunction, schema: &DFSchema, name: String) -> Result<Self, PlanError> {
        let function = call.func.name().to_lowercase();
        let params = &call.params;
        check_supported(&function, params.distinct, &params.order_by)?;
        if registry().aggregate(&function).is_none_or(|known| known != call.func) {
            return Err(PlanError::unsupported(format!("the aggregate function {function} is not supported")));
        }
        let convert = |e: &Logical| Expr::from_logical(e, schema);
        let ordered = ORDERED.contains(&function.as_str()) || ORDERED_SET.contains(&function.as_str());
        let sort = |s: &Sort| Ok::<_, PlanError>((convert(&s.expr)?, s.asc, s.nulls_first));
        let order_by = if ordered { params.order_by.as_slice() } else { &[] };
        let mut args = params.args.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
        if function == "listagg" && args.len() == 1 {
            args.push(Expr::literal(LISTAGG_SEPARATOR));
        }
        let call = AggregateCall {
            name,
            function,
            args,
            filter: params.filter.as_deref().map(convert).transpose()?,
            distinct: params.distinct,
            order_by: order_by.iter().map(sort).collect::<Result<_, _>>()?,
            ignore_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
        };
        // What DataFusion refuses only when an accumulator is made must be refused before the job is stored.
        let input = Arc::new(crate::types::plain_schema(schema.as_arrow()));
        call.compile(&input, &EvalContext::default())?.groups_accumulator()?;
        Ok(call)
    }

    /// The call over batches with the columns of `input`, bound to the cells of `ctx`.
    ///
    /// # Errors
    /// Where the plan does not fit the input or this version.
    pub fn compile(&self, input: &SchemaRef, ctx: &EvalContext) -> Result<CompiledAggregate, PlanError> {
        let function = registry().aggregate(&self.function).ok_or_else(|| {
            let message = format!("the plan calls the aggregate '{}', which this version does not have", self.function);
            PlanError::stored(message)
        })?;
        let args = self.args.iter().map(|e| e.compile(input, ctx)).collect::<Result<Vec<_>, _>>()?;
        let fields = args.iter().map(|e| e.return_field(input)).collect::<DataFusionResult<Vec<_>>>()?;
        let wanted = fields_with_udf(&fields, function.as_ref())?;
        let args = args.into_iter().zip(&wanted).map(|(arg, field)| cast_argument(arg, field.data_type(), input));
        let mut args = args.collect::<Result<Vec<_>, _>>()?;
        let sort = |(expr, ascending, nulls_first): &(Expr, bool, bool)| {
            let options = SortOptions { descending: !ascending, nulls_first: *nulls_first };
            Ok::<_, PlanError>(PhysicalSortExpr { expr: expr.compile(input, ctx)?, options })
        };
        let order_by = self.order_by.iter().map(sort).collect::<Result<Vec<_>, _>>()?;
        let function = AggregateExprBuilder::new(function, args.clone())
            .alias(&self.name)
            .schema(input.clone())
            .order_by(order_by)
            .with_distinct(self.distinct)
            .with_ignore_nulls(self.ignore_nulls)
            .build()?;
        args.extend(function.order_bys().iter().map(|sort| sort.expr.clone()));
        let filter = self.filter.as_ref().map(|e| e.compile(input, ctx)).transpose()?;
        Ok(CompiledAggregate { function, args, filter })
    }

    /// Positions of the input columns that the call reads.
    #[must_use]
    pub fn columns(&self) -> BTreeSet<usize> {
        self.exprs().flat_map(Expr::columns).collect()
    }

    /// Replaces every column position by what the function makes of it.
    pub fn remap_columns(&mut self, position: &dyn Fn(usize) -> usize) {
        let order_by = self.order_by.iter_mut().map(|(e, _, _)| e);
        self.args.iter_mut().chain(&mut self.filter).chain(order_by).for_each(|e| e.remap_columns(position));
    }

    /// Whether rows in another order can give another result. Rows from several subtasks come in no fixed
    /// order, so that a replay may differ (I6); ORDER BY over distinct values makes such a call safe.
    #[must_use]
    pub fn depends_on_order(&self) -> bool {
        let ordered =
            ORDERED.contains(&self.function.as_str()) || matches!(self.function.as_str(), "any_value" | "nth_value");
        ordered && self.order_by.is_empty()
    }

    /// All expressions of the call, over the operator's input.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.args.iter().chain(&self.filter).chain(self.order_by.iter().map(|(e, _, _)| e))
    }

    /// The call with the column names of its input, for `EXPLAIN`.
    #[must_use]
    pub fn display(&self, input: &arrow::datatypes::Schema) -> String {
        let args: Vec<String> = self.args.iter().map(|e| e.display(input).to_string()).collect();
        let sort = |(e, ascending, nulls_first): &(Expr, bool, bool)| {
            let direction = if *ascending { "" } else { " DESC" };
            let nulls = if *nulls_first { " NULLS FIRST" } else { " NULLS LAST" };
            format!("{}{direction}{nulls}", e.display(input))
        };
        let order_by: Vec<String> = self.order_by.iter().map(sort).collect();
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let mut text = format!("{}({distinct}{}", self.function.to_uppercase(), args.join(", "));
        if !order_by.is_empty() {
            text += &format!(" ORDER BY {}", order_by.join(", "));
        }
        text.push(')');
        if self.ignore_nulls {
            text += " IGNORE NULLS";
        }
        if let Some(filter) = &self.filter {
            text += &format!(" FILTER (WHERE {})", filter.display(input));
        }
        text
    }
}

/// Refuses what does not survive the merging of partial states, and DISTINCT where it would be ignored.
fn check_supported(function: &str, distinct: bool, order_by: &[Sort]) -> Result<(), PlanError> {
    if function == "grouping" {
        return Err(PlanError::unsupported("GROUPING takes columns of GROUP BY, in the SELECT that groups by them"));
    }
    if function == "nth_value" && !order_by.is_empty() {
        let message = "NTH_VALUE with ORDER BY needs its whole input sorted, which a stream is not; \
                       use FIRST_VALUE or ARRAY_AGG with ORDER BY";
        return Err(PlanError::unsupported(message));
    }
    if distinct && !DISTINCT.contains(&function) {
        return Err(PlanError::unsupported(format!("{} does not take DISTINCT", function.to_uppercase())));
    }
    Ok(())
}

impl CompiledAggregate {
    /// The columns in which a partial state travels and is stored.
    pub fn state_fields(&self) -> Result<Vec<FieldRef>, PlanError> {
        Ok(self.function.state_fields()?)
    }

    /// The output column. Strings are `Utf8`, whatever DataFusion's function gives.
    #[must_use]
    pub fn output_field(&self) -> FieldRef {
        let field = self.function.field();
        let plain = plain_type(field.data_type());
        if plain == *field.data_type() { field } else { Arc::new(field.as_ref().clone().with_data_type(plain)) }
    }

    /// An accumulator of many groups: the function's own where it has one, else one accumulator a group.
    pub fn groups_accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, PlanError> {
        // DataFusion's accumulator of many groups for BIT_XOR does not know DISTINCT, though it says so.
        let deaf = self.function.is_distinct() && self.function.fun().name() == "bit_xor";
        let inner: Box<dyn GroupsAccumulator> = if self.is_decimal_sum() {
            Box::new(DecimalSums::new(self.output_field().data_type().clone()))
        } else if self.function.groups_accumulator_supported() && !deaf {
            self.function.create_groups_accumulator()?
        } else {
            let function = self.function.clone();
            // Made once here, so that a call that cannot be accumulated fails now and not at its first row.
            function.create_accumulator()?;
            Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator()))
        };
        let states = self.state_fields()?.iter().map(|f| f.data_type().clone()).collect();
        Ok(Box::new(PlainAccumulator::new(inner, self.output_field().data_type().clone(), states)))
    }

    /// An accumulator of one group, to which rows are added.
    pub fn accumulator(&self) -> DataFusionResult<Box<dyn Accumulator>> {
        match self.is_decimal_sum() {
            true => Ok(Box::new(DecimalSum::new(self.output_field().data_type().clone()))),
            false => self.function.create_accumulator(),
        }
    }

    /// An accumulator of one group, from which rows may go as well; an error where the function has none.
    pub fn sliding_accumulator(&self) -> DataFusionResult<Box<dyn Accumulator>> {
        match self.is_decimal_sum() {
            true => self.accumulator(),
            false => self.function.create_sliding_accumulator(),
        }
    }

    fn is_decimal_sum(&self) -> bool {
        let is_sum = self.function.fun().name() == "sum" && !self.function.is_distinct();
        is_sum && matches!(self.output_field().data_type(), DataType::Decimal128(..))
    }
}

#[cfg(test)]
mod tests;
