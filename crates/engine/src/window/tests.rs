//! Both steps of a windowed aggregation over random rows, late ones among them, with watermarks, checkpoints and restores
//! at random points: each window must come once, with what a plain reading of its rows gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use mainstem_core::time::Timestamp;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{NamedExpr, SLICE_COLUMNS, WindowAggregate, WindowKind, WindowProperty};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::checkpointing::Checkpoints;
use crate::element::StreamBatch;
use crate::late::LateRows;
use crate::operator::{Collector, Operator, Release};

/// End and start of a window, key.
type Group = (i64, i64, Option<i64>);
/// COUNT(*), SUM, MAX; COUNT(DISTINCT) and ARRAY_AGG in order, where they are asked for.
type Results = (i64, i64, i64, Option<(i64, Vec<i64>)>);

const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect::<Vec<_>>()))
}

/// `collects`: with aggregates that keep values, for which windows are merged in another way.
fn spec(window: WindowKind, keyed: bool, collects: bool) -> WindowAggregate {
    let call = |function: &str, args: Vec<Expr>, distinct: bool| AggregateCall {
        name: format!("{function} {distinct}"),
        function: function.to_owned(),
        args,
        filter: None,
        distinct,
        order_by: vec![],
        ignore_nulls: false,
    };
    let value = || vec![Expr::Column(2)];
    let mut aggregates = vec![
        call("count", vec![Expr::literal(1_i64)], false),
        call("sum", value(), false),
        call("max", value(), false),
    ];
    if collects {
        aggregates.extend([call("count", value(), true), call("array_agg", value(), false)]);
    }
    WindowAggregate {
        window,
        time: 0,
        processing_time: false,
        keys: if keyed { vec![NamedExpr { name: "k".into(), expr: Expr::Column(1) }] } else { vec![] },
        aggregates,
        properties: vec![("start".into(), WindowProperty::Start), ("end".into(), WindowProperty::End)],
        input_schema: schema(&[("ts", TIME), ("k", DataType::Int64), ("v", DataType::Int64)]),
        late_output: false,
    }
}

fn key_fields(spec: &WindowAggregate) -> Vec<Field> {
    spec.keys.iter().map(|key| Field::new(&key.name, DataType::Int64, true)).collect()
}

fn aggregation(spec: &WindowAggregate) -> Arc<Aggregation> {
    let mut fields = key_fields(spec);
    let types = [DataType::Int64, DataType::Int64, DataType::Boolean];
    fields.extend(SLICE_COLUMNS.iter().zip(types).map(|(name, of)| Field::new(*name, of, false)));
    for call in &spec.aggregates {
        let compiled = call.compile(&spec.input_schema, &EvalContext::default()).unwrap();
        fields.extend(compiled.state_fields().unwrap().iter().map(|field| field.as_ref().clone()));
    }
    let partial = Arc::new(Schema::new(fields));
    Arc::new(Aggregation::new("window", spec, partial, &EvalContext::default()).unwrap())
}

fn last_step(spec: &WindowAggregate) -> FinalAggregate {
    let mut fields = key_fields(spec);
    for call in &spec.aggregates {
        let compiled = call.compile(&spec.input_schema, &EvalContext::default()).unwrap();
        fields.push(compiled.output_field().as_ref().clone());
    }
    fields.extend(spec.properties.iter().map(|(name, _)| Field::new(name, TIME, false)));
    let properties = spec.properties.iter().map(|(_, property)| *property).collect();
    let output = WindowOutput { schema: Arc::new(Schema::new(fields)), properties };
    FinalAggregate::new(aggregation(spec), Slicing::of(&spec.window).unwrap(), output)
}

fn first_step(spec: &WindowAggregate) -> PartialAggregate {
    let late = LateRows::new("window", Arc::default(), false);
    PartialAggregate::new(aggregation(spec), Slicing::of(&spec.window).unwrap(), spec.window.clone(), 0, late)
}

/// What has been given out.
fn collect(out: Collector, spec: &WindowAggregate, given: &mut BTreeMap<Group, Results>) {
    let (keys, calls) = (spec.keys.len(), spec.aggregates.len());
    for batch in out.main {
        let value = |column: usize, row: usize| batch.rows.column(keys + column).as_primitive::<Int64Type>().value(row);
        let time = |column: usize, row: usize| {
            batch.rows.column(keys + calls + column).as_primitive::<TimestampMillisecondType>().value(row)
        };
        for row in 0..batch.rows.num_rows() {
            let key = (keys > 0).then(|| batch.rows.column(0).as_primitive::<Int64Type>());
            let key = key.and_then(|keys| keys.is_valid(row).then(|| keys.value(row)));
            let collected = (calls > 3).then(|| {
                let list = batch.rows.column(keys + 4).as_list::<i32>().value(row);
                let mut list = list.as_primitive::<Int64Type>().values().to_vec();
                list.sort_unstable();
                (value(3, row), list)
            });
            let results = (value(0, row), value(1, row), value(2, row), collected);
            let group = (time(1, row), time(0, row), key);
            assert_eq!(given.insert(group, results), None, "{group:?} came twice");
        }
    }
}

fn results(mut values: Vec<i64>, spec: &WindowAggregate) -> Results {
    values.sort_unstable();
    let (rows, sum, most) = (values.len() as i64, values.iter().sum(), *values.last().unwrap());
    let distinct: BTreeSet<i64> = values.iter().copied().collect();
    (rows, sum, most, (spec.aggregates.len() > 3).then_some((distinct.len() as i64, values)))
}

struct Run {
    spec: WindowAggregate,
    first: PartialAggregate,
    last: FinalAggregate,
    checkpoints: Checkpoints,
    given: BTreeMap<Group, Results>,
    expected: BTreeMap<Group, Vec<i64>>,
    /// The watermark.
    now: i64,
}

impl Run {
    fn keyed(&self) -> bool {
        !self.spec.keys.is_empty()
    }

    fn pass_on(&mut self, out: Collector) {
        for batch in out.main {
            self.last.process(0, batch, &mut Collector::default()).unwrap();
        }
    }

    fn rows(&mut self, random: &mut SmallRng, keys: i64, rows: usize) {
        let own = self.now + random.random_range(0..20);
        let from = if random.random_bool(0.3) { own - 60 } else { own + 1 };
        let times: Vec<i64> = (0..rows).map(|_| random.random_range(from..own + 40)).collect();
        let key = |random: &mut SmallRng| random.random_bool(0.95).then(|| random.random_range(0..keys));
        let keys: Vec<Option<i64>> = times.iter().map(|_| key(random)).collect();
        let values: Vec<i64> = times.iter().map(|_| random.random_range(0..10)).collect();
        let slicing = Slicing::of(&self.spec.window).unwrap();
        for ((time, key), value) in times.iter().zip(&keys).zip(&values) {
            for window in slicing.windows_of(slicing.slice_of(*time)).filter(|window| !window.is_closed_at(own)) {
                let key = key.filter(|_| self.keyed());
                self.expected.entry((window.end, window.start, key)).or_default().push(*value);
            }
        }
        let late = times.iter().any(|time| *time <= own);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(times)),
            Arc::new(Int64Array::from(keys)),
            Arc::new(Int64Array::from(values)),
        ];
        let mut batch = StreamBatch::on_time(RecordBatch::try_new(self.spec.input_schema.clone(), columns).unwrap());
        batch.own_watermark = late.then(|| Int64Array::from_value(own, rows));
        let mut out = Collector::default();
        self.first.process(0, batch, &mut out).unwrap();
        self.pass_on(out);
        while self.first.has_more() {
            let mut out = Collector::default();
            self.first.go_on(&mut out).unwrap();
            self.pass_on(out);
        }
    }

    fn watermark(&mut self, watermark: i64) {
        self.now = watermark;
        let mut out = Collector::default();
        assert_eq!(self.first.on_watermark(Timestamp(watermark), &mut out).unwrap(), Release::Done);
        self.pass_on(out);
        loop {
            let mut out = Collector::default();
            let release = self.last.on_watermark(Timestamp(watermark), &mut out).unwrap();
            collect(out, &self.spec, &mut self.given);
            if release == Release::Done {
                return;
            }
        }
    }

    fn barrier(&mut self, crash: bool) {
        let mut out = Collector::default();
        self.first.flush_held(&mut out).unwrap();
        self.pass_on(out);
        self.checkpoints.take(&mut self.last);
        if crash {
            self.first = first_step(&self.spec);
            self.last = last_step(&self.spec);
            self.checkpoints.restore(&mut self.last);
        }
    }
}

fn check(window: &WindowKind, keys: Option<i64>, rows_max: usize, collects: bool, seed: u64) {
    let spec = spec(window.clone(), keys.is_some(), collects);
    let mut random = SmallRng::seed_from_u64(seed);
    let (first, last) = (first_step(&spec), last_step(&spec));
    let (given, expected) = (BTreeMap::new(), BTreeMap::new());
    let mut run = Run { spec, first, last, checkpoints: Checkpoints::default(), given, expected, now: -500 };
    for _ in 0..50 {
        match random.random_range(0..10) {
            0..6 => {
                let rows = random.random_range(1..=rows_max);
                run.rows(&mut random, keys.unwrap_or(1), rows);
            }
            // Now and then far enough for all windows to close, and for blocks to be left out.
            6..8 => run.watermark(run.now + random.random_range(1..15)),
            8 => run.watermark(run.now + random.random_range(1..400)),
            _ => run.barrier(random.random_bool(0.5)),
        }
    }
    run.watermark(i64::MAX);
    let expected: BTreeMap<Group, Results> =
        run.expected.into_iter().map(|(group, values)| (group, results(values, &run.spec))).collect();
    for (group, wanted) in &expected {
        assert_eq!(run.given.get(group), Some(wanted), "{window:?} {keys:?} seed {seed}: {group:?}");
    }
    assert_eq!(run.given.len(), expected.len(), "{window:?} {keys:?} seed {seed}: windows without rows");
    let capture = run.last.capture(mainstem_core::ids::Epoch(1000)).unwrap().unwrap();
    assert_eq!((capture.live_rows, capture.retained.len()), (0, 0), "state is left when all windows are closed");
}

/// More of them with `MAINSTEM_CASES=n`.
#[test]
fn windows_are_what_a_plain_reading_of_their_rows_gives() {
    let windows = [
        WindowKind::Tumble { size_ms: 20, offset_ms: 0 },
        WindowKind::Hop { slide_ms: 10, size_ms: 20, offset_ms: 3 },
        WindowKind::Hop { slide_ms: 5, size_ms: 50, offset_ms: 0 },
        WindowKind::Hop { slide_ms: 1, size_ms: 100, offset_ms: -7 },
        WindowKind::Cumulate { step_ms: 4, size_ms: 40, offset_ms: 1 },
    ];
    let cases = std::env::var("MAINSTEM_CASES").map_or(1, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        for window in &windows {
            for (keys, rows_max) in [(None, 30), (Some(3), 10), (Some(40), 30)] {
                check(window, keys, rows_max, false, seed);
            }
            check(window, Some(30), 20, true, seed);
        }
        // Groups for more than one batch.
        check(&windows[2], Some(2000), 100, false, seed);
    }
}

/// What a late row makes leaves in pieces, and all of it.
#[test]
fn a_late_row_of_very_many_windows_is_added_piece_by_piece() {
    let spec = spec(WindowKind::Hop { slide_ms: 1, size_ms: 100_000, offset_ms: 0 }, true, false);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![5, 50, 7])),
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(Int64Array::from(vec![1, 1, 1])),
    ];
    let own_watermark = Some(Int64Array::from_value(20, 3));
    let rows = RecordBatch::try_new(spec.input_schema.clone(), columns).unwrap();
    let mut first = first_step(&spec);
    let mut out = Collector::default();
    first.process(0, StreamBatch { own_watermark, ..StreamBatch::on_time(rows) }, &mut out).unwrap();
    let mut pieces = vec![out];
    while first.has_more() {
        let mut out = Collector::default();
        first.go_on(&mut out).unwrap();
        pieces.push(out);
    }
    let mut out = Collector::default();
    first.flush_held(&mut out).unwrap();
    pieces.push(out);
    let rows_of = |out: &Collector| out.main.iter().map(|batch| batch.rows.num_rows()).sum::<usize>();
    let largest = pieces.iter().map(rows_of).max().unwrap();
    assert!(largest < 1 << 17, "{largest} rows at once");
    // Windows that hold 5 or 7 and end behind 21; the row that is on time goes into its slice.
    let open = (22..=100_005).count() + (22..=100_007).count();
    assert_eq!(pieces.iter().map(rows_of).sum::<usize>(), open + 1);
}
