//! Local copies of state files: a cache on a disk of the worker, of what it has uploaded and of what it has fetched. A
//! restore reads a file here where it can. Nothing relies on a copy: each is checked against size and checksum of the
//! file's handle whenever it is read, and one that does not fit is removed and the store read instead. So copies are not
//! synced, and whatever a crash leaves of them is found out.
//!
//! A copy is written from the bytes that are uploaded anyway, by one task at a time beside everything else; where that does
//! not keep up, copies are dropped, and counted.

mod fetch;
mod index;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mainstem_core::ids::JobId;
use mainstem_core::protocol::StateHandle;
use mainstem_rt::run_blocking;
use object_store::PutPayload;
use tokio::time::Instant;

pub use self::fetch::Copying;
use self::index::Index;
use super::CheckpointStore;
use super::state::{Fetched, blocks_in_file};
use crate::error::StateError;

/// Bytes that may wait to be written; a single larger file may wait alone.
const WAITING_BYTES_MAX: u64 = 64 << 20;
/// Files that may wait to be written.
const WAITING_FILES_MAX: usize = 256;
/// How often the store is asked which of its files are gone, so that their copies go too.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What is being written has this behind its name.
const PART: &str = ".part";
/// Held by the process to which the directory belongs.
const LOCK: &str = "lock";
/// Where state files lie, relative to the job's directory in the store.
const STATE: &str = "state/";

/// Copies in one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalCopies {
    shared: Arc<Shared>,
}

/// What became of copies since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// Written.
    pub written: u64,
    /// Not written: too many waited, the file was too large, or the disk refused it.
    pub dropped: u64,
    /// Removed because they were not what their handle says.
    pub damaged: u64,
    /// Removed for others at the bound.
    pub evicted: u64,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    inner: Mutex<Inner>,
    written: AtomicU64,
    dropped: AtomicU64,
    damaged: AtomicU64,
    evicted: AtomicU64,
    // Held for its lock only.
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    waiting: VecDeque<(String, PutPayload)>,
    waiting_bytes: u64,
    /// Whether somebody writes what waits.
    writing: bool,
    /// Whether the last copy was dropped, which is said once in a row.
    dropping: bool,
    swept_at: Option<Instant>,
}

impl LocalCopies {
    /// Opens a directory, which is created, for at most so many bytes. What another process has left there is used again,
    /// as far as it fits. None where another process uses the directory.
    ///
    /// # Errors
    /// Where the directory cannot be read or written.
    pub fn open(directory: &Path, bytes_max: u64) -> Result<Option<LocalCopies>, StateError> {
        let failed = |action, source| StateError::Io { action, path: directory.display().to_string(), source };
        fs::create_dir_all(directory).map_err(|e| failed("create the directory of local copies", e))?;
        let path = directory.join(LOCK);
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let lock = lock.map_err(|e| failed("write to the directory of local copies", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(failed("lock the directory of local copies", e)),
        }
        let mut index = Index::new(bytes_max);
        let mut evicted = Vec::new();
        for (name, bytes) in found(directory).map_err(|e| failed("read the directory of local copies", e))? {
            evicted.extend(index.insert(&name, bytes));
        }
        let inner = Inner {
            index,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            writing: false,
            dropping: false,
            swept_at: None,
        };
        let shared = Shared {
            directory: directory.to_owned(),
            inner: Mutex::new(inner),
            written: AtomicU64::default(),
            dropped: AtomicU64::default(),
            damaged: AtomicU64::default(),
            evicted: AtomicU64::new(evicted.len() as u64),
            _lock: lock,
        };
        shared.delete(&evicted);
        Ok(Some(LocalCopies { shared: Arc::new(shared) }))
    }

    /// What became of copies so far.
    #[must_use]
    pub fn counts(&self) -> CopyCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { written, dropped, damaged, evicted, .. } = self.shared.as_ref();
        CopyCounts { written: read(written), dropped: read(dropped), damaged: read(damaged), evicted: read(evicted) }
    }

    /// Bytes of all copies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.lock().index.bytes()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a copy wait to be written. True where nobody writes: then it is the caller's part to see to it.
    fn offer(&self, name: String, bytes: PutPayload) -> bool {
        let mut inner = self.lock();
        let size = bytes.content_length() as u64;
        let is_full = inner.waiting.len() >= WAITING_FILES_MAX
            || inner.waiting_bytes > 0 && inner.waiting_bytes + size > WAITING_BYTES_MAX;
        if is_full || inner.index.is_too_large(size) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut inner.dropping, true) {
                let reason =
                    if is_full { "the disk of the copies is too slow" } else { "it is larger than all may be" };
                tracing::warn!(name, reason, "no local copy of a state file is kept; a restore reads the store");
            }
            return false;
        }
        inner.waiting_bytes += size;
        inner.waiting.push_back((name, bytes));
        !std::mem::replace(&mut inner.writing, true)
    }

    /// Writes what waits until nothing does. Blocks.
    fn write_all(&self) {
        loop {
            let (name, bytes) = {
                let mut inner = self.lock();
                let Some(next) = inner.waiting.pop_front() else {
                    inner.writing = false;
                    return;
                };
                next
            };
            let written = self.write(&name, &bytes);
            let mut inner = self.lock();
            let size = bytes.content_length() as u64;
            inner.waiting_bytes -= size;
            match written {
                Ok(()) => {
                    inner.dropping = false;
                    let evicted = inner.index.insert(&name, size);
                    drop(inner);
                    self.written.fetch_add(1, Ordering::Relaxed);
                    self.evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
                    self.delete(&evicted);
                }
                Err(error) => {
                    let is_news = !std::mem::replace(&mut inner.dropping, true);
                    drop(inner);
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    if is_news {
                        let path = self.directory.join(&name).display().to_string();
                        tracing::warn!(path, %error, "cannot write a local copy of a state file; a restore reads the store");
                    }
                }
            }
        }
    }

    /// A copy has its name only when it is whole, unless the machine loses its power.
    fn write(&self, name: &str, bytes: &PutPayload) -> io::Result<()> {
        let path = self.directory.join(name);
        let part = self.directory.join(format!("{name}{PART}"));
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = File::create(&part)?;
            bytes.iter().try_for_each(|piece| file.write_all(piece))?;
            fs::rename(&part, &path)
        };
        write().inspect_err(|_| {
            // What cannot be removed is removed at the next start.
            let _ = fs::remove_file(&part);
        })
    }

    /// The bytes of a copy that is what the handle says. Blocks.
    fn read(&self, name: &str, handle: &StateHandle) -> Option<Bytes> {
        self.read_with(name, |path| {
            // A copy that has grown is not read whatever its size.
            let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
            if size != handle.size {
                return Err(format!("it has {size} bytes instead of {}", handle.size));
            }
            let bytes = fs::read(path).map_err(|error| error.to_string())?;
            let crc = crc32c::crc32c(&bytes);
            if bytes.len() as u64 != handle.size || crc != handle.crc32c {
                return Err(format!("its checksum is {crc:08x} instead of {:08x}", handle.crc32c));
            }
            Ok(Bytes::from(bytes))
        })
    }

    /// What is read of a copy; one that cannot be used is removed. Blocks.
    fn read_with<T>(&self, name: &str, read: impl FnOnce(&Path) -> Result<T, String>) -> Option<T> {
        if !self.lock().index.touch(name) {
            return None;
        }
        let path = self.directory.join(name);
        match read(&path) {
            Ok(read) => Some(read),
            Err(reason) => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    path = path.display().to_string(),
                    reason,
                    "a local copy of a state file cannot be used and is removed; the store is read"
                );
                self.forget(&[name.to_owned()]);
                None
            }
        }
    }

    /// Removes copies.
    fn forget(&self, names: &[String]) {
        let mut inner = self.lock();
        let Inner { waiting, waiting_bytes, .. } = &mut *inner;
        waiting.retain(|(name, bytes)| {
            let stays = !names.contains(name);
            *waiting_bytes -= if stays { 0 } else { bytes.content_length() as u64 };
            stays
        });
        names.iter().for_each(|name| _ = inner.index.remove(name));
        drop(inner);
        self.delete(names);
    }

    /// Deletes files that the index does not know any more.
    fn delete(&self, names: &[String]) {
        for name in names {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It counts again at the next start.
                Err(error) => {
                    tracing::warn!(path = path.display().to_string(), %error, "cannot remove a local copy of a state file");
                }
            }
        }
    }
}

/// The copies in a directory, least recently written first. What was half written is removed.
fn found(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for store in entries(directory)? {
        for job in entries(&store)? {
            for path in entries(&job)? {
                if path.to_string_lossy().ends_with(PART) {
                    // What cannot be removed is tried again at the next start.
                    let _ = fs::remove_file(&path);
                    continue;
                }
                let meta = fs::symlink_metadata(&path)?;
                let name = path.strip_prefix(directory).ok().and_then(Path::to_str);
                if let Some(name) = name.filter(|_| meta.is_file()) {
                    found.push((meta.modified()?, name.to_owned(), meta.len()));
                }
            }
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}

/// What lies in a directory; nothing where it is none.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::symlink_metadata(directory)?.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

impl CheckpointStore {
    /// The store with local copies of its state files.
    #[must_use]
    pub fn with_copies(self, copies: Option<LocalCopies>) -> CheckpointStore {
        CheckpointStore { copies, ..self }
    }

    /// Keeps a copy of a state file that is in the store. Never waits for it.
    pub(super) fn keep_copy(&self, job: &JobId, path: &str, bytes: PutPayload) {
        let Some((copies, name)) = self.copy_of(job, path) else { return };
        if !copies.shared.offer(name, bytes) {
            return;
        }
        let (store, job, shared) = (self.clone(), job.clone(), copies.shared.clone());
        tokio::spawn(async move {
            // It fails only where the process ends.
            if run_blocking(move || shared.write_all()).await.is_ok() {
                store.sweep(Some(&job)).await;
            }
        });
    }

    /// The bytes of a state file from its local copy, where there is one that is whole.
    pub(super) async fn read_copy(&self, job: &JobId, handle: &StateHandle) -> Option<Bytes> {
        let (copies, name) = self.copy_of(job, &handle.path)?;
        let (shared, handle) = (copies.shared.clone(), handle.clone());
        run_blocking(move || shared.read(&name, &handle)).await.ok().flatten()
    }

    /// The blocks of a state file that hold some of the key groups of its handle, from its local copy, where there is one.
    pub(super) async fn read_copied_blocks(&self, job: &JobId, handle: &StateHandle) -> Option<Vec<Fetched>> {
        let (copies, name) = self.copy_of(job, &handle.path)?;
        let (shared, handle) = (copies.shared.clone(), handle.clone());
        let read = run_blocking(move || shared.read_with(&name, |path| blocks_in_file(path, &handle)));
        read.await.ok().flatten()
    }

    /// The file is gone, and with it its copy.
    pub(super) async fn forget_copy(&self, job: &JobId, path: &str) {
        let Some((copies, name)) = self.copy_of(job, path) else { return };
        let shared = copies.shared.clone();
        // It fails only where the process ends.
        let _ = run_blocking(move || shared.forget(&[name])).await;
    }

    /// Removes the copies of files that are not in the store any more: who deletes them is another process. A file that
    /// the listing misses loses its copy, no more. Other jobs that have copies here are looked at in their turn.
    async fn sweep(&self, written: Option<&JobId>) {
        let Some(copies) = &self.copies else { return };
        let jobs = {
            let mut inner = copies.shared.lock();
            if inner.swept_at.is_some_and(|at| at.elapsed() < SWEEP_EVERY) {
                return;
            }
            inner.swept_at = Some(Instant::now());
            let prefix = format!("{}/", self.tag());
            let job = |name: &str| JobId::new(name.strip_prefix(&prefix)?.split_once('/')?.0).ok();
            let mut jobs: BTreeSet<JobId> = inner.index.names(&prefix).filter_map(job).collect();
            jobs.extend(written.cloned());
            jobs
        };
        for job in jobs {
            // Before the listing: what is written meanwhile is not in it.
            let prefix = format!("{}/{job}/", self.tag());
            let known: Vec<String> = copies.shared.lock().index.names(&prefix).map(str::to_owned).collect();
            let there: BTreeSet<String> = match self.list(&job, STATE.trim_end_matches('/')).await {
                Ok(paths) => paths.into_iter().collect(),
                Err(error) => {
                    tracing::debug!(%job, %error, "cannot tell which local copies of state files are out of use");
                    continue;
                }
            };
            let is_gone = |name: &String| !there.contains(&format!("{STATE}{}", &name[prefix.len()..]));
            let gone: Vec<String> = known.into_iter().filter(is_gone).collect();
            let shared = copies.shared.clone();
            // It fails only where the process ends.
            let _ = run_blocking(move || shared.forget(&gone)).await;
        }
    }

    /// Where the copy of an object lies, if one may: only of state files, whose names say of which attempt they are.
    fn copy_of(&self, job: &JobId, path: &str) -> Option<(&LocalCopies, String)> {
        let copies = self.copies.as_ref()?;
        let name = path.strip_prefix(STATE)?;
        // Paths come from manifests.
        let is_plain = name.ends_with(".state") && !name.starts_with('.') && !name.contains('/');
        is_plain.then(|| (copies, format!("{}/{job}/{name}", self.tag())))
    }

    /// Tells the copies of several stores apart.
    fn tag(&self) -> String {
        format!("{:08x}", crc32c::crc32c(self.objects.to_string().as_bytes()))
    }
}

#[cfg(test)]
mod tests;
