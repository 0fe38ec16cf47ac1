//! The format of state files, byte by byte in docs/formats/state-file.md: encoding and decoding of bytes in
//! memory, no I/O. Called by the store. Never hands out a row whose block fails its checksum, and never panics
//! on bytes from outside.

mod footer;
mod narrow;
mod table;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;
use mainstem_core::key_group::KeyGroupRange;
use object_store::PutPayload;

pub(crate) use self::footer::{Block, Footer, TRAILER_BYTES, TableHead};
use self::footer::{Table, encode_footer};
pub use self::table::GroupedTable;
use crate::error::StateError;

/// First bytes of every state file that is written: a name and the version of the format.
pub(crate) const HEADER: [u8; 8] = *b"MSSTATE\x02";
/// The oldest version that is read. In it columns have their own types; the fields of a block say it where they do not.
const VERSION_MIN: u8 = 1;

/// Whether a file, or the end of one, begins as a version does that is read; `current` is how the written one begins.
pub(crate) fn is_readable(bytes: &[u8], current: [u8; 8]) -> bool {
    let version = bytes.strip_prefix(&current[..7]).and_then(<[u8]>::first);
    version.is_some_and(|version| (VERSION_MIN..=current[7]).contains(version))
}

/// A block is closed when it holds about so many bytes before compression. Small enough that a rescale reads
/// little beyond its key groups, large enough that compression works.
const BLOCK_BYTES: usize = 4 << 20;

/// Rows of one table of an operator's state that were added or changed in an epoch, as they are read back.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDelta {
    /// Name of the table, the operator's own.
    pub table: String,
    /// Version of the table's layout, the operator's own.
    pub version: u32,
    /// See [`GroupedTable::key`].
    pub key: Vec<usize>,
    /// Key group of each row, ascending.
    pub key_groups: Vec<u16>,
    /// The rows.
    pub rows: RecordBatch,
}

/// A state file that is to be written.
pub(crate) struct Encoded {
    /// Its bytes, a block in one piece.
    pub(crate) bytes: PutPayload,
    pub(crate) crc32c: u32,
    pub(crate) key_groups: KeyGroupRange,
}

/// Encodes tables, a block at a time: beside the rows and the bytes no more than a block is in memory. Tables without rows
/// are left out.
///
/// # Errors
/// [`StateError::Bug`] where key groups are not ascending or not one a row, or Arrow refuses the rows.
pub(crate) fn encode(tables: &[GroupedTable]) -> Result<Encoded, StateError> {
    let mut file = Pieces::default();
    file.push(&HEADER);
    let mut footer = Footer::default();
    let mut block = Vec::new();
    for rows in tables.iter().filter(|table| !table.is_empty()) {
        let failed = |e: String| StateError::Bug(format!("state table '{}' cannot be encoded: {e}", rows.table));
        rows.check().map_err(failed)?;
        let head = TableHead { name: rows.table.clone(), version: rows.version, key: rows.key.clone() };
        let mut table = Table { head, blocks: Vec::new() };
        for (start, end) in block_bounds(&rows.key_groups, rows.bytes()) {
            block.clear();
            rows.rows(start..end).and_then(|rows| write_ipc(&rows, &mut block)).map_err(|e| failed(e.to_string()))?;
            let runs = runs(&rows.key_groups[start..end]);
            let (offset, length) = (file.length, block.len() as u64);
            table.blocks.push(Block { offset, length, crc32c: file.push(&block), runs });
        }
        footer.tables.push(table);
    }
    let mut end = Vec::new();
    encode_footer(&footer, &mut end)?;
    file.push(&end);
    Ok(Encoded { bytes: file.pieces.into_iter().collect(), crc32c: file.crc32c, key_groups: footer.key_groups() })
}

/// What is there of a file so far.
#[derive(Default)]
struct Pieces {
    pieces: Vec<Bytes>,
    length: u64,
    crc32c: u32,
}

impl Pieces {
    /// Adds a piece and gives its checksum.
    fn push(&mut self, piece: &[u8]) -> u32 {
        let crc = crc32c::crc32c(piece);
        self.crc32c = crc32c::crc32c_combine(self.crc32c, crc, piece.len());
        self.length += piece.len() as u64;
        self.pieces.push(Bytes::copy_from_slice(piece));
        crc
    }
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
    let rows = verified_rows(table, block, bytes)?;
    let wanted = block.rows_of(range);
    if wanted.is_empty() {
        return Ok(None);
    }
    let rows = rows.slice(wanted.start, wanted.len());
    let runs = block.runs.iter().filter(|(group, _)| (range.start..range.end).contains(group));
    let key_groups = runs.flat_map(|(group, count)| std::iter::repeat_n(*group, *count as usize)).collect();
    let TableHead { name, version, key } = table.clone();
    Ok(Some(TableDelta { table: name, version, key, key_groups, rows }))
}

/// All rows of a block, as many as the footer says.
///
/// # Errors
/// As [`decode_block`].
pub(crate) fn verified_rows(table: &TableHead, block: &Block, bytes: &[u8]) -> Result<RecordBatch, String> {
    let name = &table.name;
    if bytes.len() as u64 != block.length || crc32c::crc32c(bytes) != block.crc32c {
        return Err(format!("wrong checksum of {} bytes at offset {} (table '{name}')", block.length, block.offset));
    }
    let rows = read_ipc(bytes).map_err(|e| format!("block at offset {} (table '{name}'): {e}", block.offset))?;
    if rows.num_rows() as u64 != block.rows() {
        let message = format!("block at offset {} (table '{name}') has {} rows", block.offset, rows.num_rows());
        return Err(format!("{message}, its footer says {}", block.rows()));
    }
    Ok(rows)
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

fn write_ipc(rows: &RecordBatch, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let rows = narrow::narrow(rows)?;
    let mut writer = StreamWriter::try_new_with_options(bytes, rows.schema_ref(), options)?;
    writer.write(&rows)?;
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
        (Some(batch), true) => narrow::widen(&batch).map_err(|e| e.to_string()),
        _ => Err("not exactly one record batch".to_owned()),
    }
}

#[cfg(test)]
mod tests;
