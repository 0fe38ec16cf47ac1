//! From what a history tells to spans, and what becomes of them with collectors of all kinds.

use std::io::Write;
use std::time::Instant;

use mainstem_coordinator::{
    CheckpointNote, CheckpointStage, FailedAttempt, PassedCheckpoint, PassedRecord, Publication, StartOutcome,
    StartPhase, StartedAttempt, SubtaskPart, What,
};
use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::ids::{Epoch, Generation, SubtaskId};
use mainstem_core::latency::{Arrival, Hop, LatencyMarker};
use mainstem_core::protocol::PartTimes;
use mainstem_core::time::Timestamp;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::otlp::{ExportRequest, ExportResponse, KeyValue, PartialSuccess, STATUS_ERROR, Span, Value};
use super::*;

fn job() -> TracedJob {
    let names = BTreeMap::from([(OperatorId(3), "join".to_owned())]);
    TracedJob { job: JobId::new("orders").unwrap(), names }
}

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(3), index }
}

fn note(stage: CheckpointStage) -> CheckpointNote {
    CheckpointNote {
        epoch: Epoch(7),
        generation: Generation(2),
        stage,
        failure: None,
        started_at: Timestamp(1_000),
        published_at: None,
        duration_ms: Some(20),
        alignment_ms: Some(4),
        snapshot_ms: Some(15),
        manifest_ms: Some(3),
        record_ms: Some(2),
        publish_ms: None,
        bytes: Some(100),
        in_flight_bytes: None,
        subtasks: 2,
        acknowledged: 2,
        slowest: Some(part(0, 15)),
    }
}

fn part(index: u32, after_ms: i64) -> SubtaskPart {
    let times = PartTimes { capture_ms: 1, wait_ms: 0, upload_ms: 3, uploaded_bytes: 50 };
    let is_told = index == 1;
    SubtaskPart {
        subtask: subtask(index),
        after_ms,
        alignment_ms: is_told.then_some(4),
        times: is_told.then_some(times),
    }
}

fn passed(what: What) -> Passed {
    Passed { created_at: Some(Timestamp(900)), what }
}

fn checkpoint() -> Passed {
    let note = note(CheckpointStage::Complete);
    passed(What::Checkpoint(PassedCheckpoint { note, took_ms: 20, parts: vec![part(1, 10), part(0, 15)] }))
}

fn publication(epoch: u64) -> Passed {
    let (epoch, made_by) = (Epoch(epoch), Generation(2));
    passed(What::Publication(Publication { epoch, made_by, began_at: Timestamp(1_025), took_ms: 5 }))
}

/// Name, name of the span above, and milliseconds from and to.
fn shape(spans: &[Span]) -> Vec<(&str, &str, u64, u64)> {
    let above = |span: &Span| spans.iter().find(|other| other.span_id == span.parent_span_id);
    let ms = |nanos: u64| nanos / 1_000_000;
    let shown = |span: &'_ Span| (ms(span.start_time_unix_nano), ms(span.end_time_unix_nano));
    spans
        .iter()
        .map(|span| {
            let (from, to) = shown(span);
            (span.name.as_str(), above(span).map_or("", |above| above.name.as_str()), from, to)
        })
        .collect()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let found: Vec<&KeyValue> = span.attributes.iter().filter(|attribute| attribute.key == key).collect();
    assert!(found.len() < 2, "{key} is there twice: {span:?}");
    found.first()?.value.as_ref()?.value.as_ref()
}

fn whole(span: &Span, key: &str) -> Option<i64> {
    match attribute(span, key)? {
        Value::Whole(number) => Some(*number),
        other => panic!("{key} is {other:?}"),
    }
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match attribute(span, key)? {
        Value::Text(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

fn record(visible_at: Option<i64>) -> Passed {
    let source = SubtaskId { operator: OperatorId(1), index: 1 };
    let hop = |operator, index, began, left| Hop {
        subtask: SubtaskId { operator: OperatorId(operator), index },
        began_at: Timestamp(began),
        left_at: Timestamp(left),
    };
    // The join had nothing to do when the marker came; the clock of the sink's host is behind.
    let hops = vec![hop(1, 1, 1_010, 1_015), hop(3, 0, 900, 1_016), hop(4, 1, 1_012, 1_014)];
    let marker = LatencyMarker { source, number: 5, read_at: Timestamp(1_000), trace: Some(hops) };
    passed(What::Record(PassedRecord {
        sink: OperatorId(5),
        generation: Generation(2),
        epoch: Epoch(7),
        arrival: Arrival { marker, at: Timestamp(1_014) },
        workers: ["w0@a:1#x", "w1@b:1#y"].map(|id| WorkerId(id.to_owned())).into(),
        visible_at: visible_at.map(Timestamp),
    }))
}

#[test]
fn a_record_is_a_trace_with_a_span_for_each_task_that_it_passed() {
    let job = job();
    let spans = spans::of(&job, &record(Some(1_100)));
    assert_eq!(
        shape(&spans),
        [
            ("rows", "", 1_000, 1_100),
            ("task", "rows", 1_000, 1_015),
            ("task", "rows", 1_015, 1_016),
            ("task", "rows", 1_016, 1_016),
            ("epoch", "rows", 1_016, 1_100),
        ]
    );
    let times = |span: &Span| (whole(span, "mainstem.wait.ms"), whole(span, "mainstem.processing.ms"));
    let waited: Vec<_> = spans[1..4].iter().map(times).collect();
    assert_eq!(waited, [(Some(10), Some(5)), (Some(0), Some(1)), (Some(0), Some(0))]);
    assert_eq!(text(&spans[1], "mainstem.worker"), Some("w1@b:1#y"));
    assert_eq!(
        (text(&spans[2], "mainstem.operator.name"), whole(&spans[2], "mainstem.subtask")),
        (Some("join"), Some(0))
    );
    let root = &spans[0];
    assert_eq!((whole(root, "mainstem.epoch"), whole(root, "mainstem.attempt")), (Some(7), Some(2)));
    assert_eq!((whole(root, "mainstem.source"), whole(root, "mainstem.sink")), (Some(1), Some(5)));
    // Of a sink that publishes nothing.
    let spans = spans::of(&job, &record(None));
    assert_eq!((spans.len(), shape(&spans)[0]), (4, ("rows", "", 1_000, 1_014)));
}

#[test]
fn a_checkpoint_is_a_trace_with_phases_and_subtasks_and_its_publication_belongs_to_it() {
    let (job, told) = (job(), checkpoint());
    let spans = spans::of(&job, &told);
    assert_eq!(
        shape(&spans),
        [
            ("checkpoint", "", 1_000, 1_020),
            ("snapshot", "checkpoint", 1_000, 1_015),
            ("manifest", "checkpoint", 1_015, 1_018),
            ("record", "checkpoint", 1_018, 1_020),
            ("subtask", "snapshot", 1_000, 1_010),
            ("upload", "subtask", 1_007, 1_010),
            ("capture", "subtask", 1_006, 1_007),
            ("align", "subtask", 1_002, 1_006),
            ("subtask", "snapshot", 1_000, 1_015),
        ]
    );
    let root = &spans[0];
    assert_eq!((text(root, "mainstem.job"), text(root, "mainstem.outcome")), (Some("orders"), Some("complete")));
    assert_eq!((whole(root, "mainstem.epoch"), whole(root, "mainstem.attempt")), (Some(7), Some(2)));
    assert_eq!((whole(root, "mainstem.state.bytes"), attribute(root, "mainstem.in_flight.bytes")), (Some(100), None));
    assert_eq!(
        (text(&spans[4], "mainstem.operator.name"), whole(&spans[4], "mainstem.subtask")),
        (Some("join"), Some(1))
    );
    assert_eq!((whole(&spans[4], "mainstem.alignment.ms"), whole(&spans[8], "mainstem.alignment.ms")), (Some(4), None));
    let uploaded = ["mainstem.wait.ms", "mainstem.uploaded.bytes"].map(|key| whole(&spans[5], key));
    assert_eq!(uploaded, [Some(0), Some(50)]);
    assert!(spans.iter().all(|span| span.status.is_none() && span.trace_id == root.trace_id), "{spans:?}");
    assert_eq!((root.trace_id.len(), root.span_id.len()), (16, 8));
    let ids: std::collections::BTreeSet<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    assert_eq!(ids.len(), spans.len(), "each has an id of its own");

    // Told apart from it, perhaps by another leader.
    let [published] = &spans::of(&job, &publication(7))[..] else { panic!("one span") };
    assert_eq!((&published.trace_id, &published.parent_span_id), (&root.trace_id, &root.span_id));
    assert_eq!(spans, spans::of(&job, &told), "the same each time");
    let of_another = |passed: Passed| spans::of(&job, &passed)[0].trace_id.clone();
    assert_ne!(of_another(publication(8)), root.trace_id, "another epoch");
    let later = Passed { created_at: Some(Timestamp(901)), ..checkpoint() };
    assert_ne!(of_another(later), root.trace_id, "another job of that name");
}

/// The sum of them may be more than what the coordinator has seen: a new leader has not seen the beginning.
#[test]
fn phases_of_a_subtask_lie_within_its_span_and_waiting_belongs_to_the_upload() {
    let phases = |after_ms, alignment_ms, wait_ms| {
        let times = Some(PartTimes { capture_ms: 5, wait_ms, upload_ms: 10, uploaded_bytes: 0 });
        let parts = vec![SubtaskPart { subtask: subtask(0), after_ms, alignment_ms, times }];
        let note = note(CheckpointStage::Complete);
        let spans = spans::of(&job(), &passed(What::Checkpoint(PassedCheckpoint { note, took_ms: after_ms, parts })));
        let all = shape(&spans);
        let found = all.iter().filter(|(_, above, ..)| *above == "subtask");
        found.map(|(name, _, from, to)| format!("{name} {from} {to}")).collect::<Vec<_>>()
    };
    assert_eq!(phases(40, None, 7), ["upload 1023 1040", "capture 1018 1023"]);
    assert_eq!(phases(12, Some(9), 0), ["upload 1002 1012", "capture 1000 1002", "align 1000 1000"]);
}

#[test]
fn a_checkpoint_that_failed_shows_in_which_phase() {
    let failure = Some("the disk is full".to_owned());
    let failed = CheckpointNote {
        failure,
        duration_ms: None,
        manifest_ms: None,
        record_ms: None,
        ..note(CheckpointStage::Failed)
    };
    let told = passed(What::Checkpoint(PassedCheckpoint { note: failed, took_ms: 40, parts: vec![part(0, 10)] }));
    let spans = spans::of(&job(), &told);
    assert_eq!(
        shape(&spans)[..3],
        [
            ("checkpoint", "", 1_000, 1_040),
            ("snapshot", "checkpoint", 1_000, 1_015),
            ("manifest", "checkpoint", 1_015, 1_040),
        ]
    );
    assert_eq!(text(&spans[0], "mainstem.outcome"), Some("failed"));
    let errors: Vec<_> =
        spans.iter().map(|span| span.status.as_ref().map(|status| (status.code, status.message.as_str()))).collect();
    let error = Some((STATUS_ERROR, "the disk is full"));
    assert_eq!(errors, [error, None, error, None]);
}

fn restart(outcome: StartOutcome) -> Passed {
    passed(What::Start(StartedAttempt {
        reason: "worker w1 is gone".to_owned(),
        before: Generation(2),
        failed: Some(FailedAttempt { subtask: Some(subtask(1)), retryable: true }),
        generation: Some(Generation(3)),
        restored: Some(Epoch(7)),
        began_at: Timestamp(2_000),
        phases: vec![(StartPhase::Wait, 500), (StartPhase::Prepare, 20), (StartPhase::Deploy, 80)],
        outcome,
    }))
}

#[test]
fn a_recovery_has_its_cause_and_its_phases() {
    let spans = spans::of(&job(), &restart(StartOutcome::Runs));
    assert_eq!(
        shape(&spans),
        [
            ("recovery", "", 2_000, 2_600),
            ("wait", "recovery", 2_000, 2_500),
            ("prepare", "recovery", 2_500, 2_520),
            ("deploy", "recovery", 2_520, 2_600),
        ]
    );
    let root = &spans[0];
    assert_eq!(
        (text(root, "mainstem.cause"), text(root, "mainstem.outcome")),
        (Some("worker w1 is gone"), Some("runs"))
    );
    let numbers = ["mainstem.attempt.before", "mainstem.attempt", "mainstem.restored_epoch", "mainstem.subtask"];
    assert_eq!(numbers.map(|key| whole(root, key)), [Some(2), Some(3), Some(7), Some(1)]);
    assert_eq!(attribute(root, "mainstem.retryable"), Some(&Value::Truth(true)));
    let failed = spans::of(&job(), &restart(StartOutcome::Failed("no slots".to_owned())));
    let errors: Vec<bool> = failed.iter().map(|span| span.status.is_some()).collect();
    assert_eq!(errors, [true, false, false, true], "it failed in its last phase");
}

/// Heads and bodies.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What a collector got, and where it is.
struct Collected {
    url: String,
    requests: Requests,
}

impl Collected {
    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let decoded = requests.iter().map(|(_, body)| ExportRequest::decode(&body[..]).unwrap());
        decoded.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }
}

/// A collector that answers with these, one after the other, and then with the last of them for ever; with none, not at all.
async fn collector(answers: &[(u16, Vec<u8>)]) -> Collected {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (kept, answers) = (requests.clone(), answers.to_vec());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if answers.is_empty() {
                silent.push(stream);
                continue;
            }
            let request = read(&mut stream).await;
            let n = {
                let mut kept = kept.lock().unwrap();
                kept.push(request);
                kept.len() - 1
            };
            let (status, body) = &answers[n.min(answers.len() - 1)];
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        }
    });
    Collected { url, requests }
}

/// The head of a request in lower case, and its body.
async fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let body = &bytes[end + 4..];
        if body.len() == length.parse::<usize>().unwrap() {
            return (head, body.to_vec());
        }
    }
}

fn traces(url: &str) -> Arc<Traces> {
    let args = TracesArgs {
        otlp_endpoint: Some(url.to_owned()),
        otlp_headers: Some("api-key=a%20b".to_owned()),
        otlp_service_name: "shop".to_owned(),
    };
    Traces::start(&args, "test 1").unwrap().expect("it is on")
}

fn watcher(traces: &Traces) -> Watcher {
    Watcher { job: Arc::new(job()), queue: traces.queue.clone(), counts: traces.counts.clone() }
}

#[tokio::test]
async fn spans_come_in_one_batch_with_who_has_sent_them() {
    let collected = collector(&[(200, Vec::new())]).await;
    let traces = traces(&collected.url);
    let watcher = watcher(&traces);
    watcher.told(checkpoint());
    watcher.told(publication(7));
    traces.end().await;
    let wanted = [spans::of(&job(), &checkpoint()), spans::of(&job(), &publication(7))].concat();
    assert_eq!(collected.spans(), wanted);
    let requests = collected.requests.lock().unwrap();
    let [(head, body)] = &requests[..] else { panic!("one request: {requests:?}") };
    for part in ["post /v1/traces http/1.1\r\n", "api-key: a b\r\n", "content-type: application/x-protobuf\r\n"] {
        assert!(head.contains(part), "{part}: {head}");
    }
    let request = ExportRequest::decode(&body[..]).unwrap();
    let resource = request.resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes[0], KeyValue::new("service.name", "shop"));
    assert_eq!(resource.attributes[2], KeyValue::new("service.instance.id", "test 1"));
    assert_eq!((traces.counts.exported(), traces.counts.without_room(), traces.counts.not_taken()), (10, 0, 0));
}

#[tokio::test]
async fn off_costs_nothing_and_says_nothing() {
    for endpoint in [None, Some(String::new())] {
        let args = TracesArgs { otlp_endpoint: endpoint, otlp_headers: None, otlp_service_name: String::new() };
        assert!(Traces::start(&args, "test").unwrap().is_none());
    }
}

/// The exporter has no turn while this tells, so all that is beyond the queue's limit is dropped at once.
#[tokio::test]
async fn what_the_queue_has_no_room_for_is_dropped_and_counted() {
    let collected = collector(&[(200, Vec::new())]).await;
    let traces = traces(&collected.url);
    let watcher = watcher(&traces);
    let (told, too_many) = (QUEUE_MAX as u64 + 10, 10);
    (0..told).for_each(|epoch| watcher.told(publication(epoch)));
    assert_eq!(traces.counts.without_room(), too_many);
    watcher.told(checkpoint());
    assert_eq!(traces.counts.without_room(), too_many + 9, "spans are counted");
    traces.end().await;
    assert_eq!((traces.counts.exported(), collected.spans().len()), (QUEUE_MAX as u64, QUEUE_MAX));
    let batches = collected.requests.lock().unwrap().len();
    assert_eq!(batches, QUEUE_MAX / exporter::BATCH_SPANS, "no batch is larger");
    watcher.told(publication(1));
    assert_eq!(traces.counts.without_room(), too_many + 10, "nothing is told after the end");
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let rejects = PartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() };
    let in_part = ExportResponse { partial_success: Some(rejects) }.encode_to_vec();
    let ok = (200, Vec::new());
    for (answers, requests, counts) in [
        (vec![(503, Vec::new()), (429, Vec::new()), ok.clone()], 3, (9, 0)),
        (vec![(400, b"no".to_vec()), ok.clone()], 1, (0, 9)),
        (vec![(301, Vec::new()), ok], 1, (0, 9)),
        (vec![(200, in_part)], 1, (7, 2)),
    ] {
        let collected = collector(&answers).await;
        let traces = traces(&collected.url);
        watcher(&traces).told(checkpoint());
        // An end would cut the tries short.
        while traces.counts.exported() + traces.counts.not_taken() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((traces.counts.exported(), traces.counts.not_taken()), counts, "{answers:?}");
        assert_eq!(collected.requests.lock().unwrap().len(), requests, "{answers:?}");
        traces.end().await;
    }
}

/// Where log lines go.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the real time of an end is looked at")]
async fn an_unreachable_or_silent_collector_gives_one_warning_and_a_bounded_end() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = collector(&[]).await;
    for url in [format!("http://{unused}"), silent.url] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let traces = traces(&url);
        let watcher = watcher(&traces);
        // Several batches.
        for epoch in 0..3 * exporter::BATCH_SPANS as u64 / 2 {
            watcher.told(publication(epoch));
        }
        let begun = Instant::now();
        traces.end().await;
        assert!(begun.elapsed() < END_WITHIN * 3, "{:?}", begun.elapsed());
        drop(guard);
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
        assert!(log.contains(&url), "{log}");
        assert_eq!(traces.counts.exported(), 0);
    }
}
