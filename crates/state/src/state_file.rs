//! The format of state files, byte by byte in docs/formats/state-file.md: encoding and decoding of bytes in
//! memory, no I/O. Called by the store. Never hands out a row whose block fails its checksum, and never panics
//! on bytes from outside.

mod footer;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use mainstem_core::key_group::KeyGroupRange;

pub(crate) use self::footer::{Block, Footer, TRAILER_BYTES, TableHead};
use self::footer::{Table, encode_footer};
use crate::error::StateError;

/// First bytes of every state file: a name and the version of the format.
pub(crate) const HEADER: [u8; 8] = *b"MSSTATE\x01";

/// A block is closed when it holds about so many bytes before compression. Small enough that a rescale reads
/// little beyond its key groups, large enough that compression works.
const BLOCK_BYTES: usize = 4 << 20;

/// Rows of one table of an operator's state that were added or changed in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDelta {
    /// Name of the table, the operator's own.
    pub table: String,
    /// Version of the table's layout, the operator's own.
    pub version: u32,
    /// Positions of the columns that decide a row's key group; none: all rows lie in one, or nobody said so. Told to users;
    /// nothing is decided by it.
    pub key: Vec<usize>,
    /// Key group of each row, ascending.
    pub key_groups: Vec<u16>,
    /// The rows.
    pub rows: RecordBatch,
}

/// The bytes of a state file and the key groups that it holds.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) key_groups: KeyGroupRange,
}

/// Encodes tables. Tables without rows are left out.
///
/// # Errors
/// [`StateError::Bug`] where key groups are not ascending or not one a row, or Arrow refuses the rows.
pub(crate) fn encode(tables: &[TableDelta]) -> Result<Encoded, StateError> {
    let mut bytes = HEADER.to_vec();
    let mut footer = Footer::default();
    for delta in tables.iter().filter(|d| d.rows.num_rows() > 0) {
        if delta.key_groups.len() != delta.rows.num_rows() || !delta.key_groups.is_sorted() {
            return Err(StateError::Bug(format!("state table '{}' is not sorted by key group", delta.table)));
        }
        let mut table = Table {
            head: TableHead { name: delta.table.clone(), version: delta.version, key: delta.key.clone() },
            blocks: Vec::new(),
        };
        for (start, end) in block_bounds(&delta.key_groups, delta.rows.get_array_memory_size()) {
            let offset = bytes.len();
            write_ipc(&delta.rows.slice(start, end - start), &mut bytes)
                .map_err(|e| StateError::Bug(format!("state table '{}' cannot be encoded: {e}", delta.table)))?;
            table.blocks.push(Block {
                offset: offset as u64,
                length: (bytes.len() - offset) as u64,
                crc32c: crc32c::crc32c(&bytes[offset..]),
                runs: runs(&delta.key_groups[start..end]),
            });
        }
        footer.tables.push(table);
    }
    let key_groups = footer.key_groups();
    encode_footer(&footer, &mut bytes)?;
    Ok(Encoded { bytes, key_groups })
}

/// The rows of a block whose key groups lie in the range; none where there are none. `bytes` are the block's.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn decode_block(
    table: &TableHead,
    block: &Block,
    bytes: &[u8],
    range: KeyGroupRange,
) -> Result<Option<TableDelta>, String> {
    let name = &table.name;
    if bytes.len() as u64 != block.length || crc32c::crc32c(bytes) != block.crc32c {
        return Err(format!("wrong checksum of {} bytes at offset {} (table '{name}')", block.length, block.offset));
    }
    let rows = read_ipc(bytes).map_err(|e| format!("block at offset {} (table '{name}'): {e}", block.offset))?;
    if rows.num_rows() as u64 != block.rows() {
        let message = format!("block at offset {} (table '{name}') has {} rows", block.offset, rows.num_rows());
        return Err(format!("{message}, its footer says {}", block.rows()));
    }
    let all = || block.runs.iter().flat_map(|(group, count)| std::iter::repeat_n(*group, *count as usize));
    let start = all().take_while(|group| *group < range.start).count();
    let key_groups: Vec<u16> = all().skip(start).take_while(|group| *group < range.end).collect();
    if key_groups.is_empty() {
        return Ok(None);
    }
    let rows = if key_groups.len() == rows.num_rows() { rows } else { rows.slice(start, key_groups.len()) };
    let TableHead { name, version, key } = table.clone();
    Ok(Some(TableDelta { table: name, version, key, key_groups, rows }))
}

/// Where blocks begin and end: after about [`BLOCK_BYTES`] of rows, at the end of a key group where one is
/// near.
fn block_bounds(key_groups: &[u16], total_bytes: usize) -> Vec<(usize, usize)> {
    let rows = key_groups.len();
    let rows_per_block = (rows * BLOCK_BYTES / total_bytes.max(1)).clamp(1, rows);
    let mut bounds = Vec::new();
    let mut start = 0;
    while start < rows {
        let least = (start + rows_per_block).min(rows);
        let group_end = key_groups[least - 1..].partition_point(|group| *group == key_groups[least - 1]) + least - 1;
        // One key group that is larger than a block is cut.
        let end = if group_end - start > 2 * rows_per_block { least } else { group_end };
        bounds.push((start, end));
        start = end;
    }
    bounds
}

fn runs(key_groups: &[u16]) -> Vec<(u16, u32)> {
    let chunks = key_groups.chunk_by(|a, b| a == b);
    chunks.map(|chunk| (chunk[0], u32::try_from(chunk.len()).expect("a block has fewer than 2^32 rows"))).collect()
}

fn write_ipc(rows: &RecordBatch, bytes: &mut Vec<u8>) -> Result<(), arrow::error::ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(bytes, rows.schema_ref(), options)?;
    writer.write(rows)?;
    writer.finish()
}

fn read_ipc(bytes: &[u8]) -> Result<RecordBatch, String> {
    // Arrow's reader panics on some malformed messages. A matching checksum makes those all but impossible,
    // but a forged file must not take the process down.
    let read = catch_unwind(AssertUnwindSafe(|| -> Result<Vec<RecordBatch>, String> {
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|e| e.to_string())?;
        reader.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    }));
    let mut batches = read.map_err(|_| "malformed Arrow data".to_owned())??;
    match (batches.pop(), batches.is_empty()) {
        (Some(batch), true) => Ok(batch),
        _ => Err("not exactly one record batch".to_owned()),
    }
}

#[cfg(test)]
mod tests;
