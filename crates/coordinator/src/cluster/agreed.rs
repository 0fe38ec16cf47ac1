//! What the coordinators agree on, as consensus keeps it. Every decision about it is made in `mainstem_core`.

use std::collections::BTreeMap;
use std::ops::Deref;

use mainstem_core::cluster::proposal::Proposal;
use mainstem_core::cluster::state::{Answer, ClusterState};
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
    type Command = Proposal;
    type Reply = Answer;

    fn apply(&mut self, _index: u64, proposal: Proposal) -> Answer {
        self.0.apply(proposal)
    }

    fn on_members(&mut self, members: &BTreeMap<u64, String>) {
        self.0.on_members(members);
    }
}
