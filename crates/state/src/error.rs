//! What can go wrong with durable state, and whether trying again can help. Messages name the file and what to do.

use std::io::{self, ErrorKind as Io};

use mainstem_objects::{ObjectError, ObjectErrorKind};

/// An error of checkpoint files, manifests or the job lock.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes of a file are not those that were written.
    #[error("checkpoint file '{path}' is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: String,
        /// Truncated, wrong checksum, unknown version.
        reason: String,
    },
    /// A file that should be there is not.
    #[error(
        "checkpoint file '{path}' is missing: it was removed by something other than this job, or its disk is not mounted"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// A file that nobody else may write exists with other content.
    #[error(
        "checkpoint file '{path}' exists already with other content: another process writes to the same job; stop it"
    )]
    Conflict {
        /// The file.
        path: String,
    },
    /// The store refuses or fails.
    #[error("cannot {action} '{path}': {message}")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the store or the system says, and what to do.
        message: String,
        /// Whether another attempt can succeed.
        retryable: bool,
    },
    /// A file operation outside the store (lock, log).
    #[error("cannot {action} '{path}': {}", advised(source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process runs the job.
    #[error("job '{job}' is being run by another process ({owner}); stop that one first")]
    Locked {
        /// The job.
        job: String,
        /// Process id and host of the owner, as far as known.
        owner: String,
    },
    /// Our own mistake.
    #[error("bug: {0}; please report it")]
    Bug(String),
}

impl StateError {
    /// Whether another attempt, with nothing changed by the user, can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            StateError::Store { retryable, .. } => *retryable,
            StateError::Io { source, .. } => may_pass(source),
            // A restore that meets a damaged file falls back to an earlier checkpoint at the next attempt.
            StateError::Corrupt { .. } | StateError::Missing { .. } => true,
            StateError::Conflict { .. } | StateError::Locked { .. } | StateError::Bug(_) => false,
        }
    }

    /// Whether the error says that stored bytes are gone or changed, rather than out of reach.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, StateError::Corrupt { .. } | StateError::Missing { .. })
    }

    /// What a service said about an action on an object.
    pub(crate) fn service(action: &'static str, path: &str, error: ObjectError) -> StateError {
        let path = path.to_owned();
        match error.kind {
            ObjectErrorKind::Missing => StateError::Missing { path },
            kind => {
                StateError::Store { action, path, message: error.message, retryable: kind != ObjectErrorKind::Refused }
            }
        }
    }

    /// What the store said about an action on a path.
    pub(crate) fn store(action: &'static str, path: &str, error: object_store::Error) -> StateError {
        use object_store::Error;
        let path = path.to_owned();
        let retryable = match &error {
            Error::NotFound { .. } => return StateError::Missing { path },
            Error::AlreadyExists { .. } => return StateError::Conflict { path },
            Error::Generic { .. } | Error::JoinError { .. } | Error::Precondition { .. } => true,
            _ => false,
        };
        // The store's own words repeat the path, and hide what the system said among them.
        match system_error(&error) {
            Some(cause) => StateError::Store { action, path, message: advised(cause), retryable: may_pass(cause) },
            None => StateError::Store { action, path, message: error.to_string(), retryable },
        }
    }
}

/// What the system said, somewhere among the causes.
fn system_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |e| e.source()).find_map(|e| e.downcast_ref::<io::Error>())
}

/// Whether a failed file operation can succeed with nothing changed by the user. Space may be freed by others.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    !matches!(error.kind(), Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory)
}

/// What the system said, and what to do about it.
fn advised(error: &io::Error) -> String {
    format!("{error}; {}", advice(error.kind()))
}

/// What the user does about an error of the system.
pub fn advice(kind: Io) -> &'static str {
    match kind {
        Io::StorageFull | Io::QuotaExceeded => "free some space",
        Io::FileTooLarge => "raise the limit on the size of files (ulimit -f)",
        Io::PermissionDenied => "check its permissions",
        Io::ReadOnlyFilesystem => "make the file system writable, or choose another directory",
        Io::NotADirectory | Io::AlreadyExists => {
            "something else has that name; move it away, or choose another directory"
        }
        _ => "check the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_quoted_with_what_to_do() {
        let store = |kind: Io| {
            let source = Box::new(io::Error::from(kind));
            StateError::store("write", "/state/a", object_store::Error::Generic { store: "disk", source })
        };
        let full = store(Io::StorageFull);
        assert_eq!(full.to_string(), "cannot write '/state/a': no storage space; free some space");
        assert!(full.is_retryable(), "space may be freed while the job tries again");
        let denied = store(Io::PermissionDenied);
        assert_eq!(denied.to_string(), "cannot write '/state/a': permission denied; check its permissions");
        assert!(!denied.is_retryable());
        assert!(!store(Io::NotADirectory).is_retryable(), "a file in the place of a directory stays there");
    }
}
