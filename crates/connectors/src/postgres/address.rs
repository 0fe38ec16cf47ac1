//! Where a server is and how it is spoken to: from a URL or from single options. Called by the options.

use std::path::PathBuf;
use std::time::Duration;

use super::tls::SslMode;
use crate::error::ConnectorError;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Port of a server that is not said to have another.
pub(super) const PORT_DEFAULT: u16 = 5432;

/// A database and who asks for it. `Debug` is left out: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<String>,
    /// Schema of tables whose name has none.
    pub(super) schema: Option<String>,
    pub(super) ssl_mode: SslMode,
    /// Certificates of those who may vouch for the server.
    pub(super) ssl_root: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
}

/// What a URL says; the rest comes from options.
#[derive(Default)]
pub(super) struct UrlParts {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) ssl_mode: Option<SslMode>,
    pub(super) ssl_root: Option<PathBuf>,
    pub(super) connect_timeout: Option<Duration>,
}

impl Address {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// The address of what a URL says, completed by options.
    pub(super) fn new(parts: UrlParts, table: &str) -> Result<Address, ConnectorError> {
        let missing = |what: &str| {
            ConnectorError::option(format!(
                "table '{table}' does not say {what}: give it in the option 'url' (such as \
                 'jdbc:postgresql://host:5432/database') or as an option of its own"
            ))
        };
        let ssl_mode = parts.ssl_mode.unwrap_or_default();
        if ssl_mode.verifies() && parts.ssl_root.is_none() {
            return Err(ConnectorError::option(format!(
                "table '{table}' asks in the option 'url' for a sslmode that checks the server's certificate; name a file \
                 of certificates to trust by sslrootcert=/path"
            )));
        }
        Ok(Address {
            host: parts.host.ok_or_else(|| missing("the host ('hostname')"))?,
            port: parts.port.unwrap_or(PORT_DEFAULT),
            database: parts.database.ok_or_else(|| missing("the database ('database-name')"))?,
            user: parts.user.ok_or_else(|| missing("the user ('username')"))?,
            password: parts.password,
            schema: parts.schema,
            ssl_mode,
            ssl_root: parts.ssl_root,
            connect_timeout: parts.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        })
    }
}

impl UrlParts {
    /// Reads `jdbc:postgresql://host:port/database?name=value` or `postgresql://user:password@host/database`. Errors do
    /// not repeat the URL, which may hold a password.
    pub(super) fn of_url(url: &str, table: &str) -> Result<UrlParts, ConnectorError> {
        let wrong = |what: String| ConnectorError::option(format!("the option 'url' of table '{table}' {what}"));
        let rest = url.strip_prefix("jdbc:").unwrap_or(url);
        let rest = ["postgresql://", "postgres://"].into_iter().find_map(|scheme| rest.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| {
            wrong(
                "does not begin with 'jdbc:postgresql://' or 'postgresql://'; other databases are not supported".into(),
            )
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let decoded = |text: &str| decode(text).ok_or_else(|| wrong("has a wrong %XX".to_owned()));
        let mut parts = UrlParts::default();
        let host = match authority.rsplit_once('@') {
            Some((who, host)) => {
                let (user, password) = who.split_once(':').map_or((who, None), |(user, pw)| (user, Some(pw)));
                parts.user = Some(decoded(user)?);
                parts.password = password.map(decoded).transpose()?;
                host
            }
            None => authority,
        };
        if host.contains(',') {
            return Err(wrong("names several hosts; name one".to_owned()));
        }
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(|port| port.parse().map_err(|_| wrong("has a port that is no number".to_owned())));
        parts.port = port.transpose()?;
        parts.host = (!host.is_empty()).then(|| decoded(host)).transpose()?;
        parts.database = (!database.is_empty()).then(|| decoded(database)).transpose()?;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            parts.set(name, decoded(value)?).map_err(wrong)?;
        }
        Ok(parts)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "currentSchema" => self.schema = Some(value),
            "sslmode" => self.ssl_mode = Some(SslMode::of_name(&value)?),
            "sslrootcert" => self.ssl_root = Some(value.into()),
            // Seconds in JDBC and in libpq.
            "connect_timeout" | "connectTimeout" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| format!("has a {name} that is no number of seconds"))?;
                self.connect_timeout = Some(Duration::from_secs(seconds));
            }
            // These change nothing in what is sent.
            "ApplicationName" | "application_name" | "reWriteBatchedInserts" | "stringtype" => {}
            other => {
                return Err(format!(
                    "has the unknown parameter '{other}'; known: user, password, currentSchema, sslmode, sslrootcert, \
                     connect_timeout"
                ));
            }
        }
        Ok(())
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, String> {
        UrlParts::of_url(url, "t").and_then(|parts| Address::new(parts, "t")).map_err(|error| error.message)
    }

    #[test]
    fn urls_of_jdbc_and_of_libpq_are_read() {
        let jdbc = address("jdbc:postgresql://db.example:5433/shop?user=a%40b&password=p%26w&sslmode=require")
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(jdbc.shown(), "db.example:5433/shop");
        assert_eq!((jdbc.user.as_str(), jdbc.password.as_deref()), ("a@b", Some("p&w")));
        assert_eq!(jdbc.ssl_mode, SslMode::Require);
        let libpq =
            address("postgresql://u:p%3A@[::1]/d?currentSchema=s&connect_timeout=3").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((libpq.host.as_str(), libpq.port, libpq.database.as_str()), ("::1", PORT_DEFAULT, "d"));
        assert_eq!((libpq.password.as_deref(), libpq.schema.as_deref()), (Some("p:"), Some("s")));
        assert_eq!(libpq.connect_timeout, Duration::from_secs(3));
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        let cases = [
            ("jdbc:mysql://h/d?password=geheim", "does not begin with"),
            ("postgresql://u:geheim@h:x/d", "port that is no number"),
            ("postgresql://u:geheim@h/d?targetServerType=primary", "unknown parameter 'targetServerType'"),
            ("postgresql://u:geheim@h", "the database"),
            ("postgresql://h/d?password=geheim", "the user"),
            ("postgresql://u:geheim@h/d?sslmode=verify-full", "sslrootcert"),
            ("postgresql://u:geheim@h/d?sslmode=maybe", "sslmode"),
            ("postgresql://u:geheim@h,i/d", "several hosts"),
        ];
        for (url, expected) in cases {
            let message = address(url).err().unwrap_or_else(|| panic!("{url} should be refused"));
            assert!(message.contains(expected) && !message.contains("geheim"), "{url}: {message}");
        }
    }
}
