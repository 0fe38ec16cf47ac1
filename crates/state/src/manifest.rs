//! The manifest of a checkpoint: everything that a restore needs to know, in one object. Written by the
//! coordinator when all snapshots are durable, read at the next start. Format: docs/formats/manifest.md.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId};
use mainstem_core::protocol::{ManifestRef, OperatorSnapshot, SplitState, StateHandle};
use mainstem_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::StateError;
use crate::store::CheckpointStore;

/// First word of a manifest and the version of its format.
const MAGIC: &str = "mainstem-manifest 1";
/// State files that are checked at a time.
const CHECKED_AT_ONCE: usize = 4;

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of which job.
    pub job: JobId,
    /// Which checkpoint.
    pub epoch: Epoch,
    /// The attempt that took it.
    pub generation: Generation,
    /// What the clock says in the epoch after it.
    pub next_epoch_now: Timestamp,
    /// Of the stored dataflow, so that a state never meets another one.
    pub graph_hash: String,
    /// Key groups of the job.
    pub key_groups: u16,
    /// Subtasks of each task when the checkpoint was taken, by the task's first operator.
    pub parallelism: BTreeMap<OperatorId, u32>,
    /// What each operator's subtasks contributed, with the subtask's index; splits are in `sources`.
    pub operators: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
    /// Every known split of each source, once, in the order in which a restore hands them out.
    pub sources: BTreeMap<OperatorId, Vec<SplitState>>,
    /// When the checkpoint was taken.
    pub created_at: Timestamp,
}

/// How large the state of an operator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSize {
    /// Rows that it keeps, in its own form of them, over all subtasks.
    pub rows: u64,
    /// Bytes of the files that a restore would read.
    pub bytes: u64,
}

impl Manifest {
    /// Every object that the checkpoint needs, without the manifest itself.
    #[must_use]
    pub fn state_paths(&self) -> BTreeSet<String> {
        self.handles().map(|handle| handle.path.clone()).collect()
    }

    /// Every object of the checkpoint, of which `path` is the manifest.
    #[must_use]
    pub fn objects(&self, path: &str) -> BTreeSet<String> {
        let mut objects = self.state_paths();
        objects.insert(path.to_owned());
        objects
    }

    /// Bytes of state that the checkpoint refers to, each file counted once.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let sizes: BTreeMap<&str, u64> = self.handles().map(|handle| (handle.path.as_str(), handle.size)).collect();
        sizes.values().sum()
    }

    /// How large the state of each operator is, where it keeps any.
    #[must_use]
    pub fn state_sizes(&self) -> BTreeMap<OperatorId, StateSize> {
        let mut sizes = BTreeMap::new();
        for (operator, parts) in &self.operators {
            let handles = parts.iter().flat_map(|(_, part)| &part.state);
            // After a change of parallelism a file may be of several subtasks.
            let files: BTreeMap<&str, u64> = handles.map(|handle| (handle.path.as_str(), handle.size)).collect();
            let rows: Vec<u64> = parts.iter().filter_map(|(_, part)| part.state_rows).collect();
            if !files.is_empty() || !rows.is_empty() {
                sizes.insert(*operator, StateSize { rows: rows.iter().sum(), bytes: files.values().sum() });
            }
        }
        sizes
    }

    /// Bytes that were in flight when the barrier overtook them; none where every subtask has aligned it.
    #[must_use]
    pub fn in_flight_bytes(&self) -> Option<u64> {
        let parts = self.operators.values().flatten();
        let in_flight: Vec<_> = parts.filter_map(|(_, part)| part.in_flight.as_ref()).collect();
        let files = || in_flight.iter().flat_map(|part| &part.files);
        (!in_flight.is_empty()).then(|| files().map(|handle| handle.size).sum())
    }

    /// The longest that a subtask has aligned its barrier, in milliseconds; none where there was nothing to align.
    #[must_use]
    pub fn alignment_ms(&self) -> Option<u64> {
        self.operators.values().flatten().filter_map(|(_, part)| part.alignment_ms).max()
    }

    /// Checks that every state file that it names exists with its size and its checksum. Reads all of them.
    ///
    /// # Errors
    /// Names the first file that does not.
    pub async fn verify_files(&self, store: &CheckpointStore) -> Result<(), StateError> {
        // As a list of one type: else the compiler cannot tell that what calls this may change threads.
        let checks: Vec<BoxFuture<'_, _>> =
            self.files().map(|handle| store.verify(&self.job, handle).boxed()).collect();
        stream::iter(checks).buffered(CHECKED_AT_ONCE).try_collect().await
    }

    /// Checks that every state file that it names exists with its size. Reads none of them.
    ///
    /// # Errors
    /// Names the first file that does not.
    pub async fn verify_sizes(&self, store: &CheckpointStore) -> Result<(), StateError> {
        for handle in self.files() {
            store.verify_size(&self.job, handle).await?;
        }
        Ok(())
    }

    /// Every state file that it names, once, in the order of paths.
    pub fn files(&self) -> impl Iterator<Item = &StateHandle> {
        self.handles().map(|handle| (&handle.path, handle)).collect::<BTreeMap<_, _>>().into_values()
    }

    /// Every state file that it names, as often as it does.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &StateHandle> {
        self.operators.values().flatten().flat_map(|(_, snapshot)| snapshot.files())
    }

    fn encode(&self) -> Result<Vec<u8>, StateError> {
        let json =
            serde_json::to_vec(self).map_err(|e| StateError::Bug(format!("manifest of epoch {}: {e}", self.epoch)))?;
        Ok(seal(MAGIC, &json))
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        serde_json::from_slice(unseal(MAGIC, bytes)?).map_err(|e| format!("unreadable: {e}"))
    }
}

/// Puts a first line before a text that says what it is, how long, and with which checksum.
#[must_use]
pub fn seal(magic: &str, json: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{magic} crc32c={:08x} length={}\n", crc32c::crc32c(json), json.len()).into_bytes();
    bytes.extend_from_slice(json);
    bytes
}

/// The text behind a first line that fits it.
///
/// # Errors
/// What is wrong.
pub fn unseal<'a>(magic: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let line_end = bytes.iter().take(128).position(|b| *b == b'\n');
    let line_end = line_end.ok_or_else(|| format!("it does not begin with '{magic}'"))?;
    let json = &bytes[line_end + 1..];
    let expected = format!("{magic} crc32c={:08x} length={}", crc32c::crc32c(json), json.len());
    if bytes[..line_end] == *expected.as_bytes() {
        Ok(json)
    } else {
        Err("truncated, wrong checksum or unknown version".to_owned())
    }
}

impl CheckpointStore {
    /// Writes a manifest; durable on return. Repeating the same write is harmless.
    pub async fn write_manifest(&self, manifest: &Manifest) -> Result<ManifestRef, StateError> {
        self.write_manifest_after(manifest, 0).await
    }

    /// The same, by a coordinator that has taken the attempt over, after so many others. Those may still be about to write
    /// theirs of the same epoch, which differs; so each has a name of its own.
    pub async fn write_manifest_after(&self, manifest: &Manifest, adoptions: u32) -> Result<ManifestRef, StateError> {
        let after = if adoptions == 0 { String::new() } else { format!("-a{adoptions}") };
        let path = format!("manifests/{}-g{}{after}.manifest", manifest.epoch, manifest.generation);
        let bytes = Bytes::from(manifest.encode()?);
        let written = ManifestRef { path, size: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        self.put_new(&manifest.job, &written.path, bytes).await?;
        Ok(written)
    }

    /// Reads a manifest and checks that it is the one that was written for this job.
    pub async fn read_manifest(&self, job: &JobId, written: &ManifestRef) -> Result<Manifest, StateError> {
        let bytes = self.get(job, &written.path).await?;
        let corrupt = |reason: String| StateError::Corrupt { path: format!("jobs/{job}/{}", written.path), reason };
        if bytes.len() as u64 != written.size {
            return Err(corrupt(format!("it has {} bytes and was written with {}", bytes.len(), written.size)));
        }
        if crc32c::crc32c(&bytes) != written.crc32c {
            return Err(corrupt("wrong checksum".to_owned()));
        }
        decode_of(job, &bytes).map_err(corrupt)
    }

    /// Reads a manifest that was found by listing, and checks what it says of itself.
    pub async fn read_found_manifest(&self, job: &JobId, path: &str) -> Result<Manifest, StateError> {
        let bytes = self.get(job, path).await?;
        decode_of(job, &bytes).map_err(|reason| StateError::Corrupt { path: self.shown(job, path), reason })
    }
}

fn decode_of(job: &JobId, bytes: &[u8]) -> Result<Manifest, String> {
    let manifest = Manifest::decode(bytes)?;
    if manifest.job == *job { Ok(manifest) } else { Err(format!("it is of job '{}'", manifest.job)) }
}

#[cfg(test)]
mod tests;
