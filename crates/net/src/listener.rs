//! A listening port. Handshakes run beside each other and beside [`Listener::accept`], each with a bound in time, so that
//! neither strangers nor slow peers keep a node from hearing the others.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::error::NetError;
use crate::fabric::{Incoming, Port};
use crate::hello::{Admission, Service};
use crate::transport::{Connection, Transport};

/// Handshakes at a time; further peers wait in the system's queue until one of these has ended or run out of time.
const HANDSHAKES_MAX: usize = 256;
/// The pause after the system could not hand over a connection, for example for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So many failures in a row are no passing want.
const ACCEPT_FAILURES_MAX: u32 = 100;

/// A port that takes connections of other nodes.
pub struct Listener {
    port: Port,
    address: String,
    transport: Transport,
    admission: Admission,
    handshakes: JoinSet<Result<Connection, NetError>>,
    failures: u32,
    refused: u64,
    last_refusal: Option<String>,
}

impl Listener {
    pub(crate) async fn bind(transport: Transport, address: &str) -> Result<Listener, NetError> {
        let failed = |source| NetError::Listen { address: address.to_owned(), source };
        let (port, local) = match transport.fabric() {
            Some(fabric) => (Port::Fabric(fabric.listen(address).map_err(failed)?), address.to_owned()),
            None => {
                let tcp = TcpListener::bind(address).await.map_err(failed)?;
                let local = tcp.local_addr().map_err(failed)?.to_string();
                (Port::Tcp(tcp), local)
            }
        };
        Ok(Listener {
            port,
            address: local,
            transport,
            admission: Admission::default(),
            handshakes: JoinSet::new(),
            failures: 0,
            refused: 0,
            last_refusal: None,
        })
    }

    /// Lets in nodes of this cluster only. Without it, the name of the cluster is not looked at.
    #[must_use]
    pub fn of_cluster(mut self, cluster: impl Into<String>) -> Listener {
        self.admission.cluster = Some(cluster.into());
        self
    }

    /// Lets in connections for these services only. Without it, all come in.
    #[must_use]
    pub fn serving(mut self, services: &[Service]) -> Listener {
        self.admission.services = Some(services.to_vec());
        self
    }

    /// The address that is listened on, with its port.
    #[must_use]
    pub fn local_address(&self) -> String {
        self.address.clone()
    }

    /// How many connections came to nothing: no trust, no hello, another cluster, another version.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Why the last of them did.
    #[must_use]
    pub fn last_refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref()
    }

    /// The next connection whose handshake succeeded. Those that fail are counted, logged, and end nothing here. Cancel
    /// safe. Handshakes begin only while somebody waits here.
    ///
    /// # Errors
    /// [`NetError::Listen`] when the system has given no connection in many attempts; the port is of no use any more.
    pub async fn accept(&mut self) -> Result<Connection, NetError> {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => {
                    if let Some(connection) = self.shaken(ended) {
                        return Ok(connection);
                    }
                }
                accepted = self.port.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer),
                    Err(source) => {
                        self.failures += 1;
                        tracing::warn!(address = %self.address, error = %source, "cannot take a connection");
                        if self.failures >= ACCEPT_FAILURES_MAX {
                            return Err(NetError::Listen { address: self.address.clone(), source });
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn begin(&mut self, stream: Incoming, peer: String) {
        self.failures = 0;
        let transport = self.transport.clone();
        let admission = self.admission.clone();
        self.handshakes.spawn(async move { transport.admit(stream, &peer, &admission).await });
    }

    fn shaken(&mut self, ended: Result<Result<Connection, NetError>, JoinError>) -> Option<Connection> {
        let reason = match ended {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("a handshake ended by a bug: {error}"),
        };
        tracing::warn!(address = %self.address, %reason, "a connection came to nothing");
        self.refused += 1;
        self.last_refusal = Some(reason);
        None
    }
}
