//! Savepoints: checkpoints that belong to their users. A savepoint is a directory, or a prefix of keys of an object
//! store, that holds all that a restore needs, so it can be moved, copied and kept, and nothing of the job that it was taken of is asked for again. Format:
//! docs/formats/savepoint.md. When one is taken is decided by `mainstem_core::checkpoint`.

mod error;
mod read;
mod service;
mod write;

use std::path::{Component, Path};

use mainstem_core::ids::SavepointId;
use serde::{Deserialize, Serialize};

pub use self::error::SavepointError;
pub use self::read::OpenSavepoint;
pub use self::write::prepare_savepoints;
use crate::manifest::Manifest;

/// First word of a savepoint's description and the version of its format.
const MAGIC: &str = "mainstem-savepoint 1";
/// The file that describes a savepoint. Without it a directory is none.
const DESCRIPTION: &str = "savepoint";
/// First part of the name of a savepoint's directory.
const PREFIX: &str = "savepoint-";
/// Before the name of a directory that is not complete.
const UNFINISHED: &str = ".unfinished-";

/// What a savepoint says of itself; the files lie beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Which.
    pub id: SavepointId,
    /// The program that took it.
    pub version: String,
    /// The dataflow whose state it is, as the planner made it.
    pub graph_json: String,
    /// Of the SQL text that was planned.
    pub sql_hash: String,
    /// The checkpoint: job, epoch, positions of sources, state files with sizes and checksums.
    pub manifest: Manifest,
}

/// How far the files of a savepoint are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointProgress {
    /// Files that are done.
    pub files: u64,
    /// Of how many.
    pub files_all: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Of how many.
    pub bytes_all: u64,
}

impl Savepoint {
    /// Name of its directory.
    fn name(&self) -> String {
        let Manifest { job, epoch, generation, .. } = &self.manifest;
        format!("{PREFIX}{job}-{epoch}-g{generation}-{}", self.id)
    }

    /// Each state file once.
    fn files(&self) -> Vec<&mainstem_core::protocol::StateHandle> {
        let mut files: Vec<_> = self.manifest.handles().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        files
    }

    fn progress(&self) -> SavepointProgress {
        let files = self.files();
        SavepointProgress {
            files_all: files.len() as u64,
            bytes_all: files.iter().map(|file| file.size).sum(),
            ..SavepointProgress::default()
        }
    }
}

/// Whether a path of a description stays within its directory.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
