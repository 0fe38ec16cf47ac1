//! What stands in the file, and the only code that touches it. Synchronous: when a change returns, it is on disk.
//!
//! Tables: `meta` (identity, vote, committed, purged, peers), `log` (an entry by its index), `snapshot` (the one snapshot:
//! its description and its bytes). Each value is JSON behind its CRC-32C (4 bytes, little endian), beside the checksums of
//! redb itself, so that a fault of either is found before it is acted on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;
use std::path::Path;

use openraft::RaftLogId;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::{FORMAT, Identity};
use crate::raft_types::{Entry, LogId, SnapshotMeta, Vote};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshot");

const IDENTITY: &str = "identity";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const PEERS: &str = "peers";
const DESCRIPTION: &str = "description";
const BYTES: &str = "bytes";

/// Bytes that the library may keep in memory.
const CACHE_BYTES: usize = 8 << 20;

/// In the library's terms; the store says it in ours.
pub(crate) type Raw<T> = Result<T, Box<redb::Error>>;

/// A snapshot as it lies on disk.
pub(crate) struct SnapshotRecord {
    /// What it covers.
    pub(crate) meta: SnapshotMeta,
    /// The state, as JSON.
    pub(crate) bytes: Vec<u8>,
}

/// The first and the last of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEnds {
    /// The last entry that was cut off the front.
    pub(crate) purged: Option<LogId>,
    /// The last entry.
    pub(crate) last: Option<LogId>,
}

/// The open file.
pub(crate) struct LogFile {
    database: Database,
}

impl LogFile {
    /// Opens or makes the file and reads it through once, so that damage is found now and not in the middle of a term.
    pub(crate) fn open(path: &Path) -> Raw<LogFile> {
        LogFile::checked(builder().create(path).map_err(raw)?)
    }

    /// The same over another medium.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn open_backend(backend: impl redb::StorageBackend) -> Raw<LogFile> {
        LogFile::checked(builder().create_with_backend(backend).map_err(raw)?)
    }

    fn checked(mut database: Database) -> Raw<LogFile> {
        if !database.check_integrity().map_err(raw)? {
            return Err(corrupted("its pages do not fit together".to_owned()));
        }
        let file = LogFile { database };
        file.change(Durability::Immediate, |change| {
            change.open_table(META).map_err(raw)?;
            change.open_table(LOG).map_err(raw)?;
            change.open_table(SNAPSHOT).map_err(raw)?;
            Ok(())
        })?;
        file.entries(.., usize::MAX)?;
        file.snapshot()?;
        Ok(file)
    }

    /// Whose file it is; one that has not begun becomes this node's.
    pub(crate) fn identity(&self, has_begun: bool, node: u64, cluster: &str) -> Raw<Identity> {
        if let Some(identity) = self.meta(IDENTITY)? {
            return Ok(identity);
        }
        if has_begun {
            return Err(corrupted("it does not say whose it is".to_owned()));
        }
        let (incarnation, founders) = (rand::random(), BTreeSet::new());
        let identity = Identity { format: FORMAT, node, cluster: cluster.to_owned(), incarnation, founders };
        self.set_identity(&identity)?;
        Ok(identity)
    }

    pub(crate) fn set_identity(&self, identity: &Identity) -> Raw<()> {
        self.set_meta(IDENTITY, identity, Durability::Immediate)
    }

    pub(crate) fn vote(&self) -> Raw<Option<Vote>> {
        self.meta(VOTE)
    }

    pub(crate) fn set_vote(&self, vote: &Vote) -> Raw<()> {
        self.set_meta(VOTE, vote, Durability::Immediate)
    }

    pub(crate) fn committed(&self) -> Raw<Option<LogId>> {
        Ok(self.meta::<Option<LogId>>(COMMITTED)?.flatten())
    }

    /// Goes to disk with the next change that does: lost, it is learnt again from the others or from the next entry.
    pub(crate) fn set_committed(&self, committed: Option<LogId>) -> Raw<()> {
        self.set_meta(COMMITTED, &committed, Durability::None)
    }

    /// Which incarnation of each other node has been met.
    pub(crate) fn peers(&self) -> Raw<BTreeMap<u64, u64>> {
        Ok(self.meta(PEERS)?.unwrap_or_default())
    }

    pub(crate) fn set_peers(&self, peers: &BTreeMap<u64, u64>) -> Raw<()> {
        self.set_meta(PEERS, peers, Durability::Immediate)
    }

    pub(crate) fn ends(&self) -> Raw<LogEnds> {
        let read = self.read()?;
        let purged: Option<LogId> = read_meta(&read, PURGED)?;
        let table = read.open_table(LOG).map_err(raw)?;
        let last = match table.last().map_err(raw)? {
            Some((index, value)) => Some(decode_entry(index.value(), value.value())?.log_id),
            None => purged,
        };
        Ok(LogEnds { purged, last })
    }

    /// Entries in the order of their indexes; ends early when they are larger than so many bytes together, but never
    /// before the first one.
    pub(crate) fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Raw<Vec<Entry>> {
        let read = self.read()?;
        let table = read.open_table(LOG).map_err(raw)?;
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        for item in table.range(range).map_err(raw)? {
            let (index, value) = item.map_err(raw)?;
            bytes = bytes.saturating_add(value.value().len());
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(decode_entry(index.value(), value.value())?);
        }
        Ok(entries)
    }

    /// Writes entries; gives their size in bytes.
    pub(crate) fn append(&self, entries: &[Entry]) -> Raw<u64> {
        let durability = Durability::Immediate;
        #[cfg(feature = "simulation")]
        let durability = if crate::simulation::forgets_syncs() { Durability::None } else { durability };
        self.change(durability, |change| {
            let mut table = change.open_table(LOG).map_err(raw)?;
            let mut bytes = 0;
            for entry in entries {
                let value = encode(entry)?;
                bytes += value.len() as u64;
                table.insert(entry.get_log_id().index, value.as_slice()).map_err(raw)?;
            }
            Ok(bytes)
        })
    }

    /// Cuts off the end, from this index on.
    pub(crate) fn truncate(&self, from: u64) -> Raw<()> {
        self.change(Durability::Immediate, |change| {
            let mut table = change.open_table(LOG).map_err(raw)?;
            table.retain_in(from.., |_, _| false).map_err(raw)
        })
    }

    /// Cuts off the front, up to and including this entry.
    pub(crate) fn purge(&self, up_to: LogId) -> Raw<()> {
        self.change(Durability::Immediate, |change| {
            let mut table = change.open_table(LOG).map_err(raw)?;
            table.retain_in(..=up_to.index, |_, _| false).map_err(raw)?;
            insert_meta(change, PURGED, &up_to)
        })
    }

    pub(crate) fn snapshot(&self) -> Raw<Option<SnapshotRecord>> {
        let read = self.read()?;
        let table = read.open_table(SNAPSHOT).map_err(raw)?;
        let Some(description) = table.get(DESCRIPTION).map_err(raw)? else { return Ok(None) };
        let Described { meta, checksum } = decode("the snapshot's description", description.value())?;
        let bytes = table.get(BYTES).map_err(raw)?.map(|value| value.value().to_vec()).unwrap_or_default();
        if crc32c::crc32c(&bytes) != checksum {
            return Err(corrupted("the checksum of the snapshot is wrong".to_owned()));
        }
        Ok(Some(SnapshotRecord { meta, bytes }))
    }

    /// Replaces the snapshot.
    pub(crate) fn set_snapshot(&self, meta: &SnapshotMeta, bytes: &[u8]) -> Raw<()> {
        let description = encode(&Described { meta: meta.clone(), checksum: crc32c::crc32c(bytes) })?;
        self.change(Durability::Immediate, |change| {
            let mut table = change.open_table(SNAPSHOT).map_err(raw)?;
            table.insert(DESCRIPTION, description.as_slice()).map_err(raw)?;
            table.insert(BYTES, bytes).map_err(raw)?;
            Ok(())
        })
    }

    fn read(&self) -> Raw<ReadTransaction> {
        self.database.begin_read().map_err(raw)
    }

    fn change<T>(&self, durability: Durability, change: impl FnOnce(&WriteTransaction) -> Raw<T>) -> Raw<T> {
        let mut transaction = self.database.begin_write().map_err(raw)?;
        transaction.set_durability(durability).map_err(raw)?;
        let value = change(&transaction)?;
        transaction.commit().map_err(raw)?;
        Ok(value)
    }

    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Raw<Option<T>> {
        read_meta(&self.read()?, name)
    }

    fn set_meta<T: Serialize>(&self, name: &'static str, value: &T, durability: Durability) -> Raw<()> {
        self.change(durability, |change| insert_meta(change, name, value))
    }
}

/// What stands beside the bytes of a snapshot.
#[derive(Serialize, Deserialize)]
struct Described {
    meta: SnapshotMeta,
    checksum: u32,
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn read_meta<T: DeserializeOwned>(read: &ReadTransaction, name: &'static str) -> Raw<Option<T>> {
    let table = read.open_table(META).map_err(raw)?;
    match table.get(name).map_err(raw)? {
        Some(value) => decode(name, value.value()).map(Some),
        None => Ok(None),
    }
}

fn insert_meta<T: Serialize>(change: &WriteTransaction, name: &'static str, value: &T) -> Raw<()> {
    let mut table = change.open_table(META).map_err(raw)?;
    table.insert(name, encode(value)?.as_slice()).map_err(raw)?;
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Raw<Vec<u8>> {
    let mut bytes = vec![0; size_of::<u32>()];
    serde_json::to_writer(&mut bytes, value).map_err(|error| raw(std::io::Error::from(error)))?;
    let checksum = crc32c::crc32c(&bytes[size_of::<u32>()..]);
    bytes[..size_of::<u32>()].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &str, value: &[u8]) -> Raw<T> {
    let body = value.split_first_chunk().and_then(|(checksum, body)| {
        let checksum = u32::from_le_bytes(*checksum);
        (crc32c::crc32c(body) == checksum).then_some(body)
    });
    let body = body.ok_or_else(|| corrupted(format!("the checksum of {what} is wrong")))?;
    serde_json::from_slice(body).map_err(|error| corrupted(format!("{what} cannot be understood: {error}")))
}

fn decode_entry(index: u64, value: &[u8]) -> Raw<Entry> {
    let entry: Entry = decode(&format!("entry {index}"), value)?;
    if entry.log_id.index == index {
        return Ok(entry);
    }
    Err(corrupted(format!("entry {} stands in the place of entry {index}", entry.log_id.index)))
}

fn raw(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

fn corrupted(reason: String) -> Box<redb::Error> {
    Box::new(redb::Error::Corrupted(reason))
}
