//! The options of a table that is sent to an address. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mainstem_core::retry::RetryPolicy;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::error::{ConnectorError, ErrorKind};
use crate::format::FormatOptions;
use crate::secret;
use crate::sink::Delivery;
use crate::table::{Options, TableSpec};

/// Most records that a request may be asked to hold.
const BATCH_RECORDS_MAX: usize = 100_000;
/// Bytes of a request's body, unless the user says otherwise.
const BATCH_BYTES_DEFAULT: u64 = 1 << 20;
/// Most bytes that may be asked for; a body is held in memory for each request that is under way.
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Requests of a table that may be under way at once, unless the user says otherwise.
const IN_FLIGHT_DEFAULT: usize = 8;
/// Most that may be asked for.
const IN_FLIGHT_MAX: usize = 256;
/// How long a connection may take to come about, and a request with its answer.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest of both: a publication is tried again after a minute, and a request must be able to end within one try.
const TIMEOUT_MAX: Duration = Duration::from_secs(50);
/// Tries of a request after a first one that failed, and the waits between them.
const RETRIES_DEFAULT: u32 = 5;
const RETRY_DELAY_DEFAULT: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX_DEFAULT: Duration = Duration::from_secs(10);
/// The header of the key, by the draft of the IETF's httpapi group and by most who know such keys.
const KEY_HEADER_DEFAULT: &str = "Idempotency-Key";
/// Headers that belong to the connection or to the body.
const HEADERS_OF_OURS: [&str; 5] = ["content-length", "transfer-encoding", "connection", "host", "expect"];
/// A part of a header's value below so many bytes is an ordinary word, such as `Bearer`.
const HIDDEN_BYTES_MIN: usize = 8;

/// How records make the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One record, as it is.
    Single,
    /// A JSON array.
    Array,
    /// One record a line.
    Lines,
}

/// What becomes of a request that is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnRejected {
    /// The job stops.
    Fail,
    /// Its records are dropped, counted and named in the log.
    Drop,
}

/// Where requests go.
pub(super) struct Address {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
}

/// How a table is sent.
pub(super) struct HttpOptions {
    /// Name of the declared table.
    pub(super) table: String,
    /// None while the options hold references to secrets: then nothing is sent.
    address: Option<Address>,
    pub(super) method: Method,
    pub(super) format: FormatOptions,
    pub(super) shape: Shape,
    pub(super) batch_records: usize,
    pub(super) batch_bytes: usize,
    pub(super) in_flight: usize,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) on_rejected: OnRejected,
    pub(super) key_header: HeaderName,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) delivery: Delivery,
}

impl HttpOptions {
    /// Reads the options of a table.
    pub(super) fn read(table: &TableSpec) -> Result<HttpOptions, ConnectorError> {
        let mut options = table.options();
        let url = options.required("url")?;
        let method = match options.one_of("method", "POST", &["POST", "PUT"])? {
            "PUT" => Method::PUT,
            _ => Method::POST,
        };
        let format = FormatOptions::read(&mut options)?;
        let batch_records = bounded(&mut options, "batch-size", 1, BATCH_RECORDS_MAX)?;
        let batch_bytes = batch_bytes(&mut options)?;
        let shape = shape(&mut options, &format, batch_records)?;
        let headers = headers(&mut options)?;
        let http = HttpOptions {
            table: table.name.clone(),
            address: None,
            method,
            shape,
            batch_records,
            batch_bytes,
            in_flight: bounded(&mut options, "requests-in-flight", IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX)?,
            connect_timeout: duration(&mut options, "connect-timeout", CONNECT_TIMEOUT_DEFAULT)?,
            request_timeout: duration(&mut options, "request-timeout", REQUEST_TIMEOUT_DEFAULT)?,
            retry: retry(&mut options)?,
            on_rejected: match options.one_of("on-rejected", "fail", &["fail", "drop"])? {
                "drop" => OnRejected::Drop,
                _ => OnRejected::Fail,
            },
            key_header: key_header(&mut options)?,
            ca_file: options.get("tls.ca-file").map(PathBuf::from),
            delivery: delivery(&mut options)?,
            format,
        };
        options.finish()?;
        if table.options.values().any(|value| secret::has_reference(value)) {
            return Ok(http);
        }
        let url = address(url, &table.name)?;
        let mut headers = headers.unwrap_or_default();
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(http.content_type()));
        }
        if headers.contains_key(&http.key_header) {
            return Err(ConnectorError::option(format!(
                "table '{}' sets the header '{}' itself, in which the key of each request is sent; leave it out, or name \
                 another one for the key by 'idempotency-key.header'",
                table.name, http.key_header
            )));
        }
        Ok(HttpOptions { address: Some(Address { url, headers }), ..http })
    }

    /// Where requests go.
    pub(super) fn address(&self) -> Result<&Address, ConnectorError> {
        let planned = "bug: a table that was only planned is opened; please report it";
        self.address.as_ref().ok_or_else(|| ConnectorError::new(ErrorKind::External, planned))
    }

    /// Whether requests of a subtask must come one after the other: later changes of a key replace earlier ones.
    pub(super) fn is_ordered(&self) -> bool {
        self.format.sink_changes() != mainstem_core::change::ChangeMode::Append
    }

    fn content_type(&self) -> &'static str {
        match (&self.format, self.shape) {
            (FormatOptions::Csv(_), _) => "text/csv",
            (FormatOptions::Raw, _) => "application/octet-stream",
            (_, Shape::Lines) => "application/x-ndjson",
            _ => "application/json",
        }
    }
}

impl Address {
    /// The address as messages show it: paths and parameters of webhooks are often all that protects them.
    pub(super) fn shown(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }

    /// What must not be shown where somebody repeats it: parts of the address and of the headers, the longest first.
    pub(super) fn hidden(&self) -> Vec<String> {
        let of_url = [self.url.path().trim_start_matches('/'), self.url.query().unwrap_or_default()];
        let mut hidden: Vec<String> = of_url.iter().map(|part| (*part).to_owned()).collect();
        hidden.extend(self.url.path_segments().into_iter().flatten().map(str::to_owned));
        hidden.extend(self.url.query_pairs().map(|(_, value)| value.into_owned()));
        hidden.extend([self.url.username(), self.url.password().unwrap_or_default()].map(str::to_owned));
        for (name, value) in &self.headers {
            if name != CONTENT_TYPE {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                hidden.extend(value.split_whitespace().map(str::to_owned));
                hidden.push(value);
            }
        }
        hidden.retain(|part| part.len() >= HIDDEN_BYTES_MIN);
        hidden.sort_by_key(|part| std::cmp::Reverse(part.len()));
        hidden
    }
}

/// Shows nothing of where requests go.
impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions").field("table", &self.table).finish_non_exhaustive()
    }
}

fn bounded(options: &mut Options<'_>, key: &str, default: usize, most: usize) -> Result<usize, ConnectorError> {
    let number = options.parse(key, default)?;
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    let table = &options.table().name;
    Err(ConnectorError::option(format!(
        "option '{key}' of table '{table}' is {number}: expected a number from 1 to {most}"
    )))
}

fn duration(options: &mut Options<'_>, key: &str, default: Duration) -> Result<Duration, ConnectorError> {
    let duration = options.duration(key)?.unwrap_or(default);
    if !duration.is_zero() && duration <= TIMEOUT_MAX {
        return Ok(duration);
    }
    let table = &options.table().name;
    Err(ConnectorError::option(format!(
        "option '{key}' of table '{table}' is {duration:?}: expected a time such as '10 s', at most {TIMEOUT_MAX:?}"
    )))
}

fn batch_bytes(options: &mut Options<'_>) -> Result<usize, ConnectorError> {
    let bytes = options.size("batch-bytes")?.unwrap_or(BATCH_BYTES_DEFAULT);
    if (1..=BATCH_BYTES_MAX).contains(&bytes) {
        return Ok(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    let table = &options.table().name;
    Err(ConnectorError::option(format!(
        "option 'batch-bytes' of table '{table}' is {bytes} bytes: expected 1 to {BATCH_BYTES_MAX}"
    )))
}

/// How several records make a body; also checks that the format has records that can be bodies.
fn shape(options: &mut Options<'_>, format: &FormatOptions, records: usize) -> Result<Shape, ConnectorError> {
    let table = &options.table().name;
    let is_json = match format {
        FormatOptions::Json(_) | FormatOptions::DebeziumJson(_) | FormatOptions::UpsertJson(_) => true,
        FormatOptions::Csv(_) | FormatOptions::Raw => false,
        _ => {
            return Err(ConnectorError::option(format!(
                "option 'format' of table '{table}' is none of the formats that the connector 'http' sends: json, csv, raw, \
                 debezium-json, upsert-json"
            )));
        }
    };
    let given = options.table().options.contains_key("batch-format");
    let default = if is_json { "array" } else { "lines" };
    let wanted = options.one_of("batch-format", default, &["array", "lines"])?;
    if wanted == "array" && !is_json {
        return Err(ConnectorError::option(format!(
            "option 'batch-format' of table '{table}' is 'array', which holds JSON and nothing else; use 'lines'"
        )));
    }
    Ok(match (records, wanted) {
        (1, _) if !given => Shape::Single,
        (_, "array") => Shape::Array,
        _ => Shape::Lines,
    })
}

/// The headers that the user sets; none where one of them refers to a secret.
fn headers(options: &mut Options<'_>) -> Result<Option<HeaderMap>, ConnectorError> {
    let table = options.table().name.clone();
    let mut headers = HeaderMap::new();
    let mut is_whole = true;
    for (name, value) in options.with_prefix("headers.") {
        let wrong = |what: &str| ConnectorError::option(format!("option 'headers.{name}' of table '{table}' {what}"));
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is not the name of a header"))?;
        if HEADERS_OF_OURS.contains(&parsed.as_str()) {
            return Err(wrong("cannot be set: the header follows from the connection and the body"));
        }
        if secret::has_reference(value) {
            is_whole = false;
            continue;
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| wrong("has a value with characters that a header cannot hold, such as a line end"))?;
        value.set_sensitive(true);
        if headers.insert(parsed, value).is_some() {
            return Err(wrong("is given twice, in other letters"));
        }
    }
    Ok(is_whole.then_some(headers))
}

fn retry(options: &mut Options<'_>) -> Result<RetryPolicy, ConnectorError> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(RetryPolicy {
        first_delay_ms: milliseconds(options.duration("retry.delay")?.unwrap_or(RETRY_DELAY_DEFAULT)),
        delay_ms_max: milliseconds(options.duration("retry.delay-max")?.unwrap_or(RETRY_DELAY_MAX_DEFAULT)),
        retries_max: options.parse("retry.max", RETRIES_DEFAULT)?,
        quiet_ms: u64::MAX,
    })
}

fn key_header(options: &mut Options<'_>) -> Result<HeaderName, ConnectorError> {
    let text = options.get("idempotency-key.header").filter(|text| !secret::has_reference(text));
    let text = text.unwrap_or(KEY_HEADER_DEFAULT);
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        ConnectorError::option(format!(
            "option 'idempotency-key.header' of table '{}' is '{text}', which is not the name of a header",
            options.table().name
        ))
    })
}

fn delivery(options: &mut Options<'_>) -> Result<Delivery, ConnectorError> {
    let of = |name: &str| match name {
        "at-least-once" => Delivery::AtLeastOnce,
        "best-effort" | "none" => Delivery::BestEffort,
        _ => Delivery::ExactlyOnce,
    };
    let key = "sink.delivery-guarantee";
    let own = options.one_of(key, "exactly-once", &["exactly-once", "at-least-once", "best-effort", "none"])?;
    // What every table may have; the planner has checked its value.
    let general = options.get("delivery").map(of);
    if options.get(key).is_some() && general.is_some_and(|general| general != of(own)) {
        return Err(ConnectorError::option(format!(
            "the options '{key}' and 'delivery' of table '{}' contradict each other: give one of them",
            options.table().name
        )));
    }
    Ok(general.unwrap_or(of(own)))
}

/// Reads the address. Errors do not repeat it, since it may hold a password.
fn address(text: &str, table: &str) -> Result<Url, ConnectorError> {
    let wrong = |what: &str| ConnectorError::option(format!("option 'url' of table '{table}' {what}"));
    let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is not an address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("is not an address that begins with http:// or https:// and a host"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
