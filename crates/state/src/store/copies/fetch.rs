//! Copies of files that this process has neither written nor read: for a worker that stands by for another one. A piece at
//! a time, so that the size of a file does not matter to memory, and never at the cost of copies that are there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use mainstem_core::ids::JobId;
use mainstem_core::protocol::StateHandle;
use mainstem_rt::run_blocking;
use object_store::ObjectStoreExt;

use super::PART;
use crate::error::StateError;
use crate::store::{CheckpointStore, full, location};

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What became of a copy that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// It is there.
    There,
    /// Others would have to go for it, or none are kept here.
    NoRoom,
}

impl CheckpointStore {
    /// Whether there is a copy of a state file. Whether it is whole shows when it is read.
    #[must_use]
    pub fn has_copy(&self, job: &JobId, handle: &StateHandle) -> bool {
        let Some((copies, name)) = self.copy_of(job, &handle.path) else { return false };
        copies.shared.lock().index.contains(&name)
    }

    /// Removes the copies of files that are not in the store any more, unless that was done a moment ago.
    pub async fn sweep_copies(&self) {
        self.sweep(None).await;
    }

    /// Copies a state file from the store, unless there is a copy. What was copied has the size and the checksum of its
    /// handle.
    ///
    /// # Errors
    /// Of the store, or of the disk of the copies; [`StateError::Corrupt`] and [`StateError::Missing`] name the file.
    pub async fn fetch_copy(&self, job: &JobId, handle: &StateHandle) -> Result<Copying, StateError> {
        let Some((copies, name)) = self.copy_of(job, &handle.path) else { return Ok(Copying::NoRoom) };
        {
            let inner = copies.shared.lock();
            if inner.index.contains(&name) {
                return Ok(Copying::There);
            }
            if !inner.index.has_room(handle.size) {
                return Ok(Copying::NoRoom);
            }
        }
        let shared = copies.shared.clone();
        let path = shared.directory.join(&name);
        // Not the name under which the same file may be written by who reads it at this moment.
        let part = shared.directory.join(format!("{name}.fetched{PART}"));
        let shown = part.display().to_string();
        let failed =
            |source| StateError::Io { action: "write a local copy of a state file to", path: shown.clone(), source };
        let created = part.clone();
        let file = blocking(move || {
            created.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create(&created)
        });
        let fetched = match file.await.map_err(&failed) {
            Ok(file) => self.fetch_into(job, handle, file, &failed).await,
            Err(error) => Err(error),
        };
        let finished = blocking(move || match fetched {
            Ok(()) => fs::rename(&part, &path).map(|()| Ok(())),
            Err(error) => {
                // What cannot be removed is removed at the next start.
                let _ = fs::remove_file(&part);
                Ok(Err(error))
            }
        });
        finished.await.map_err(&failed)??;
        {
            let mut inner = shared.lock();
            // Others may have come meanwhile.
            if inner.index.contains(&name) || inner.index.has_room(handle.size) {
                inner.index.insert(&name, handle.size);
                shared.written.fetch_add(1, Ordering::Relaxed);
                return Ok(Copying::There);
            }
        }
        // It fails only where the process ends.
        let _ = run_blocking(move || shared.delete(&[name])).await;
        Ok(Copying::NoRoom)
    }

    /// Writes an object into a file, and checks it.
    async fn fetch_into(
        &self,
        job: &JobId,
        handle: &StateHandle,
        mut file: File,
        failed: &impl Fn(io::Error) -> StateError,
    ) -> Result<(), StateError> {
        let unread = |e| self.failed("read", &self.shown(job, &handle.path), e);
        let result = self.objects.get(&location(job, &handle.path)?).await.map_err(unread)?;
        let corrupt = |reason| StateError::Corrupt { path: full(job, &handle.path), reason };
        let size = result.meta.size;
        if size != handle.size {
            return Err(corrupt(format!("it has {size} bytes and was written with {}", handle.size)));
        }
        let mut stream = mainstem_objects::pieces(result);
        let (mut crc, mut waiting, mut is_over) = (0, BytesMut::new(), false);
        while !is_over {
            match stream.try_next().await.map_err(unread)? {
                Some(bytes) => waiting.extend_from_slice(&bytes),
                None => is_over = true,
            }
            if waiting.len() >= PIECE_BYTES || is_over {
                let piece: Bytes = waiting.split().freeze();
                crc = crc32c::crc32c_append(crc, &piece);
                file = blocking(move || file.write_all(&piece).map(|()| file)).await.map_err(failed)?;
            }
        }
        if crc != handle.crc32c {
            let written = handle.crc32c;
            return Err(corrupt(format!("its checksum is {crc:08x} and was {written:08x} when it was written")));
        }
        Ok(())
    }
}

/// Does something with a file where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    run_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
