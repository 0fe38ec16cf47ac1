//! How many rows cross the exchange, and to whom.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use mainstem_core::key_group::{group_of_hash, owner};

use super::oracle::{Aggregation, first_step, input_schema};
use super::*;
use crate::key_hash::hash_rows;

const BATCHES: i64 = 20;
const ROWS: i64 = 8_192;

/// Rows of a batch: `hot` of ten have the key 0, the others one that never comes again.
fn rows(batch: i64, hot: i64) -> RecordBatch {
    let schema = input_schema();
    let key = |row: i64| if row % 10 < hot { 0 } else { 1 + batch * ROWS + row };
    let columns = schema.fields().iter().enumerate().map(|(position, field)| -> ArrayRef {
        match position {
            K => Arc::new(Int64Array::from_iter_values((0..ROWS).map(key))),
            I => Arc::new(Int64Array::from_iter_values(0..ROWS)),
            _ => new_null_array(field.data_type(), ROWS as usize),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// Rows that each of two subtasks gets, in a thousandth of those that came in.
fn shares(hot: i64, adaptive: bool) -> [usize; 2] {
    let calls = vec![count_all(), of("sum", I)];
    let mut first = first_step(&Aggregation::new(&[K], calls, false, 1).spec, adaptive);
    let mut shares = [0; 2];
    for batch in 0..BATCHES {
        let mut out = Collector::default();
        first.process(0, StreamBatch::on_time(rows(batch, hot)), &mut out).unwrap();
        for batch in out.main {
            for hash in hash_rows(&batch.rows.columns()[..1], batch.rows.num_rows()).unwrap() {
                shares[owner(group_of_hash(hash, 256), 256, 2) as usize] += 1;
            }
        }
    }
    shares.map(|rows| rows * 1000 / (BATCHES * ROWS) as usize)
}

#[test]
fn a_hot_key_is_not_the_work_of_one_subtask() {
    let [one, other] = shares(9, true);
    assert!((40..60).contains(&one) && (40..60).contains(&other), "{one} {other}");
}

#[test]
fn keys_that_do_not_come_again_are_passed_on_as_they_are() {
    let [one, other] = shares(0, true);
    assert_eq!((one + other).div_ceil(10), 100);
    assert_eq!(shares(0, false).iter().sum::<usize>(), one + other);
}
