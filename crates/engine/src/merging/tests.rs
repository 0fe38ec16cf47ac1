//! Rows that replace each other, and the ranges by which files are merged.

use arrow::array::{Int64Array, RecordBatch};
use mainstem_core::ids::Epoch;

use super::*;

/// Rows of key, number and key group.
fn delta(rows: &[(Option<i64>, i64, u16)]) -> TableDelta {
    let keys: ArrayRef = Arc::new(rows.iter().map(|(key, ..)| *key).collect::<Int64Array>());
    let counts: ArrayRef = Arc::new(rows.iter().map(|(_, count, _)| Some(*count)).collect::<Int64Array>());
    TableDelta {
        table: "t".to_owned(),
        version: 2,
        key: vec![0],
        key_groups: rows.iter().map(|(.., group)| *group).collect(),
        rows: RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("n", counts, false)]).unwrap(),
    }
}

/// The numbers that are left, and the key groups.
fn merged(identity: Option<Vec<usize>>, from_start: bool) -> (Vec<i64>, Vec<u16>) {
    let rule = MergeRule { name: "t", version: 2, key: vec![0], identity, present: Some(1) };
    let first = delta(&[(Some(1), 1, 3), (None, 2, 3), (Some(1), 3, 3), (Some(7), 4, 5)]);
    let second = delta(&[(Some(2), 5, 1), (Some(1), 0, 3), (Some(3), 6, 3), (None, 7, 3), (Some(7), 8, 9)]);
    let rows = Tables::from([(("t".to_owned(), 2), vec![first, second])]);
    let table = merge(rows, &[rule], from_start).unwrap().remove(0);
    let rows = table.rows(0..table.len()).unwrap();
    (rows.column(1).as_primitive::<Int64Type>().values().to_vec(), table.key_groups)
}

#[test]
fn the_last_row_of_each_identity_stays_in_its_place() {
    // A key is in one key group; these tell that each is looked at by itself.
    assert_eq!(merged(Some(vec![0]), false), (vec![5, 0, 6, 7, 4, 8], vec![1, 3, 3, 3, 5, 9]));
    assert_eq!(
        merged(Some(vec![0]), true),
        (vec![5, 6, 7, 4, 8], vec![1, 3, 3, 5, 9]),
        "nothing older is there to take away"
    );
    assert_eq!(merged(None, false), (vec![5, 1, 2, 3, 0, 6, 7, 4, 8], vec![1, 3, 3, 3, 3, 3, 3, 5, 9]));
}

#[test]
fn a_table_without_a_rule_is_not_left_out() {
    let rows = Tables::from([(("t".to_owned(), 1), vec![delta(&[(Some(1), 1, 0)])])]);
    let rule = MergeRule { name: "t", version: 2, key: vec![0], identity: None, present: None };
    let error = merge(rows, &[rule], false).expect_err("refused");
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
