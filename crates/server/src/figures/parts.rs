//! What is told of one job, part by part.

use mainstem_coordinator::{CheckpointNote, CheckpointStage, EventKind, EventNote, FailureNote, HistoryView};
use mainstem_core::ids::OperatorId;
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::JobGraph;
use serde::Serialize;

use crate::hidden;

use super::model::{
    BadRecords, BadRecordsAnswer, Checkpoint, CheckpointTotals, CheckpointsAnswer, Commit, CommitsAnswer, Event,
    ExceptionNote, ExceptionsAnswer, GraphAnswer, JobConfigurationAnswer, LagAnswer, LineageAnswer, Operator, Point,
    SinkOrigins, Slowest, SourceLag, Subtask, TableConfiguration, TimelineAnswer, Unpublished,
};
use super::samples::{Rates, SAMPLE_EVERY, Shares};
use super::summary::shown_watermark;
use super::{Known, Shape, ShapeOperator};

/// Events of a job, and where the next question begins.
#[derive(Serialize)]
pub(super) struct EventsAnswer {
    now_ms: i64,
    /// When the history began that they are of; 0: there is none.
    began_at: i64,
    state: String,
    generation: u64,
    active: bool,
    events: Vec<Event>,
}

pub(super) fn graph(known: &Known, now: Timestamp) -> GraphAnswer {
    GraphAnswer {
        stale: false,
        now_ms: now.0,
        job: known.view.job.to_string(),
        generation: known.view.generation.0,
        parallelism: known.view.parallelism,
        operators: known.shape.operators.iter().map(|operator| known.operator(operator)).collect(),
        edges: known.shape.edges.clone(),
    }
}

pub(super) fn lineage(known: &Known, now: Timestamp) -> LineageAnswer {
    let sinks = known.shape.lineage.clone();
    LineageAnswer { stale: false, now_ms: now.0, job: known.view.job.to_string(), sinks }
}

/// The dataflow of a job that does not run, and where the columns of its sinks come from.
pub(crate) fn planned_graph(
    job: &str,
    graph: &JobGraph,
    parallelism: u32,
    now: Timestamp,
) -> (GraphAnswer, Vec<SinkOrigins>) {
    let shape = Shape::of(graph);
    let operator = |operator: &ShapeOperator| Operator::new(operator, parallelism);
    let graph = GraphAnswer {
        stale: false,
        now_ms: now.0,
        job: job.to_owned(),
        generation: 0,
        parallelism,
        operators: shape.operators.iter().map(operator).collect(),
        edges: shape.edges,
    };
    (graph, shape.lineage)
}

impl Operator {
    /// Without figures.
    fn new(operator: &ShapeOperator, parallelism: u32) -> Operator {
        Operator {
            id: operator.id.0,
            name: operator.name.clone(),
            kind: operator.kind.to_owned(),
            table: operator.table_name().map(str::to_owned),
            connector: operator.connector().map(str::to_owned),
            task: operator.task.0,
            parallelism: operator.parallelism.unwrap_or(parallelism),
            rows_in: 0,
            rows_out: 0,
            rows_in_per_second: None,
            rows_out_per_second: None,
            bytes_read: 0,
            late_rows: 0,
            dropped_records: 0,
            dead_letters: 0,
            unmatched_changes: 0,
            busy: None,
            backpressured: None,
            idle: None,
            watermark_ms: None,
            watermark_at_end: false,
            state_rows: None,
            state_bytes: None,
            lag: None,
            subtasks: Vec::new(),
        }
    }
}

impl Known {
    fn operator(&self, shape: &ShapeOperator) -> Operator {
        let bare = Operator::new(shape, self.view.parallelism);
        let Some(counters) = self.view.counters.get(&shape.id) else { return bare };
        let shares = self.shares(shape.task);
        let mean = Shares::mean(&shares.iter().map(|(_, shares)| *shares).collect::<Vec<_>>());
        let (watermark_ms, watermark_at_end) = shown_watermark(self.watermark_of(shape.id));
        let size = self.view.status.as_ref().and_then(|status| status.state_sizes.get(&shape.id));
        let rates: &Rates = &self.rates;
        Operator {
            rows_in: counters.rows_in,
            rows_out: counters.rows_out,
            rows_in_per_second: rates.of(counters, shape.id, |counters| counters.rows_in),
            rows_out_per_second: rates.of(counters, shape.id, |counters| counters.rows_out),
            bytes_read: counters.bytes_read,
            late_rows: counters.late_rows,
            dropped_records: counters.dropped_records,
            dead_letters: counters.dead_letters,
            unmatched_changes: counters.unmatched_changes,
            busy: mean.busy,
            backpressured: mean.backpressured,
            idle: mean.idle,
            watermark_ms,
            watermark_at_end,
            state_rows: size.map(|size| size.rows),
            state_bytes: size.map(|size| size.bytes),
            lag: self.lag(shape),
            subtasks: self.subtasks(shape, &shares),
            ..bare
        }
    }

    fn subtasks(&self, shape: &ShapeOperator, shares: &[(u32, Shares)]) -> Vec<Subtask> {
        let Some(counters) = self.view.counters.get(&shape.id) else { return Vec::new() };
        let subtask = |counted: &mainstem_core::cluster::messages::SubtaskCounters| {
            let of = |(index, _): &&(u32, Shares)| *index == counted.index;
            let shares = shares.iter().find(of).map(|(_, shares)| *shares).unwrap_or_default();
            let watermark = counters.watermarks.iter().find(|(index, _)| *index == counted.index);
            let watermark = watermark.map_or(Timestamp::MIN, |(_, watermark)| *watermark);
            let (watermark_ms, watermark_at_end) = shown_watermark(watermark);
            Subtask {
                index: counted.index,
                worker: self.view.slots.get(counted.index as usize).map(|worker| worker.0.clone()),
                rows_in: counted.rows_in,
                rows_out: counted.rows_out,
                rows_in_per_second: self.rates.of_subtask(counted, shape.id, |counted| counted.rows_in),
                rows_out_per_second: self.rates.of_subtask(counted, shape.id, |counted| counted.rows_out),
                busy: shares.busy,
                backpressured: shares.backpressured,
                idle: shares.idle,
                watermark_ms,
                watermark_at_end,
            }
        };
        // The first subtask of a stage of one is told by whichever worker runs it, and by no other.
        let parallelism = shape.parallelism.unwrap_or(self.view.parallelism);
        let mut subtasks: Vec<Subtask> = counters.subtasks.iter().map(subtask).collect();
        subtasks.retain(|subtask| subtask.index < parallelism);
        subtasks.sort_by_key(|subtask| subtask.index);
        subtasks
    }

    fn remembered(&self) -> HistoryView {
        self.history.as_ref().map(|history| history.view()).unwrap_or_default()
    }
}

pub(super) fn checkpoints(known: &Known, now: Timestamp) -> CheckpointsAnswer {
    let HistoryView { totals, checkpoints, .. } = known.remembered();
    let shown = |note: CheckpointNote| Checkpoint {
        epoch: note.epoch.0,
        generation: note.generation.0,
        state: match note.stage {
            CheckpointStage::Running => "running",
            CheckpointStage::Complete => "complete",
            CheckpointStage::Published => "published",
            CheckpointStage::Failed => "failed",
        }
        .to_owned(),
        failure: note.failure,
        started_at_ms: note.started_at.0,
        duration_ms: note.duration_ms,
        alignment_ms: note.alignment_ms,
        snapshot_ms: note.snapshot_ms,
        manifest_ms: note.manifest_ms,
        record_ms: note.record_ms,
        publish_ms: note.publish_ms,
        bytes: note.bytes,
        in_flight_bytes: note.in_flight_bytes,
        subtasks: note.subtasks,
        acknowledged: note.acknowledged,
        slowest: note.slowest.map(|part| Slowest {
            operator: part.subtask.operator.0,
            name: known.shape.operator(part.subtask.operator).map(|operator| operator.name.clone()),
            subtask: part.subtask.index,
            ms: part.after_ms,
            alignment_ms: part.alignment_ms,
            capture_ms: part.times.map(|times| times.capture_ms),
            wait_ms: part.times.map(|times| times.wait_ms),
            upload_ms: part.times.map(|times| times.upload_ms),
            uploaded_bytes: part.times.map(|times| times.uploaded_bytes),
        }),
    };
    CheckpointsAnswer {
        stale: false,
        now_ms: now.0,
        job: known.view.job.to_string(),
        totals: CheckpointTotals { completed: totals.completed, failed: totals.failed, unaligned: totals.unaligned },
        checkpoints: checkpoints.into_iter().map(shown).collect(),
    }
}

pub(super) fn commits(known: &Known, now: Timestamp) -> CommitsAnswer {
    let commit = |note: CheckpointNote| {
        let published_at_ms = note.published_at?.0;
        Some(Commit { epoch: note.epoch.0, published_at_ms, publish_ms: note.publish_ms })
    };
    let unpublished = known.view.unpublished.iter();
    CommitsAnswer {
        stale: false,
        now_ms: now.0,
        job: known.view.job.to_string(),
        complete: known.view.complete.0,
        published: known.view.committed.0,
        unpublished: unpublished.map(|(epoch, at)| Unpublished { epoch: epoch.0, completed_at_ms: at.0 }).collect(),
        commits: known.remembered().checkpoints.into_iter().filter_map(commit).collect(),
    }
}

pub(super) fn lag(known: &Known, now: Timestamp) -> LagAnswer {
    let of = |operator: &ShapeOperator| Some(SourceLag { operator: operator.id.0, lag: known.lag(operator)? });
    let sources = known.shape.of_kind("source").filter_map(of).collect();
    LagAnswer { stale: false, now_ms: now.0, job: known.view.job.to_string(), sources }
}

pub(super) fn bad_records(known: &Known, now: Timestamp) -> BadRecordsAnswer {
    let of = |operator: &ShapeOperator| {
        let counters = known.view.counters.get(&operator.id)?;
        let (dropped, dead_letters) = (counters.dropped_records, counters.dead_letters);
        let table = operator.table_name().map(str::to_owned);
        let (operator, name) = (operator.id.0, operator.name.clone());
        (dropped + dead_letters > 0).then_some(BadRecords { operator, name, table, dropped, dead_letters })
    };
    let operators: Vec<BadRecords> = known.shape.operators.iter().filter_map(of).collect();
    BadRecordsAnswer {
        stale: false,
        now_ms: now.0,
        job: known.view.job.to_string(),
        dropped: operators.iter().map(|operator| operator.dropped).sum(),
        dead_letters: operators.iter().map(|operator| operator.dead_letters).sum(),
        rejected_by_sinks: known.view.status.as_ref().map_or(0, |status| status.rejected_records),
        operators,
    }
}

pub(super) fn exceptions(known: &Known, now: Timestamp) -> ExceptionsAnswer {
    let shown = |note: FailureNote| {
        let operator = note.subtask.map(|subtask| subtask.operator).filter(|operator| *operator != OperatorId::NONE);
        let place = note.subtask.and_then(|subtask| known.view.slots.get(subtask.index as usize));
        // Where an attempt before this one ran is not known.
        let worker = place.filter(|_| note.generation == known.view.generation).map(|worker| worker.0.clone());
        ExceptionNote {
            at_ms: note.at.0,
            generation: note.generation.0,
            message: note.message,
            retryable: note.retryable,
            fatal: note.is_last,
            operator: operator.map(|operator| operator.0),
            operator_name: operator.and_then(|id| Some(known.shape.operator(id)?.name.clone())),
            subtask: note.subtask.filter(|_| operator.is_some()).map(|subtask| subtask.index),
            worker,
        }
    };
    ExceptionsAnswer {
        stale: false,
        now_ms: now.0,
        job: known.view.job.to_string(),
        restarts: known.view.status.as_ref().map_or(0, |status| status.restarts),
        exceptions: known.remembered().failures.into_iter().map(shown).collect(),
    }
}

pub(super) fn timeline(known: &Known, now: Timestamp, points: Vec<Point>) -> TimelineAnswer {
    let interval_ms = u64::try_from(SAMPLE_EVERY.as_millis()).unwrap_or(u64::MAX);
    TimelineAnswer { stale: false, now_ms: now.0, job: known.view.job.to_string(), interval_ms, points }
}

pub(super) fn configuration(known: &Known, now: Timestamp) -> Result<JobConfigurationAnswer, serde_json::Error> {
    let view = &known.view;
    let table = |operator: &ShapeOperator| {
        let (table, options) = operator.table.as_ref()?;
        let role = if operator.kind == "lookup_join" { "lookup" } else { operator.kind };
        let options = options.iter().map(|(name, value)| (name.clone(), hidden::shown(name, value))).collect();
        Some(TableConfiguration { operator: operator.id.0, table: table.clone(), role: role.to_owned(), options })
    };
    Ok(JobConfigurationAnswer {
        stale: false,
        now_ms: now.0,
        job: view.job.to_string(),
        parallelism: view.parallelism,
        key_groups: view.key_groups,
        working_dir: view.working_dir.clone(),
        submitted_at_ms: view.submitted_at.0,
        options: serde_json::to_value(&view.options)?,
        tables: known.shape.operators.iter().filter_map(table).collect(),
    })
}

pub(super) fn events(known: &Known, now: Timestamp, began_at: Timestamp, after: u64) -> EventsAnswer {
    let (began_at, events) = match &known.history {
        Some(history) => history.events_after(began_at, after),
        None => (Timestamp(0), Vec::new()),
    };
    let job = known.view.job.to_string();
    EventsAnswer {
        now_ms: now.0,
        began_at: began_at.0,
        state: known.state(),
        generation: known.view.generation.0,
        active: known.view.active,
        events: events.into_iter().map(|event| shown_event(&job, event)).collect(),
    }
}

fn shown_event(job: &str, note: EventNote) -> Event {
    let event = match note.kind {
        EventKind::State => "state",
        EventKind::Checkpoint => "checkpoint",
        EventKind::Published => "published",
        EventKind::Failure => "failure",
        EventKind::Restart => "restart",
        EventKind::End => "end",
    };
    Event {
        seq: note.seq,
        at_ms: note.at.0,
        job: job.to_owned(),
        event: event.to_owned(),
        epoch: Some(note.epoch.0).filter(|epoch| *epoch > 0),
        generation: note.generation.0,
        state: note.state.map(|state| state.to_string()),
        message: note.message,
        duration_ms: note.duration_ms,
        bytes: note.bytes,
    }
}
