//! Tests of the text encoders.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, MapBuilder,
    RecordBatch, StringArray, StringBuilder, StructArray, TimestampMillisecondArray,
};
use arrow::array::{Date32Array, Int64Builder, Time32MillisecondArray};
use arrow::datatypes::{Field, Int32Type};

use super::*;
use crate::format::{CsvOptions, JsonOptions, TimestampFormat};

fn sample() -> RecordBatch {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k\"");
    map.values().append_value(5);
    map.append(true).unwrap();
    map.append(false).unwrap();
    let row = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
    )]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![-7, 8]))),
        ("text", Arc::new(StringArray::from(vec![Some("a\"b\\c\nd\u{1}é and some more"), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("double", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
        ("price", Arc::new(Decimal128Array::from(vec![123_456, 1]).with_precision_and_scale(20, 9).unwrap())),
        ("time", Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_120, 0]))),
        ("zoned", Arc::new(TimestampMillisecondArray::from(vec![1_767_225_600_000, 1]).with_timezone("UTC"))),
        ("date", Arc::new(Date32Array::from(vec![0, 20_454]))),
        ("clock", Arc::new(Time32MillisecondArray::from(vec![1_000, 86_399_999]))),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"foo"[..], b""]))),
        ("row", Arc::new(row)),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]))),
        ("map", Arc::new(map.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn encode(mut encoder: impl TextEncoder, rows: &RecordBatch) -> String {
    let mut out = Vec::new();
    encoder.begin_file(&mut out);
    encoder.encode(rows, None, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_is_that_of_flink() {
    let text = encode(JsonEncoder::new(&JsonOptions::default()), &sample());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"id":-7,"text":"a\"b\\c\nd\u0001é and some more","flag":true,"double":1.5,"price":0.000123456,"time":"2026-01-01 00:00:00.12","zoned":"2026-01-01 00:00:00Z","date":"1970-01-01","clock":"00:00:01","bytes":"Zm9v","row":{"x":1},"list":[1,null],"map":{"k\"":5}}"#
    );
    assert_eq!(
        lines[1],
        r#"{"id":8,"text":null,"flag":false,"double":"NaN","price":1E-9,"time":"1970-01-01 00:00:00","zoned":"1970-01-01 00:00:00.001Z","date":"2026-01-01","clock":"23:59:59.999","bytes":"","row":{"x":null},"list":null,"map":null}"#
    );
    let values: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(values[0]["text"], "a\"b\\c\nd\u{1}é and some more");
}

#[test]
fn json_settings_are_kept() {
    let options = JsonOptions {
        timestamps: TimestampFormat::Iso8601,
        encode_decimal_as_plain_number: true,
        encode_ignore_null_fields: true,
        ..JsonOptions::default()
    };
    let text = encode(JsonEncoder::new(&options), &sample());
    assert_eq!(
        text.lines().nth(1).unwrap(),
        r#"{"id":8,"flag":false,"double":"NaN","price":0.000000001,"time":"1970-01-01T00:00:00","zoned":"1970-01-01T00:00:00.001Z","date":"2026-01-01","clock":"23:59:59.999","bytes":"","row":{}}"#
    );
}

#[test]
fn json_strings_of_every_length_are_escaped() {
    for length in 0..40 {
        for at in 0..length {
            for special in ['"', '\\', '\n', '\u{1f}', '\u{0}', ' ', '!', '#', '\u{7f}', 'é'] {
                let text: String = (0..length).map(|i| if i == at { special } else { 'a' }).collect();
                let rows =
                    RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef)])
                        .unwrap();
                let line = encode(JsonEncoder::new(&JsonOptions::default()), &rows);
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(value["t"], text.as_str());
            }
        }
    }
}

fn texts(values: Vec<Option<&str>>) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(values));
    let other: ArrayRef = Arc::new(Int64Array::from_iter_values(0..column.len() as i64));
    RecordBatch::try_from_iter_with_nullable([("a,b", column, true), ("n", other, true)]).unwrap()
}

#[test]
fn csv_quotes_where_it_must() {
    let rows =
        texts(vec![Some("plain"), Some("a,b"), Some("say \"x\""), Some("two\nlines"), Some(""), None, Some(" edge")]);
    let options = CsvOptions { header: true, ..CsvOptions::default() };
    let text = encode(CsvEncoder::new(options, rows.schema()), &rows);
    assert_eq!(text, "\"a,b\",n\nplain,0\n\"a,b\",1\n\"say \"\"x\"\"\",2\n\"two\nlines\",3\n\"\",4\n,5\n\" edge\",6\n");
}

#[test]
fn csv_settings_are_kept() {
    let rows = texts(vec![Some("n/a"), None, Some("a;b")]);
    let options = CsvOptions {
        delimiter: b';',
        quote: Some(b'\''),
        null_literal: Some("n/a".to_owned()),
        ..CsvOptions::default()
    };
    assert_eq!(encode(CsvEncoder::new(options, rows.schema()), &rows), "'n/a';0\nn/a;1\n'a;b';2\n");
    let options = CsvOptions { quote: None, escape: Some(b'\\'), ..CsvOptions::default() };
    let rows = texts(vec![Some("a,b\\")]);
    assert_eq!(encode(CsvEncoder::new(options, rows.schema()), &rows), "a\\,b\\\\,0\n");
    let options = CsvOptions { quote: None, ..CsvOptions::default() };
    let error = CsvEncoder::new(options, rows.schema()).encode(&rows, None, &mut Vec::new()).unwrap_err();
    assert!(error.message.contains("column 'a,b'") && error.message.contains("csv.quote-character"), "{error}");
}

#[test]
fn columns_that_no_format_holds_are_refused() {
    let rows = sample();
    assert!(check_columns(&rows.schema(), "json", true).is_ok());
    let error = check_columns(&rows.schema(), "csv", false).unwrap_err();
    assert!(error.message.contains("column 'row' has the type ROW, which the format 'csv'"), "{error}");
    let wide = Schema::new(vec![Field::new("d", DataType::Date64, true)]);
    assert!(check_columns(&wide, "json", true).is_err());
}
