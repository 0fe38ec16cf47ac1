//! Functions about values of any type: `IF`, `TYPEOF`, `GREATEST`, `LEAST`; and those that are refused.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{self, kernels::zip};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::udf::{Arguments, Definition, Kind, text};
use crate::types::sql_type_name;

/// The table of this module.
pub(super) const FUNCTIONS: &[Definition] = &[Definition::new("typeof", &[&[Kind::Any]], text, type_of)];

macro_rules! random {
    ($name:literal) => {
        concat!(
            $name,
            " is not deterministic: after a failure a replay would give other results; take such values from the source"
        )
    };
}

/// Functions that other systems have and that are refused, with the reason.
pub(super) const REFUSED: [(&str, &str); 6] = [
    ("rand", random!("RAND")),
    ("random", random!("RANDOM")),
    ("rand_integer", random!("RAND_INTEGER")),
    ("uuid", random!("UUID")),
    ("uuidv4", random!("UUIDV4")),
    ("uuidv7", random!("UUIDV7")),
];

/// Functions that are no plain tables.
pub(super) fn special() -> Vec<Arc<ScalarUDF>> {
    let refused = REFUSED.iter().map(|(name, reason)| Arc::new(ScalarUDF::from(Refused::new(name, reason))));
    let extremes =
        [("greatest", datafusion_functions::core::greatest()), ("least", datafusion_functions::core::least())];
    let extremes = extremes.map(|(name, inner)| {
        Arc::new(ScalarUDF::from(Strict { name, inner, signature: Signature::user_defined(Volatility::Immutable) }))
    });
    let condition = Arc::new(ScalarUDF::from(If { signature: Signature::user_defined(Volatility::Immutable) }));
    refused.chain(extremes).chain([condition]).collect()
}

fn type_of(args: &Arguments) -> Result<ArrayRef> {
    let name = sql_type_name(args.data_type(0));
    args.map_text(|_| Some(&name))
}

/// A function whose planning fails with a reason.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Refused {
    name: &'static str,
    reason: &'static str,
    signature: Signature,
}

impl Refused {
    fn new(name: &'static str, reason: &'static str) -> Self {
        let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
        Refused { name, reason, signature: Signature::new(any, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Refused {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::NotImplemented(self.reason.to_owned()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::NotImplemented(self.reason.to_owned()))
    }
}

/// `GREATEST` and `LEAST` of Flink: NULL where any argument is NULL. DataFusion's skip NULLs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Strict {
    name: &'static str,
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Strict {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let inputs = ColumnarValue::values_to_arrays(&args.args)?;
        let nulls = inputs.iter().fold(None, |all, a| NullBuffer::union(all.as_ref(), a.logical_nulls().as_ref()));
        let result = self.inner.invoke_with_args(args)?.into_array(inputs.first().map_or(rows, |a| a.len()))?;
        let Some(nulls) = nulls else { return Ok(ColumnarValue::Array(result)) };
        let mask = BooleanArray::new(!nulls.inner(), None);
        Ok(ColumnarValue::Array(compute::nullif(&result, &mask)?))
    }
}

/// `IF(condition, yes, no)`. Stored plans have it as CASE, so that only one side is evaluated; this evaluation
/// serves DataFusion's folding of constants.
#[derive(Debug, PartialEq, Eq, Hash)]
struct If {
    signature: Signature,
}

impl ScalarUDFImpl for If {
    fn name(&self) -> &str {
        "if"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [condition, yes, no] = types else {
            return Err(DataFusionError::Plan(format!("IF takes 3 arguments, not {}", types.len())));
        };
        if !matches!(condition, DataType::Boolean | DataType::Null) {
            let found = sql_type_name(condition);
            return Err(DataFusionError::Plan(format!("the first argument of IF is a condition, not a {found}")));
        }
        let common = datafusion_functions::core::greatest().coerce_types(&[yes.clone(), no.clone()])?;
        let common = common.into_iter().next().unwrap_or_else(|| yes.clone());
        Ok(vec![DataType::Boolean, common.clone(), common])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let branch = types.get(1).cloned();
        branch.ok_or_else(|| DataFusionError::Plan("IF takes 3 arguments".to_owned()))
    }

    fn short_circuits(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [condition, yes, no] = columns.as_slice() else {
            return Err(DataFusionError::Plan("IF takes 3 arguments".to_owned()));
        };
        let condition = condition.as_boolean();
        // NULL chooses the second value.
        let condition =
            if condition.null_count() > 0 { compute::prep_null_mask_filter(condition) } else { condition.clone() };
        let result = zip::zip(&condition, yes, no)?;
        if constant {
            ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar)
        } else {
            Ok(ColumnarValue::Array(result))
        }
    }
}
