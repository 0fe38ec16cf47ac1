//! Tests of the decoder of Debezium's envelopes.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::format::block::{BlockRows, TextDecoder};
use crate::format::options::FormatOptions;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, false)]))
}

fn options(upsert: bool) -> ChangelogOptions {
    ChangelogOptions { key: vec!["id".to_owned()], upsert, ..ChangelogOptions::default() }
}

fn decode(options: ChangelogOptions, columns: &[usize], text: &str) -> BlockRows {
    let format = FormatOptions::DebeziumJson(options);
    TextDecoder::new(&format, &schema(), columns, None).unwrap().decode(text.as_bytes(), 0, 100)
}

/// Kind, id and name of each row.
fn rows(block: &BlockRows) -> Vec<String> {
    let mut shown = Vec::new();
    for batch in &block.batches {
        let id = batch.rows.column(0).as_primitive::<Int64Type>();
        let name = batch.rows.column(1).as_string::<i32>();
        for row in 0..batch.rows.num_rows() {
            let kind = batch.changes.as_ref().map_or(0, |changes| changes.value(row));
            let name = if name.is_null(row) { "NULL" } else { name.value(row) };
            shown.push(format!("{}[{}, {name}]", ChangeKind::from_number(kind).unwrap().symbol(), id.value(row)));
        }
    }
    shown
}

fn fault(options: ChangelogOptions, record: &str) -> String {
    decode(options, &[0, 1], record).fault.expect("is refused").reason
}

const CHANGES: &str = r#"{"before":null,"after":{"id":1,"name":"a"},"source":{"db":"x","pos":[1]},"op":"c","ts_ms":5}
{"op":"r","after":{"id":2,"name":"b"}}

null
{"op":"u","after":{"name":"c","id":1},"before":{"id":1,"name":"a"},"transaction":null}
{ "before" : {"id":2,"name":"b"} , "after":null, "\u006fp":"d" }
"#;

#[test]
fn envelopes_become_changes_in_their_order() {
    let block = decode(options(false), &[0, 1], CHANGES);
    assert_eq!((&block.fault, block.lines, block.rejected()), (&None, 6, 0));
    assert_eq!(rows(&block), ["+I[1, a]", "+I[2, b]", "-U[1, a]", "+U[1, c]", "-D[2, b]"]);
    // Only the columns that are wanted; without any, the number of rows is left.
    let block = decode(options(false), &[], CHANGES);
    assert_eq!((block.batches[0].rows.num_rows(), block.batches[0].changes.as_ref().unwrap().len()), (5, 5));
    let inserts = decode(options(false), &[0, 1], &CHANGES[..CHANGES.find("\n\n").unwrap()]);
    assert_eq!(rows(&inserts), ["+I[1, a]", "+I[2, b]"]);
    assert_eq!(inserts.batches[0].changes, None);
}

#[test]
fn the_two_rows_of_an_update_stay_together() {
    let format = FormatOptions::DebeziumJson(options(false));
    let update = "{\"before\":{\"id\":1,\"name\":\"a\"},\"after\":{\"id\":1,\"name\":\"b\"},\"op\":\"u\"}\n";
    let mut decoder = TextDecoder::new(&format, &schema(), &[0, 1], None).unwrap();
    let block = decoder.decode(update.repeat(20).as_bytes(), 0, 3);
    assert!(block.batches.len() > 3);
    assert!(block.batches.iter().all(|batch| batch.rows.num_rows() % 2 == 0 && batch.end % update.len() == 0));
    assert_eq!(rows(&block).len(), 40);
}

#[test]
fn by_key_what_stood_before_is_not_asked_for() {
    let text = r#"{"op":"u","after":{"id":1,"name":"a"},"before":null}
{"op":"d","before":{"id":1},"after":null}
{"op":"d","before":{"id":2,"name":null}}
{"op":"c","after":{"id":1,"name":"b"}}"#;
    let block = decode(options(true), &[0, 1], text);
    assert_eq!(block.fault, None);
    assert_eq!(rows(&block), ["+U[1, a]", "-D[1, NULL]", "-D[2, NULL]", "+I[1, b]"]);
    assert!(fault(options(true), r#"{"op":"d","before":null}"#).starts_with("a delete has no 'before'"));
    assert_eq!(
        fault(options(true), r#"{"op":"u","after":{"id":1}}"#),
        "column 'after.name': NULL in a NOT NULL column"
    );
}

#[test]
fn a_record_with_its_schema_has_the_envelope_as_payload() {
    let with_schema = ChangelogOptions { schema_include: true, ..options(false) };
    let text = r#"{"schema":{"type":"struct"},"payload":{"op":"c","after":{"id":1,"name":"a"}}}
{"schema":null,"payload":null}"#;
    assert_eq!(rows(&decode(with_schema.clone(), &[0, 1], text)), ["+I[1, a]"]);
    assert!(fault(options(false), text).contains("'debezium-json.schema-include' = 'true'"));
    let plain = r#"{"op":"c","after":{"id":1,"name":"a"}}"#;
    assert!(fault(with_schema, plain).contains("'debezium-json.schema-include' = 'false'"));
}

#[test]
fn broken_records_say_what_is_missing() {
    let reason = fault(options(false), r#"{"op":"u","before":null,"after":{"id":1,"name":"a"}}"#);
    assert!(reason.starts_with("an update has no 'before'; make the database send whole rows"), "{reason}");
    for (record, reason) in [
        (r#"{"op":"d","after":null}"#, "a delete has no 'before'"),
        (r#"{"op":"c","after":null}"#, "an insert has no 'after'"),
        (r#"{"op":"t"}"#, "the 'op' is 't', expected c, r, u or d"),
        (r#"{"op":7}"#, "expected a text as 'op', found '7}'"),
        (r#"{"id":1}"#, "the record has no 'op'; is it a change in Debezium's envelope?"),
        (r#"{"op":"c","after":[1]}"#, "column 'after': expected an object"),
        (r#"{"op":"c","after":{"id":"x","name":"a"}}"#, "column 'after.id': expected BIGINT, found the text 'x'"),
        (r#"{"op":"d","before":{"id":1}}"#, "column 'before.name': NULL in a NOT NULL column"),
        (r#"{"op":"c","after":{"id":1,"name":"a"}} 1"#, "there is more text after the object"),
        (r#"{"op":"c","after":{"id":1,"name":"a"}"#, "the record ends where"),
        ("[]", "expected a JSON object"),
    ] {
        let found = fault(options(false), record);
        assert!(found.starts_with(reason), "{record}: {found}");
    }
}

#[test]
fn a_dropped_record_leaves_neither_row_nor_kind() {
    let mut ignoring = options(false);
    ignoring.json.ignore_parse_errors = true;
    let text = r#"{"op":"u","before":{"id":1,"name":"a"},"after":{"id":1}}
{"op":"d","before":{"id":3,"name":"c"}}
{"op":"u","before":{"id":1,"name":"a"}
{"op":"c","after":{"id":2,"name":"b"}}"#;
    let block = decode(ignoring, &[0, 1], text);
    assert_eq!((rows(&block), block.rejected()), (vec!["-D[3, c]".to_owned(), "+I[2, b]".to_owned()], 2));
}
