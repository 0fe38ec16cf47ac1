//! Rows that replace each other, and the ranges by which files are merged.

use arrow::array::Int64Array;
use mainstem_core::ids::Epoch;

use super::*;

fn batch(rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|(key, _)| *key).collect::<Int64Array>());
    let counts: ArrayRef = Arc::new(rows.iter().map(|(_, count)| Some(*count)).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("n", counts, false)]).unwrap()
}

fn merged(identity: Option<Vec<usize>>, from_start: bool) -> Vec<RecordBatch> {
    let rule = MergeRule { name: "t", version: 2, key: vec![0], identity, present: Some(1) };
    let first = batch(&[(Some(1), 1), (None, 2), (Some(2), 3), (Some(1), 4)]);
    let second = batch(&[(Some(2), 0), (Some(3), 5), (None, 6)]);
    let rows = Tables::from([(("t".to_owned(), 2), vec![first, second])]);
    let mut tables = merge(rows, &[rule], from_start).unwrap();
    tables.remove(0).rows
}

#[test]
fn the_last_row_of_each_identity_stays_in_its_place() {
    let second = batch(&[(Some(2), 0), (Some(3), 5), (None, 6)]);
    assert_eq!(merged(Some(vec![0]), false), vec![batch(&[(Some(1), 4)]), second]);
    let second = batch(&[(Some(3), 5), (None, 6)]);
    assert_eq!(
        merged(Some(vec![0]), true),
        vec![batch(&[(Some(1), 4)]), second],
        "nothing older is there to take away"
    );
    assert_eq!(merged(None, false).iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
}

#[test]
fn a_table_without_a_rule_is_not_left_out() {
    let rows = Tables::from([(("t".to_owned(), 1), vec![batch(&[(Some(1), 1)])])]);
    let rule = MergeRule { name: "t", version: 2, key: vec![0], identity: None, present: None };
    let error = merge(rows, &[rule], false).err().expect("refused");
    assert!(error.to_string().contains("no rule to merge table 't' of version 1"), "{error}");
}

#[test]
fn pieces_cover_the_key_groups_once() {
    let file = |size: u64, start: u16, end: u16| StateHandle {
        path: String::new(),
        size,
        epoch: Epoch(1),
        key_groups: KeyGroupRange { start, end },
        crc32c: 0,
    };
    assert_eq!(pieces(&[file(10, 3, 9), file(10, 5, 20)]), vec![KeyGroupRange { start: 3, end: 20 }]);
    for bytes in [PIECE_BYTES * 3, PIECE_BYTES * 1000] {
        let pieces = pieces(&[file(bytes, 7, 250)]);
        assert!(pieces.len() as u64 <= PIECES_MAX && pieces.len() >= 3);
        assert_eq!((pieces[0].start, pieces.last().unwrap().end), (7, 250));
        assert!(pieces.windows(2).all(|two| two[0].end == two[1].start));
    }
    assert_eq!(pieces(&[file(PIECE_BYTES * 9, 4, 5)]).len(), 1, "a key group is not cut");
}
