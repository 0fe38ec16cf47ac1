//! Tests of messages to rows.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};

use super::metadata::headers_type;
use super::*;
use crate::table::METADATA_KEY;

fn message(chunk: &mut Chunk, key: Option<&str>, value: Option<&str>) {
    let mut part = |text: Option<&str>| {
        text.map(|text| {
            let start = chunk.bytes.len();
            chunk.bytes.extend_from_slice(text.as_bytes());
            start..chunk.bytes.len()
        })
    };
    let (key, value) = (part(key), part(value));
    let offset = 100 + chunk.messages.len() as i64;
    let headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)];
    chunk.messages.push(Message { offset, stamp: Stamp::Create(5), key, value, headers });
}

fn table(columns: &[(&str, DataType, Option<&str>)], key: &[&str], options: &[(&str, &str)]) -> TableSpec {
    let field = |(name, data_type, metadata): &(&str, DataType, Option<&str>)| {
        let field = Field::new(*name, data_type.clone(), !key.contains(name));
        field.with_metadata(metadata.iter().map(|key| (METADATA_KEY.to_owned(), (*key).to_owned())).collect())
    };
    TableSpec {
        name: "t".to_owned(),
        schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
        primary_key: key.iter().map(|name| (*name).to_owned()).collect(),
        partition_keys: vec![],
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
    }
}

fn decode(spec: &TableSpec, kind: Kind, wanted: &[usize], chunk: &Chunk) -> ChunkRows {
    let layout = Layout::read(&mut spec.options(), kind).unwrap();
    layout.check_metadata(spec).unwrap();
    let bad_records = crate::bad_records::bad_record_options(spec).unwrap();
    Decoder::new(spec, &layout, kind, wanted, ("topic", 3), &bad_records).unwrap().decode(chunk).unwrap()
}

#[test]
fn columns_come_from_key_value_and_metadata_in_any_order() {
    let spec = table(
        &[
            ("at", DataType::Timestamp(TimeUnit::Millisecond, None), Some("timestamp")),
            ("b", DataType::Int64, None),
            ("k_id", DataType::Int32, None),
            ("a", DataType::Utf8, None),
            ("h", headers_type(), Some("headers")),
            ("o", DataType::Int32, Some("offset")),
        ],
        &[],
        &[
            ("key.format", "json"),
            ("key.fields", "k_id"),
            ("key.fields-prefix", "k_"),
            ("value.format", "json"),
            ("value.fields-include", "EXCEPT_KEY"),
            ("value.json.ignore-parse-errors", "true"),
        ],
    );
    let mut chunk = Chunk::default();
    message(&mut chunk, Some(r#"{"id":1}"#), Some(r#"{"a":"x","b":10}"#));
    message(&mut chunk, Some(r#"{"id":2}"#), Some("broken"));
    message(&mut chunk, None, Some(r#"{"a":"z","b":30}"#));
    message(&mut chunk, Some(r#"{"id":4}"#), None);
    let decoded = decode(&spec, Kind::Plain, &[0, 1, 2, 3, 4, 5], &chunk);
    let rows = decoded.rows;
    assert_eq!((decoded.rejects.len(), decoded.fault, decoded.changes), (1, None, None));
    assert_eq!(decoded.messages, [0, 2]);
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().values().to_vec(), [10, 30]);
    let ids: Vec<_> = rows.column(2).as_primitive::<Int32Type>().iter().collect();
    assert_eq!(ids, [Some(1), None]);
    assert_eq!(rows.column(3).as_string::<i32>().value(1), "z");
    assert_eq!(rows.column(5).as_primitive::<Int32Type>().values().to_vec(), [100, 102]);
    let headers = rows.column(4).as_map();
    assert_eq!((headers.value_length(0), headers.values().is_null(0)), (1, true));
    let narrow = decode(&spec, Kind::Plain, &[], &chunk).rows;
    assert_eq!((narrow.num_rows(), narrow.num_columns()), (2, 0));
}

#[test]
fn upserts_take_keys_from_the_key_and_know_nothing_else_of_deletes() {
    let spec = table(
        &[("id", DataType::Int32, None), ("v", DataType::Utf8, None)],
        &["id"],
        &[("key.format", "json"), ("value.format", "json")],
    );
    let mut chunk = Chunk::default();
    message(&mut chunk, Some(r#"{"id":1}"#), Some(r#"{"id":1,"v":"x"}"#));
    message(&mut chunk, Some(r#"{"id":2}"#), None);
    message(&mut chunk, Some(r#"{"id":3}"#), Some(r#"{"id":3,"v":"z"}"#));
    let decoded = decode(&spec, Kind::Upsert, &[0, 1], &chunk);
    let (rows, changes) = (decoded.rows, decoded.changes);
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values().to_vec(), [1, 2, 3]);
    assert_eq!(rows.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), None, Some("z")]);
    let kinds = [ChangeKind::UpdateAfter, ChangeKind::Delete, ChangeKind::UpdateAfter].map(|kind| kind as i8);
    assert_eq!(changes.unwrap().values().to_vec(), kinds);
    message(&mut chunk, None, Some(r#"{"id":4}"#));
    let decoded = decode(&spec, Kind::Upsert, &[0], &chunk);
    let (number, side, fault) = decoded.fault.unwrap();
    assert_eq!((number, side, decoded.rows.num_rows()), (3, Side::Key, 3));
    assert!(fault.reason.starts_with("the message has no key"), "{}", fault.reason);
}

#[test]
fn changelogs_and_raw_messages() {
    let mut chunk = Chunk::default();
    message(&mut chunk, None, Some(r#"{"before":null,"after":{"a":"1"},"op":"c"}"#));
    message(&mut chunk, None, Some(r#"{"before":{"a":"1"},"after":{"a":"2"},"op":"u"}"#));
    let columns = [("a", DataType::Utf8, None), ("o", DataType::Int64, Some("offset"))];
    let spec = table(&columns, &[], &[("format", "debezium-json")]);
    let ChunkRows { rows, changes, .. } = decode(&spec, Kind::Plain, &[0, 1], &chunk);
    assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "1", "2"]);
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().values().to_vec(), [100, 101, 101]);
    assert_eq!(changes.unwrap().values().to_vec(), [0, 1, 2]);

    let spec = table(&columns, &[], &[("format", "raw")]);
    chunk.bytes[chunk.messages[1].value.clone().unwrap().start] = 0xff;
    let decoded = decode(&spec, Kind::Plain, &[0], &chunk);
    assert_eq!((decoded.rows.num_rows(), decoded.fault.unwrap().0), (1, 1));
}

#[test]
fn wrong_keys_and_values_are_rejected_alone() {
    let options = [
        ("key.format", "json"),
        ("key.fields", "k"),
        ("value.format", "json"),
        ("bad-records", "dead-letter"),
        ("bad-records.table", "letters"),
    ];
    let columns = [("k", DataType::Int32, None), ("v", DataType::Int32, None)];
    let spec = table(&columns, &[], &options);
    let mut chunk = Chunk::default();
    for (key, value) in [
        (Some(r#"{"k":1}"#), Some(r#"{"k":1,"v":1}"#)),
        (Some("broken"), Some(r#"{"k":2,"v":2}"#)),
        (Some(r#"{"k":3}"#), Some(r#"{"v":"x"}"#)),
        (Some("["), Some("[")),
        (None, Some(r#"{"k":5,"v":5}"#)),
    ] {
        message(&mut chunk, key, value);
    }
    let decoded = decode(&spec, Kind::Plain, &[0, 1], &chunk);
    assert_eq!(decoded.rows.column(1).as_primitive::<Int32Type>().values().to_vec(), [1, 2, 5]);
    assert_eq!(decoded.messages, [0, 1, 4]);
    // Keys from the value are not looked at beside it.
    let reasons: Vec<_> = decoded.rejects.iter().map(|(number, reason)| (*number, reason.as_str())).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(reasons[0], (2, "column 'v': expected INT, found the text 'x'"));

    let spec = table(&columns, &["k"], &[&options[..1], &options[2..]].concat());
    let decoded = decode(&spec, Kind::Upsert, &[0, 1], &chunk);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int32Type>().values().to_vec(), [1]);
    let numbers: Vec<usize> = decoded.rejects.keys().copied().collect();
    assert_eq!((numbers, decoded.fault), (vec![1, 2, 3, 4], None));
    assert!(decoded.rejects[&1].starts_with("the key: "), "{:?}", decoded.rejects);
    assert!(decoded.rejects[&4].starts_with("the message has no key"), "{:?}", decoded.rejects);
}
