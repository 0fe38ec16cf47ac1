//! Reading event time out of columns, in milliseconds.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::{self, kernels::arity};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::error::ArrowError;

use crate::error::EngineError;

/// Where event time begins and ends (ms): the years 0 to 9999, as of a timestamp's text. What computes with times and the
/// lengths of windows does not overflow between them.
const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// Whether an event time (ms) is one.
pub(crate) fn is_event_time(time_ms: i64) -> bool {
    (FIRST_MS..=LAST_MS).contains(&time_ms)
}

/// Whether a watermark (ms) is one: none is ahead of all event times, but it may be before them.
pub(crate) fn is_watermark(time_ms: i64) -> bool {
    time_ms <= LAST_MS
}

/// What to say of one (ms) that is not.
pub(crate) fn says_of_time(time_ms: i64) -> String {
    format!(
        "{time_ms} ms after 1970, which is not in the years 0 to 9999; is its unit the one that the table declares?"
    )
}

/// The milliseconds of a timestamp column; finer parts of a millisecond are cut off towards the past. Fails
/// where a row has none.
pub(crate) fn event_times(operator: &str, rows: &RecordBatch, column: usize) -> Result<Int64Array, EngineError> {
    milliseconds(operator, rows.schema_ref().field(column).name(), rows.column(column))
}

/// The same for an array that is not yet a column of a batch.
pub(crate) fn milliseconds(operator: &str, name: &str, times: &ArrayRef) -> Result<Int64Array, EngineError> {
    if times.null_count() > 0 {
        let message = format!(
            "event time '{name}' is NULL in {} of {} rows; filter such rows out, or declare the column from a COALESCE",
            times.null_count(),
            times.len()
        );
        return Err(EngineError::Data { operator: operator.to_owned(), message });
    }
    to_milliseconds(times).map_err(|e| EngineError::arrow(operator, &e))
}

/// The same for any array of timestamps, where rows may have none.
pub(crate) fn to_milliseconds(times: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let per_ms = match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => -1_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Int64 => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
        other => return Err(ArrowError::InvalidArgumentError(format!("an event time has type {other}"))),
    };
    let values = compute::cast(times, &DataType::Int64)?;
    let values: &PrimitiveArray<Int64Type> = values.as_primitive();
    Ok(match per_ms {
        1 => values.clone(),
        -1_000 => arity::unary(values, |v| v.saturating_mul(1_000)),
        _ => arity::unary(values, |v| v.div_euclid(per_ms)),
    })
}
