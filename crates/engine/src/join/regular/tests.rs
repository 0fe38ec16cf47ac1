//! Joins of random rows that come and go, against a recomputation over all rows that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int8Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mainstem_core::key_group::{KeyGroupRange, group_of_hash, owner};
use mainstem_core::protocol::StateHandle;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::JoinOn;

use super::*;
use crate::key_hash::hash_rows;
use crate::operator::{PendingHandle, process_whole};

const KEY_GROUPS: u16 = 16;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// Key, value, name.
type TestRow = (Option<i64>, i64, Option<String>);
type Table = BTreeMap<TestRow, usize>;
/// Rows of the output; absent sides are padded.
type Folded = BTreeMap<(Option<TestRow>, Option<TestRow>), i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn join(kind: JoinKind, condition: bool, keys: usize, null_equal: bool) -> Join {
    let less =
        || Expr::Binary { left: Box::new(Expr::Column(1)), op: BinaryOperator::Lt, right: Box::new(Expr::Column(4)) };
    let columns: Vec<usize> = [0, 2][..keys].to_vec();
    Join {
        kind,
        on: JoinOn {
            left_keys: columns.clone(),
            right_keys: columns,
            null_equal: vec![null_equal; keys],
            condition: condition.then(less),
            left_schema: schema(),
            right_schema: schema(),
        },
        left_unique: None,
        right_unique: None,
        left_ttl_ms: None,
        right_ttl_ms: None,
    }
}

fn output_schema(kind: JoinKind) -> SchemaRef {
    let both = schema()
        .fields()
        .iter()
        .chain(schema().fields())
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    let width = if matches!(kind, JoinKind::Semi | JoinKind::Anti { .. }) { 3 } else { 6 };
    Arc::new(Schema::new(both[..width].to_vec()))
}

fn build(join: &Join, retracts: [bool; 2], context: &EvalContext) -> Box<dyn Operator> {
    let schema = output_schema(join.kind);
    match join.kind {
        JoinKind::Anti { null_aware: true } => Box::new(NotIn::new("join", join, schema, context).unwrap()),
        _ => Box::new(RegularJoin::new("join", join, retracts, schema, context).unwrap()),
    }
}

fn batch(rows: &[(TestRow, bool)]) -> StreamBatch {
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(rows.iter().map(|(row, _)| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| Some(row.1)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(row, _)| row.2.clone()).collect::<StringArray>()),
    ];
    let kinds = rows.iter().enumerate().map(|(at, (_, adds))| match (adds, at % 2) {
        (true, 0) => ChangeKind::Insert as i8,
        (true, _) => ChangeKind::UpdateAfter as i8,
        (false, 0) => ChangeKind::Delete as i8,
        (false, _) => ChangeKind::UpdateBefore as i8,
    });
    let changes = Int8Array::from(kinds.collect::<Vec<_>>());
    let rows_only = RecordBatch::try_new(schema(), columns).unwrap();
    match rows.iter().all(|(_, adds)| *adds) {
        true => StreamBatch::on_time(rows_only),
        false => StreamBatch::changelog(rows_only, changes),
    }
}

fn row_at(rows: &RecordBatch, from: usize, row: usize) -> Option<TestRow> {
    let value = rows.column(from + 1).as_primitive::<Int64Type>();
    let key = rows.column(from).as_primitive::<Int64Type>();
    let name = rows.column(from + 2).as_string::<i32>();
    value.is_valid(row).then(|| {
        let name = name.is_valid(row).then(|| name.value(row).to_owned());
        (key.is_valid(row).then(|| key.value(row)), value.value(row), name)
    })
}

fn fold(out: Collector, folded: &mut Folded) {
    for batch in out.main {
        for row in 0..batch.rows.num_rows() {
            let left = row_at(&batch.rows, 0, row);
            let right = if batch.rows.num_columns() > 3 { row_at(&batch.rows, 3, row) } else { None };
            let entry = folded.entry((left.clone(), right.clone())).or_default();
            *entry += if batch.is_addition(row) { 1 } else { -1 };
            assert!(*entry >= 0, "a row is taken away that is not there: {left:?} {right:?}");
        }
    }
    folded.retain(|_, count| *count != 0);
}

fn keys_match(join: &Join, left: &TestRow, right: &TestRow) -> bool {
    let equal = |same: bool, null: bool| same && (!null || join.on.null_equal[0]);
    let first = || equal(left.0 == right.0, left.0.is_none());
    let second = || equal(left.2 == right.2, left.2.is_none());
    match join.on.left_keys.len() {
        0 => true,
        1 => first(),
        _ => first() && second(),
    }
}

fn expected(join: &Join, left: &Table, right: &Table) -> Folded {
    let mut result = Folded::new();
    let partners = |a: &TestRow, b: &TestRow| keys_match(join, a, b) && (join.on.condition.is_none() || a.1 < b.1);
    let mut give = |left: Option<&TestRow>, right: Option<&TestRow>, count: usize| {
        *result.entry((left.cloned(), right.cloned())).or_default() += count as i64;
    };
    for (l, count) in left {
        let found: Vec<_> = right.iter().filter(|(r, _)| partners(l, r)).collect();
        match join.kind {
            JoinKind::Semi if !found.is_empty() => give(Some(l), None, *count),
            JoinKind::Semi => {}
            JoinKind::Anti { null_aware: false } => {
                if found.is_empty() {
                    give(Some(l), None, *count);
                }
            }
            JoinKind::Anti { null_aware: true } => {
                let null = right.keys().any(|r| r.0.is_none()) || l.0.is_none();
                if right.is_empty() || (found.is_empty() && !null) {
                    give(Some(l), None, *count);
                }
            }
            _ => {
                found.iter().for_each(|(r, other)| give(Some(l), Some(r), count * **other));
                if found.is_empty() && matches!(join.kind, JoinKind::Left | JoinKind::Full) {
                    give(Some(l), None, *count);
                }
            }
        }
    }
    if matches!(join.kind, JoinKind::Right | JoinKind::Full) {
        for (r, count) in right.iter().filter(|(r, _)| !left.keys().any(|l| partners(l, r))) {
            give(None, Some(r), *count);
        }
    }
    result
}

/// Name, layout, key and rows of a stored table.
type StoredRows = (String, u32, Vec<usize>, RecordBatch);

/// Checkpoints in memory: the files, in the form in which a restore reads them.
#[derive(Default)]
struct Files {
    files: Vec<(PendingHandle, Vec<StoredRows>)>,
    metas: Vec<String>,
}

impl Files {
    fn take(&mut self, captures: Vec<Capture>) {
        let mut kept = Vec::new();
        self.metas.clear();
        for capture in captures {
            let retained = |handle: &PendingHandle| {
                let path = &handle.get().unwrap().path;
                capture.retained.iter().any(|retained| &retained.get().unwrap().path == path)
            };
            for (handle, tables) in &self.files {
                let known = |(other, _): &(PendingHandle, Vec<_>)| Arc::ptr_eq(other, handle);
                if retained(handle) && !kept.iter().any(known) {
                    kept.push((handle.clone(), tables.clone()));
                }
            }
            let tables: Vec<_> = capture
                .tables
                .into_iter()
                .flat_map(|table| {
                    let (name, version, key) = (table.name.to_owned(), table.version, table.key);
                    table.rows.into_iter().map(move |rows| (name.clone(), version, key.clone(), rows))
                })
                .collect();
            self.metas.push(capture.meta);
            let path = format!("{:p}", Arc::as_ptr(&capture.handle));
            let key_groups = KeyGroupRange { start: 0, end: KEY_GROUPS };
            capture.handle.set(StateHandle { path, size: 0, crc32c: 0, key_groups, epoch: Epoch(0) }).unwrap();
            kept.push((capture.handle, tables));
        }
        self.files = kept;
    }

    fn restore(&self, operator: &mut dyn Operator, range: KeyGroupRange) {
        operator.restore_meta(&self.metas).unwrap();
        for (handle, tables) in &self.files {
            let mut kept = Vec::new();
            for (name, version, key, rows) in tables {
                let mask: arrow::array::BooleanArray = groups(rows, key)
                    .into_iter()
                    .map(|group| Some(range.start <= group && group < range.end))
                    .collect();
                kept.push((name.clone(), *version, arrow::compute::filter_record_batch(rows, &mask).unwrap()));
            }
            operator.restore(Restored::decoded(handle.get().unwrap().clone(), kept)).unwrap();
        }
        operator.restored().unwrap();
    }
}

fn groups(rows: &RecordBatch, key: &[usize]) -> Vec<u16> {
    let columns: Vec<_> = key.iter().map(|column| rows.column(*column).clone()).collect();
    let hashes = hash_rows(&columns, rows.num_rows()).unwrap();
    hashes.into_iter().map(|hash| group_of_hash(hash, KEY_GROUPS).0).collect()
}

/// Subtasks of the join behind their exchange.
struct Subtasks {
    join: Join,
    retracts: [bool; 2],
    context: EvalContext,
    operators: Vec<Box<dyn Operator>>,
}

impl Subtasks {
    fn new(join: &Join, retracts: [bool; 2]) -> Subtasks {
        let context = EvalContext::default();
        let operators = vec![build(join, retracts, &context)];
        Subtasks { join: join.clone(), retracts, context, operators }
    }

    fn exchange_key(&self) -> Vec<usize> {
        let alone = self.join.kind == (JoinKind::Anti { null_aware: true });
        if alone { vec![] } else { self.join.on.left_keys.clone() }
    }

    fn process(&mut self, side: usize, batch: &StreamBatch, folded: &mut Folded) {
        let parallelism = self.operators.len() as u32;
        let groups = groups(&batch.rows, &self.exchange_key());
        for (index, operator) in self.operators.iter_mut().enumerate() {
            let here =
                |group: &u16| owner(mainstem_core::ids::KeyGroup(*group), KEY_GROUPS, parallelism) == index as u32;
            let mask = groups.iter().map(|group| Some(here(group))).collect();
            let part = batch.filter(&mask).unwrap();
            if part.rows.num_rows() > 0 {
                fold(process_whole(operator.as_mut(), side, part), folded);
            }
        }
    }

    fn checkpoint(&mut self, files: &mut Files) {
        files.take(self.operators.iter_mut().map(|operator| operator.capture(Epoch(1)).unwrap().unwrap()).collect());
    }

    fn restart(&mut self, files: &Files, parallelism: u32) {
        let context = self.context.clone();
        self.operators = (0..parallelism)
            .map(|index| {
                let mut operator = build(&self.join, self.retracts, &context);
                files.restore(operator.as_mut(), KeyGroupRange::of_subtask(KEY_GROUPS, parallelism, index));
                operator
            })
            .collect();
    }
}

fn random_row(random: &mut Random) -> TestRow {
    let key = random.below(6) as i64;
    let name = match random.below(4) {
        0 => None,
        // Rows of several sizes.
        n => Some("x".repeat(n * 13)),
    };
    ((key > 0).then_some(key), random.below(3) as i64, name)
}

/// Changes of a table: with some probability one of its rows goes, so that NULLs come and go too.
fn random_changes(random: &mut Random, table: &mut Table, retracts: bool) -> Vec<(TestRow, bool)> {
    let count = 1 + random.below(11);
    let mut changes = Vec::new();
    for _ in 0..count {
        let rows: usize = table.values().sum();
        if retracts && rows > 0 && random.below(100) < 35 + rows.min(40) {
            let row = table.keys().nth(random.below(table.len())).unwrap().clone();
            let left = table.get_mut(&row).unwrap();
            *left -= 1;
            if *left == 0 {
                table.remove(&row);
            }
            changes.push((row, false));
        } else {
            let row = random_row(random);
            *table.entry(row.clone()).or_default() += 1;
            changes.push((row, true));
        }
    }
    changes
}

fn check(join: &Join, retracts: [bool; 2], seed: u64) {
    let mut random = Random(seed);
    let mut subtasks = Subtasks::new(join, retracts);
    let mut tables = [Table::new(), Table::new()];
    let mut folded = Folded::new();
    let mut files = Files::default();
    let mut checkpoint = (tables.clone(), folded.clone());
    subtasks.checkpoint(&mut files);
    let rounds = if retracts == [true, true] { 60 } else { 25 };
    for round in 0..rounds {
        let side = random.below(2);
        let changes = random_changes(&mut random, &mut tables[side], retracts[side]);
        subtasks.process(side, &batch(&changes), &mut folded);
        let expected = expected(join, &tables[0], &tables[1]);
        assert_eq!(folded, expected, "{:?} {retracts:?} seed {seed} round {round}", join.kind);
        match random.below(8) {
            0 | 1 => {
                subtasks.checkpoint(&mut files);
                checkpoint = (tables.clone(), folded.clone());
            }
            2 => {
                let most = if join.on.left_keys.is_empty() { 1 } else { 4 };
                subtasks.restart(&files, 1 + random.below(most) as u32);
                (tables, folded) = checkpoint.clone();
            }
            _ => {}
        }
    }
}

const KINDS: [JoinKind; 7] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti { null_aware: false },
    JoinKind::Anti { null_aware: true },
];

#[test]
fn joins_give_what_a_recomputation_gives_at_any_time_and_after_any_restore() {
    for kind in KINDS {
        for seed in 0..40 {
            let retracts = [seed % 2 == 0, seed % 4 < 2];
            let not_in = kind == (JoinKind::Anti { null_aware: true });
            let (condition, keys, null_equal) = match not_in {
                true => (false, 1, false),
                false => (seed % 3 == 0, [1, 1, 2, 0][(seed % 4) as usize], seed % 5 == 0),
            };
            check(&join(kind, condition, keys, null_equal), retracts, seed);
        }
    }
}

#[test]
fn many_pairs_leave_in_batches_of_bounded_size() {
    for kind in [JoinKind::Inner, JoinKind::Full] {
        let join = join(kind, true, 1, false);
        let mut operator = build(&join, [false, false], &EvalContext::default());
        let rows = |value: i64| (0..300).map(|n| ((Some(7), value, Some(format!("{n}"))), true)).collect::<Vec<_>>();
        process_whole(operator.as_mut(), 0, batch(&rows(1)));
        let out = process_whole(operator.as_mut(), 1, batch(&rows(2)));
        assert!(out.main.iter().all(|batch| batch.rows.num_rows() <= 3 * OUTPUT_ROWS));
        let rows: usize = out.main.iter().map(|batch| batch.rows.num_rows()).sum();
        assert_eq!(rows, if kind == JoinKind::Inner { 90_000 } else { 90_300 }, "{kind:?}");
    }
}

#[test]
fn rows_are_forgotten_when_their_time_is_over_and_a_restore_forgets_the_same() {
    let mut join = join(JoinKind::Left, false, 1, false);
    (join.left_ttl_ms, join.right_ttl_ms) = (Some(1_000), Some(100));
    let mut subtasks = Subtasks::new(&join, [true, true]);
    let mut folded = Folded::new();
    let mut files = Files::default();
    let row = |value: i64| (Some(1), value, None::<String>);
    subtasks.context.set_now_ms(0);
    subtasks.process(1, &batch(&[(row(10), true)]), &mut folded);
    subtasks.process(0, &batch(&[(row(1), true)]), &mut folded);
    subtasks.checkpoint(&mut files);
    subtasks.context.set_now_ms(100);
    subtasks.process(1, &batch(&[(row(20), true)]), &mut folded);
    subtasks.checkpoint(&mut files);
    // The first right row is forgotten, the second one is not.
    for restart in [false, true] {
        let mut folded = folded.clone();
        if restart {
            subtasks.restart(&files, 2);
        }
        subtasks.context.set_now_ms(150);
        subtasks.process(0, &batch(&[(row(2), true)]), &mut folded);
        let pairs: Vec<_> =
            folded.keys().map(|(left, right)| (left.clone().unwrap().1, right.clone().unwrap().1)).collect();
        assert_eq!(pairs, [(1, 10), (1, 20), (2, 20)], "restart {restart}");
        // Taking away what is forgotten changes nothing.
        subtasks.process(1, &batch(&[(row(10), false)]), &mut folded);
        assert_eq!(folded.len(), 3);
        subtasks.process(0, &batch(&[(row(2), false)]), &mut folded);
    }
    subtasks.context.set_now_ms(1_200);
    subtasks.checkpoint(&mut files);
    subtasks.context.set_now_ms(2_300);
    subtasks.checkpoint(&mut files);
    let mut later = Folded::new();
    subtasks.process(1, &batch(&[(row(30), true)]), &mut later);
    assert!(later.is_empty(), "the left rows are forgotten too");
}

#[test]
fn files_stay_few_while_rows_come_and_go() {
    let join = join(JoinKind::Full, false, 1, false);
    let mut subtasks = Subtasks::new(&join, [true, true]);
    let mut folded = Folded::new();
    let mut files = Files::default();
    for epoch in 0..200 {
        let row = (Some(epoch % 3), epoch, Some("a name that takes some room".to_owned()));
        subtasks.process(0, &batch(&[(row.clone(), true)]), &mut folded);
        subtasks.process(1, &batch(&[(row.clone(), true)]), &mut folded);
        subtasks.checkpoint(&mut files);
        subtasks.process(0, &batch(&[(row.clone(), false)]), &mut folded);
        subtasks.process(1, &batch(&[(row, false)]), &mut folded);
        assert!(files.files.len() <= 34, "{} files in epoch {epoch}", files.files.len());
    }
    subtasks.checkpoint(&mut files);
    subtasks.restart(&files, 3);
    let row = (Some(1), 1, None);
    subtasks.process(0, &batch(&[(row.clone(), true)]), &mut folded);
    assert_eq!(folded.into_iter().collect::<Vec<_>>(), [((Some(row), None), 1)]);
}
