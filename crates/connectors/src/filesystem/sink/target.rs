//! Where a writer's temporary files are made and become durable: in a hidden directory beside their place, or, for an
//! object store, in a local file without a name, which is uploaded under a hidden name when it is complete. So what is
//! held in memory is the same for both, and a file has only ever one writer. Called by the writer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use mainstem_objects::Content;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{ConnectorError, ErrorKind};
use crate::filesystem::service::Service;

use super::Settings;
use super::error::{io_error, task_error};
use super::file::{ClosedFile, CreateError, OpenFile};
use super::name::TEMPORARY_DIRECTORY;

/// The temporary directory may be removed between its making and its first file; then it is made again.
const CREATE_ATTEMPTS_MAX: u32 = 5;
/// Files that are uploaded at a time at the end of an epoch.
const UPLOADS_AT_ONCE: usize = 4;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The sink's directory, absolute.
    Directory(PathBuf),
    /// The sink's place in an object store.
    Objects(Arc<Service>),
}

impl Target {
    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        match self {
            Target::Directory(root) => root.display().to_string(),
            Target::Objects(service) => service.url().shown(),
        }
    }

    /// Begins a file.
    pub(super) fn create(
        &self,
        settings: &Settings,
        temporary: String,
        directory: String,
        number: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<OpenFile, ConnectorError> {
        for attempt in 1.. {
            let created = match self {
                Target::Directory(root) => {
                    let parent = root.join(TEMPORARY_DIRECTORY);
                    make_directory(&parent).map_err(|e| io_error("create the directory", parent.display(), &e))?;
                    OpenFile::create(settings, root, temporary.clone(), directory.clone(), number, scratch)
                }
                Target::Objects(_) => {
                    OpenFile::nameless(settings, temporary.clone(), directory.clone(), number, scratch)
                }
            };
            match created {
                Ok(file) => return Ok(file),
                // The committer removes the directory when it is empty.
                Err(CreateError::Create(_, e))
                    if e.kind() == io::ErrorKind::NotFound && attempt < CREATE_ATTEMPTS_MAX => {}
                Err(CreateError::Create(path, e)) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let message = format!(
                        "the temporary file '{}' exists already: another run of a job with the same name writes here; stop it, or choose another job name or 'path'",
                        path.display()
                    );
                    return Err(ConnectorError::new(ErrorKind::External, message));
                }
                Err(CreateError::Create(path, e)) => return Err(io_error("create", path.display(), &e)),
                Err(CreateError::Begin(e)) => return Err(e),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Makes a file complete and durable, on its own.
    pub(super) fn finish(&self, file: OpenFile) -> JoinHandle<Result<ClosedFile, ConnectorError>> {
        match self {
            Target::Directory(_) => spawn_blocking(move || file.finish()),
            Target::Objects(service) => tokio::spawn(upload(service.clone(), file)),
        }
    }

    /// Makes files complete and durable.
    pub(super) async fn finish_all(&self, files: Vec<OpenFile>) -> Result<Vec<ClosedFile>, ConnectorError> {
        match self {
            Target::Directory(_) => {
                let finish = move || files.into_iter().map(OpenFile::finish).collect::<Result<Vec<_>, _>>();
                join(spawn_blocking(finish)).await
            }
            Target::Objects(service) => {
                let uploads = files.into_iter().map(|file| upload(service.clone(), file));
                futures::stream::iter(uploads).buffer_unordered(UPLOADS_AT_ONCE).try_collect().await
            }
        }
    }

    /// Makes the names of complete files durable.
    pub(super) async fn sync(&self) -> Result<(), ConnectorError> {
        match self {
            Target::Directory(root) => {
                let root = root.clone();
                join(spawn_blocking(move || sync_new_directory(&root))).await
            }
            Target::Objects(_) => Ok(()),
        }
    }
}

async fn upload(service: Arc<Service>, file: OpenFile) -> Result<ClosedFile, ConnectorError> {
    let (closed, file) = join(spawn_blocking(move || file.close())).await?;
    let content = Content::File(Arc::new(file), closed.size);
    let put = service.objects()?.put(&closed.temporary, &content, closed.crc32c).await;
    put.map_err(|error| service.failed("upload", &closed.temporary, &error))?;
    Ok(closed)
}

/// What a task of its own has done.
pub(super) async fn join<T>(task: JoinHandle<Result<T, ConnectorError>>) -> Result<T, ConnectorError> {
    task.await.map_err(|e| task_error(&e))?
}

/// Makes the entries of the temporary directory durable, and the directory's own in the sink's. Blocks.
fn sync_new_directory(root: &Path) -> Result<(), ConnectorError> {
    for directory in [&root.join(TEMPORARY_DIRECTORY), root] {
        let synced = File::open(directory).and_then(|d| d.sync_all());
        synced.map_err(|e| io_error("make durable", directory.display(), &e))?;
    }
    // The sink's directory may be new too. A parent that cannot be opened was not made by this sink.
    if let Some(Ok(parent)) = root.parent().map(File::open) {
        parent.sync_all().map_err(|e| io_error("make durable the parent of", root.display(), &e))?;
    }
    Ok(())
}

/// Makes a directory that others remove when it is empty.
fn make_directory(directory: &Path) -> io::Result<()> {
    for _ in 1..CREATE_ATTEMPTS_MAX {
        match std::fs::create_dir_all(directory) {
            // It was there a moment ago, and was removed before anybody looked whether it is a directory.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !is_file(directory) => {}
            made => return made,
        }
    }
    std::fs::create_dir_all(directory)
}

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_directory_that_is_removed_again_and_again_is_made() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(TEMPORARY_DIRECTORY);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = std::fs::remove_dir(&directory);
                }
            });
            let made: Vec<_> = (0..20_000).map(|_| make_directory(&directory)).filter(Result::is_err).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(made.is_empty(), "{} {:?}", made.len(), made.first());
        });
        let _ = std::fs::remove_dir(&directory);
        std::fs::write(&directory, "").unwrap();
        assert_eq!(make_directory(&directory).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
