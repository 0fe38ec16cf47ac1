//! What a job's history tells, as spans. Pure: the same that is told gives the same spans, with the same ids, whoever is told
//! of it; so what a leader has begun and the next one has ended is still one trace.
//!
//! A checkpoint is a trace of its own: the span `checkpoint`, below it `snapshot` with a span for each subtask, which has
//! `align`, `capture` and `upload`, then `manifest`, `record`, and later `publish`. So is what comes before an attempt:
//! `start` or `recovery`, below it `wait`, `prepare` and `deploy`. And so is the way of sampled rows: `rows`, below it a `task`
//! for each that they passed, and `epoch`.

mod record;

use mainstem_coordinator::{
    CheckpointNote, CheckpointStage, FailedAttempt, Passed, PassedCheckpoint, Publication, StartOutcome, StartPhase,
    StartedAttempt, SubtaskPart, What,
};
use mainstem_core::ids::{Epoch, Generation, OperatorId, SubtaskId};
use mainstem_core::time::Timestamp;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::TracedJob;
use super::otlp::{KIND_INTERNAL, KeyValue, STATUS_ERROR, Span, Status, Value};

/// Nanoseconds of a millisecond, in which time is measured here.
const NANOS_PER_MS: u64 = 1_000_000;

/// Spans of one trace that are being made.
struct Trace<'a> {
    job: &'a TracedJob,
    id: u128,
    spans: Vec<Span>,
}

/// When something was done, in milliseconds since 1970 UTC.
#[derive(Clone, Copy)]
struct Time {
    from: i64,
    to: i64,
}

/// The spans of what has come to its end; those above others first.
pub(super) fn of(job: &TracedJob, passed: &Passed) -> Vec<Span> {
    let created_at = passed.created_at.unwrap_or(Timestamp(0));
    match &passed.what {
        What::Checkpoint(checkpoint) => {
            let CheckpointNote { epoch, generation, .. } = checkpoint.note;
            let mut trace = Trace::of_checkpoint(job, created_at, generation, epoch);
            trace.checkpoint(checkpoint);
            trace.spans
        }
        What::Publication(publication) => {
            let mut trace = Trace::of_checkpoint(job, created_at, publication.made_by, publication.epoch);
            trace.publication(publication);
            trace.spans
        }
        What::Record(record) => {
            let mut trace = Trace::of_record(job, created_at, record);
            trace.record(record);
            trace.spans
        }
        What::Start(start) => {
            let mut trace = Trace::of_start(job, created_at, start);
            trace.start(start);
            trace.spans
        }
    }
}

impl<'a> Trace<'a> {
    /// An attempt makes an epoch once; so this names one checkpoint, for everybody.
    fn of_checkpoint(job: &'a TracedJob, created_at: Timestamp, generation: Generation, epoch: Epoch) -> Trace<'a> {
        Trace::new(job, &format!("checkpoint {} {} {} {}", created_at.0, generation.0, epoch.0, job.job))
    }

    /// Starts that fail have no number, so time tells them apart; nobody else tells of this one.
    fn of_start(job: &'a TracedJob, created_at: Timestamp, start: &StartedAttempt) -> Trace<'a> {
        Trace::new(job, &format!("start {} {} {} {}", created_at.0, start.before.0, start.began_at.0, job.job))
    }

    fn new(job: &'a TracedJob, name: &str) -> Trace<'a> {
        // An id of zeros would be none.
        Trace { job, id: xxh3_128(name.as_bytes()).max(1), spans: Vec::new() }
    }

    fn checkpoint(&mut self, passed: &PassedCheckpoint) {
        let PassedCheckpoint { note, took_ms, parts } = passed;
        let has_failed = note.stage == CheckpointStage::Failed;
        let time = Time::new(note.started_at, *took_ms);
        let mut attributes = self.of_epoch(note.generation, note.epoch);
        attributes.extend([
            KeyValue::new("mainstem.outcome", if has_failed { "failed" } else { "complete" }),
            KeyValue::new("mainstem.subtasks", u64::from(note.subtasks)),
            KeyValue::new("mainstem.subtasks.acknowledged", u64::from(note.acknowledged)),
        ]);
        let numbers = [
            ("mainstem.state.bytes", note.bytes),
            ("mainstem.alignment.ms", note.alignment_ms),
            ("mainstem.in_flight.bytes", note.in_flight_bytes),
        ];
        attributes.extend(numbers.into_iter().filter_map(|(key, number)| Some(KeyValue::new(key, number?))));
        let error = note.failure.as_deref().filter(|_| has_failed);
        self.add("checkpoint", "", time, attributes, error);
        // Phases follow each other; a checkpoint that has failed did so in the first one that has no end.
        let phases = [("snapshot", note.snapshot_ms), ("manifest", note.manifest_ms), ("record", note.record_ms)];
        let mut from = time.from;
        for (phase, ms) in phases {
            if ms.is_none() && !has_failed {
                continue;
            }
            let time = Time { from, to: ms.map_or(time.to, |ms| from.saturating_add(ms).min(time.to)) };
            self.add(phase, "checkpoint", time, Vec::new(), error.filter(|_| ms.is_none()));
            from = time.to;
            if ms.is_none() {
                break;
            }
        }
        self.subtasks(time, parts);
    }

    fn subtasks(&mut self, checkpoint: Time, parts: &[SubtaskPart]) {
        for part in parts {
            let time = Time { from: checkpoint.from, to: checkpoint.from.saturating_add(part.after_ms) };
            let mut attributes = self.of_subtask(part.subtask);
            attributes.extend(part.alignment_ms.map(|ms| KeyValue::new("mainstem.alignment.ms", ms)));
            let id = format!("subtask {}", part.subtask);
            self.add_as(&id, "subtask", "snapshot", time, attributes, None);
            self.phases_of(part, &id, time);
        }
    }

    /// What a subtask has done for a checkpoint; `above` and `whole`: the span of its part. When that came to its end is
    /// known, and how long each phase took; so they are counted back from there.
    fn phases_of(&mut self, part: &SubtaskPart, above: &str, whole: Time) {
        let upload = part.times.map(|times| {
            let numbers = [("mainstem.wait.ms", times.wait_ms), ("mainstem.uploaded.bytes", times.uploaded_bytes)];
            let attributes = numbers.map(|(key, number)| KeyValue::new(key, number)).to_vec();
            ("upload", times.wait_ms + times.upload_ms, attributes)
        });
        let capture = part.times.map(|times| ("capture", times.capture_ms, Vec::new()));
        // Without the others it is not known when that was.
        let align = part.alignment_ms.filter(|_| part.times.is_some()).map(|ms| ("align", ms, Vec::new()));
        let mut to = whole.to;
        for (name, ms, attributes) in [upload, capture, align].into_iter().flatten() {
            let from = to.saturating_sub_unsigned(ms).max(whole.from);
            self.add_as(&format!("{name} of {above}"), name, above, Time { from, to }, attributes, None);
            to = from;
        }
    }

    fn publication(&mut self, publication: &Publication) {
        let Publication { epoch, made_by, began_at, took_ms } = *publication;
        let attributes = self.of_epoch(made_by, epoch);
        self.add("publish", "checkpoint", Time::new(began_at, took_ms), attributes, None);
    }

    fn start(&mut self, start: &StartedAttempt) {
        let name = if start.before == Generation(0) { "start" } else { "recovery" };
        let (outcome, error) = match &start.outcome {
            StartOutcome::Runs => ("runs", None),
            StartOutcome::Failed(message) => ("failed", Some(message.as_str())),
            StartOutcome::Abandoned => ("abandoned", None),
        };
        let mut attributes = self.of_job();
        attributes.extend([
            KeyValue::new("mainstem.outcome", outcome),
            KeyValue::new("mainstem.cause", start.reason.as_str()),
            KeyValue::new("mainstem.attempt.before", start.before.0),
        ]);
        attributes.extend(start.generation.map(|attempt| KeyValue::new("mainstem.attempt", attempt.0)));
        attributes.extend(start.restored.map(|epoch| KeyValue::new("mainstem.restored_epoch", epoch.0)));
        if let Some(FailedAttempt { subtask, retryable }) = start.failed {
            attributes.push(KeyValue::new("mainstem.retryable", retryable));
            // What is about a place alone has no operator.
            let subtask = subtask.filter(|subtask| subtask.operator != OperatorId::NONE);
            attributes.extend(subtask.into_iter().flat_map(|subtask| self.of_subtask(subtask)));
        }
        let took_ms = start.phases.iter().fold(0_i64, |sum, (_, ms)| sum.saturating_add(*ms));
        self.add(name, "", Time::new(start.began_at, took_ms), attributes, error);
        let mut from = start.began_at.0;
        let last = start.phases.len().saturating_sub(1);
        for (n, (phase, ms)) in start.phases.iter().enumerate() {
            let phase = match phase {
                StartPhase::Wait => "wait",
                StartPhase::Prepare => "prepare",
                StartPhase::Deploy => "deploy",
            };
            let time = Time { from, to: from.saturating_add(*ms) };
            self.add(phase, name, time, Vec::new(), error.filter(|_| n == last));
            from = time.to;
        }
    }

    /// A span that is the only one of its name in the trace; `parent` is the name of the one above it.
    fn add(&mut self, name: &str, parent: &str, time: Time, attributes: Vec<KeyValue>, error: Option<&str>) {
        self.add_as(name, name, parent, time, attributes, error);
    }

    fn add_as(
        &mut self,
        id: &str,
        name: &str,
        parent: &str,
        time: Time,
        attributes: Vec<KeyValue>,
        error: Option<&str>,
    ) {
        let parent_span_id = if parent.is_empty() { Vec::new() } else { self.span_id(parent) };
        let nanos = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(NANOS_PER_MS);
        self.spans.push(Span {
            trace_id: self.id.to_be_bytes().to_vec(),
            span_id: self.span_id(id),
            parent_span_id,
            name: name.to_owned(),
            kind: KIND_INTERNAL,
            start_time_unix_nano: nanos(time.from),
            end_time_unix_nano: nanos(time.to.max(time.from)),
            attributes,
            status: error.map(|message| Status { message: message.to_owned(), code: STATUS_ERROR }),
        });
    }

    fn span_id(&self, id: &str) -> Vec<u8> {
        let whole = [&self.id.to_be_bytes()[..], id.as_bytes()].concat();
        xxh3_64(&whole).max(1).to_be_bytes().to_vec()
    }

    fn of_job(&self) -> Vec<KeyValue> {
        vec![KeyValue::new("mainstem.job", self.job.job.as_str())]
    }

    fn of_epoch(&self, generation: Generation, epoch: Epoch) -> Vec<KeyValue> {
        let mut attributes = self.of_job();
        let numbers = [("mainstem.attempt", generation.0), ("mainstem.epoch", epoch.0)];
        attributes.extend(numbers.map(|(key, number)| KeyValue::new(key, number)));
        attributes
    }

    fn of_subtask(&self, subtask: SubtaskId) -> Vec<KeyValue> {
        let SubtaskId { operator, index } = subtask;
        let name = self.job.names.get(&operator).map(|name| Value::Text(name.clone()));
        let mut attributes = vec![
            KeyValue::new("mainstem.operator", u64::from(operator.0)),
            KeyValue::new("mainstem.subtask", u64::from(index)),
        ];
        attributes.extend(name.map(|name| KeyValue::new("mainstem.operator.name", name)));
        attributes
    }
}

impl Time {
    fn new(from: Timestamp, took_ms: i64) -> Time {
        Time { from: from.0, to: from.0.saturating_add(took_ms.max(0)) }
    }
}
