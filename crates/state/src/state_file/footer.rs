//! The end of a state file: which tables and blocks it holds and where. Only bytes; see the format document.

use std::ops::Range;

use mainstem_core::key_group::KeyGroupRange;
use serde::{Deserialize, Serialize};

use super::{HEADER, is_readable};
use crate::error::StateError;

/// Last bytes of every state file.
const END: [u8; 8] = *b"MSSTEND\x02";
/// Length of the footer (u32), its CRC-32C (u32), then [`END`].
pub(crate) const TRAILER_BYTES: usize = 16;

/// What a state file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    pub(crate) tables: Vec<Table>,
}

/// One table of a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    #[serde(flatten)]
    pub(crate) head: TableHead,
    pub(crate) blocks: Vec<Block>,
}

/// What a table says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableHead {
    pub(crate) name: String,
    pub(crate) version: u32,
    /// Positions of the columns that decide a row's key group, where it says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) key: Vec<usize>,
}

/// Some rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    /// From the start of the file, in bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) length: u64,
    /// Of the block's bytes.
    pub(crate) crc32c: u32,
    /// Key groups, ascending, each with its number of rows.
    pub(crate) runs: Vec<(u16, u32)>,
}

impl Block {
    /// Number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.runs.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Positions of the rows whose key groups lie in the range.
    pub(crate) fn rows_of(&self, range: KeyGroupRange) -> Range<usize> {
        let count = |to: u16| -> usize {
            self.runs.iter().take_while(|(group, _)| *group < to).map(|(_, count)| *count as usize).sum()
        };
        count(range.start)..count(range.end.max(range.start))
    }

    /// Whether some row's key group lies in the range.
    pub(crate) fn overlaps(&self, range: KeyGroupRange) -> bool {
        self.runs.iter().any(|(group, _)| (range.start..range.end).contains(group))
    }
}

impl Footer {
    /// The least range that holds the key groups of all rows.
    pub(crate) fn key_groups(&self) -> KeyGroupRange {
        let groups = || self.tables.iter().flat_map(|t| &t.blocks).flat_map(|b| &b.runs).map(|(group, _)| *group);
        // Key group 65535 cannot occur: a job has at most 65535 groups.
        KeyGroupRange { start: groups().min().unwrap_or(0), end: groups().max().map_or(0, |g| g.saturating_add(1)) }
    }

    /// Where the footer begins, from the last bytes of a file of `file_size` bytes; `tail` holds at least the
    /// trailer.
    pub(crate) fn start(tail: &[u8], file_size: u64) -> Result<u64, String> {
        let too_short = || format!("truncated: {file_size} bytes are too few");
        let trailer = tail.last_chunk::<TRAILER_BYTES>().ok_or_else(too_short)?;
        let (length, rest) = trailer.split_first_chunk::<4>().expect("16 bytes");
        if !is_readable(&rest[4..], END) {
            return Err("truncated: it does not end as a state file does".to_owned());
        }
        let length = u64::from(u32::from_le_bytes(*length)) + TRAILER_BYTES as u64;
        file_size.checked_sub(length).filter(|start| *start >= HEADER.len() as u64).ok_or_else(too_short)
    }

    /// Reads the footer from the bytes that begin at `start` and go to the end of the file.
    pub(crate) fn decode(bytes: &[u8], start: u64) -> Result<Footer, String> {
        let json = &bytes[..bytes.len() - TRAILER_BYTES];
        let crc = &bytes[json.len() + 4..json.len() + 8];
        if crc != crc32c::crc32c(json).to_le_bytes() {
            return Err("wrong checksum of its footer".to_owned());
        }
        let footer: Footer = serde_json::from_slice(json).map_err(|e| format!("unreadable footer: {e}"))?;
        // Blocks fill the space between header and footer without a gap, so no byte goes unchecked.
        let mut expected = HEADER.len() as u64;
        for block in footer.tables.iter().flat_map(|t| &t.blocks) {
            if block.offset != expected || !block.runs.is_sorted() {
                return Err("its footer contradicts itself".to_owned());
            }
            expected = expected.saturating_add(block.length);
        }
        if expected == start { Ok(footer) } else { Err("its footer does not fit its size".to_owned()) }
    }
}

/// Appends footer and trailer to the bytes of a state file.
pub(super) fn encode_footer(footer: &Footer, bytes: &mut Vec<u8>) -> Result<(), StateError> {
    let json = serde_json::to_vec(footer).map_err(|e| StateError::Bug(format!("footer of a state file: {e}")))?;
    let length = u32::try_from(json.len()).map_err(|_| StateError::Bug("footer of a state file above 4 GiB".into()))?;
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&json).to_le_bytes());
    bytes.extend_from_slice(&END);
    Ok(())
}
