//! What the simulated cluster is asked to do: two jobs, with settings that are drawn, and what must come out of them.

use std::collections::BTreeMap;

use mainstem_core::ids::JobId;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::cluster::{Request, SubmitRequest};

/// Rows of each job.
const ROWS: u64 = 480;
/// Rows a second, by the simulated clock.
const ROWS_PER_SECOND: u64 = 40;
/// Event time between two rows.
const ROW_MS: u64 = 50;
/// Keys of the job with windows.
const KEYS: u64 = 5;

/// A job: its name, its query, and every row that must come out of it, sorted.
pub(super) struct Job {
    pub(super) id: JobId,
    settings: String,
    query: &'static str,
    pub(super) expected: Vec<String>,
}

/// All jobs.
pub(super) fn jobs(random: &mut SmallRng) -> Vec<Job> {
    let id = |name: &str| JobId::new(name).expect("a legal name");
    let windows = "INSERT INTO results SELECT k, MIN(id), COUNT(*), SUM(id) \
                   FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
                   GROUP BY k, window_start, window_end;";
    let rows = "INSERT INTO results SELECT id, k, id * 2, id + k FROM numbers WHERE id % 3 <> 0;";
    vec![
        Job { id: id("windows"), settings: settings(random), query: windows, expected: expected_windows() },
        Job { id: id("rows"), settings: settings(random), query: rows, expected: expected_rows() },
    ]
}

/// How long its barriers wait for rows in flight, and how many stand by for its slots.
fn settings(random: &mut SmallRng) -> String {
    let mut settings = String::new();
    if random.random_bool(0.5) {
        let wait_ms = [0, 0, 5, 50].choose(random).expect("there are some");
        settings += &format!("SET 'execution.checkpointing.aligned-checkpoint-timeout' = '{wait_ms} ms';\n");
    }
    if random.random_bool(0.5) {
        settings += &format!("SET 'standby' = '{}';\n", random.random_range(1..=2));
    }
    settings
}

fn expected_windows() -> Vec<String> {
    let mut groups = BTreeMap::<(u64, u64), Vec<u64>>::new();
    for id in 0..ROWS {
        groups.entry((id * ROW_MS / 1000, id % KEYS)).or_default().push(id);
    }
    let row = |((_, key), ids): ((u64, u64), Vec<u64>)| {
        let (first, count, sum) = (ids[0], ids.len(), ids.iter().sum::<u64>());
        format!("{key} {first} {count} {sum}")
    };
    sorted(groups.into_iter().map(row))
}

fn expected_rows() -> Vec<String> {
    let wanted = (0..ROWS).filter(|id| id % 3 != 0);
    sorted(wanted.map(|id| format!("{id} {} {} {}", id % KEYS, id * 2, id + id % KEYS)))
}

fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    rows
}

impl Job {
    fn sql(&self) -> String {
        let last = ROWS - 1;
        format!(
            "{}SET 'pipeline.max-parallelism' = '16';
SET 'restart-strategy.type' = 'fixed-delay';
SET 'restart-strategy.fixed-delay.attempts' = '1000000';
SET 'restart-strategy.fixed-delay.delay' = '300 ms';
CREATE TABLE numbers (
  id BIGINT, k AS id % {KEYS}, ts AS TO_TIMESTAMP_LTZ(id * {ROW_MS}, 3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH (
  'connector' = 'datagen', 'rows-per-second' = '{ROWS_PER_SECOND}', 'splits' = '4',
  'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '{last}'
);
CREATE TABLE results (a BIGINT, b BIGINT, c BIGINT, d BIGINT) WITH ('connector' = 'simulated');
{}
",
            self.settings, self.query
        )
    }

    /// The command that hands it in, to begin with a savepoint or with nothing.
    pub(super) fn submission(&self, parallelism: u32, from_savepoint: Option<String>) -> Request {
        Request::Submit(SubmitRequest {
            files: vec![(format!("{}.sql", self.id), self.sql())],
            job: Some(self.id.clone()),
            parallelism: Some(parallelism),
            checkpoint_interval_ms: Some(500),
            working_dir: "/".to_owned(),
            from_savepoint,
            repeat_output: false,
        })
    }
}
