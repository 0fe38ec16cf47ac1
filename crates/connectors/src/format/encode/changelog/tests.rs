//! Tests of the encoders of changes, alone and with the decoders.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};

use super::*;
use crate::format::TextDecoder;
use crate::format::options::{ChangelogOptions, FormatOptions};

/// Rows of a key and a text, with their kinds.
fn changes(rows: &[(&str, i64, &str)]) -> (RecordBatch, Int8Array) {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, id, _)| *id)));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, _, name)| *name)));
    let kind = |symbol: &str| (0..4).find(|n| ChangeKind::from_number(*n).unwrap().symbol() == symbol).unwrap();
    let kinds = Int8Array::from_iter_values(rows.iter().map(|(symbol, _, _)| kind(symbol)));
    (RecordBatch::try_from_iter([("id", id), ("name", name)]).unwrap(), kinds)
}

fn encode(mut encoder: impl TextEncoder, rows: &[(&str, i64, &str)]) -> String {
    let (rows, kinds) = changes(rows);
    let mut out = Vec::new();
    encoder.encode(&rows, Some(&kinds), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn debezium(key: &[usize]) -> DebeziumEncoder {
    DebeziumEncoder::new(&JsonOptions::default(), key.to_vec())
}

fn upsert() -> UpsertEncoder {
    UpsertEncoder::new(&JsonOptions::default(), vec![0])
}

#[test]
fn an_update_is_one_envelope_only_where_the_key_says_so() {
    let rows = [("+I", 1, "a"), ("-U", 1, "a"), ("+U", 1, "b"), ("-D", 1, "b")];
    assert_eq!(
        encode(debezium(&[0]), &rows),
        r#"{"before":null,"after":{"id":1,"name":"a"},"op":"c"}
{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"},"op":"u"}
{"before":{"id":1,"name":"b"},"after":null,"op":"d"}
"#
    );
    assert_eq!(
        encode(debezium(&[]), &rows[1..3]),
        r#"{"before":{"id":1,"name":"a"},"after":null,"op":"d"}
{"before":null,"after":{"id":1,"name":"b"},"op":"c"}
"#
    );
    // The other halves of these two were filtered out.
    assert_eq!(
        encode(debezium(&[0]), &[("-U", 1, "a"), ("+U", 2, "b")]),
        r#"{"before":{"id":1,"name":"a"},"after":null,"op":"d"}
{"before":null,"after":{"id":2,"name":"b"},"op":"c"}
"#
    );
}

#[test]
fn an_upsert_tells_what_is_there() {
    let rows = [("+I", 1, "a"), ("-U", 1, "a"), ("+U", 1, "b"), ("-U", 1, "b"), ("+U", 2, "c"), ("-D", 2, "c")];
    assert_eq!(
        encode(upsert(), &rows),
        r#"{"key":{"id":1},"value":{"id":1,"name":"a"}}
{"key":{"id":1},"value":{"id":1,"name":"b"}}
{"key":{"id":1},"value":null}
{"key":{"id":2},"value":{"id":2,"name":"c"}}
{"key":{"id":2},"value":null}
"#
    );
}

#[test]
fn the_decoder_reads_back_what_was_written() {
    let rows = [("+I", 1, "a"), ("+I", 2, "\"\n"), ("-U", 1, "a"), ("+U", 1, "b"), ("-D", 2, "\"\n")];
    let (batch, kinds) = changes(&rows);
    let options = ChangelogOptions { key: vec!["id".to_owned()], ..ChangelogOptions::default() };
    let decode = |format: FormatOptions, text: &str| {
        let mut decoder = TextDecoder::new(&format, &batch.schema(), &[0, 1], None).unwrap();
        decoder.decode(text.as_bytes(), 0, 100).batches.remove(0)
    };
    let read = decode(FormatOptions::DebeziumJson(options.clone()), &encode(debezium(&[0]), &rows));
    assert_eq!((read.rows.columns(), read.changes), (batch.columns(), Some(kinds)));
    let read = decode(FormatOptions::UpsertJson(options), &encode(upsert(), &rows));
    assert_eq!(read.changes.unwrap().values().as_ref(), [2_i8, 2, 2, 3]);
    assert_eq!(read.rows.column(0).as_ref(), &Int64Array::from(vec![1, 2, 1, 2]));
    assert_eq!(read.rows.column(1).as_ref(), &StringArray::from(vec![Some("a"), Some("\"\n"), Some("b"), None]));
}
