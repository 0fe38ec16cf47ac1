//! What NATS and the way to it say, in the words of the person who has to mend it.

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind};

use crate::error::{ConnectorError, ErrorKind};

use super::address::{Address, Login};

/// A failed connection.
pub(super) fn connect_error(address: &Address, error: &ConnectError) -> ConnectorError {
    let Address { table, shown, .. } = address;
    let cause = root(error);
    let (kind, what) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let (who, advice) = match &address.login {
                Login::None => (
                    "a client that does not say who it is".to_owned(),
                    "give 'username' and 'password', 'token', 'nkey' or 'credentials'",
                ),
                Login::Password { user, .. } => (format!("the user '{user}'"), "check 'username' and 'password'"),
                Login::Token(_) => ("the token".to_owned(), "check 'token'"),
                Login::Key(_) => ("the key".to_owned(), "check 'nkey'"),
                Login::Credentials(_) => ("the credentials".to_owned(), "check 'credentials'"),
            };
            (ErrorKind::External, format!("the server refuses {who} ({}); {advice}", error.kind()))
        }
        ConnectErrorKind::ServerParse => (ErrorKind::Option, format!("{cause}; check 'url'")),
        ConnectErrorKind::Tls => (ErrorKind::External, format!("{cause}; check 'tls.*'")),
        _ if cause.contains("certificate") || cause.contains("TLS") || cause.contains("handshake") => {
            (ErrorKind::External, format!("{cause}; check 'tls.*' and the server's certificate"))
        }
        _ => (
            ErrorKind::Transient,
            format!(
                "no NATS server answers ({cause}); check 'url', and that the server runs and can be reached from here"
            ),
        ),
    };
    ConnectorError::new(kind, format!("table '{table}' cannot connect to '{shown}': {what}"))
}

/// What JetStream answers to a request. `what` goes after "cannot".
pub(super) fn api_error(address: &Address, what: &str, error: &jetstream::Error) -> ConnectorError {
    let code = error.error_code();
    let advice = match code {
        ErrorCode::STREAM_NOT_FOUND => "create the stream, or check the option 'stream'",
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            "start the server with JetStream, or enable it for the account"
        }
        ErrorCode::CONSUMER_FILTER_NOT_SUBSET => "check the option 'subjects': the stream holds none of the kind",
        ErrorCode::STREAM_NOT_MATCH => "another stream takes this subject: check the options 'stream' and 'subject'",
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => "raise 'max_msg_size' of the stream",
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED => "make room in the stream, or raise its limits",
        _ => "",
    };
    let lasting = matches!(error.code(), 400..=499) && !matches!(error.code(), 408 | 429)
        || matches!(code, ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT);
    let full = matches!(code, ErrorCode::STREAM_STORE_FAILED | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED);
    let kind = if lasting && !full { ErrorKind::External } else { ErrorKind::Transient };
    let reason = error.to_string();
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    ConnectorError::new(kind, format!("table '{}' cannot {what}, {}: {reason}{advice}", address.table, address.place()))
}

/// That nothing was answered. `heard` is what the server last complained of.
pub(super) fn silence(address: &Address, what: &str, reason: &str, heard: Option<String>) -> ConnectorError {
    let refused = heard.as_deref().is_some_and(|heard| heard.to_ascii_lowercase().contains("permissions violation"));
    let (kind, advice) = match refused {
        true => (ErrorKind::External, "give the user the right to this, see the table of rights in the documentation"),
        false => (ErrorKind::Transient, "check that the server runs and has JetStream"),
    };
    let heard = heard.map(|heard| format!(" (the server says: {heard})")).unwrap_or_default();
    let message = format!("table '{}' cannot {what}, {}: {reason}{heard}; {advice}", address.table, address.place());
    ConnectorError::new(kind, message)
}

/// A failed look at a stream.
pub(super) fn stream_error(
    address: &Address,
    what: &str,
    error: &GetStreamError,
    heard: Option<String>,
) -> ConnectorError {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => api_error(address, what, &error),
        _ => silence(address, what, &root(error), heard),
    }
}

/// A failed consumer.
pub(super) fn consumer_error(
    address: &Address,
    what: &str,
    error: &ConsumerError,
    heard: Option<String>,
) -> ConnectorError {
    match error.kind() {
        ConsumerErrorKind::JetStream(error) => api_error(address, what, &error),
        _ => silence(address, what, &root(error), heard),
    }
}

/// What lies at the ground of an error.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
