//! Flink's aggregates that DataFusion has only with other parameters.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::average::average;
use super::udf::{self, Kind};

/// All of them.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let inner = datafusion_functions_aggregate::string_agg::string_agg_udaf();
    let signature = Signature::user_defined(Volatility::Immutable);
    vec![Arc::new(AggregateUDF::from(ListAgg { inner, signature })), average()]
}

/// `LISTAGG(s[, separator])`: `STRING_AGG` whose separator is a comma unless said otherwise.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ListAgg {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// The separator where a call names none. Written into the stored call: an accumulator sees its arguments by
/// position, and the ORDER BY follows them.
pub(crate) const LISTAGG_SEPARATOR: &str = ",";

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
        check_separator(&args)?;
        self.inner.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        check_separator(&args)?;
        self.inner.create_groups_accumulator(args)
    }
}

fn check_separator(args: &AccumulatorArgs) -> Result<()> {
    if args.exprs.len() == 2 {
        Ok(())
    } else {
        Err(DataFusionError::Plan("LISTAGG is called without a separator".to_owned()))
    }
}
