//! A plain client of the binary's HTTP port: HTTP/1.1, one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client of one port.
#[derive(Clone)]
pub(crate) struct HttpClient {
    address: String,
    token: Option<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The code of an error.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {}", self.text)).to_owned()
    }
}

impl HttpClient {
    pub(crate) fn new(address: &str) -> HttpClient {
        HttpClient { address: address.to_owned(), token: None }
    }

    pub(crate) fn with_token(&self, token: &str) -> HttpClient {
        HttpClient { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Asks; none where nobody answers.
    pub(crate) fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut stream = self.send(method, path, headers, body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        parse(&bytes)
    }

    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let answer = self.try_ask(method, path, headers, body);
        answer.unwrap_or_else(|| panic!("no answer to {method} {path} at {}", self.address))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub(crate) fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], Some(body))
    }

    /// Asks for something that may be done twice, again and again while nobody leads.
    #[track_caller]
    pub(crate) fn insist(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.ask(method, path, &[], body);
            if ![503, 504].contains(&answer.status) || begun.elapsed() > PATIENCE {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks again and again until the answer is as it should be.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            if let Some(answer) = self.try_ask("GET", path, &[], None) {
                let parsed = serde_json::from_str(&answer.text).ok();
                if let Some(json) = parsed.filter(|json| answer.status == 200 && holds(json)) {
                    return json;
                }
                last = answer.text;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} is not as it should be: {last}");
    }

    /// Events of a stream with their ids and kinds, until one is wanted no more.
    #[track_caller]
    pub(crate) fn events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        mut goes_on: impl FnMut(&str, &str, &Value) -> bool,
    ) {
        let stream = self.send("GET", path, headers, None).unwrap();
        let (mut id, mut kind) = (String::new(), String::new());
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            if let Some(found) = line.strip_prefix("id: ") {
                id = found.to_owned();
            }
            if let Some(found) = line.strip_prefix("event: ") {
                kind = found.to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ")
                && !goes_on(&id, &kind, &serde_json::from_str(data).unwrap())
            {
                return;
            }
        }
        panic!("the stream has ended");
    }

    /// Sends a request whose answer is not waited for; to drop the stream is to go away.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !has("host") {
            text += &format!("Host: {}\r\n", self.address);
        }
        if let Some(token) = &self.token {
            text += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            text += &format!("Content-Length: {}\r\n", body.len());
            if !has("content-type") {
                text += "Content-Type: application/json\r\n";
            }
        }
        text += "\r\n";
        text += &body.unwrap_or_default();
        // A server that has seen enough answers before it has read all.
        let _ = stream.write_all(text.as_bytes());
        Some(stream)
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let body = &bytes[end + 4..];
    let body = if headers.get("transfer-encoding").is_some_and(|how| how == "chunked") {
        unchunked(body)
    } else {
        body.to_vec()
    };
    Some(Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && bytes.len() >= end + 2 + size) else { break };
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    body
}
