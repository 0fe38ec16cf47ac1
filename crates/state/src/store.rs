//! The checkpoint store: objects of a job, written once and read with their checksums verified. Called by the
//! engine (state files) and by the coordinator (manifests, deletion). Never overwrites an object, and never
//! relies on a listing for anything but cleaning up.

mod copies;
mod mark;
mod orphans;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use mainstem_core::ids::JobId;
use mainstem_objects::{CreateError, Objects, Place, is_content};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

pub use self::copies::{CopyCounts, Copying, LocalCopies};
pub use self::orphans::OrphanReport;
pub use self::state::{Origin, StateBlock, StatePiece, StateRead};
pub(crate) use self::state::{Piece, pieces_of};
use crate::error::StateError;

/// Where sinks stage output until it is published, relative to the job's directory. They remove what is left there.
pub const STAGED_DIRECTORY: &str = "staged";

/// Objects below `jobs/<job>/` of a store. Paths in this interface are relative to that. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    /// Where the objects lie as files, if they do.
    directory: Option<PathBuf>,
    /// Copies of state files on this machine, if any are kept.
    copies: Option<LocalCopies>,
    /// The same objects, where they lie with a service.
    service: Option<Objects>,
}

impl CheckpointStore {
    /// A store over any object store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> CheckpointStore {
        CheckpointStore { objects, directory: None, service: None, copies: None }
    }

    /// The store that a user names: a directory, or the URL of an object store.
    ///
    /// # Errors
    /// Whether a service is there shows at the first use.
    pub fn open(place: &Path) -> Result<CheckpointStore, StateError> {
        let refused =
            |message| StateError::Store { action: "open", path: Place::shown(place), message, retryable: false };
        match Place::parse(place).map_err(refused)? {
            Place::Local(directory) => CheckpointStore::local(&directory),
            Place::Objects(url) => {
                let objects = Objects::open(&url).map_err(|error| refused(error.message))?;
                Ok(CheckpointStore::of_service(objects))
            }
        }
    }

    /// The store of objects of a service.
    #[must_use]
    pub fn of_service(objects: Objects) -> CheckpointStore {
        CheckpointStore { objects: objects.store(), directory: None, service: Some(objects), copies: None }
    }

    /// A store over a directory, which is created. What was written survives a crash of the machine.
    pub fn local(state_dir: &Path) -> Result<CheckpointStore, StateError> {
        #[cfg(feature = "simulation")]
        if let Some(objects) = crate::simulation::mounted(state_dir) {
            return Ok(CheckpointStore::new(objects));
        }
        let failed = |action, source| StateError::Io { action, path: state_dir.display().to_string(), source };
        std::fs::create_dir_all(state_dir).map_err(|e| failed("create the state directory", e))?;
        let directory = state_dir.canonicalize().map_err(|e| failed("resolve the state directory", e))?;
        let objects = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|e| StateError::store("open", &state_dir.display().to_string(), e))?
            .with_fsync(true);
        Ok(CheckpointStore { objects: Arc::new(objects), directory: Some(directory), service: None, copies: None })
    }

    /// A store that forgets everything with the process; for tests.
    #[must_use]
    pub fn in_memory() -> CheckpointStore {
        CheckpointStore::new(Arc::new(InMemory::new()))
    }

    /// Writes an object that must not exist. Finding the very same bytes there is success: it is the trace of
    /// an earlier try of the same write whose answer was lost.
    pub async fn put_new(&self, job: &JobId, path: &str, bytes: impl Into<PutPayload>) -> Result<(), StateError> {
        let bytes = bytes.into();
        let location = location(job, path)?;
        if let Some(service) = &self.service {
            return match service.create(location.as_ref(), bytes).await {
                Ok(()) => Ok(()),
                Err(CreateError::Taken) => Err(StateError::Conflict { path: self.shown(job, path) }),
                Err(CreateError::Failed(error)) => Err(StateError::service("write", &self.shown(job, path), error)),
            };
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&location, bytes.clone(), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let existing = self.get(job, path).await?;
                if is_content(&existing, &bytes) {
                    Ok(())
                } else {
                    Err(StateError::Conflict { path: self.shown(job, path) })
                }
            }
            Err(e) => Err(self.failed("write", &self.shown(job, path), e)),
        }
    }

    /// The bytes of an object, unverified.
    pub async fn get(&self, job: &JobId, path: &str) -> Result<Bytes, StateError> {
        let failed = |e| self.failed("read", &self.shown(job, path), e);
        let result = self.objects.get(&location(job, path)?).await.map_err(failed)?;
        result.bytes().await.map_err(failed)
    }

    /// Deletes an object; one that does not exist counts as deleted.
    pub async fn delete(&self, job: &JobId, path: &str) -> Result<(), StateError> {
        let deleted = self.objects.delete(&location(job, path)?).await;
        self.forget_copy(job, path).await;
        match deleted {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("delete", &self.shown(job, path), e)),
        }
    }

    /// Paths of the objects whose path begins with `directory` (`state` or `manifests`), in order. May miss
    /// what was written a moment ago.
    pub async fn list(&self, job: &JobId, directory: &str) -> Result<Vec<String>, StateError> {
        let root = location(job, directory)?;
        let found: Vec<_> = self
            .objects
            .list(Some(&root))
            .try_collect()
            .await
            .map_err(|e| self.failed("list", &self.shown(job, directory), e))?;
        let prefix = format!("jobs/{job}/");
        let relative = found.iter().filter_map(|meta| meta.location.as_ref().strip_prefix(&prefix));
        let mut paths: Vec<String> = relative.map(str::to_owned).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// The jobs that have something in the store, in the order of their names. Names that no job can have are left out.
    pub async fn jobs(&self) -> Result<Vec<JobId>, StateError> {
        let shown = || self.directory.as_ref().map_or("jobs".to_owned(), |d| d.join("jobs").display().to_string());
        let listed = self.objects.list_with_delimiter(Some(&ObjectPath::from("jobs"))).await;
        let listed = listed.map_err(|e| self.failed("list", &shown(), e))?;
        let names = listed.common_prefixes.iter().filter_map(|path| JobId::new(path.filename()?).ok());
        let mut jobs: Vec<JobId> = names.collect();
        jobs.sort_unstable();
        Ok(jobs)
    }

    /// Where the objects lie, if with a service.
    #[must_use]
    pub fn service(&self) -> Option<&Objects> {
        self.service.as_ref()
    }

    pub(crate) fn objects(&self) -> &dyn ObjectStore {
        self.objects.as_ref()
    }

    /// What the store said about an action on an object.
    pub(crate) fn failed(&self, action: &'static str, shown: &str, error: object_store::Error) -> StateError {
        match &self.service {
            Some(service) => StateError::service(action, shown, service.error(&error)),
            None => StateError::store(action, shown, error),
        }
    }

    /// An object as messages name it: the file where there is one.
    #[must_use]
    pub fn shown(&self, job: &JobId, path: &str) -> String {
        let full = full(job, path);
        if let Some(service) = &self.service {
            return service.shown(&full);
        }
        self.directory.as_ref().map_or(full.clone(), |directory| directory.join(full).display().to_string())
    }

    /// Deletes every state file and manifest of the job, and what its sinks have staged.
    pub async fn delete_all(&self, job: &JobId) -> Result<(), StateError> {
        for directory in ["manifests", "state", STAGED_DIRECTORY] {
            for path in self.list(job, directory).await? {
                self.delete(job, &path).await?;
            }
        }
        Ok(())
    }
}

/// Where an object lies in the store.
pub(crate) fn location(job: &JobId, path: &str) -> Result<ObjectPath, StateError> {
    let full = full(job, path);
    // Paths come from manifests, so they are checked: no empty, `.` or `..` part.
    ObjectPath::parse(&full).map_err(|e| StateError::Corrupt { path: full, reason: format!("not a legal path: {e}") })
}

/// The path in the store.
fn full(job: &JobId, path: &str) -> String {
    format!("jobs/{job}/{path}")
}

#[cfg(test)]
mod tests;
