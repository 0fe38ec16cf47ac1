//! Files of a table of numbers by key, merged as the uploader does it, against a map.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_state::CheckpointStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::state_files::StateFiles;

const GROUPS: u16 = 16;

fn rule() -> MergeRule {
    MergeRule { name: "t", version: 1, key: vec![0], identity: Some(vec![0]), present: Some(2) }
}

fn table(rows: &[(i64, Option<i64>)]) -> TableRows {
    let keys: ArrayRef = Arc::new(rows.iter().map(|(key, _)| Some(*key)).collect::<Int64Array>());
    let values: ArrayRef = Arc::new(rows.iter().map(|(_, value)| *value).collect::<Int64Array>());
    let present: ArrayRef = Arc::new(rows.iter().map(|(_, value)| Some(value.is_some())).collect::<BooleanArray>());
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("k", keys, false),
        ("v", values, true),
        ("present", present, false),
    ]);
    TableRows { name: "t", version: 1, key: vec![0], rows: vec![batch.unwrap()] }
}

struct Job {
    files: StateFiles,
    delta: DeltaFiles,
    /// Of the newest checkpoint.
    handles: Vec<StateHandle>,
    state: BTreeMap<i64, i64>,
    epoch: u64,
    merges: u64,
    whole: usize,
    written: usize,
}

impl Job {
    fn new(delta: DeltaFiles) -> Job {
        let files = StateFiles {
            store: Arc::new(CheckpointStore::in_memory()),
            job: JobId::new("j").unwrap(),
            generation: Generation(1),
            operator: OperatorId(1),
            subtask: 0,
            key_groups: GROUPS,
        };
        let state = BTreeMap::new();
        Job { files, delta, handles: Vec::new(), state, epoch: 0, merges: 0, whole: 0, written: 0 }
    }

    /// A checkpoint with these changes; gives what is to be merged.
    async fn checkpoint(&mut self, changes: BTreeMap<i64, Option<i64>>) -> Option<MergeOrder> {
        self.epoch += 1;
        for (key, value) in &changes {
            match value {
                Some(value) => self.state.insert(*key, *value),
                None => self.state.remove(key),
            };
        }
        let whole = self.delta.wants_whole_state(self.state.len());
        let rows: Vec<_> = match whole {
            true => self.state.iter().map(|(key, value)| (*key, Some(*value))).collect(),
            false => changes.into_iter().collect(),
        };
        self.whole += usize::from(whole);
        let Capture { retained, tables, handle, merge, .. } =
            self.delta.capture(whole, vec![table(&rows)], String::new());
        self.handles = retained.iter().map(|handle| handle.get().unwrap().clone()).collect();
        if let Some(written) = self.files.write(Epoch(self.epoch), "", tables).await.unwrap() {
            handle.set(written.clone()).unwrap();
            self.handles.push(written);
        }
        merge
    }

    async fn carry_out(&mut self, order: MergeOrder) {
        self.merges += 1;
        let merged = order.merged.clone();
        order.carry_out(&self.files, self.merges).await.unwrap();
        self.written += merged.get().unwrap().rows;
    }

    /// What a restore of the newest checkpoint finds, and how many rows it reads.
    async fn restored(&self) -> (BTreeMap<i64, i64>, usize) {
        let (mut state, mut count) = (BTreeMap::new(), 0);
        for handle in &self.handles {
            let (read, _, _) = self.files.read(handle.clone()).await.unwrap();
            for stored in read.tables {
                let rows = stored.rows().unwrap();
                count += rows.num_rows();
                let column = |column: usize| rows.column(column).as_primitive::<Int64Type>();
                for row in 0..rows.num_rows() {
                    match rows.column(2).as_boolean().value(row) {
                        true => state.insert(column(0).value(row), column(1).value(row)),
                        false => state.remove(&column(0).value(row)),
                    };
                }
            }
        }
        (state, count)
    }
}

#[tokio::test]
async fn merged_files_say_what_the_files_said_and_are_few() {
    for seed in 0..4 {
        let mut job = Job::new(DeltaFiles::merged_by(vec![rule()]));
        let mut random = StdRng::seed_from_u64(seed);
        let mut waiting: Option<MergeOrder> = None;
        for _ in 0..300 {
            let changes = (0..random.random_range(0..60)).map(|_| {
                (random.random_range(0..500), random.random_bool(0.7).then(|| random.random_range(0..1_000_000)))
            });
            let order = job.checkpoint(changes.collect()).await;
            assert!(order.is_none() || waiting.is_none(), "one at a time");
            waiting = waiting.or(order);
            // It may take a while.
            if random.random_bool(0.5)
                && let Some(order) = waiting.take()
            {
                job.carry_out(order).await;
            }
            assert!(job.handles.len() < 40, "{} files", job.handles.len());
        }
        assert_eq!(job.restored().await.0, job.state, "seed {seed}");
        assert_eq!(job.whole, 0, "the whole state need not be written");
        assert!(job.merges > 20, "{} merges", job.merges);

        // A new operator goes on with them.
        let mut delta = DeltaFiles::merged_by(vec![rule()]);
        job.handles.iter().for_each(|handle| delta.restored(handle.clone(), 100));
        job.delta = delta;
        for key in 0..40 {
            let order = job.checkpoint(BTreeMap::from([(key, Some(key))])).await;
            if let Some(order) = order {
                job.carry_out(order).await;
            }
        }
        assert_eq!(job.restored().await.0, job.state, "seed {seed}, restored");
    }
}

#[tokio::test]
async fn what_is_gone_leaves_the_files_and_each_row_is_written_a_few_times() {
    let mut job = Job::new(DeltaFiles::merged_by(vec![rule()]));
    let rows = 2_000;
    // Each key comes and goes ten checkpoints later.
    for round in 0..100 {
        let came = (round * rows..(round + 1) * rows).map(|key| (key, Some(key)));
        let gone = ((round - 10) * rows..(round - 9) * rows).filter(|key| *key >= 0).map(|key| (key, None));
        if let Some(order) = job.checkpoint(came.chain(gone).collect()).await {
            job.carry_out(order).await;
        }
    }
    let (state, read) = job.restored().await;
    assert_eq!(state, job.state);
    assert_eq!(job.whole, 0);
    assert!(read < 2 * ROWS_MIN, "{read} rows are read for {} that are there", job.state.len());
    let captured = 200 * rows as usize;
    assert!(job.written < 4 * captured, "{} rows are written by merges, {captured} came", job.written);
}

#[tokio::test]
async fn where_nobody_merges_the_whole_state_is_written() {
    let mut job = Job::new(DeltaFiles::merged_by(vec![rule()]));
    for key in 0..100 {
        // Dropped at once.
        let _ = job.checkpoint(BTreeMap::from([(key, Some(key))])).await;
        assert!(job.handles.len() <= RUNS_MAX, "{} files", job.handles.len());
    }
    assert!(job.whole >= 3, "{} times", job.whole);
    assert_eq!(job.restored().await.0, job.state);
}

#[test]
fn files_of_one_checkpoint_count_as_one() {
    let mut delta = DeltaFiles::default();
    let file = |epoch: u64, start: u16| StateHandle {
        path: format!("{epoch}-{start}"),
        size: 1,
        epoch: Epoch(epoch),
        key_groups: mainstem_core::key_group::KeyGroupRange { start, end: start + 4 },
        crc32c: 0,
    };
    for start in [0, 4, 8] {
        delta.restored(file(1, start), 10);
    }
    delta.restored(file(2, 0), 10);
    delta.restored(file(2, 0), 10);
    let runs: Vec<(usize, usize)> = delta.runs.iter().map(|run| (run.handles.len(), run.rows)).collect();
    assert_eq!(runs, vec![(3, 30), (1, 10), (1, 10)]);
}

/// States that are written whole are so at different times: together they would hold a checkpoint up.
#[test]
fn large_states_are_not_all_written_whole_at_once() {
    let runs_until_whole = |live_rows: usize| {
        let mut delta = DeltaFiles::default();
        let mut runs = 0;
        while !delta.wants_whole_state(live_rows) {
            delta.capture(false, vec![table(&[(1, Some(1))])], String::new());
            runs += 1;
        }
        runs
    };
    let all: std::collections::BTreeSet<usize> = (100_000..100_008).map(runs_until_whole).collect();
    assert_eq!(all, (RUNS_MAX - RUNS_SPREAD + 1..=RUNS_MAX).collect());
    assert_eq!(runs_until_whole(1), RUNS_MAX);
}
