//! Tests of the decoder of upserts.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::format::block::{BlockRows, TextDecoder};
use crate::format::options::FormatOptions;

fn decode(text: &str, columns: &[usize], ignore_parse_errors: bool) -> BlockRows {
    let fields = vec![Field::new("n", DataType::Int64, false), Field::new("id", DataType::Int64, false)];
    let mut options = ChangelogOptions { key: vec!["id".to_owned()], ..ChangelogOptions::default() };
    options.json.ignore_parse_errors = ignore_parse_errors;
    let format = FormatOptions::UpsertJson(options);
    let mut decoder = TextDecoder::new(&format, &Arc::new(Schema::new(fields)), columns, None).unwrap();
    decoder.decode(text.as_bytes(), 0, 100)
}

const RECORDS: &str = r#"{"key":{"id":1},"value":{"id":1,"n":10}}
{"value":null,"key":{"id":1},"offset":7}
{"key":{"id":2},"value":{"n":20,"x":0}}
"#;

#[test]
fn the_key_comes_from_the_key_and_the_rest_from_the_value() {
    let block = decode(RECORDS, &[0, 1], false);
    assert_eq!(block.fault, None);
    let BlockRows { batches, .. } = &block;
    assert_eq!(batches[0].changes.as_ref().unwrap().values().as_ref(), [2_i8, 3, 2]);
    let column = |nth: usize| batches[0].rows.column(nth).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(column(0), [Some(10), None, Some(20)]);
    assert_eq!(column(1), [Some(1), Some(1), Some(2)]);
    // A delete knows no other columns, also where they are NOT NULL.
    assert!(batches[0].rows.schema().field(0).is_nullable() && !batches[0].rows.schema().field(1).is_nullable());
    let block = decode(RECORDS, &[1], false);
    assert_eq!(block.batches[0].rows.num_columns(), 1);
}

#[test]
fn broken_records_are_refused_or_dropped() {
    for (record, reason) in [
        (r#"{"value":{"n":1}}"#, "the record has no 'key'"),
        (r#"{"key":null,"value":{"n":1}}"#, "the record has no 'key'"),
        (r#"{"key":{"id":1}}"#, "the record has no 'value'; a key that is deleted has the value null"),
        (r#"{"key":{"id":1},"value":{}}"#, "column 'n': NULL in a NOT NULL column"),
        (r#"{"key":{},"value":null}"#, "column 'id': NULL in a NOT NULL column"),
        (r#"{"key":1,"value":null}"#, "column 'key': expected an object, found '1,\"value\":null}'"),
        (r#"{"key":{"id":1},"value":3}"#, "column 'value': expected an object, found '3}'"),
    ] {
        assert_eq!(decode(record, &[0, 1], false).fault.expect("is refused").reason, reason, "{record}");
        let dropped = decode(&format!("{record}\n{RECORDS}"), &[0, 1], true);
        assert_eq!((dropped.rejected(), dropped.batches[0].rows.num_rows()), (1, 3));
        assert_eq!(dropped.batches[0].changes.as_ref().unwrap().len(), 3);
    }
}
