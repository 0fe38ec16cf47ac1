//! Writing whole objects of any size. Large ones go in parts, several at a time, so that no request carries more than the
//! time for a request allows; an upload that does not come to its end is aborted.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::{MultipartUpload, ObjectStoreExt, PutMultipartOptions, PutPayload};
use tokio::runtime::Handle;

use crate::error::{ObjectError, ObjectErrorKind};
use crate::open::Objects;

/// Bytes of a part. Services take at most 10,000 parts, and none but the last below 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// The same for what would have too many parts.
const LARGE_PART_BYTES: u64 = 64 << 20;
/// Above this size parts are large.
const LARGE_BYTES: u64 = 64 << 30;
/// Parts that are on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// What an object is to hold.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Memory(PutPayload),
    /// A file's first bytes, so many.
    File(Arc<File>, u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.content_length() as u64,
            Content::File(_, size) => *size,
        }
    }

    async fn part(&self, start: u64, length: u64) -> io::Result<PutPayload> {
        let within = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
        match self {
            Content::Memory(bytes) => Ok(slice(bytes, within(start)?..within(start + length)?)),
            Content::File(file, _) => {
                let (file, length) = (file.clone(), within(length)?);
                let read = mainstem_rt::run_blocking(move || {
                    let mut buffer = vec![0; length];
                    file.read_exact_at(&mut buffer, start).map(|()| PutPayload::from(buffer))
                });
                read.await.map_err(io::Error::other)?
            }
        }
    }
}

/// Some of the bytes, without a copy.
fn slice(bytes: &PutPayload, range: Range<usize>) -> PutPayload {
    let mut begin = 0;
    let within = bytes.iter().filter_map(|piece| {
        let (from, to) = (range.start.max(begin), range.end.min(begin + piece.len()));
        let part = (from < to).then(|| piece.slice(from - begin..to - begin));
        begin += piece.len();
        part
    });
    within.collect()
}

impl Objects {
    /// Writes an object, over whatever is there. Repeating it with the same content is harmless. `crc32c` is the
    /// content's: by it an upload whose last answer was lost is known.
    pub async fn put(&self, key: &str, content: &Content, crc32c: u32) -> Result<(), ObjectError> {
        let path = self.path(key)?;
        let (size, begun) = (content.size(), |e: &object_store::Error| self.error(e));
        if size <= PART_BYTES {
            let bytes = content.part(0, size).await.map_err(|e| unreadable(&e))?;
            return self.store.put(&path, bytes).await.map(drop).map_err(|e| begun(&e));
        }
        let upload = self.store.put_multipart_opts(&path, PutMultipartOptions::default()).await;
        let mut upload = Upload(Some(upload.map_err(|e| begun(&e))?));
        let part_bytes = if size > LARGE_BYTES { LARGE_PART_BYTES } else { PART_BYTES };
        let mut sending = FuturesUnordered::new();
        let mut start = 0;
        while start < size {
            let length = part_bytes.min(size - start);
            let bytes = content.part(start, length).await.map_err(|e| unreadable(&e))?;
            sending.push(upload.get().put_part(bytes));
            start += length;
            while sending.len() >= PARTS_AT_ONCE || (start == size && !sending.is_empty()) {
                if let Some(Err(error)) = sending.next().await {
                    return Err(self.error(&error));
                }
            }
        }
        // The second try of a completion whose answer was lost finds no upload.
        if let Err(error) = upload.get().complete().await
            && self.checksum(key).await? != Some((size, crc32c))
        {
            return Err(self.error(&error));
        }
        upload.0 = None;
        Ok(())
    }

    /// Has the service copy an object, over whatever is there.
    ///
    /// # Errors
    /// [`ObjectErrorKind::Missing`] where there is nothing to copy.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), ObjectError> {
        self.store.copy(&self.path(from)?, &self.path(to)?).await.map_err(|error| self.error(&error))
    }
}

/// An upload that is aborted unless it is taken out.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    fn get(&mut self) -> &mut Box<dyn MultipartUpload> {
        self.0.as_mut().expect("taken out at the end only")
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "an upload cannot be aborted; its parts stay until the bucket's rules remove them");
            }
        });
    }
}

fn unreadable(error: &io::Error) -> ObjectError {
    let message = format!("what is to be uploaded cannot be read: {error}; check the disk for temporary files");
    ObjectError { kind: ObjectErrorKind::Transient, message }
}
