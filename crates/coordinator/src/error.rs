//! What can go wrong before a job runs; what goes wrong later is a `Failure` of the job.

use mainstem_state::StateError;

use crate::meta_log::MetaLogError;

/// An error of opening or resetting a job.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The lock, or the checkpoint files.
    #[error(transparent)]
    State(#[from] StateError),
    /// The metadata log.
    #[error(transparent)]
    MetaLog(#[from] MetaLogError),
    /// A file of the job.
    #[error("cannot {action} '{path}': {source}; {}", mainstem_state::advice(.source.kind()))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file of the job holds something else than it should.
    #[error("'{path}' is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}
