//! The checkpoint store: objects of a job, written once and read with their checksums verified. Called by the
//! engine (state files) and by the coordinator (manifests, deletion). Never overwrites an object, and never
//! relies on a listing for anything but cleaning up.

mod mark;
mod orphans;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use mainstem_core::ids::JobId;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

pub use self::orphans::OrphanReport;
use crate::error::StateError;

/// Objects below `jobs/<job>/` of a store. Paths in this interface are relative to that. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    /// Where the objects lie as files, if they do.
    directory: Option<PathBuf>,
}

impl CheckpointStore {
    /// A store over any object store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> CheckpointStore {
        CheckpointStore { objects, directory: None }
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
        Ok(CheckpointStore { objects: Arc::new(objects), directory: Some(directory) })
    }

    /// A store that forgets everything with the process; for tests.
    #[must_use]
    pub fn in_memory() -> CheckpointStore {
        CheckpointStore::new(Arc::new(InMemory::new()))
    }

    /// Writes an object that must not exist. Finding the very same bytes there is success: it is the trace of
    /// an earlier try of the same write whose answer was lost.
    pub async fn put_new(&self, job: &JobId, path: &str, bytes: Bytes) -> Result<(), StateError> {
        let location = location(job, path)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&location, bytes.clone().into(), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let existing = self.get(job, path).await?;
                if existing == bytes { Ok(()) } else { Err(StateError::Conflict { path: self.shown(job, path) }) }
            }
            Err(e) => Err(StateError::store("write", &self.shown(job, path), e)),
        }
    }

    /// The bytes of an object, unverified.
    pub async fn get(&self, job: &JobId, path: &str) -> Result<Bytes, StateError> {
        let failed = |e| StateError::store("read", &self.shown(job, path), e);
        let result = self.objects.get(&location(job, path)?).await.map_err(failed)?;
        result.bytes().await.map_err(failed)
    }

    /// Deletes an object; one that does not exist counts as deleted.
    pub async fn delete(&self, job: &JobId, path: &str) -> Result<(), StateError> {
        match self.objects.delete(&location(job, path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(StateError::store("delete", &self.shown(job, path), e)),
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
            .map_err(|e| StateError::store("list", &self.shown(job, directory), e))?;
        let prefix = format!("jobs/{job}/");
        let relative = found.iter().filter_map(|meta| meta.location.as_ref().strip_prefix(&prefix));
        let mut paths: Vec<String> = relative.map(str::to_owned).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    pub(crate) fn objects(&self) -> &dyn ObjectStore {
        self.objects.as_ref()
    }

    /// An object as messages name it: the file where there is one.
    pub(crate) fn shown(&self, job: &JobId, path: &str) -> String {
        let full = full(job, path);
        self.directory.as_ref().map_or(full.clone(), |directory| directory.join(full).display().to_string())
    }

    /// Deletes every state file and manifest of the job.
    pub async fn delete_all(&self, job: &JobId) -> Result<(), StateError> {
        for directory in ["manifests", "state"] {
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
