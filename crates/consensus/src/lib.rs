//! Agreement between the coordinators of a cluster: a state machine that is the same on all of them, changed only by what
//! a majority has written to disk. Raft, by openraft; the log, the votes and the snapshots lie in one redb file. No other
//! crate sees either of them.
//!
//! What is agreed on is up to the caller ([`Replicated`]). Nothing here decides anything about jobs.
//!
//! Invariants: a vote or an entry is acknowledged only after it is on disk; what a proposal was answered with is never
//! lost while a majority of the disks lives; a directory belongs to one node of one cluster, and a node whose directory
//! was lost cannot come back under its old id unnoticed; after an error of the disk the node stops and says why.

mod blocking;
mod consensus;
#[cfg(any(test, feature = "simulation"))]
mod disk;
mod error;
mod guard;
mod machine;
mod members;
mod network;
mod options;
mod raft_types;
#[cfg(feature = "simulation")]
pub mod simulation;
mod status;
mod store;
mod watcher;

#[cfg(test)]
mod tests;

pub use consensus::{Consensus, Replicated};
pub use error::{ConsensusError, MembershipError, ProposeError, StoreError};
pub use options::{Options, Timing};
pub use status::{Leadership, RaftStatus, Role};
