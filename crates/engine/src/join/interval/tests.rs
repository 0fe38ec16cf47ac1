//! Interval joins against the letter of their description, over random streams with late rows, restores and other
//! parallelisms; and their state over long event time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstem_core::time::Timestamp;

use super::*;
use crate::join::testing::{
    Joined, Row, Streams, Subtasks, assert_same, batch, joined, on, output_schema, run, side_schema,
};

const KINDS: [JoinKind; 6] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti { null_aware: false },
];

fn spec(kind: JoinKind, (lower_ms, upper_ms): (i64, i64), with_condition: bool) -> Spec {
    Spec { kind, on: on(with_condition), left_time: 1, right_time: 1, lower_ms, upper_ms }
}

fn operator(spec: &Spec, dropped: &Arc<AtomicU64>) -> IntervalJoin {
    let left_only = matches!(spec.kind, JoinKind::Semi | JoinKind::Anti { .. });
    let late = LateRows::new("join", dropped.clone(), false);
    IntervalJoin::new("join", spec, output_schema(left_only), late, &EvalContext::default()).unwrap()
}

/// What the rows give by the letter of the module's description.
fn expected(spec: &Spec, sides: &[Vec<Row>; 2]) -> (Vec<Joined>, u64) {
    let length = spec.upper_ms - spec.lower_ms;
    let in_time = |row: &&Row| row.behind() == i64::MIN || row.behind() < row.time + length;
    let [left, right] = sides.each_ref().map(|rows| rows.iter().filter(in_time).collect::<Vec<_>>());
    let dropped = sides.iter().map(Vec::len).sum::<usize>() - left.len() - right.len();
    let pairs = |l: &Row, r: &Row| {
        let difference = l.time - r.time;
        let alive = l.behind() < r.time + spec.upper_ms && r.behind() < l.time - spec.lower_ms;
        let holds = spec.on.condition.is_none() || l.value != r.value;
        l.key.is_some()
            && l.key == r.key
            && difference >= spec.lower_ms
            && difference <= spec.upper_ms
            && alive
            && holds
    };
    let mut given = Vec::new();
    for l in &left {
        let partners: Vec<_> = right.iter().filter(|r| pairs(l, r)).collect();
        match spec.kind {
            JoinKind::Semi => given.extend((!partners.is_empty()).then(|| joined(Some(l), None)[..3].to_vec())),
            JoinKind::Anti { .. } => given.extend(partners.is_empty().then(|| joined(Some(l), None)[..3].to_vec())),
            kind => {
                let alone = matches!(kind, JoinKind::Left | JoinKind::Full) && partners.is_empty();
                given.extend(alone.then(|| joined(Some(l), None)));
                given.extend(partners.into_iter().map(|r| joined(Some(l), Some(r))));
            }
        }
    }
    if matches!(spec.kind, JoinKind::Right | JoinKind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| pairs(l, r)));
        given.extend(alone.map(|r| joined(None, Some(r))));
    }
    given.sort();
    (given, dropped as u64)
}

#[test]
fn rows_meet_as_if_all_were_there_at_once() {
    let intervals = [(-500, 700), (0, 0), (-3_000, -1_000), (200, 2_500), (-40, 40)];
    let mut total = (0, 0);
    for seed in 0..120 {
        let kind = KINDS[seed as usize % KINDS.len()];
        let spec = spec(kind, intervals[seed as usize % intervals.len()], seed % 4 == 1);
        let dropped = Arc::new(AtomicU64::new(0));
        let (of_subtasks, counter) = (spec.clone(), dropped.clone());
        let mut subtasks = Subtasks::new(move || operator(&of_subtasks, &counter), 2);
        subtasks.times = if subtasks.operators[0].is_left_only() { vec![1] } else { vec![1, 4] };
        let streams = Streams { splits: 2, keys: 5, spread: 400, delay: 150, lead: 900 };
        let rows = run(&mut subtasks, seed, &streams, 150, |_, _, row| row);
        let (expected, late) = expected(&spec, &rows);
        total = (total.0 + expected.len(), total.1 + late);
        assert_same(&subtasks.given, &expected, &format!("seed {seed}, {:?}", spec.kind));
        // Rows that were read again after a restore are counted again.
        assert!(dropped.load(Ordering::Relaxed) >= late, "seed {seed}");
    }
    assert!(total.0 > 6000 && total.1 > 120, "{} rows, {} dropped", total.0, total.1);
}

#[test]
fn state_stays_as_large_as_the_interval() {
    for kind in KINDS {
        let mut subtasks = Subtasks::new(move || operator(&spec(kind, (-2_000, 1_000), false), &Arc::default()), 1);
        let (mut rows_max, mut files_max) = (0, 0);
        for step in 0..4_000_i64 {
            let now = step * 500;
            for side in 0..2_i64 {
                let row = |n: i64| Row { key: Some(n * 7 % 31), time: now + n, value: side, own: i64::MIN, change: 0 };
                let rows: Vec<Row> = (0..10).map(row).collect();
                subtasks.push(side as usize, &batch(&side_schema(["l", "r"][side as usize]), &rows));
            }
            subtasks.watermark(now - 100);
            if step % 3 == 0 {
                files_max = files_max.max(subtasks.checkpoint());
            }
            let rows = subtasks.operators[0].sides.iter().map(Side::len).sum::<usize>();
            rows_max = rows_max.max(rows);
            subtasks.given.clear();
        }
        // Three seconds of both sides, and what segments hold beyond it: of two million milliseconds.
        assert!((60..=240).contains(&rows_max), "{kind:?}: {rows_max} rows");
        assert!(files_max <= 5, "{kind:?}: {files_max} files");
    }
}

#[test]
fn the_watermark_is_held_back_by_the_longest_wait() {
    let out =
        |bounds| operator(&spec(JoinKind::Inner, bounds, false), &Arc::default()).watermark_out(Timestamp(10_000));
    assert_eq!(out((-2_000, 500)), Timestamp(8_000));
    assert_eq!(out((-100, 500)), Timestamp(9_500));
    assert_eq!(out((-500, -200)), Timestamp(9_500));
    assert_eq!(out((200, 300)), Timestamp(9_700));
    let end = operator(&spec(JoinKind::Inner, (-1, 1), false), &Arc::default()).watermark_out(Timestamp::MAX);
    assert_eq!(end, Timestamp::MAX, "nothing follows the end");
}
