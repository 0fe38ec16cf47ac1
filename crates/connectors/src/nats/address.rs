//! Where the servers are, who we are to them, and which stream is meant: the options that both sides read.

use std::path::PathBuf;

use async_nats::ServerAddr;

use crate::error::ConnectorError;
use crate::secret;
use crate::table::Options;

/// How to reach a stream.
#[derive(Clone)]
pub(super) struct Address {
    /// The table, for messages.
    pub(super) table: String,
    /// Name of the stream.
    pub(super) stream: String,
    /// `url` as given; it holds no password.
    pub(super) shown: String,
    /// Where a connection begins; empty while the option refers to something that is read later.
    pub(super) servers: Vec<ServerAddr>,
    pub(super) login: Login,
    pub(super) tls: TlsOptions,
}

/// Who we are.
#[derive(Clone)]
pub(super) enum Login {
    /// Nobody.
    None,
    Password {
        user: String,
        password: String,
    },
    Token(String),
    /// The seed of a key.
    Key(String),
    /// The text of a credentials file.
    Credentials(String),
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsOptions {
    /// Whether a connection without is refused.
    pub(super) required: bool,
    /// Certificates to trust in place of the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// Our own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// Reads the options; connects to nothing.
    pub(super) fn read(options: &mut Options<'_>) -> Result<Address, ConnectorError> {
        let table = options.table().name.clone();
        let url = options.required("url")?.trim();
        let servers = servers(&table, url)?;
        let stream = options.required("stream")?.trim().to_owned();
        if !secret::has_reference(&stream) && !is_stream_name(&stream) {
            return Err(ConnectorError::option(format!(
                "option 'stream' of table '{table}' has the value '{stream}': expected the name of a stream, without spaces and any of . * > / \\"
            )));
        }
        let login = login(options, &table)?;
        let tls = tls(options, &table)?;
        Ok(Address { table, stream, shown: url.to_owned(), servers, login, tls })
    }

    /// The stream and where it is, for messages.
    pub(super) fn place(&self) -> String {
        format!("stream '{}' at '{}'", self.stream, self.shown)
    }
}

fn is_stream_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c))
}

fn servers(table: &str, url: &str) -> Result<Vec<ServerAddr>, ConnectorError> {
    if secret::has_reference(url) {
        return Ok(Vec::new());
    }
    let wrong = |why: &str| {
        ConnectorError::option(format!(
            "option 'url' of table '{table}' {why}: expected 'nats://host:4222', or several of the kind with commas between them ('tls://' to encrypt)"
        ))
    };
    let mut servers = Vec::new();
    for part in url.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part.contains('@') {
            return Err(wrong(
                "names a user or a password, which it must not: give 'username' and 'password', or 'token'",
            ));
        }
        let address: ServerAddr = part.parse().map_err(|error| wrong(&format!("cannot be read ({error})")))?;
        if !matches!(address.scheme(), "nats" | "tls") {
            return Err(wrong(&format!("has the scheme '{}'", address.scheme())));
        }
        servers.push(address);
    }
    if servers.is_empty() { Err(wrong("is empty")) } else { Ok(servers) }
}

fn login(options: &mut Options<'_>, table: &str) -> Result<Login, ConnectorError> {
    let mut of = |key: &str| options.get(key).map(str::to_owned);
    let (user, password) = (of("username"), of("password"));
    let (token, key, credentials) = (of("token"), of("nkey"), of("credentials"));
    let ways = [user.is_some() || password.is_some(), token.is_some(), key.is_some(), credentials.is_some()];
    if ways.iter().filter(|given| **given).count() > 1 {
        return Err(ConnectorError::option(format!(
            "table '{table}' says in several ways who it is: give one of 'username' with 'password', 'token', 'nkey', 'credentials'"
        )));
    }
    Ok(match (user, password, token, key, credentials) {
        (Some(user), Some(password), ..) => Login::Password { user, password },
        (Some(_), None, ..) => {
            return Err(ConnectorError::option(format!("option 'username' of table '{table}' needs 'password'")));
        }
        (None, Some(_), ..) => {
            return Err(ConnectorError::option(format!("option 'password' of table '{table}' needs 'username'")));
        }
        (_, _, Some(token), ..) => Login::Token(token),
        (_, _, _, Some(key), _) => Login::Key(key.trim().to_owned()),
        (.., Some(credentials)) => Login::Credentials(credentials),
        _ => Login::None,
    })
}

fn tls(options: &mut Options<'_>, table: &str) -> Result<TlsOptions, ConnectorError> {
    let required = options.parse("tls.required", false)?;
    let ca_file = options.get("tls.ca-file").map(PathBuf::from);
    let certificate = options.get("tls.certificate-file").map(PathBuf::from);
    let key = options.get("tls.key-file").map(PathBuf::from);
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            return Err(ConnectorError::option(format!(
                "the options 'tls.certificate-file' and 'tls.key-file' of table '{table}' need each other: give both or none"
            )));
        }
    };
    Ok(TlsOptions { required, ca_file, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_without_secrets() {
        assert_eq!(servers("t", "nats://a:1, tls://b,c:3").unwrap().len(), 3);
        for (url, part) in [
            ("nats://u:p@a", "give 'username' and 'password'"),
            ("http://a", "cannot be read (invalid scheme"),
            ("ws://a", "has the scheme 'ws'"),
            (" , ", "is empty"),
            ("nats://a:port", "cannot be read"),
        ] {
            let message = servers("t", url).unwrap_err().message;
            assert!(message.contains(part), "{message}");
        }
        assert!(
            is_stream_name("ORDERS-1_a") && !is_stream_name("a.b") && !is_stream_name("") && !is_stream_name("a b")
        );
    }
}
