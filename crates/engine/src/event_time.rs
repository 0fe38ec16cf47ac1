//! Reading event time out of columns, in milliseconds.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::{self, kernels::arity};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use crate::error::EngineError;

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
    let per_ms = match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => -1_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Int64 => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
        other => return Err(EngineError::Bug(format!("{operator}: event time '{name}' has type {other}"))),
    };
    let values = compute::cast(times, &DataType::Int64).map_err(|e| EngineError::arrow(operator, &e))?;
    let values: &PrimitiveArray<Int64Type> = values.as_primitive();
    Ok(match per_ms {
        1 => values.clone(),
        -1_000 => arity::unary(values, |v| v.saturating_mul(1_000)),
        _ => arity::unary(values, |v| v.div_euclid(per_ms)),
    })
}
