//! Requests to a registry and what its answers mean: tried again with growing waits, at each address in turn, where nobody
//! answers or the answer is that of an overloaded server.

use std::hash::BuildHasher;
use std::time::Duration;

use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use crate::error::{ConnectorError, ErrorKind};

use super::options::{Credentials, RegistryOptions};

/// How long one request may take, and how long the connection for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Characters of an answer that a message shows.
const SHOWN_MAX: usize = 300;
/// Some seconds in all; the job's restarts come on top.
const POLICY: RetryPolicy = RetryPolicy { first_delay_ms: 100, delay_ms_max: 2_000, retries_max: 6, quiet_ms: 600_000 };
/// What registries take and give.
const CONTENT: &str = "application/vnd.schemaregistry.v1+json";

/// What a registry has answered.
pub(super) enum Answer {
    Found(Vec<u8>),
    /// It does not know what was asked for.
    Unknown,
}

/// Why there is no answer.
enum Failure {
    /// It may pass.
    Passing(String),
    Final(ConnectorError),
}

/// See the module.
pub(super) struct RestClient {
    options: RegistryOptions,
    http: Client,
}

/// An error in an answer.
#[derive(Deserialize)]
struct Complaint {
    error_code: i64,
    #[serde(default)]
    message: String,
}

impl RestClient {
    /// A client; reads the certificates, connects to nothing.
    pub(super) fn new(options: &RegistryOptions) -> Result<RestClient, ConnectorError> {
        // Fails where somebody has chosen a provider before, which serves as well.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder().timeout(REQUEST_TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        if let Some(path) = &options.ca {
            let pem = std::fs::read(path)
                .map_err(|error| ConnectorError::io("read the certificates", path.display(), &error))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| {
                ConnectorError::new(
                    ErrorKind::External,
                    format!("the file '{}' holds no certificates in PEM: {error}", path.display()),
                )
            })?;
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| {
            ConnectorError::new(ErrorKind::External, format!("no client for the schema registry can be made: {error}"))
        })?;
        Ok(RestClient { options: options.clone(), http })
    }

    /// Asks for something.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Answer, ConnectorError> {
        self.repeat(Method::GET, path, None).await
    }

    /// Hands something in. To be repeated without harm: a schema that is there keeps its id.
    pub(super) async fn post(&self, path: &[&str], body: &serde_json::Value) -> Result<Answer, ConnectorError> {
        self.repeat(Method::POST, path, Some(body.to_string())).await
    }

    async fn repeat(&self, method: Method, path: &[&str], body: Option<String>) -> Result<Answer, ConnectorError> {
        let mut backoff = Backoff::new(POLICY);
        let mut addresses = self.options.urls.iter().cycle();
        loop {
            let Some(url) = addresses.next() else {
                return Err(ConnectorError::option(format!("table '{}' has no schema registry", self.options.table)));
            };
            let reason = match self.once(method.clone(), url, path, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => reason,
            };
            let Some(wait_ms) = backoff.on_failure(Timestamp(0), random()) else {
                return Err(ConnectorError::new(
                    ErrorKind::Transient,
                    format!(
                        "the schema registry of table '{}' at {} does not answer after {} attempts: {reason}; check '{}.url', and whether it runs",
                        self.options.table,
                        self.options.shown(),
                        backoff.failures(),
                        self.options.format
                    ),
                ));
            };
            tracing::debug!(url = url.as_str(), reason, wait_ms, "schema registry is asked again");
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    async fn once(&self, method: Method, url: &Url, path: &[&str], body: Option<String>) -> Result<Answer, Failure> {
        let mut address = url.clone();
        address
            .path_segments_mut()
            .map_err(|()| Failure::Passing("the address has no path".to_owned()))?
            .pop_if_empty()
            .extend(path);
        let mut request = self.http.request(method, address).header("Accept", format!("{CONTENT}, application/json"));
        if let Some(body) = body {
            request = request.header("Content-Type", CONTENT).body(body);
        }
        let failed = |error: reqwest::Error| Failure::Passing(causes(&error.without_url()));
        let mut answer = self.signed(request).send().await.map_err(failed)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                let message = format!(
                    "the schema registry at {} gives an answer of more than {ANSWER_BYTES_MAX} bytes",
                    self.options.shown()
                );
                return Err(Failure::Final(ConnectorError::new(ErrorKind::External, message)));
            }
            bytes.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(Answer::Found(bytes));
        }
        self.judge(status, &bytes)
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.options.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
            Credentials::Bearer(token) => request.bearer_auth(token),
        }
    }

    /// What a refusal means.
    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<Answer, Failure> {
        let complaint: Option<Complaint> = serde_json::from_slice(body).ok();
        let said = match &complaint {
            Some(complaint) => complaint.message.clone(),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        let said: String = said.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let RegistryOptions { table, format, .. } = &self.options;
        let at = self.options.shown();
        let refused = |what: String| {
            Err(Failure::Final(ConnectorError::new(
                ErrorKind::External,
                format!("{what} (table '{table}', {status}: {said})"),
            )))
        };
        match (status.as_u16(), &complaint) {
            // What is not there is told by the registry's own code; a 404 of anybody else is a wrong address.
            (404, Some(complaint)) if (40_400..40_500).contains(&complaint.error_code) => Ok(Answer::Unknown),
            (404, _) => {
                refused(format!("nothing at {at} answers as a schema registry does; check the path in '{format}.url'"))
            }
            (401 | 403, _) => refused(format!(
                "the schema registry at {at} does not let this user in; check '{format}.basic-auth.user-info' or '{format}.bearer-auth.token'"
            )),
            (409, _) => refused(format!(
                "the schema registry at {at} refuses the schema of the table: it is not compatible with what the subject has; change the declared columns, or the subject's compatibility"
            )),
            (408 | 429 | 500.., _) => Err(Failure::Passing(format!("{status}: {said}"))),
            _ => refused(format!("the schema registry at {at} refuses the request")),
        }
    }
}

/// An error with its causes, which say what is wrong.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Any number: it spreads waits, and nothing else depends on it.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(0)
}
