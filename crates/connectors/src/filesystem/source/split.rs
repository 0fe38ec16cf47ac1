//! What a checkpoint keeps of a file: the split's payload and the positions in it, both as JSON text. Older
//! checkpoints must stay readable: fields may be added with defaults, never renamed.

use std::fs::Metadata;
use std::path::Path;
use std::time::UNIX_EPOCH;

use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use serde::{Deserialize, Serialize};

use crate::error::{ConnectorError, ErrorKind};
use crate::kept::{from_json, to_json};

/// A file, as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileSplit {
    /// Where it lies.
    pub(super) path: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// When it was last changed, in microseconds since the epoch.
    pub(super) modified_us: i64,
    /// Tells its content from any other under the name, where it is an object of an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
}

/// A place in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextPosition {
    /// Bytes of plain text before the next record.
    pub(super) offset: u64,
    /// Number of the line in which the next record begins; the first is 1.
    pub(super) line: u64,
}

/// A place in a Parquet file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowPosition {
    /// Rows before the next one.
    pub(super) row: u64,
}

impl TextPosition {
    /// The beginning of a file.
    pub(super) const START: TextPosition = TextPosition { offset: 0, line: 1 };
}

impl FileSplit {
    /// The file as it is now.
    pub(super) fn new(path: &Path, metadata: &Metadata) -> Result<FileSplit, ConnectorError> {
        let text = path.to_str().ok_or_else(|| {
            ConnectorError::new(
                ErrorKind::External,
                format!("the name of the file '{}' is not valid UTF-8: rename it", path.display()),
            )
        })?;
        Ok(FileSplit { path: text.to_owned(), size: metadata.len(), modified_us: modified_us(metadata), tag: None })
    }

    /// The split for the coordinator.
    pub(super) fn to_split(&self) -> SourceSplit {
        SourceSplit { id: SplitId(self.path.clone()), payload: to_json(self) }
    }

    /// Reads a split's payload back.
    pub(super) fn parse(split: &SourceSplit) -> Result<FileSplit, ConnectorError> {
        parse_json(&split.payload, "split", &split.id)
    }

    /// Refuses a file that is not what it was when it was found: rows that were read from it may be gone, so
    /// a position in it means nothing any more.
    pub(super) fn check_unchanged(&self, metadata: &Metadata) -> Result<(), ConnectorError> {
        if metadata.len() == self.size && modified_us(metadata) == self.modified_us {
            return Ok(());
        }
        let how = match metadata.len() {
            size if size != self.size => format!("it had {} bytes, now {size}", self.size),
            _ => "its time of change differs".to_owned(),
        };
        Err(ConnectorError::new(
            ErrorKind::External,
            format!(
                "the file '{}' has changed since the job found it ({how}): restore the file, or start the job afresh; \
                 new data belongs in new files",
                self.path
            ),
        ))
    }
}

/// Reads a position that was given earlier, for a split of the given id.
pub(super) fn parse_position<T: for<'a> Deserialize<'a>>(text: &str, id: &SplitId) -> Result<T, ConnectorError> {
    parse_json(text, "position", id)
}

fn parse_json<T: for<'a> Deserialize<'a>>(text: &str, what: &str, id: &SplitId) -> Result<T, ConnectorError> {
    from_json(text, what, "file", id, "did the format of the table change")
}

fn modified_us(metadata: &Metadata) -> i64 {
    // A file system without times of change leaves only the size to compare.
    let Ok(modified) = metadata.modified() else { return 0 };
    match modified.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}
