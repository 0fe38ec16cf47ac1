//! Operators in parts against the same operators whole: random rows, watermarks and epochs, with parts put aside and cut
//! at random moments, and with stops and starts at other parallelisms. Each epoch must give the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int8Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::ids::{Generation, JobId, OperatorId};
use mainstem_core::key_group::owner;
use mainstem_core::protocol::OperatorSnapshot;
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::eval::EvalContext;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator as plan;
use mainstem_plan::operator::{JoinKind, OperatorKind};
use mainstem_state::CheckpointStore;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::aggregate::GroupAggregate;
use crate::budget::MemoryBudget;
use crate::deploy::files_of;
use crate::join::{IntervalJoin, RegularJoin, SetOperation};
use crate::late::{DroppedRows, LateRows};
use crate::operator::process_whole;
use crate::window::{Aggregation, FinalAggregate, Slicing, WindowOutput};

mod figures;

const KEY_GROUPS: u16 = 16;
const WINDOW_MS: i64 = 100;
const TTL_MS: u64 = 100;

type Make = Arc<dyn Fn() -> Box<dyn Operator> + Send + Sync>;
/// What an epoch gives: how often each row comes, less how often it goes.
type Net = BTreeMap<String, i64>;

/// An operator and the rows that it takes.
struct Subject {
    make: Make,
    /// Where it has the time from.
    context: EvalContext,
    /// Columns by which its rows are partitioned.
    keys: Vec<usize>,
    /// Whether it forgets what has not changed for [`TTL_MS`].
    forgets: bool,
    /// Whether it does not keep its rows but what they add up to.
    adds_up: bool,
    inputs: usize,
    /// Whether rows go, too.
    retracts: bool,
    /// Whether it takes partial aggregates of windows.
    partials: bool,
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

fn schema() -> SchemaRef {
    let columns = [("k", DataType::Int64), ("t", time()), ("v", DataType::Int64)];
    Arc::new(Schema::new(columns.map(|(name, of)| Field::new(name, of, true)).to_vec()))
}

fn with(schema: &SchemaRef, more: &[(&str, DataType)]) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let more = more.iter().map(|(name, of)| Field::new(*name, of.clone(), true));
    Arc::new(Schema::new(fields.chain(more).collect::<Vec<_>>()))
}

fn call(function: &str, arg: Expr) -> AggregateCall {
    let name = function.to_owned();
    AggregateCall {
        function: name.clone(),
        name,
        args: vec![arg],
        filter: None,
        distinct: false,
        order_by: vec![],
        ignore_nulls: false,
    }
}

fn dropped() -> DroppedRows {
    DroppedRows { late: LateRows::new("test", Arc::default(), false), unmatched: Arc::default() }
}

impl Subject {
    /// Of an operator that takes rows that only come, at one input, and forgets nothing.
    fn new(make: impl Fn(&EvalContext) -> Box<dyn Operator> + Send + Sync + 'static) -> Subject {
        let context = EvalContext::default();
        let of = context.clone();
        let make = Arc::new(move || make(&of));
        Subject {
            make,
            context,
            keys: vec![0],
            forgets: false,
            adds_up: false,
            inputs: 1,
            retracts: false,
            partials: false,
        }
    }
}

fn aggregate(ttl_ms: Option<u64>) -> Subject {
    let spec = plan::GroupAggregate {
        keys: vec![0],
        aggregates: vec![call("count", Expr::Column(2)), call("sum", Expr::Column(2)), call("max", Expr::Column(2))],
        input_schema: schema(),
        input_retracts: true,
        ttl_ms,
        mini_batch_ms: Some(1000),
        mini_batch_rows: None,
        merges_partials: false,
    };
    let more = [DataType::Int64, DataType::Int64, DataType::Int64, DataType::Int64];
    let names = ["k", "count", "sum", "max"];
    let output = with(&Arc::new(Schema::empty()), &names.into_iter().zip(more).collect::<Vec<_>>());
    let subject = Subject::new(move |context| {
        let changes = ChangeMode::Retract;
        let made = GroupAggregate::new("count", &spec, output.clone(), changes, context, Arc::default());
        Box::new(made.unwrap())
    });
    Subject { retracts: true, forgets: ttl_ms.is_some(), adds_up: true, ..subject }
}

fn windows() -> Subject {
    let spec = plan::WindowAggregate {
        window: plan::WindowKind::Tumble { size_ms: WINDOW_MS, offset_ms: 0 },
        time: 1,
        processing_time: false,
        keys: vec![plan::NamedExpr { name: "k".to_owned(), expr: Expr::Column(0) }],
        aggregates: vec![call("count", Expr::literal(1_i64))],
        properties: vec![("end".to_owned(), plan::WindowProperty::End)],
        input_schema: schema(),
        late_output: false,
    };
    let subject = Subject::new(move |context| {
        let aggregation = Aggregation::new("windows", &spec, partial_schema(), context).unwrap();
        let columns = [("k", DataType::Int64), ("count", DataType::Int64), ("end", time())];
        let output = with(&Arc::new(Schema::empty()), &columns);
        let output = WindowOutput { schema: output, properties: vec![plan::WindowProperty::End] };
        Box::new(FinalAggregate::new(Arc::new(aggregation), Slicing::of(&spec.window).unwrap(), output))
    });
    Subject { partials: true, ..subject }
}

fn partial_schema() -> SchemaRef {
    let [start, end, one] = plan::SLICE_COLUMNS;
    let columns = [(start, DataType::Int64), (end, DataType::Int64), (one, DataType::Boolean), ("n", DataType::Int64)];
    with(&Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)])), &columns)
}

fn on() -> plan::JoinOn {
    plan::JoinOn {
        left_keys: vec![0],
        right_keys: vec![0],
        null_equal: vec![false],
        condition: None,
        left_schema: schema(),
        right_schema: schema(),
    }
}

fn joined() -> SchemaRef {
    with(&schema(), &[("k2", DataType::Int64), ("t2", time()), ("v2", DataType::Int64)])
}

fn join(ttl_ms: Option<u64>) -> Subject {
    let (left_unique, right_unique, left_ttl_ms, right_ttl_ms) = (None, None, ttl_ms, ttl_ms);
    let spec = plan::Join { kind: JoinKind::Left, on: on(), left_unique, right_unique, left_ttl_ms, right_ttl_ms };
    let subject =
        Subject::new(move |context| Box::new(RegularJoin::new("join", &spec, [true; 2], joined(), context).unwrap()));
    Subject { inputs: 2, retracts: true, forgets: ttl_ms.is_some(), ..subject }
}

fn interval() -> Subject {
    let (left_time, right_time, lower_ms, upper_ms) = (1, 1, -50, 100);
    let spec = plan::IntervalJoin { kind: JoinKind::Left, on: on(), left_time, right_time, lower_ms, upper_ms };
    let subject = Subject::new(move |context| {
        let late = LateRows::new("interval", Arc::default(), false);
        Box::new(IntervalJoin::new("interval", &spec, joined(), late, context).unwrap())
    });
    Subject { inputs: 2, ..subject }
}

fn key(column: usize) -> plan::SortKey {
    plan::SortKey { column, descending: false, nulls_first: true }
}

/// The best three rows of each key; `input_retracts`: of rows that also go, so that all are kept.
fn rank(input_retracts: bool, ttl_ms: Option<u64>) -> Subject {
    ranked_by(vec![plan::SortKey { descending: true, ..key(2) }], input_retracts, ttl_ms)
}

/// The first three rows of each key.
fn first(ttl_ms: Option<u64>) -> Subject {
    ranked_by(vec![], false, ttl_ms)
}

fn except(ttl_ms: Option<u64>) -> Subject {
    let spec = plan::SetOperation { kind: plan::SetKind::Except, all: true, ttl_ms };
    let subject = Subject::new(move |context| Box::new(SetOperation::new("except", &spec, schema(), context).unwrap()));
    Subject { keys: vec![0, 1, 2], inputs: 2, retracts: true, forgets: ttl_ms.is_some(), ..subject }
}

fn ranked_by(order: Vec<plan::SortKey>, input_retracts: bool, ttl_ms: Option<u64>) -> Subject {
    let spec = plan::Rank {
        function: plan::RankFunction::RowNumber,
        partition: vec![0],
        order,
        newest_first: false,
        from: 1,
        to: 3,
        rank_column: true,
        input_schema: schema(),
        input_retracts,
        input_unique: None,
        window_end: None,
        ttl_ms,
    };
    let subject = Subject::new(move |context| {
        let mut op =
            plan::Operator::new(with(&schema(), &[("rank", DataType::Int64)]), OperatorKind::Rank(spec.clone()));
        op.changes = ChangeMode::Retract;
        crate::rank::operator("rank", &spec, &op, dropped(), context).unwrap()
    });
    Subject { retracts: input_retracts, forgets: ttl_ms.is_some(), ..subject }
}

fn over() -> Subject {
    let spec = plan::OverAggregate {
        partition: vec![0],
        order: vec![key(1), key(2)],
        by: plan::OverOrder::EventTime(1),
        frame: plan::Frame::Rows { preceding: Some(3) },
        calls: vec![plan::OverCall::Aggregate(call("sum", Expr::Column(2)))],
        input_schema: schema(),
        ttl_ms: None,
    };
    Subject::new(move |context| {
        let output = with(&schema(), &[("sum", DataType::Int64)]);
        let op = plan::Operator::new(output, OperatorKind::OverAggregate(spec.clone()));
        crate::over::operator("over", &spec, &op, dropped(), context).unwrap()
    })
}

/// Key, time, value.
type Row = (i64, i64, i64);

fn batch(subject: &Subject, rows: &[(Row, ChangeKind)]) -> StreamBatch {
    let numbers = |of: fn(&Row) -> i64| rows.iter().map(|(row, _)| of(row)).collect::<Vec<_>>();
    let keys: ArrayRef = Arc::new(Int64Array::from(numbers(|row| row.0)));
    if subject.partials {
        let start = |row: &Row| row.1.div_euclid(WINDOW_MS) * WINDOW_MS;
        let starts = rows.iter().map(|(row, _)| start(row)).collect::<Vec<_>>();
        let ends = starts.iter().map(|start| start + WINDOW_MS).collect::<Vec<_>>();
        let columns: Vec<ArrayRef> = vec![
            keys,
            Arc::new(Int64Array::from(starts)),
            Arc::new(Int64Array::from(ends)),
            Arc::new(BooleanArray::from(vec![false; rows.len()])),
            Arc::new(Int64Array::from(vec![1; rows.len()])),
        ];
        return StreamBatch::on_time(RecordBatch::try_new(partial_schema(), columns).unwrap());
    }
    let times = Arc::new(TimestampMillisecondArray::from(numbers(|row| row.1)));
    let columns = vec![keys, times, Arc::new(Int64Array::from(numbers(|row| row.2)))];
    let kinds = Int8Array::from_iter_values(rows.iter().map(|(_, kind)| *kind as i8));
    StreamBatch::changelog(RecordBatch::try_new(schema(), columns).unwrap(), kinds)
}

fn note(out: Collector, net: &mut Net) {
    assert!(out.late.is_empty());
    for batch in out.main {
        for row in 0..batch.rows.num_rows() {
            let values = batch.rows.columns().iter().map(|column| ScalarValue::try_from_array(column, row).unwrap());
            let text = values.map(|value| value.to_string()).collect::<Vec<_>>().join(",");
            *net.entry(text).or_default() += if batch.is_addition(row) { 1 } else { -1 };
        }
    }
    net.retain(|_, count| *count != 0);
}

/// The subtasks of an attempt, driven as a chain drives them.
struct Attempt {
    store: Arc<CheckpointStore>,
    budget: Arc<MemoryBudget>,
    subtasks: Vec<Parts>,
    generation: u64,
    loads: u64,
}

impl Attempt {
    async fn start(&mut self, subject: &Subject, count: u32, restore: &[OperatorSnapshot], lazily: bool) {
        self.loads += self.subtasks.iter().map(|parts| parts.loads).sum::<u64>();
        self.subtasks.clear();
        self.generation += 1;
        for index in 0..count {
            let own = KeyGroupRange::of_subtask(KEY_GROUPS, count, index);
            let files = StateFiles {
                store: self.store.clone(),
                job: JobId::new("j").unwrap(),
                generation: Generation(self.generation),
                operator: OperatorId(1),
                subtask: index,
                key_groups: KEY_GROUPS,
            };
            let metrics = Arc::new(OperatorMetrics::default());
            let make = subject.make.clone();
            let of = PartsOf {
                name: "test".to_owned(),
                keys: vec![subject.keys.clone(); subject.inputs],
                own,
                make: Box::new(move || Ok(make())),
                account: self.budget.open(&files.job, "test", true, &metrics),
                files,
                metrics,
            };
            let mut parts = Parts::new(of, self.budget.scratch()).unwrap();
            if !restore.is_empty() {
                let metas = restore.iter().filter_map(|part| part.meta.clone()).collect();
                let memory_bytes = restore.iter().map(|part| part.memory_bytes).sum();
                parts.begin(metas, files_of(restore.iter(), own), memory_bytes).await.unwrap();
                if lazily && parts.is_whole() {
                    // As if its state were large.
                    let metas = restore.iter().filter_map(|part| part.meta.clone()).collect();
                    parts.metas = metas;
                    let due = parts.template.next_due().map(|_| Timestamp::MIN);
                    parts.parts[0].content = Content::Cold { files: files_of(restore.iter(), own), due };
                    parts.cut(0, 3);
                    parts.set_routes();
                }
            }
            self.subtasks.push(parts);
        }
    }

    fn push(&mut self, keys: &[usize], input: usize, batch: &StreamBatch, net: &mut Net) {
        let keys: Vec<ArrayRef> = keys.iter().map(|key| batch.rows.column(*key).clone()).collect();
        let hashes = hash_rows(&keys, batch.rows.num_rows()).unwrap();
        let count = self.subtasks.len() as u32;
        for (index, parts) in self.subtasks.iter_mut().enumerate() {
            let mine = |row: &u32| {
                owner(group_of_hash(hashes[*row as usize], KEY_GROUPS), KEY_GROUPS, count) as usize == index
            };
            let mine: Vec<u32> = (0..hashes.len() as u32).filter(mine).collect();
            if mine.is_empty() {
                continue;
            }
            note(process_whole(parts, input, batch.take(&UInt32Array::from(mine)).unwrap()), net);
        }
    }

    async fn relieve(&mut self, net: &mut Net) {
        for parts in &mut self.subtasks {
            while let Some(out) = parts.relieve().await.unwrap() {
                note(out, net);
            }
            if let Some(watermark) = parts.take_pending() {
                release(parts, watermark, net);
            }
        }
    }

    /// Puts some part aside and may cut it.
    async fn put_aside(&mut self, random: &mut SmallRng, net: &mut Net) {
        let at = random.random_range(0..self.subtasks.len());
        let parts = &mut self.subtasks[at];
        let hot: Vec<usize> = (0..parts.parts.len()).filter(|at| parts.parts[*at].is_hot()).collect();
        let Some(at) = hot.get(random.random_range(0..hot.len().max(1))).copied() else { return };
        let mut out = Collector::default();
        parts.put_aside(at, &mut out).await.unwrap();
        note(out, net);
        let groups = parts.parts[at].range.end - parts.parts[at].range.start;
        if random.random_bool(0.7) {
            parts.cut(at, random.random_range(1..=groups.min(4)));
        }
    }

    fn watermark(&mut self, watermark: i64, net: &mut Net) {
        for parts in &mut self.subtasks {
            if !parts.puts_off(Timestamp(watermark)) {
                release(parts, Timestamp(watermark), net);
            }
        }
    }

    async fn barrier(&mut self, epoch: u64, net: &mut Net) -> Vec<OperatorSnapshot> {
        let mut snapshots = Vec::new();
        for parts in &mut self.subtasks {
            while let Some(out) = parts.settle().await.unwrap() {
                note(out, net);
            }
            if let Some(watermark) = parts.take_pending() {
                release(parts, watermark, net);
            }
            let mut out = Collector::default();
            parts.flush_held(&mut out).unwrap();
            note(out, net);
            let capture = if parts.is_whole() {
                let mut capture = parts.capture(Epoch(epoch)).unwrap().unwrap();
                let tables = std::mem::take(&mut capture.tables);
                if let Some(file) = parts.of.files.write(Epoch(epoch), "", tables).await.unwrap() {
                    capture.handle.set(file).unwrap();
                    capture.retained.push(capture.handle.clone());
                }
                capture
            } else {
                let capture = parts.capture_all(Epoch(epoch)).await.unwrap();
                assert!(capture.tables.is_empty());
                capture
            };
            let state = capture.retained.iter().map(|handle| handle.get().unwrap().clone()).collect();
            let memory_bytes = (capture.memory_bytes > 0).then_some(capture.memory_bytes);
            snapshots.push(OperatorSnapshot {
                state,
                meta: Some(capture.meta),
                memory_bytes,
                ..OperatorSnapshot::default()
            });
        }
        snapshots
    }
}

fn release(operator: &mut dyn Operator, watermark: Timestamp, net: &mut Net) {
    loop {
        let mut out = Collector::default();
        let release = operator.on_watermark(watermark, &mut out).unwrap();
        note(out, net);
        if release == Release::Done {
            return;
        }
    }
}

async fn agrees(subject: Subject, seed: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let scratch = std::env::temp_dir();
    // Small enough now and then that state is put aside and rows go to the disk by themselves.
    let bytes = if random.random_bool(0.5) { 1 << 30 } else { 200 << 10 };
    let (store, budget) = (Arc::new(CheckpointStore::in_memory()), MemoryBudget::new(bytes, &scratch, || {}));
    let mut attempt = Attempt { store, budget, subtasks: Vec::new(), generation: 0, loads: 0 };
    attempt.start(&subject, random.random_range(1..=2), &[], false).await;
    let mut whole = (subject.make)();
    let (mut clock, mut watermark, mut value) = (0, i64::MIN, 0);
    let mut live = vec![Vec::new(); subject.inputs];
    let keys = if subject.forgets { 600 } else { 60 };
    for epoch in 1..=12 {
        let (mut expected, mut given) = (Net::new(), Net::new());
        for _ in 0..random.random_range(0..12) {
            let input = random.random_range(0..subject.inputs);
            let mut rows = Vec::new();
            for _ in 0..random.random_range(1..40) {
                clock += random.random_range(0..4);
                let of_input: &mut Vec<Row> = &mut live[input];
                if subject.retracts && random.random_bool(0.3) && !of_input.is_empty() {
                    let gone = of_input.swap_remove(random.random_range(0..of_input.len()));
                    rows.push((gone, ChangeKind::Delete));
                    continue;
                }
                value += 1;
                let row = (random.random_range(0..keys), clock - random.random_range(0..50), value);
                if row.1 <= watermark || subject.partials && row.1.div_euclid(WINDOW_MS) * WINDOW_MS + 99 <= watermark {
                    continue;
                }
                of_input.push(row);
                rows.push((row, ChangeKind::Insert));
            }
            if rows.is_empty() {
                continue;
            }
            let batch = batch(&subject, &rows);
            note(process_whole(whole.as_mut(), input, batch.clone()), &mut expected);
            attempt.push(&subject.keys, input, &batch, &mut given);
            match random.random_range(0..10) {
                0..3 => attempt.put_aside(&mut random, &mut given).await,
                3..5 => attempt.relieve(&mut given).await,
                5..8 => {
                    watermark = watermark.max(clock - 60);
                    release(whole.as_mut(), Timestamp(watermark), &mut expected);
                    attempt.watermark(watermark, &mut given);
                }
                _ => {}
            }
        }
        if epoch == 12 {
            release(whole.as_mut(), Timestamp(i64::MAX), &mut expected);
            attempt.watermark(i64::MAX, &mut given);
        }
        let mut out = Collector::default();
        whole.flush_held(&mut out).unwrap();
        note(out, &mut expected);
        let snapshots = attempt.barrier(epoch, &mut given).await;
        drop(whole.capture(Epoch(epoch)).unwrap());
        if subject.forgets && subject.adds_up {
            // What a row takes away from a group that was forgotten depends on the rows with which it comes.
            live.iter_mut().for_each(Vec::clear);
        }
        subject.context.now.fetch_add(random.random_range(0..100), Ordering::Relaxed);
        for (row, count) in expected {
            *given.entry(row).or_default() -= count;
        }
        given.retain(|_, count| *count != 0);
        assert!(given.is_empty(), "seed {seed}, epoch {epoch}: too many or too few of {given:?}");
        if random.random_bool(0.3) {
            let (count, lazily) = (random.random_range(1..=3), random.random_bool(0.5));
            attempt.start(&subject, count, &snapshots, lazily).await;
        }
    }
    attempt.loads + attempt.subtasks.iter().map(|parts| parts.loads).sum::<u64>()
}

/// Runs some seeds, or as many as `MAINSTEM_SEEDS` says; parts must have been read again in them.
fn all_agree(subject: impl Fn() -> Subject) {
    let seeds = std::env::var("MAINSTEM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(25);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let loads: u64 = (0..seeds).map(|seed| runtime.block_on(agrees(subject(), seed))).sum();
    assert!(loads > 5 * seeds, "{loads} parts were read again");
}

#[test]
fn aggregates_in_parts_give_the_same() {
    all_agree(|| aggregate(None));
    all_agree(|| aggregate(Some(TTL_MS)));
}

#[test]
fn windows_in_parts_give_the_same() {
    all_agree(windows);
}

#[test]
fn regular_joins_in_parts_give_the_same() {
    all_agree(|| join(None));
    all_agree(|| join(Some(TTL_MS)));
}

#[test]
fn interval_joins_in_parts_give_the_same() {
    all_agree(interval);
}

#[test]
fn ranks_in_parts_give_the_same() {
    for ttl_ms in [None, Some(TTL_MS)] {
        all_agree(|| rank(false, ttl_ms));
        all_agree(|| rank(true, ttl_ms));
        all_agree(|| first(ttl_ms));
    }
}

#[test]
fn set_operations_in_parts_give_the_same() {
    all_agree(|| except(None));
    all_agree(|| except(Some(TTL_MS)));
}

#[test]
fn over_aggregates_in_parts_give_the_same() {
    all_agree(over);
}

#[tokio::test]
async fn a_part_that_has_seen_the_last_watermark_need_not_see_it_again() {
    let subject = over();
    let (store, budget) = (Arc::new(CheckpointStore::in_memory()), MemoryBudget::new(1 << 30, Path::new("."), || {}));
    let mut attempt = Attempt { store, budget, subtasks: Vec::new(), generation: 0, loads: 0 };
    attempt.start(&subject, 1, &[], false).await;
    let mut net = Net::new();
    attempt.push(&subject.keys, 0, &batch(&subject, &[((1, 1, 1), ChangeKind::Insert)]), &mut net);
    attempt.watermark(i64::MAX, &mut net);
    assert_eq!(net.len(), 1);
    let parts = &mut attempt.subtasks[0];
    parts.put_aside(0, &mut Collector::default()).await.unwrap();
    // It would be read, and put aside again where it has no room, for ever.
    assert!(!parts.puts_off(Timestamp::MAX));
}

#[test]
fn pieces_of_a_file_are_one_again_and_keep_their_order() {
    let handle = |path: &str, epoch, start, end| StateHandle {
        path: path.to_owned(),
        size: 1,
        crc32c: 0,
        key_groups: KeyGroupRange { start, end },
        epoch: Epoch(epoch),
    };
    // The second of one epoch is in both parts, the first in one of them.
    let parts = vec![
        vec![handle("a", 1, 0, 4), handle("c", 2, 0, 4), handle("d", 2, 0, 4)],
        vec![handle("a", 1, 4, 8), handle("b", 2, 4, 6), handle("c", 2, 4, 8), handle("e", 3, 4, 8)],
        vec![handle("e", 3, 8, 12)],
        vec![handle("a", 1, 12, 16)],
    ];
    let order = ["a", "b", "c", "d", "e"].into_iter().zip(1..).map(|(path, number)| (path.to_owned(), number));
    let expected = vec![
        handle("a", 1, 0, 8),
        handle("a", 1, 12, 16),
        handle("b", 2, 4, 6),
        handle("c", 2, 0, 8),
        handle("d", 2, 0, 4),
        handle("e", 3, 4, 12),
    ];
    assert_eq!(united(parts, &order.collect()), expected);
    // Of two subtasks, the first of which has no key groups of 'b'.
    let files = [handle("a", 1, 0, 8), handle("c", 2, 0, 4), handle("b", 2, 5, 6), handle("c", 2, 4, 8)];
    assert_eq!(in_order(&files), ["a", "b", "c"]);
}
