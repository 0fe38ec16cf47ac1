//! Publishes files by giving them their final names. Called beside the coordinator, after an epoch is complete,
//! and again after any crash: it therefore never assumes how far an earlier call came, but looks. A coordinator that does
//! not know yet that another one leads may do the same at the same time: what the other one has done is done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::Committable;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{ConnectorError, ErrorKind};
use crate::sink::Committer;

use super::error::{io_error, task_error};
use super::name::{self, PendingFile, TEMPORARY_DIRECTORY};

/// Files that are named to the user where there may be many.
const NAMES_MAX: usize = 3;

/// Renames files.
pub(super) struct FileCommitter {
    /// The sink's directory, absolute.
    root: PathBuf,
    job: JobId,
    operator: OperatorId,
    /// The newest call's thread. It goes on when the call is dropped, so the next one waits for it first.
    running: Option<JoinHandle<Result<(), ConnectorError>>>,
}

impl FileCommitter {
    pub(super) fn new(root: PathBuf, job: &JobId, operator: OperatorId) -> FileCommitter {
        FileCommitter { root, job: job.clone(), operator, running: None }
    }

    /// Does blocking work on a thread of its own, after what an abandoned call has left running.
    async fn run(
        &mut self,
        work: impl FnOnce() -> Result<(), ConnectorError> + Send + 'static,
    ) -> Result<(), ConnectorError> {
        if let Some(abandoned) = &mut self.running {
            // How it ended does not matter: the work looks for itself how far things are.
            let _ = abandoned.await;
        }
        let running = self.running.insert(spawn_blocking(work));
        let result = running.await;
        self.running = None;
        result.map_err(|e| task_error(&e))?
    }
}

#[async_trait]
impl Committer for FileCommitter {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        if committables.is_empty() {
            return Ok(());
        }
        let files = committables.iter().map(PendingFile::of_committable).collect::<Result<Vec<_>, _>>()?;
        let root = self.root.clone();
        self.run(move || publish_all(&root, epoch, &files)).await
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        let (root, job, operator) = (self.root.clone(), self.job.clone(), self.operator);
        self.run(move || remove_older(&root, &job, operator, &generations)).await
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        let (root, job, operator) = (self.root.clone(), job.clone(), self.operator);
        let looked = spawn_blocking(move || {
            let mut later = (Vec::new(), 0);
            add_later(&root, &job, operator, epoch, &mut later)?;
            Ok(later)
        });
        looked.await.map_err(|e| task_error(&e))?
    }
}

fn publish_all(root: &Path, epoch: Epoch, files: &[PendingFile]) -> Result<(), ConnectorError> {
    let mut directories = BTreeSet::from([root.to_path_buf()]);
    for file in files {
        publish(root, epoch, file)?;
        // A partition's directory may be new, and so may be the ones above it.
        let parents = root.join(&file.path);
        directories.extend(parents.ancestors().skip(1).take_while(|d| *d != root).map(Path::to_path_buf));
    }
    for directory in &directories {
        sync_directory(directory)?;
    }
    let temporary = root.join(TEMPORARY_DIRECTORY);
    if temporary.is_dir() {
        gone_is_fine(sync_all(&temporary)).map_err(|e| io_error("make durable", temporary.display(), &e))?;
        remove_if_empty(&temporary)?;
    }
    Ok(())
}

/// The result of something that another one may have done, and whose object is gone then.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn publish(root: &Path, epoch: Epoch, file: &PendingFile) -> Result<(), ConnectorError> {
    let (temporary, path) = (root.join(&file.temporary), root.join(&file.path));
    match (size_of(&temporary)?, size_of(&path)?) {
        (None, Some(size)) if size == file.size => Ok(()),
        (Some(size), None) if size == file.size => {
            let directory = path.parent().unwrap_or(root);
            fs::create_dir_all(directory).map_err(|e| io_error("create the directory", directory.display(), &e))?;
            match fs::rename(&temporary, &path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && size_of(&path)? == Some(file.size) => Ok(()),
                renamed => renamed.map_err(|e| io_error("publish", path.display(), &e)),
            }
        }
        (Some(_), Some(_)) if has_content(&path, file)? => {
            // Some file systems show both names after a crash in the middle of a rename.
            gone_is_fine(fs::remove_file(&temporary)).map_err(|e| io_error("remove", temporary.display(), &e))
        }
        (Some(_), Some(_)) => Err(ConnectorError::new(
            ErrorKind::External,
            format!(
                "cannot publish '{}' of epoch {epoch}: another file has that name, from an earlier job of the same name; move it away, or choose another job name or 'path'",
                path.display()
            ),
        )),
        (None, None) => {
            Err(lost(epoch, &path, &format!("neither it nor its temporary file '{}' is there", temporary.display())))
        }
        (Some(size), None) => Err(lost(epoch, &temporary, &format!("it has {size} bytes instead of {}", file.size))),
        (None, Some(size)) => Err(lost(epoch, &path, &format!("it has {size} bytes instead of {}", file.size))),
    }
}

fn lost(epoch: Epoch, path: &Path, what: &str) -> ConnectorError {
    ConnectorError::new(
        ErrorKind::Lost,
        format!(
            "the output file '{}' of epoch {epoch} is lost: {what}; it was removed or changed from outside, restore it or restart the job from an earlier savepoint",
            path.display()
        ),
    )
}

/// Size in bytes; `None` where there is no such file.
fn size_of(path: &Path) -> Result<Option<u64>, ConnectorError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("look at", path.display(), &e)),
    }
}

fn has_content(path: &Path, file: &PendingFile) -> Result<bool, ConnectorError> {
    let failed = |e: &io::Error| io_error("read", path.display(), e);
    let mut reader = File::open(path).map_err(|e| failed(&e))?;
    let (mut size, mut crc32c) = (0, 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = reader.read(&mut buffer).map_err(|e| failed(&e))?;
        if read == 0 {
            return Ok((size, crc32c) == (file.size, file.crc32c));
        }
        size += read as u64;
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
    }
}

/// Removes temporary files of earlier attempts. All that complete epochs name has been published before, so
/// nothing needs them.
fn remove_older(
    root: &Path,
    job: &JobId,
    operator: OperatorId,
    generations: &Range<Generation>,
) -> Result<(), ConnectorError> {
    let temporary = root.join(TEMPORARY_DIRECTORY);
    let failed = |e: &io::Error| io_error("clean up", temporary.display(), e);
    let entries = match fs::read_dir(&temporary) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(failed(&e)),
    };
    let mut removed = 0_u64;
    for entry in entries {
        let entry = entry.map_err(|e| failed(&e))?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name::generation_of(name, job, operator));
        if owner.is_some_and(|g| generations.contains(&g)) {
            let path = entry.path();
            gone_is_fine(fs::remove_file(&path)).map_err(|e| io_error("remove", path.display(), &e))?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(job = %job, operator = %operator, files = removed, directory = %temporary.display(), "removed temporary files of earlier attempts");
    }
    remove_if_empty(&temporary)
}

/// Adds the visible files below a directory that a job has written for epochs after `epoch`: some by name, and how
/// many there are.
fn add_later(
    directory: &Path,
    job: &JobId,
    operator: OperatorId,
    epoch: Epoch,
    later: &mut (Vec<String>, u64),
) -> Result<(), ConnectorError> {
    let failed = |e: &io::Error| io_error("list", directory.display(), e);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(failed(&e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed(&e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if entry.file_type().map_err(|e| failed(&e))?.is_dir() {
            add_later(&entry.path(), job, operator, epoch, later)?;
        } else if name::epoch_of(name, job, operator).is_some_and(|of| of > epoch) {
            later.1 += 1;
            if later.0.len() < NAMES_MAX {
                later.0.push(entry.path().display().to_string());
            }
        }
    }
    Ok(())
}

fn remove_if_empty(directory: &Path) -> Result<(), ConnectorError> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        // A writer has begun a file, or another job works here, or removed it first.
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(io_error("remove", directory.display(), &e)),
    }
}

fn sync_directory(directory: &Path) -> Result<(), ConnectorError> {
    sync_all(directory).map_err(|e| io_error("make durable", directory.display(), &e))
}

fn sync_all(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_call_waits_for_the_thread_of_one_that_was_dropped() {
        let mut committer = FileCommitter::new(PathBuf::new(), &JobId::new("j").unwrap(), OperatorId(1));
        let (open_gate, gate) = mpsc::channel();
        let (report, order) = mpsc::channel();
        let first = report.clone();
        let hung = committer.run(move || {
            gate.recv().unwrap();
            first.send(1).unwrap();
            Ok(())
        });
        tokio::time::timeout(Duration::from_millis(20), hung).await.unwrap_err();
        let mut second = Box::pin(committer.run(move || {
            report.send(2).unwrap();
            Ok(())
        }));
        tokio::time::timeout(Duration::from_millis(20), second.as_mut()).await.unwrap_err();
        assert!(order.try_recv().is_err(), "the second one has not begun");
        open_gate.send(()).unwrap();
        second.await.unwrap();
        assert_eq!(order.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
