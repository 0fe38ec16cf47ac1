//! What can go wrong with durable state, and whether trying again can help. Messages name the file.

/// An error of checkpoint files, manifests or the job lock.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes of a file are not those that were written.
    #[error("checkpoint file '{path}' is damaged: {reason}")]
    Corrupt {
        /// The file, relative to the state directory.
        path: String,
        /// Truncated, wrong checksum, unknown version.
        reason: String,
    },
    /// A file that should be there is not.
    #[error("checkpoint file '{path}' is missing: it was removed by something other than this job")]
    Missing {
        /// The file, relative to the state directory.
        path: String,
    },
    /// A file that nobody else may write exists with other content.
    #[error(
        "checkpoint file '{path}' exists already with other content: another process writes to the same job; stop it"
    )]
    Conflict {
        /// The file, relative to the state directory.
        path: String,
    },
    /// The store refuses or fails.
    #[error("cannot {action} '{path}' in the state directory: {message}")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// The file, relative to the state directory.
        path: String,
        /// What the store says.
        message: String,
        /// Whether another attempt can succeed.
        retryable: bool,
    },
    /// A file operation outside the store (lock, log).
    #[error("cannot {action} '{path}': {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
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
            StateError::Io { source, .. } => {
                !matches!(source.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
            }
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
        StateError::Store { action, path, message: error.to_string(), retryable }
    }
}
