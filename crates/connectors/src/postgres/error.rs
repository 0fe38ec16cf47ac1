//! What PostgreSQL and the way to it say, in the words of the person who has to mend it.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::address::Address;
use crate::error::{ConnectorError, ErrorKind};

/// A failed connection.
pub(super) fn connect_error(address: &Address, error: &Error) -> ConnectorError {
    let shown = address.shown();
    if let Some(db) = error.as_db_error() {
        let (kind, advice) = match db.code().code() {
            code if code.starts_with("28") => (ErrorKind::External, "check 'username' and 'password'"),
            "3D000" => (ErrorKind::External, "check the database's name"),
            "42501" => (ErrorKind::External, "grant the user CONNECT on the database"),
            _ => (kind_of(db), "see the server's log"),
        };
        let message = format!(
            "PostgreSQL at {shown} refuses the connection of user '{}': {}; {advice}",
            address.user,
            db.message()
        );
        return ConnectorError::new(kind, message);
    }
    let cause = root(error);
    let (kind, advice) = if cause.contains("password missing") {
        (ErrorKind::External, "give the option 'password'")
    } else if cause.contains("certificate") || cause.contains("TLS") || cause.contains("handshake") {
        (ErrorKind::External, "check sslmode and sslrootcert in the option 'url'")
    } else {
        (ErrorKind::Transient, "check host and port, and that the server runs and can be reached from here")
    };
    ConnectorError::new(kind, format!("cannot connect to PostgreSQL at {shown}: {cause}; {advice}"))
}

/// A failed statement. `action` goes after "cannot".
pub(super) fn statement_error(address: &Address, action: &str, error: &Error) -> ConnectorError {
    let shown = address.shown();
    let Some(db) = error.as_db_error() else {
        let cause = root(error);
        let message = format!("cannot {action} in PostgreSQL at {shown}: the connection failed: {cause}");
        return ConnectorError::new(ErrorKind::Transient, message);
    };
    let mut message = format!("cannot {action} in PostgreSQL at {shown}: {}", db.message());
    for more in [db.detail(), db.where_(), db.hint()].into_iter().flatten() {
        message += "; ";
        message += more.lines().next().unwrap_or_default();
    }
    ConnectorError::new(kind_of(db), message)
}

fn kind_of(db: &DbError) -> ErrorKind {
    let code = db.code();
    let transient = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::OBJECT_IN_USE,
    ];
    match &code.code()[..2] {
        // Connections and resources.
        "08" | "53" | "58" => ErrorKind::Transient,
        _ if transient.contains(code) => ErrorKind::Transient,
        // Values and constraints.
        "22" | "23" => ErrorKind::Data,
        _ => ErrorKind::External,
    }
}

/// What lies at the ground of an error.
fn root(error: &Error) -> String {
    let Some(mut cause) = error.source() else { return error.to_string() };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => cause.to_string(),
    }
}
