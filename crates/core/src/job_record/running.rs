//! What is recorded of an attempt whose subtasks outlive the coordinator that drives it, so that another one can go on
//! with it.

use serde::{Deserialize, Serialize};

use crate::adoption::Journal;
use crate::cluster::messages::WorkerOffer;
use crate::ids::{Epoch, Generation};
use crate::time::Timestamp;

/// An attempt all of whose subtasks run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedAttempt {
    /// Its number.
    pub generation: Generation,
    /// The checkpoint that it started from; 0: from nothing.
    pub restored: Epoch,
    /// Subtasks of each operator that does not say otherwise.
    pub parallelism: u32,
    /// What the clock said in its first epoch.
    pub first_epoch_now: Timestamp,
    /// Epochs up to this one were run again first.
    pub replay_until: Option<Epoch>,
    /// The worker of each slot; subtask `i` of every task runs on slot `i`.
    pub slots: Vec<WorkerOffer>,
}

/// An attempt that runs, as a successor of its coordinator needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningAttempt {
    /// Where and from what it started.
    pub deployed: DeployedAttempt,
    /// How often another coordinator went on with it.
    pub adoptions: u32,
    /// What was decided about it since the newest complete epoch.
    pub journal: Journal,
}

impl RunningAttempt {
    /// An attempt that begins.
    #[must_use]
    pub fn new(deployed: DeployedAttempt) -> RunningAttempt {
        let journal = Journal::new(deployed.restored);
        RunningAttempt { deployed, adoptions: 0, journal }
    }
}
