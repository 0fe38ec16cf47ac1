//! What a node says about itself and the others.

use std::collections::BTreeMap;

use openraft::ServerState;

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term of Raft, which has one leader at most. Never goes back.
    pub term: u64,
    /// The leader's id and address, where known. A leader that has lost its majority is none.
    pub leader: Option<(u64, String)>,
    /// Whether this node leads, has heard of a majority lately, and has applied everything up to and including the first
    /// entry of its term: from here on it acts on nothing old. A hint all the same; only what is proposed is certain.
    pub is_leader: bool,
    /// Where this node is no member, not yet or no more: the address of one that is. What this node knows of the group
    /// grows old, and is the better the later the node was removed; so whoever asks on finds the members that are left.
    pub instead: Option<String>,
}

impl Leadership {
    /// The address of who is to be asked instead of this node, where that is known.
    #[must_use]
    pub fn whom_to_ask(&self) -> Option<String> {
        let leader = || self.leader.as_ref().map(|(_, address)| address.clone());
        self.instead.clone().or_else(leader)
    }
}

/// The part that a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Proposes for all.
    Leader,
    /// Stands for election.
    Candidate,
    /// Votes and keeps the log.
    Follower,
    /// Keeps the log and has no vote, yet or any more.
    Learner,
    /// Takes no part any more.
    Stopped,
}

impl From<ServerState> for Role {
    fn from(state: ServerState) -> Role {
        match state {
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        }
    }
}

/// The state of a node. Indexes are of log entries, which begin at 0; `None` where there is none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    /// Its id.
    pub node: u64,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The last entry in its log.
    pub last_log: Option<u64>,
    /// The last entry that it knows to be decided.
    pub committed: Option<u64>,
    /// The last entry in its state.
    pub applied: Option<u64>,
    /// The last entry in its snapshot; earlier ones may be gone from the log.
    pub snapshot: Option<u64>,
    /// Who votes, by id, with addresses. Only what is decided: whoever asks may end a node that is no member any more, or
    /// count on one that is.
    pub members: BTreeMap<u64, String>,
    /// Who only listens, by id, with addresses.
    pub learners: BTreeMap<u64, String>,
}
