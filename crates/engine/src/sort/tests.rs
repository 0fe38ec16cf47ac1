//! Tests of sort: random input, cut and restored anywhere, against a naive computation.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, Int8Array, TimestampMillisecondArray};
use arrow::datatypes::{TimeUnit, TimestampMillisecondType};
use mainstem_core::change::ChangeKind;
use mainstem_plan::operator::SortKey;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::checkpointing::Checkpoints;
use crate::late::LateRows;

/// Time, number.
type Row = (i64, Option<i64>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn start(spec: &Spec, late: &Arc<AtomicU64>) -> Sort {
    let late = LateRows::new("sort", late.clone(), false);
    Sort::new("sort", spec, schema(), DroppedRows { late, unmatched: Arc::default() }).unwrap()
}

fn batch(rows: &[(Row, ChangeKind)]) -> StreamBatch {
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(rows.iter().map(|(row, _)| Some(row.0)).collect::<TimestampMillisecondArray>()),
        Arc::new(rows.iter().map(|(row, _)| row.1).collect::<Int64Array>()),
    ];
    let kinds = Int8Array::from_iter_values(rows.iter().map(|(_, kind)| *kind as i8));
    StreamBatch::changelog(RecordBatch::try_new(schema(), columns).unwrap(), kinds)
}

fn advance(operator: &mut Sort, watermark: Timestamp) -> Vec<Row> {
    let mut out = Collector::default();
    while operator.on_watermark(watermark, &mut out).unwrap() == Release::Continue {}
    let rows = out.main.iter().flat_map(|batch| {
        assert!(batch.changes.is_none());
        let times = batch.rows.column(0).as_primitive::<TimestampMillisecondType>().clone();
        let numbers = batch.rows.column(1).as_primitive::<Int64Type>().clone();
        (0..times.len()).map(move |row| (times.value(row), numbers.is_valid(row).then(|| numbers.value(row))))
    });
    rows.collect()
}

fn key(column: usize, descending: bool) -> SortKey {
    SortKey { column, descending, nulls_first: true }
}

#[test]
fn rows_leave_in_order_when_the_input_ends() {
    for seed in 0..100 {
        let mut random = SmallRng::seed_from_u64(seed);
        let order = vec![key(1, random.random()), key(0, false)];
        let spec = Spec {
            order,
            by_event_time: false,
            input_retracts: random.random(),
            offset: [0, 0, 3][random.random_range(0..3)],
            limit: [None, Some(1), Some(10), Some(1_000)][random.random_range(0..4)],
        };
        let late = Arc::new(AtomicU64::new(0));
        let (mut operator, mut checkpoints, mut rows) = (start(&spec, &late), Checkpoints::default(), Vec::new());
        for _ in 0..random.random_range(0..20) {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(1..20) {
                if spec.input_retracts && !rows.is_empty() && random.random_bool(0.4) {
                    changes.push((rows.swap_remove(random.random_range(0..rows.len())), ChangeKind::Delete));
                } else {
                    let row =
                        (random.random_range(0..9), (!random.random_bool(0.1)).then(|| random.random_range(0..30)));
                    rows.push(row);
                    changes.push((row, ChangeKind::Insert));
                }
            }
            operator.process(0, batch(&changes), &mut Collector::default()).unwrap();
            assert_eq!(advance(&mut operator, Timestamp(5)), []);
            checkpoints.take(&mut operator);
            if random.random_bool(0.3) {
                operator = start(&spec, &late);
                checkpoints.restore(&mut operator);
            }
        }
        rows.sort_by_key(|(time, number)| {
            let number_key = if spec.order[0].descending { number.map(|number| -number) } else { *number };
            (number_key, *time)
        });
        let expected = rows.into_iter().skip(spec.offset as usize);
        let expected: Vec<Row> = expected.take(spec.limit.map_or(usize::MAX, |limit| limit as usize)).collect();
        assert_eq!(advance(&mut operator, Timestamp::MAX), expected, "seed {seed}: {spec:?}");
        checkpoints.take(&mut operator);
        operator = start(&spec, &late);
        checkpoints.restore(&mut operator);
        assert_eq!(advance(&mut operator, Timestamp::MAX), [], "seed {seed}: given twice");
    }
}

#[test]
fn by_event_time_rows_leave_when_the_watermark_passes_them() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let limit = [None, Some(25)][random.random_range(0..2)];
        let order = vec![key(0, false), key(1, true)];
        let spec = Spec { order, by_event_time: true, input_retracts: false, offset: random.random_range(0..3), limit };
        let late = Arc::new(AtomicU64::new(0));
        let (mut operator, mut checkpoints) = (start(&spec, &late), Checkpoints::default());
        let (mut rows, mut given, mut dropped, mut watermark) = (Vec::new(), Vec::new(), 0, i64::MIN);
        for round in 0..30_i64 {
            let fresh: Vec<Row> = (0..random.random_range(0..6))
                .map(|_| (round * 5 + random.random_range(-4..20), Some(random.random_range(0..5))))
                .collect();
            if !fresh.is_empty() {
                let changes: Vec<_> = fresh.iter().map(|row| (*row, ChangeKind::Insert)).collect();
                operator.process(0, batch(&changes), &mut Collector::default()).unwrap();
            }
            dropped += fresh.iter().filter(|row| row.0 <= watermark).count();
            rows.extend(fresh.into_iter().filter(|row| row.0 > watermark));
            if random.random_bool(0.7) {
                watermark = round * 5;
                given.extend(advance(&mut operator, Timestamp(watermark)));
            }
            checkpoints.take(&mut operator);
            if random.random_bool(0.3) {
                operator = start(&spec, &late);
                checkpoints.restore(&mut operator);
            }
        }
        given.extend(advance(&mut operator, Timestamp::MAX));
        rows.sort_by_key(|(time, number)| (*time, number.map(|number| -number)));
        let expected = rows.into_iter().skip(spec.offset as usize);
        let expected: Vec<Row> = expected.take(limit.map_or(usize::MAX, |limit| limit as usize)).collect();
        assert_eq!(given, expected, "seed {seed}");
        assert_eq!(late.load(Ordering::Relaxed), dropped as u64);
        assert!(checkpoints.rows() <= 32 * 6 * 4);
    }
}
