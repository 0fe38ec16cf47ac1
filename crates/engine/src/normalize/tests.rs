//! Tests against a naive model: random changes in random batches, with checkpoints and restores at other
//! parallelisms at any point. The output must fold to the model's rows after each batch, and take away only what is
//! there.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use arrow::array::StringArray;
use mainstem_core::key_group::{KeyGroupRange, group_of_hash};
use mainstem_core::protocol::{OperatorSnapshot, StateHandle};
use mainstem_state::{GroupedTable, TableDelta};

use super::*;
use crate::deploy::files_of;
use crate::key_hash::hash_rows;
use crate::uploader::group_rows;

const KEY_GROUPS: u16 = 16;

/// A row: the key (of two columns, one of which may be NULL), another column, and a text.
type Line = (Option<i64>, String, i64, Option<String>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("k1", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("k2", DataType::Utf8, false),
    ]))
}

const KEY: [usize; 2] = [1, 3];

fn batch(lines: &[(ChangeKind, Line)]) -> StreamBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(lines.iter().map(|(_, line)| line.2))),
        Arc::new(Int64Array::from_iter(lines.iter().map(|(_, line)| line.0))),
        Arc::new(StringArray::from_iter(lines.iter().map(|(_, line)| line.3.clone()))),
        Arc::new(StringArray::from_iter_values(lines.iter().map(|(_, line)| line.1.clone()))),
    ];
    let kinds = Int8Array::from_iter_values(lines.iter().map(|(kind, _)| *kind as i8));
    StreamBatch::changelog(RecordBatch::try_new(schema(), columns).unwrap(), kinds)
}

fn lines(batch: &StreamBatch) -> Vec<(ChangeKind, Line)> {
    let number = |column: usize| batch.rows.column(column).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    let text = |column: usize| {
        let texts = batch.rows.column(column).as_string::<i32>().iter();
        texts.map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    let (n, k1, t, k2) = (number(0), number(1), text(2), text(3));
    let line = |row: usize| {
        let kind = batch.changes.as_ref().map_or(0, |changes| changes.value(row));
        let line = (k1[row], k2[row].clone().unwrap(), n[row].unwrap(), t[row].clone());
        (ChangeKind::from_number(kind).unwrap(), line)
    };
    (0..batch.rows.num_rows()).map(line).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// The operator's subtasks, with the files of their checkpoints.
struct Job {
    input: ChangeMode,
    unmatched: Arc<AtomicU64>,
    subtasks: Vec<Normalize>,
    files: BTreeMap<String, Vec<TableDelta>>,
    snapshots: Vec<OperatorSnapshot>,
    epoch: u64,
    /// The rows that the output leaves.
    folded: BTreeMap<Line, usize>,
}

impl Job {
    fn new(input: ChangeMode) -> Job {
        let (files, snapshots, folded) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut job = Job { input, unmatched: Arc::default(), subtasks: vec![], files, snapshots, epoch: 0, folded };
        job.restore(1);
        job
    }

    /// Sends a batch to the subtasks that own its keys, and folds what they give.
    fn process(&mut self, changes: &[(ChangeKind, Line)]) {
        let incoming = batch(changes);
        let keys = KEY.map(|column| incoming.rows.column(column).clone());
        let hashes = hash_rows(&keys, changes.len()).unwrap();
        let parallelism = u32::try_from(self.subtasks.len()).unwrap();
        for index in 0..parallelism {
            let range = KeyGroupRange::of_subtask(KEY_GROUPS, parallelism, index);
            let own = hashes.iter().map(|hash| Some(range.contains(group_of_hash(*hash, KEY_GROUPS))));
            let own = incoming.filter(&BooleanArray::from_iter(own)).unwrap();
            if own.rows.num_rows() == 0 {
                continue;
            }
            let mut out = Collector::default();
            self.subtasks[index as usize].process(0, own, &mut out).unwrap();
            for given in out.main {
                self.fold(&lines(&given));
            }
        }
    }

    fn fold(&mut self, changes: &[(ChangeKind, Line)]) {
        for (at, (kind, line)) in changes.iter().enumerate() {
            match kind {
                ChangeKind::UpdateBefore => {
                    let (next, after) = &changes[at + 1];
                    assert_eq!((*next, &after.0, &after.1), (ChangeKind::UpdateAfter, &line.0, &line.1));
                    assert_ne!(after, line, "an update that changes nothing");
                }
                ChangeKind::UpdateAfter => assert_eq!(changes[at - 1].0, ChangeKind::UpdateBefore),
                _ => {}
            }
            if kind.is_addition() {
                *self.folded.entry(line.clone()).or_default() += 1;
            } else {
                let count = self.folded.get_mut(line).unwrap_or_else(|| panic!("{line:?} is not there"));
                *count -= 1;
                self.folded.retain(|_, count| *count > 0);
            }
        }
    }

    fn checkpoint(&mut self) {
        self.epoch += 1;
        self.snapshots.clear();
        for (index, subtask) in self.subtasks.iter_mut().enumerate() {
            let capture = subtask.capture(Epoch(self.epoch)).unwrap().unwrap();
            let mut state: Vec<StateHandle> = capture.retained.iter().map(|file| file.get().unwrap().clone()).collect();
            let tables = capture.tables.into_iter().filter(|table| !table.rows.is_empty());
            let deltas: Vec<TableDelta> = tables.map(|table| delta(group_rows(table, KEY_GROUPS).unwrap())).collect();
            if let Some(groups) = deltas.first().map(|delta| &delta.key_groups) {
                let path = format!("{}-{index}", self.epoch);
                let key_groups = KeyGroupRange { start: groups[0], end: groups[groups.len() - 1] + 1 };
                let handle = StateHandle { path, size: 0, crc32c: 0, key_groups, epoch: Epoch(self.epoch) };
                capture.handle.set(handle.clone()).unwrap();
                self.files.insert(handle.path.clone(), deltas);
                state.push(handle);
            }
            self.snapshots.push(OperatorSnapshot { state, ..OperatorSnapshot::default() });
        }
    }

    /// Starts new subtasks from the last checkpoint.
    fn restore(&mut self, parallelism: u32) {
        self.subtasks.clear();
        for index in 0..parallelism {
            let range = KeyGroupRange::of_subtask(KEY_GROUPS, parallelism, index);
            let mut subtask = Normalize::new(
                "test",
                KEY.to_vec(),
                schema(),
                (self.input, ChangeMode::Retract),
                false,
                self.unmatched.clone(),
            )
            .unwrap();
            for handle in files_of(self.snapshots.iter(), range) {
                let deltas = self.files[&handle.path].iter();
                let tables = deltas.map(|delta| (delta.table.clone(), delta.version, part(delta, handle.key_groups)));
                subtask.restore(Restored::decoded(handle.clone(), tables)).unwrap();
            }
            subtask.restored().unwrap();
            self.subtasks.push(subtask);
        }
    }
}

/// The rows of some key groups.
/// As it is read back.
fn delta(grouped: GroupedTable) -> TableDelta {
    let rows = grouped.rows(0..grouped.len()).unwrap();
    let GroupedTable { table, version, key, key_groups, .. } = grouped;
    TableDelta { table, version, key, key_groups, rows }
}

fn part(delta: &TableDelta, range: KeyGroupRange) -> RecordBatch {
    let start = delta.key_groups.partition_point(|group| *group < range.start);
    let end = delta.key_groups.partition_point(|group| *group < range.end);
    delta.rows.slice(start, end - start)
}

/// The rows that count, by the model.
trait Model {
    /// The next change, which is also applied.
    fn change(&mut self, random: &mut Random) -> Vec<(ChangeKind, Line)>;

    fn rows(&self) -> Vec<Line>;
}

fn random_line(random: &mut Random, keys: u64) -> Line {
    let k1 = (random.below(7) > 0).then(|| random.below(keys) as i64);
    let text = (random.below(4) > 0).then(|| format!("text {}", random.below(3)));
    (k1, ["", "x"][random.below(2) as usize].to_owned(), random.below(3) as i64, text)
}

/// Rows by key, as a source gives them that only says what replaces what.
#[derive(Default)]
struct ByKey(BTreeMap<(Option<i64>, String), Line>);

impl Model for ByKey {
    fn change(&mut self, random: &mut Random) -> Vec<(ChangeKind, Line)> {
        let line = random_line(random, 20);
        let key = (line.0, line.1.clone());
        if random.below(4) > 0 {
            self.0.insert(key, line.clone());
            let kind = [ChangeKind::Insert, ChangeKind::UpdateAfter][random.below(2) as usize];
            // What it replaces may be told, rightly or wrongly.
            let before = (random.below(5) == 0).then(|| (ChangeKind::UpdateBefore, (line.0, line.1.clone(), 99, None)));
            return before.into_iter().chain([(kind, line)]).collect();
        }
        self.0.remove(&key);
        // Only the key is known.
        vec![(ChangeKind::Delete, (key.0, key.1, 0, None))]
    }

    fn rows(&self) -> Vec<Line> {
        let mut rows: Vec<Line> = self.0.values().cloned().collect();
        rows.sort();
        rows
    }
}

/// Rows that are told apart by something else than the key, each of which is taken away as it was given.
#[derive(Default)]
struct Whole {
    /// The row of each identity.
    rows: BTreeMap<u64, Line>,
    /// By key, in the order of arrival.
    stacks: BTreeMap<(Option<i64>, String), Vec<Line>>,
}

impl Whole {
    fn add(&mut self, line: &Line) {
        self.stacks.entry((line.0, line.1.clone())).or_default().push(line.clone());
    }

    fn remove(&mut self, line: &Line) {
        let stack = self.stacks.get_mut(&(line.0, line.1.clone())).unwrap();
        // Of equal rows, the newest goes: they cannot be told apart.
        let at = stack.iter().rposition(|other| other == line).unwrap();
        stack.remove(at);
    }
}

impl Model for Whole {
    fn change(&mut self, random: &mut Random) -> Vec<(ChangeKind, Line)> {
        let id = random.below(40);
        let old = self.rows.remove(&id);
        let new = (random.below(4) > 0).then(|| random_line(random, 6));
        let mut changes = Vec::new();
        let update = old.is_some() && new.is_some();
        if let Some(old) = old {
            self.remove(&old);
            changes.push((if update { ChangeKind::UpdateBefore } else { ChangeKind::Delete }, old));
        }
        if let Some(new) = new {
            self.add(&new);
            self.rows.insert(id, new.clone());
            changes.push((if update { ChangeKind::UpdateAfter } else { ChangeKind::Insert }, new));
        }
        changes
    }

    fn rows(&self) -> Vec<Line> {
        let mut rows: Vec<Line> = self.stacks.values().filter_map(|stack| stack.last().cloned()).collect();
        rows.sort();
        rows
    }
}

/// Runs changes through the operator; the model's state at the last checkpoint is what a restore goes back to.
fn run<M: Model>(input: ChangeMode, seed: u64, mut model: M) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut job = Job::new(input);
    for _ in 0..400 {
        let mut changes = Vec::new();
        for _ in 0..random.below(12) {
            changes.extend(model.change(&mut random));
        }
        // A batch may end between the two halves of an update.
        let cut = random.below(changes.len() as u64 + 1) as usize;
        for piece in [&changes[..cut], &changes[cut..]] {
            if !piece.is_empty() {
                job.process(piece);
            }
        }
        let folded: Vec<Line> = job.folded.keys().cloned().collect();
        assert_eq!(folded, model.rows(), "seed {seed}");
        assert!(job.folded.values().all(|count| *count == 1), "seed {seed}: one row a key");
        if random.below(3) > 0 {
            job.checkpoint();
            if random.below(8) == 0 {
                job.restore(1 + u32::try_from(random.below(5)).unwrap());
            }
        }
    }
    assert_eq!(job.unmatched.load(Ordering::Relaxed), 0);
    assert!(job.files.len() > 100, "files were written, and replaced by others");
}

#[test]
fn input_by_key_becomes_complete() {
    for seed in 0..30 {
        run(ChangeMode::Upsert, seed, ByKey::default());
    }
}

#[test]
fn complete_input_is_told_by_another_key() {
    for seed in 0..30 {
        run(ChangeMode::Retract, seed, Whole::default());
    }
}

#[test]
fn a_restore_goes_back_to_the_checkpoint() {
    let mut job = Job::new(ChangeMode::Upsert);
    let line = |n: i64| (Some(1), "k".to_owned(), n, None);
    job.process(&[(ChangeKind::Insert, line(1))]);
    job.checkpoint();
    let folded = job.folded.clone();
    job.process(&[(ChangeKind::UpdateAfter, line(2))]);
    job.restore(3);
    job.folded = folded;
    job.process(&[(ChangeKind::UpdateAfter, line(3))]);
    assert_eq!(job.folded.into_keys().collect::<Vec<_>>(), [line(3)]);
}

#[test]
fn state_by_key_does_not_grow_with_updates() {
    let mut job = Job::new(ChangeMode::Upsert);
    for n in 0..1000 {
        job.process(&[(ChangeKind::UpdateAfter, (Some(1), "k".to_owned(), n, None))]);
    }
    assert_eq!(job.subtasks[0].table.len(), 1);
    job.process(&[(ChangeKind::Delete, (Some(1), "k".to_owned(), 0, None))]);
    assert_eq!((job.subtasks[0].table.len(), job.folded.len()), (0, 0), "no row of before comes back");
}

#[test]
fn what_is_not_there_cannot_be_taken_away_but_is_counted() {
    let mut job = Job::new(ChangeMode::Retract);
    let line = |n: i64| (Some(1), "k".to_owned(), n, None);
    job.process(&[(ChangeKind::Insert, line(1)), (ChangeKind::Delete, line(2)), (ChangeKind::UpdateBefore, line(3))]);
    assert_eq!(job.folded.keys().cloned().collect::<Vec<_>>(), [line(1)]);
    assert_eq!(job.unmatched.load(Ordering::Relaxed), 2);
}

#[test]
fn what_is_replaced_is_left_out_where_nobody_needs_it() {
    let changes = (ChangeMode::Upsert, ChangeMode::Upsert);
    let mut operator = Normalize::new("test", KEY.to_vec(), schema(), changes, false, Arc::default()).unwrap();
    let line = |n: i64| (Some(1), "k".to_owned(), n, None);
    let mut out = Collector::default();
    for n in 0..2 {
        operator.process(0, batch(&[(ChangeKind::UpdateAfter, line(n))]), &mut out).unwrap();
    }
    let given: Vec<_> = out.main.iter().flat_map(lines).collect();
    assert_eq!(given, [(ChangeKind::Insert, line(0)), (ChangeKind::UpdateAfter, line(1))]);
}

/// Who joins with the version of a time needs every row that counts for a while, and from when it is gone.
#[test]
fn each_version_is_given_with_the_time_from_which_it_counts() {
    use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let line = |n: i64| (Some(1), "k".to_owned(), n, None);
    let changes = [
        (Insert, line(5)),
        (UpdateBefore, line(5)),
        (UpdateAfter, line(15)),
        (UpdateBefore, line(15)),
        (UpdateAfter, line(25)),
        (Delete, line(25)),
        (Insert, line(35)),
    ];
    let mut incoming = batch(&changes);
    incoming.own_watermark = Some(Int64Array::from(vec![0, 14, 14, 24, 24, 26, 26]));
    let given = |versions: bool, batch: &StreamBatch| {
        let modes = (ChangeMode::Retract, ChangeMode::Retract);
        let mut operator = Normalize::new("test", KEY.to_vec(), schema(), modes, versions, Arc::default()).unwrap();
        let mut out = Collector::default();
        operator.process(0, batch.clone(), &mut out).unwrap();
        let own = |batch: &StreamBatch| batch.own_watermark.as_ref().map(|own| own.values().to_vec());
        (out.main.iter().flat_map(lines).map(|(kind, line)| (kind, line.2)).collect::<Vec<_>>(), own(&out.main[0]))
    };
    assert_eq!(given(false, &incoming), (vec![(Insert, 35)], None));
    let pairs =
        [(Insert, 5), (UpdateBefore, 5), (UpdateAfter, 15), (UpdateBefore, 15), (UpdateAfter, 25), (Delete, 25)];
    let expected = [&pairs[..], &[(Insert, 35)]].concat();
    assert_eq!(given(true, &incoming), (expected, Some(vec![0, 14, 14, 24, 24, 26, 26])));
    // What replaces a row was filtered out.
    let filtered = incoming.filter(&BooleanArray::from(vec![true, true, true, true, false, false, true])).unwrap();
    let expected = vec![(Insert, 5), (UpdateBefore, 5), (UpdateAfter, 15), (Delete, 15), (Insert, 35)];
    assert_eq!(given(true, &filtered), (expected, Some(vec![0, 14, 14, 24, 26])));
    // The same, and the next version of the key stands right behind.
    let filtered = incoming.filter(&BooleanArray::from(vec![true, true, false, false, true, false, false])).unwrap();
    let expected = vec![(Insert, 5), (Delete, 5), (Insert, 25)];
    assert_eq!(given(true, &filtered), (expected, Some(vec![0, 14, 24])));
}
