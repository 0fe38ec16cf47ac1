//! The options of a table that is kept in Redis. Opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::error::{ConnectorError, ErrorKind};
use crate::format::{FormatOptions, JsonOptions};
use crate::secret;
use crate::table::{Options, TableSpec};

use super::key::KeyPattern;

/// Changes that are written in one step, unless the user says otherwise.
const BATCH_CHANGES_DEFAULT: usize = 5_000;
/// Most that may be asked for: the server does nothing else meanwhile.
const BATCH_CHANGES_MAX: usize = 100_000;
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest of both: a publication is tried again after a minute, and a step must be able to end within one try.
const TIMEOUT_MAX: Duration = Duration::from_secs(50);
/// What the server listens on unless the address says otherwise.
const PORT_DEFAULT: u16 = 6379;

/// What stands under the key of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A hash: a field for each column.
    Hash,
    /// A text: the row as JSON.
    Text(JsonOptions),
}

/// Where the server is, and who asks.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: i64,
    pub(super) tls: bool,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// How a table is kept.
pub(super) struct RedisOptions {
    /// None while the options hold references to secrets: then nothing is opened.
    address: Option<Address>,
    pub(super) mode: Mode,
    pub(super) pattern: KeyPattern,
    /// How long a row stays after its last change; none: until it is deleted.
    pub(super) ttl: Option<Duration>,
    pub(super) batch_changes: usize,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) ca_file: Option<PathBuf>,
}

impl RedisOptions {
    /// Reads the options of a table.
    pub(super) fn read(table: &TableSpec) -> Result<RedisOptions, ConnectorError> {
        let name = &table.name;
        if table.primary_key.is_empty() {
            return Err(ConnectorError::option(format!(
                "table '{name}' with 'connector' = 'redis' keeps a row under a key: declare PRIMARY KEY (...) NOT ENFORCED"
            )));
        }
        let mut options = table.options();
        let url = options.required("url")?;
        let (username, password) = (options.get("username"), options.get("password"));
        let pattern = KeyPattern::read(options.get("key-pattern"), table)?;
        let read = RedisOptions {
            address: None,
            mode: mode(&mut options)?,
            pattern,
            ttl: positive(&mut options, "ttl")?,
            batch_changes: batch_changes(&mut options)?,
            connect_timeout: timeout(&mut options, "connect-timeout", CONNECT_TIMEOUT_DEFAULT)?,
            request_timeout: timeout(&mut options, "request-timeout", REQUEST_TIMEOUT_DEFAULT)?,
            ca_file: options.get("tls.ca-file").map(PathBuf::from),
        };
        options.finish()?;
        if table.options.values().any(|value| secret::has_reference(value)) {
            return Ok(read);
        }
        let mut address = address(url, name)?;
        address.username = username.map(str::to_owned).or(address.username);
        address.password = password.map(str::to_owned).or(address.password);
        if address.username.is_some() && address.password.is_none() {
            return Err(ConnectorError::option(format!("table '{name}' names a user and no 'password'; give both")));
        }
        if read.ca_file.is_some() && !address.tls {
            return Err(ConnectorError::option(format!(
                "option 'tls.ca-file' of table '{name}' has no effect without TLS: begin the 'url' with rediss://"
            )));
        }
        Ok(RedisOptions { address: Some(address), ..read })
    }

    /// Where the server is.
    pub(super) fn address(&self) -> Result<&Address, ConnectorError> {
        let planned = "bug: a table that was only planned is opened; please report it";
        self.address.as_ref().ok_or_else(|| ConnectorError::new(ErrorKind::External, planned))
    }
}

impl Address {
    /// The address without who asks, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }
}

fn mode(options: &mut Options<'_>) -> Result<Mode, ConnectorError> {
    let mode = options.one_of("mode", "hash", &["hash", "string"])?;
    let table = options.table();
    if mode == "hash" {
        if table.options.contains_key("format") {
            return Err(ConnectorError::option(format!(
                "option 'format' of table '{}' has no place in 'mode' = 'hash', whose fields are the columns; leave it out \
                 or set 'mode' = 'string'",
                table.name
            )));
        }
        return Ok(Mode::Hash);
    }
    if !table.options.contains_key("format") {
        // The only one that there is.
        options.accept(&["format"]);
        return Ok(Mode::Text(JsonOptions::default()));
    }
    match FormatOptions::read(options)? {
        FormatOptions::Json(json) => Ok(Mode::Text(json)),
        _ => Err(ConnectorError::option(format!(
            "option 'format' of table '{}' must be 'json', the form of rows in 'mode' = 'string'",
            table.name
        ))),
    }
}

fn positive(options: &mut Options<'_>, key: &str) -> Result<Option<Duration>, ConnectorError> {
    let duration = options.duration(key)?;
    if duration.is_some_and(|duration| duration.is_zero()) {
        let table = &options.table().name;
        return Err(ConnectorError::option(format!("option '{key}' of table '{table}' is zero: leave it out instead")));
    }
    Ok(duration)
}

fn timeout(options: &mut Options<'_>, key: &str, default: Duration) -> Result<Duration, ConnectorError> {
    let timeout = positive(options, key)?.unwrap_or(default);
    if timeout <= TIMEOUT_MAX {
        return Ok(timeout);
    }
    let table = &options.table().name;
    Err(ConnectorError::option(format!(
        "option '{key}' of table '{table}' is {timeout:?}: at most {TIMEOUT_MAX:?} are waited"
    )))
}

fn batch_changes(options: &mut Options<'_>) -> Result<usize, ConnectorError> {
    let number = options.parse("batch-size", BATCH_CHANGES_DEFAULT)?;
    if (1..=BATCH_CHANGES_MAX).contains(&number) {
        return Ok(number);
    }
    let table = &options.table().name;
    Err(ConnectorError::option(format!(
        "option 'batch-size' of table '{table}' is {number}: expected a number from 1 to {BATCH_CHANGES_MAX}"
    )))
}

/// Reads `redis://user:password@host:port/database`. Errors do not repeat it.
fn address(text: &str, table: &str) -> Result<Address, ConnectorError> {
    let wrong = |what: &str| ConnectorError::option(format!("option 'url' of table '{table}' {what}"));
    let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is not an address: {error}")))?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(wrong("does not begin with redis:// or, for TLS, rediss://")),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has parameters, which are not known here; use the options of the table"));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
    let database = match url.path().trim_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| wrong("ends with a database that is no number"))?,
    };
    let decoded = |part: &str| decode(part).ok_or_else(|| wrong("has a wrong %XX"));
    let username = Some(url.username()).filter(|name| !name.is_empty()).map(decoded).transpose()?;
    Ok(Address {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(PORT_DEFAULT),
        database,
        tls,
        username,
        password: url.password().map(decoded).transpose()?,
    })
}

/// A part of an address without its `%XX`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn table(options: &[(&str, &str)]) -> TableSpec {
        let given = [("connector", "redis"), ("url", "redis://u:p%40geheim@[::1]:7000/3")];
        let field = |name: &str| Field::new(name, DataType::Utf8, true);
        TableSpec {
            name: "t".into(),
            schema: Arc::new(Schema::new(vec![field("a"), field("b")])),
            primary_key: vec!["a".into()],
            partition_keys: Vec::new(),
            options: given.iter().chain(options).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn addresses_are_read() {
        let read = RedisOptions::read(&table(&[])).unwrap_or_else(|error| panic!("{error}"));
        let address = read.address().unwrap();
        assert_eq!(address.shown(), "::1:7000/3");
        assert_eq!((address.username.as_deref(), address.password.as_deref()), (Some("u"), Some("p@geheim")));
        let read =
            RedisOptions::read(&table(&[("url", "rediss://h"), ("password", "x")])).unwrap_or_else(|e| panic!("{e}"));
        let address = read.address().unwrap();
        assert!(address.tls && address.shown() == "h:6379/0" && address.username.is_none());
        assert!(RedisOptions::read(&table(&[("password", "${env:P}")])).is_ok_and(|read| read.address().is_err()));
    }

    #[test]
    fn wrong_options_are_refused_without_repeating_secrets() {
        for (options, expected) in [
            (&[("url", "http://geheim@h")][..], "does not begin with redis://"),
            (&[("url", "redis://h/geheim")], "database that is no number"),
            (&[("url", "redis://h/0?password=geheim")], "has parameters"),
            (&[("url", "redis://user@h"), ("username", "u")], "no 'password'"),
            (&[("tls.ca-file", "ca.pem")], "without TLS"),
            (&[("mode", "list")], "expected one of hash, string"),
            (&[("format", "json")], "no place in 'mode' = 'hash'"),
            (&[("mode", "string"), ("format", "csv")], "must be 'json'"),
            (&[("ttl", "0 s")], "is zero"),
            (&[("request-timeout", "1 min")], "at most 50s"),
            (&[("batch-size", "0")], "from 1 to"),
            (&[("no.such", "1")], "unknown option"),
        ] {
            let message = RedisOptions::read(&table(options)).err().expect(expected).message;
            assert!(message.contains(expected) && !message.contains("geheim"), "{options:?}: {message}");
        }
        let mut keyless = table(&[]);
        keyless.primary_key.clear();
        assert!(RedisOptions::read(&keyless).err().unwrap().message.contains("PRIMARY KEY"));
    }
}
