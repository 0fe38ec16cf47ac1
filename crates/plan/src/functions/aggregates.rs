//! Flink's aggregates that DataFusion has only with other parameters.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Literal;

use super::udf::{self, Kind};

/// All of them.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let inner = datafusion_functions_aggregate::string_agg::string_agg_udaf();
    vec![Arc::new(AggregateUDF::from(ListAgg { inner, signature: Signature::user_defined(Volatility::Immutable) }))]
}

/// `LISTAGG(s[, separator])`: `STRING_AGG` whose separator is a comma unless said otherwise.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ListAgg {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl ListAgg {
    /// The arguments as `STRING_AGG` wants them.
    fn with_separator<R>(&self, args: &AccumulatorArgs, call: impl FnOnce(AccumulatorArgs) -> Result<R>) -> Result<R> {
        let mut exprs = args.exprs.to_vec();
        let mut expr_fields = args.expr_fields.to_vec();
        if exprs.len() == 1 {
            let separator: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Utf8(Some(",".to_owned()))));
            exprs.push(separator);
            expr_fields.push(Arc::new(Field::new("separator", DataType::Utf8, false)));
        }
        call(AccumulatorArgs {
            return_field: args.return_field.clone(),
            schema: args.schema,
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys,
            is_reversed: args.is_reversed,
            name: args.name,
            is_distinct: args.is_distinct,
            exprs: &exprs,
            expr_fields: &expr_fields,
        })
    }
}

impl AggregateUDFImpl for ListAgg {
    fn name(&self) -> &str {
        "listagg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        udf::coerce("listagg", &[&[Kind::Text], &[Kind::Text, Kind::Text]], false, types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.with_separator(&args, |args| self.inner.accumulator(args))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let supported = |args: AccumulatorArgs| Ok::<_, DataFusionError>(self.inner.groups_accumulator_supported(args));
        self.with_separator(&args, supported).unwrap_or(false)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.with_separator(&args, |args| self.inner.create_groups_accumulator(args))
    }
}
