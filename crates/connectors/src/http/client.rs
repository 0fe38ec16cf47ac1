//! Sends one request until it is taken, refused for good, or has failed too often. Called by the committer and by writers
//! that stage nothing.
//!
//! Invariants:
//! - Every try of a request has the same key and the same bytes.
//! - Messages hold neither the path nor the parameters of the address, nor a header.

mod answer;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mainstem_core::retry::Backoff;
use mainstem_core::time::Timestamp;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};
use tokio::time::Instant;

use crate::error::{ConnectorError, ErrorKind};
use crate::format::excerpt;

use super::options::{Address, HttpOptions};
use answer::{Verdict, verdict};

/// Bytes of an answer that are read: of one that refuses, to show some of them; of others so that the connection can be used
/// again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of an answer that are shown.
const ANSWER_SHOWN_MAX: usize = 300;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Sent {
    /// The receiver has it.
    Taken,
    /// The receiver does not want it, and will not: why.
    Rejected(ConnectorError),
}

/// See the module. Shared by all requests of a table in a process, so that they pause together.
pub(super) struct HttpClient {
    options: Arc<HttpOptions>,
    client: Client,
    hidden: Vec<String>,
    opened: Instant,
    /// No request is sent before this time, which the receiver has asked for.
    pause_until: Mutex<Option<Instant>>,
}

/// Why a try has failed in a way that may pass.
struct Failure {
    message: String,
    /// How long the receiver wants to be left alone.
    wait: Option<Duration>,
    /// What it means when no more tries are left.
    otherwise: Option<ConnectorError>,
}

impl HttpClient {
    /// A client, which connects when it sends.
    pub(super) fn open(options: Arc<HttpOptions>) -> Result<HttpClient, ConnectorError> {
        // Others may have chosen it before, which is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let hidden = options.address()?.hidden();
        let failed = |what: String| {
            ConnectorError::option(format!("table '{}': the HTTP client cannot be set up: {what}", options.table))
        };
        let mut builder = Client::builder()
            .connect_timeout(options.connect_timeout)
            .timeout(options.request_timeout)
            .pool_max_idle_per_host(options.in_flight)
            .user_agent(concat!("mainstem/", env!("CARGO_PKG_VERSION")))
            // A redirected POST may become a GET, and headers may go to a stranger.
            .redirect(Policy::none());
        if let Some(path) = &options.ca_file {
            let pem = std::fs::read(path).map_err(|error| ConnectorError::io("read", path.display(), &error))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(causes(&error)))?;
            if certificates.is_empty() {
                return Err(failed(format!("'{}' ('tls.ca-file') holds no certificate", path.display())));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| failed(causes(&error.without_url())))?;
        Ok(HttpClient { options, client, hidden, opened: Instant::now(), pause_until: Mutex::new(None) })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// It was tried as often as the table says, and whether the receiver has it is unknown.
    pub(super) async fn send(&self, key: &str, body: Bytes) -> Result<Sent, ConnectorError> {
        let mut backoff = Backoff::new(self.options.retry);
        loop {
            self.pause().await;
            let failure = match self.try_once(key, body.clone()).await? {
                Ok(sent) => return Ok(sent),
                Err(failure) => failure,
            };
            let now = Timestamp(i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX));
            // The standard library seeds its hashers from the system's source of random numbers.
            let Some(wait_ms) = backoff.on_failure(now, RandomState::new().hash_one(key)) else {
                let tries = backoff.failures();
                return match failure.otherwise {
                    Some(rejected) => Ok(Sent::Rejected(rejected)),
                    None => {
                        Err(self.error(ErrorKind::Transient, &format!("{} (tried {tries} times)", failure.message)))
                    }
                };
            };
            let wait = Duration::from_millis(wait_ms).max(failure.wait.unwrap_or_default());
            if failure.wait.is_some() {
                self.pause_for(wait);
            }
            let (table, failures) = (&self.options.table, backoff.failures());
            tracing::debug!(table, error = failure.message, failures, ?wait, "a request has failed, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One try. The outer error is of a client that cannot send at all.
    async fn try_once(&self, key: &str, body: Bytes) -> Result<Result<Sent, Failure>, ConnectorError> {
        let Address { url, headers } = self.options.address()?;
        let key = HeaderValue::from_str(key).map_err(|_| {
            ConnectorError::new(ErrorKind::External, "bug: the key of a request is no header; please report it")
        })?;
        let request = self.client.request(self.options.method.clone(), url.clone()).headers(headers.clone());
        let answer = request.header(self.options.key_header.clone(), key).body(body).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => {
                return Err(self.error(ErrorKind::Option, &causes(&error.without_url())));
            }
            Err(error) => {
                let message = match (error.is_timeout(), error.is_connect()) {
                    (true, false) => format!("no answer within {:?} ('request-timeout')", self.options.request_timeout),
                    _ => causes(&error.without_url()),
                };
                return Ok(Err(Failure { message, wait: None, otherwise: None }));
            }
        };
        let status = answer.status();
        let verdict = verdict(status, answer.headers());
        let text = self.text(answer).await;
        let said = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
        Ok(match verdict {
            Verdict::Taken => Ok(Sent::Taken),
            Verdict::Rejected => Ok(Sent::Rejected(self.rejected(&said))),
            Verdict::Later(wait) => {
                Err(Failure { message: format!("the receiver says {said}"), wait, otherwise: None })
            }
            Verdict::Conflict => Err(Failure {
                message: format!("the receiver says {said}"),
                wait: None,
                otherwise: Some(self.rejected(&said)),
            }),
        })
    }

    /// The beginning of an answer, without what is secret.
    async fn text(&self, mut answer: Response) -> String {
        let mut bytes = Vec::new();
        // What cannot be read changes nothing: the status has come.
        while bytes.len() < ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            bytes.extend_from_slice(&chunk);
        }
        // Hidden before it is cut: the first half of a secret is one too.
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for hidden in &self.hidden {
            text = text.replace(hidden, "***");
        }
        let whole = ConnectorError::new(ErrorKind::External, text).message;
        excerpt(whole.trim().as_bytes(), 0, ANSWER_SHOWN_MAX)
    }

    fn rejected(&self, said: &str) -> ConnectorError {
        let advice = "the same request would be refused again; mend the receiver, or set 'on-rejected' = 'drop'";
        self.error(ErrorKind::External, &format!("the receiver says {said}; {advice}"))
    }

    fn error(&self, kind: ErrorKind, what: &str) -> ConnectorError {
        let shown = self.options.address().map(Address::shown).unwrap_or_default();
        let HttpOptions { table, method, .. } = self.options.as_ref();
        ConnectorError::new(kind, format!("cannot {method} rows of table '{table}' to {shown}: {what}"))
    }

    /// Waits as long as the receiver wants to be left alone.
    async fn pause(&self) {
        let until = *self.pause_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    fn pause_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pause = self.pause_until.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = Some(pause.map_or(until, |earlier| earlier.max(until)));
    }
}

/// An error with what has caused it.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some repeat what is below them.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
