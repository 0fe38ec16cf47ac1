//! What a checkpoint keeps of a partition: the split's payload and the position in it, both as JSON text (`kept`).

use mainstem_core::ids::SplitId;
use mainstem_core::protocol::SourceSplit;
use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::kept::{from_json, to_json};

/// A partition, and which of its messages belong to the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionSplit {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Offset of the first message.
    pub(super) start: i64,
    /// Offset before which the partition ends; none: it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<i64>,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Offset of the next message.
    pub(super) offset: i64,
}

impl PartitionSplit {
    /// The split for the coordinator. Names of topics hold no slash.
    pub(super) fn to_split(&self) -> SourceSplit {
        SourceSplit { id: SplitId(format!("{}/{}", self.topic, self.partition)), payload: to_json(self) }
    }

    /// Reads a split's payload back.
    pub(super) fn parse(split: &SourceSplit) -> Result<PartitionSplit, ConnectorError> {
        parse(&split.payload, "split", &split.id)
    }
}

impl Position {
    /// Reads a position that was given earlier.
    pub(super) fn parse(text: &str, id: &SplitId) -> Result<Position, ConnectorError> {
        parse(text, "position", id)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str, what: &str, id: &SplitId) -> Result<T, ConnectorError> {
    from_json(text, what, "partition", id, "was the table of another connector")
}
