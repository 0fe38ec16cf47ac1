//! What this coordinator proposes bears its name, its term and the time of its clock.

use std::sync::Arc;

use mainstem_consensus::{Consensus, ProposeError};
use mainstem_core::cluster::proposal::{Proposal, Stamp};
use mainstem_core::cluster::state::{Answer, Command};
use mainstem_rt::Clock;

use super::agreed::Agreed;

/// The way to agreement. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposer {
    pub(crate) consensus: Arc<Consensus<Agreed>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Proposer {
    /// Proposes what this coordinator has decided.
    pub(crate) async fn propose(&self, command: Command) -> Result<Answer, ProposeError> {
        self.propose_for(None, command).await
    }

    /// Proposes what a user wants.
    pub(crate) async fn propose_for(&self, user: Option<&str>, command: Command) -> Result<Answer, ProposeError> {
        let term = self.consensus.leadership().borrow().term;
        let stamp = Stamp { at: self.clock.now(), node: self.consensus.node(), term, user: user.map(str::to_owned) };
        self.consensus.propose(Proposal { stamp, command }).await
    }
}
