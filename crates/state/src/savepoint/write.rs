//! Taking a savepoint: a copy of a checkpoint's files under a name that shows it as unfinished, the description last,
//! then the name that counts. Every file, and every directory that names one, is synced before.

use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use mainstem_core::ids::{JobId, SavepointId};
use mainstem_core::protocol::StateHandle;
use mainstem_objects::Place;
use object_store::ObjectStoreExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::error::{io_error, no_place};
use super::{DESCRIPTION, MAGIC, PREFIX, Savepoint, SavepointError, SavepointProgress, UNFINISHED, service};
use crate::error::StateError;
use crate::manifest::{seal, unseal};
use crate::store::{CheckpointStore, location};

/// Makes sure that savepoints can be written below a directory, which is created, and removes what earlier tries of
/// this one have left. No earlier try may have been reported as taken.
///
/// # Errors
/// What the system says.
pub async fn prepare_savepoints(directory: &Path, id: &SavepointId) -> Result<(), SavepointError> {
    let directory = match Place::parse(directory).map_err(no_place(directory))? {
        Place::Local(directory) => directory,
        Place::Objects(url) => return service::prepare(&url, id).await,
    };
    let directory = directory.as_path();
    fs::create_dir_all(directory).await.map_err(io_error("create the directory", directory))?;
    let mut entries = fs::read_dir(directory).await.map_err(io_error("list", directory))?;
    while let Some(entry) = entries.next_entry().await.map_err(io_error("list", directory))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(PREFIX) || name.starts_with(UNFINISHED);
        if ours && name.ends_with(&format!("-{id}")) {
            remove(&entry).await.map_err(io_error("remove", &entry.path()))?;
        }
    }
    let probe = directory.join(format!("{UNFINISHED}{id}"));
    fs::write(&probe, b"whether one can write here").await.map_err(io_error("write", &probe))?;
    fs::remove_file(&probe).await.map_err(io_error("remove", &probe))
}

/// Removes a directory, or the file below, where a process has died between writing and removing it.
async fn remove(entry: &fs::DirEntry) -> std::io::Result<()> {
    match entry.file_type().await?.is_dir() {
        true => fs::remove_dir_all(entry.path()).await,
        false => fs::remove_file(entry.path()).await,
    }
}

impl Savepoint {
    /// Takes the savepoint: copies every file that it names out of the store, with its checksum verified, and gives
    /// the directory below `directory` in which it now lies. All of it is durable on return. Repeating it with the same
    /// savepoint is harmless; a crash, or dropping the future, leaves at most a directory that counts as unfinished.
    ///
    /// # Errors
    /// A checkpoint file that is damaged, and what the system says.
    pub async fn write(
        &self,
        store: &CheckpointStore,
        directory: &Path,
        told: &(dyn Fn(SavepointProgress) + Send + Sync),
    ) -> Result<PathBuf, SavepointError> {
        let directory = match Place::parse(directory).map_err(no_place(directory))? {
            Place::Local(directory) => directory,
            Place::Objects(url) => return self.write_to_service(store, &url, told).await,
        };
        let directory = directory.as_path();
        let finished = directory.join(self.name());
        let description = self.description()?;
        if fs::read(finished.join(DESCRIPTION)).await.is_ok_and(|found| found == description) {
            // An earlier try whose last step failed or was not heard of.
            sync(directory).await?;
            return Ok(finished);
        }
        let unfinished = directory.join(format!("{UNFINISHED}{}", self.name()));
        match fs::remove_dir_all(&unfinished).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &unfinished)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&unfinished).await.map_err(io_error("create the directory", &unfinished))?;
        let mut progress = self.progress();
        told(progress);
        let mut directories = vec![unfinished.clone()];
        for file in self.files() {
            let path = unfinished.join(&file.path);
            let parent = path.parent().unwrap_or(&unfinished).to_owned();
            if !directories.contains(&parent) {
                fs::create_dir_all(&parent).await.map_err(io_error("create the directory", &parent))?;
                directories.push(parent);
            }
            store.copy_out(&self.manifest.job, file, &path).await?;
            progress.files += 1;
            progress.bytes += file.size;
            told(progress);
        }
        write_durably(&unfinished.join(DESCRIPTION), &description).await?;
        // The inner ones first.
        for inner in directories.iter().rev() {
            sync(inner).await?;
        }
        fs::rename(&unfinished, &finished).await.map_err(io_error("rename", &unfinished))?;
        sync(directory).await?;
        Ok(finished)
    }
}

impl Savepoint {
    /// The bytes of the file that describes it.
    pub(super) fn description(&self) -> Result<Vec<u8>, SavepointError> {
        Ok(seal(MAGIC, &serde_json::to_vec(self).map_err(|e| StateError::Bug(e.to_string()))?))
    }
}

impl CheckpointStore {
    /// Copies a state file to a file outside of the store, verified and durable, a piece at a time.
    async fn copy_out(&self, job: &JobId, handle: &StateHandle, path: &Path) -> Result<(), SavepointError> {
        let shown = self.shown(job, &handle.path);
        let failed = |e| self.failed("read", &shown, e);
        let found = self.objects().get(&location(job, &handle.path)?).await.map_err(failed)?;
        let mut pieces = mainstem_objects::pieces(found);
        let mut file = File::create(path).await.map_err(io_error("create", path))?;
        let (mut size, mut crc32c) = (0_u64, 0_u32);
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            file.write_all(&piece).await.map_err(io_error("write", path))?;
            size += piece.len() as u64;
            crc32c = crc32c::crc32c_append(crc32c, &piece);
        }
        if (size, crc32c) != (handle.size, handle.crc32c) {
            let reason = "it has another size or checksum than it was written with".to_owned();
            return Err(StateError::Corrupt { path: shown, reason }.into());
        }
        file.sync_all().await.map_err(io_error("make durable", path))
    }
}

async fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), SavepointError> {
    let mut file = File::create(path).await.map_err(io_error("create", path))?;
    file.write_all(bytes).await.map_err(io_error("write", path))?;
    file.sync_all().await.map_err(io_error("make durable", path))
}

async fn sync(directory: &Path) -> Result<(), SavepointError> {
    let opened = File::open(directory).await.map_err(io_error("open", directory))?;
    opened.sync_all().await.map_err(io_error("make durable", directory))
}

/// The text of a description.
pub(super) fn text_of(bytes: &[u8]) -> Result<&[u8], String> {
    unseal(MAGIC, bytes)
}
