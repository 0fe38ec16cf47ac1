//! Random rows, cut into random batches, with restores at random points: what is given is what a direct
//! computation over all rows gives.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use arrow::array::{Array, AsArray, Int8Array, Int64Array, PrimitiveArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use mainstem_core::change::ChangeKind;
use mainstem_core::time::Timestamp;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{Frame, OperatorKind, OverCall, RankFunction, SortKey};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::checkpointing::Checkpoints;
use crate::element::StreamBatch;
use crate::late::LateRows;
use crate::operator::{Collector, Release};

/// Partition, time, value, number.
type Row = (i64, i64, Option<i64>, i64);
/// A row with its results.
type Given = (Row, Vec<Option<i64>>);

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("p", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("v", DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
    ]))
}

fn aggregate(function: &str, column: usize) -> OverCall {
    OverCall::Aggregate(AggregateCall {
        name: function.to_owned(),
        function: function.to_owned(),
        args: vec![Expr::Column(column)],
        filter: None,
        distinct: false,
        order_by: vec![],
        ignore_nulls: false,
    })
}

fn over(by: OverOrder, order: Vec<SortKey>, frame: Frame, calls: Vec<OverCall>) -> OverAggregate {
    OverAggregate { partition: vec![0], order, by, frame, calls, input_schema: input_schema(), ttl_ms: None }
}

fn key(column: usize, descending: bool) -> SortKey {
    SortKey { column, descending, nulls_first: !descending }
}

fn start(over: &OverAggregate, context: &EvalContext, late: &Arc<AtomicU64>) -> Box<dyn Operator> {
    let mut fields: Vec<_> = input_schema().fields().iter().cloned().collect();
    let results = (0..over.calls.len()).map(|n| Arc::new(Field::new(format!("r{n}"), DataType::Int64, true)));
    fields.extend(results);
    let op = Spec::new(Arc::new(Schema::new(fields)), OperatorKind::OverAggregate(over.clone()));
    let late = LateRows::new("over", late.clone(), false);
    operator("over", over, &op, DroppedRows { late, unmatched: Arc::default() }, context).unwrap()
}

fn batch(rows: &[(Row, ChangeKind)]) -> StreamBatch {
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(rows.iter().map(|(row, _)| Some(row.0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.1)).collect::<TimestampMillisecondArray>()),
        Arc::new(rows.iter().map(|(row, _)| row.2).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.3)).collect::<Int64Array>()),
    ];
    let kinds = Int8Array::from_iter_values(rows.iter().map(|(_, kind)| *kind as i8));
    StreamBatch::changelog(RecordBatch::try_new(input_schema(), columns).unwrap(), kinds)
}

fn given(out: Collector) -> Vec<(Given, ChangeKind)> {
    let mut given = Vec::new();
    for batch in out.main {
        let as_numbers = |column: &Arc<dyn Array>| arrow::compute::cast(column, &DataType::Int64).unwrap();
        let columns: Vec<_> = batch.rows.columns().iter().map(as_numbers).collect();
        let value = |column: usize, row: usize| {
            let column: &PrimitiveArray<Int64Type> = columns[column].as_primitive();
            column.is_valid(row).then(|| column.value(row))
        };
        for row in 0..batch.rows.num_rows() {
            let of = (value(0, row).unwrap(), value(1, row).unwrap(), value(2, row), value(3, row).unwrap());
            let kind = batch.changes.as_ref().map_or(0, |changes| changes.value(row));
            let results = (4..columns.len()).map(|column| value(column, row)).collect();
            given.push(((of, results), ChangeKind::from_number(kind).unwrap()));
        }
    }
    given
}

fn order_value(row: &Row, key: &SortKey) -> Option<i64> {
    let value = match key.column {
        1 => Some(row.1),
        2 => row.2,
        _ => Some(row.3),
    };
    if key.descending { value.map(|value| -value) } else { value }
}

/// The order of rows; NULL is least if ascending, greatest if descending.
fn order_of(row: &Row, order: &[SortKey]) -> Vec<(bool, Option<i64>)> {
    let place = |key: &SortKey| {
        let value = order_value(row, key);
        (value.is_none() == key.descending, value)
    };
    order.iter().map(place).collect()
}

/// The results of the rows of one partition, which lie in order.
fn results(over: &OverAggregate, rows: &[Row], has_peers: bool) -> Vec<Given> {
    let orders: Vec<_> = rows.iter().map(|row| order_of(row, &over.order)).collect();
    let is_peer = |left: usize, right: usize| left == right || (has_peers && orders[left] == orders[right]);
    let frame = |row: usize| -> Range<usize> {
        let peers_end = (row..rows.len()).find(|other| !is_peer(row, *other)).unwrap_or(rows.len());
        match over.frame {
            Frame::Rows { preceding: None } => 0..row + 1,
            Frame::Rows { preceding: Some(rows) } => row.saturating_sub(rows as usize)..row + 1,
            Frame::Range { preceding: None } => 0..peers_end,
            Frame::Range { preceding: Some(distance) } => {
                let value = |row: usize| order_value(&rows[row], &over.order[0]);
                let is_near = |other: &usize| match (value(*other), value(row)) {
                    (Some(other), Some(value)) => value - other <= distance,
                    (left, right) => left.is_none() && right.is_none(),
                };
                (0..=row).find(is_near).unwrap()..peers_end
            }
        }
    };
    let call = |call: &OverCall, row: usize| -> Option<i64> {
        let frame = frame(row);
        match call {
            OverCall::Aggregate(call) => {
                let seen = rows[frame].iter().filter_map(|row| row.2);
                match call.function.as_str() {
                    "sum" => seen.reduce(|sum, value| sum + value),
                    "count" => Some(seen.count() as i64),
                    "min" => seen.min(),
                    "avg" => {
                        let seen: Vec<i64> = seen.collect();
                        (!seen.is_empty()).then(|| seen.iter().sum::<i64>() / seen.len() as i64)
                    }
                    other => panic!("{other}"),
                }
            }
            OverCall::Rank(RankFunction::RowNumber) => Some(row as i64 + 1),
            OverCall::Rank(RankFunction::Rank) => {
                Some((0..=row).find(|other| is_peer(*other, row)).unwrap() as i64 + 1)
            }
            OverCall::Rank(RankFunction::DenseRank) => {
                Some((0..=row).filter(|other| *other == 0 || !is_peer(other - 1, *other)).count() as i64)
            }
            OverCall::Lag { offset, default, .. } => match usize::try_from(row as i64 - offset) {
                Ok(other) if other < rows.len() => rows[other].2,
                _ => default.map(|_| rows[row].3),
            },
        }
    };
    let all = |row: usize| (rows[row], over.calls.iter().map(|c| call(c, row)).collect());
    (0..rows.len()).map(all).collect()
}

/// The results of all rows, sorted.
fn expected(over: &OverAggregate, rows: &[Row]) -> Vec<Given> {
    let partitions: BTreeSet<i64> = rows.iter().map(|row| row.0).collect();
    let mut all = Vec::new();
    for partition in partitions {
        let mut of_partition: Vec<Row> = rows.iter().filter(|row| row.0 == partition).copied().collect();
        // Rows that are equal in the order are put in order by their other columns.
        of_partition.sort_by_key(|row| (order_of(row, &over.order), *row));
        all.extend(results(over, &of_partition, true));
    }
    all.sort();
    all
}

fn random_calls(random: &mut SmallRng, leads: bool) -> Vec<OverCall> {
    let names = ["sum", "count", "min", "avg"];
    let mut calls: Vec<OverCall> =
        (0..random.random_range(1..3)).map(|_| aggregate(names[random.random_range(0..4)], 2)).collect();
    if random.random_bool(0.4) {
        let offset = if leads { random.random_range(-2..4) } else { random.random_range(0..4) };
        calls.push(OverCall::Lag { column: 2, offset, default: random.random_bool(0.5).then_some(3) });
    }
    if random.random_bool(0.3) {
        let functions = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank];
        calls.push(OverCall::Rank(functions[random.random_range(0..3)]));
    }
    calls
}

fn random_frame(random: &mut SmallRng) -> Frame {
    match random.random_range(0..4) {
        0 => Frame::Rows { preceding: None },
        1 => Frame::Rows { preceding: Some(random.random_range(0..6)) },
        2 => Frame::Range { preceding: None },
        _ => Frame::Range { preceding: Some(random.random_range(0..30)) },
    }
}

#[test]
fn over_changes_the_results_are_those_of_the_rows_that_are_left() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let frame = random_frame(&mut random);
        let mut order = vec![key([1, 2][random.random_range(0..2)], random.random())];
        if !matches!(frame, Frame::Range { preceding: Some(_) }) && random.random_bool(0.5) {
            order.push(key(3, false));
        }
        let over = over(OverOrder::Updating, order, frame, random_calls(&mut random, true));
        let (context, late) = (EvalContext::default(), Arc::new(AtomicU64::new(0)));
        let mut operator = start(&over, &context, &late);
        let mut checkpoints = Checkpoints::default();
        let (mut rows, mut table) = (Vec::<Row>::new(), BTreeMap::<Given, usize>::new());
        for _ in 0..random.random_range(1..25) {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(1..15) {
                if !rows.is_empty() && random.random_bool(0.4) {
                    changes.push((rows.swap_remove(random.random_range(0..rows.len())), ChangeKind::UpdateBefore));
                } else {
                    let value = (!random.random_bool(0.2)).then(|| random.random_range(-20..20));
                    let row = (random.random_range(0..3), random.random_range(0..60), value, random.random_range(0..9));
                    rows.push(row);
                    changes.push((row, ChangeKind::Insert));
                }
            }
            let mut out = Collector::default();
            operator.process(0, batch(&changes), &mut out).unwrap();
            for (row, kind) in given(out) {
                let count = table.entry(row.clone()).or_default();
                *count = if kind.is_addition() {
                    *count + 1
                } else {
                    count
                        .checked_sub(1)
                        .unwrap_or_else(|| panic!("seed {seed}: {kind:?} of {row:?}, which is not there"))
                };
            }
            table.retain(|_, count| *count > 0);
            let folded: Vec<Given> =
                table.iter().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), *count)).collect();
            assert_eq!(folded, expected(&over, &rows), "seed {seed}: {over:?}");
            if random.random_bool(0.3) {
                checkpoints.take(operator.as_mut());
                if random.random_bool(0.5) {
                    operator = start(&over, &context, &late);
                    checkpoints.restore(operator.as_mut());
                }
            }
        }
    }
}

fn advance(operator: &mut dyn Operator, watermark: i64) -> Vec<Given> {
    let mut out = Collector::default();
    while operator.on_watermark(Timestamp(watermark), &mut out).unwrap() == Release::Continue {}
    given(out)
        .into_iter()
        .map(|(row, kind)| {
            assert_eq!(kind, ChangeKind::Insert);
            row
        })
        .collect()
}

#[test]
fn by_event_time_each_row_is_given_once_when_the_watermark_passes_it() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut order = vec![key(1, false)];
        let frame = random_frame(&mut random);
        if !matches!(frame, Frame::Range { preceding: Some(_) }) && random.random_bool(0.3) {
            order.push(key(2, true));
        }
        let over = over(OverOrder::EventTime(1), order, frame, random_calls(&mut random, false));
        let (context, late) = (EvalContext::default(), Arc::new(AtomicU64::new(0)));
        let mut operator = start(&over, &context, &late);
        let mut checkpoints = Checkpoints::default();
        let (mut rows, mut all, mut dropped) = (Vec::<Row>::new(), Vec::<Given>::new(), 0);
        let mut watermark = i64::MIN;
        for round in 0..30_i64 {
            let mut fresh = Vec::new();
            for _ in 0..random.random_range(0..15) {
                let value = (!random.random_bool(0.2)).then(|| random.random_range(-20..20));
                let time = round * 5 + random.random_range(-4..20);
                fresh.push((random.random_range(0..3), time, value, random.random_range(0..9)));
            }
            if !fresh.is_empty() {
                let changes: Vec<_> = fresh.iter().map(|row| (*row, ChangeKind::Insert)).collect();
                operator.process(0, batch(&changes), &mut Collector::default()).unwrap();
            }
            dropped += fresh.iter().filter(|row| row.1 <= watermark).count();
            rows.extend(fresh.into_iter().filter(|row| row.1 > watermark));
            if random.random_bool(0.6) {
                watermark = round * 5;
                let given = advance(operator.as_mut(), watermark);
                assert!(given.iter().all(|(row, _)| row.1 <= watermark));
                all.extend(given);
            }
            if random.random_bool(0.3) {
                checkpoints.take(operator.as_mut());
                if random.random_bool(0.5) {
                    operator = start(&over, &context, &late);
                    checkpoints.restore(operator.as_mut());
                }
            }
        }
        all.extend(advance(operator.as_mut(), i64::MAX));
        all.sort();
        assert_eq!(all, expected(&over, &rows), "seed {seed}: {over:?}");
        assert_eq!(late.load(Atomic::Relaxed), dropped as u64, "seed {seed}");
    }
}

#[test]
fn by_processing_time_each_row_sees_those_that_came_before_it() {
    for seed in 0..100 {
        let mut random = SmallRng::seed_from_u64(seed);
        let frame = random_frame(&mut random);
        let over = over(OverOrder::ProcessingTime, vec![key(1, false)], frame, random_calls(&mut random, false));
        let (context, late) = (EvalContext::default(), Arc::new(AtomicU64::new(0)));
        let mut operator = start(&over, &context, &late);
        let mut checkpoints = Checkpoints::default();
        let (mut rows, mut all) = (Vec::<Row>::new(), Vec::<Given>::new());
        for epoch in 0..20_i64 {
            // The clock stands still within an epoch.
            let now = epoch * 10;
            context.set_now_ms(now);
            for _ in 0..random.random_range(0..4) {
                let value = |random: &mut SmallRng| (!random.random_bool(0.2)).then(|| random.random_range(-20..20));
                let fresh: Vec<Row> = (0..random.random_range(1..6))
                    .map(|_| (random.random_range(0..3), now, value(&mut random), random.random_range(0..9)))
                    .collect();
                let changes: Vec<_> = fresh.iter().map(|row| (*row, ChangeKind::Insert)).collect();
                let mut out = Collector::default();
                operator.process(0, batch(&changes), &mut out).unwrap();
                all.extend(given(out).into_iter().map(|(row, _)| row));
                rows.extend(fresh);
            }
            checkpoints.take(operator.as_mut());
            if random.random_bool(0.4) {
                operator = start(&over, &context, &late);
                checkpoints.restore(operator.as_mut());
            }
        }
        let mut expected = Vec::new();
        for partition in 0..3 {
            let of_partition: Vec<Row> = rows.iter().filter(|row| row.0 == partition).copied().collect();
            expected.extend(results(&over, &of_partition, false));
        }
        expected.sort();
        all.sort();
        assert_eq!(all, expected, "seed {seed}: {over:?}");
    }
}

#[test]
fn state_of_bounded_frames_stays_small_over_a_long_time() {
    let frames = [Frame::Range { preceding: Some(50) }, Frame::Rows { preceding: Some(3) }];
    for frame in frames {
        let over = over(OverOrder::EventTime(1), vec![key(1, false)], frame, vec![aggregate("sum", 2)]);
        let mut operator = start(&over, &EvalContext::default(), &Arc::new(AtomicU64::new(0)));
        let mut checkpoints = Checkpoints::default();
        // Partitions that never come back are let go of too where the frame is one of time.
        let partition = |round: i64| if matches!(frame, Frame::Rows { .. }) { round % 10 } else { round };
        for round in 0..2_000_i64 {
            let row = |n: i64| ((partition(round), round * 10 + n, Some(n), n), ChangeKind::Insert);
            let rows: Vec<_> = (0..10).map(row).collect();
            operator.process(0, batch(&rows), &mut Collector::default()).unwrap();
            assert_eq!(advance(operator.as_mut(), round * 10 + 9).len(), 10);
            assert!(checkpoints.take(operator.as_mut()) <= 100);
            assert!(checkpoints.rows() <= 32 * 10 + 100, "{} rows in the files", checkpoints.rows());
        }
    }
}

#[test]
fn partitions_are_forgotten_after_their_time_to_live() {
    for by in [OverOrder::EventTime(1), OverOrder::ProcessingTime, OverOrder::Updating] {
        let frame = Frame::Rows { preceding: None };
        let mut over = over(by, vec![key(1, false)], frame, vec![aggregate("count", 3)]);
        over.ttl_ms = Some(100);
        let (context, late) = (EvalContext::default(), Arc::new(AtomicU64::new(0)));
        let mut operator = start(&over, &context, &late);
        let mut checkpoints = Checkpoints::default();
        let mut step = |now: i64, partition: i64| {
            context.set_now_ms(now);
            let mut out = Collector::default();
            let row = ((partition, now, Some(1), 0), ChangeKind::Insert);
            operator.process(0, batch(&[row]), &mut out).unwrap();
            let mut given: Vec<_> = given(out).into_iter().map(|(row, _)| row.1[0].unwrap()).collect();
            given.extend(advance(operator.as_mut(), now).into_iter().map(|(_, results)| results[0].unwrap()));
            checkpoints.take(operator.as_mut());
            operator = start(&over, &context, &late);
            checkpoints.restore(operator.as_mut());
            given
        };
        assert_eq!(step(1_000, 1), [1], "{by:?}");
        assert_eq!(step(1_010, 2), [1]);
        assert_eq!(step(1_090, 1), [2]);
        // The second partition is forgotten at the end of this epoch.
        assert_eq!(step(1_110, 3), [1]);
        assert_eq!(step(1_120, 2), [1], "{by:?}");
        assert_eq!(step(1_130, 1), [3]);
    }
}
