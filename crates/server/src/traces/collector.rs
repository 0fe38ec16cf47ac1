//! One request to a collector, and what its answer means.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, bail};
use percent_encoding::percent_decode_str;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::otlp::ExportResponse;

/// A collector that does not answer within this has failed.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// The same for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A collector may ask for a pause of this length.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Collector {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// The address without what may be secret in it.
    shown: String,
}

/// Why spans were not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) message: String,
    /// How long to wait before they are sent again, at least; none: that would be of no use.
    pub(super) again_after: Option<Duration>,
}

/// What a collector has to say of spans that it has taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How many of them it has not, after all.
    pub(super) rejected: u64,
    pub(super) message: String,
}

impl Collector {
    /// A client, which connects when it sends.
    pub(super) fn new(endpoint: &str, headers: &str) -> anyhow::Result<Collector> {
        // Others may have chosen it before, which is as good.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let url = traces_url(endpoint)?;
        let port = url.port_or_known_default().unwrap_or_default();
        let shown = format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default());
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(REQUEST_WITHIN)
            .user_agent(concat!("mainstem/", env!("CARGO_PKG_VERSION")))
            // A redirected POST may become a GET, and headers may go to a stranger.
            .redirect(Policy::none())
            .build()
            .map_err(|error| error.without_url())
            .context("the HTTP client cannot be set up")?;
        Ok(Collector { client, url, headers: parse_headers(headers)?, shown })
    }

    /// Where it is, without what may be secret.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Sends a request once.
    pub(super) async fn send(&self, body: Vec<u8>) -> Result<Taken, Refused> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let answer = request.header(CONTENT_TYPE, "application/x-protobuf").body(body).send().await;
        let answer = answer.map_err(|error| {
            let again_after = (!error.is_builder()).then_some(Duration::ZERO);
            Refused { message: causes(&error.without_url()), again_after }
        })?;
        let (status, pause) = (answer.status(), pause(answer.headers()));
        let body = body_of(answer).await;
        if status.is_success() {
            // An answer that cannot be read says nothing against the spans.
            let partial = ExportResponse::decode(&body[..]).unwrap_or_default().partial_success.unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            return Ok(Taken { rejected, message: partial.error_message });
        }
        let again_after = may_pass(status).then_some(pause.unwrap_or_default());
        Err(Refused { message: format!("it answers {status}"), again_after })
    }
}

/// What OTLP says of answers that may become better.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The place of traces below an endpoint, as OpenTelemetry has it.
fn traces_url(endpoint: &str) -> anyhow::Result<Url> {
    let wanted = "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is the address of a collector for OTLP over HTTP, such as \
                  http://localhost:4318";
    // The address may hold a password, so it is not repeated.
    let Ok(mut url) = Url::parse(endpoint) else { bail!("{wanted}; this is no URL") };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        bail!("{wanted}; this is no URL that begins with http:// or https://");
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// `name=value,name=value`, values percent-encoded.
fn parse_headers(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (n, part) in (1..).zip(text.split(',').map(str::trim)).filter(|(_, part)| !part.is_empty()) {
        // Values are secret.
        let wrong = |what: &str| format!("--otlp-headers (OTEL_EXPORTER_OTLP_HEADERS): header {n} {what}");
        let (name, value) = part.split_once('=').with_context(|| wrong("is not of the form NAME=VALUE"))?;
        let name = HeaderName::try_from(name.trim()).ok().with_context(|| wrong("has a name that is none"))?;
        let value = percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let mut value =
            HeaderValue::from_bytes(&value).ok().with_context(|| wrong("has a value with illegal characters"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Seconds for which the collector wants to be left alone.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

async fn body_of(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Vec::new();
        }
        body.extend_from_slice(&chunk);
    }
    body
}

fn causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_their_place_below_the_endpoint() {
        for (endpoint, wanted) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://c.example/otlp", "https://c.example/otlp/v1/traces"),
        ] {
            assert_eq!(traces_url(endpoint).unwrap().as_str(), wanted);
        }
        for endpoint in ["localhost:4318", "grpc://localhost:4317", "", "http://", "secret"] {
            let message = traces_url(endpoint).expect_err(endpoint).to_string();
            assert!(message.contains("--otlp-endpoint") && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn headers_are_decoded_and_wrong_ones_are_named_by_number() {
        let headers = parse_headers("api-key=a%20b%2C, ,X-Tenant=t=1").unwrap();
        let shown: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(shown, [("api-key", "a b,"), ("x-tenant", "t=1")]);
        for (text, wanted) in [
            ("a=1,secret", "header 2 is not of the form NAME=VALUE"),
            ("a b=secret", "header 1 has a name that is none"),
            ("a=secret%0Ax", "header 1 has a value with illegal characters"),
        ] {
            let message = parse_headers(text).expect_err(text).to_string();
            assert!(message.ends_with(wanted) && !message.contains("secret"), "{message}");
        }
    }
}
