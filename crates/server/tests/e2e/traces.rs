//! Spans that a collector gets from real processes: of each checkpoint and its publication, and of a recovery; and that nothing
//! depends on the collector.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use prost::Message;

use crate::support::cluster::LocalCluster;
use crate::support::http::{Answer, Receiver};
use crate::support::known::windows;
use crate::support::{Sandbox, text};

/// The collector's side of the protocol, as <https://opentelemetry.io/docs/specs/otlp/> has it; other fields are passed over.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    from: u64,
    #[prost(fixed64, tag = "8")]
    to: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    whole: i64,
}

impl Span {
    fn value(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    fn number(&self, key: &str) -> u64 {
        self.value(key).unwrap_or_else(|| panic!("{key} is missing: {self:?}")).whole.try_into().unwrap()
    }

    fn text(&self, key: &str) -> &str {
        &self.value(key).unwrap_or_else(|| panic!("{key} is missing: {self:?}")).text
    }
}

/// All spans that a collector has got.
struct Spans(Vec<Span>);

impl Spans {
    fn of(receiver: &Receiver) -> Spans {
        let requests = receiver.seen();
        for request in &requests {
            assert!(request.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", request.head);
        }
        let decoded = requests.iter().map(|request| Request::decode(&request.bytes[..]).unwrap());
        Spans(decoded.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect())
    }

    fn named(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }

    fn below(&self, span: &Span, name: &str) -> Vec<&Span> {
        let is_below = |other: &&Span| other.trace_id == span.trace_id && other.parent_span_id == span.span_id;
        self.0.iter().filter(|other| other.name == name).filter(is_below).collect()
    }

    fn one_below(&self, span: &Span, name: &str) -> &Span {
        let below = self.below(span, name);
        assert_eq!(below.len(), 1, "'{name}' below {span:?}: {below:?}");
        below[0]
    }

    /// Every epoch up to this one has one checkpoint that is complete, with phases, subtasks and one publication. Epochs by
    /// attempt come back.
    fn check_epochs(&self, last: u64, subtasks: usize, within: (u64, u64)) -> BTreeMap<u64, BTreeSet<u64>> {
        let checkpoints = self.named("checkpoint");
        let complete: Vec<&Span> =
            checkpoints.into_iter().filter(|span| span.text("mainstem.outcome") == "complete").collect();
        let epochs: Vec<u64> = complete.iter().map(|span| span.number("mainstem.epoch")).collect();
        let mut sorted = epochs.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=last).collect::<Vec<_>>(), "each epoch once");
        let mut by_attempt: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (checkpoint, epoch) in complete.into_iter().zip(epochs) {
            by_attempt.entry(checkpoint.number("mainstem.attempt")).or_default().insert(epoch);
            assert_eq!(checkpoint.text("mainstem.job"), "job");
            assert!(checkpoint.parent_span_id.is_empty(), "{checkpoint:?}");
            assert!(checkpoint.value("mainstem.state.bytes").is_some(), "{checkpoint:?}");
            assert!(within.0 <= checkpoint.from && checkpoint.to <= within.1, "{checkpoint:?} is not in the run");
            let [snapshot, manifest, record] =
                ["snapshot", "manifest", "record"].map(|phase| self.one_below(checkpoint, phase));
            let times = [snapshot.from, snapshot.to, manifest.from, manifest.to, record.from, record.to];
            assert!(times.is_sorted(), "phases follow each other: {times:?}");
            assert_eq!((checkpoint.from, checkpoint.to), (times[0], times[5]), "and are all of it");
            let parts = self.below(snapshot, "subtask");
            assert_eq!(parts.len(), subtasks, "{snapshot:?}");
            let is_within = |part: &&&Span| part.from == snapshot.from && part.to <= snapshot.to + MS;
            assert_eq!(parts.iter().filter(is_within).count(), subtasks, "{snapshot:?}: {parts:?}");
            parts.iter().for_each(|part| self.check_phases(part));
            let publish = self.one_below(checkpoint, "publish");
            assert!(publish.from <= publish.to && publish.to <= within.1, "{publish:?}");
            // Two readings of two clocks lie between them.
            assert!(publish.from + 1_000 * MS >= checkpoint.to, "{publish:?} before {checkpoint:?}");
        }
        by_attempt
    }

    /// What a subtask has done for a checkpoint: phases that follow each other up to the end of its part.
    fn check_phases(&self, part: &Span) {
        let [capture, upload] = ["capture", "upload"].map(|phase| self.one_below(part, phase));
        assert!(upload.number("mainstem.wait.ms") * MS <= upload.to - upload.from, "{upload:?}");
        assert_eq!((capture.to, upload.to), (upload.from, part.to), "{capture:?}, {upload:?}: {part:?}");
        let is_source = part.number("mainstem.operator") == 0;
        // A source has no inputs.
        let align = (!is_source).then(|| self.one_below(part, "align"));
        assert_eq!(self.below(part, "align").len(), usize::from(!is_source), "{part:?}");
        assert!(align.is_none_or(|align| align.to == capture.from), "{align:?}: {capture:?}");
        let times = [part.from, align.unwrap_or(capture).from, capture.from, upload.from, upload.to];
        assert!(times.is_sorted(), "{times:?}: {part:?}");
    }

    /// There are records, each with one span for each task from the source to the sink, which follow each other up to the time
    /// when it was visible. The workers that they have passed come back.
    fn check_records(&self, within: (u64, u64)) -> BTreeSet<String> {
        let records = self.named("rows");
        assert!(!records.is_empty(), "no record was sampled");
        let mut workers = BTreeSet::new();
        for record in records {
            let names = ["mainstem.source.name", "mainstem.sink.name"].map(|key| record.text(key));
            assert!(names[0].contains("bid") && names[1].contains("counts"), "{record:?}");
            assert!(
                record.number("mainstem.epoch") > 0 && within.0 <= record.from && record.to <= within.1,
                "{record:?}"
            );
            let (tasks, epoch) = (self.below(record, "task"), self.one_below(record, "epoch"));
            assert_eq!(tasks.len(), TASKS, "{record:?}: {tasks:?}");
            let times: Vec<u64> = tasks.iter().flat_map(|task| [task.from, task.to]).collect();
            assert!(times.is_sorted() && times[0] == record.from, "{tasks:?}");
            assert_eq!((epoch.from, epoch.to), (times[times.len() - 1], record.to), "{epoch:?}");
            for task in tasks {
                let parts = task.number("mainstem.wait.ms") + task.number("mainstem.processing.ms");
                assert_eq!(parts * MS, task.to - task.from, "{task:?}");
                assert!(task.number("mainstem.subtask") < 2, "{task:?}");
                workers.extend(task.value("mainstem.worker").map(|worker| worker.text.clone()));
            }
        }
        workers
    }
}

/// Nanoseconds.
const MS: u64 = 1_000_000;

fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

#[test]
fn traces_of_a_cluster_show_checkpoints_commits_and_the_recovery_from_a_lost_worker() {
    let collector = Receiver::start(|_, _| Answer::Take);
    let begun = now();
    let sandbox = Sandbox::new(&windows(100_000_000, 20_000, true, "none"));
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.root())];
    let environment: Vec<(&str, &str)> = endpoint.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let cluster = LocalCluster::start_with(&sandbox, 1, 3, 2, &environment);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    let running = cluster.wait_until("it has published", |jobs| jobs.number("job", "committed") > 2);
    let used = running.used_workers();
    let worker = used[0].split_once('@').map(|(name, _)| name.to_owned()).unwrap();
    cluster.signal(&worker, "KILL");
    let restored = cluster.wait_until("another attempt runs", |jobs| jobs.number("job", "generation") > 1);
    let epoch = restored.number("job", "committed");
    cluster.wait_until("it publishes again", |jobs| jobs.number("job", "committed") > epoch + 2);
    sandbox.run_ok(&["stop", "job"]);
    let ended = cluster.wait_until("it has stopped", |jobs| jobs.has_ended("job"));
    let (last, attempts) = (ended.number("job", "committed"), ended.number("job", "generation"));
    let waits = Instant::now();
    let spans = loop {
        let spans = Spans::of(&collector);
        if spans.named("publish").iter().any(|span| span.number("mainstem.epoch") == last) {
            break spans;
        }
        assert!(waits.elapsed() < Duration::from_secs(180), "no span of epoch {last}\n{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(20));
    };
    let by_attempt = spans.check_epochs(last, 2 * TASKS, (begun, now()));
    let workers = spans.check_records((begun, now()));
    assert!(workers.iter().any(|name| name.starts_with(&format!("{worker}@"))) && workers.len() > 1, "{workers:?}");
    assert!(by_attempt.len() > 1, "several attempts: {by_attempt:?}");

    let [first] = spans.named("start")[..] else { panic!("one start: {:?}", spans.named("start")) };
    assert_eq!((first.number("mainstem.attempt"), first.text("mainstem.outcome")), (1, "runs"));
    let recoveries = spans.named("recovery");
    let runs: Vec<&&Span> = recoveries.iter().filter(|span| span.text("mainstem.outcome") == "runs").collect();
    let numbers: Vec<u64> = runs.iter().map(|span| span.number("mainstem.attempt")).collect();
    assert!(numbers.is_sorted() && numbers.last() == Some(&attempts), "{attempts} attempts: {recoveries:?}");
    let recovery = runs[0];
    assert_eq!(recovery.number("mainstem.attempt.before"), numbers[0] - 1, "{recovery:?}");
    assert!(recovery.text("mainstem.cause").contains(&worker), "{recovery:?}");
    let restored = recovery.number("mainstem.restored_epoch");
    assert!(by_attempt[&1].contains(&restored), "it went on from {restored}: {by_attempt:?}");
    let phases = ["wait", "prepare", "deploy"].map(|phase| spans.one_below(recovery, phase));
    let times: Vec<u64> = phases.iter().flat_map(|phase| [phase.from, phase.to]).collect();
    assert!(times.is_sorted() && recovery.from == times[0] && recovery.to == times[5], "{times:?}: {recovery:?}");
    assert!(begun <= recovery.from && recovery.to <= now(), "{recovery:?}");
}

/// Tasks of the job: the source with the first step of the window, and its second step with the sink.
const TASKS: usize = 2;

#[test]
fn traces_of_one_process_are_complete_at_its_end() {
    let collector = Receiver::start(|_, _| Answer::Take);
    let sandbox = Sandbox::new(&windows(40_000, 20_000, true, "none"));
    let begun = now();
    let output = sandbox.run_ok(&["run", "job.sql", "-p", "2", "--otlp-endpoint", &collector.root()]);
    let spans = Spans::of(&collector);
    let last = spans.named("publish").iter().map(|span| span.number("mainstem.epoch")).max().unwrap_or_default();
    assert!(last > 1, "{}", text(&output.stderr));
    let by_attempt = spans.check_epochs(last, 2 * TASKS, (begun, now()));
    assert_eq!(by_attempt.len(), 1, "{by_attempt:?}");
    assert_eq!((spans.named("start").len(), spans.named("recovery").len()), (1, 0));
    assert!(spans.check_records((begun, now())).is_empty(), "one process has no workers");
}

/// Writing each state file takes long here. Nothing else does, so only the subtasks that have written one spend that time, and
/// all of it in their upload.
#[test]
fn traces_show_that_a_slow_store_is_what_a_checkpoint_waits_for() {
    const DELAY_MS: u64 = 700;
    let collector = Receiver::start(|_, _| Answer::Take);
    let mut sandbox = Sandbox::new(&windows(40_000, 20_000, true, "none"));
    sandbox.environment.push(("MAINSTEM_DELAY".to_owned(), format!("state-write:{DELAY_MS}")));
    sandbox.run_ok(&["run", "job.sql", "-p", "2", "--otlp-endpoint", &collector.root()]);
    let spans = Spans::of(&collector);
    let busy =
        |span: &Span| (span.to - span.from) / MS - span.value("mainstem.wait.ms").map_or(0, |wait| wait.whole as u64);
    let (mut written, mut others) = (0, 0);
    for part in spans.named("subtask") {
        let upload = spans.one_below(part, "upload");
        if upload.number("mainstem.uploaded.bytes") > 0 {
            written += 1;
            assert!(busy(upload) >= DELAY_MS, "{upload:?}");
            assert!(part.to - part.from >= DELAY_MS * MS, "{part:?}");
        } else {
            others += 1;
            assert!(busy(upload) < DELAY_MS, "{upload:?}");
        }
        assert!(busy(spans.one_below(part, "capture")) < DELAY_MS, "{part:?}");
    }
    assert!(written > 1 && others > 1, "{written} parts with state, {others} without");
}

#[test]
fn traces_that_nobody_takes_are_one_warning_and_no_failure() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut sandbox = Sandbox::new(&windows(40_000, 20_000, true, "none"));
    sandbox.environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://{nobody}")));
    let said = text(&sandbox.run_ok(&["run", "job.sql", "-p", "2"]).stderr);
    assert_eq!(said.matches("traces cannot be sent").count(), 1, "{said}");
    assert!(said.contains(&format!("http://{nobody}")), "{said}");
    let undisturbed = crate::support::known::undisturbed(40_000, 20_000);
    assert!(sandbox.lines("out") == undisturbed, "the rows are all there");
    // What is no address of a collector is found before the job begins.
    sandbox.environment.clear();
    let wrong = sandbox.run_err(&["run", "job.sql", "--fresh", "--otlp-endpoint", "localhost:4318"]);
    assert!(wrong.contains("--otlp-endpoint"), "{wrong}");
}
