//! What can go wrong with a connector, in the words of the person who has to mend it.

use std::fmt;

use crate::secret;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An option is unknown, missing or has a wrong value: the user must change the SQL.
    Option,
    /// A record cannot be decoded, or breaks the declared schema: the user must decide about the data.
    Data,
    /// The outside refuses for good: no such file, no permission.
    External,
    /// The outside failed in a way that may pass: time-out, connection, disk full.
    Transient,
    /// Output that should be there is not: it was removed or changed by somebody else.
    Lost,
}

/// An error of a connector. The message says what, where (file and line, topic and offset) and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConnectorError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// One sentence for the user.
    pub message: String,
}

impl ConnectorError {
    /// An error of the given kind. Secrets in the message give way to what refers to them.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ConnectorError { kind, message: secret::redact(message.into()) }
    }

    /// A wrong option.
    pub fn option(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Option, message)
    }

    /// A wrong record.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A failed file operation: what was attempted, on which path, and what the system said.
    pub fn io(action: &str, path: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, advice) = match error.kind() {
            Io::NotFound => (ErrorKind::External, "check the path"),
            Io::PermissionDenied => (ErrorKind::External, "check its permissions"),
            Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Transient, "free some space"),
            Io::FileTooLarge => (ErrorKind::Transient, "raise the limit on the size of files (ulimit -f)"),
            Io::NotADirectory | Io::AlreadyExists | Io::IsADirectory => {
                (ErrorKind::External, "something else has that name")
            }
            Io::ReadOnlyFilesystem => (ErrorKind::External, "the file system is read-only"),
            _ => (ErrorKind::Transient, "see the system's message"),
        };
        Self::new(kind, format!("cannot {action} '{path}': {error}; {advice}"))
    }

    /// Whether another attempt, with nothing changed by the user, can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Transient
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind as Io};

    use super::*;

    #[test]
    fn a_full_disk_and_a_missing_permission_say_what_to_do() {
        let full = ConnectorError::io("write", "out/part-0.json", &Error::from(Io::StorageFull));
        assert!(full.is_retryable(), "space may be freed while the job tries again");
        assert_eq!(full.message, "cannot write 'out/part-0.json': no storage space; free some space");
        let denied = ConnectorError::io("open", "in/a.json", &Error::from(Io::PermissionDenied));
        assert!(!denied.is_retryable());
        assert_eq!(denied.message, "cannot open 'in/a.json': permission denied; check its permissions");
    }
}
