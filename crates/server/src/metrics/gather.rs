//! Puts together what a node has to tell.

use mainstem_coordinator::JobEnd;
use mainstem_core::cluster::messages::{OperatorCounters, StateMemory, SubtaskCounters};
use mainstem_core::ids::{JobId, OperatorId};
use mainstem_core::lag::LagUnit;
use mainstem_core::time::Timestamp;

use super::{ClusterScrape, Page, Scrape, names, process};
use crate::figures::Known;

pub(super) fn page(scrape: Scrape) -> Page {
    let mut page = Page::default();
    page.whole(&names::BUILD, &[("version", env!("CARGO_PKG_VERSION")), ("mode", scrape.mode)], 1);
    for known in &scrape.jobs {
        job(&mut page, known, scrape.now);
        checkpoints(&mut page, known, scrape.now);
        standbys(&mut page, known);
        operators_of(&mut page, known);
    }
    for (job, operators) in &scrape.running {
        operators.iter().for_each(|(id, counters)| operator(&mut page, job, *id, counters));
    }
    if let Some(memory) = &scrape.memory {
        page.whole(&names::MEMORY_LIMIT, &[], memory.bytes_max());
        page.whole(&names::MEMORY_STATE, &[], memory.used_bytes());
        page.whole(&names::MEMORY_STATE_LIMIT, &[], memory.state_bytes_max());
    }
    if let Some(cluster) = &scrape.cluster {
        self::cluster(&mut page, cluster);
    }
    if let Some(traces) = &scrape.traces {
        page.whole(&names::TRACE_SPANS, &[], traces.exported());
        page.whole(&names::TRACE_SPANS_DROPPED, &[("reason", "queue_full")], traces.without_room());
        page.whole(&names::TRACE_SPANS_DROPPED, &[("reason", "not_taken")], traces.not_taken());
    }
    process::add(&mut page);
    page
}

fn job(page: &mut Page, known: &Known, now: Timestamp) {
    let view = &known.view;
    let job = [("job", view.job.as_str())];
    page.whole(&names::JOB_STATE, &[job[0], ("state", &known.state())], 1);
    page.whole(&names::JOB_ACTIVE, &job, u64::from(view.active));
    let has_failed = !view.active && matches!(view.end, Some(JobEnd::Failed { .. }));
    page.whole(&names::JOB_FAILED, &job, u64::from(has_failed));
    let waits = view.status.as_ref().is_some_and(|status| status.waiting.is_some());
    page.whole(&names::JOB_WAITING, &job, u64::from(waits));
    page.whole(&names::JOB_PARALLELISM, &job, u64::from(view.parallelism));
    page.whole(&names::JOB_ATTEMPT, &job, view.generation.0);
    let sums = known.sums();
    let rejected = view.status.as_ref().map_or(0, |status| status.rejected_records);
    page.whole(&names::JOB_ROWS_IN, &job, sums.rows_in);
    page.whole(&names::JOB_ROWS_OUT, &job, sums.rows_out);
    page.whole(&names::JOB_LATE_ROWS, &job, sums.late_rows);
    page.whole(&names::JOB_DROPPED, &job, sums.dropped_records + rejected);
    page.whole(&names::JOB_DEAD_LETTERS, &job, sums.dead_letters);
    let watermark = known.watermark();
    if view.active && watermark > Timestamp::MIN && watermark < Timestamp::MAX {
        page.real(&names::JOB_WATERMARK, &job, seconds(watermark.0));
        page.real(&names::JOB_WATERMARK_LAG, &job, seconds(now.since_ms(watermark)));
    }
}

fn checkpoints(page: &mut Page, known: &Known, now: Timestamp) {
    let view = &known.view;
    let job = [("job", view.job.as_str())];
    page.whole(&names::EPOCH_COMPLETE, &job, view.complete.0);
    page.whole(&names::EPOCH_PUBLISHED, &job, view.committed.0);
    page.real(&names::CHECKPOINT_INTERVAL, &job, seconds(known.checkpoint_interval_ms()));
    let totals = known.history.as_ref().map(|history| history.totals()).unwrap_or_default();
    page.whole(&names::JOB_FAILURES, &job, totals.failures);
    page.whole(&names::CHECKPOINTS_COMPLETED, &job, totals.completed);
    page.whole(&names::CHECKPOINTS_FAILED, &job, totals.failed);
    page.whole(&names::CHECKPOINTS_UNALIGNED, &job, totals.unaligned);
    page.real(&names::CHECKPOINT_TIME, &job, totals.duration_ms as f64 / 1000.0);
    if let Some(history) = &known.history {
        let latency = history.latency();
        page.times(&names::CHECKPOINT_TIMES, &job, &latency.checkpoints);
        page.times(&names::PUBLISH_TIMES, &job, &latency.publications);
        page.whole(&names::TRACE_RECORDS_DROPPED, &job, latency.traces_dropped);
        for (sink, times) in &latency.visible {
            page.times(&names::VISIBLE_LATENCY, &[job[0], ("operator", &sink.0.to_string())], times);
        }
    }
    let Some(status) = view.status.as_ref().filter(|_| view.active) else { return };
    let since = status.last_checkpoint_at.unwrap_or(view.submitted_at);
    page.real(&names::CHECKPOINT_AGE, &job, seconds(now.since_ms(since).max(0)));
    if let Some(ms) = status.last_checkpoint_duration_ms {
        page.real(&names::CHECKPOINT_DURATION, &job, seconds(ms));
    }
    if let Some(ms) = status.last_checkpoint_alignment_ms {
        page.real(&names::CHECKPOINT_ALIGNMENT, &job, ms as f64 / 1000.0);
    }
    if let Some(bytes) = status.last_checkpoint_bytes {
        page.whole(&names::CHECKPOINT_SIZE, &job, bytes);
    }
}

/// Who stands by for the slots of a job, where somebody is to.
fn standbys(page: &mut Page, known: &Known) {
    let job = ("job", known.view.job.as_str());
    let Some(standbys) = &known.view.standbys else { return };
    page.whole(&names::STANDBYS_WANTED, &[job], standbys.wanted.into());
    page.whole(&names::STANDBYS_MISSING, &[job], standbys.missing.into());
    for of_slot in standbys.slots.chunk_by(|one, next| one.slot == next.slot) {
        let slot = of_slot[0].slot.to_string();
        let labels = [job, ("slot", slot.as_str())];
        let behind = of_slot.iter().map(|standby| standby.epochs_behind).min();
        page.whole(&names::STANDBY_LAG, &labels, behind.unwrap_or_default());
        page.whole(&names::STANDBY_FILES, &labels, of_slot.iter().map(|standby| standby.files_waiting).sum());
        page.whole(&names::STANDBY_BYTES, &labels, of_slot.iter().map(|standby| standby.bytes_waiting).sum());
    }
}

/// What only who drives the job knows of its operators.
fn operators_of(page: &mut Page, known: &Known) {
    let view = &known.view;
    for operator in &known.shape.operators {
        let id = operator.id.0.to_string();
        let labels = [("job", view.job.as_str()), ("operator", id.as_str())];
        let (name, kind) = (("name", operator.name.as_str()), ("kind", operator.kind));
        page.whole(&names::OPERATOR_INFO, &[labels[0], labels[1], name, kind], 1);
        let size = view.status.as_ref().and_then(|status| status.state_sizes.get(&operator.id));
        if let Some(size) = size {
            page.whole(&names::STATE_ROWS, &labels, size.rows);
            page.whole(&names::STATE_SIZE, &labels, size.bytes);
        }
    }
}

/// What is counted where an operator runs.
fn operator(page: &mut Page, job: &JobId, id: OperatorId, counters: &OperatorCounters) {
    let id = id.0.to_string();
    let labels = [("job", job.as_str()), ("operator", id.as_str())];
    for (metric, count) in [
        (&names::ROWS_IN, counters.rows_in),
        (&names::ROWS_OUT, counters.rows_out),
        (&names::BYTES_READ, counters.bytes_read),
        (&names::LATE_ROWS, counters.late_rows),
        (&names::DROPPED, counters.dropped_records),
        (&names::DEAD_LETTERS, counters.dead_letters),
        (&names::UNMATCHED, counters.unmatched_changes),
    ] {
        page.whole(metric, &labels, count);
    }
    let StateMemory { bytes, parts_hot, parts_cold, part_loads, deferred_rows } = counters.memory;
    page.whole(&names::STATE_MEMORY, &labels, bytes);
    if parts_hot + parts_cold > 0 {
        page.whole(&names::STATE_PARTS_ON_DISK, &labels, parts_cold);
        page.whole(&names::STATE_PART_LOADS, &labels, part_loads);
        page.whole(&names::DEFERRED_ROWS, &labels, deferred_rows);
    }
    let spent = |part: fn(&SubtaskCounters) -> u64| counters.subtasks.iter().map(part).sum::<u64>() as f64 / 1e6;
    let times = [spent(|s| s.busy_us), spent(|s| s.backpressured_us), spent(|s| s.idle_us)];
    if times.iter().any(|time| *time > 0.0) {
        for (metric, time) in [&names::BUSY, &names::BACKPRESSURED, &names::IDLE].into_iter().zip(times) {
            page.real(metric, &labels, time);
        }
        for subtask in &counters.subtasks {
            let index = subtask.index.to_string();
            let labels = [labels[0], labels[1], ("subtask", index.as_str())];
            page.real(&names::SUBTASK_BACKPRESSURED, &labels, subtask.backpressured_us as f64 / 1e6);
        }
    }
    let watermark = counters.watermarks.iter().map(|(_, watermark)| *watermark).min();
    if let Some(watermark) = watermark.filter(|at| *at > Timestamp::MIN && *at < Timestamp::MAX) {
        page.real(&names::WATERMARK, &labels, seconds(watermark.0));
    }
    if let Some(latency) = &counters.latency {
        page.times(&names::ROW_LATENCY, &labels, latency);
    }
    if let Some(lag) = &counters.lag {
        let metric = match lag.unit {
            LagUnit::Records => &names::LAG_RECORDS,
            LagUnit::Bytes => &names::LAG_BYTES,
        };
        page.whole(metric, &labels, lag.total);
    }
}

fn cluster(page: &mut Page, cluster: &ClusterScrape) {
    let ClusterScrape { raft, leads, workers } = cluster;
    page.whole(&names::LEADS, &[], u64::from(*leads));
    page.whole(&names::TERM, &[], raft.term);
    page.whole(&names::MEMBERS, &[], raft.members.len() as u64);
    for (metric, index) in [(&names::COMMITTED, raft.committed), (&names::APPLIED, raft.applied)] {
        if let Some(index) = index {
            page.whole(metric, &[], index);
        }
    }
    if let Some(workers) = workers {
        page.whole(&names::WORKERS, &[], workers.len() as u64);
        page.whole(&names::SLOTS, &[], workers.iter().map(|worker| u64::from(worker.offer.slots)).sum());
        page.whole(&names::SLOTS_USED, &[], workers.iter().map(|worker| u64::from(worker.used)).sum());
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
