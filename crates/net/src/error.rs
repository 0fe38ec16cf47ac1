//! What can go wrong between two nodes. Each message says with whom, what, and what to do about it.

use std::io;

/// Which side of a connection found a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node called the other.
    Connecting,
    /// The other node called this one.
    Accepting,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Connecting => "connecting to",
            Side::Accepting => "accepting a connection from",
        })
    }
}

/// An error of a connection, or of what is needed for one.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A file of the TLS configuration cannot be used.
    #[error("cannot use the {what} '{path}': {reason}")]
    TlsFile {
        /// Which of the files.
        what: &'static str,
        /// Where it is.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on '{address}': {source}; give a free port of this host as host:port")]
    Listen {
        /// As it was given.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nobody answers at the address.
    #[error("cannot connect to '{peer}': {source}; is the node up, and is the address right?")]
    Connect {
        /// The address.
        peer: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The other side took too long.
    #[error("{side} '{peer}': no {what} within {timeout_ms} ms; the node or the network between is down or overloaded")]
    TimedOut {
        /// Who called.
        side: Side,
        /// The other side's address.
        peer: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        timeout_ms: u64,
    },
    /// The listening side understood the hello and does not want this connection.
    #[error("'{peer}' refuses the connection: {reason}")]
    Refused {
        /// The other side's address.
        peer: String,
        /// Its own words.
        reason: String,
    },
    /// This node does not want the connection of another.
    #[error("refused a connection from '{peer}': {reason}")]
    Unwanted {
        /// The other side's address.
        peer: String,
        /// What it was told.
        reason: String,
    },
    /// The two sides could not agree on TLS, or do not trust each other.
    #[error("TLS failed {side} '{peer}': {reason}")]
    Tls {
        /// Who called.
        side: Side,
        /// The other side's address.
        peer: String,
        /// Which side refuses what, and what to do.
        reason: String,
    },
    /// The connection ended where it should not have.
    #[error("'{peer}' closed the connection {place}")]
    Closed {
        /// The other side's address.
        peer: String,
        /// What was missing.
        place: &'static str,
    },
    /// Reading or writing failed.
    #[error("cannot {action} '{peer}': {source}")]
    Io {
        /// `read from` or `write to`.
        action: &'static str,
        /// The other side's address.
        peer: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A frame is larger than this connection allows.
    #[error("a frame of {bytes} bytes {direction} '{peer}', at most {bytes_max} are allowed")]
    FrameTooLarge {
        /// `from` or `to`.
        direction: &'static str,
        /// The other side's address.
        peer: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// What came is no message of this protocol.
    #[error("a message of '{peer}' cannot be understood: {reason}")]
    Message {
        /// The other side's address.
        peer: String,
        /// Why not.
        reason: String,
    },
    /// The connection stands, and nothing passes over it.
    #[error("'{peer}' takes nothing and says nothing any more; the node or the network between is down or overloaded")]
    Silent {
        /// The other side's address.
        peer: String,
    },
    /// An earlier write was given up half way, so nothing can follow it.
    #[error("the connection to '{peer}' ended in the middle of a frame; open another")]
    Broken {
        /// The other side's address.
        peer: String,
    },
}

impl NetError {
    /// Whether it is the network between the two that fails, rather than the other side: nothing came back in time, or there
    /// is no way to its host.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        match self {
            NetError::TimedOut { .. } | NetError::Silent { .. } => true,
            NetError::Connect { source, .. } | NetError::Io { source, .. } => {
                matches!(source.kind(), HostUnreachable | NetworkUnreachable | TimedOut)
            }
            _ => false,
        }
    }

    /// Whether the same attempt may succeed a little later without anybody doing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            NetError::Connect { .. }
            | NetError::TimedOut { .. }
            | NetError::Closed { .. }
            | NetError::Io { .. }
            | NetError::Silent { .. }
            | NetError::Broken { .. } => true,
            NetError::TlsFile { .. }
            | NetError::Listen { .. }
            | NetError::Refused { .. }
            | NetError::Unwanted { .. }
            | NetError::Tls { .. }
            | NetError::FrameTooLarge { .. }
            | NetError::Message { .. } => false,
        }
    }
}
