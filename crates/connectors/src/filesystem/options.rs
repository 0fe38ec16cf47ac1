//! What both sides of the filesystem connector read from a table's options: the place, the compression, and
//! the names that only the other side reads. Called by `source` and `sink`; opens nothing.

use std::path::Path;

use mainstem_objects::{Credentials, Place};

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

/// The option `'path'`, and for the URL of an object store what says how it is reached, and by whom.
pub(crate) fn location(options: &mut Options<'_>) -> Result<(Place, Option<Credentials>), ConnectorError> {
    let text = options.required("path")?;
    if text.trim().is_empty() {
        return Err(ConnectorError::option("option 'path' is empty: give a file, a directory or a glob".to_owned()));
    }
    let wrong = |reason| ConnectorError::option(format!("option 'path': {reason}"));
    let mut url = match Place::parse(Path::new(text)).map_err(wrong)? {
        Place::Local(path) => return Ok((Place::Local(path), None)),
        Place::Objects(url) => url,
    };
    if !url.is_s3() {
        return Ok((Place::Objects(url), None));
    }
    for (option, parameter) in [("s3.endpoint", "endpoint"), ("s3.region", "region")] {
        if let Some(value) = options.get(option) {
            url = url.with_parameter(parameter, value).map_err(wrong)?;
        }
    }
    let keys = (options.get("s3.access-key"), options.get("s3.secret-key"), options.get("s3.session-token"));
    let credentials = match keys {
        (Some(access_key), Some(secret_key), session_token) => Some(Credentials {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: session_token.map(str::to_owned),
        }),
        (None, None, None) => None,
        _ => {
            let message =
                "the options 's3.access-key' and 's3.secret-key' come together, or neither, for the environment's";
            return Err(ConnectorError::option(message));
        }
    };
    Ok((Place::Objects(url), credentials))
}
