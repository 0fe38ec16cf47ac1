//! Types as the user knows them. Streams hold strings as `Utf8` and bytes as `Binary`, whatever a function of
//! DataFusion returns: view types would carry all of their buffers through every exchange, and two forms of
//! one SQL type could not be compared. Called wherever a type enters a plan.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema, TimeUnit};

/// The type with every large or view form replaced by the plain one, at any depth.
#[must_use]
pub fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(plain_field(item))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() { field.clone() } else { Arc::new(field.as_ref().clone().with_data_type(plain)) }
}

/// [`plain_type`] of every column.
#[must_use]
pub fn plain_schema(schema: &Schema) -> Schema {
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

/// A type as SQL writes it. For messages, `EXPLAIN` and `TYPEOF`.
#[must_use]
pub fn sql_type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INT UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float16 | DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".to_owned(),
        DataType::FixedSizeBinary(length) => format!("BINARY({length})"),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME({})", digits(*unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(*unit)),
        DataType::Duration(_) | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => {
            "INTERVAL".to_owned()
        }
        DataType::Interval(IntervalUnit::YearMonth) => "INTERVAL YEAR TO MONTH".to_owned(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("ARRAY<{}>", sql_type_name(item.data_type()))
        }
        DataType::Map(entries, _) => map_name(entries),
        DataType::Struct(fields) => row_name(fields.iter()),
        DataType::Dictionary(_, value) => sql_type_name(value),
        other => other.to_string().to_uppercase(),
    }
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn map_name(entries: &Field) -> String {
    match entries.data_type() {
        DataType::Struct(pair) if pair.len() == 2 => {
            format!("MAP<{}, {}>", sql_type_name(pair[0].data_type()), sql_type_name(pair[1].data_type()))
        }
        _ => "MAP".to_owned(),
    }
}

fn row_name<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> String {
    let mut text = "ROW<".to_owned();
    for (position, field) in fields.enumerate() {
        let comma = if position > 0 { ", " } else { "" };
        let written = write!(text, "{comma}{} {}", field.name(), sql_type_name(field.data_type()));
        written.expect("writing to a string cannot fail");
    }
    text + ">"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_vanish_at_any_depth() {
        let item = |t| Arc::new(Field::new("item", t, true));
        let nested = DataType::List(item(DataType::Struct(vec![Field::new("a", DataType::Utf8View, true)].into())));
        let plain = DataType::List(item(DataType::Struct(vec![Field::new("a", DataType::Utf8, true)].into())));
        assert_eq!(plain_type(&nested), plain);
        assert_eq!(sql_type_name(&plain), "ARRAY<ROW<a STRING>>");
        assert_eq!(sql_type_name(&DataType::Timestamp(TimeUnit::Millisecond, None)), "TIMESTAMP(3)");
    }
}
