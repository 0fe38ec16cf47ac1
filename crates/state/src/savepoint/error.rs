//! What can be wrong with a savepoint. Messages say what, which file, and what to do.

use std::io;
use std::path::Path;

use mainstem_objects::{ObjectError, ObjectErrorKind, Place};

use crate::error::{StateError, advice, may_pass};

/// Why a savepoint cannot be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// There is no savepoint.
    #[error("there is no savepoint in '{path}': {what}; give the directory that `mainstem savepoint` has printed")]
    None {
        /// Where it was looked for.
        path: String,
        /// What is there instead.
        what: String,
    },
    /// Taking it did not come to its end.
    #[error(
        "the savepoint '{path}' is unfinished: taking it did not come to its end, so it cannot be used; delete it, and take another one"
    )]
    Unfinished {
        /// Its directory.
        path: String,
    },
    /// Some of it is missing or changed.
    #[error(
        "the savepoint '{savepoint}' cannot be used: its file '{file}' {reason}; copy the savepoint anew from where it \
         was taken, or use another one"
    )]
    Damaged {
        /// Its directory.
        savepoint: String,
        /// The file, relative to it.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation on the savepoint failed.
    #[error("cannot {action} '{path}': {source}; {}", advice(.source.kind()))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// An operation on an object of the savepoint failed, or the place is none.
    #[error("cannot {action} '{path}': {message}")]
    Service {
        /// What was attempted.
        action: &'static str,
        /// The object.
        path: String,
        /// What the service says, and what to do.
        message: String,
        /// Whether another try can succeed.
        retryable: bool,
    },
    /// Something is wrong with the checkpoints of the job.
    #[error(transparent)]
    Checkpoint(#[from] StateError),
}

impl SavepointError {
    /// Whether another try, with nothing changed by the user, can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            SavepointError::Io { source, .. } => may_pass(source),
            SavepointError::Service { retryable, .. } => *retryable,
            SavepointError::Checkpoint(error) => error.is_retryable() && !error.is_damage(),
            SavepointError::None { .. } | SavepointError::Unfinished { .. } | SavepointError::Damaged { .. } => false,
        }
    }
}

/// What a service said about an object.
pub(super) fn service_error(action: &'static str, path: &str, error: ObjectError) -> SavepointError {
    let retryable = error.kind != ObjectErrorKind::Refused;
    SavepointError::Service { action, path: path.to_owned(), message: error.message, retryable }
}

/// A place that is none.
pub(super) fn no_place(path: &Path) -> impl FnOnce(String) -> SavepointError {
    let path = Place::shown(path);
    move |message| SavepointError::Service { action: "use", path, message, retryable: false }
}

/// An error of the system.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SavepointError {
    let path = path.display().to_string();
    move |source| SavepointError::Io { action, path, source }
}
