//! Functions that read the time of the epoch or the watermark. Volatile, so that nothing folds them into a
//! constant while planning; the instance that the planner sees has no cells and fails if it is evaluated.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::datetime;
use super::udf::{self, Kind, timestamp, timestamp_ltz};
use crate::eval::EvalContext;

const DAY_MS: i64 = 86_400_000;

/// What a function reads and in which form it gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    /// The time as `TIMESTAMP_LTZ(3)`.
    Instant,
    /// The time as `TIMESTAMP(3)` in UTC.
    Local,
    /// The day.
    Date,
    /// The time of day.
    Time,
    /// Seconds since 1970; with arguments, those of a written time.
    UnixSeconds,
    /// The watermark, in the type of the argument.
    Watermark,
}

const FUNCTIONS: [(&str, &[&str], Reading); 7] = [
    ("now", &["current_timestamp", "current_row_timestamp"], Reading::Instant),
    ("proctime", &[], Reading::Instant),
    ("localtimestamp", &[], Reading::Local),
    ("current_date", &["today"], Reading::Date),
    ("current_time", &["localtime"], Reading::Time),
    ("unix_timestamp", &[], Reading::UnixSeconds),
    ("current_watermark", &[], Reading::Watermark),
];

/// All of them, without cells.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let make = |(name, aliases, reading): &(&'static str, &[&str], Reading)| {
        let aliases = aliases.iter().map(|a| (*a).to_owned()).collect();
        let signature = Signature::user_defined(Volatility::Volatile);
        Arc::new(ScalarUDF::from(ClockFunction { name, aliases, reading: *reading, signature, ctx: None }))
    };
    FUNCTIONS.iter().map(make).collect()
}

/// The function with cells, if it is one of these.
pub(super) fn bind(function: &ScalarUDF, ctx: &EvalContext) -> Option<Arc<ScalarUDF>> {
    let clock = function.inner().downcast_ref::<ClockFunction>()?;
    Some(Arc::new(ScalarUDF::from(ClockFunction { ctx: Some(ctx.clone()), ..clock.clone() })))
}

/// Whether a call with so many arguments reads the clock or the watermark.
pub(crate) fn reads_clock(name: &str, arguments: usize) -> bool {
    let named = |(n, aliases, _): &(&str, &[&str], Reading)| *n == name || aliases.contains(&name);
    FUNCTIONS.iter().any(named) && (name != "unix_timestamp" || arguments == 0)
}

#[derive(Clone, Debug)]
struct ClockFunction {
    name: &'static str,
    aliases: Vec<String>,
    reading: Reading,
    signature: Signature,
    ctx: Option<EvalContext>,
}

impl PartialEq for ClockFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.ctx == other.ctx
    }
}
impl Eq for ClockFunction {}
impl Hash for ClockFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ClockFunction {
    fn reading(&self, ctx: &EvalContext, return_type: &DataType) -> Result<ScalarValue> {
        let now = ctx.now_ms();
        Ok(match self.reading {
            Reading::Instant => ScalarValue::TimestampMillisecond(Some(now), Some("UTC".into())),
            Reading::Local => ScalarValue::TimestampMillisecond(Some(now), None),
            // A day number beyond 32 bits is millions of years away.
            Reading::Date => ScalarValue::Date32(i32::try_from(now.div_euclid(DAY_MS)).ok()),
            Reading::Time => ScalarValue::Time32Millisecond(i32::try_from(now.rem_euclid(DAY_MS)).ok()),
            Reading::UnixSeconds => ScalarValue::Int64(Some(now.div_euclid(1000))),
            Reading::Watermark => {
                let zone = match return_type {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                ScalarValue::TimestampMillisecond(ctx.watermark_ms(), zone).cast_to(return_type)?
            }
        })
    }
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let forms: &[&[Kind]] = match self.reading {
            Reading::Watermark => &[&[Kind::Timestamp]],
            Reading::UnixSeconds => &[&[], &[Kind::Text], &[Kind::Text, Kind::Text]],
            // SQL also writes CURRENT_TIMESTAMP(3) and the like: the precision is always 3 here.
            Reading::Instant | Reading::Local | Reading::Time => &[&[], &[Kind::Integer]],
            Reading::Date => &[&[]],
        };
        udf::coerce(self.name, forms, false, types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.reading {
            Reading::Instant => timestamp_ltz(types),
            Reading::Local => timestamp(types),
            Reading::Date => DataType::Date32,
            Reading::Time => DataType::Time32(TimeUnit::Millisecond),
            Reading::UnixSeconds => DataType::Int64,
            Reading::Watermark => types.first().cloned().unwrap_or_else(|| timestamp(types)),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.reading == Reading::UnixSeconds && !args.args.is_empty() {
            return udf::Function::new(&datetime::UNIX_TIMESTAMP_OF_TEXT).invoke_with_args(args);
        }
        let Some(ctx) = &self.ctx else {
            let message = format!("{} has no value while a query is planned", self.name.to_uppercase());
            return Err(DataFusionError::Internal(message));
        };
        self.reading(ctx, args.return_type()).map(ColumnarValue::Scalar)
    }
}
