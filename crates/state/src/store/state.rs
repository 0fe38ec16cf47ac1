//! Writing and reading state files through the store.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use arrow::array::RecordBatch;
use bytes::Bytes;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::StateHandle;
use mainstem_rt::run_blocking;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::{CheckpointStore, full, location};
use crate::error::StateError;
use crate::state_file::{
    self, Block, Encoded, Footer, GroupedTable, HEADER, TRAILER_BYTES, TableDelta, TableHead, is_readable,
};

/// Bytes at the end of a file that are read first; most footers lie within.
const TAIL_BYTES: u64 = 64 << 10;
/// A file of so many bytes is not worth being read by pieces.
const WHOLE_BYTES: u64 = 256 << 10;
/// A file of which pieces are read is fetched whole for its copy up to so many bytes: it is in memory for a moment.
const COPIED_BYTES: u64 = 32 << 20;

/// What was read of a state file.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRead {
    /// Its rows, in the order in which they were written.
    pub tables: Vec<TableDelta>,
    /// From where.
    pub origin: Origin,
}

/// What was fetched of a state file, whose blocks are decoded one at a time.
#[derive(Debug)]
pub struct StatePiece {
    /// In the order in which they were written.
    pub blocks: Vec<StateBlock>,
    /// Bytes that were read.
    pub bytes: u64,
    /// From where.
    pub origin: Origin,
}

/// A block of a state file that was fetched, as it lies in the file.
#[derive(Debug)]
pub struct StateBlock {
    path: String,
    range: KeyGroupRange,
    fetched: Fetched,
}

impl StateBlock {
    /// Name of the operator's table of which it holds rows.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.fetched.table.name
    }

    /// Version of the table's layout, the operator's own.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.fetched.table.version
    }

    /// Number of its rows for the key groups that were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fetched.block.rows_of(self.range).len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its rows for the key groups that were asked for.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] names the file.
    pub fn decode(&self) -> Result<RecordBatch, StateError> {
        let Fetched { table, block, bytes } = &self.fetched;
        let corrupt = |reason| StateError::Corrupt { path: self.path.clone(), reason };
        let rows = state_file::verified_rows(table, block, bytes).map_err(corrupt)?;
        let wanted = block.rows_of(self.range);
        Ok(rows.slice(wanted.start, wanted.len()))
    }

    /// The same with the key group of each row; none where there are no rows.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] names the file.
    pub fn decode_grouped(&self) -> Result<Option<TableDelta>, StateError> {
        let Fetched { table, block, bytes } = &self.fetched;
        let corrupt = |reason| StateError::Corrupt { path: self.path.clone(), reason };
        state_file::decode_block(table, block, bytes, self.range).map_err(corrupt)
    }
}

/// Where a state file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On this machine.
    LocalCopy,
    /// In the store.
    Store,
}

impl CheckpointStore {
    /// Writes one state file and gives its handle. Durable on return. `part` tells several files of one
    /// subtask and epoch apart; empty where there is one. Encoding runs on the blocking pool.
    ///
    /// # Errors
    /// [`StateError::Conflict`] where the name is taken by other content: a part was used twice.
    #[expect(clippy::too_many_arguments, reason = "the name of a state file has that many parts")]
    pub async fn write_state(
        &self,
        job: &JobId,
        generation: Generation,
        epoch: Epoch,
        operator: OperatorId,
        subtask: u32,
        part: &str,
        tables: Vec<GroupedTable>,
    ) -> Result<StateHandle, StateError> {
        if !part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(StateError::Bug(format!("part '{part}' of a state file's name")));
        }
        let dash = if part.is_empty() { "" } else { "-" };
        let path = format!("state/{epoch}-g{generation}-{operator}-{subtask}{dash}{part}.state");
        let encoded = run_blocking(move || state_file::encode(&tables)).await;
        let Encoded { bytes, crc32c, key_groups } =
            encoded.map_err(|e| StateError::Bug(format!("encoding state: {e}")))??;
        let size = bytes.content_length() as u64;
        self.put_new(job, &path, bytes.clone()).await?;
        self.keep_copy(job, &path, bytes);
        Ok(StateHandle { path, size, crc32c, key_groups, epoch })
    }

    /// Reads the rows of a state file whose key groups lie in `range`, in the order in which they were written;
    /// a table may come in several pieces, each sorted by key group. Reads no more of the file than needed, and
    /// verifies the checksum of everything that it reads. Where there is a local copy, that is read instead and checked as
    /// a whole. Decoding runs on the blocking pool.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] and [`StateError::Missing`] name the file.
    pub async fn read_state(
        &self,
        job: &JobId,
        handle: &StateHandle,
        range: KeyGroupRange,
    ) -> Result<StateRead, StateError> {
        let (fetched, origin) = self.fetch(job, handle, range).await?;
        decode(job, handle, fetched, range, origin).await
    }

    /// The blocks that hold some of the key groups.
    async fn fetch(
        &self,
        job: &JobId,
        handle: &StateHandle,
        range: KeyGroupRange,
    ) -> Result<(Vec<Fetched>, Origin), StateError> {
        let groups = handle.key_groups;
        let whole = range.start <= groups.start && groups.end <= range.end;
        let copied = match self.read_copy(job, handle).await {
            // A copy that is what the handle says is as good as the file, also where that makes no sense.
            Some(bytes) => Some(blocks_of(job, handle, &bytes, range)?),
            None => None,
        };
        Ok(match copied {
            Some(fetched) => (fetched, Origin::LocalCopy),
            None if whole => (self.fetch_whole(job, handle, range).await?, Origin::Store),
            None => (self.fetch_range(job, handle, range).await?, Origin::Store),
        })
    }

    /// The same for those who come back for other key groups of the file: no more of it is read than the blocks that hold
    /// some of those of its handle, also of a local copy, unless the file is small. A file that is not very large is
    /// fetched whole where copies are kept, so that the next one finds it. Nothing is decoded yet.
    ///
    /// # Errors
    /// As [`CheckpointStore::read_state`].
    pub async fn read_state_piece(&self, job: &JobId, handle: &StateHandle) -> Result<StatePiece, StateError> {
        let range = handle.key_groups;
        let copied = if handle.size > WHOLE_BYTES { self.read_copied_blocks(job, handle).await } else { None };
        let (fetched, origin) = match copied {
            None if handle.size <= WHOLE_BYTES => self.fetch(job, handle, range).await?,
            Some(fetched) => (fetched, Origin::LocalCopy),
            None if self.copies.is_some() && handle.size <= COPIED_BYTES => {
                (self.fetch_whole(job, handle, range).await?, Origin::Store)
            }
            None => (self.fetch_range(job, handle, range).await?, Origin::Store),
        };
        let bytes = fetched.iter().map(|fetched| fetched.bytes.len() as u64).sum();
        let path = full(job, &handle.path);
        let blocks = fetched.into_iter().map(|fetched| StateBlock { path: path.clone(), range, fetched }).collect();
        Ok(StatePiece { blocks, bytes, origin })
    }

    /// Checks that a state file exists with the size and the checksum of its handle. Reads all of it, holding
    /// a piece at a time.
    pub async fn verify(&self, job: &JobId, handle: &StateHandle) -> Result<(), StateError> {
        let path = full(job, &handle.path);
        let failed = |e| self.failed("read", &self.shown(job, &handle.path), e);
        let result = self.objects.get(&location(job, &handle.path)?).await.map_err(failed)?;
        check_size(&path, handle, result.meta.size)?;
        let (_, crc) = mainstem_objects::checksum_of(result).await.map_err(failed)?;
        check_crc(&path, handle, crc)
    }

    /// Checks that a state file exists with the size of its handle, without reading it.
    pub async fn verify_size(&self, job: &JobId, handle: &StateHandle) -> Result<(), StateError> {
        let failed = |e| self.failed("read", &self.shown(job, &handle.path), e);
        let meta = self.objects.head(&location(job, &handle.path)?).await.map_err(failed)?;
        check_size(&full(job, &handle.path), handle, meta.size)
    }

    /// All bytes of a state file, verified.
    pub(crate) async fn get_checked(&self, job: &JobId, handle: &StateHandle) -> Result<Bytes, StateError> {
        let path = full(job, &handle.path);
        let bytes = self.get(job, &handle.path).await?;
        check_size(&path, handle, bytes.len() as u64)?;
        check_crc(&path, handle, crc32c::crc32c(&bytes))?;
        Ok(bytes)
    }

    /// The blocks, from one read that verifies the checksum of the whole file.
    async fn fetch_whole(
        &self,
        job: &JobId,
        handle: &StateHandle,
        range: KeyGroupRange,
    ) -> Result<Vec<Fetched>, StateError> {
        let bytes = self.get_checked(job, handle).await?;
        self.keep_copy(job, &handle.path, bytes.clone().into());
        blocks_of(job, handle, &bytes, range)
    }

    /// The blocks that hold some of the key groups, each from a read of its own.
    async fn fetch_range(
        &self,
        job: &JobId,
        handle: &StateHandle,
        range: KeyGroupRange,
    ) -> Result<Vec<Fetched>, StateError> {
        let path = full(job, &handle.path);
        let failed = |e| self.failed("read", &self.shown(job, &handle.path), e);
        let corrupt = |reason| StateError::Corrupt { path: path.clone(), reason };
        let location = location(job, &handle.path)?;
        if handle.size < TRAILER_BYTES as u64 {
            return Err(corrupt("its recorded size is too small".to_owned()));
        }
        // Not as a suffix, which not every service knows.
        let tail = handle.size - TAIL_BYTES.min(handle.size)..handle.size;
        let options = GetOptions { range: Some(GetRange::Bounded(tail)), ..GetOptions::default() };
        let result = match self.objects.get_opts(&location, options).await {
            Ok(result) => result,
            // A file that is shorter than the tail; its head tells by how much.
            Err(e) => {
                let meta = self.objects.head(&location).await.map_err(failed)?;
                check_size(&path, handle, meta.size)?;
                return Err(failed(e));
            }
        };
        check_size(&path, handle, result.meta.size)?;
        let mut tail = result.bytes().await.map_err(failed)?;
        let start = Footer::start(&tail, handle.size).map_err(corrupt)?;
        if handle.size - start > tail.len() as u64 {
            tail = self.objects.get_range(&location, start..handle.size).await.map_err(failed)?;
        }
        let footer = tail.slice(tail.len() - offset(handle.size - start)..);
        let footer = Footer::decode(&footer, start).map_err(corrupt)?;
        let wanted: Vec<_> = blocks(footer).filter(|(_, block)| block.overlaps(range)).collect();
        let ranges: Vec<_> = wanted.iter().map(|(_, b)| b.offset..b.offset + b.length).collect();
        let pieces = self.objects.get_ranges(&location, &ranges).await.map_err(failed)?;
        let fetched = wanted.into_iter().zip(pieces);
        Ok(fetched.map(|((table, block), bytes)| Fetched { table, block, bytes }).collect())
    }
}

/// A block that was read and is not verified yet.
#[derive(Debug)]
pub(super) struct Fetched {
    table: TableHead,
    block: Block,
    bytes: Bytes,
}

/// The rows of blocks whose key groups lie in the range.
async fn decode(
    job: &JobId,
    handle: &StateHandle,
    fetched: Vec<Fetched>,
    range: KeyGroupRange,
    origin: Origin,
) -> Result<StateRead, StateError> {
    let decoded = run_blocking(move || {
        let deltas = fetched.into_iter().map(|f| state_file::decode_block(&f.table, &f.block, &f.bytes, range));
        deltas.filter_map(Result::transpose).collect::<Result<Vec<_>, String>>()
    });
    let decoded = decoded.await.map_err(|e| StateError::Bug(format!("decoding state: {e}")))?;
    let tables = decoded.map_err(|reason| StateError::Corrupt { path: full(job, &handle.path), reason })?;
    Ok(StateRead { tables, origin })
}

/// The blocks of a file on this machine that hold some of the key groups of its handle, each with the checksum that the
/// file says.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn blocks_in_file(path: &Path, handle: &StateHandle) -> Result<Vec<Fetched>, String> {
    let failed = |error: io::Error| error.to_string();
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size != handle.size {
        return Err(format!("it has {size} bytes instead of {}", handle.size));
    }
    let mut read = |from: u64, to: u64| {
        let mut bytes = vec![0; offset(to - from)];
        file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut bytes)).map_err(failed)?;
        Ok::<_, String>(Bytes::from(bytes))
    };
    let header = read(0, HEADER.len() as u64)?;
    if !is_readable(&header, HEADER) {
        return Err("it does not begin as a state file of this version does".to_owned());
    }
    let start = Footer::start(&read(size - TAIL_BYTES.min(size), size)?, size)?;
    let end = read(start, size)?;
    let footer = Footer::decode(&end, start)?;
    // The checksum of the whole file, of which not all is read: it may be another file of the same name and size.
    let all = footer.tables.iter().flat_map(|table| &table.blocks);
    let crc = all.fold(crc32c::crc32c(&header), |crc, b| crc32c::crc32c_combine(crc, b.crc32c, offset(b.length)));
    let crc = crc32c::crc32c_combine(crc, crc32c::crc32c(&end), end.len());
    if crc != handle.crc32c {
        return Err(format!("its checksum is {crc:08x} instead of {:08x}", handle.crc32c));
    }
    let mut fetched = Vec::new();
    for (table, block) in blocks(footer).filter(|(_, block)| block.overlaps(handle.key_groups)) {
        let bytes = read(block.offset, block.offset + block.length)?;
        if crc32c::crc32c(&bytes) != block.crc32c {
            return Err(format!("wrong checksum of {} bytes at offset {}", block.length, block.offset));
        }
        fetched.push(Fetched { table, block, bytes });
    }
    Ok(fetched)
}

/// The blocks of a whole file, whose checksum was verified, that hold some of the key groups.
fn blocks_of(
    job: &JobId,
    handle: &StateHandle,
    bytes: &Bytes,
    range: KeyGroupRange,
) -> Result<Vec<Fetched>, StateError> {
    let blocks = split(handle.size, bytes, range);
    blocks.map_err(|reason| StateError::Corrupt { path: full(job, &handle.path), reason })
}

fn split(size: u64, bytes: &Bytes, range: KeyGroupRange) -> Result<Vec<Fetched>, String> {
    if !is_readable(bytes, HEADER) {
        return Err("it does not begin as a state file of this version does".to_owned());
    }
    let start = Footer::start(bytes, size)?;
    let footer = Footer::decode(&bytes[offset(start)..], start)?;
    // In bounds: the footer was checked against the size.
    let slice = |block: &Block| bytes.slice(offset(block.offset)..offset(block.offset + block.length));
    let wanted = blocks(footer).filter(|(_, block)| block.overlaps(range));
    Ok(wanted.map(|(table, block)| Fetched { bytes: slice(&block), table, block }).collect())
}

/// Rows of a block, with their share of the file's bytes.
pub(crate) struct Piece {
    pub(crate) rows: TableDelta,
    pub(crate) bytes: u64,
}

impl CheckpointStore {
    /// As [`CheckpointStore::read_state`], a block at a time and never from a copy: for looking at it.
    pub(crate) async fn read_pieces(
        &self,
        job: &JobId,
        handle: &StateHandle,
        range: KeyGroupRange,
    ) -> Result<Vec<Piece>, StateError> {
        let whole = range.start <= handle.key_groups.start && handle.key_groups.end <= range.end;
        let fetched = match whole {
            true => blocks_of(job, handle, &self.get_checked(job, handle).await?, range)?,
            false => self.fetch_range(job, handle, range).await?,
        };
        pieces(fetched, range).map_err(|reason| StateError::Corrupt { path: full(job, &handle.path), reason })
    }
}

/// The same of the bytes of a file, whose size and checksum were verified.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn pieces_of(bytes: &Bytes, range: KeyGroupRange) -> Result<Vec<Piece>, String> {
    pieces(split(bytes.len() as u64, bytes, range)?, range)
}

fn pieces(fetched: Vec<Fetched>, range: KeyGroupRange) -> Result<Vec<Piece>, String> {
    let piece = |fetched: Fetched| {
        let decoded = state_file::decode_block(&fetched.table, &fetched.block, &fetched.bytes, range)?;
        let share = |rows: &TableDelta| {
            let part = u128::from(fetched.block.length) * rows.rows.num_rows() as u128;
            u64::try_from(part / u128::from(fetched.block.rows().max(1))).unwrap_or(u64::MAX)
        };
        Ok(decoded.map(|rows| Piece { bytes: share(&rows), rows }))
    };
    fetched.into_iter().map(piece).filter_map(Result::transpose).collect()
}

fn blocks(footer: Footer) -> impl Iterator<Item = (TableHead, Block)> {
    footer.tables.into_iter().flat_map(|t| t.blocks.into_iter().map(move |b| (t.head.clone(), b)))
}

fn check_size(path: &str, handle: &StateHandle, size: u64) -> Result<(), StateError> {
    if size == handle.size {
        return Ok(());
    }
    let word = if size < handle.size { "truncated" } else { "too long" };
    let reason = format!("{word}: it has {size} bytes and was written with {}", handle.size);
    Err(StateError::Corrupt { path: path.to_owned(), reason })
}

fn check_crc(path: &str, handle: &StateHandle, crc: u32) -> Result<(), StateError> {
    if crc == handle.crc32c {
        return Ok(());
    }
    let reason = format!("its checksum is {crc:08x} and was {:08x} when it was written", handle.crc32c);
    Err(StateError::Corrupt { path: path.to_owned(), reason })
}

fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).expect("within a buffer in memory")
}
