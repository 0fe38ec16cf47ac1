//! Tests of blocks to batches.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};

use super::*;

impl BlockRows {
    /// Records that were rejected.
    pub(in crate::format) fn rejected(&self) -> u64 {
        self.batches.iter().map(|batch| batch.rejects.count).sum()
    }
}

fn decoder(ignore_parse_errors: bool) -> TextDecoder {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
    TextDecoder::json(schema, &JsonOptions { ignore_parse_errors, ..JsonOptions::default() }).unwrap()
}

fn values(rows: &BlockRows) -> Vec<i32> {
    rows.batches.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int32Type>().values().to_vec()).collect()
}

#[test]
fn batches_end_where_they_say() {
    let lines: Vec<String> = (0..20).map(|i| format!("{{\"a\":{i}}}\r\n")).collect();
    let block = lines.concat();
    let rows = decoder(false).decode(block.as_bytes(), 0, 6);
    assert_eq!(values(&rows), (0..20).collect::<Vec<_>>());
    let sizes: Vec<usize> = rows.batches.iter().map(|b| b.rows.num_rows()).collect();
    assert_eq!(sizes, [6, 6, 8]);
    for batch in &rows.batches {
        let before: usize = lines[..batch.lines as usize].iter().map(String::len).sum();
        assert_eq!(batch.end, before);
    }
    assert_eq!((rows.lines, rows.rejected(), &rows.fault), (20, 0, &None));
}

#[test]
fn a_broken_record_stops_the_block_after_the_rows_before_it() {
    let block = b"{\"a\":1}\n\n{\"a\":2}\n{\"a\":\"x\"}\n{\"a\":3}\n";
    let rows = decoder(false).decode(block, 0, 100);
    assert_eq!(values(&rows), [1, 2]);
    assert_eq!((rows.batches[0].end, rows.batches[0].lines), (17, 3));
    let fault = rows.fault.unwrap();
    assert_eq!((fault.at, fault.lines), (22, 3));
    assert_eq!(fault.reason, "column 'a': expected INT, found the text 'x'");
    assert_eq!(fault.excerpt, "{\"a\":\"x\"}");
}

#[test]
fn dropped_records_are_counted_and_leave_nothing() {
    let block = b"{\"a\":1}\n{\"a\":2,\nnonsense\n{\"a\":4} x\n[]\n\xff\n{\"a\":5}";
    let rows = decoder(true).decode(block, 0, 100);
    assert_eq!(values(&rows), [1, 5]);
    assert_eq!((rows.rejected(), rows.lines, rows.fault.is_none()), (5, 7, true));
    let newest = &rows.batches[0].rejects.records;
    assert_eq!((newest.len(), newest[0].reason.as_str()), (1, "the text is not valid UTF-8"));
    assert!(newest[0].raw.is_empty());
}

#[test]
fn kept_records_lie_where_they_say_even_without_rows() {
    let block = b"{\"a\":1}\n{\"a\":2,\r\n\n[]\n{\"a\":3}\n\xff\n";
    for batch_rows in [1, 2, 100] {
        let rows = decoder(false).with(OnError::Keep, true).decode(block, 0, batch_rows);
        assert_eq!(values(&rows), [1, 3]);
        let records = || rows.batches.iter().flat_map(|batch| &batch.rejects.records);
        for Reject { span, raw, .. } in records() {
            assert_eq!(&block[span.start..span.start + span.length], raw);
            assert_eq!(memchr::memchr_iter(b'\n', &block[..span.start]).count() as u64, span.lines);
        }
        let raw: Vec<&[u8]> = records().map(|record| record.raw.as_slice()).collect();
        assert_eq!(raw, [&b"{\"a\":2,"[..], b"[]", b"\xff"]);
        // What was rejected belongs to the batch that reaches beyond it.
        for batch in &rows.batches {
            assert!(batch.rejects.records.iter().all(|record| record.span.start < batch.end));
            assert_eq!(batch.spans.len(), batch.rows.num_rows());
        }
        assert_eq!(rows.batches.last().unwrap().end, block.len());
        let spans: Vec<&[u8]> =
            rows.batches.iter().flat_map(|batch| &batch.spans).map(|s| &block[s.start..s.start + s.length]).collect();
        assert_eq!(spans, [&b"{\"a\":1}"[..], b"{\"a\":3}"]);
    }
    let only = decoder(false).with(OnError::Keep, false).decode(b"x\n", 0, 10);
    assert_eq!((only.batches.len(), only.batches[0].rows.num_rows(), only.rejected()), (1, 0, 1));
}

#[test]
fn invalid_utf8_is_found_in_its_record() {
    let block = b"{\"a\":1}\n{\"b\":\"\xc3\x28\"}\n";
    let rows = decoder(false).decode(block, 0, 100);
    let fault = rows.fault.clone().unwrap();
    assert_eq!((fault.at, fault.lines, fault.reason.as_str()), (14, 1, "the text is not valid UTF-8"));
    assert_eq!(values(&rows), [1]);
}
