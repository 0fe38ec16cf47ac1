//! Tests of the JSON decoder, against serde_json as the reference.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType,
};
use serde_json::{Map, Value, json};

use super::*;
use crate::format::block::{BlockRows, TextDecoder};
use crate::format::options::TimestampFormat;

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn map_type(value: DataType) -> DataType {
    let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

fn list_type(item: DataType) -> DataType {
    DataType::List(Arc::new(nullable("item", item)))
}

fn decode(schema: &SchemaRef, options: &JsonOptions, text: &str) -> BlockRows {
    TextDecoder::json(Arc::clone(schema), options).unwrap().decode(text.as_bytes(), 0, 1_000_000)
}

fn column(data_type: DataType, text: &str) -> ArrayRef {
    let rows = decode(&schema(vec![nullable("a", data_type)]), &JsonOptions::default(), text);
    assert_eq!(rows.fault, None, "{text}");
    Arc::clone(rows.batches[0].rows.column(0))
}

fn refused(data_type: DataType, record: &str) -> String {
    decode(&schema(vec![nullable("a", data_type)]), &JsonOptions::default(), record).fault.expect("is refused").reason
}

/// A value of an array as JSON.
fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Value::Object(fields.iter().zip(columns).map(|(f, c)| (f.name().clone(), value(c, row))).collect())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|i| value(&items, i)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let key = |i| entries.column(0).as_string::<i32>().value(i).to_owned();
            Value::Object((0..entries.len()).map(|i| (key(i), value(entries.column(1), i))).collect())
        }
        other => panic!("{other}"),
    }
}

/// What a column of the type holds of a JSON value.
fn declared(data_type: &DataType, value: Option<&Value>) -> Value {
    match (data_type, value) {
        (_, None | Some(Value::Null)) => Value::Null,
        (DataType::Struct(fields), Some(value)) => Value::Object(
            fields.iter().map(|f| (f.name().clone(), declared(f.data_type(), value.get(f.name())))).collect(),
        ),
        (DataType::List(item), Some(value)) => {
            Value::Array(value.as_array().unwrap().iter().map(|v| declared(item.data_type(), Some(v))).collect())
        }
        (DataType::Map(entries, _), Some(value)) => {
            let DataType::Struct(fields) = entries.data_type() else { panic!("no map") };
            let entries = value.as_object().unwrap().iter();
            Value::Object(
                entries.map(|(k, v)| (k.clone(), declared(fields[1].data_type(), Some(v)))).collect::<Map<_, _>>(),
            )
        }
        (DataType::Float64, Some(value)) => json!(value.as_f64().unwrap()),
        (_, Some(value)) => value.clone(),
    }
}

/// Makes random records.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn space(&mut self) -> &'static str {
        ["", "", "", "", " ", "  ", "\t"][self.below(7) as usize]
    }

    fn string(&mut self) -> String {
        let pieces = [
            "a",
            "bcdefgh",
            "ä",
            "😀",
            "\\\"",
            "\\\\",
            "\\n",
            "\\u00e4",
            "\\ud83d\\ude00",
            "\\/",
            "{",
            "}",
            ":",
            ",",
            "[",
            "\t",
        ];
        let count = self.below(12);
        let text: String = (0..count).map(|_| pieces[self.below(pieces.len() as u64 - 1) as usize]).collect();
        format!("\"{text}\"")
    }

    fn value(&mut self, data_type: &DataType) -> String {
        if self.below(8) == 0 {
            return "null".to_owned();
        }
        match data_type {
            DataType::Int64 => (self.below(1 << 50) as i64 - (1 << 49)).to_string(),
            DataType::Float64 => format!("{}.{}", self.below(100_000) as i64 - 50_000, self.below(1000)),
            DataType::Boolean => (self.below(2) == 0).to_string(),
            DataType::Utf8 => self.string(),
            DataType::Struct(fields) => self.object(fields),
            DataType::List(item) => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.value(item.data_type())).collect();
                format!("[{}{}]", self.space(), items.join(&format!("{},{}", self.space(), self.space())))
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else { panic!("no map") };
                let bound = if self.below(20) == 0 { 40 } else { 4 };
                let members = (0..self.below(bound)).map(|_| {
                    let key = self.below(10);
                    format!("\"k\\u003{key}\"{}:{}", self.space(), self.value(fields[1].data_type()))
                });
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            other => panic!("{other}"),
        }
    }

    fn anything(&mut self) -> String {
        let types = [
            DataType::Int64,
            DataType::Utf8,
            DataType::Boolean,
            list_type(DataType::Utf8),
            map_type(list_type(DataType::Float64)),
        ];
        let data_type = &types[self.below(5) as usize];
        self.value(data_type)
    }

    fn object(&mut self, fields: &arrow::datatypes::Fields) -> String {
        let mut members = Vec::new();
        for field in fields {
            for _ in 0..[0, 1, 1, 1, 1, 1, 1, 2][self.below(8) as usize] {
                members.push((format!("\"{}\"", field.name()), self.value(field.data_type())));
            }
            if self.below(6) == 0 {
                members.push((format!("\"other{}\"", self.below(5)), self.anything()));
            }
        }
        if self.below(4) == 0 && members.len() > 1 {
            let (a, b) = (self.below(members.len() as u64) as usize, self.below(members.len() as u64) as usize);
            members.swap(a, b);
        }
        let members: Vec<String> = members
            .into_iter()
            .map(|(k, v)| format!("{}{k}{}:{}{v}{}", self.space(), self.space(), self.space(), self.space()))
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

fn random_schema() -> SchemaRef {
    let row = DataType::Struct(
        vec![nullable("x", DataType::Int64), nullable("y", DataType::Utf8), nullable("z", list_type(DataType::Int64))]
            .into(),
    );
    schema(vec![
        nullable("a", DataType::Int64),
        nullable("name", DataType::Utf8),
        nullable("b", DataType::Float64),
        nullable("row", row.clone()),
        nullable("flag", DataType::Boolean),
        nullable("rows", list_type(row)),
        nullable("map", map_type(DataType::Int64)),
        nullable("maps", map_type(list_type(DataType::Utf8))),
    ])
}

#[test]
fn random_records_agree_with_the_reference() {
    let schema = random_schema();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let lines: Vec<String> = (0..4_000).map(|_| random.object(schema.fields())).collect();
    let rows = decode(&schema, &JsonOptions::default(), &lines.join("\n"));
    assert_eq!(rows.fault, None);
    let batch = &rows.batches[0].rows;
    assert_eq!(batch.num_rows(), lines.len());
    for (row, line) in lines.iter().enumerate() {
        let reference: Value = serde_json::from_str(&line.replace('\t', " ")).unwrap();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let expected = declared(field.data_type(), reference.get(field.name()));
            assert_eq!(value(column, row), expected, "{} in {line}", field.name());
        }
    }
    // Every subset of the columns gives what the whole gives.
    for columns in [vec![], vec![1], vec![0, 3, 7], vec![5, 6]] {
        let projected = Arc::new(schema.project(&columns).unwrap());
        let part = decode(&projected, &JsonOptions::default(), &lines.join("\n"));
        assert_eq!(part.batches[0].rows, batch.project(&columns).unwrap());
    }
}

#[test]
fn mutated_records_never_panic_and_never_pass_where_the_reference_refuses() {
    let schema = random_schema();
    let options = JsonOptions { ignore_parse_errors: true, ..JsonOptions::default() };
    let mut random = Random(77);
    let mut decoder = TextDecoder::json(Arc::clone(&schema), &options).unwrap();
    let mut kept = 0;
    for _ in 0..6_000 {
        let mut line = random.object(schema.fields()).replace('\t', " ").into_bytes();
        for _ in 0..1 + random.below(2) {
            let at = random.below(line.len() as u64) as usize;
            match random.below(3) {
                0 => drop(line.remove(at)),
                1 => line[at] = b"{}[]\",:\\0a n-.\xff"[random.below(15) as usize],
                _ => line.truncate(at + 1),
            }
        }
        let rows = decoder.decode(&line, 0, 10);
        let count = rows.batches.iter().map(|b| b.rows.num_rows()).sum::<usize>();
        assert!(count as u64 + rows.rejected() <= 1);
        let valid = serde_json::from_slice::<Value>(&line).is_ok_and(|v| v.is_object());
        let shown = String::from_utf8_lossy(&line);
        // The escapes in values that nobody reads are not looked at.
        assert!(count == 0 || valid || shown.contains('\\'), "{shown}");
        kept += count;
    }
    assert!(kept > 500, "{kept}");
}

#[test]
fn scalars_are_coerced_as_flink_does() {
    let numbers =
        column(DataType::Int64, "{\"a\":\"12\"}\n{\"a\":12}\n{\"a\":1.2e1}\n{\"a\":null}\n{}\n{\"a\":\"\\u0031\"}");
    let expected = [json!(12), json!(12), json!(12), Value::Null, Value::Null, json!(1)];
    assert_eq!((0..6).map(|i| value(&numbers, i)).collect::<Vec<_>>(), expected);
    let texts = column(DataType::Utf8, "{\"a\":12.50}\n{\"a\":true}\n{\"a\":{\"b\": [1]}}\n{\"a\":[1, 2]}");
    let expected = ["12.50", "true", "{\"b\": [1]}", "[1, 2]"];
    assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), expected);
    let flags = column(DataType::Boolean, "{\"a\":true}\n{\"a\":\"FALSE\"}");
    assert_eq!((value(&flags, 0), value(&flags, 1)), (json!(true), json!(false)));
    let times = column(DataType::Timestamp(TimeUnit::Millisecond, None), "{\"a\":\"1970-01-01 00:00:01.5\"}");
    assert_eq!(times.as_primitive::<TimestampMillisecondType>().value(0), 1_500);
    let decimals = column(DataType::Decimal128(10, 2), "{\"a\":12.345}\n{\"a\":\"0.1\"}");
    assert_eq!(decimals.as_primitive::<Decimal128Type>().values(), &[1_235, 10]);
    let bytes = column(DataType::Binary, "{\"a\":\"Zm9v\"}");
    assert_eq!(bytes.as_binary::<i32>().value(0), b"foo");
}

#[test]
fn errors_name_the_column_and_the_reason() {
    let row = DataType::Struct(vec![Field::new("x", DataType::Int32, false)].into());
    for (data_type, record, reason) in [
        (DataType::Int32, "{\"a\":true}", "column 'a': expected INT, found the boolean 'true'"),
        (DataType::Int32, "{\"a\":{\"b\":1}}", "column 'a': expected INT, found the object '{\"b\":1}'"),
        (DataType::Int32, "{\"a\":9999999999}", "column 'a': the number '9999999999' is out of range for INT"),
        (DataType::Boolean, "{\"a\":1}", "column 'a': expected BOOLEAN, found the number '1'"),
        (row.clone(), "{\"a\":{\"x\":null}}", "column 'a.x': NULL in a NOT NULL column"),
        (row.clone(), "{\"a\":{}}", "column 'a.x': NULL in a NOT NULL column"),
        (row, "{\"a\":5}", "column 'a': expected an object for ROW, found '5}'"),
        (list_type(DataType::Int32), "{\"a\":{}}", "column 'a': expected an array for ARRAY, found '{}}'"),
        (map_type(DataType::Int32), "{\"a\":{\"k\":\"v\"}}", "column 'a.k': expected INT, found the text 'v'"),
        (DataType::Utf8, "{\"a\":\"\\ud800\"}", "column 'a': the escape '\\ud800' is half of a surrogate pair"),
        (DataType::Utf8, "{\"a\":\"x", "column 'a': a string that begins here has no end"),
        (DataType::Utf8, "{\"a\":", "column 'a': the record ends where a value should come; is the line cut short?"),
        (DataType::Utf8, "{\"b\":1", "the record ends where ',' or '}' should come; is the line cut short?"),
        (DataType::Utf8, "{\"a\":1}{", "there is more text after the object"),
        (DataType::Utf8, "[1]", "expected a JSON object, found '[1]'"),
        (DataType::Utf8, "{a:1}", "expected a key in double quotes, found 'a:1}'"),
    ] {
        assert_eq!(refused(data_type, record), reason, "{record}");
    }
    let strict = schema(vec![Field::new("a", DataType::Int32, false)]);
    let fault = decode(&strict, &JsonOptions::default(), "{\"b\":1}").fault.unwrap();
    assert_eq!(fault.reason, "column 'a': NULL in a NOT NULL column");
    let options = JsonOptions { fail_on_missing_field: true, ..JsonOptions::default() };
    let loose = schema(vec![nullable("a", DataType::Int32)]);
    assert_eq!(decode(&loose, &options, "{\"b\":1}").fault.unwrap().reason, "column 'a': the field is missing");
    assert!(decode(&loose, &options, "{\"a\":null}").fault.is_none());
}

#[test]
fn records_of_several_shapes_keep_their_values() {
    // More keys than are predicted, in orders that keep changing.
    let schema = schema(vec![nullable("k7", DataType::Int32), nullable("k311", DataType::Int32)]);
    let mut lines = Vec::new();
    for round in 0..50 {
        let keys = (0..400).map(|i| (i * 7 + round * 13) % 400);
        let members: Vec<String> = keys.map(|k| format!("\"k{k}\":{}", k * 1000 + round)).collect();
        lines.push(format!("{{{}}}", members.join(",")));
    }
    let rows = decode(&schema, &JsonOptions::default(), &lines.join("\n"));
    let batch = &rows.batches[0].rows;
    for (index, key) in [7, 311].into_iter().enumerate() {
        let expected: Vec<i32> = (0..50).map(|round| key * 1000 + round).collect();
        assert_eq!(batch.column(index).as_primitive::<Int32Type>().values(), &expected);
    }
}

#[test]
fn iso_timestamps_follow_the_option() {
    let options = JsonOptions { timestamps: TimestampFormat::Iso8601, ..JsonOptions::default() };
    let zoned = schema(vec![nullable("a", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))]);
    let rows = decode(&zoned, &options, "{\"a\":\"1970-01-01T01:00:00+01:00\"}\n{\"a\":\"1970-01-01T00:00:00.001Z\"}");
    assert_eq!(rows.batches[0].rows.column(0).as_primitive::<TimestampMillisecondType>().values(), &[0, 1]);
    let fault = decode(&zoned, &options, "{\"a\":\"1970-01-01 00:00:00\"}").fault.unwrap();
    assert!(fault.reason.contains("such as '2026-01-31T23:59:59.123'"), "{}", fault.reason);
}

#[test]
fn types_without_a_json_form_are_refused() {
    let error =
        |data_type| TextDecoder::json(schema(vec![nullable("a", data_type)]), &JsonOptions::default()).err().unwrap();
    assert_eq!(error(DataType::UInt64), "column 'a': json cannot hold the type UInt64");
    let entries = vec![Field::new("key", DataType::Int32, false), nullable("value", DataType::Int32)];
    let map = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false);
    assert_eq!(error(map), "column 'a': json needs a MAP with keys of type STRING, not INT");
}
