//! The node's file, behind a thread of its own: openraft's tasks wait for the disk without holding up each other's timers.
//! The first failed write is the last: what would follow it could be acknowledged on top of something lost.

mod file;
mod identity;
mod log_store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

#[cfg(test)]
pub(crate) use file::LogEnds;
pub(crate) use file::{LogFile, Raw, SnapshotRecord};
pub(crate) use identity::Identity;

use crate::error::{ConsensusError, StoreError};

/// Jobs for the disk that may wait.
const JOBS_MAX: usize = 64;
/// The file in a node's directory.
const FILE_NAME: &str = "consensus.redb";

/// Work on the file; nothing, to close it.
type Job = Option<Box<dyn FnOnce(&LogFile) + Send>>;

/// The node's file. Cheap to clone; the file is closed with the last clone.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    failed: OnceLock<StoreError>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The last entry known to be decided, plus one; 0 for none.
    committed_end: AtomicU64,
    /// Bytes of entries written since the log was last cut.
    log_bytes: AtomicU64,
}

impl Shared {
    fn new(path: PathBuf, thread: Option<JoinHandle<()>>) -> Shared {
        Shared {
            path,
            failed: OnceLock::new(),
            thread: Mutex::new(thread),
            committed_end: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
        }
    }
}

impl Store {
    /// Opens the file of this directory, or makes it for this node. Blocks.
    ///
    /// # Errors
    /// A directory of another node, a file that is damaged, missing or in use, or the system's refusal.
    pub(crate) fn open(directory: &Path, node: u64, cluster: &str) -> Result<(Store, Identity), ConsensusError> {
        let path = directory.join(FILE_NAME);
        let has_begun = identity::prepare_directory(directory, &path, node, cluster)?;
        let file = guarded(&path, || LogFile::open(&path))?;
        let identity = guarded(&path, || file.identity(has_begun, node, cluster))?;
        identity.check(node, cluster, directory)?;
        identity::mark_directory(directory, node, cluster)?;
        Ok((Store::over(file, path)?, identity))
    }

    /// A store over an open file.
    pub(crate) fn over(file: LogFile, path: PathBuf) -> Result<Store, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("consensus-disk".to_owned())
            .spawn(move || {
                while let Some(Some(job)) = queue.blocking_recv() {
                    job(&file);
                }
            })
            .map_err(|error| io_error("start a thread for", &path, &error))?;
        Ok(Store { jobs, shared: Arc::new(Shared::new(path, Some(thread))) })
    }

    /// The same on a simulated disk, in a task of this runtime: there are no threads in a simulation.
    #[cfg(feature = "simulation")]
    pub(crate) fn simulated(
        disk: crate::disk::Disk,
        node: u64,
        cluster: &str,
    ) -> Result<(Store, Identity), ConsensusError> {
        let path = PathBuf::from(format!("disk of node {node}"));
        let has_begun = !disk.is_empty();
        let file = guarded(&path, || LogFile::open_backend(disk.clone()))?;
        let identity = guarded(&path, || file.identity(has_begun, node, cluster))?;
        identity.check(node, cluster, &path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS_MAX);
        tokio::spawn(async move {
            while let Some(Some(job)) = queue.recv().await {
                tokio::time::sleep(disk.latency()).await;
                job(&file);
            }
        });
        Ok((Store { jobs, shared: Arc::new(Shared::new(path, None)) }, identity))
    }

    /// Does something with the file, after everything that was asked before. Runs to its end also when the caller does not
    /// wait for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogFile) -> Raw<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let (reply, answer) = oneshot::channel();
        let job: Job = Some(Box::new(move |file| {
            let outcome = match shared.failed.get() {
                Some(failed) => Err(failed.clone()),
                None => guarded(&shared.path, || work(file)),
            };
            if let Err(error) = &outcome {
                let _ = shared.failed.set(error.clone());
            }
            // Nobody waits any more where the node is stopping.
            let _ = reply.send(outcome);
        }));
        let closed = || StoreError::Io {
            action: "use",
            path: self.shared.path.display().to_string(),
            reason: "it is closed".to_owned(),
        };
        self.jobs.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// The last entry known to be decided.
    pub(crate) fn committed(&self) -> Option<u64> {
        self.shared.committed_end.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Bytes of entries written since the log was last cut.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.shared.log_bytes.load(Ordering::Relaxed)
    }

    /// Ends the thread and closes the file, after what was asked before, however many clones there are. Waits at most this
    /// long.
    pub(crate) async fn close(&self, time_max: Duration) {
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let closing = async {
            let _ = self.jobs.send(None).await;
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        };
        if tokio::time::timeout(time_max, closing).await.is_err() {
            tracing::warn!(path = %self.shared.path.display(), "the file is not closed yet; the disk hangs");
        }
    }
}

/// Work on the file, with its errors in our words. The library may panic over a damaged file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Raw<T>) -> Result<T, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { path: path.display().to_string(), reason };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match *error {
            redb::Error::Corrupted(reason) => damaged(reason),
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.display().to_string() },
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => damaged(error.to_string()),
            other => StoreError::Io { action: "use", path: path.display().to_string(), reason: other.to_string() },
        }),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read");
            Err(damaged(said.to_owned()))
        }
    }
}

fn io_error(action: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io { action, path: path.display().to_string(), reason: error.to_string() }
}
