//! What the state files of a checkpoint or a savepoint hold, for people: rows by table, how many keys, which of them have
//! most rows, how the rows are spread over key groups; and whether every byte is what was written. Called by the commands
//! that look at state. Only reads, needs no running job, and knows no operator: what a table is for is its name.
//!
//! Keys are counted exactly, and in bounded memory: a key lies in one key group, so a large state is gone through a range
//! of key groups at a time.

mod keys;

use std::collections::BTreeMap;

use mainstem_core::ids::JobId;
use mainstem_core::key_group::KeyGroupRange;
use mainstem_core::protocol::{OperatorSnapshot, StateHandle};
use serde::Serialize;

use self::keys::Tables;
use crate::error::StateError;
use crate::savepoint::{OpenSavepoint, SavepointError};
use crate::store::{CheckpointStore, Piece, pieces_of};

/// Bytes of state files whose keys are held in memory at a time, about.
const PASS_BYTES: u64 = 32 << 20;

/// Why state cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A checkpoint.
    #[error(transparent)]
    State(#[from] StateError),
    /// A savepoint.
    #[error(transparent)]
    Savepoint(#[from] SavepointError),
}

/// A table of an operator's state, as the files of a checkpoint hold it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableContent {
    /// Name of the table, the operator's own.
    pub table: String,
    /// Version of its layout.
    pub version: u32,
    /// Rows in the files. State is kept as its changes, so a row that has changed counts as often until the files are
    /// written anew.
    pub rows: u64,
    /// Bytes of the files that hold them.
    pub bytes: u64,
    /// Columns, as `name type`.
    pub columns: Vec<String>,
    /// The keys; none where the table has no key, or was written before tables said what it is.
    pub keys: Option<KeyCount>,
    /// How rows are spread over the key groups.
    pub spread: Spread,
}

/// The keys of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyCount {
    /// Names of the key's columns.
    pub columns: Vec<String>,
    /// How many keys there are.
    pub keys: u64,
    /// Keys with more than one row, those with most rows first; at most as many as were asked for.
    pub hot: Vec<HotKey>,
}

/// A key and its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HotKey {
    /// The values of its columns, as text.
    pub key: Vec<String>,
    /// Rows of it.
    pub rows: u64,
}

/// How rows are spread over key groups.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Key groups of the job.
    pub key_groups: u16,
    /// Those with rows.
    pub used: u16,
    /// Rows of the fullest group, by the average over those that have rows.
    pub skew: f64,
    /// The fullest groups with their rows; at most as many as were asked for.
    pub fullest: Vec<(u16, u64)>,
}

/// The files of a checkpoint or a savepoint.
#[derive(Clone, Debug)]
pub enum StateFiles {
    /// Of a checkpoint of the job.
    Checkpoint(CheckpointStore, JobId),
    /// Of a savepoint.
    Savepoint(Box<OpenSavepoint>),
}

impl StateFiles {
    /// What the subtasks of an operator keep, by table. `top`: so many keys and groups are named.
    ///
    /// # Errors
    /// Names the first file that cannot be read as it was written.
    pub async fn tables(
        &self,
        parts: &[(u32, OperatorSnapshot)],
        key_groups: u16,
        top: usize,
    ) -> Result<Vec<TableContent>, InspectError> {
        let handles: Vec<&StateHandle> = parts.iter().flat_map(|(_, part)| &part.state).collect();
        let files: BTreeMap<&str, u64> = handles.iter().map(|handle| (handle.path.as_str(), handle.size)).collect();
        let passes = files.values().sum::<u64>().div_ceil(PASS_BYTES).clamp(1, u64::from(key_groups.max(1)));
        let bound = |pass: u64| u16::try_from(pass * u64::from(key_groups) / passes).unwrap_or(u16::MAX);
        let mut tables = Tables::default();
        for pass in 0..passes {
            let range = KeyGroupRange { start: bound(pass), end: bound(pass + 1) };
            for handle in &handles {
                // After a change of parallelism a file is of several subtasks, each with its groups.
                let wanted = handle.key_groups.intersection(&range);
                if wanted.start < wanted.end {
                    for piece in self.read(handle, wanted).await? {
                        tables.add(&piece);
                    }
                }
            }
            tables.end_pass(top);
        }
        Ok(tables.finish(key_groups, top))
    }

    /// Checks that a file exists and that every byte of it is what was written, and makes sense.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub async fn verify(&self, handle: &StateHandle) -> Result<(), InspectError> {
        self.read(handle, KeyGroupRange { start: 0, end: u16::MAX }).await.map(|_| ())
    }

    async fn read(&self, handle: &StateHandle, range: KeyGroupRange) -> Result<Vec<Piece>, InspectError> {
        match self {
            StateFiles::Checkpoint(store, job) => Ok(store.read_pieces(job, handle, range).await?),
            StateFiles::Savepoint(savepoint) => {
                let bytes = savepoint.read(handle).await?;
                let damaged = |reason| SavepointError::Damaged {
                    savepoint: savepoint.directory().display().to_string(),
                    file: handle.path.clone(),
                    reason: format!("is damaged: {reason}"),
                };
                Ok(pieces_of(&bytes, range).map_err(damaged)?)
            }
        }
    }
}

#[cfg(test)]
mod tests;
