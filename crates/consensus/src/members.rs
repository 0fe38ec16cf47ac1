//! Changing who belongs to the group. One change at a time; each goes through a joint majority of the old and the new
//! members.

use std::collections::BTreeSet;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::timeout;

use crate::consensus::{Consensus, Replicated};
use crate::error::{MembershipError, ProposeError};
use crate::options::MEMBERS_MAX;

impl<S: Replicated> Consensus<S> {
    /// Adds a member: it gets the log first, and its vote when it has caught up. Only on the leader. The node must be
    /// running, with an id that no node ever had and an empty directory.
    ///
    /// # Errors
    /// [`MembershipError`]; a node that does not catch up in time is taken out again.
    pub async fn add_member(&self, node: u64, address: impl Into<String>) -> Result<(), MembershipError> {
        let _change = self.begin_change()?;
        let status = self.status();
        if status.members.contains_key(&node) {
            return Err(refused(format!("node {node} is a member already")));
        }
        if node == 0 || status.members.len() + status.learners.len() >= MEMBERS_MAX {
            return Err(refused(format!("ids begin at 1, and there can be {MEMBERS_MAX} members at most")));
        }
        let timing = &self.inner.options.timing;
        let listening = self.inner.raft.add_learner(node, BasicNode::new(address.into()), false);
        let listening = match timeout(timing.answer_max, listening).await {
            Ok(Ok(response)) => response.log_id.index,
            Ok(Err(error)) => return Err(self.membership_error(error)),
            Err(_) => return Err(self.no_answer().into()),
        };
        if timeout(timing.catch_up_max, self.caught_up(node, listening)).await.is_ok() {
            return self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await;
        }
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await?;
        Err(refused(format!(
            "node {node} did not catch up within {:?} and was taken out again; is it running, and is its address right?",
            timing.catch_up_max
        )))
    }

    /// Waits until a listener has this entry: it then has all that was decided before it was added. A vote given earlier
    /// would let the group wait for a node that may not even be there.
    async fn caught_up(&self, node: u64, index: u64) {
        let mut metrics = self.inner.raft.metrics();
        let has_it = metrics.wait_for(|metrics| {
            let replicated = metrics.replication.as_ref().and_then(|others| others.get(&node).copied().flatten());
            replicated.is_some_and(|id| id.index >= index) || metrics.running_state.is_err()
        });
        // Without Raft there is nothing to wait for, and the change that follows says so.
        let _ = has_it.await;
    }

    /// Removes a member, which may be down; its id is not to be used again. Only on the leader, which may remove itself.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn remove_member(&self, node: u64) -> Result<(), MembershipError> {
        let _change = self.begin_change()?;
        let status = self.status();
        if status.learners.contains_key(&node) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await;
        }
        if !status.members.contains_key(&node) {
            return Err(refused(format!("node {node} is no member")));
        }
        if status.members.len() == 1 {
            return Err(refused("the last member cannot be removed".to_owned()));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
    }

    fn begin_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, MembershipError> {
        let change = self.inner.membership.try_lock();
        let change = change.map_err(|_| refused("another change is under way; wait for it".to_owned()))?;
        self.check_leads()?;
        Ok(change)
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>, retain: bool) -> Result<(), MembershipError> {
        let inner = &self.inner;
        match timeout(inner.options.timing.answer_max, inner.raft.change_membership(change, retain)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.membership_error(error)),
            Err(_) => Err(self.no_answer().into()),
        }
    }

    fn membership_error(&self, error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> MembershipError {
        match self.write_error(error) {
            ProposeError::Refused { reason } => refused(reason),
            error => error.into(),
        }
    }
}

fn refused(reason: String) -> MembershipError {
    MembershipError::Refused { reason }
}
