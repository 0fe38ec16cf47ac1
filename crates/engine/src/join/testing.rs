//! What the tests of joins share: random streams with late rows, and subtasks that are stopped and go on from their
//! files in other numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, TimestampMillisecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use mainstem_core::ids::Epoch;
use mainstem_core::key_group::{KeyGroupRange, group_of_hash, owner};
use mainstem_core::protocol::{OperatorSnapshot, StateHandle};
use mainstem_core::time::Timestamp;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::JoinOn;

use crate::deploy::files_of;
use crate::element::StreamBatch;
use crate::key_hash::hash_rows;
use crate::operator::{Collector, Operator, PendingHandle, Release, Restored, process_whole};

const KEY_GROUPS: u16 = 16;

/// Repeatable numbers.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % end as u64) as i64
    }

    pub(super) fn chance(&mut self, one_in: i64) -> bool {
        self.below(one_in) == 0
    }
}

/// One row of a side: key, time, value; and the watermark of its split before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) key: Option<i64>,
    pub(super) time: i64,
    pub(super) value: i64,
    pub(super) own: i64,
    /// A change kind.
    pub(super) change: i8,
}

impl Row {
    /// The watermark that the row is behind, or the least.
    pub(super) fn behind(&self) -> i64 {
        if self.time <= self.own { self.own } else { i64::MIN }
    }
}

pub(super) fn side_schema(prefix: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(format!("{prefix}_key"), DataType::Int64, true),
        Field::new(format!("{prefix}_time"), DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new(format!("{prefix}_value"), DataType::Int64, true),
    ]))
}

/// Keys are the first columns; the condition, if there is one, is that the values differ.
pub(super) fn on(with_condition: bool) -> JoinOn {
    let condition =
        Expr::Binary { left: Box::new(Expr::Column(2)), op: BinaryOperator::NotEq, right: Box::new(Expr::Column(5)) };
    JoinOn {
        left_keys: vec![0],
        right_keys: vec![0],
        null_equal: vec![false],
        condition: with_condition.then_some(condition),
        left_schema: side_schema("l"),
        right_schema: side_schema("r"),
    }
}

/// Columns of both sides; of the left only if `left_only`.
pub(super) fn output_schema(left_only: bool) -> SchemaRef {
    let nullable = |schema: SchemaRef| schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let mut fields: Vec<Field> = nullable(side_schema("l"));
    if !left_only {
        fields.extend::<Vec<Field>>(nullable(side_schema("r")));
    }
    Arc::new(Schema::new(fields))
}

pub(super) fn batch(schema: &SchemaRef, rows: &[Row]) -> StreamBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.time))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.value))),
    ];
    // The end of a window is a millisecond after the last time in it.
    let late = rows.iter().any(|row| row.time <= row.own.saturating_add(1));
    StreamBatch {
        rows: RecordBatch::try_new(schema.clone(), columns).unwrap(),
        own_watermark: late.then(|| Int64Array::from_iter_values(rows.iter().map(|row| row.own))),
        changes: rows
            .iter()
            .any(|row| row.change != 0)
            .then(|| rows.iter().map(|row| Some(row.change)).collect::<Int8Array>()),
    }
}

/// A row as it is compared: key, time and value of the left, then of the right side.
pub(super) type Joined = Vec<Option<i64>>;

pub(super) fn joined(left: Option<&Row>, right: Option<&Row>) -> Joined {
    let columns = |row: Option<&Row>| match row {
        Some(row) => [row.key, Some(row.time), Some(row.value)],
        None => [None; 3],
    };
    [columns(left), columns(right)].concat()
}

fn rows_of(batch: &RecordBatch) -> Vec<Joined> {
    let value = |column: &ArrayRef, row: usize| match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row)),
        _ => Some(column.as_primitive::<TimestampMillisecondType>().value(row)),
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| value(column, row)).collect()).collect()
}

/// Compares sorted rows; shows only where they differ.
#[track_caller]
pub(super) fn assert_same(given: &[Joined], expected: &[Joined], what: &str) {
    let only_in = |a: &[Joined], b: &[Joined]| {
        let mut rest = b.to_vec();
        let missing = a.iter().filter(|row| match rest.iter().position(|other| other == *row) {
            Some(at) => {
                rest.swap_remove(at);
                false
            }
            None => true,
        });
        missing.take(10).cloned().collect::<Vec<_>>()
    };
    if given != expected {
        panic!("{what}: too many {:?}, missing {:?}", only_in(given, expected), only_in(expected, given));
    }
}

/// Name and version of a table, its key, and rows.
type Table = (String, u32, Vec<usize>, RecordBatch);

/// Subtasks of one operator.
pub(super) struct Subtasks<O> {
    make: Box<dyn Fn() -> O>,
    pub(super) operators: Vec<O>,
    files: BTreeMap<String, Vec<Table>>,
    last: Vec<(Vec<PendingHandle>, String)>,
    epoch: Epoch,
    watermark: i64,
    pub(super) given: Vec<Joined>,
    /// Columns of the output that are event time behind the operator.
    pub(super) times: Vec<usize>,
    /// Columns that rows of both sides are partitioned by.
    pub(super) key: Vec<usize>,
}

impl<O: Operator> Subtasks<O> {
    pub(super) fn new(make: impl Fn() -> O + 'static, count: usize) -> Self {
        let operators = (0..count).map(|_| make()).collect();
        let make = Box::new(make);
        let (files, last, given, times) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Subtasks { make, operators, files, last, epoch: Epoch(1), watermark: i64::MIN, given, times, key: vec![0] }
    }

    /// Sends rows of an input to the owners of their keys.
    pub(super) fn push(&mut self, input: usize, batch: &StreamBatch) {
        let columns: Vec<ArrayRef> = self.key.iter().map(|column| batch.rows.column(*column).clone()).collect();
        let hashes = hash_rows(&columns, batch.rows.num_rows()).unwrap();
        let count = self.operators.len() as u32;
        for index in 0..count {
            let rows = (0..hashes.len() as u32)
                .filter(|row| owner(group_of_hash(hashes[*row as usize], KEY_GROUPS), KEY_GROUPS, count) == index);
            let part = batch.take(&UInt32Array::from_iter_values(rows)).unwrap();
            let out = process_whole(&mut self.operators[index as usize], input, part);
            self.take(index as usize, out);
        }
    }

    pub(super) fn watermark(&mut self, watermark: i64) {
        for index in 0..self.operators.len() {
            loop {
                let mut out = Collector::default();
                let release = self.operators[index].on_watermark(Timestamp(watermark), &mut out).unwrap();
                self.take(index, out);
                if release == Release::Done {
                    break;
                }
            }
        }
        self.watermark = watermark;
    }

    /// Checks that no row is late where it claims to be on time: then who reads it judges as it would again.
    fn take(&mut self, index: usize, out: Collector) {
        let passed_on = self.operators[index].watermark_out(Timestamp(self.watermark)).0;
        for batch in out.main {
            for (row, joined) in rows_of(&batch.rows).into_iter().enumerate() {
                let own = batch.own_watermark.as_ref().map_or(i64::MIN, |own| own.value(row));
                for time in self.times.iter().filter_map(|column| joined[*column]) {
                    assert!(time > passed_on || own >= passed_on, "{joined:?} behind {passed_on}, own {own}");
                }
                self.given.push(joined);
            }
        }
    }

    /// Ends an epoch and gives the number of files that a restore needs.
    pub(super) fn checkpoint(&mut self) -> usize {
        self.last.clear();
        let mut needed = BTreeSet::new();
        let count = self.operators.len() as u32;
        for (index, operator) in self.operators.iter_mut().enumerate() {
            let capture = operator.capture(self.epoch).unwrap().expect("joins keep state");
            let mut handles = capture.retained;
            let mut tables = Vec::new();
            for table in capture.tables {
                for rows in table.rows.into_iter().filter(|rows| rows.num_rows() > 0) {
                    tables.push((table.name.to_owned(), table.version, table.key.clone(), rows));
                }
            }
            if !tables.is_empty() {
                let path = format!("{}-{index}", self.epoch.0);
                let key_groups = KeyGroupRange::of_subtask(KEY_GROUPS, count, index as u32);
                let handle = StateHandle { path: path.clone(), size: 0, crc32c: 0, key_groups, epoch: self.epoch };
                capture.handle.set(handle).unwrap();
                self.files.insert(path, tables);
                handles.push(capture.handle);
            }
            needed.extend(handles.iter().map(|handle| handle.get().unwrap().path.clone()));
            self.last.push((handles, capture.meta));
        }
        self.epoch = self.epoch.next();
        needed.len()
    }

    /// Goes on from the last checkpoint with so many subtasks.
    pub(super) fn restore(&mut self, count: usize) {
        let metas: Vec<String> = self.last.iter().map(|(_, meta)| meta.clone()).collect();
        let snapshot = |(handles, _): &(Vec<PendingHandle>, String)| {
            let state = handles.iter().map(|handle| handle.get().unwrap().clone()).collect();
            OperatorSnapshot { state, ..OperatorSnapshot::default() }
        };
        let snapshots: Vec<_> = self.last.iter().map(snapshot).collect();
        self.operators = (0..count).map(|_| (self.make)()).collect();
        for (index, operator) in self.operators.iter_mut().enumerate() {
            operator.restore_meta(&metas).unwrap();
            let range = KeyGroupRange::of_subtask(KEY_GROUPS, count as u32, index as u32);
            for handle in files_of(snapshots.iter(), range) {
                let mut tables = Vec::new();
                for (name, version, key, rows) in &self.files[&handle.path] {
                    let columns: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
                    let hashes = hash_rows(&columns, rows.num_rows()).unwrap();
                    let mine = |row: &u32| handle.key_groups.contains(group_of_hash(hashes[*row as usize], KEY_GROUPS));
                    let mine = UInt32Array::from_iter_values((0..hashes.len() as u32).filter(mine));
                    tables.push((name.clone(), *version, arrow::compute::take_record_batch(rows, &mine).unwrap()));
                }
                operator.restore(Restored::decoded(handle, tables)).unwrap();
            }
            operator.restored().unwrap();
        }
    }
}

/// How random rows come.
pub(super) struct Streams {
    /// Splits of each side.
    pub(super) splits: usize,
    pub(super) keys: i64,
    /// How far the time of a row is from its neighbours'.
    pub(super) spread: i64,
    /// How far the watermark of a split stays behind its greatest time.
    pub(super) delay: i64,
    /// How far a split may run ahead of others.
    pub(super) lead: i64,
}

/// Feeds random rows of both sides, with watermarks, checkpoints and restores between them, and gives all rows.
/// `shape` has the last word on a row of a split; those of the right side have odd numbers.
pub(super) fn run<O: Operator>(
    subtasks: &mut Subtasks<O>,
    seed: u64,
    streams: &Streams,
    batches: usize,
    shape: impl Fn(usize, &mut Random, Row) -> Row,
) -> [Vec<Row>; 2] {
    let mut random = Random::new(seed);
    let schemas = [side_schema("l"), side_schema("r")];
    let mut rows = [Vec::new(), Vec::new()];
    let mut clocks = vec![0_i64; streams.splits * 2];
    let mut watermarks = vec![i64::MIN; streams.splits * 2];
    subtasks.checkpoint();
    // What came since the checkpoint is read again after a restore.
    let mut kept = (rows.clone(), clocks.clone(), watermarks.clone(), 0, i64::MIN);
    for _ in 0..batches {
        let slowest = *clocks.iter().min().unwrap();
        let split = random.below(clocks.len() as i64) as usize;
        if clocks[split] > slowest + streams.lead {
            continue;
        }
        let side = split % 2;
        let mut new = Vec::new();
        for _ in 0..=random.below(12) {
            clocks[split] += random.below(40);
            let row = Row {
                key: (!random.chance(15)).then(|| random.below(streams.keys)),
                time: clocks[split] - random.below(streams.spread),
                value: random.below(4),
                own: watermarks[split],
                change: 0,
            };
            let row = shape(split, &mut random, row);
            watermarks[split] = watermarks[split].max(row.time - streams.delay);
            new.push(row);
        }
        subtasks.push(side, &batch(&schemas[side], &new));
        rows[side].extend(new);
        let merged = *watermarks.iter().min().unwrap();
        if merged > subtasks.watermark && !random.chance(3) {
            subtasks.watermark(merged);
        }
        if random.chance(6) {
            subtasks.checkpoint();
            kept = (rows.clone(), clocks.clone(), watermarks.clone(), subtasks.given.len(), subtasks.watermark);
        } else if random.chance(12) {
            (rows, clocks, watermarks, _, _) = kept.clone();
            subtasks.given.truncate(kept.3);
            subtasks.watermark = kept.4;
            subtasks.restore(1 + random.below(3) as usize);
        }
    }
    subtasks.watermark(i64::MAX);
    subtasks.given.sort();
    rows
}
