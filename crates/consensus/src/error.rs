//! What can go wrong, by what the caller has to do.

/// The node cannot start, or could not end in order.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The options do not fit together.
    #[error("cannot start node {node}: {reason}")]
    Options {
        /// This node.
        node: u64,
        /// What to change.
        reason: String,
    },
    /// The directory belongs to somebody else, or its node has been replaced.
    #[error("node {node} must not run in '{directory}': {reason}")]
    Identity {
        /// This node.
        node: u64,
        /// Where its log is kept.
        directory: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The disk, or the log on it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node stopped before it was up.
    #[error("node {node} stopped while it started: {reason}")]
    Stopped {
        /// This node.
        node: u64,
        /// Why.
        reason: String,
    },
}

/// The file of the log cannot be used. Always the end of the node: what it has promised by its votes and
/// acknowledgements stands in that file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("cannot {action} '{path}': {reason}; mend the disk or its rights and start the node again")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// Another process, or another node of this one, has the file open.
    #[error("'{path}' is in use by another process; a directory serves one node at a time")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file holds something else than was written.
    #[error(
        "'{path}' is damaged: {reason}; do not start the node without it, its promises to the others stood there: remove \
         the node from the cluster and add one with a new id and an empty directory"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a proposal or a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none. Nothing was done; ask there.
    #[error("this node does not lead the cluster; {}", leader.as_ref().map_or_else(|| "no leader is known".to_owned(), |(id, address)| format!("node {id} at '{address}' does")))]
    NotLeader {
        /// Its id and address, where known.
        leader: Option<(u64, String)>,
    },
    /// No majority has answered in time. A proposal may still come to be, now or later: its outcome is unknown.
    #[error("no majority of the coordinators has agreed: {reason}")]
    NoQuorum {
        /// What happened.
        reason: String,
    },
    /// The command itself cannot be taken. Nothing was done.
    #[error("the command cannot be proposed: {reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
    /// This node takes no part any more; the process should end. The outcome of what was under way is unknown.
    #[error("this node has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// As with any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The change makes no sense, or another is under way.
    #[error("cannot change the members: {reason}")]
    Refused {
        /// Why not, and what to do.
        reason: String,
    },
}
