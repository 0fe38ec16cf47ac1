//! What a running job shows of itself: a live line on a terminal, or JSON objects for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mainstem_coordinator::JobStatus;
use mainstem_core::ids::OperatorId;
use mainstem_core::time::Timestamp;
use mainstem_engine::JobMetrics;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use mainstem_rt::Clock;
use mainstem_state::StateSize;
use serde_json::json;
use tokio::sync::watch;

use crate::job;
use crate::lag::{self, TableLag};
use crate::memory::OperatorMemory;

/// Time between two refreshes of the line.
const LINE_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two JSON objects.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// What to show, and from where.
#[derive(Clone)]
pub(crate) struct StatusReporter {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<JobMetrics>,
    pub(crate) sources: Vec<OperatorId>,
    /// Tables that the sources read.
    pub(crate) tables: BTreeMap<OperatorId, String>,
    pub(crate) sinks: Vec<OperatorId>,
    pub(crate) windows: Vec<OperatorId>,
    /// Names of all operators.
    pub(crate) names: BTreeMap<OperatorId, String>,
    pub(crate) status: watch::Receiver<JobStatus>,
    pub(crate) json: bool,
    /// Whether a live line may be drawn.
    pub(crate) live_line: bool,
}

/// The counters of a job at a moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) late: u64,
    pub(crate) dropped: u64,
    /// Records that went to the tables that take wrong ones.
    pub(crate) dead_letters: u64,
    /// Changes that had nothing to take away.
    pub(crate) unmatched: u64,
}

impl StatusReporter {
    /// Reports until cancelled.
    pub(crate) async fn run(self) {
        if self.json {
            self.run_json().await;
        } else if self.live_line {
            self.run_line().await;
        }
    }

    async fn run_line(self) {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("a constant template");
        bar.set_style(style);
        let mut rate = Rate::new(self.clock.clone());
        loop {
            tokio::time::sleep(LINE_INTERVAL).await;
            let totals = self.totals();
            let (rows_in, rows_out) = rate.per_second(totals);
            let status = self.status.borrow().clone();
            let mut line = format!(
                "in {}/s  out {}/s  total {} / {}  watermark {}  epoch {}",
                human(rows_in),
                human(rows_out),
                human(totals.rows_in as f64),
                human(totals.rows_out as f64),
                watermark_text(self.watermark()),
                status.last_committed.map_or_else(|| "-".to_owned(), |e| e.to_string()),
            );
            if let Some(at) = status.last_checkpoint_at {
                line += &format!("  checkpoint {:.1} s ago", self.clock.now().since_ms(at) as f64 / 1000.0);
            }
            if let Some(bytes) = status.last_checkpoint_bytes {
                let rows: u64 = status.state_sizes.values().map(|size| size.rows).sum();
                line += &format!("  state {} rows, {}B", human(rows as f64), human(bytes as f64));
            }
            for lag in self.lag().iter().filter(|lag| lag.total > 0) {
                line += &format!("  lag of {} {} {}", lag.table, human(lag.total as f64), lag.unit);
            }
            if totals.late + totals.dropped > 0 {
                line += &format!("  late {} dropped {}", totals.late, totals.dropped);
            }
            if totals.dead_letters > 0 {
                line += &format!("  dead letters {}", totals.dead_letters);
            }
            if totals.unmatched > 0 {
                line += &format!("  unmatched {}", totals.unmatched);
            }
            if status.unaligned_checkpoints > 0 {
                line += &format!("  unaligned {}", status.unaligned_checkpoints);
            }
            if status.restarts > 0 {
                line += &format!("  restarts {}", status.restarts);
            }
            bar.set_message(line);
            bar.tick();
        }
    }

    #[expect(clippy::print_stderr, reason = "the output that --json asks for")]
    async fn run_json(self) {
        let mut rate = Rate::new(self.clock.clone());
        loop {
            tokio::time::sleep(JSON_INTERVAL).await;
            let totals = self.totals();
            let (rows_in, rows_out) = rate.per_second(totals);
            let status = self.status.borrow().clone();
            let watermark = self.watermark();
            let watermark = (watermark > Timestamp::MIN && watermark < Timestamp::MAX).then_some(watermark.0);
            let (restored_local, restored_store) = self.metrics.restored();
            let line = json!({
                "event": "progress",
                "rows_in_per_second": rows_in.round(),
                "rows_out_per_second": rows_out.round(),
                "rows_in": totals.rows_in,
                "rows_out": totals.rows_out,
                "bytes_in": totals.bytes_in,
                "lag": self.lag(),
                "late_rows": totals.late,
                "dropped_records": totals.dropped,
                "dead_letters": totals.dead_letters,
                "unmatched_changes": totals.unmatched,
                "watermark_ms": watermark,
                "last_committed_epoch": status.last_committed.map(|e| e.0),
                "last_checkpoint_ms": status.last_checkpoint_duration_ms,
                "checkpoint_interval_ms": status.cadence.as_ref().map(|choice| choice.interval_ms),
                "checkpoint_interval_reason": status.cadence.as_ref().map(|choice| &choice.reason),
                "state_bytes": status.last_checkpoint_bytes,
                "last_alignment_ms": status.last_checkpoint_alignment_ms,
                "in_flight_bytes": status.last_checkpoint_in_flight_bytes,
                "unaligned_checkpoints": status.unaligned_checkpoints,
                "state": self.state(&status),
                "memory": self.memory(),
                "restarts": status.restarts,
                "restored_local_bytes": restored_local,
                "restored_store_bytes": restored_store,
                "finished_files_remembered": status.splits_finished,
            });
            eprintln!("{line}");
        }
    }

    /// What the state of each operator takes in memory.
    fn memory(&self) -> Vec<OperatorMemory> {
        // Of no subtask are watermarks asked for.
        let counters = self.metrics.counters(&BTreeSet::new());
        let of = |(id, name): (&OperatorId, &String)| OperatorMemory::of(*id, name, counters.get(id)?.memory);
        self.names.iter().filter_map(of).collect()
    }

    /// How large the state of each operator was in the newest checkpoint.
    fn state(&self, status: &JobStatus) -> Vec<serde_json::Value> {
        let sizes = status.state_sizes.iter();
        let of = |(id, size): (&OperatorId, &StateSize)| json!({ "operator": id.0, "name": self.names.get(id), "rows": size.rows, "bytes": size.bytes });
        sizes.map(of).collect()
    }

    /// The counters now.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = totals(&self.metrics, &self.sources, &self.sinks, &self.windows);
        totals.dropped += self.status.borrow().rejected_records;
        totals
    }

    /// How far the sources are behind, of which it is known.
    fn lag(&self) -> Vec<TableLag> {
        lag::of_tables(&self.tables, |id| self.metrics.operator(id).lags.read())
    }

    /// The least watermark over the sources.
    fn watermark(&self) -> Timestamp {
        let at = if self.windows.is_empty() { &self.sinks } else { &self.windows };
        at.iter().map(|id| self.metrics.operator(*id).watermark()).min().unwrap_or(Timestamp::MIN)
    }
}

/// Sums the counters of a job with this graph.
pub(crate) fn totals_of(graph: &JobGraph, metrics: &JobMetrics) -> Totals {
    let of = |is: fn(&OperatorKind) -> bool| job::operators_of(graph, is);
    let sources = of(|kind| matches!(kind, OperatorKind::Source(_)));
    let sinks = of(|kind| matches!(kind, OperatorKind::Sink(_)));
    let windows = of(|kind| matches!(kind, OperatorKind::WindowPartial(_) | OperatorKind::WindowFinal(_)));
    totals(metrics, &sources, &sinks, &windows)
}

/// Sums the counters of a job.
fn totals(metrics: &JobMetrics, sources: &[OperatorId], sinks: &[OperatorId], windows: &[OperatorId]) -> Totals {
    let mut totals = Totals::default();
    for id in sources {
        let operator = metrics.operator(*id);
        totals.rows_in += operator.rows_in.load(Ordering::Relaxed);
        totals.bytes_in += operator.bytes_read.load(Ordering::Relaxed);
        totals.dropped += operator.dropped_records.load(Ordering::Relaxed);
        totals.dead_letters += operator.dead_letters.load(Ordering::Relaxed);
    }
    for id in sinks {
        let operator = metrics.operator(*id);
        totals.rows_out += operator.rows_out.load(Ordering::Relaxed);
        totals.dropped += operator.dropped_records.load(Ordering::Relaxed);
    }
    for id in windows {
        totals.late += metrics.operator(*id).late_rows.load(Ordering::Relaxed);
    }
    totals.unmatched = metrics.operators().map(|operator| operator.unmatched_changes.load(Ordering::Relaxed)).sum();
    totals
}

/// Rows a second since the last look.
struct Rate {
    clock: Arc<dyn Clock>,
    at: Timestamp,
    last: Totals,
}

impl Rate {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Rate { at: clock.now(), clock, last: Totals::default() }
    }

    fn per_second(&mut self, totals: Totals) -> (f64, f64) {
        let now = self.clock.now();
        let seconds = (now.since_ms(self.at) as f64 / 1000.0).max(0.001);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let rates = (rate(totals.rows_in, self.last.rows_in), rate(totals.rows_out, self.last.rows_out));
        self.at = now;
        self.last = totals;
        rates
    }
}

fn human(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn watermark_text(watermark: Timestamp) -> String {
    match watermark {
        Timestamp::MIN => "-".to_owned(),
        Timestamp::MAX => "end".to_owned(),
        Timestamp(ms) => chrono::DateTime::from_timestamp_millis(ms)
            .map_or_else(|| ms.to_string(), |t| t.format("%Y-%m-%d %H:%M:%S%.3f").to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(human(12.0), "12");
        assert_eq!(human(45_600.0), "45.6 k");
        assert_eq!(human(2_345_678.0), "2.35 M");
        assert_eq!(watermark_text(Timestamp(0)), "1970-01-01 00:00:00.000");
    }
}
