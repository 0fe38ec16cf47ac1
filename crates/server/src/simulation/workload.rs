//! What the simulated cluster is asked to do: two jobs, what must come out of them, and the user who submits them, changes
//! them on their way, and wants them to finish.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstem_coordinator::JobEnd;
use mainstem_coordinator::cluster::Wish;
use mainstem_core::ids::JobId;
use mainstem_net::{Hello, RpcClient, RpcError, Service, Transport};
use rand::Rng;

use super::node::CLUSTER;
use super::weather::{Host, Weather};
use crate::cluster::{Request, Response, SubmitRequest};

/// Rows of each job.
const ROWS: u64 = 480;
/// Rows a second, by the simulated clock.
const ROWS_PER_SECOND: u64 = 40;
/// Event time between two rows.
const ROW_MS: u64 = 50;
/// Keys of the job with windows.
const KEYS: u64 = 5;
/// How long a coordinator may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Wait between two looks at the jobs.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A job: its name, its query, and every row that must come out of it, sorted.
pub(super) struct Job {
    pub(super) id: JobId,
    query: &'static str,
    pub(super) expected: Vec<String>,
}

/// All jobs.
pub(super) fn jobs() -> Vec<Job> {
    let id = |name: &str| JobId::new(name).expect("a legal name");
    let windows = "INSERT INTO results SELECT k, MIN(id), COUNT(*), SUM(id) \
                   FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
                   GROUP BY k, window_start, window_end;";
    let rows = "INSERT INTO results SELECT id, k, id * 2, id + k FROM numbers WHERE id % 3 <> 0;";
    vec![
        Job { id: id("windows"), query: windows, expected: expected_windows() },
        Job { id: id("rows"), query: rows, expected: expected_rows() },
    ]
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
            "SET 'pipeline.max-parallelism' = '16';
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
            self.query
        )
    }

    fn submission(&self, parallelism: u32) -> Request {
        Request::Submit(SubmitRequest {
            files: vec![(format!("{}.sql", self.id), self.sql())],
            job: Some(self.id.clone()),
            parallelism: Some(parallelism),
            checkpoint_interval_ms: Some(500),
            working_dir: "/".to_owned(),
            from_savepoint: None,
            repeat_output: false,
        })
    }
}

/// What the user sees, for those who look at the run.
#[derive(Clone, Default)]
pub(super) struct Progress {
    ended: Arc<Mutex<BTreeMap<JobId, JobEnd>>>,
}

impl Progress {
    /// How a job has ended, where the coordinator that leads says so.
    pub(super) fn end(&self, job: &JobId) -> Option<JobEnd> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(job).cloned()
    }

    fn set(&self, job: &JobId, end: Option<&JobEnd>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match end {
            Some(end) => _ = ended.insert(job.clone(), end.clone()),
            None => _ = ended.remove(job),
        }
    }
}

/// The user at the command line.
pub(super) struct User {
    weather: Weather,
    clients: Vec<RpcClient>,
    progress: Progress,
    /// Whether the user changes jobs while they run.
    is_busy: bool,
}

impl User {
    /// Must be made within the runtime on which the user's commands run.
    pub(super) fn new(weather: Weather, transport: &Transport, progress: Progress, is_busy: bool) -> User {
        let hello = Hello::new(Service::Client, "client", CLUSTER);
        let client = |host: Host| RpcClient::new(transport.clone(), &host.address(), hello.clone());
        User { weather, clients: Host::coordinators().map(client).collect(), progress, is_busy }
    }

    /// Submits all jobs, changes them now and then while `may_change` says so, and has them run until they have finished.
    pub(super) async fn run(self, may_change: impl Fn() -> bool) {
        let jobs = jobs();
        let mut known: BTreeMap<JobId, bool> = BTreeMap::new();
        loop {
            for job in &jobs {
                if !known.get(&job.id).copied().unwrap_or(false) {
                    self.ask(&job.submission(self.draw(1, 3)), &format!("submit '{}'", job.id)).await;
                }
            }
            if self.is_busy && may_change() && self.draw(0, 9) == 0 {
                let job = &jobs[self.draw(0, jobs.len() as u32 - 1) as usize].id;
                self.change(job).await;
            }
            if let Some(active) = self.look().await {
                known = active;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn change(&self, job: &JobId) {
        let (request, what) = match self.draw(0, 3) {
            0 => (Request::Wish { job: job.clone(), wish: Wish::Stop }, format!("stop '{job}'")),
            _ => {
                let parallelism = self.draw(1, 4);
                (Request::Rescale { job: job.clone(), parallelism }, format!("rescale '{job}' to {parallelism}"))
            }
        };
        self.weather.count("changes by the user");
        self.ask(&request, &what).await;
    }

    /// Which jobs need not be submitted: those that run or have finished.
    async fn look(&self) -> Option<BTreeMap<JobId, bool>> {
        for client in &self.clients {
            let answer = client.call::<_, Response>(&Request::Jobs, ANSWER_WITHIN).await;
            let Ok(Response::Jobs { leads: true, jobs, .. }) = answer else { continue };
            for summary in &jobs {
                self.progress.set(&summary.job, summary.end.as_ref().filter(|_| !summary.active));
                if let (false, Some(JobEnd::Failed { reason })) = (summary.active, &summary.end) {
                    self.weather.violation(format!("job '{}' failed for good: {reason}", summary.job));
                }
            }
            let is_seen_to = |end: Option<&JobEnd>, active| active || end == Some(&JobEnd::Finished);
            return Some(jobs.into_iter().map(|job| (job.job, is_seen_to(job.end.as_ref(), job.active))).collect());
        }
        None
    }

    /// Asks whoever leads.
    async fn ask(&self, request: &Request, what: &str) {
        for client in &self.clients {
            match client.call::<_, Response>(request, ANSWER_WITHIN).await {
                Ok(Response::NotLeader { .. }) | Err(RpcError::Unreachable(_)) => {}
                Ok(Response::Refused { reason }) => return self.note(what, &format!("refused: {reason}")),
                Ok(Response::Unknown { reason }) => self.note(what, &reason),
                Ok(_) => return self.note(what, "done"),
                // Whether it was done is not known.
                Err(error) => self.note(what, &error.to_string()),
            }
        }
    }

    fn note(&self, what: &str, answer: &str) {
        self.weather.note(&format!("user: {what}: {answer}"));
    }

    fn draw(&self, from: u32, to: u32) -> u32 {
        self.weather.lock().random.random_range(from..=to)
    }
}
