//! Writing what must not be there yet, and writing over exactly what was read: the two conditional writes with which
//! processes keep each other out. A write whose answer was lost is tried again; its second try then meets the first, so
//! a condition that is not met is settled by reading what is there.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use object_store::{PutMode, PutOptions, PutPayload, UpdateVersion};
use tokio::time::Instant;

use crate::error::{ObjectError, ObjectErrorKind};
use crate::open::{Objects, Version};
use crate::transfer::Content;

/// Objects up to this size are written in one request, on a condition; larger ones in parts, see [`Objects::put`].
const CONDITIONAL_BYTES_MAX: usize = 32 << 20;
/// How often a conditional write is begun anew. Each try has those of the client within it, where the service has said
/// that it did nothing.
const POLICY: RetryPolicy = RetryPolicy { first_delay_ms: 100, delay_ms_max: 2_000, retries_max: 6, quiet_ms: 600_000 };

/// No further try begins so long after the first: the client has tried again within each for a while.
const WITHIN: Duration = Duration::from_secs(30);

/// Why a conditional write did not take place.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// There is something else than what was to be written.
    #[error("something else is there")]
    Taken,
    /// It failed; whether it took place is not known.
    #[error(transparent)]
    Failed(#[from] ObjectError),
}

impl Objects {
    /// Writes an object that must not exist. The very same bytes under the key are a success: the trace of a try whose
    /// answer was lost.
    ///
    /// # Errors
    /// [`CreateError::Taken`] where other bytes are there.
    pub async fn create(&self, key: &str, bytes: impl Into<PutPayload>) -> Result<(), CreateError> {
        let bytes = bytes.into();
        if bytes.content_length() > CONDITIONAL_BYTES_MAX {
            return self.create_large(key, bytes).await;
        }
        self.write_if(key, bytes, None).await.map(drop)
    }

    /// As [`Objects::create`], for a small object of which the version is needed.
    pub async fn create_versioned(&self, key: &str, bytes: Bytes) -> Result<Version, CreateError> {
        self.write_if(key, bytes.into(), None).await
    }

    /// In parts, which cannot be put together on a condition: looked before. That is enough where no other writer ever
    /// has the key, and tells the trace of an earlier try all the same.
    async fn create_large(&self, key: &str, bytes: PutPayload) -> Result<(), CreateError> {
        let crc32c = bytes.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        let size = bytes.content_length() as u64;
        if self.look(key).await?.is_some() {
            let found = self.checksum(key).await?;
            return if found == Some((size, crc32c)) { Ok(()) } else { Err(CreateError::Taken) };
        }
        Ok(self.put(key, &Content::Memory(bytes), crc32c).await?)
    }

    /// Writes over the version that was read, and gives the new one. Where the answer was lost, what is there tells.
    /// No two writers may ever have the same bytes to write.
    ///
    /// # Errors
    /// [`CreateError::Taken`] where somebody else has written since.
    pub async fn replace(&self, key: &str, bytes: Bytes, version: &Version) -> Result<Version, CreateError> {
        self.write_if(key, bytes.into(), Some(version)).await
    }

    async fn write_if(&self, key: &str, bytes: PutPayload, over: Option<&Version>) -> Result<Version, CreateError> {
        let path = self.path(key)?;
        let mut backoff = Backoff::new(POLICY);
        let begun = Instant::now();
        loop {
            let mode = match over {
                None => PutMode::Create,
                Some(version) => {
                    PutMode::Update(UpdateVersion { e_tag: version.tag.clone(), version: version.number.clone() })
                }
            };
            let options = PutOptions { mode, ..PutOptions::default() };
            let failed = match self.store.put_opts(&path, bytes.clone(), options).await {
                Ok(put) => return Ok(Version { tag: put.e_tag, number: put.version }),
                Err(error) => self.error(&error),
            };
            let failed = match failed.kind {
                ObjectErrorKind::Condition => match self.read(key).await? {
                    Some((there, version)) if is_content(&there, &bytes) => return Ok(version),
                    // A conflict with another write, after which the old content, or nothing, is still there.
                    Some((_, version)) if over == Some(&version) => failed,
                    None if over.is_none() => failed,
                    _ => return Err(CreateError::Taken),
                },
                ObjectErrorKind::Transient if begun.elapsed() < WITHIN => failed,
                ObjectErrorKind::Missing if over.is_some() => return Err(CreateError::Taken),
                _ => return Err(failed.into()),
            };
            let Some(wait_ms) = backoff.on_failure(Timestamp(0), random()) else {
                let failed = match failed.kind {
                    // Neither written nor in the way.
                    ObjectErrorKind::Condition => ObjectError {
                        kind: ObjectErrorKind::Transient,
                        message: format!("conflicts with other writes do not end: {}", failed.message),
                    },
                    _ => failed,
                };
                return Err(failed.into());
            };
            tracing::debug!(object = self.shown(key), error = %failed, wait_ms, "conditional write is tried again");
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// Whether an object that was read is what was to be written.
#[must_use]
pub fn is_content(object: &[u8], written: &PutPayload) -> bool {
    let mut rest = object;
    written.iter().all(|piece| match rest.split_at_checked(piece.len()) {
        Some((begin, end)) => {
            rest = end;
            begin == piece
        }
        None => false,
    }) && rest.is_empty()
}

/// Any number: it spreads waits, and nothing else depends on it.
pub(crate) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
