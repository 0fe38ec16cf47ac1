//! Window joins against a naive join of the rows of each window, over random streams with late rows, restores and
//! other parallelisms; and their state over long event time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstem_plan::operator::JoinOn;

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

/// The time of a row is the end of its window.
fn spec(kind: JoinKind, with_condition: bool) -> Spec {
    let on =
        JoinOn { left_keys: vec![0, 1], right_keys: vec![0, 1], null_equal: vec![false, false], ..on(with_condition) };
    Spec { kind, on, left_end: 1, right_end: 1 }
}

fn operator(spec: &Spec, dropped: &Arc<AtomicU64>) -> WindowJoin {
    let left_only = matches!(spec.kind, JoinKind::Semi | JoinKind::Anti { .. });
    let late = LateRows::new("join", dropped.clone(), false);
    WindowJoin::new("join", spec, output_schema(left_only), late, &EvalContext::default()).unwrap()
}

fn expected(spec: &Spec, sides: &[Vec<Row>; 2]) -> (Vec<Joined>, u64) {
    let [left, right] =
        sides.each_ref().map(|rows| rows.iter().filter(|row| row.time - 1 > row.own).collect::<Vec<_>>());
    let dropped = sides.iter().map(Vec::len).sum::<usize>() - left.len() - right.len();
    let pairs = |l: &Row, r: &Row| {
        let holds = spec.on.condition.is_none() || l.value != r.value;
        l.key.is_some() && l.key == r.key && l.time == r.time && holds
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
        given.extend(right.iter().filter(|r| !left.iter().any(|l| pairs(l, r))).map(|r| joined(None, Some(r))));
    }
    given.sort();
    (given, dropped as u64)
}

#[test]
fn rows_of_a_window_meet_when_it_closes() {
    let mut total = (0, 0);
    for seed in 0..90 {
        let spec = spec(KINDS[seed as usize % KINDS.len()], seed % 4 == 1);
        let dropped = Arc::new(AtomicU64::new(0));
        let (of_subtasks, counter) = (spec.clone(), dropped.clone());
        let mut subtasks = Subtasks::new(move || operator(&of_subtasks, &counter), 2);
        subtasks.key = vec![0, 1];
        subtasks.times = if matches!(spec.kind, JoinKind::Semi | JoinKind::Anti { .. }) { vec![1] } else { vec![1, 4] };
        let streams = Streams { splits: 2, keys: 6, spread: 350, delay: 200, lead: 700 };
        let to_end = |_, _: &mut _, row: Row| Row { time: (row.time.div_euclid(250) + 1) * 250, ..row };
        let rows = run(&mut subtasks, seed, &streams, 150, to_end);
        let (expected, late) = expected(&spec, &rows);
        total = (total.0 + expected.len(), total.1 + late);
        assert_same(&subtasks.given, &expected, &format!("seed {seed}, {:?}", spec.kind));
        assert!(dropped.load(Ordering::Relaxed) >= late, "seed {seed}");
    }
    assert!(total.0 > 4500 && total.1 > 90, "{} rows, {} dropped", total.0, total.1);
}

#[test]
fn a_row_of_a_closed_window_is_counted_and_dropped() {
    let dropped = Arc::new(AtomicU64::new(0));
    let mut join = operator(&spec(JoinKind::Full, false), &dropped);
    let row = |time, own| Row { key: Some(1), time, value: 1, own, change: 0 };
    // 499 is the last millisecond of a window that ends at 500.
    let rows = [row(500, 498), row(500, 499), row(1_000, 499)];
    join.process(0, batch(&side_schema("l"), &rows), &mut Collector::default()).unwrap();
    assert_eq!((dropped.load(Ordering::Relaxed), join.kept_rows()), (1, 2));
}

#[test]
fn state_stays_as_large_as_the_open_windows() {
    for kind in KINDS {
        let mut subtasks = Subtasks::new(move || operator(&spec(kind, false), &Arc::default()), 1);
        subtasks.key = vec![0, 1];
        let (mut rows_max, mut files_max) = (0, 0);
        for step in 0..4_000_i64 {
            let now = step * 500;
            for (side, prefix) in ["l", "r"].into_iter().enumerate() {
                let end = (now.div_euclid(2_000) + 1) * 2_000;
                let row = |n: i64| Row { key: Some(n * 7 % 31), time: end, value: 0, own: i64::MIN, change: 0 };
                subtasks.push(side, &batch(&side_schema(prefix), &(0..10).map(row).collect::<Vec<_>>()));
            }
            subtasks.watermark(now - 100);
            if step % 3 == 0 {
                files_max = files_max.max(subtasks.checkpoint());
            }
            rows_max = rows_max.max(subtasks.operators[0].kept_rows());
            subtasks.given.clear();
        }
        assert!((80..=120).contains(&rows_max), "{kind:?}: {rows_max} rows");
        assert!(files_max <= 4, "{kind:?}: {files_max} files");
    }
}
