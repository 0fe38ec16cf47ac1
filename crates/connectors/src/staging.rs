//! Output that waits for its epoch to be complete, for sinks whose target cannot keep it hidden: rows as files in the
//! job's state store, written by sink subtasks and read by the committer, wherever the two run. Called by such sinks.
//!
//! Invariants:
//! - A staged file is durable before the checkpoint that names it is reported, is written once and never changed.
//! - Names hold the attempt, so two attempts never write under the same one.
//! - A file goes only when its epoch is published, or with an attempt whose complete epochs all are.

mod kinds;
mod marker;
mod writer;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::FileReader;
use async_trait::async_trait;
use bytes::Bytes;
use mainstem_core::ids::{Generation, OperatorId};
use mainstem_core::protocol::Committable;
use serde::{Deserialize, Serialize};

use crate::error::{ConnectorError, ErrorKind};

pub(crate) use kinds::{add_kinds, with_kinds};
pub(crate) use marker::{Decision, Marker, decide, sink_name};
pub(crate) use writer::StagingWriter;

/// Where staged files of one job lie. Names hold no `/`.
#[async_trait]
pub trait StagingStore: fmt::Debug + Send + Sync {
    /// Writes a file that does not exist; durable on return. The very same bytes under the name are a success.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ConnectorError>;

    /// The bytes of a file; none where there is no such file.
    async fn get(&self, name: &str) -> Result<Option<Bytes>, ConnectorError>;

    /// Removes a file; one that is not there counts as removed.
    async fn remove(&self, name: &str) -> Result<(), ConnectorError>;

    /// The names of all files, in order. May miss what was written a moment ago.
    async fn list(&self) -> Result<Vec<String>, ConnectorError>;
}

/// The staged files of a job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Staging(Arc<dyn StagingStore>);

/// A staged file that a checkpoint names: the payload of a committable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    pub(crate) name: String,
    /// The attempt that wrote it.
    pub(crate) generation: Generation,
    /// Of its writer: tells a job from another of the same name whose state is gone, though all else be equal.
    pub(crate) nonce: u64,
    /// Size in bytes.
    pub(crate) size: u64,
    pub(crate) rows: u64,
    /// CRC-32C of the whole file.
    pub(crate) crc32c: u32,
}

impl Staging {
    /// Files in a store.
    #[must_use]
    pub fn new(store: Arc<dyn StagingStore>) -> Staging {
        Staging(store)
    }

    /// No place for files, where nothing is going to be staged: every use is an error.
    #[must_use]
    pub fn nowhere() -> Staging {
        Staging(Arc::new(Nowhere))
    }

    /// Where the files lie.
    pub(crate) fn store(&self) -> &dyn StagingStore {
        self.0.as_ref()
    }

    /// The rows of a file.
    pub(crate) async fn read(&self, file: &StagedFile) -> Result<Vec<RecordBatch>, ConnectorError> {
        let lost = |what: &str| {
            let message = format!(
                "the staged output '{}' is lost: {what}; it was removed or changed from outside, restore the state \
                 directory or restart the job from an earlier savepoint",
                file.name
            );
            ConnectorError::new(ErrorKind::Lost, message)
        };
        let bytes = self.0.get(&file.name).await?.ok_or_else(|| lost("the file is not there"))?;
        if (bytes.len() as u64, crc32c::crc32c(&bytes)) != (file.size, file.crc32c) {
            return Err(lost("its bytes are not those that were written"));
        }
        let batches = FileReader::try_new(std::io::Cursor::new(bytes), None).and_then(Iterator::collect);
        batches.map_err(|e| lost(&format!("it cannot be decoded: {e}")))
    }

    /// Removes files that are published. One that cannot be removed goes with the next clean-up.
    pub(crate) async fn remove(&self, files: &[StagedFile]) {
        for file in files {
            if let Err(error) = self.0.remove(&file.name).await {
                tracing::warn!(file = file.name, %error, "published output cannot be removed from where it was staged");
            }
        }
    }

    /// Removes what attempts have left of an operator's output.
    pub(crate) async fn clean_up(
        &self,
        operator: OperatorId,
        generations: &Range<Generation>,
    ) -> Result<(), ConnectorError> {
        for name in self.0.list().await? {
            if owner_of(&name).is_some_and(|(of, generation)| of == operator && generations.contains(&generation)) {
                self.0.remove(&name).await?;
            }
        }
        Ok(())
    }
}

impl StagedFile {
    pub(crate) fn to_committable(&self) -> Committable {
        Committable { payload: serde_json::to_string(self).expect("names and numbers have a JSON form") }
    }

    /// Reads a committable back. A name with a `/` is refused: it would lead elsewhere.
    pub(crate) fn of_committable(committable: &Committable) -> Result<StagedFile, ConnectorError> {
        let file: Option<StagedFile> = serde_json::from_str(&committable.payload).ok();
        file.filter(|file| !file.name.contains('/') && !file.name.starts_with('.')).ok_or_else(|| {
            let payload = &committable.payload;
            let message =
                format!("the checkpoint describes staged output as '{payload}', which this version cannot read");
            ConnectorError::data(message)
        })
    }
}

/// Name of the `number`-th file of a subtask's attempt. The epoch is no part of it, since a file may be written before its
/// epoch ends; the number comes first because the state store reads the attempt of every name behind one.
fn name_of(number: u64, generation: Generation, operator: OperatorId, subtask: u32) -> String {
    format!("{number}-g{generation}-{operator}-{subtask}.arrow")
}

/// The operator and the attempt of a name that was made here.
fn owner_of(name: &str) -> Option<(OperatorId, Generation)> {
    let mut parts = name.strip_suffix(".arrow")?.split('-');
    let (number, generation, operator, subtask) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    number.parse::<u64>().ok().zip(subtask.parse::<u32>().ok())?;
    let operator = operator.strip_prefix("op")?.parse().ok()?;
    let generation = generation.strip_prefix('g')?.parse().ok()?;
    parts.next().is_none().then_some((OperatorId(operator), Generation(generation)))
}

#[derive(Debug)]
struct Nowhere;

impl Nowhere {
    fn refused<T>() -> Result<T, ConnectorError> {
        Err(ConnectorError::new(ErrorKind::External, "bug: there is no place to stage output here; please report it"))
    }
}

#[async_trait]
impl StagingStore for Nowhere {
    async fn put(&self, _name: &str, _bytes: Bytes) -> Result<(), ConnectorError> {
        Nowhere::refused()
    }

    async fn get(&self, _name: &str) -> Result<Option<Bytes>, ConnectorError> {
        Nowhere::refused()
    }

    async fn remove(&self, _name: &str) -> Result<(), ConnectorError> {
        Nowhere::refused()
    }

    async fn list(&self) -> Result<Vec<String>, ConnectorError> {
        Nowhere::refused()
    }
}

/// Staging in memory, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    pub(crate) struct MemoryStore(Mutex<BTreeMap<String, Bytes>>);

    pub(crate) fn in_memory() -> Staging {
        Staging::new(Arc::new(MemoryStore::default()))
    }

    #[async_trait]
    impl StagingStore for MemoryStore {
        async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ConnectorError> {
            let mut files = self.0.lock().unwrap();
            let there = files.entry(name.to_owned()).or_insert_with(|| bytes.clone());
            let message = || format!("'{name}' exists with other content");
            if *there == bytes { Ok(()) } else { Err(ConnectorError::new(ErrorKind::External, message())) }
        }

        async fn get(&self, name: &str) -> Result<Option<Bytes>, ConnectorError> {
            Ok(self.0.lock().unwrap().get(name).cloned())
        }

        async fn remove(&self, name: &str) -> Result<(), ConnectorError> {
            self.0.lock().unwrap().remove(name);
            Ok(())
        }

        async fn list(&self) -> Result<Vec<String>, ConnectorError> {
            Ok(self.0.lock().unwrap().keys().cloned().collect())
        }
    }
}

#[cfg(test)]
mod tests;
