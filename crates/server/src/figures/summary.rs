//! What is told of a job in a list of them, and as a point of its time line.

use mainstem_coordinator::{JobEnd, JobStatus, SavepointOutcome as Outcome};
use mainstem_core::checkpoint::CadenceChoice;
use mainstem_core::cluster::messages::OperatorCounters;
use mainstem_core::cluster::{SlotStandby, StandbyStatus};
use mainstem_core::ids::OperatorId;
use mainstem_core::lag::LagUnit;
use mainstem_core::latency::LatencyHistogram;
use mainstem_core::time::Timestamp;

use super::latency::SinkLatency;
use super::model::{
    CheckpointSummary, End, Job, Lag, Point, RowLatency, SavepointOutcome, SavepointUnderWay, SplitLag, Standby,
    Standbys,
};
use super::samples::Shares;
use super::{Known, ShapeOperator};
use crate::job;

/// A job in a list.
pub(super) fn job(known: &Known, now: Timestamp) -> Job {
    let (view, sums) = (&known.view, known.sums());
    let (busy, backpressured) = known.busiest();
    let (watermark_ms, watermark_at_end) = shown_watermark(known.watermark());
    let status = view.status.as_ref();
    Job {
        job: view.job.to_string(),
        state: known.state(),
        active: view.active,
        parallelism: view.parallelism,
        generation: view.generation.0,
        submitted_at_ms: view.submitted_at.0,
        rows_in: sums.rows_in,
        rows_out: sums.rows_out,
        rows_in_per_second: known.rate("source", |counters| counters.rows_in),
        rows_out_per_second: known.rate("sink", |counters| counters.rows_out),
        bytes_read: sums.bytes_read,
        late_rows: sums.late_rows,
        dropped_records: sums.dropped_records + status.map_or(0, |status| status.rejected_records),
        dead_letters: sums.dead_letters,
        unmatched_changes: sums.unmatched_changes,
        watermark_ms,
        watermark_at_end,
        lag: known.shape.of_kind("source").filter_map(|operator| known.lag(operator)).collect(),
        latency: latency(known),
        busy,
        backpressured,
        checkpoint: checkpoint(known, now),
        restarts: status.map_or(0, |status| status.restarts),
        last_failure: status.and_then(|status| status.last_failure.clone()),
        waiting: status.and_then(|status| status.waiting.clone()),
        end: view.end.as_ref().filter(|_| !view.active).map(end),
        savepoint: savepoint(known),
        savepoints: view.savepoints.iter().map(|record| outcome(record.id.as_str(), &record.outcome)).collect(),
        restored_from: view.restored.as_ref().map(|restored| restored.path.clone()),
        standbys: view.standbys.as_ref().map(standbys),
    }
}

fn standbys(status: &StandbyStatus) -> Standbys {
    let shown = |standby: &SlotStandby| Standby {
        slot: standby.slot,
        worker: standby.worker.0.clone(),
        epoch: standby.epoch.map(|epoch| epoch.0),
        epochs_behind: standby.epochs_behind,
        files_waiting: standby.files_waiting,
        bytes_waiting: standby.bytes_waiting,
    };
    Standbys {
        wanted: status.wanted,
        missing: status.missing,
        lacking: status.lacking.clone(),
        slots: status.slots.iter().map(shown).collect(),
    }
}

/// A job at a moment.
pub(super) fn point(known: &Known, now: Timestamp) -> Point {
    let (busy, backpressured) = known.busiest();
    let lags = known.shape.of_kind("source").filter_map(|operator| known.view.counters.get(&operator.id)?.lag.as_ref());
    let records: Vec<u64> = lags.filter(|lag| lag.unit == LagUnit::Records).map(|lag| lag.total).collect();
    let status = known.view.status.as_ref();
    let latencies = latency(known);
    let slowest = |part: fn(&RowLatency) -> Option<f64>| latencies.iter().filter_map(part).reduce(f64::max);
    Point {
        at_ms: now.0,
        rows_in_per_second: known.rate("source", |counters| counters.rows_in),
        rows_out_per_second: known.rate("sink", |counters| counters.rows_out),
        lag: (!records.is_empty()).then(|| records.iter().sum()),
        watermark_ms: shown_watermark(known.watermark()).0,
        checkpoint_duration_ms: status.and_then(|status| status.last_checkpoint_duration_ms),
        state_bytes: status.and_then(|status| status.last_checkpoint_bytes),
        latency_p50_ms: slowest(|latency| latency.p50_ms),
        latency_p99_ms: slowest(|latency| latency.p99_ms),
        visible_latency_p99_ms: slowest(|latency| latency.visible_p99_ms),
        busy,
        backpressured,
    }
}

/// How long rows have taken to each sink in the last minute.
pub(super) fn latency(known: &Known) -> Vec<RowLatency> {
    let quantile = |of: Option<&LatencyHistogram>, part: f64| {
        of.and_then(|times| times.quantile_ms(part)).map(|ms| (ms * 10.0).round() / 10.0)
    };
    let of = |SinkLatency { sink, arrived, visible }: &SinkLatency| {
        let operator = known.shape.operators.iter().find(|operator| operator.id == *sink)?;
        Some(RowLatency {
            operator: sink.0,
            table: operator.table_name().unwrap_or(&operator.name).to_owned(),
            markers: arrived.count(),
            p50_ms: quantile(Some(arrived), 0.5),
            p99_ms: quantile(Some(arrived), 0.99),
            visible_p50_ms: quantile(visible.as_ref(), 0.5),
            visible_p99_ms: quantile(visible.as_ref(), 0.99),
        })
    };
    known.latency.iter().filter_map(of).collect()
}

/// A watermark as it is shown: in milliseconds, and whether it is the end of the input.
pub(super) fn shown_watermark(watermark: Timestamp) -> (Option<i64>, bool) {
    let known = watermark > Timestamp::MIN && watermark < Timestamp::MAX;
    (known.then_some(watermark.0), watermark == Timestamp::MAX)
}

fn checkpoint(known: &Known, now: Timestamp) -> CheckpointSummary {
    let view = &known.view;
    let status = view.status.as_ref();
    let of = |value: fn(&JobStatus) -> Option<i64>| status.and_then(value);
    let completed_at = of(|status| status.last_checkpoint_at.map(|at| at.0));
    CheckpointSummary {
        complete: view.complete.0,
        published: view.committed.0,
        completed_at_ms: completed_at,
        age_ms: completed_at.filter(|_| view.active).map(|at| now.since_ms(Timestamp(at)).max(0)),
        duration_ms: of(|status| status.last_checkpoint_duration_ms),
        interval_ms: known.checkpoint_interval_ms(),
        interval_reason: known.cadence().map(|choice| choice.reason.clone()),
        bytes: status.and_then(|status| status.last_checkpoint_bytes),
        alignment_ms: status.and_then(|status| status.last_checkpoint_alignment_ms),
        in_flight_bytes: status.and_then(|status| status.last_checkpoint_in_flight_bytes),
        unaligned: status.map_or(0, |status| status.unaligned_checkpoints),
    }
}

fn end(end: &JobEnd) -> End {
    let (outcome, reason) = match end {
        JobEnd::Finished => ("finished", None),
        JobEnd::Stopped => ("stopped", None),
        JobEnd::Failed { reason } => ("failed", Some(reason.clone())),
    };
    End { outcome: outcome.to_owned(), reason }
}

fn savepoint(known: &Known) -> Option<SavepointUnderWay> {
    let request = known.view.savepoint.as_ref();
    let under_way = known.view.status.as_ref().and_then(|status| status.savepoint.as_ref());
    let request = request.or(under_way.map(|status| &status.request))?;
    let copied = under_way.filter(|status| status.request.id == request.id).map(|status| &status.copied);
    Some(SavepointUnderWay {
        id: request.id.to_string(),
        directory: request.directory.clone(),
        stop: request.stop,
        copied_files: copied.map_or(0, |copied| copied.files),
        files: copied.map_or(0, |copied| copied.files_all),
    })
}

fn outcome(id: &str, outcome: &Outcome) -> SavepointOutcome {
    let (word, path, epoch, reason) = match outcome {
        Outcome::Taken { path, epoch, .. } => ("taken", Some(path.clone()), Some(epoch.0), None),
        Outcome::Failed { reason } => ("failed", None, None, Some(reason.clone())),
    };
    SavepointOutcome { id: id.to_owned(), outcome: word.to_owned(), path, epoch, reason }
}

impl Known {
    /// Where it stands, in a word.
    pub(crate) fn state(&self) -> String {
        let view = &self.view;
        job::state_in_a_word(view.status.as_ref(), view.end.as_ref(), view.active)
    }

    /// Rows in are those of sources, rows out those of sinks, all else is over all operators.
    pub(crate) fn sums(&self) -> OperatorCounters {
        let counters = &self.view.counters;
        let rows = |kind, rows: fn(&OperatorCounters) -> u64| {
            self.shape.of_kind(kind).filter_map(|operator| counters.get(&operator.id)).map(rows).sum()
        };
        let all = |count: fn(&OperatorCounters) -> u64| counters.values().map(count).sum();
        OperatorCounters {
            rows_in: rows("source", |counters| counters.rows_in),
            rows_out: rows("sink", |counters| counters.rows_out),
            bytes_read: all(|counters| counters.bytes_read),
            late_rows: all(|counters| counters.late_rows),
            dropped_records: all(|counters| counters.dropped_records),
            dead_letters: all(|counters| counters.dead_letters),
            unmatched_changes: all(|counters| counters.unmatched_changes),
            ..OperatorCounters::default()
        }
    }

    /// Over all operators of a kind.
    fn rate(&self, kind: &'static str, counter: fn(&OperatorCounters) -> u64) -> Option<f64> {
        let of = |operator: &ShapeOperator| self.rates.of(self.view.counters.get(&operator.id)?, operator.id, counter);
        self.shape.of_kind(kind).filter_map(of).reduce(|a, b| a + b)
    }

    /// The time between checkpoints as the job has chosen it last; none: it is set.
    pub(super) fn cadence(&self) -> Option<&CadenceChoice> {
        self.view.status.as_ref()?.cadence.as_ref()
    }

    /// The time between checkpoints, as it was chosen or is set.
    pub(crate) fn checkpoint_interval_ms(&self) -> i64 {
        self.cadence().map_or(self.view.options.interval_ms, |choice| choice.interval_ms.cast_signed())
    }

    /// The least of those operators that keep rows until it comes; of the sinks, where there are none.
    pub(crate) fn watermark(&self) -> Timestamp {
        let waits = self.shape.operators.iter().any(|operator| operator.waits);
        let at = self.shape.operators.iter().filter(|o| if waits { o.waits } else { o.kind == "sink" });
        at.map(|operator| self.watermark_of(operator.id)).min().unwrap_or(Timestamp::MIN)
    }

    /// The least of an operator's subtasks.
    pub(crate) fn watermark_of(&self, operator: OperatorId) -> Timestamp {
        let watermarks = self.view.counters.get(&operator).map(|counters| counters.watermarks.as_slice());
        let least = watermarks.unwrap_or_default().iter().map(|(_, watermark)| *watermark).min();
        least.unwrap_or(Timestamp::MIN)
    }

    /// How each subtask of a task spends its time.
    pub(crate) fn shares(&self, task: OperatorId) -> Vec<(u32, Shares)> {
        let subtasks = self.view.counters.get(&task).map(|counters| counters.subtasks.as_slice());
        let of = |subtask: &mainstem_core::cluster::messages::SubtaskCounters| {
            (subtask.index, self.rates.shares(subtask, task))
        };
        subtasks.unwrap_or_default().iter().map(of).collect()
    }

    /// The largest share of work, and of waiting for receivers, of any subtask.
    fn busiest(&self) -> (Option<f64>, Option<f64>) {
        let heads = self.shape.operators.iter().filter(|operator| operator.id == operator.task);
        let shares: Vec<Shares> = heads.flat_map(|head| self.shares(head.id)).map(|(_, shares)| shares).collect();
        let most = |part: fn(&Shares) -> Option<f64>| shares.iter().filter_map(part).reduce(f64::max);
        (most(|shares| shares.busy), most(|shares| shares.backpressured))
    }

    /// How far a source is behind, where it is known and it runs.
    pub(crate) fn lag(&self, operator: &ShapeOperator) -> Option<Lag> {
        let lag = self.view.counters.get(&operator.id).filter(|_| self.view.active)?.lag.as_ref()?;
        Some(Lag {
            table: operator.table_name().unwrap_or(&operator.name).to_owned(),
            unit: lag.unit.to_string(),
            total: lag.total,
            splits: lag.splits.iter().map(|(split, lag)| SplitLag { split: split.0.clone(), lag: *lag }).collect(),
        })
    }
}
