//! What a checkpoint keeps of a stream: the split's payload and the position in it, both as JSON text
//! (`kept`).

use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::kept::{from_json, to_json};

/// A stream, or what some subjects have in it, and which of its messages belong to the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamSplit {
    pub(super) stream: String,
    /// A pattern of subjects; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// When the stream was created, in nanoseconds since 1970. One of the same name that was created later is another.
    pub(super) created: i64,
    /// Sequence from which on messages belong to the job.
    pub(super) start: u64,
    /// Whether that was the first there was, so that it does no harm if it is gone before anything is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) earliest: bool,
    /// Sequence before which they end; none: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<u64>,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Sequence from which on to read.
    pub(super) sequence: u64,
}

impl StreamSplit {
    /// The split for the coordinator. Names of streams hold no slash.
    pub(super) fn to_split(&self) -> SourceSplit {
        let id = match &self.subject {
            Some(subject) => format!("{}/{subject}", self.stream),
            None => self.stream.clone(),
        };
        SourceSplit { id: SplitId(id), payload: to_json(self) }
    }

    /// Reads a split's payload back.
    pub(super) fn parse(split: &SourceSplit) -> Result<StreamSplit, ConnectorError> {
        parse(&split.payload, "split", &split.id)
    }

    /// The split for messages.
    pub(super) fn shown(&self) -> String {
        match &self.subject {
            Some(subject) => format!("stream '{}', subject '{subject}'", self.stream),
            None => format!("stream '{}'", self.stream),
        }
    }
}

impl Position {
    /// Reads a position that was given earlier.
    pub(super) fn parse(text: &str, id: &SplitId) -> Result<Position, ConnectorError> {
        parse(text, "position", id)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str, what: &str, id: &SplitId) -> Result<T, ConnectorError> {
    from_json(text, what, "stream", id, "was the table of another connector")
}
