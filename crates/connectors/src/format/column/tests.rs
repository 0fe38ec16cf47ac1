//! Tests of column builders.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMillisecondType};

use super::*;

fn column(data_type: &DataType) -> ScalarColumn {
    ScalarColumn::new(data_type, true, TimestampFormat::Sql).unwrap()
}

fn refused(data_type: &DataType, text: &str) -> String {
    column(data_type).append_text(text.as_bytes()).unwrap_err().describe()
}

#[test]
fn texts_are_coerced_to_the_declared_type() {
    let mut integers = column(&DataType::Int64);
    for text in ["12", " -7 ", "+3", "1e2", "007"] {
        integers.append_text(text.as_bytes()).unwrap();
    }
    integers.append_null().unwrap();
    let array = integers.finish().unwrap();
    let expected = Int64Array::from(vec![Some(12), Some(-7), Some(3), Some(100), Some(7), None]);
    assert_eq!(array.as_primitive::<Int64Type>(), &expected);

    let mut flags = column(&DataType::Boolean);
    flags.append_text(b"TRUE").unwrap();
    flags.append_boolean(false).unwrap();
    assert_eq!(flags.finish().unwrap().as_boolean(), &BooleanArray::from(vec![true, false]));

    let mut floats = column(&DataType::Float64);
    floats.append_text(b"NaN").unwrap();
    floats.append_text(b"-Infinity").unwrap();
    let floats = floats.finish().unwrap();
    let floats = floats.as_primitive::<arrow::datatypes::Float64Type>();
    assert!(floats.value(0).is_nan() && floats.value(1) == f64::NEG_INFINITY);
}

#[test]
fn decimals_keep_every_digit_and_their_bounds() {
    let mut decimals = column(&DataType::Decimal128(38, 10));
    decimals.append_number(&number::scan(b"1234567890123456789012345678.0123456789").unwrap()).unwrap();
    let array = decimals.finish().unwrap();
    assert_eq!(array.as_primitive::<Decimal128Type>().value(0), 12_345_678_901_234_567_890_123_456_780_123_456_789);
    assert_eq!(array.data_type(), &DataType::Decimal128(38, 10));
    assert_eq!(refused(&DataType::Decimal128(4, 2), "100"), "the number '100' is out of range for DECIMAL(4, 2)");
    assert_eq!(refused(&DataType::Decimal128(4, 2), "99.995"), "the number '99.995' is out of range for DECIMAL(4, 2)");
}

#[test]
fn errors_say_what_was_expected_and_what_was_found() {
    assert_eq!(refused(&DataType::Int32, "x"), "expected INT, found the text 'x'");
    assert_eq!(refused(&DataType::Int32, ""), "expected INT, found the text ''");
    assert_eq!(refused(&DataType::Int32, "3000000000"), "the number '3000000000' is out of range for INT");
    assert_eq!(refused(&DataType::Int8, "1.5"), "expected TINYINT, found the number '1.5', which is not whole");
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(
        refused(&timestamp, "yesterday"),
        "expected TIMESTAMP(3) such as '2026-01-31 23:59:59.123', found the text 'yesterday'"
    );
    assert!(refused(&timestamp, "2026-01-01 00:00:00Z").contains("TIMESTAMP_LTZ"));
    let mut strict = ScalarColumn::new(&DataType::Int32, false, TimestampFormat::Sql).unwrap();
    assert_eq!(strict.append_null().unwrap_err().describe(), "NULL in a NOT NULL column");
    assert_eq!(
        column(&DataType::Int32).append_boolean(true).unwrap_err().describe(),
        "expected INT, found the boolean 'true'"
    );
}

#[test]
fn truncation_leaves_whole_rows_of_every_type() {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(10, 2),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Second, None),
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
    ];
    for data_type in types {
        let mut column = column(&data_type);
        for _ in 0..10 {
            column.append_masked();
        }
        column.truncate(3);
        assert_eq!(column.len(), 3);
        let array = column.finish().unwrap();
        assert_eq!((array.len(), array.null_count(), array.data_type()), (3, 3, &data_type));
        assert_eq!(column.finish().unwrap().len(), 0);
    }
}

#[test]
fn a_refused_value_leaves_nothing_behind() {
    let mut bytes = column(&DataType::Binary);
    bytes.append_text(b"Zm9v").unwrap();
    assert!(bytes.append_text(b"Zm9v!").is_err());
    bytes.truncate(1);
    bytes.append_text(b"YmFy").unwrap();
    let array = bytes.finish().unwrap();
    assert_eq!(array.as_binary::<i32>(), &BinaryArray::from(vec![b"foo".as_slice(), b"bar"]));
}

#[test]
fn times_of_each_unit_carry_their_type() {
    let mut column = ScalarColumn::new(
        &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        true,
        TimestampFormat::Iso8601,
    )
    .unwrap();
    column.append_text(b"1970-01-01T00:00:01Z").unwrap();
    let array = column.finish().unwrap();
    assert_eq!(array.as_primitive::<TimestampMillisecondType>().values(), &[1_000]);
    assert_eq!(array.data_type(), &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())));
}
