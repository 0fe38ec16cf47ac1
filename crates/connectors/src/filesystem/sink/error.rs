//! Errors of the filesystem sink, in the words of its user.

use std::fmt::Display;
use std::io;
use std::path::Path;

use parquet::errors::ParquetError;

use crate::error::{ConnectorError, ErrorKind};

/// A failed operation on a file or directory.
pub(super) fn io_error(action: &str, path: impl Display, error: &io::Error) -> ConnectorError {
    match error.kind() {
        // A file stands where a directory should be: no second attempt helps.
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ConnectorError::new(
            ErrorKind::External,
            format!(
                "cannot {action} '{path}': {error}; a file stands where the sink needs a directory, choose another 'path'"
            ),
        ),
        io::ErrorKind::InvalidFilename => ConnectorError::new(
            ErrorKind::External,
            format!(
                "cannot {action} '{path}': {error}; the name is too long for the file system, shorten the path or the partition values"
            ),
        ),
        _ => ConnectorError::io(action, path, error),
    }
}

/// A failed write of a Parquet file, whose cause may be the file system.
pub(super) fn parquet_error(path: &Path, error: &ParquetError) -> ConnectorError {
    let source = std::error::Error::source(error);
    match source.and_then(|s| s.downcast_ref::<io::Error>()) {
        Some(cause) => io_error("write", path.display(), cause),
        None => ConnectorError::data(format!(
            "cannot write the rows as Parquet to '{}': {error}; check the table's column types",
            path.display()
        )),
    }
}

/// A task that was to do file work has gone: the process is shutting down, or has a bug.
pub(super) fn task_error(error: &tokio::task::JoinError) -> ConnectorError {
    ConnectorError::new(
        ErrorKind::Transient,
        format!("the task that writes files was stopped: {error}; it is tried again"),
    )
}
