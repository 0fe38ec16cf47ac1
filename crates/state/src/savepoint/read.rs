//! Using a savepoint: finding it, checking it, and copying it to where a job keeps its checkpoints. What is there is
//! only read. Every byte is checked before it counts.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use mainstem_core::ids::{Generation, JobId};
use mainstem_core::protocol::{ManifestRef, StateHandle};
use mainstem_objects::{Objects, Place};
use tokio::fs;

use super::error::{io_error, no_place};
use super::write::text_of;
use super::{DESCRIPTION, PREFIX, Savepoint, SavepointError, SavepointProgress, UNFINISHED, is_inside, service};
use crate::manifest::Manifest;
use crate::store::CheckpointStore;

/// A savepoint on disk whose description is sound.
#[derive(Clone, Debug)]
pub struct OpenSavepoint {
    directory: PathBuf,
    savepoint: Savepoint,
    /// Where its files lie, if with a service.
    service: Option<Objects>,
}

impl OpenSavepoint {
    /// Opens the savepoint that a directory is, or the only one that it holds. Checks the description, and that every
    /// file is there with its size.
    ///
    /// # Errors
    /// Where there is none, or several, or one that is unfinished or damaged.
    pub async fn open(path: &Path) -> Result<OpenSavepoint, SavepointError> {
        match Place::parse(path).map_err(no_place(path))? {
            Place::Local(path) => {
                let opened = OpenSavepoint::describe_local(&path).await?;
                opened.check_sizes().await?;
                Ok(opened)
            }
            Place::Objects(url) => service::open(&url).await,
        }
    }

    /// The same without a look at its files, of which any may be missing.
    ///
    /// # Errors
    /// As [`OpenSavepoint::open`].
    pub async fn describe(path: &Path) -> Result<OpenSavepoint, SavepointError> {
        match Place::parse(path).map_err(no_place(path))? {
            Place::Local(path) => OpenSavepoint::describe_local(&path).await,
            Place::Objects(url) => service::describe(&url).await,
        }
    }

    async fn describe_local(path: &Path) -> Result<OpenSavepoint, SavepointError> {
        let directory = find(path).await?;
        let bytes = match fs::read(directory.join(DESCRIPTION)).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(io_error("read", &directory.join(DESCRIPTION))(error)),
        };
        let damaged = |file: &str, reason: String| SavepointError::Damaged {
            savepoint: directory.display().to_string(),
            file: file.to_owned(),
            reason,
        };
        let savepoint = parse(&bytes).map_err(|reason| damaged(DESCRIPTION, reason))?;
        Ok(OpenSavepoint { directory, savepoint, service: None })
    }

    async fn check_sizes(&self) -> Result<(), SavepointError> {
        let directory = &self.directory;
        let damaged = |file: &str, reason: String| SavepointError::Damaged {
            savepoint: directory.display().to_string(),
            file: file.to_owned(),
            reason,
        };
        for file in self.savepoint.files() {
            match fs::metadata(directory.join(&file.path)).await {
                Ok(found) if found.len() == file.size => {}
                Ok(found) => {
                    let reason = format!("has {} bytes and was written with {}", found.len(), file.size);
                    return Err(damaged(&file.path, reason));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(damaged(&file.path, "is missing".to_owned()));
                }
                Err(error) => return Err(io_error("look at", &directory.join(&file.path))(error)),
            }
        }
        Ok(())
    }

    /// One whose files lie with a service.
    pub(super) fn of_service(objects: Objects, savepoint: Savepoint) -> OpenSavepoint {
        OpenSavepoint { directory: PathBuf::from(objects.url().to_string()), savepoint, service: Some(objects) }
    }

    /// What it says of itself.
    #[must_use]
    pub fn savepoint(&self) -> &Savepoint {
        &self.savepoint
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Copies all of it to where `job` keeps its checkpoints, as a checkpoint of that job, of the dataflow whose hash is
    /// given, and of this attempt. All names hold the attempt: a job of this name that was removed may still be being
    /// deleted, by whoever has not heard that it is done, and with it every name of its attempts. Durable on return.
    /// Repeating it is harmless.
    ///
    /// # Errors
    /// Names the first file that is not as it was written.
    pub async fn copy_into(
        &self,
        store: &CheckpointStore,
        job: &JobId,
        graph_hash: &str,
        generation: Generation,
        told: &(dyn Fn(SavepointProgress) + Send + Sync),
    ) -> Result<ManifestRef, SavepointError> {
        let mut progress = self.savepoint.progress();
        told(progress);
        for file in self.savepoint.files() {
            let bytes = self.read(file).await?;
            store.put_new(job, &name_in(generation, &file.path), bytes).await?;
            progress.files += 1;
            progress.bytes += file.size;
            told(progress);
        }
        let (job, graph_hash) = (job.clone(), graph_hash.to_owned());
        let mut manifest = Manifest { job, graph_hash, generation, ..self.savepoint.manifest.clone() };
        let snapshots = manifest.operators.values_mut().flatten();
        snapshots.flat_map(|(_, part)| part.files_mut()).for_each(|file| file.path = name_in(generation, &file.path));
        Ok(store.write_manifest(&manifest).await?)
    }

    /// The bytes of one of its files, as they were written.
    pub(crate) async fn read(&self, file: &StateHandle) -> Result<Bytes, SavepointError> {
        let path = self.directory.join(&file.path);
        let damaged = |reason: String| SavepointError::Damaged {
            savepoint: self.directory.display().to_string(),
            file: file.path.clone(),
            reason,
        };
        let read = match &self.service {
            Some(objects) => service::read(objects, &file.path).await?,
            None => fs::read(&path).await.map(Bytes::from),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("is missing".to_owned())),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let found = crc32c::crc32c(&bytes);
        if bytes.len() as u64 != file.size || found != file.crc32c {
            let reason = format!(
                "is damaged: it has {} bytes with checksum {found:08x} and was written with {} and {:08x}",
                bytes.len(),
                file.size,
                file.crc32c
            );
            return Err(damaged(reason));
        }
        Ok(bytes)
    }
}

/// The name of a file of an attempt before as that of another attempt: `state/4-g1-op3-0.state` becomes
/// `state/4-g7-from-g1-op3-0.state`. Names of another form stay.
fn name_in(generation: Generation, path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
    match name.split_once("-g") {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{directory}/{epoch}-g{generation}-from-g{rest}")
        }
        _ => path.to_owned(),
    }
}

/// What a description says, or what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Savepoint, String> {
    let text = text_of(bytes).map_err(|reason| format!("is damaged: {reason}"))?;
    let savepoint: Savepoint = serde_json::from_slice(text).map_err(|error| format!("is unreadable: {error}"))?;
    match savepoint.files().into_iter().find(|file| !is_inside(&file.path)) {
        Some(outside) => Err(format!("names '{}', which lies outside", outside.path)),
        None => Ok(savepoint),
    }
}

/// The directory of the savepoint that is meant.
async fn find(path: &Path) -> Result<PathBuf, SavepointError> {
    let none = |what: String| SavepointError::None { path: path.display().to_string(), what };
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name(path).starts_with(UNFINISHED) {
        return Err(SavepointError::Unfinished { path: path.display().to_string() });
    }
    if fs::try_exists(path.join(DESCRIPTION)).await.unwrap_or(false) {
        return Ok(path.to_owned());
    }
    let mut entries = match fs::read_dir(path).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(none("there is no such directory".to_owned()));
        }
        Err(error) => return Err(io_error("list", path)(error)),
    };
    let (mut found, mut unfinished) = (Vec::new(), None);
    while let Some(entry) = entries.next_entry().await.map_err(io_error("list", path))? {
        let name = name(&entry.path());
        if name.starts_with(UNFINISHED) {
            unfinished = Some(entry.path());
        } else if name.starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    found.sort();
    match (found.as_slice(), unfinished) {
        ([one], _) => match fs::try_exists(one.join(DESCRIPTION)).await {
            Ok(true) => Ok(one.clone()),
            _ => Err(SavepointError::Damaged {
                savepoint: one.display().to_string(),
                file: DESCRIPTION.to_owned(),
                reason: "is missing".to_owned(),
            }),
        },
        ([], Some(unfinished)) => Err(SavepointError::Unfinished { path: unfinished.display().to_string() }),
        ([], None) if name(path).starts_with(PREFIX) => Err(SavepointError::Damaged {
            savepoint: path.display().to_string(),
            file: DESCRIPTION.to_owned(),
            reason: "is missing".to_owned(),
        }),
        ([], None) => Err(none("it holds none".to_owned())),
        (several, _) => {
            let names: Vec<String> = several.iter().take(5).map(|path| name(path)).collect();
            Err(none(format!("it holds {}, among them {}", several.len(), names.join(", "))))
        }
    }
}
