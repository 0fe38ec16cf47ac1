//! Single properties, on a few rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use mainstem_core::change::ChangeKind;

use super::oracle::{Aggregation, input_schema};
use super::*;

/// Rows with a key and an integer.
fn rows(values: &[(i64, i64)]) -> RecordBatch {
    let schema = input_schema();
    let columns = schema.fields().iter().enumerate().map(|(position, field)| -> ArrayRef {
        match position {
            K => Arc::new(Int64Array::from_iter_values(values.iter().map(|(key, _)| *key))),
            I => Arc::new(Int64Array::from_iter_values(values.iter().map(|(_, value)| *value))),
            _ => new_null_array(field.data_type(), values.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn spec(keys: &[usize], calls: Vec<AggregateCall>, retracts: bool) -> Spec {
    Aggregation::new(keys, calls, retracts, 1).spec
}

const COME: i8 = ChangeKind::Insert as i8;
const GO: i8 = ChangeKind::Delete as i8;

#[test]
fn a_batch_gives_one_change_a_group() {
    let mut t = Aggregation::of(spec(&[K], vec![count_all(), of("max", I)], false));
    t.process(&[rows(&[(1, 5), (2, 5), (1, 7), (1, 6)])], vec![COME; 4]);
    assert_eq!(t.fold.kinds(), [("+I", 2)]);
    t.process(&[rows(&[(1, 1), (1, 2)])], vec![COME; 2]);
    assert_eq!(t.fold.kinds(), [("+I", 2), ("+U", 1), ("-U", 1)]);
    assert_eq!(t.fold.rows(), [["1", "5", "7"], ["2", "1", "5"]]);
}

#[test]
fn a_result_that_stays_is_not_given_again() {
    let mut t = Aggregation::of(spec(&[K], vec![of("max", I)], false));
    t.process(&[rows(&[(1, 5)])], vec![COME]);
    t.process(&[rows(&[(1, 4)])], vec![COME]);
    assert_eq!(t.fold.kinds(), [("+I", 1)]);
}

#[test]
fn distinct_rows_come_once_and_go_with_the_last() {
    let mut t = Aggregation::of(spec(&[K, I], vec![], true));
    t.process(&[rows(&[(1, 5), (1, 5)])], vec![COME; 2]);
    t.process(&[rows(&[(1, 5)])], vec![GO]);
    assert_eq!(t.fold.kinds(), [("+I", 1)]);
    t.process(&[rows(&[(1, 5)])], vec![GO]);
    assert_eq!(t.fold.kinds(), [("+I", 1), ("-D", 1)]);
}

#[test]
fn the_group_of_all_rows_stays_when_they_have_gone() {
    let mut t = Aggregation::of(spec(&[], vec![count_all(), of("sum", I)], true));
    t.process(&[rows(&[(1, 5)])], vec![GO]);
    assert!(t.fold.rows().is_empty(), "nothing was there");
    t.process(&[rows(&[(1, 5)])], vec![COME]);
    t.process(&[rows(&[(1, 5)])], vec![GO]);
    assert_eq!(t.fold.rows(), [["0", "NULL"]]);
    t.checkpoint(true);
    t.process(&[rows(&[(1, 7)])], vec![COME]);
    assert_eq!(t.fold.rows(), [["1", "7"]]);
}

#[test]
fn a_group_that_comes_back_within_an_epoch_has_nothing_of_before() {
    let calls = vec![of("sum", I), of("min", I), distinct("count", I), of("array_agg", I)];
    let mut t = Aggregation::of(spec(&[K], calls, true));
    t.process(&[rows(&[(1, 5), (1, 6)])], vec![COME; 2]);
    t.checkpoint(false);
    t.process(&[rows(&[(1, 5), (1, 6)])], vec![GO; 2]);
    t.process(&[rows(&[(1, 6)])], vec![COME]);
    t.checkpoint(true);
    t.process(&[rows(&[(1, 9)])], vec![COME]);
    assert_eq!(t.fold.rows(), [["1", "15", "6", "2", "[6, 9]"]]);
}

#[test]
fn rows_of_forgotten_groups_cannot_be_taken_away() {
    let mut t = Aggregation::of(Spec { ttl_ms: Some(1000), ..spec(&[K], vec![count_all(), of("min", I)], true) });
    t.context.set_now_ms(10_000);
    t.process(&[rows(&[(1, 5), (2, 5)])], vec![COME; 2]);
    t.checkpoint(false);
    t.context.set_now_ms(10_600);
    t.process(&[rows(&[(2, 6)])], vec![COME]);
    t.checkpoint(true);
    t.context.set_now_ms(11_000);
    t.checkpoint(true);
    assert_eq!(t.operator.index.len(), 1, "group 1 is forgotten");
    // A row of the forgotten group goes: nothing is known of it. Then another comes: a new group.
    let before = t.fold.kinds();
    t.process(&[rows(&[(1, 5)])], vec![GO]);
    assert_eq!(t.fold.kinds(), before);
    assert_eq!(t.operator.unmatched_changes.load(Ordering::Relaxed), 1);
    t.checkpoint(true);
    t.process(&[rows(&[(2, 5)])], vec![GO]);
    assert_eq!(t.fold.rows(), [["1", "1", "5"], ["2", "1", "6"]], "nobody was told that group 1 is forgotten");
    t.context.set_now_ms(60_000);
    t.checkpoint(true);
    assert_eq!(t.operator.index.len(), 0);
}

#[test]
fn changes_are_held_back_for_so_many_rows() {
    let mini = Spec { mini_batch_ms: Some(1000), mini_batch_rows: Some(3), ..spec(&[K], vec![count_all()], false) };
    let mut t = Aggregation::of(mini);
    assert_eq!(t.operator.hold_ms(), Some(1000));
    t.process(&[rows(&[(1, 5)])], vec![COME]);
    t.process(&[rows(&[(1, 6)])], vec![COME]);
    assert!(t.fold.rows().is_empty());
    t.process(&[rows(&[(1, 7)])], vec![COME]);
    assert_eq!(t.fold.rows(), [["1", "3"]]);
    assert_eq!(t.fold.kinds(), [("+I", 1)]);
}

#[test]
fn many_checkpoints_become_one_file_again() {
    let mut t = Aggregation::of(spec(&[K], vec![of("sum", I), distinct("count", I), of("array_agg", I)], true));
    for round in 0..100 {
        t.process(&[rows(&[(round % 3, round), (9, 1)])], vec![COME; 2]);
        t.process(&[rows(&[(9, 1)])], vec![GO]);
        t.checkpoint(round % 7 == 0);
    }
    let sums: Vec<String> = t.fold.rows().into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(sums, ["1683", "1617", "1650"]);
}
