//! Requests of epochs against a receiver on loopback that answers as it is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::{JobId, OperatorId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::super::body::Bodies;
use super::super::staged::StagedWriter;
use super::*;
use crate::sink::{SinkWriter, WriterContext};
use crate::staging::{Staging, testing::in_memory};
use crate::table::TableSpec;

/// A request as it came: key and body.
type Seen = (String, String);

/// Answers each request with the status (and header lines) that `answer` gives for its number and body.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The most requests that were under way at once.
    most: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(answer: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook/sesame-sesame", listener.local_addr().unwrap());
        let receiver = Receiver { url, seen: Arc::default(), most: Arc::default() };
        let (seen, most, now) = (receiver.seen.clone(), receiver.most.clone(), Arc::new(AtomicUsize::new(0)));
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, most, now, answer) = (seen.clone(), most.clone(), now.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    while let Some(request) = read(&mut stream).await {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                        let body = request.1.clone();
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(request);
                            seen.len() - 1
                        };
                        let answer = answer(number, &body);
                        now.fetch_sub(1, Ordering::SeqCst);
                        if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        receiver
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        if body.len() >= header("content-length")?.parse().ok()? {
            return Some((header("idempotency-key")?, body.to_owned()));
        }
    }
}

fn status(code: u16, more: &str) -> String {
    format!("HTTP/1.1 {code} X\r\n{more}Content-Length: 0\r\n\r\n")
}

fn table(url: &str, options: &[(&str, &str)]) -> Arc<TableSpec> {
    let defaults = [("connector", "http"), ("url", url), ("format", "json"), ("retry.delay", "1 ms")];
    Arc::new(TableSpec {
        name: "t".into(),
        schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
        primary_key: vec!["n".into()],
        partition_keys: Vec::new(),
        options: defaults.iter().chain(options).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    })
}

/// Stages the numbers as an epoch of two subtasks, and gives it with its committer.
async fn epoch(table: &Arc<TableSpec>, staging: &Staging, numbers: Range<i64>) -> (HttpCommitter, Vec<Committable>) {
    let options = Arc::new(HttpOptions::read(table).unwrap());
    let mut committables = Vec::new();
    for subtask in 0..2 {
        let ctx = WriterContext {
            job: JobId::new("j").unwrap(),
            operator: OperatorId(3),
            subtask,
            generation: Generation(1),
            working_dir: "/".into(),
            changes: ChangeMode::Append,
            staging: staging.clone(),
        };
        let mut writer = StagedWriter::new(table.clone(), options.clone(), &ctx);
        let own = numbers.clone().filter(|number| number % 2 == i64::from(subtask));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(own));
        let rows = RecordBatch::try_new(table.schema.clone(), vec![column]).unwrap();
        writer.write(&rows, None).await.unwrap();
        committables.extend(writer.seal(Epoch(5)).await.unwrap().await.unwrap());
    }
    let ctx = CommitterContext { job: JobId::new("j").unwrap(), operator: OperatorId(3), staging: staging.clone() };
    (HttpCommitter::new(options, ctx), committables)
}

#[tokio::test]
async fn a_request_that_comes_again_has_its_key_and_its_bytes() {
    let receiver = Receiver::start(|number, _| match number % 7 {
        1 => status(503, ""),
        2 => String::new(),
        3 => status(409, ""),
        _ => status(204, ""),
    })
    .await;
    let staging = in_memory();
    let table = table(&receiver.url, &[("batch-size", "3"), ("retry.max", "50")]);
    let (mut committer, committables) = epoch(&table, &staging, 0..60).await;
    committer.commit(Epoch(5), &committables).await.unwrap();
    assert_eq!((committer.progress(), committer.dropped_records()), (20, 0));
    assert!(!staging.store().list().await.unwrap().is_empty(), "it may be asked for again");
    let seen = receiver.seen().len();
    committer.commit(Epoch(5), &committables).await.unwrap();
    assert_eq!(receiver.seen().len(), seen, "the answers are known");
    committer.commit(Epoch(6), &[]).await.unwrap();
    assert!(staging.store().list().await.unwrap().is_empty(), "nobody asks for the epoch before");
    let bodies: BTreeMap<String, BTreeSet<String>> =
        receiver.seen().into_iter().fold(BTreeMap::new(), |mut bodies, (key, body)| {
            bodies.entry(key).or_default().insert(body);
            bodies
        });
    assert_eq!(bodies.len(), 20);
    assert!(bodies.keys().all(|key| key.starts_with("j/op3/5/")), "{bodies:?}");
    assert!(bodies.values().all(|bodies| bodies.len() == 1), "{bodies:?}");
    let numbers: BTreeSet<i64> = bodies
        .values()
        .flatten()
        .flat_map(|body| {
            let rows: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
            rows.into_iter().map(|row| row["n"].as_i64().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(numbers, (0..60).collect());
    assert!(receiver.most.load(Ordering::SeqCst) > 1, "several are under way");
}

#[tokio::test]
async fn a_call_that_failed_goes_on_where_it_was_and_another_process_sends_all_again() {
    let receiver = Receiver::start(|number, _| status(if number == 4 { 500 } else { 200 }, "")).await;
    let staging = in_memory();
    let table = table(&receiver.url, &[("retry.max", "0"), ("requests-in-flight", "1")]);
    let (mut committer, committables) = epoch(&table, &staging, 0..10).await;
    let error = committer.commit(Epoch(5), &committables).await.unwrap_err();
    assert!(error.is_retryable() && error.message.contains("500"), "{error}");
    assert!(!error.message.contains("sesame"), "{error}");
    assert_eq!(committer.progress(), 4);
    committer.commit(Epoch(5), &committables).await.unwrap();
    let seen = receiver.seen();
    assert_eq!(seen.len(), 11, "the fifth twice, no other");
    assert_eq!(seen[4], seen[5]);
    // A process that died before it could note anything.
    let mut again = HttpCommitter::new(committer.options.clone(), committer.ctx.clone());
    again.commit(Epoch(5), &committables).await.unwrap();
    let first: BTreeSet<Seen> = seen.into_iter().collect();
    assert_eq!(receiver.seen()[11..].iter().cloned().collect::<BTreeSet<Seen>>(), first);
}

#[tokio::test]
async fn what_is_refused_stops_the_job_or_is_dropped_and_counted() {
    let answer = |_: usize, body: &str| match body.contains(":3}") {
        true => {
            let text = "no 3 at /hook/sesame-sesame !";
            format!("HTTP/1.1 422 X\r\nContent-Length: {}\r\n\r\n{text}", text.len())
        }
        false => status(200, ""),
    };
    let receiver = Receiver::start(answer).await;
    let (mut committer, committables) = epoch(&table(&receiver.url, &[]), &in_memory(), 0..10).await;
    let error = committer.commit(Epoch(5), &committables).await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.message.contains("422") && error.message.contains("no 3 at"), "{error}");
    assert!(!error.message.contains("sesame") && error.message.contains("'on-rejected' = 'drop'"), "{error}");
    let drops = table(&receiver.url, &[("on-rejected", "drop")]);
    let (mut committer, committables) = epoch(&drops, &in_memory(), 0..10).await;
    committer.commit(Epoch(5), &committables).await.unwrap();
    assert_eq!((committer.progress(), committer.dropped_records()), (10, 1));
}

#[tokio::test]
async fn changes_of_a_writer_are_sent_one_after_the_other() {
    let receiver = Receiver::start(|number, _| status(if number % 5 == 2 { 503 } else { 200 }, "")).await;
    let (mut committer, committables) =
        epoch(&table(&receiver.url, &[("format", "upsert-json")]), &in_memory(), 0..40).await;
    committer.commit(Epoch(5), &committables).await.unwrap();
    assert!(receiver.most.load(Ordering::SeqCst) <= 2, "one of each writer");
    let mut seen = receiver.seen();
    seen.dedup();
    let numbers: Vec<i64> = seen
        .iter()
        .map(|(_, body)| {
            let digits: String = body.chars().filter(char::is_ascii_digit).collect();
            digits[..digits.len() / 2].parse().unwrap()
        })
        .collect();
    for parity in 0..2 {
        let own: Vec<i64> = numbers.iter().copied().filter(|number| number % 2 == parity).collect();
        let mut once = own.clone();
        once.dedup();
        assert_eq!(once, (0..40).filter(|number| number % 2 == parity).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it() {
    let receiver =
        Receiver::start(|number, _| if number == 0 { status(429, "Retry-After: 1\r\n") } else { status(200, "") })
            .await;
    let one = table(&receiver.url, &[("requests-in-flight", "1")]);
    let (mut committer, committables) = epoch(&one, &in_memory(), 0..4).await;
    let begun = tokio::time::Instant::now();
    committer.commit(Epoch(5), &committables).await.unwrap();
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(receiver.seen().len(), 5);
}

#[test]
fn columns_that_the_format_cannot_hold_are_refused() {
    let mut spec = TableSpec::clone(&table("http://h/", &[("format", "csv")]));
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    spec.schema = Arc::new(Schema::new(vec![Field::new("l", list, true)]));
    let options = HttpOptions::read(&spec).unwrap();
    assert!(Bodies::new(&spec, &options).err().unwrap().message.contains("ARRAY"));
}
