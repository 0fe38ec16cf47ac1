//! What is written is what PostgreSQL would read, and what it writes is read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};

use super::*;

fn lines(columns: Vec<(&str, ArrayRef)>) -> String {
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut out = Vec::new();
    CopyEncoder::new().write(&rows, |_, _| {}, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn values_are_written_as_copy_reads_them() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), Some(vec![])]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a\tb\\c\n"), None]));
    let text = lines(vec![
        ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ("t", texts),
        ("y", Arc::new(BinaryArray::from_vec(vec![&b"\x00\xff"[..], b""]))),
        ("d", Arc::new(Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(9, 2).unwrap())),
        ("f", Arc::new(Float64Array::from(vec![f64::NAN, 1e300]))),
        ("day", Arc::new(Date32Array::from(vec![0, -1]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![1, -1]).with_timezone("UTC"))),
        ("l", Arc::new(list)),
    ]);
    let expected = "t\ta\\tb\\\\c\\n\t\\\\x00ff\t-0.05\tNaN\t1970-01-01\t1970-01-01 00:00:00.000001Z\t{\"1\",NULL}\n\
                    f\t\\N\t\\\\x\t123.45\t1e300\t1969-12-31\t1969-12-31 23:59:59.999999Z\t{}\n";
    assert_eq!(text, expected);
}

#[test]
fn a_nul_in_a_text_is_refused_with_the_column() {
    let rows = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(vec!["a\0"])) as ArrayRef)]).unwrap();
    let error = CopyEncoder::new().write(&rows, |_, _| {}, &mut Vec::new()).unwrap_err();
    assert!(error.message.contains("'t'") && error.message.contains("NUL"), "{error}");
}

#[test]
fn array_literals_quote_what_could_be_misread() {
    let texts = StringArray::from(vec![Some("a\"b\\,{"), None, Some("NULL"), Some("")]);
    let mut out = Vec::new();
    write_array_literal(&texts, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"a\"b\\,{",NULL,"NULL",""}"#);
}

#[test]
fn what_postgres_writes_is_read() {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let element = Arc::new(Field::new("element", DataType::Utf8, true));
    let schema = Arc::new(Schema::new(vec![
        field("b", DataType::Boolean),
        field("y", DataType::Binary),
        field("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("d", DataType::Decimal128(9, 2)),
        field("l", DataType::List(element)),
    ]));
    let mut builder = RowsBuilder::new(schema).unwrap();
    let line = b"t\t\\\\x00ff\t1970-01-01 00:00:00.000001+00\t-0.05\t{a,\"b\\\\\"c\",NULL,\"NULL\"}";
    for line in [&line[..], b"false\t\\N\t\\N\t\\N\t\\N"] {
        let fields = split_line(line);
        builder.push(fields.iter().map(|field| field.as_deref())).unwrap();
    }
    assert_eq!(builder.len(), 2);
    let rows = builder.finish().unwrap();
    assert_eq!(rows.column(0).as_boolean(), &BooleanArray::from(vec![true, false]));
    assert_eq!(rows.column(1).as_binary::<i32>().value(0), b"\x00\xff");
    let list = rows.column(4).as_list::<i32>().value(0);
    let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b\"c"), None, Some("NULL")]));
    assert_eq!(&list, &expected);
    assert_eq!(rows.column(4).null_count(), 1);
    let numbers = Schema::new(vec![field("n", DataType::Int64)]);
    let mut builder = RowsBuilder::new(Arc::new(numbers)).unwrap();
    let error = builder.push([Some(&b"x"[..])]).unwrap_err();
    assert!(error.message.contains("'n'"), "{error}");
    builder = RowsBuilder::new(Arc::new(Schema::new(vec![field("n", DataType::Int64)]))).unwrap();
    builder.push([Some(&b"42"[..])]).unwrap();
    let rows = builder.finish().unwrap();
    assert_eq!(rows.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![42]));
}
