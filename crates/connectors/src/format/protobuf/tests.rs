//! Tests of Protobuf: against prost-reflect's messages, which read and write by themselves; the rules of the wire format; messages
//! that are wrong.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    MapBuilder, StringArray, StringBuilder, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit};
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::*;
use crate::format::encode::TextEncoder;

const SCHEMA: &str = r#"
syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Color { RED = 0; GREEN = 1; }
message All {
  int64 id = 1;
  optional int32 maybe = 2;
  string name = 3;
  bytes raw = 4;
  bool flag = 5;
  float single = 6;
  double exact = 7;
  Color color = 8;
  google.protobuf.Timestamp at = 9;
  google.protobuf.Int64Value wrapped = 10;
  Inner inner = 11;
  repeated sint64 numbers = 12;
  map<string, int32> counts = 13;
  repeated Inner more = 14;
  fixed32 fix = 300;
  message Inner { int32 x = 1; repeated string words = 2; }
}"#;

fn message() -> MessageDescriptor {
    schema::registered(
        &RegisteredSchema { kind: SchemaKind::Protobuf, text: SCHEMA.to_owned(), references: vec![] },
        &[0],
    )
    .unwrap()
}

fn inner() -> Fields {
    vec![Field::new("x", DataType::Int32, false), Field::new("words", DataType::new_list(DataType::Utf8, false), false)]
        .into()
}

fn table() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let map = {
        let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int32Builder::new());
        map.finish().data_type().clone()
    };
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("maybe", DataType::Int32),
        field("name", DataType::Utf8),
        field("raw", DataType::Binary),
        field("flag", DataType::Boolean),
        field("single", DataType::Float32),
        field("exact", DataType::Float64),
        field("color", DataType::Utf8),
        field("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("wrapped", DataType::Int64),
        field("inner", DataType::Struct(inner())),
        field("numbers", DataType::new_list(DataType::Int64, false)),
        field("counts", map),
        field("more", DataType::new_list(DataType::Struct(inner()), false)),
        field("fix", DataType::Int64),
    ]))
}

fn decoder_of(message: &MessageDescriptor, table: &SchemaRef) -> Result<(ProtobufDecoder, Vec<String>), String> {
    let mut resolver = Resolver { defaults: false, notes: Vec::new() };
    let plan = resolver.message(message, table.fields(), "")?;
    let columns = TreeColumn::of_fields(table.fields())?;
    let options = ProtobufOptions::of(message.clone());
    let decoder = ProtobufDecoder {
        schema: table.clone(),
        columns,
        options,
        plain: Some(plan),
        learned: LearnedSchemas::default(),
        rows: 0,
    };
    Ok((decoder, resolver.notes))
}

fn decode_all(decoder: &mut ProtobufDecoder, records: &[Vec<u8>]) -> RecordBatch {
    let rows: usize = records.iter().map(|record| decoder.decode(record).unwrap()).sum();
    decoder.finish(rows).unwrap()
}

fn encode(message: &MessageDescriptor, rows: &RecordBatch) -> Vec<Vec<u8>> {
    let mut encoder = encode::ProtobufEncoder::new(message, rows.schema_ref().fields()).unwrap();
    let (mut out, mut start, mut ends) = (Vec::new(), 0, Vec::new());
    encoder.encode_each(rows, None, &mut out, &mut |_, end| ends.push(end)).unwrap();
    ends.into_iter().map(|end| out[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

/// A row that is full and one of which nothing is there.
fn rows() -> RecordBatch {
    let words = |first: Vec<Option<&str>>, rest: Vec<Option<&str>>| {
        let mut list = arrow::array::ListBuilder::new(StringBuilder::new())
            .with_field(Field::new_list_field(DataType::Utf8, false));
        list.append_value(first);
        list.append_value(rest);
        Arc::new(list.finish()) as ArrayRef
    };
    let row = |nulls| {
        let parts: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![-5, 0])), words(vec![Some("a"), Some("")], vec![])];
        StructArray::new(inner(), parts, nulls)
    };
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    map.append(true).unwrap();
    let numbers = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Int64, false)),
        arrow::buffer::OffsetBuffer::from_lengths([3, 0]),
        Arc::new(Int64Array::from(vec![1, -2, i64::MIN])),
        None,
    );
    let more = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Struct(inner()), false)),
        arrow::buffer::OffsetBuffer::from_lengths([2, 0]),
        Arc::new(row(None)),
        None,
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![i64::MIN, 0])),
        Arc::new(Int32Array::from(vec![Some(0), None])),
        Arc::new(StringArray::from(vec!["schön", ""])),
        Arc::new(BinaryArray::from(vec![&b"\xff\0"[..], b""])),
        Arc::new(BooleanArray::from(vec![true, false])),
        Arc::new(Float32Array::from(vec![1.5, 0.0])),
        Arc::new(Float64Array::from(vec![-1e300, 0.0])),
        Arc::new(StringArray::from(vec!["GREEN", "RED"])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None])),
        Arc::new(Int64Array::from(vec![Some(0), None])),
        Arc::new(row(Some(vec![true, false].into()))),
        Arc::new(numbers),
        Arc::new(map.finish()),
        Arc::new(more),
        Arc::new(Int64Array::from(vec![i64::from(u32::MAX), 0])),
    ];
    RecordBatch::try_new(table(), columns).unwrap()
}

#[test]
fn rows_come_back_and_others_understand_them() {
    let (message, rows) = (message(), rows());
    let records = encode(&message, &rows);
    let (mut decoder, notes) = decoder_of(&message, &table()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(decode_all(&mut decoder, &records), rows);
    assert_eq!(records[1], b"", "nothing is written of what is not there");
    let other = DynamicMessage::decode(message.clone(), &records[0][..]).unwrap();
    assert_eq!(other.get_field_by_name("name").unwrap().as_str(), Some("schön"));
    assert_eq!(other.get_field_by_name("fix").unwrap().as_u32(), Some(u32::MAX));
    assert_eq!(other.get_field_by_name("numbers").unwrap().as_list().unwrap().len(), 3);
    let at = other.get_field_by_name("at").unwrap();
    let at = at.as_message().unwrap();
    assert_eq!(at.get_field_by_name("nanos").unwrap().as_i32(), Some(999_000_000));
    // What it writes is read, packed lists included.
    let theirs = other.encode_to_vec();
    assert_eq!(decode_all(&mut decoder, &[theirs]), rows.slice(0, 1));
}

#[test]
fn fields_come_in_any_order_again_and_unknown() {
    let message = message();
    let table = Arc::new(table().project(&[0, 10, 11, 12]).unwrap());
    let (mut decoder, notes) = decoder_of(&message, &table).unwrap();
    assert_eq!(notes.len(), 11);
    let mut record = Vec::new();
    let part = |number: u32, bytes: &[u8], record: &mut Vec<u8>| {
        wire::write_tag(number, 2, record);
        wire::write_varint(bytes.len() as u64, record);
        record.extend_from_slice(bytes);
    };
    // Numbers one by one and packed; the inner message in two parts; the same key twice; a field of nobody.
    record.extend_from_slice(&[0x60, 2]);
    part(11, &[0x08, 1, 0x12, 1, b'a'], &mut record);
    part(12, &[1, 4], &mut record);
    part(13, &[0x0a, 1, b'k', 0x10, 1], &mut record);
    record.extend_from_slice(&[0x08, 9, 0x08, 8]);
    part(999, b"what", &mut record);
    part(11, &[0x08, 2, 0x12, 1, b'b'], &mut record);
    part(13, &[0x10, 2, 0x0a, 1, b'k'], &mut record);
    part(13, &[], &mut record);
    let rows = decode_all(&mut decoder, &[record.clone(), vec![]]);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values().to_vec(), [8, 0]);
    let inner = rows.column(1).as_struct();
    assert_eq!(inner.column(0).as_primitive::<Int32Type>().value(0), 2);
    let words = inner.column(1).as_list::<i32>().value(0);
    assert_eq!(words.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
    assert!(inner.is_null(1));
    let numbers = rows.column(2).as_list::<i32>();
    assert_eq!(numbers.value(0).as_primitive::<Int64Type>().values().to_vec(), [1, -1, 2]);
    assert_eq!((numbers.value_length(1), numbers.is_null(1)), (0, false));
    let counts = rows.column(3).as_map();
    let keys: Vec<_> = counts.keys().as_string::<i32>().iter().flatten().collect();
    assert_eq!((keys, counts.values().as_primitive::<Int32Type>().values().to_vec()), (vec!["k", ""], vec![2, 0]));
    let other = DynamicMessage::decode(message, &record[..]).unwrap();
    let map = other.get_field_by_name("counts").unwrap();
    assert_eq!(map.as_map().unwrap().get(&prost_reflect::MapKey::String("k".into())), Some(&Value::I32(2)));
}

#[test]
fn broken_messages_are_taken_back_whole() {
    let (message, rows) = (message(), rows());
    let record = &encode(&message, &rows)[0];
    let (mut decoder, _) = decoder_of(&message, &table()).unwrap();
    let mut good = 0;
    for at in 0..record.len() {
        for flip in [1, 4, 0x80, 0xff] {
            let mut wrong = record.clone();
            wrong[at] ^= flip;
            drop(decoder.decode(&wrong));
            decoder.truncate(good);
        }
        drop(decoder.decode(&record[..at]));
        decoder.truncate(good);
        good += decoder.decode(record).unwrap();
    }
    let all = decoder.finish(good).unwrap();
    assert!((0..good).all(|row| all.slice(row, 1) == rows.slice(0, 1)));
    for (record, part) in [
        (&[0x0d, 0, 0, 0, 0][..], "column 'id': expected a varint, found four bytes"),
        (&[0x1a, 1, 0xff], "column 'name': the text is not valid UTF-8"),
        (&[0x1a, 9, 0xff], "column 'name': the message is cut short: 9 bytes are wanted, 1 are left"),
        (&[0x5a, 2, 0x0a, 0], "column 'inner.x': expected a varint, found a value with its length"),
    ] {
        let fault = decoder.decode(record).unwrap_err().describe();
        assert!(fault.starts_with(part), "{fault}");
        decoder.truncate(0);
    }
}

#[test]
fn types_that_do_not_fit_are_refused_with_all_reasons() {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    let table = Arc::new(Schema::new(vec![
        field("id", DataType::Int32, true),
        field("name", DataType::Int64, true),
        field("numbers", DataType::Int64, true),
        field("maybe", DataType::Int64, true),
        field("extra", DataType::Utf8, false),
        field("fix", DataType::new_list(DataType::Int64, true), true),
    ]));
    assert_eq!(
        decoder_of(&message(), &table).err().unwrap(),
        "column 'id': it is of the type int64, which does not fit INT; declare it as BIGINT; \
         column 'name': it is of the type string, which does not fit BIGINT; \
         column 'numbers': it is repeated; declare it as ARRAY; \
         column 'extra': it is NOT NULL and not in the message; declare it without NOT NULL; \
         column 'fix': it is not repeated, so no ARRAY"
    );
    assert!(schema::of_text("message {").unwrap_err().starts_with("the schema is no Protobuf"));
}

#[test]
fn a_table_has_a_text_of_its_own() {
    let schema = table();
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| *i != 7 && *i != 9).collect();
    let rows = rows().project(&kept).unwrap();
    let text = derive::derive(rows.schema_ref().fields()).unwrap();
    let message = schema::of_text(&text).unwrap();
    let records = encode(&message, &rows);
    let (mut decoder, notes) = decoder_of(&message, &rows.schema()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(decode_all(&mut decoder, &records), rows);
    let wrong: Fields = vec![Field::new("d", DataType::Date32, true)].into();
    assert!(derive::derive(&wrong).unwrap_err().starts_with("column 'd': Protobuf cannot hold the type DATE"));
}

#[test]
fn messages_come_from_files_with_what_they_import() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("other.proto"),
        "syntax = \"proto3\"; package p; message Other { int32 a = 1; }",
    )
    .unwrap();
    let main = directory.path().join("main.proto");
    std::fs::write(&main, "syntax = \"proto2\"; package q; import \"other.proto\"; message Main { optional p.Other other = 1; optional int32 n = 2 [default = 7]; }").unwrap();
    let message = schema::compiled(&main, "q.Main").unwrap();
    assert_eq!(message.fields().len(), 2);
    assert_eq!(schema::compiled(&main, "Main").unwrap_err(), "it has no message 'Main'; it has: p.Other, q.Main");
    let table: Fields = vec![Field::new("n", DataType::Int32, true)].into();
    for (defaults, expected) in [(false, None), (true, Some(7))] {
        let mut resolver = Resolver { defaults, notes: Vec::new() };
        let plan = resolver.message(&message, &table, "").unwrap();
        let mut columns = TreeColumn::of_fields(&table).unwrap();
        plan.read(&mut columns, 0, &[], 0..0).unwrap();
        let array = columns[0].finish().unwrap();
        assert_eq!(array.as_primitive::<Int32Type>().iter().next().unwrap(), expected);
    }
    let descriptors = directory.path().join("main.desc");
    std::fs::write(&descriptors, message.parent_pool().encode_to_vec()).unwrap();
    assert_eq!(schema::described(&descriptors, ".q.Main").unwrap().full_name(), "q.Main");
    assert!(schema::described(&main, "q.Main").unwrap_err().contains("--include_imports"));
}
