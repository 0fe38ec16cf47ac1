//! Durable state: the files of checkpoints, the manifests that list them, and the lock that keeps a second
//! process off a job. Every read is checked against size and checksums. Decides nothing about when a
//! checkpoint is taken or dropped: that is `mainstem_core::checkpoint`.

mod error;
#[cfg(test)]
mod golden;
mod inspect;
mod lock;
mod manifest;
mod savepoint;
#[cfg(feature = "simulation")]
pub mod simulation;
mod state_file;
mod store;

pub use error::{StateError, advice};
pub use inspect::{HotKey, InspectError, KeyCount, Spread, StateFiles, TableContent};
pub use lock::{JobLock, this_process};
pub use mainstem_core::protocol::ManifestRef;
pub use manifest::{Manifest, StateSize, seal, unseal};
pub use savepoint::{OpenSavepoint, Savepoint, SavepointError, SavepointProgress, prepare_savepoints};
pub use state_file::{GroupedTable, TableDelta};
pub use store::{
    CheckpointStore, CopyCounts, Copying, LocalCopies, Origin, OrphanReport, STAGED_DIRECTORY, StateBlock, StatePiece,
    StateRead,
};
