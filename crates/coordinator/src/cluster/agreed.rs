//! What the coordinators agree on, as consensus keeps it. Every decision about it is made in `mainstem_core`.

use std::ops::Deref;

use mainstem_core::cluster::state::{Answer, ClusterState, Command};
use serde::{Deserialize, Serialize};

/// The state of the cluster, replicated. Its JSON is that of [`ClusterState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Agreed(ClusterState);

impl Deref for Agreed {
    type Target = ClusterState;

    fn deref(&self) -> &ClusterState {
        &self.0
    }
}

impl mainstem_consensus::Replicated for Agreed {
    type Command = Command;
    type Reply = Answer;

    fn apply(&mut self, _index: u64, command: Command) -> Answer {
        self.0.apply_command(command)
    }
}
