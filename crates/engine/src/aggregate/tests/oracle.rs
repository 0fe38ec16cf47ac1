//! An operator under test, the rows that are there, and what the operator has said of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray,
    UInt32Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use mainstem_core::change::{ChangeKind, ChangeMode};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_plan::aggregate::AggregateCall;

use super::super::*;
use super::changelog::Fold;
use crate::operator::{Capture, PendingHandle};

/// Marsaglia's xorshift.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

type Tables = Vec<(String, u32, RecordBatch)>;

pub(super) struct Aggregation {
    pub(super) spec: Spec,
    schema: SchemaRef,
    /// Its first step on several senders, if it has one.
    first: Vec<GroupPartial>,
    pub(super) operator: GroupAggregate,
    pub(super) context: EvalContext,
    /// Files of the last checkpoint.
    files: Vec<(PendingHandle, Tables)>,
    epoch: u64,
    /// All rows that ever came, and those that are there, oldest first.
    rows: Vec<RecordBatch>,
    live: Vec<usize>,
    /// For each call the rows that it is to count.
    live_of_calls: Vec<Vec<usize>>,
    pub(super) fold: Fold,
}

pub(super) fn input_schema() -> SchemaRef {
    let field = |name: &str, of: DataType| Field::new(name, of, true);
    Arc::new(Schema::new(vec![
        field("k", DataType::Int64),
        field("i", DataType::Int64),
        field("f", DataType::Float64),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
        field("d", DataType::Decimal128(10, 2)),
        field("t", DataType::Int64),
    ]))
}

fn random_row(random: &mut Random) -> RecordBatch {
    let mut value = |bound: u64| Some(random.below(bound + 1)).filter(|value| *value < bound);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![value(5).map(|v| v as i64)])),
        Arc::new(Int64Array::from(vec![value(12).map(|v| v as i64 - 4)])),
        Arc::new(Float64Array::from(vec![value(9).map(|v| v as f64 * 0.25)])),
        Arc::new(StringArray::from(vec![value(6).map(|v| format!("s{v}"))])),
        Arc::new(BooleanArray::from(vec![value(2).map(|v| v == 1)])),
        Arc::new(
            Decimal128Array::from(vec![value(7).map(|v| i128::from(v) * 33)]).with_precision_and_scale(10, 2).unwrap(),
        ),
        Arc::new(Int64Array::from(vec![value(3).map(|v| v as i64)])),
    ];
    RecordBatch::try_new(input_schema(), columns).unwrap()
}

pub(super) fn text_of(rows: &RecordBatch, row: usize) -> Vec<String> {
    let text = |column: &ArrayRef| match column.is_null(row) {
        true => "NULL".to_owned(),
        false => array_value_to_string(column, row).unwrap(),
    };
    rows.columns().iter().map(text).collect()
}

fn new_operator(spec: &Spec, schema: SchemaRef, context: &EvalContext) -> GroupAggregate {
    GroupAggregate::new("t", spec, schema, ChangeMode::Retract, context, Arc::default()).unwrap()
}

/// The step before the exchange.
pub(super) fn first_step(spec: &Spec, adaptive: bool) -> GroupPartial {
    let mut fields: Vec<Field> = spec.keys.iter().map(|key| spec.input_schema.field(*key).clone()).collect();
    for call in &spec.aggregates {
        let compiled = call.compile(&spec.input_schema, &EvalContext::default()).unwrap();
        let types = call.partial_types(&compiled, &spec.input_schema).unwrap().expect("a call that has parts");
        fields.extend(types.into_iter().map(|of| Field::new(&call.name, of, true)));
    }
    GroupPartial::new("first", spec, adaptive, Arc::new(Schema::new(fields)), &EvalContext::default()).unwrap()
}

impl Aggregation {
    pub(super) fn new(keys: &[usize], aggregates: Vec<AggregateCall>, retracts: bool, seed: u64) -> Self {
        let spec = Spec {
            keys: keys.to_vec(),
            aggregates,
            input_schema: input_schema(),
            input_retracts: retracts,
            ttl_ms: None,
            mini_batch_ms: seed.is_multiple_of(3).then_some(1000),
            mini_batch_rows: None,
            merges_partials: false,
        };
        Aggregation::of(spec)
    }

    /// The same with a step before the exchange.
    pub(super) fn in_two_steps(keys: &[usize], aggregates: Vec<AggregateCall>, seed: u64) -> Self {
        let mut spec = Aggregation::new(keys, aggregates, false, seed).spec;
        let first = (0..2).map(|_| first_step(&spec, false)).collect();
        spec.merges_partials = true;
        Aggregation { first, ..Aggregation::of(spec) }
    }

    pub(super) fn of(spec: Spec) -> Self {
        let context = EvalContext::default();
        let mut fields: Vec<Field> = spec.keys.iter().map(|key| spec.input_schema.field(*key).clone()).collect();
        for call in &spec.aggregates {
            fields.push(call.compile(&spec.input_schema, &context).unwrap().output_field().as_ref().clone());
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let operator = new_operator(&spec, schema.clone(), &context);
        let live_of_calls = vec![Vec::new(); spec.aggregates.len()];
        let (files, rows, live) = (Vec::new(), Vec::new(), Vec::new());
        let fold = Fold::default();
        let first = Vec::new();
        Aggregation { spec, schema, first, operator, context, files, epoch: 0, rows, live, live_of_calls, fold }
    }

    /// A batch of random changes to the rows that are there.
    pub(super) fn batch(&mut self, random: &mut Random) {
        let mut batch = Vec::new();
        let mut kinds = Vec::new();
        for _ in 0..random.below(12) {
            if self.spec.input_retracts && !self.live.is_empty() && random.below(5) < 2 {
                let position = random.below(self.live.len() as u64) as usize;
                let row = self.live.remove(position);
                self.leave(row);
                batch.push(self.rows[row].clone());
                kinds.push([ChangeKind::UpdateBefore, ChangeKind::Delete][random.below(2) as usize] as i8);
            } else {
                let row = random_row(random);
                batch.push(row.clone());
                self.live.push(self.rows.len());
                self.live_of_calls.iter_mut().for_each(|live| live.push(self.rows.len()));
                self.rows.push(row);
                kinds.push(ChangeKind::Insert as i8);
            }
        }
        self.process(&batch, kinds);
    }

    pub(super) fn process(&mut self, batch: &[RecordBatch], kinds: Vec<i8>) {
        let rows = compute::concat_batches(&input_schema(), batch).unwrap();
        let mut batches = vec![StreamBatch::changelog(rows, Int8Array::from(kinds))];
        let senders = self.first.len();
        if senders > 0 {
            let nth = self.rows.len() % senders;
            // By groups and row by row, in turns that have nothing to do with the sender.
            self.first[nth].passing = u32::from(self.rows.len().is_multiple_of(3));
            let mut out = Collector::default();
            self.first[nth].process(0, batches.remove(0), &mut out).unwrap();
            batches = out.main;
        }
        for batch in batches {
            let mut out = Collector::default();
            self.operator.process(0, batch, &mut out).unwrap();
            self.fold.take(out);
        }
    }

    /// A call that sees only some columns cannot tell which of several rows has gone: it lets go of the oldest.
    fn leave(&mut self, row: usize) {
        for (call, live) in self.spec.aggregates.iter().zip(&mut self.live_of_calls) {
            let columns: Vec<usize> = self.spec.keys.iter().copied().chain(call.columns()).collect();
            let seen = |row: usize| text_of(&self.rows[row].project(&columns).unwrap(), 0);
            let wanted = seen(row);
            let oldest = live.iter().position(|other| seen(*other) == wanted).unwrap();
            live.remove(oldest);
        }
    }

    pub(super) fn flush(&mut self) {
        let mut out = Collector::default();
        self.operator.flush_held(&mut out).unwrap();
        self.fold.take(out);
    }

    /// Takes a checkpoint; `restore`: and goes on with a new operator that was given it.
    pub(super) fn checkpoint(&mut self, restore: bool) {
        self.flush();
        self.epoch += 1;
        let Capture { retained, tables, handle, .. } = self.operator.capture(Epoch(self.epoch)).unwrap().unwrap();
        self.files.retain(|(file, _)| retained.iter().any(|kept| kept.get() == file.get()));
        assert_eq!(self.files.len(), retained.len(), "a file is retained that was not written");
        let tables: Tables = tables
            .into_iter()
            .flat_map(|table| table.rows.into_iter().map(move |rows| (table.name.to_owned(), table.version, rows)))
            .collect();
        if !tables.is_empty() {
            let path = format!("epoch {}", self.epoch);
            let key_groups = KeyGroupRange { start: 0, end: 1 };
            let epoch = Epoch(self.epoch);
            handle.set(StateHandle { path, size: 0, crc32c: 0, key_groups, epoch }).unwrap();
            self.files.push((handle, tables));
        }
        if restore {
            self.operator = new_operator(&self.spec, self.schema.clone(), &self.context);
            for (handle, tables) in &self.files {
                let state = Restored::decoded(handle.get().unwrap().clone(), tables.clone());
                self.operator.restore(state).unwrap();
            }
            self.operator.restored().unwrap();
        }
    }

    /// What the operator has said must be what is computed from the rows that are there.
    pub(super) fn compare(&self) {
        let found = self.fold.rows();
        let expected = self.expected();
        assert_eq!(found.len(), expected.len(), "{found:?}\n{expected:?}");
        for (found, expected) in found.iter().zip(&expected) {
            for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
                let close = match (found.parse::<f64>(), expected.parse::<f64>()) {
                    (Ok(found), Ok(expected)) => {
                        (found - expected).abs() < 1e-9 || found.to_bits() == expected.to_bits()
                    }
                    _ => found == expected,
                };
                assert!(close, "{}: {found} instead of {expected}", self.schema.field(column).name());
            }
        }
    }

    fn expected(&self) -> Vec<Vec<String>> {
        let key_of = |row: usize| text_of(&self.rows[row].project(&self.spec.keys).unwrap(), 0);
        let mut keys: Vec<Vec<String>> = self.live.iter().map(|row| key_of(*row)).collect();
        keys.sort();
        keys.dedup();
        if self.spec.keys.is_empty() && !self.rows.is_empty() {
            keys = vec![vec![]];
        }
        let mut expected = Vec::new();
        for key in keys {
            let mut row = key.clone();
            for (call, live) in self.spec.aggregates.iter().zip(&self.live_of_calls) {
                let of_group: Vec<usize> = live.iter().copied().filter(|row| key_of(*row) == key).collect();
                row.push(self.result(call, &of_group));
            }
            expected.push(row);
        }
        expected.sort();
        expected
    }

    fn result(&self, call: &AggregateCall, rows: &[usize]) -> String {
        let compiled = call.compile(&self.spec.input_schema, &self.context).unwrap();
        let mut accumulator = compiled.function.create_accumulator().unwrap();
        let rows: Vec<&RecordBatch> = rows.iter().map(|row| &self.rows[*row]).collect();
        let mut rows = compute::concat_batches(&input_schema(), rows).unwrap();
        if let Some(filter) = &compiled.filter {
            let filter = filter.evaluate(&rows).unwrap().into_array(rows.num_rows()).unwrap();
            let kept = filter.as_any().downcast_ref::<BooleanArray>().unwrap();
            rows = compute::filter_record_batch(&rows, kept).unwrap();
        }
        if rows.num_rows() > 0 {
            let args =
                compiled.args.iter().map(|arg| arg.evaluate(&rows).unwrap().into_array(rows.num_rows()).unwrap());
            accumulator.update_batch(&args.collect::<Vec<_>>()).unwrap();
        }
        let value = accumulator.evaluate().unwrap().to_array().unwrap();
        let positions = UInt32Array::from(vec![0]);
        let value = compute::take(&value, &positions, None).unwrap();
        let value = compute::cast(&value, compiled.output_field().data_type()).unwrap();
        if value.is_null(0) { "NULL".to_owned() } else { array_value_to_string(&value, 0).unwrap() }
    }
}
