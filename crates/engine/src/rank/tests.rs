//! Random changes, cut into random batches, with restores at random points: the changelog that is given, folded,
//! is what ranking the rows that there are gives.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::{OperatorKind, SortKey};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::checkpointing::Checkpoints;
use crate::element::StreamBatch;
use crate::late::LateRows;
use crate::operator::{Collector, Release};

/// Partition, number, text.
type Row = (Option<i64>, Option<i64>, Option<String>);
/// A row of the output, with its rank where it is wanted.
type Given = (Row, Option<i64>);

fn input_schema() -> SchemaRef {
    let column = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![column("p", DataType::Int64), column("n", DataType::Int64), column("s", DataType::Utf8)]))
}

fn rank(function: RankFunction, order: Vec<SortKey>, from: u64, to: u64, rank_column: bool) -> Rank {
    Rank {
        function,
        partition: vec![0],
        order,
        newest_first: false,
        from,
        to,
        rank_column,
        input_schema: input_schema(),
        input_retracts: false,
        input_unique: None,
        window_end: None,
        ttl_ms: None,
    }
}

fn key(column: usize, descending: bool, nulls_first: bool) -> SortKey {
    SortKey { column, descending, nulls_first }
}

struct Running {
    operator: Box<dyn Operator>,
    late: Arc<std::sync::atomic::AtomicU64>,
}

fn start(rank: &Rank, changes: ChangeMode, context: &EvalContext) -> Running {
    let mut fields: Vec<_> = rank.input_schema.fields().iter().cloned().collect();
    if rank.rank_column {
        fields.push(Arc::new(Field::new("rank", DataType::Int64, false)));
    }
    let mut op = Spec::new(Arc::new(Schema::new(fields)), OperatorKind::Rank(rank.clone()));
    op.changes = changes;
    let late = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let rows = LateRows::new("rank", late.clone(), false);
    let dropped = DroppedRows { late: rows, unmatched: Arc::default() };
    Running { operator: operator("rank", rank, &op, dropped, context).unwrap(), late }
}

fn batch(rows: &[(Row, ChangeKind)]) -> StreamBatch {
    let columns: [(&str, Arc<dyn Array>); 3] = [
        ("p", Arc::new(rows.iter().map(|((p, _, _), _)| *p).collect::<Int64Array>())),
        ("n", Arc::new(rows.iter().map(|((_, n, _), _)| *n).collect::<Int64Array>())),
        ("s", Arc::new(rows.iter().map(|((_, _, s), _)| s.clone()).collect::<StringArray>())),
    ];
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let kinds = Int8Array::from_iter_values(rows.iter().map(|(_, kind)| *kind as i8));
    StreamBatch::changelog(RecordBatch::try_new(input_schema(), columns).unwrap(), kinds)
}

fn given(out: Collector, rank: &Rank) -> Vec<(Given, ChangeKind)> {
    let mut given = Vec::new();
    for batch in out.main {
        let (p, n) =
            (batch.rows.column(0).as_primitive::<Int64Type>(), batch.rows.column(1).as_primitive::<Int64Type>());
        let s = batch.rows.column(2).as_string::<i32>();
        for row in 0..batch.rows.num_rows() {
            let value =
                |column: &arrow::array::PrimitiveArray<Int64Type>| column.is_valid(row).then(|| column.value(row));
            let text = s.is_valid(row).then(|| s.value(row).to_owned());
            let number = rank.rank_column.then(|| batch.rows.column(3).as_primitive::<Int64Type>().value(row));
            let kind = batch.changes.as_ref().map_or(0, |changes| changes.value(row));
            given.push((((value(p), value(n), text), number), ChangeKind::from_number(kind).unwrap()));
        }
    }
    given
}

/// The rows that a changelog describes. Fails where a row is taken away that is not there.
#[derive(Default)]
struct Table {
    rows: BTreeMap<Given, usize>,
    by_key: BTreeMap<(Option<i64>, Option<i64>), Given>,
}

impl Table {
    fn apply(&mut self, (row, kind): (Given, ChangeKind)) {
        if kind.is_addition() {
            *self.rows.entry(row).or_default() += 1;
        } else {
            let count = self.rows.get_mut(&row).unwrap_or_else(|| panic!("{kind:?} of {row:?}, which is not there"));
            *count -= 1;
            if *count == 0 {
                self.rows.remove(&row);
            }
        }
    }

    /// The same for a changelog by partition and rank, without `-U`.
    fn upsert(&mut self, (row, kind): (Given, ChangeKind)) {
        assert_ne!(kind, ChangeKind::UpdateBefore);
        let key = (row.0.0, row.1);
        match kind {
            ChangeKind::Delete => assert_eq!(self.by_key.remove(&key), Some(row)),
            ChangeKind::Insert => assert_eq!(self.by_key.insert(key, row), None),
            _ => assert!(self.by_key.insert(key, row).is_some()),
        }
    }

    fn upserted(&self) -> Vec<Given> {
        let mut rows: Vec<Given> = self.by_key.values().cloned().collect();
        rows.sort();
        rows
    }

    fn folded(&self) -> Vec<Given> {
        self.rows.iter().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), *count)).collect()
    }
}

fn in_order(rank: &Rank, left: &Row, right: &Row) -> Ordering {
    fn with_options<T: Ord>(left: &Option<T>, right: &Option<T>, key: &SortKey) -> Ordering {
        match (left, right) {
            (Some(left), Some(right)) if key.descending => right.cmp(left),
            (Some(left), Some(right)) => left.cmp(right),
            (None, None) => Ordering::Equal,
            (None, Some(_)) if key.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            _ => with_options(right, left, key).reverse(),
        }
    }
    let mut orders = rank.order.iter().map(|key| match key.column {
        1 => with_options(&left.1, &right.1, key),
        _ => with_options(&left.2, &right.2, key),
    });
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// What is to be shown of the rows that there are, worked out anew.
fn ranked(rank: &Rank, rows: &[Row]) -> Vec<Given> {
    let mut shown = Vec::new();
    let partitions: std::collections::BTreeSet<Option<i64>> = rows.iter().map(|row| row.0).collect();
    for partition in partitions {
        let mut of_partition: Vec<&Row> = rows.iter().filter(|row| row.0 == partition).collect();
        of_partition.sort_by(|left, right| in_order(rank, left, right).then(left.cmp(right)));
        for (place, row) in of_partition.iter().enumerate() {
            let better = of_partition.iter().filter(|other| in_order(rank, other, row).is_lt());
            let number = match rank.function {
                RankFunction::RowNumber => place as u64 + 1,
                RankFunction::Rank => better.count() as u64 + 1,
                RankFunction::DenseRank => {
                    let mut better: Vec<_> = better.collect();
                    better.dedup_by(|left, right| in_order(rank, left, right).is_eq());
                    better.len() as u64 + 1
                }
            };
            if (rank.from..=rank.to).contains(&number) {
                shown.push(((*row).clone(), rank.rank_column.then_some(number as i64)));
            }
        }
    }
    shown.sort();
    shown
}

fn random_row(random: &mut SmallRng, numbers: i64) -> Row {
    let number = (!random.random_bool(0.1)).then(|| random.random_range(-numbers..numbers));
    let text = (!random.random_bool(0.1)).then(|| "abcdefgh"[random.random_range(0..8)..].to_owned());
    ((!random.random_bool(0.1)).then(|| random.random_range(0..5)), number, text)
}

fn random_rank(random: &mut SmallRng) -> Rank {
    let function = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank][random.random_range(0..3)];
    let (descending, nulls_first) = (random.random(), random.random());
    let order = match random.random_range(0..3) {
        0 => vec![key(1, descending, nulls_first)],
        1 => vec![key(2, descending, nulls_first)],
        _ => vec![key(2, descending, nulls_first), key(1, !descending, true)],
    };
    let to = [1, 1, 2, 3, 10][random.random_range(0..5)];
    let from = if random.random_bool(0.3) { random.random_range(1..=to) } else { 1 };
    rank(function, order, from, to, random.random())
}

#[test]
fn the_folded_changelog_is_the_ranking_of_the_rows() {
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut rank = random_rank(&mut random);
        rank.input_retracts = random.random();
        if random.random_bool(0.2) {
            // As if the whole row were a key; only the form of the changes depends on it.
            rank.input_unique = Some(vec![0, 1, 2]);
        }
        let context = EvalContext::default();
        let mut running = start(&rank, ChangeMode::Retract, &context);
        let (mut checkpoints, mut table) = (Checkpoints::default(), Table::default());
        let mut rows: Vec<Row> = Vec::new();
        let numbers = [2, 20, 1_000][random.random_range(0..3)];
        for _ in 0..random.random_range(1..40) {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(1..30) {
                if rank.input_retracts && !rows.is_empty() && random.random_bool(0.45) {
                    let gone = rows.swap_remove(random.random_range(0..rows.len()));
                    changes.push((gone, [ChangeKind::Delete, ChangeKind::UpdateBefore][random.random_range(0..2)]));
                } else {
                    let row = random_row(&mut random, numbers);
                    rows.push(row.clone());
                    changes.push((row, [ChangeKind::Insert, ChangeKind::UpdateAfter][random.random_range(0..2)]));
                }
            }
            let mut out = Collector::default();
            running.operator.process(0, batch(&changes), &mut out).unwrap();
            given(out, &rank).into_iter().for_each(|change| table.apply(change));
            assert_eq!(table.folded(), ranked(&rank, &rows), "seed {seed}: {rank:?}");
            if random.random_bool(0.3) {
                checkpoints.take(running.operator.as_mut());
                if random.random_bool(0.4) {
                    running = start(&rank, ChangeMode::Retract, &context);
                    checkpoints.restore(running.operator.as_mut());
                }
            }
        }
    }
}

#[test]
fn without_updates_before_the_key_says_what_is_replaced() {
    for seed in 0..100 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut rank = random_rank(&mut random);
        rank.function = RankFunction::RowNumber;
        rank.rank_column = rank.to > 1 || rank.rank_column;
        rank.input_retracts = random.random();
        let mut running = start(&rank, ChangeMode::Upsert, &EvalContext::default());
        let (mut table, mut rows) = (Table::default(), Vec::<Row>::new());
        for _ in 0..30 {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(1..8) {
                if rank.input_retracts && !rows.is_empty() && random.random_bool(0.5) {
                    changes.push((rows.swap_remove(random.random_range(0..rows.len())), ChangeKind::Delete));
                } else {
                    rows.push(random_row(&mut random, 50));
                    changes.push((rows[rows.len() - 1].clone(), ChangeKind::Insert));
                }
            }
            let mut out = Collector::default();
            running.operator.process(0, batch(&changes), &mut out).unwrap();
            given(out, &rank).into_iter().for_each(|change| table.upsert(change));
            assert_eq!(table.upserted(), ranked(&rank, &rows), "seed {seed}: {rank:?}");
        }
    }
}

#[test]
fn by_arrival_the_first_or_the_last_rows_are_kept() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let to = random.random_range(1..4);
        let mut rank = rank(RankFunction::RowNumber, vec![], 1, to, random.random());
        rank.newest_first = random.random();
        let context = EvalContext::default();
        let mut running = start(&rank, ChangeMode::Retract, &context);
        let (mut checkpoints, mut table) = (Checkpoints::default(), Table::default());
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..20 {
            let fresh: Vec<Row> = (0..random.random_range(1..20)).map(|_| random_row(&mut random, 100)).collect();
            let changes: Vec<_> = fresh.iter().map(|row| (row.clone(), ChangeKind::Insert)).collect();
            let mut out = Collector::default();
            running.operator.process(0, batch(&changes), &mut out).unwrap();
            for change in given(out, &rank) {
                assert!(rank.newest_first || change.1 == ChangeKind::Insert, "what came first stays");
                table.apply(change);
            }
            rows.extend(fresh);
            let mut expected = Vec::new();
            for partition in std::iter::once(None).chain((0..5).map(Some)) {
                let mut of_partition: Vec<&Row> = rows.iter().filter(|row| row.0 == partition).collect();
                if rank.newest_first {
                    of_partition.reverse();
                }
                let shown = of_partition.into_iter().take(to as usize).enumerate();
                expected.extend(shown.map(|(n, row)| (row.clone(), rank.rank_column.then_some(n as i64 + 1))));
            }
            expected.sort();
            assert_eq!(table.folded(), expected, "seed {seed}: {rank:?}");
            if random.random_bool(0.4) {
                checkpoints.take(running.operator.as_mut());
                running = start(&rank, ChangeMode::Retract, &context);
                checkpoints.restore(running.operator.as_mut());
            }
        }
    }
}

/// The number is the end of the row's window (ms).
#[test]
fn the_ranks_of_a_window_are_given_once_and_its_state_is_released() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut rank =
            rank(RankFunction::RowNumber, vec![key(2, true, false)], 1, random.random_range(1..4), random.random());
        rank.partition = vec![1, 0];
        rank.window_end = Some(1);
        let context = EvalContext::default();
        let mut running = start(&rank, ChangeMode::Append, &context);
        let mut checkpoints = Checkpoints::default();
        let (mut rows, mut all, mut dropped) = (Vec::<Row>::new(), Vec::new(), 0);
        for round in 0..60 {
            let watermark = round * 10 - 1;
            let mut fresh = Vec::new();
            for _ in 0..random.random_range(0..20) {
                let (p, _, s) = random_row(&mut random, 1);
                // Ends of windows, some of them behind the watermark.
                let end = (round + random.random_range(-1..4_i64)) * 10;
                fresh.push((p, Some(end), s));
            }
            let changes: Vec<_> = fresh.iter().map(|row| (row.clone(), ChangeKind::Insert)).collect();
            if !changes.is_empty() {
                let mut out = Collector::default();
                running.operator.process(0, batch(&changes), &mut out).unwrap();
                assert!(out.main.is_empty());
            }
            // What the operator has seen before is the watermark of the round before.
            let before = fresh.len();
            let seen = if round == 0 { i64::MIN } else { watermark - 10 };
            fresh.retain(|row| row.1.unwrap() - 1 > seen);
            dropped += before - fresh.len();
            rows.extend(fresh);
            if random.random_bool(0.3) {
                checkpoints.take(running.operator.as_mut());
                let late = running.late.load(std::sync::atomic::Ordering::Relaxed);
                running = start(&rank, ChangeMode::Append, &context);
                running.late.store(late, std::sync::atomic::Ordering::Relaxed);
                checkpoints.restore(running.operator.as_mut());
            }
            let mut out = Collector::default();
            while running.operator.on_watermark(Timestamp(watermark), &mut out).unwrap() == Release::Continue {}
            let given: Vec<Given> = given(out, &rank).into_iter().map(|(row, _)| row).collect();
            assert!(given.iter().all(|((_, end, _), _)| end.unwrap() - 1 <= watermark), "given before its time");
            all.extend(given);
        }
        let mut out = Collector::default();
        while running.operator.on_watermark(Timestamp::MAX, &mut out).unwrap() == Release::Continue {}
        all.extend(given(out, &rank).into_iter().map(|(row, _)| row));
        all.sort();
        let mut expected = Vec::new();
        let ends: std::collections::BTreeSet<_> = rows.iter().map(|row| row.1).collect();
        for end in ends {
            let of_window: Vec<Row> = rows.iter().filter(|row| row.1 == end).cloned().collect();
            expected.extend(ranked(&rank, &of_window));
        }
        expected.sort();
        assert_eq!(all, expected, "seed {seed}");
        assert_eq!(running.late.load(std::sync::atomic::Ordering::Relaxed), dropped as u64);
    }
}

#[test]
fn state_of_windows_stays_small_over_a_long_time() {
    let mut rank = rank(RankFunction::RowNumber, vec![key(2, false, false)], 1, 2, true);
    rank.partition = vec![0, 1];
    rank.window_end = Some(1);
    let mut running = start(&rank, ChangeMode::Append, &EvalContext::default());
    let mut checkpoints = Checkpoints::default();
    for round in 0..2_000_i64 {
        let row = |n: i64| ((Some(n), Some((round + 1) * 10), Some("x".to_owned())), ChangeKind::Insert);
        running.operator.process(0, batch(&(0..10).map(row).collect::<Vec<_>>()), &mut Collector::default()).unwrap();
        let mut out = Collector::default();
        while running.operator.on_watermark(Timestamp(round * 10), &mut out).unwrap() == Release::Continue {}
        assert!(checkpoints.take(running.operator.as_mut()) <= 20);
        assert!(checkpoints.rows() <= 32 * 20, "{} rows in the files", checkpoints.rows());
    }
}

#[test]
fn rows_that_go_and_were_never_there_leave_nothing() {
    let mut rank = rank(RankFunction::RowNumber, vec![key(1, false, false)], 1, 1, false);
    rank.input_retracts = true;
    let mut running = start(&rank, ChangeMode::Retract, &EvalContext::default());
    let mut checkpoints = Checkpoints::default();
    for round in 0..200 {
        let gone = |n: i64| ((Some(round * 1_000 + n), Some(0), None), ChangeKind::Delete);
        let mut out = Collector::default();
        running.operator.process(0, batch(&(0..1_000).map(gone).collect::<Vec<_>>()), &mut out).unwrap();
        assert_eq!(given(out, &rank), []);
        checkpoints.take(running.operator.as_mut());
    }
    // The keys of all of them would take more, and where they lie twice as much again.
    let bytes = running.operator.state_bytes();
    assert!(bytes < 200_000 * 9, "{bytes} bytes");
}

#[test]
fn partitions_are_forgotten_after_their_time_to_live() {
    for (input_retracts, by_arrival) in [(false, false), (true, false), (false, true)] {
        let order = if by_arrival { vec![] } else { vec![key(1, false, false)] };
        let mut rank = rank(RankFunction::RowNumber, order, 1, 1, false);
        (rank.input_retracts, rank.ttl_ms) = (input_retracts, Some(100));
        let context = EvalContext::default();
        let mut running = start(&rank, ChangeMode::Retract, &context);
        let mut checkpoints = Checkpoints::default();
        let row = |p: i64, n: i64| ((Some(p), Some(n), None), ChangeKind::Insert);
        let mut step = |now: i64, rows: &[(Row, ChangeKind)]| {
            context.set_now_ms(now);
            let mut out = Collector::default();
            running.operator.process(0, batch(rows), &mut out).unwrap();
            checkpoints.take(running.operator.as_mut());
            running = start(&rank, ChangeMode::Retract, &context);
            checkpoints.restore(running.operator.as_mut());
            given(out, &rank).into_iter().map(|((row, _), kind)| (row.1.unwrap(), kind)).collect::<Vec<_>>()
        };
        assert_eq!(step(1_000, &[row(1, 5), row(2, 5)]), [(5, ChangeKind::Insert), (5, ChangeKind::Insert)]);
        if !by_arrival {
            let replaced = [(5, ChangeKind::UpdateBefore), (4, ChangeKind::UpdateAfter)];
            assert_eq!(step(1_050, &[row(1, 4)]), replaced);
        }
        // The second partition is forgotten at the end of this epoch, the first after the next.
        assert_eq!(step(1_100, &[row(3, 0)]), [(0, ChangeKind::Insert)]);
        assert_eq!(step(1_110, &[row(2, 9)]), [(9, ChangeKind::Insert)]);
        if !by_arrival {
            assert_eq!(step(1_120, &[row(1, 9)]), []);
            step(1_240, &[row(3, 7)]);
        }
        assert_eq!(step(1_300, &[row(1, 9)]), [(9, ChangeKind::Insert)]);
    }
}
