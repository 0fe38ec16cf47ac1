//! A receiver of requests on loopback, which remembers what came and answers as it is told, and badly.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What its header `Idempotency-Key` says; empty without.
    pub(crate) key: String,
    pub(crate) body: String,
    /// The same as it came.
    pub(crate) bytes: Vec<u8>,
    /// The line of the request and its headers, in lower case.
    pub(crate) head: String,
    /// Whether the receiver took it, and not only saw it.
    pub(crate) taken: bool,
}

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Takes it, and says so.
    Take,
    /// Takes it, but says so late.
    TakeSlowly(Duration),
    /// Takes it, and its answer is lost.
    TakeSilently,
    /// Does not take it: a status, and headers with their line ends.
    Refuse(u16, &'static str, String),
}

/// See the module. Dropping it ends it.
pub(crate) struct Receiver {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    /// A receiver; `answer` is asked for each request, with how many came before it.
    pub(crate) fn start(answer: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Receiver { port, seen: Arc::default(), stop: Arc::default() };
        let (seen, stop, answer) = (receiver.seen.clone(), receiver.stop.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, answer) = (seen.clone(), answer.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, &seen, answer.as_ref()));
            }
        });
        receiver
    }

    /// The address to send to.
    pub(crate) fn url(&self) -> String {
        format!("{}/hook", self.root())
    }

    /// The address of the receiver itself.
    pub(crate) fn root(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All requests so far, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What a receiver has that honours keys: the body of each key that it took. Each key must have come with the same
    /// body every time, and every request with a key.
    #[track_caller]
    pub(crate) fn taken_once(&self) -> BTreeMap<String, String> {
        let mut bodies = BTreeMap::new();
        let mut taken = BTreeMap::new();
        for seen in self.seen() {
            assert!(!seen.key.is_empty(), "a request without key: {}", seen.head);
            let body = bodies.entry(seen.key.clone()).or_insert_with(|| seen.body.clone());
            assert_eq!(*body, seen.body, "another body for the key {}", seen.key);
            if seen.taken {
                taken.insert(seen.key, seen.body);
            }
        }
        taken
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes who waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Serves one connection until it is closed.
fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>, answer: &(dyn Fn(usize, &Seen) -> Answer + Sync)) {
    let mut bytes = Vec::new();
    while let Some(mut request) = read(&mut stream, &mut bytes) {
        let decided = {
            let mut seen = seen.lock().unwrap();
            let decided = answer(seen.len(), &request);
            request.taken = !matches!(decided, Answer::Refuse(..));
            seen.push(request);
            decided
        };
        let text = match decided {
            Answer::Take => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Answer::TakeSlowly(wait) => {
                std::thread::sleep(wait);
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()
            }
            Answer::TakeSilently => return,
            Answer::Refuse(status, headers, body) => {
                format!("HTTP/1.1 {status} No\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
            }
        };
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request of a connection; `bytes` are those that were read beyond the one before.
fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let header = |name: &str| {
                let line = head.lines().find(|line| line.split(':').next() == Some(name))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            };
            let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let raw = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                let (key, body) = (header("idempotency-key").unwrap_or_default(), String::from_utf8_lossy(&raw));
                return Some(Seen { key, body: body.into_owned(), bytes: raw, head, taken: false });
            }
        }
        let mut chunk = [0; 16 << 10];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
