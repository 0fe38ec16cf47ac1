//! The metadata log in one local file. Format: docs/formats/metadata-log.md. A record is acknowledged only
//! after fsync. A failed write or fsync closes the log for good: whether the bytes are on the disk is unknown
//! then, and a second fsync that succeeds proves nothing.

mod frame;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use self::frame::{HEADER, Scan};
use super::{JobRecord, MetaLog, MetaLogError, Record};

/// A log above this size is rewritten as one snapshot, unless that snapshot itself is nearly as large.
const COMPACT_ABOVE_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct LocalMetaLog {
    path: PathBuf,
    /// Absent while a write runs, and for ever after one has failed.
    file: Option<File>,
    bytes: u64,
    compact_above: u64,
    state: JobRecord,
}

impl LocalMetaLog {
    /// Opens the log, or creates it. An incomplete record at its end was never acknowledged: it is cut off.
    ///
    /// # Errors
    /// [`MetaLogError::Corrupt`] for anything else that does not read as it was written.
    pub fn open(path: &Path) -> Result<LocalMetaLog, MetaLogError> {
        LocalMetaLog::open_compacting_above(path, COMPACT_ABOVE_BYTES)
    }

    /// What the records of a log add up to, which may be written to at this moment; none where there is no log. Writes
    /// nothing.
    ///
    /// # Errors
    /// As [`LocalMetaLog::open`].
    pub(crate) fn look(path: &Path) -> Result<Option<JobRecord>, MetaLogError> {
        match std::fs::read(path) {
            Ok(content) => replay(path, &content).map(|(state, _)| Some(state)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(path, "read", error)),
        }
    }

    fn open_compacting_above(path: &Path, compact_above: u64) -> Result<LocalMetaLog, MetaLogError> {
        let failed = |action, source| io_error(path, action, source);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(|e| failed("open", e))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|e| failed("read", e))?;
        let (state, end) = replay(path, &content)?;
        if end < content.len() {
            let lost_bytes = content.len() - end;
            tracing::warn!(path = %path.display(), lost_bytes, "incomplete record at the end of the metadata log cut off");
        }
        let mut log = LocalMetaLog { path: path.to_owned(), file: None, bytes: end as u64, compact_above, state };
        let prepared = prepare(&mut file, end);
        log.bytes =
            prepared.and_then(|bytes| sync_directory(path).map(|()| bytes)).map_err(|e| failed("prepare", e))?;
        log.file = Some(file);
        Ok(log)
    }

    /// Writes the state as the first record of a new file and puts that in the place of the old one.
    fn compact(path: &Path, snapshot: &[u8]) -> std::io::Result<File> {
        let staged = path.with_extension("new");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&staged)?;
        file.write_all(&HEADER)?;
        file.write_all(snapshot)?;
        file.sync_all()?;
        std::fs::rename(&staged, path)?;
        sync_directory(path)?;
        Ok(file)
    }

    async fn compact_if_large(&mut self) -> Result<(), MetaLogError> {
        if self.bytes <= self.compact_above {
            return Ok(());
        }
        let json = encode(&Record::Snapshot(Box::new(self.state.clone())))?;
        let frame = frame::encode(&json).map_err(MetaLogError::Refused)?;
        let bytes = (HEADER.len() + frame.len()) as u64;
        // Where most of the file is state that is still needed, rewriting it each time would not end.
        if bytes > self.bytes / 2 {
            self.compact_above = bytes.saturating_mul(2).max(self.compact_above);
            return Ok(());
        }
        // The old file is given up first: if the exchange fails midway it is unknown which of the two stands.
        self.file = None;
        let path = self.path.clone();
        let compacted = tokio::task::spawn_blocking(move || LocalMetaLog::compact(&path, &frame)).await;
        let compacted = compacted.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        self.file = Some(compacted.map_err(|e| io_error(&self.path, "compact", e))?);
        self.bytes = bytes;
        Ok(())
    }
}

#[async_trait]
impl MetaLog for LocalMetaLog {
    fn state(&self) -> &JobRecord {
        &self.state
    }

    async fn append(&mut self, record: Record) -> Result<(), MetaLogError> {
        self.state.check(&record).map_err(MetaLogError::Refused)?;
        let frame = frame::encode(&encode(&record)?).map_err(MetaLogError::Refused)?;
        let length = frame.len() as u64;
        let closed = || MetaLogError::Closed { path: self.path.display().to_string() };
        let mut file = self.file.take().ok_or_else(closed)?;
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&frame)?;
            file.sync_data()?;
            Ok(file)
        });
        let written = written.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        self.file = Some(written.map_err(|e| io_error(&self.path, "write", e))?);
        self.bytes += length;
        self.state.apply(record);
        self.compact_if_large().await
    }
}

/// What the bytes of a log add up to, and how many of them count.
fn replay(path: &Path, content: &[u8]) -> Result<(JobRecord, usize), MetaLogError> {
    let mut state = JobRecord::default();
    let Scan { records, end } = frame::scan(content).map_err(|(offset, reason)| corrupt(path, offset, reason))?;
    for (offset, json) in records {
        let record: Record =
            serde_json::from_slice(json).map_err(|e| corrupt(path, offset, format!("unreadable record: {e}")))?;
        state.check(&record).map_err(|reason| corrupt(path, offset, reason))?;
        state.apply(record);
    }
    Ok((state, end))
}

/// Cuts the file to its good part, writes the header of a new file, and leaves the position at the end. Gives
/// the size.
fn prepare(file: &mut File, end: usize) -> std::io::Result<u64> {
    file.set_len(end as u64)?;
    file.seek(SeekFrom::Start(end as u64))?;
    if end == 0 {
        file.write_all(&HEADER)?;
    }
    file.sync_all()?;
    file.stream_position()
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

fn encode(record: &Record) -> Result<Vec<u8>, MetaLogError> {
    serde_json::to_vec(record).map_err(|e| MetaLogError::Refused(format!("a record cannot be encoded: {e}")))
}

fn io_error(path: &Path, action: &'static str, source: std::io::Error) -> MetaLogError {
    MetaLogError::Io { action, path: path.display().to_string(), source }
}

fn corrupt(path: &Path, offset: usize, reason: String) -> MetaLogError {
    MetaLogError::Corrupt { path: path.display().to_string(), offset: offset as u64, reason }
}

#[cfg(test)]
mod tests;
