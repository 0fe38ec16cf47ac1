//! What can be concluded from a job's status, its records and its newest checkpoint. Pure, so that it can be tested.

use mainstem_coordinator::{JobEnd, JobRecord};
use mainstem_core::ids::OperatorId;
use mainstem_core::protocol::{SplitProgress, SplitState};
use mainstem_core::time::Timestamp;
use mainstem_plan::operator::{JobGraph, OperatorKind, source_groups};
use mainstem_state::Manifest;
use serde::Serialize;

use super::{ago, length, part};
use crate::cluster::JobSummary;
use crate::state::time;

/// One thing that is known, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) about: &'static str,
    pub(super) text: String,
}

impl Finding {
    pub(super) fn new(about: &'static str, text: String) -> Finding {
        Finding { about, text }
    }
}

/// What the cluster's leader tells.
pub(super) fn of_summary(job: &JobSummary, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![Finding::new("state", job.state())];
    if let Some(JobEnd::Failed { reason }) = &job.end {
        findings.push(Finding::new("failed", reason.clone()));
    }
    if let Some(status) = &job.status {
        findings.extend(status.waiting.iter().map(|waiting| Finding::new("waiting", format!("it {waiting}"))));
        if let Some(failure) = &status.last_failure {
            let text =
                format!("{} since this coordinator drives the job; the last one because: {failure}", status.restarts);
            findings.push(Finding::new("restarts", text));
        }
        for damaged in &status.damaged {
            findings.push(Finding::new("damaged", damaged.clone()));
        }
        if let (Some(ms), Some(at)) = (status.last_checkpoint_duration_ms, status.last_checkpoint_at) {
            let mut text = format!("the newest one took {}, {}", length(ms), ago(now, at));
            if let Some(aligned) = status.last_checkpoint_alignment_ms {
                text += &format!("; its barriers were aligned for up to {aligned} ms");
            }
            if status.unaligned_checkpoints > 0 {
                text +=
                    &format!("; {} were not aligned, because barriers waited too long", status.unaligned_checkpoints);
            }
            findings.push(Finding::new("checkpoints", text));
        }
    }
    for lag in job.lag.iter().filter(|lag| lag.total > 0) {
        findings.push(Finding::new("reading", format!("is behind by {lag}")));
    }
    findings
}

/// What the job's log says, of one that no cluster tells of.
pub(super) fn of_record(record: &JobRecord) -> Vec<Finding> {
    let mut findings = Vec::new();
    let text = match &record.end {
        Some(JobEnd::Finished) => "finished".to_owned(),
        Some(JobEnd::Stopped) => "stopped; the same command goes on".to_owned(),
        Some(JobEnd::Failed { reason }) => format!("failed: {reason}"),
        None => "runs, or was killed".to_owned(),
    };
    findings.push(Finding::new("state", text));
    if record.generation.0 > 1 {
        findings.push(Finding::new("attempts", format!("it has been started {} times", record.generation)));
    }
    findings
}

/// What its newest checkpoint shows.
pub(super) fn of_checkpoint(manifest: &Manifest, graph: Option<&JobGraph>, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (epoch, taken) = (manifest.epoch, manifest.created_at);
    findings.push(Finding::new("as of", format!("epoch {epoch}, taken {} ({})", time(taken), ago(now, taken))));
    findings.extend(watermarks(manifest, graph));
    if let Some((operator, subtask, ms)) = longest_alignment(manifest) {
        let text = format!("{} subtask {subtask} aligned the barrier longest: {ms} ms", name(graph, operator));
        findings.push(Finding::new("alignment", text));
    }
    findings.extend(longest_part(manifest, graph));
    if let Some(bytes) = manifest.in_flight_bytes() {
        let text = format!(
            "the checkpoint is unaligned and holds {bytes} bytes of rows that were on their way: some operator is slower than what feeds it"
        );
        findings.push(Finding::new("in flight", text));
    }
    if let Some((operator, size)) = manifest.state_sizes().into_iter().max_by_key(|(_, size)| size.bytes)
        && size.bytes > 0
    {
        let text = format!("{} keeps most: {} rows, {} bytes", name(graph, operator), size.rows, size.bytes);
        findings.push(Finding::new("state size", text));
    }
    findings
}

/// What holds windows back: the least split of the least source, where anything waits for watermarks.
fn watermarks(manifest: &Manifest, graph: Option<&JobGraph>) -> Vec<Finding> {
    let waits = graph.map(source_groups);
    let mut findings = Vec::new();
    for (source, splits) in &manifest.sources {
        if waits.as_ref().is_some_and(|waits| !waits.contains_key(source)) {
            continue;
        }
        let source_name = name(graph, *source);
        let new = splits.iter().filter(|split| split.progress.is_none()).count();
        if new > 0 {
            let first =
                splits.iter().find(|split| split.progress.is_none()).map_or("", |split| split.split.id.0.as_str());
            let splits = match new {
                1 => "1 split that nobody has begun holds".to_owned(),
                new => format!("{new} splits that nobody has begun hold"),
            };
            let text = format!("{source_name}: {splits} the watermark back, the first is '{first}'");
            findings.push(Finding::new("windows", text));
        }
        let mut reading: Vec<(Timestamp, &SplitState)> = splits.iter().filter_map(of_split).collect();
        reading.sort_by_key(|(watermark, _)| *watermark);
        let (Some((least, slow)), Some((greatest, fast))) = (reading.first(), reading.last()) else { continue };
        if *greatest == Timestamp::MIN {
            continue;
        }
        let text = if *least == Timestamp::MIN {
            format!(
                "{source_name}: the split '{}' has not given a row with a time yet, and holds the watermark back",
                slow.split.id.0
            )
        } else if reading.len() == 1 || least == greatest {
            format!("{source_name}: the watermark is {}, by the split '{}'", time(*least), slow.split.id.0)
        } else {
            let behind = length(greatest.since_ms(*least));
            format!(
                "{source_name}: the split '{}' holds the watermark back at {}, {behind} behind the split '{}'{}",
                slow.split.id.0,
                time(*least),
                fast.split.id.0,
                if may_be_idle(graph, *source) { "; unless it is idle, which a checkpoint does not say" } else { "" }
            )
        };
        findings.push(Finding::new("windows", text));
    }
    findings
}

/// Whether a silent split of the source lets the others go on after a time.
fn may_be_idle(graph: Option<&JobGraph>, source: OperatorId) -> bool {
    let node = graph.and_then(|graph| graph.nodes.get(source.0 as usize));
    match node.map(|node| &node.op.kind) {
        Some(OperatorKind::Source(source)) => source.watermark.as_ref().is_some_and(|w| w.idle_timeout_ms.is_some()),
        _ => false,
    }
}

fn of_split(split: &SplitState) -> Option<(Timestamp, &SplitState)> {
    match &split.progress {
        Some(SplitProgress::Reading { watermark, .. }) => Some((*watermark, split)),
        _ => None,
    }
}

fn longest_alignment(manifest: &Manifest) -> Option<(OperatorId, u32, u64)> {
    let parts =
        manifest.operators.iter().flat_map(|(id, parts)| parts.iter().map(move |(subtask, part)| (id, subtask, part)));
    let aligned = parts.filter_map(|(id, subtask, part)| Some((*id, *subtask, part.alignment_ms?)));
    aligned.max_by_key(|(_, _, ms)| *ms).filter(|(_, _, ms)| *ms > 0)
}

/// The subtask whose part took longest, and in which phases.
fn longest_part(manifest: &Manifest, graph: Option<&JobGraph>) -> Option<Finding> {
    let parts =
        manifest.operators.iter().flat_map(|(id, parts)| parts.iter().map(move |(subtask, part)| (id, subtask, part)));
    let timed = parts.filter_map(|(id, subtask, part)| {
        let times = part.times?;
        let ms = part.alignment_ms.unwrap_or(0) + times.capture_ms + times.wait_ms + times.upload_ms;
        Some((ms, *id, *subtask, part.alignment_ms, times))
    });
    let (ms, operator, subtask, alignment_ms, times) = timed.max_by_key(|(ms, ..)| *ms)?;
    let spent = part::spent(alignment_ms, &times)?;
    let text = format!("{} subtask {subtask} took longest, {ms} ms: {spent}", name(graph, operator));
    Some(Finding::new("slowest part", text))
}

fn name(graph: Option<&JobGraph>, operator: OperatorId) -> String {
    let node = graph.and_then(|graph| graph.nodes.get(operator.0 as usize));
    node.map_or_else(|| operator.to_string(), |node| format!("[{}] {}", operator.0, node.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mainstem_core::ids::{Epoch, Generation, JobId, SplitId};
    use mainstem_core::protocol::{OperatorSnapshot, PartTimes, SourceSplit};

    use super::*;

    fn split(id: &str, watermark: Option<i64>) -> SplitState {
        let split = SourceSplit { id: SplitId(id.to_owned()), payload: String::new() };
        let reading = |ms| SplitProgress::Reading { position: "0".to_owned(), watermark: Timestamp(ms) };
        SplitState { split, progress: watermark.map(reading) }
    }

    fn manifest(splits: Vec<SplitState>) -> Manifest {
        let part = |ms, times| OperatorSnapshot { alignment_ms: Some(ms), times, ..OperatorSnapshot::default() };
        let slow = PartTimes { capture_ms: 3, wait_ms: 0, upload_ms: 900, uploaded_bytes: 4_096 };
        let quick = PartTimes { capture_ms: 2, wait_ms: 1, upload_ms: 30, uploaded_bytes: 64 };
        Manifest {
            job: JobId::new("j").unwrap(),
            epoch: Epoch(3),
            generation: Generation(1),
            next_epoch_now: Timestamp(0),
            graph_hash: String::new(),
            key_groups: 8,
            parallelism: BTreeMap::new(),
            operators: BTreeMap::from([(OperatorId(1), vec![(0, part(5, Some(slow))), (1, part(70, Some(quick)))])]),
            sources: BTreeMap::from([(OperatorId(0), splits)]),
            created_at: Timestamp(1_000),
        }
    }

    fn texts(splits: Vec<SplitState>) -> Vec<String> {
        let findings = of_checkpoint(&manifest(splits), None, Timestamp(61_000));
        findings.into_iter().map(|finding| format!("{}: {}", finding.about, finding.text)).collect()
    }

    #[test]
    fn the_split_and_the_subtask_that_the_others_wait_for_are_named() {
        let found = texts(vec![split("t/0", Some(90_000)), split("t/1", Some(30_000)), split("t/2", None)]);
        assert_eq!(
            found,
            [
                "as of: epoch 3, taken 1970-01-01T00:00:01.000Z (60.0 s ago)",
                "windows: op0: 1 split that nobody has begun holds the watermark back, the first is 't/2'",
                "windows: op0: the split 't/1' holds the watermark back at 1970-01-01T00:00:30.000Z, 60.0 s behind the split 't/0'",
                "alignment: op1 subtask 1 aligned the barrier longest: 70 ms",
                "slowest part: op1 subtask 0 took longest, 908 ms: 900 ms writing and uploading (state: 4096 bytes), 5 ms aligning the \
                 barrier, 3 ms taking its state",
            ]
        );
        let silent = texts(vec![split("t/0", Some(90_000)), split("t/1", Some(i64::MIN))]);
        assert!(silent[1].contains("'t/1' has not given a row with a time yet"), "{silent:?}");
    }

    /// Builds of before stored no times but that of the alignment.
    #[test]
    fn nothing_is_said_of_times_that_a_checkpoint_does_not_hold() {
        let mut manifest = manifest(Vec::new());
        manifest.operators.values_mut().flatten().for_each(|(_, part)| part.times = None);
        let findings = of_checkpoint(&manifest, None, Timestamp(61_000));
        let about: Vec<&str> = findings.iter().map(|finding| finding.about).collect();
        assert_eq!(about, ["as of", "alignment"]);
    }
}
