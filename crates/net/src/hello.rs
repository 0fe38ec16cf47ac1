//! The first frame of each connection and its answer, both JSON. Bounded, because it is read from strangers.

use serde::{Deserialize, Serialize};

/// What this build speaks. Raised with every change of a message that an older build would misread.
pub const PROTOCOL_VERSION: u32 = 2;
/// Bytes of a hello or of its answer, at most.
pub(crate) const HELLO_BYTES_MAX: usize = 4096;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Agreement between coordinators.
    Raft,
    /// A worker and the coordinators.
    Worker,
    /// A user's command.
    Client,
    /// Rows between workers.
    Data,
}

/// Who calls, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the caller speaks: [`PROTOCOL_VERSION`].
    pub version: u32,
    /// What it wants.
    pub service: Service,
    /// Its name, for messages.
    pub node: String,
    /// The cluster that it belongs to.
    pub cluster: String,
}

impl Hello {
    /// A hello of this build.
    #[must_use]
    pub fn new(service: Service, node: impl Into<String>, cluster: impl Into<String>) -> Hello {
        Hello { version: PROTOCOL_VERSION, service, node: node.into(), cluster: cluster.into() }
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Go on.
    Ok,
    /// No, and why.
    Refused(String),
}

/// What a listening side lets in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// The only cluster whose nodes are let in; any, where not set.
    pub(crate) cluster: Option<String>,
    /// What is offered; everything, where not set.
    pub(crate) services: Option<Vec<Service>>,
}

/// The one part of a hello that every version can read.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Admission {
    /// Reads a hello; the error is the reason to refuse it, addressed to the caller.
    pub(crate) fn check(&self, frame: &[u8]) -> Result<Hello, String> {
        let VersionOnly { version } = serde_json::from_slice(frame).map_err(|error| {
            format!("the first frame is no hello of Mainstem ({error}); is the port the right one?")
        })?;
        if version != PROTOCOL_VERSION {
            return Err(format!(
                "it speaks version {PROTOCOL_VERSION} of the protocol, the caller speaks version {version}; run the \
                 same release on all nodes"
            ));
        }
        let hello: Hello = serde_json::from_slice(frame).map_err(|error| format!("the hello is damaged: {error}"))?;
        if let Some(cluster) = &self.cluster
            && hello.cluster != *cluster
        {
            return Err(format!(
                "it belongs to cluster '{cluster}', the caller to cluster '{}'; check the addresses and the name of the \
                 cluster in both configurations",
                hello.cluster
            ));
        }
        if let Some(services) = &self.services
            && !services.contains(&hello.service)
        {
            return Err(format!("this port serves {services:?}, the caller wants {:?}; check the port", hello.service));
        }
        Ok(hello)
    }
}
