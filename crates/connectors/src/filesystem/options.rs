//! What both sides of the filesystem connector read from a table's options: the place, the compression, and
//! the names that only the other side reads. Called by `source` and `sink`; opens nothing.

use std::path::{Path, PathBuf};

use crate::error::ConnectorError;
use crate::table::Options;

/// Names that only the source reads. The sink accepts them, since one declaration may serve both.
pub(crate) const SOURCE_OPTIONS: &[&str] = &["source.monitor-interval"];

/// Names that only the sink reads. The source accepts them, since one declaration may serve both.
pub(crate) const SINK_OPTIONS: &[&str] = &[
    "partition.default-name",
    "sink.partition-name.default",
    "sink.rolling-policy.file-size",
    "sink.rolling-policy.rollover-interval",
    "sink.rolling-policy.check-interval",
    "sink.parallelism",
    "auto-compaction",
    "compaction.file-size",
];

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As it is.
    None,
    /// One or several gzip members.
    Gzip,
    /// One or several zstd frames.
    Zstd,
}

impl Compression {
    /// What a file's name says.
    pub(crate) fn of_name(path: &Path) -> Compression {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "gz" | "gzip" => Compression::Gzip,
            "zst" | "zstd" => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The option `'compression'`; absent or `auto`: none, and the name of each file decides.
    pub(crate) fn option(options: &mut Options<'_>) -> Result<Option<Compression>, ConnectorError> {
        let word = options.one_of("compression", "auto", &["auto", "none", "gzip", "zstd"])?;
        Ok(match word {
            "none" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        })
    }
}

/// The option `'path'`, with its `file:` scheme taken off.
pub(crate) fn path(options: &mut Options<'_>) -> Result<PathBuf, ConnectorError> {
    let text = options.required("path")?;
    let plain = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text);
    if let Some((scheme, _)) = plain.split_once("://") {
        return Err(ConnectorError::option(format!(
            "option 'path' has the value '{text}': the scheme '{scheme}' is not supported, give a path of the local file system"
        )));
    }
    if plain.trim().is_empty() {
        return Err(ConnectorError::option("option 'path' is empty: give a file, a directory or a glob".to_owned()));
    }
    Ok(PathBuf::from(plain))
}
