//! Arrow columns as the encoders see them: the type is looked at once a batch, then each value is a small enum.
//! Called by every text encoder and by the print sink.

use std::ops::Range;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, Time32MillisecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt64Type,
};

use crate::error::ConnectorError;

/// A column of a batch, or a part of one.
pub(crate) struct ColumnView<'a> {
    nulls: Option<&'a NullBuffer>,
    cells: Cells<'a>,
}

/// One value. Rows, arrays and maps point into their columns.
pub(crate) enum Value<'v, 'a> {
    Null,
    Boolean(bool),
    Whole(i64),
    Unsigned(u64),
    Float32(f32),
    Float64(f64),
    /// Unscaled value and digits after the point.
    Decimal(i128, i8),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since 1970.
    Date(i32),
    /// Milliseconds since midnight.
    Time(i32),
    /// Seconds since 1970 and nanoseconds after it; whether it is an instant (UTC) or a local time.
    Timestamp {
        seconds: i64,
        nanos: u32,
        zoned: bool,
    },
    /// Names and columns of the parts, and the row in them.
    Row(&'v [(&'a str, ColumnView<'a>)], usize),
    /// The elements: their column and range.
    List(&'v ColumnView<'a>, Range<usize>),
    /// Keys, values and their range.
    Map(&'v ColumnView<'a>, &'v ColumnView<'a>, Range<usize>),
}

enum Cells<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a Int8Array),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt64(&'a UInt64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time32MillisecondArray),
    Timestamp(&'a [i64], TimeUnit, bool),
    Row(Vec<(&'a str, ColumnView<'a>)>),
    List(&'a ListArray, Box<ColumnView<'a>>),
    Map(&'a MapArray, Box<(ColumnView<'a>, ColumnView<'a>)>),
}

/// Whether a column of this type can be viewed and holds no others.
pub(super) fn is_plain(data_type: &DataType) -> bool {
    use DataType::*;
    let numbers =
        matches!(data_type, Boolean | Int8 | Int16 | Int32 | Int64 | UInt64 | Float32 | Float64 | Decimal128(_, _));
    numbers || matches!(data_type, Utf8 | Binary | Date32 | Time32(TimeUnit::Millisecond) | Timestamp(_, _))
}

impl<'a> ColumnView<'a> {
    /// Looks at a column. An error where its type is none that a table can have.
    pub(crate) fn new(array: &'a dyn Array) -> Result<ColumnView<'a>, ConnectorError> {
        let cells = match array.data_type() {
            DataType::Boolean => Cells::Boolean(array.as_boolean()),
            DataType::Int8 => Cells::Int8(array.as_primitive::<Int8Type>()),
            DataType::Int16 => Cells::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Cells::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Cells::Int64(array.as_primitive::<Int64Type>()),
            DataType::UInt64 => Cells::UInt64(array.as_primitive::<UInt64Type>()),
            DataType::Float32 => Cells::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Cells::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Cells::Decimal(array.as_primitive::<Decimal128Type>(), *scale),
            DataType::Utf8 => Cells::Text(array.as_string::<i32>()),
            DataType::Binary => Cells::Bytes(array.as_binary::<i32>()),
            DataType::Date32 => Cells::Date(array.as_primitive::<Date32Type>()),
            DataType::Time32(TimeUnit::Millisecond) => Cells::Time(array.as_primitive::<Time32MillisecondType>()),
            DataType::Timestamp(unit, zone) => {
                let values = match unit {
                    TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                    TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
                    TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
                    TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
                };
                Cells::Timestamp(values, *unit, zone.is_some())
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let part = |(field, column): (&'a arrow::datatypes::FieldRef, &'a arrow::array::ArrayRef)| {
                    Ok((field.name().as_str(), ColumnView::new(column.as_ref())?))
                };
                Cells::Row(fields.iter().zip(columns).map(part).collect::<Result<_, ConnectorError>>()?)
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Cells::List(list, Box::new(ColumnView::new(list.values().as_ref())?))
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                Cells::Map(
                    map,
                    Box::new((ColumnView::new(map.keys().as_ref())?, ColumnView::new(map.values().as_ref())?)),
                )
            }
            other => {
                let message = format!("a column has the type {other}, which no sink can write; cast it in the query");
                return Err(ConnectorError::data(message));
            }
        };
        Ok(ColumnView { nulls: array.nulls(), cells })
    }

    /// The value of a row, which must exist.
    #[inline]
    pub(crate) fn value(&self, row: usize) -> Value<'_, 'a> {
        if self.nulls.is_some_and(|n| n.is_null(row)) {
            return Value::Null;
        }
        match &self.cells {
            Cells::Boolean(a) => Value::Boolean(a.value(row)),
            Cells::Int8(a) => Value::Whole(a.value(row).into()),
            Cells::Int16(a) => Value::Whole(a.value(row).into()),
            Cells::Int32(a) => Value::Whole(a.value(row).into()),
            Cells::Int64(a) => Value::Whole(a.value(row)),
            Cells::UInt64(a) => Value::Unsigned(a.value(row)),
            Cells::Float32(a) => Value::Float32(a.value(row)),
            Cells::Float64(a) => Value::Float64(a.value(row)),
            Cells::Decimal(a, scale) => Value::Decimal(a.value(row), *scale),
            Cells::Text(a) => Value::Text(a.value(row)),
            Cells::Bytes(a) => Value::Bytes(a.value(row)),
            Cells::Date(a) => Value::Date(a.value(row)),
            Cells::Time(a) => Value::Time(a.value(row)),
            Cells::Timestamp(values, unit, zoned) => timestamp(values[row], *unit, *zoned),
            Cells::Row(parts) => Value::Row(parts, row),
            Cells::List(list, elements) => Value::List(elements, range(list.value_offsets(), row)),
            Cells::Map(map, entries) => Value::Map(&entries.0, &entries.1, range(map.value_offsets(), row)),
        }
    }
}

#[inline]
fn timestamp<'v, 'a>(value: i64, unit: TimeUnit, zoned: bool) -> Value<'v, 'a> {
    // One arm a unit, so that each division is by a constant.
    let (seconds, nanos) = match unit {
        TimeUnit::Second => (value, 0),
        TimeUnit::Millisecond => (value.div_euclid(1_000), value.rem_euclid(1_000) * 1_000_000),
        TimeUnit::Microsecond => (value.div_euclid(1_000_000), value.rem_euclid(1_000_000) * 1_000),
        TimeUnit::Nanosecond => (value.div_euclid(1_000_000_000), value.rem_euclid(1_000_000_000)),
    };
    Value::Timestamp { seconds, nanos: nanos as u32, zoned }
}

fn range(offsets: &[i32], row: usize) -> Range<usize> {
    // Arrow guarantees offsets that are not negative and do not fall.
    offsets[row] as usize..offsets[row + 1] as usize
}
