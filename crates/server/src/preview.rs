//! The first rows that a query gives. It runs as any job, but apart from all others: on threads of its own, with memory of its
//! own and state that goes with it. Its rows come to the caller instead of going to a table; nobody outside learns that it has
//! read. Called by the HTTP port.
//!
//! Never writes to a table, and never outlives its caller.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_connectors::{CollectedRows, RowForm, collect};
use mainstem_coordinator::{CheckpointOptions, JobOutcome};
use mainstem_core::change::ChangeKind;
use mainstem_core::ids::JobId;
use mainstem_core::job::JobState;
use mainstem_core::retry::RetryPolicy;
use mainstem_engine::MemoryBudget;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_planner::JobPlan;
use mainstem_rt::{Clock, SystemClock};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::sleep;

use crate::embedded::{Launch, Scratch, launch, watched};
use crate::job;
use crate::run::Runtimes;
use crate::status::Totals;

/// Memory for its state. What does not fit is put aside, or ends it.
const MEMORY_BYTES: u64 = 128 << 20;
/// Time between checkpoints: what waits for the end of an epoch is shown soon.
const CHECKPOINT_INTERVAL_MS: i64 = 500;
/// A longer value is cut.
const VALUE_CHARACTERS_MAX: usize = 2_000;
/// All values together.
const BYTES_MAX: usize = 1 << 20;
/// What is under way when it ends is waited for so long, before its files are removed.
const END_WITHIN: Duration = Duration::from_millis(500);

/// What is to be shown.
pub(crate) struct Query {
    /// With the query as its first sink.
    pub(crate) plan: JobPlan,
    /// The text that it was planned from.
    pub(crate) sql: String,
    /// Rows at most; at least one.
    pub(crate) rows_max: usize,
    /// Time at most, from now on.
    pub(crate) time_max: Duration,
}

/// What has come.
pub(crate) struct Preview {
    pub(crate) rows: Vec<(ChangeKind, Vec<Option<String>>)>,
    /// Values that were cut.
    pub(crate) cut_values: u64,
    pub(crate) end: End,
    pub(crate) totals: Totals,
    pub(crate) duration_ms: u64,
}

/// Why there are no more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The query has none.
    Finished,
    /// As many as are wanted are there.
    Rows,
    /// The time is over.
    Time,
    /// The next one would be too much.
    Bytes,
}

/// Runs a query until enough of it is there. Dropping the future ends it. The permit is given back when nothing of it is left.
///
/// # Errors
/// Why the query has failed, or could not begin.
pub(crate) async fn preview(query: Query, permit: OwnedSemaphorePermit) -> anyhow::Result<Preview> {
    let (mut answer, given) = oneshot::channel();
    let work = move || {
        let outcome = run(query, &mut answer);
        drop(permit);
        // Where nobody waits, it was ended for that.
        let _ = answer.send(outcome);
    };
    std::thread::Builder::new().name("preview".to_owned()).spawn(work).context("cannot start a thread")?;
    given.await.context("bug: a preview ended without an answer; please report it")?
}

fn run(query: Query, caller: &mut oneshot::Sender<anyhow::Result<Preview>>) -> anyhow::Result<Preview> {
    let control = Builder::new_current_thread().enable_all().build();
    let data = Builder::new_multi_thread().worker_threads(1).thread_name("preview-data").enable_all().build();
    let runtimes =
        Runtimes { control: control.context("cannot start threads")?, data: data.context("cannot start threads")? };
    let scratch = Scratch::new("preview")?;
    let outcome = runtimes.control.block_on(async {
        tokio::select! {
            outcome = show(&runtimes, query, scratch.path()) => outcome,
            () = caller.closed() => bail!("nobody waits for the rows any more"),
        }
    });
    let Runtimes { control, data } = runtimes;
    data.shutdown_timeout(END_WITHIN);
    control.block_on(scratch.remove());
    control.shutdown_timeout(END_WITHIN);
    outcome
}

async fn show(runtimes: &Runtimes, query: Query, scratch: &Path) -> anyhow::Result<Preview> {
    let clock = SystemClock::default();
    let began = clock.now();
    let mut over = pin!(sleep(query.time_max));
    let mut collector = collect(RowForm::Cells);
    let graph = watched(&query.plan, &collector);
    let sources = sources(&graph);
    let late = || {
        let seconds = query.time_max.as_secs_f64();
        format!(
            "the query could not begin within {seconds} s: nothing has come from {sources} so far; see whether this node \
             reaches it, or give it more time"
        )
    };
    let launched = Launch {
        job: JobId::new("preview").expect("a legal name"),
        graph,
        sql: query.sql,
        state_dir: scratch.to_owned(),
        parallelism: 1,
        key_groups: job::key_groups(&query.plan)?,
        options: options(),
        memory: MemoryBudget::new(MEMORY_BYTES, scratch, || {}),
        unheard: true,
    };
    let mut running = tokio::select! {
        running = launch(runtimes, launched) => running?,
        () = &mut over => bail!("{}", late()),
    };
    let mut rows = Rows::new(query.rows_max);
    let end = loop {
        tokio::select! {
            more = collector.next() => if let Some(end) = rows.take(more) { break end },
            outcome = &mut running.outcome => {
                match outcome.context("bug: the coordinator of a preview has ended unexpectedly")? {
                    JobOutcome::Failed(failure) => bail!("the query failed: {}", failure.message),
                    JobOutcome::Finished | JobOutcome::AlreadyFinished | JobOutcome::Stopped => {}
                }
                break std::iter::from_fn(|| collector.waiting()).find_map(|more| rows.take(more)).unwrap_or(End::Finished);
            }
            () = &mut over => break End::Time,
        }
    };
    let has_begun = !matches!(running.status.borrow().state, JobState::Created | JobState::Starting);
    if end == End::Time && !has_begun {
        bail!("{}", late());
    }
    let totals = running.totals();
    if !running.outcome.is_finished() {
        // Nobody needs its last checkpoint.
        running.outcome.abort();
        let _ = (&mut running.outcome).await;
    }
    let duration_ms = u64::try_from(clock.now().since_ms(began)).unwrap_or_default();
    Ok(Preview { rows: rows.rows, cut_values: rows.cut_values, end, totals, duration_ms })
}

/// A failure is told at once: who waits for the rows can ask again.
fn options() -> CheckpointOptions {
    let once = |policy| RetryPolicy { retries_max: 0, ..policy };
    CheckpointOptions {
        interval_ms: CHECKPOINT_INTERVAL_MS,
        restart: once(RetryPolicy::RESTART),
        operation: once(RetryPolicy::OPERATION),
        ..CheckpointOptions::default()
    }
}

/// What a graph reads, for people.
fn sources(graph: &JobGraph) -> String {
    let named = |kind: &OperatorKind| match kind {
        OperatorKind::Source(source) => Some(format!("'{}'", source.table.name)),
        _ => None,
    };
    graph.nodes.iter().filter_map(|node| named(&node.op.kind)).collect::<Vec<_>>().join(", ")
}

/// Rows within bounds.
struct Rows {
    rows: Vec<(ChangeKind, Vec<Option<String>>)>,
    rows_max: usize,
    bytes_left: usize,
    cut_values: u64,
}

impl Rows {
    fn new(rows_max: usize) -> Rows {
        Rows { rows: Vec::new(), rows_max, bytes_left: BYTES_MAX, cut_values: 0 }
    }

    /// Takes what fits; says so when that is all.
    fn take(&mut self, more: CollectedRows) -> Option<End> {
        for (kind, mut row) in more.kinds.into_iter().zip(more.rows) {
            let mut cut_values = 0;
            for value in row.iter_mut().flatten() {
                cut_values += u64::from(cut(value));
            }
            let bytes = row.iter().flatten().map(String::len).sum::<usize>();
            let Some(left) = self.bytes_left.checked_sub(bytes) else { return Some(End::Bytes) };
            self.bytes_left = left;
            self.cut_values += cut_values;
            self.rows.push((kind, row));
            if self.rows.len() == self.rows_max {
                return Some(End::Rows);
            }
        }
        None
    }
}

/// Cuts a long value.
fn cut(value: &mut String) -> bool {
    let Some((end, _)) = value.char_indices().nth(VALUE_CHARACTERS_MAX) else { return false };
    value.truncate(end);
    value.push('…');
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[&str]) -> CollectedRows {
        let rows: Vec<_> = values.iter().map(|value| vec![Some((*value).to_owned()), None]).collect();
        CollectedRows { kinds: vec![ChangeKind::Insert; rows.len()], rows }
    }

    #[test]
    fn rows_are_taken_up_to_each_bound() {
        let mut rows = Rows::new(3);
        assert_eq!(rows.take(some(&["a", "b"])), None);
        assert_eq!(rows.take(some(&["c", "d"])), Some(End::Rows));
        assert_eq!((rows.rows.len(), rows.cut_values), (3, 0));

        let long = "ä".repeat(VALUE_CHARACTERS_MAX + 1);
        let mut rows = Rows::new(usize::MAX);
        assert_eq!(rows.take(some(&[&long])), None);
        assert_eq!(rows.rows[0].1[0].as_ref().map(|value| value.chars().count()), Some(VALUE_CHARACTERS_MAX + 1));
        assert!(rows.rows[0].1[0].as_ref().is_some_and(|value| value.ends_with("ä…")));
        let end = std::iter::repeat_with(|| rows.take(some(&[&long]))).find_map(|end| end);
        assert_eq!(end, Some(End::Bytes));
        let bytes: usize = rows.rows.iter().flat_map(|(_, row)| row.iter().flatten()).map(String::len).sum();
        assert!(bytes <= BYTES_MAX && bytes > BYTES_MAX - 2 * long.len(), "{bytes}");
        assert_eq!(rows.cut_values, rows.rows.len() as u64);
    }
}
