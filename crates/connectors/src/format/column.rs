//! Columns under construction: values of one scalar type, appended from text, from scanned numbers or from
//! booleans, straight into the vectors that become Arrow arrays. Used by the JSON and CSV decoders.
//!
//! A column that has refused a value may hold a part of it: the caller truncates it to the rows that count.

mod typed;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, NullBufferBuilder, PrimitiveArray, StringArray,
    Time32MillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use super::base64;
use super::fault::{Fault, Faulty, excerpt};
use super::number::{self, Misfit, Number};
use super::options::TimestampFormat;
use super::time::{TimeFault, TimestampReader, read_date, read_time};

/// Characters of a wrong value that an error shows.
const SHOWN_MAX: usize = 40;

/// A column of a scalar type.
pub(crate) struct ScalarColumn {
    data_type: DataType,
    nullable: bool,
    values: Values,
    nulls: NullBufferBuilder,
}

enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { values: Vec<i128>, bound: i128, scale: i32 },
    Text(ByteValues),
    Bytes(ByteValues),
    Date(Vec<i32>),
    Time(Vec<i32>),
    Timestamp { values: Vec<i64>, reader: TimestampReader, format: TimestampFormat },
}

/// Values of variable length, one after the other.
struct ByteValues {
    bytes: Vec<u8>,
    /// Where each value begins, and the end of the last.
    offsets: Vec<i32>,
}

impl ScalarColumn {
    /// A column of the type; none where the type is not scalar or not one of SQL's.
    pub(crate) fn new(data_type: &DataType, nullable: bool, times: TimestampFormat) -> Option<ScalarColumn> {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            &DataType::Decimal128(precision, scale) if precision <= 38 && scale >= 0 => {
                Values::Decimal { values: Vec::new(), bound: 10i128.pow(u32::from(precision)), scale: i32::from(scale) }
            }
            DataType::Utf8 => Values::Text(ByteValues::new()),
            DataType::Binary => Values::Bytes(ByteValues::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time32(TimeUnit::Millisecond) => Values::Time(Vec::new()),
            DataType::Timestamp(unit, zone) => {
                let reader = TimestampReader::new(*unit, times, zone.is_some());
                Values::Timestamp { values: Vec::new(), reader, format: times }
            }
            _ => return None,
        };
        Some(ScalarColumn { data_type: data_type.clone(), nullable, values, nulls: NullBufferBuilder::new(0) })
    }

    /// Whether the column takes any text as it is.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.values, Values::Text(_))
    }

    /// The column's type.
    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Appends bytes, to a column of BYTES.
    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) -> Faulty<()> {
        let Values::Bytes(values) = &mut self.values else { return Err(self.mismatch("bytes", bytes)) };
        values.push(bytes);
        self.nulls.append_non_null();
        Ok(())
    }

    /// How many values it holds.
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends a number as it stands in the data.
    #[inline]
    pub(crate) fn append_number(&mut self, number: &Number<'_>) -> Faulty<()> {
        let misfit = match &mut self.values {
            Values::Int64(values) => push(values, number.to_i64()),
            Values::Float64(values) => push(values, number.to_f64()),
            Values::Int32(values) => push(values, integer(number)),
            Values::Text(values) => {
                values.push(number.text);
                None
            }
            Values::Decimal { values, bound, scale } => push(values, decimal(number, *scale, *bound)),
            Values::Int16(values) => push(values, integer(number)),
            Values::Int8(values) => push(values, integer(number)),
            Values::Float32(values) => push(values, number.to_f32()),
            Values::Boolean(_) | Values::Bytes(_) | Values::Date(_) | Values::Time(_) | Values::Timestamp { .. } => {
                return Err(self.mismatch("the number", number.text));
            }
        };
        match misfit {
            None => {
                self.nulls.append_non_null();
                Ok(())
            }
            Some(misfit) => Err(self.misfit(number, misfit)),
        }
    }

    /// Appends what a text stands for: the text itself in a STRING column, else a number, time, boolean or
    /// base64, without the white space round it.
    #[inline]
    pub(crate) fn append_text(&mut self, text: &[u8]) -> Faulty<()> {
        match &mut self.values {
            Values::Text(values) => values.push(text),
            Values::Timestamp { values, reader, .. } => match reader.read(text) {
                Ok(time) => values.push(time),
                Err(fault) => return Err(self.time_fault(text, fault)),
            },
            _ => return self.append_parsed(text),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_parsed(&mut self, text: &[u8]) -> Faulty<()> {
        let text = text.trim_ascii();
        let done = match &mut self.values {
            Values::Boolean(values) => boolean(text).map(|value| values.append(value)),
            Values::Bytes(values) => values.push_base64(text).then_some(()),
            Values::Date(values) => read_date(text).map(|day| values.push(day)),
            Values::Time(values) => read_time(text).map(|ms| values.push(ms)),
            Values::Float64(values) if special_float(text).is_some() => {
                special_float(text).map(|value| values.push(value))
            }
            Values::Float32(values) if special_float(text).is_some() => {
                special_float(text).map(|value| values.push(value as f32))
            }
            _ => match number::parse(text) {
                Some(number) => return self.append_number(&number),
                None => None,
            },
        };
        match done {
            Some(()) => {
                self.nulls.append_non_null();
                Ok(())
            }
            None => Err(self.mismatch("the text", text)),
        }
    }

    /// Appends a boolean as it stands in the data.
    pub(crate) fn append_boolean(&mut self, value: bool) -> Faulty<()> {
        match &mut self.values {
            Values::Boolean(values) => values.append(value),
            Values::Text(values) => values.push(if value { b"true" } else { b"false" }),
            _ => return Err(self.mismatch("the boolean", if value { b"true" } else { b"false" })),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends NULL, which a NOT NULL column refuses.
    pub(crate) fn append_null(&mut self) -> Faulty<()> {
        if !self.nullable {
            return Err(Fault::new(0, "NULL in a NOT NULL column"));
        }
        self.append_masked();
        Ok(())
    }

    /// Appends a value that nobody sees because the row around it is NULL.
    pub(crate) fn append_masked(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) | Values::Time(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(values) | Values::Bytes(values) => values.push(&[]),
        }
        self.nulls.append_null();
    }

    /// Drops all values but the first `rows`, and parts of values.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Int8(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) | Values::Time(values) => values.truncate(rows),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Text(values) | Values::Bytes(values) => values.truncate(rows),
        }
        self.nulls.truncate(rows);
    }

    /// The values as an array; the column begins anew.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => Arc::new(Int8Array::new(renew(values), nulls)),
            Values::Int16(values) => Arc::new(Int16Array::new(renew(values), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::new(renew(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(renew(values), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(renew(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(renew(values), nulls)),
            Values::Decimal { values, .. } => {
                Arc::new(Decimal128Array::new(renew(values), nulls).with_data_type(self.data_type.clone()))
            }
            Values::Text(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Bytes(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Date(values) => Arc::new(Date32Array::new(renew(values), nulls)),
            Values::Time(values) => Arc::new(Time32MillisecondArray::new(renew(values), nulls)),
            Values::Timestamp { values, .. } => timestamps(&self.data_type, renew(values), nulls),
        })
    }

    /// The error for a value of another type.
    #[cold]
    pub(crate) fn mismatch(&self, what: &str, value: &[u8]) -> Box<Fault> {
        Fault::new(0, format!("expected {}, found {what} '{}'", self.expected(), excerpt(value, 0, SHOWN_MAX)))
    }

    #[cold]
    fn misfit(&self, number: &Number<'_>, misfit: Misfit) -> Box<Fault> {
        let number = excerpt(number.text, 0, SHOWN_MAX);
        let name = type_name(&self.data_type);
        Fault::new(
            0,
            match misfit {
                Misfit::NotWhole => format!("expected {name}, found the number '{number}', which is not whole"),
                Misfit::OutOfRange => format!("the number '{number}' is out of range for {name}"),
            },
        )
    }

    #[cold]
    fn time_fault(&self, text: &[u8], fault: TimeFault) -> Box<Fault> {
        let shown = excerpt(text, 0, SHOWN_MAX);
        match fault {
            TimeFault::Notation => self.mismatch("the text", text),
            TimeFault::Zone => {
                Fault::new(0, format!("the timestamp '{shown}' carries a zone: declare the column as TIMESTAMP_LTZ"))
            }
            TimeFault::OutOfRange => {
                Fault::new(0, format!("the timestamp '{shown}' is out of range for {}", type_name(&self.data_type)))
            }
        }
    }

    /// The column's type, with an example where its notation is not plain.
    fn expected(&self) -> String {
        let name = type_name(&self.data_type);
        match &self.values {
            Values::Timestamp { format: TimestampFormat::Sql, .. } => {
                format!("{name} such as '2026-01-31 23:59:59.123'")
            }
            Values::Timestamp { format: TimestampFormat::Iso8601, .. } => {
                format!("{name} such as '2026-01-31T23:59:59.123'")
            }
            Values::Date(_) => format!("{name} such as '2026-01-31'"),
            Values::Time(_) => format!("{name} such as '23:59:59'"),
            Values::Bytes(_) => format!("{name} in base64"),
            _ => name,
        }
    }
}

/// The SQL name of a type, for messages.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::Binary => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) => "TIME".to_owned(),
        DataType::Timestamp(unit, zone) => {
            let precision = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("{}({precision})", if zone.is_some() { "TIMESTAMP_LTZ" } else { "TIMESTAMP" })
        }
        DataType::Struct(_) => "ROW".to_owned(),
        DataType::List(_) => "ARRAY".to_owned(),
        DataType::Map(..) => "MAP".to_owned(),
        other => other.to_string(),
    }
}

impl ByteValues {
    fn new() -> Self {
        ByteValues { bytes: Vec::new(), offsets: vec![0] }
    }

    #[inline]
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.close();
    }

    fn push_base64(&mut self, text: &[u8]) -> bool {
        let valid = base64::decode(text, &mut self.bytes);
        if valid {
            self.close();
        }
        valid
    }

    #[inline]
    fn close(&mut self) {
        // A value is never longer than its text, and a block of text is far below 2 GiB.
        self.offsets.push(i32::try_from(self.bytes.len()).expect("a batch holds less than a block of text"));
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        let end = self.offsets.last().copied().unwrap_or(0);
        self.bytes.truncate(usize::try_from(end).expect("offsets are not negative"));
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.offsets, offsets)));
        let bytes = Vec::with_capacity(self.bytes.len());
        (offsets, Buffer::from_vec(std::mem::replace(&mut self.bytes, bytes)))
    }
}

/// Pushes a value, or hands back why there is none.
#[inline]
fn push<T>(values: &mut Vec<T>, value: Result<T, Misfit>) -> Option<Misfit> {
    match value {
        Ok(value) => {
            values.push(value);
            None
        }
        Err(misfit) => Some(misfit),
    }
}

#[inline]
fn integer<T: TryFrom<i64>>(number: &Number<'_>) -> Result<T, Misfit> {
    number.to_i64().and_then(|value| T::try_from(value).map_err(|_| Misfit::OutOfRange))
}

fn decimal(number: &Number<'_>, scale: i32, bound: i128) -> Result<i128, Misfit> {
    // Digits beyond the scale are rounded, as Flink does; digits beyond the precision are refused.
    let (value, _) = number.to_scaled(scale)?;
    if -bound < value && value < bound { Ok(value) } else { Err(Misfit::OutOfRange) }
}

fn boolean(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// The values of a float that are not numbers, in Java's notation.
fn special_float(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" | b"+Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Takes the values out, leaving a vector of the same capacity: the next batch is likely to be as long.
fn renew<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let empty = Vec::with_capacity(values.len());
    ScalarBuffer::from(std::mem::replace(values, empty))
}

fn timestamps(data_type: &DataType, values: ScalarBuffer<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    fn array<T: ArrowPrimitiveType<Native = i64>>(
        data_type: &DataType,
        values: ScalarBuffer<i64>,
        nulls: Option<NullBuffer>,
    ) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone()))
    }
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => array::<TimestampSecondType>(data_type, values, nulls),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array::<TimestampMicrosecondType>(data_type, values, nulls),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array::<TimestampNanosecondType>(data_type, values, nulls),
        _ => array::<TimestampMillisecondType>(data_type, values, nulls),
    }
}

#[cfg(test)]
mod tests;
