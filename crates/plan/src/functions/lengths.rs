//! Bounds what functions make whose result may be far longer than their arguments: `REPEAT('x', 2000000000)` is one small
//! row. What it would take is worked out before anything is made. Called wherever a function is, while planning too, as
//! constants are folded there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::{self, cast};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::udf::failed;
use crate::eval::EvalContext;

/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 64 << 20;
/// What an element of an array is taken for.
const ELEMENT_BYTES: usize = 16;

/// How long the result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Length {
    /// The first argument, as often as the second one says.
    Times,
    /// As many characters as the second argument says.
    Characters,
    /// As many elements as the second argument says.
    Elements,
    /// Elements from the first to the second number, by steps of the third.
    Range,
}

const FUNCTIONS: [(&str, Length); 7] = [
    ("repeat", Length::Times),
    ("lpad", Length::Characters),
    ("rpad", Length::Characters),
    ("array_repeat", Length::Elements),
    ("array_resize", Length::Elements),
    ("range", Length::Range),
    ("generate_series", Length::Range),
];

/// The function with a bound, if it needs one.
pub(super) fn bounded(function: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let length = FUNCTIONS.iter().find(|(name, _)| *name == function.name()).map(|(_, length)| *length);
    let Some(length) = length else { return function.clone() };
    let column_bytes_max = EvalContext::default().column_bytes_max;
    Arc::new(ScalarUDF::from(Bounded { inner: function.clone(), length, column_bytes_max }))
}

/// The same with the bound of a context, if the function has one.
pub(super) fn bind(function: &ScalarUDF, ctx: &EvalContext) -> Option<Arc<ScalarUDF>> {
    let bounded = function.inner().downcast_ref::<Bounded>()?;
    Some(Arc::new(ScalarUDF::from(Bounded { column_bytes_max: ctx.column_bytes_max, ..bounded.clone() })))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    length: Length,
    /// For all rows of a batch together.
    column_bytes_max: usize,
}

impl Bounded {
    /// Whether the result may be made.
    fn check(&self, args: &[ColumnarValue], rows: usize) -> Result<()> {
        let is_constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { rows };
        let numbers = |at: usize| args.get(at).map(integers).transpose();
        let sizes: Vec<usize> = match self.length {
            Length::Range => {
                // Dates and times have no such numbers; intervals are their steps.
                let (Some(Some(first)), last, step) = (numbers(0)?, numbers(1)?.flatten(), numbers(2)?.flatten())
                else {
                    return Ok(());
                };
                (0..rows).map(|row| range(&first, last.as_ref(), step.as_ref(), row)).collect()
            }
            _ => {
                let Some(Some(numbers)) = numbers(1)? else { return Ok(()) };
                let most = compute::max(&numbers).unwrap_or(0);
                let unit = match self.length {
                    Length::Times => None,
                    Length::Elements => Some(ELEMENT_BYTES),
                    Length::Characters | Length::Range => Some(1),
                };
                let text = match unit {
                    Some(unit) if times(most, unit).saturating_mul(rows) <= self.least() => return Ok(()),
                    Some(_) => None,
                    None => Some(args[0].to_array(rows)?),
                };
                if text.as_ref().is_some_and(|text| times(most, text.get_array_memory_size()) <= self.least()) {
                    return Ok(());
                }
                let lengths = text.map(|text| compute::kernels::length::length(&text)).transpose()?;
                let lengths = lengths.map(|lengths| as_integers(&lengths)).transpose()?.flatten();
                let unit = |row: usize| match (&lengths, unit) {
                    (_, Some(unit)) => unit,
                    (Some(lengths), None) if lengths.is_valid(row) => usize::try_from(lengths.value(row)).unwrap_or(0),
                    _ => 0,
                };
                (0..rows).map(|row| times(number(&numbers, row), unit(row))).collect()
            }
        };
        self.check_sizes(&sizes)
    }

    fn least(&self) -> usize {
        VALUE_BYTES_MAX.min(self.column_bytes_max)
    }

    fn check_sizes(&self, sizes: &[usize]) -> Result<()> {
        let name = self.inner.name().to_uppercase();
        if let Some(bytes) = sizes.iter().find(|bytes| **bytes > VALUE_BYTES_MAX) {
            return failed(format!(
                "{name} would make a value of {bytes} bytes; one value may have {VALUE_BYTES_MAX}. Ask for a shorter one"
            ));
        }
        let (all, max) = (sizes.iter().fold(0_usize, |sum, bytes| sum.saturating_add(*bytes)), self.column_bytes_max);
        if all > max && sizes.len() > 1 {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{name} would make values of {all} bytes for {} rows at once; {max} are allowed here. Make them shorter, or \
                 compute them in the SELECT list of a query of its own",
                sizes.len()
            )));
        }
        Ok(())
    }
}

fn times(number: i64, unit: usize) -> usize {
    usize::try_from(number).unwrap_or(0).saturating_mul(unit)
}

/// Bytes of the elements of a range.
fn range(first: &Int64Array, last: Option<&Int64Array>, step: Option<&Int64Array>, row: usize) -> usize {
    let (from, to) = last.map_or((0, number(first, row)), |last| (number(first, row), number(last, row)));
    let step = step.map_or(1, |step| number(step, row).unsigned_abs().max(1));
    usize::try_from(to.abs_diff(from) / step).unwrap_or(usize::MAX).saturating_mul(size_of::<i64>())
}

/// An argument as integers, where it is any. A constant has one row.
fn integers(arg: &ColumnarValue) -> Result<Option<Int64Array>> {
    match arg {
        ColumnarValue::Array(array) => as_integers(array),
        ColumnarValue::Scalar(value) => as_integers(&value.to_array()?),
    }
}

/// The number of a row; 0 for NULL.
fn number(numbers: &Int64Array, row: usize) -> i64 {
    let row = if numbers.len() == 1 { 0 } else { row };
    if numbers.is_valid(row) { numbers.value(row) } else { 0 }
}

/// A length that is less than nothing has no result, as in Flink; DataFusion's functions panic of it.
fn null_where_negative(length: ColumnarValue) -> Result<ColumnarValue> {
    let Some(numbers) = integers(&length)?.filter(|numbers| compute::min(numbers).is_some_and(|least| least < 0))
    else {
        return Ok(length);
    };
    Ok(match length {
        ColumnarValue::Array(array) => ColumnarValue::Array(compute::nullif(
            &array,
            &compute::kernels::cmp::lt(&numbers, &Int64Array::new_scalar(0))?,
        )?),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(ScalarValue::try_from(&value.data_type())?),
    })
}

fn as_integers(array: &ArrayRef) -> Result<Option<Int64Array>> {
    if !array.data_type().is_integer() {
        return Ok(None);
    }
    Ok(Some(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args.args, args.number_rows)?;
        if self.length == Length::Characters {
            args.args[1] = null_where_negative(args.args[1].clone())?;
        }
        self.inner.invoke_with_args(args)
    }
}
