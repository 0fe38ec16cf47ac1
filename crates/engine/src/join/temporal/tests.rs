//! Temporal joins against a naive search for the version of each row, over random changelogs with late rows,
//! restores and other parallelisms; and their state over long event time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::join::testing::{
    Joined, Random, Row, Streams, Subtasks, assert_same, batch, joined, on, output_schema, run, side_schema,
};

fn spec(kind: JoinKind, with_condition: bool, times: Option<(usize, usize)>) -> Spec {
    Spec { kind, on: on(with_condition), times }
}

fn operator(spec: &Spec, dropped: &Arc<AtomicU64>) -> TemporalJoin {
    let late = LateRows::new("join", dropped.clone(), false);
    TemporalJoin::new("join", spec, output_schema(false), late, &EvalContext::default()).unwrap()
}

const UPDATE_BEFORE: i8 = ChangeKind::UpdateBefore as i8;
const UPDATE_AFTER: i8 = ChangeKind::UpdateAfter as i8;
const DELETE: i8 = ChangeKind::Delete as i8;

/// The version that a row at a time meets, out of all that came, in the order in which they came.
fn version_at(versions: &[Row], key: Option<i64>, time: i64) -> Option<Row> {
    let counts_from = |row: &Row| row.time.max(row.own.saturating_add(1));
    let mut known: Vec<Row> = Vec::new();
    for row in versions.iter().filter(|row| row.key == key && row.change != UPDATE_BEFORE && counts_from(row) <= time) {
        if row.behind() > i64::MIN {
            // A deletion that the row's split had passed is as if it had been forgotten.
            let last = known.iter().rposition(|other| counts_from(other) <= row.own + 1);
            if let Some(last) = last.filter(|last| known[*last].change == DELETE) {
                known.drain(..=last);
            }
        }
        known.insert(known.partition_point(|other| other.time <= row.time), *row);
    }
    known.pop().filter(|row| row.change != DELETE)
}

fn expected(spec: &Spec, [left, right]: &[Vec<Row>; 2]) -> (Vec<Joined>, u64) {
    let mut given = Vec::new();
    for row in left.iter().filter(|row| row.behind() == i64::MIN) {
        let found = row.key.and_then(|key| version_at(right, Some(key), row.time));
        let found = found.filter(|version| spec.on.condition.is_none() || version.value != row.value);
        if found.is_some() || spec.kind == JoinKind::Left {
            given.push(joined(Some(row), found.as_ref()));
        }
    }
    given.sort();
    (given, left.iter().filter(|row| row.behind() > i64::MIN).count() as u64)
}

/// Each key of the right side belongs to one split.
fn shaped(split: usize, random: &mut Random, row: Row) -> Row {
    if split.is_multiple_of(2) {
        return Row { key: row.key.map(|key| key * 2 + random.below(2)), ..row };
    }
    let change = match random.below(10) {
        0 => UPDATE_BEFORE,
        1 | 2 => DELETE,
        3..6 => UPDATE_AFTER,
        _ => 0,
    };
    Row { key: row.key.map(|key| key * 2 + split as i64 / 2), change, ..row }
}

#[test]
fn each_row_meets_the_version_of_its_time() {
    let mut total = (0, 0);
    for seed in 0..120 {
        let kind = [JoinKind::Inner, JoinKind::Left][seed as usize % 2];
        let spec = spec(kind, seed % 3 == 0, Some((1, 1)));
        let dropped = Arc::new(AtomicU64::new(0));
        let (of_subtasks, counter) = (spec.clone(), dropped.clone());
        let mut subtasks = Subtasks::new(move || operator(&of_subtasks, &counter), 2);
        subtasks.times = vec![1];
        let streams = Streams { splits: 2, keys: 4, spread: 600, delay: 250, lead: 900 };
        let rows = run(&mut subtasks, seed, &streams, 200, shaped);
        let (expected, late) = expected(&spec, &rows);
        total = (total.0 + expected.len(), total.1 + late);
        assert_same(&subtasks.given, &expected, &format!("seed {seed}, {:?}", spec.kind));
        assert!(dropped.load(Ordering::Relaxed) >= late, "seed {seed}");
    }
    assert!(total.0 > 6000 && total.1 > 120, "{} rows, {} dropped", total.0, total.1);
}

#[test]
fn by_processing_time_the_newest_version_counts_also_after_a_restore() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let spec = spec([JoinKind::Inner, JoinKind::Left][seed as usize % 2], seed % 3 == 0, None);
        let of_subtasks = spec.clone();
        let mut subtasks = Subtasks::new(move || operator(&of_subtasks, &Arc::default()), 2);
        let mut versions: Vec<Row> = Vec::new();
        let mut expected = Vec::new();
        for step in 0..400 {
            let change = [0, UPDATE_AFTER, DELETE, UPDATE_BEFORE][random.below(4) as usize];
            let row = Row { key: Some(random.below(9)), time: step, value: random.below(3), own: i64::MIN, change };
            if random.chance(2) {
                subtasks.push(1, &batch(&side_schema("r"), &[row]));
                versions.extend((change != UPDATE_BEFORE).then_some(row));
            } else {
                let row = Row { change: 0, ..row };
                subtasks.push(0, &batch(&side_schema("l"), &[row]));
                let newest = versions.iter().rfind(|version| version.key == row.key);
                let found = newest.filter(|version| version.change != DELETE);
                let found = found.filter(|version| spec.on.condition.is_none() || version.value != row.value);
                expected.extend((found.is_some() || spec.kind == JoinKind::Left).then(|| joined(Some(&row), found)));
            }
            if random.chance(9) {
                subtasks.checkpoint();
                subtasks.restore(1 + random.below(3) as usize);
            }
        }
        // One row a batch: rows leave in the order in which they came.
        assert_same(&subtasks.given, &expected, &format!("seed {seed}"));
    }
}

#[test]
fn state_stays_as_large_as_what_rows_may_need() {
    let mut subtasks = Subtasks::new(|| operator(&spec(JoinKind::Left, false, Some((1, 1))), &Arc::default()), 1);
    let (mut kept_max, mut files_max) = ((0, 0), 0);
    for step in 0..4_000_i64 {
        let now = step * 500;
        let row = |n: i64| Row { key: Some(n * 7 % 31), time: now + n, value: 0, own: i64::MIN, change: 0 };
        subtasks.push(0, &batch(&side_schema("l"), &(0..10).map(row).collect::<Vec<_>>()));
        // Ten keys that stay, and one that comes and goes.
        let mut versions: Vec<Row> = (0..10).map(row).collect();
        versions.push(Row { key: Some(100 + step), ..row(11) });
        versions.push(Row { key: Some(99 + step), change: DELETE, ..row(11) });
        subtasks.push(1, &batch(&side_schema("r"), &versions));
        subtasks.watermark(now - 1_100);
        if step % 3 == 0 {
            files_max = files_max.max(subtasks.checkpoint());
        }
        let kept = subtasks.operators[0].kept();
        kept_max = (kept_max.0.max(kept.0), kept_max.1.max(kept.1));
        subtasks.given.clear();
    }
    assert!((20..=40).contains(&kept_max.0), "{} rows wait", kept_max.0);
    assert!((30..=60).contains(&kept_max.1), "{} versions", kept_max.1);
    assert!(files_max <= 33, "{files_max} files");
}
