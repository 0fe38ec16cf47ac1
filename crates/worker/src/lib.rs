//! A worker of a cluster: finds the coordinator that leads, runs the subtasks that it is given, and exchanges rows
//! with other workers. Whose word counts is decided by `mainstem_core::cluster::Fences`.

mod attempts;
mod following;
mod session;
mod uplink;

use std::sync::Arc;
use std::time::Duration;

use mainstem_core::cluster::messages::{FromWorker, WorkerId, WorkerOffer};
use mainstem_engine::{DataPlane, EngineError, MemoryBudget};
use mainstem_net::{Listener, NetError, Service, Transport};
use mainstem_rt::Clock;
use mainstem_state::LocalCopies;
use tokio::runtime::Handle;

use crate::attempts::{Attempts, AttemptsOptions};
use crate::session::{Met, Session};
use crate::uplink::Uplink;

pub use crate::attempts::Counters;

/// Wait between two tries to find the coordinator that leads.
const SEARCH_EVERY: Duration = Duration::from_millis(200);

/// A leader that was lost is looked at again when the others have been asked so often.
const OTHERS_FIRST: usize = 2;

/// What a worker is and where it finds its cluster.
pub struct WorkerOptions {
    /// This life of this worker; must differ from that of any other.
    pub worker: WorkerId,
    /// The cluster's name, the same on all of its nodes.
    pub cluster: String,
    /// Addresses of the coordinators.
    pub coordinators: Vec<String>,
    /// Where other workers reach it, where that is not where it listens.
    pub advertise: Option<String>,
    /// Subtasks of each task of a job that it runs at a time, over all jobs.
    pub slots: u32,
    /// Whether rows are compressed between workers.
    pub compress: bool,
    /// Plain or by TLS.
    pub transport: Transport,
    /// Where state files are kept that the worker has read or written, if they are.
    pub copies: Option<LocalCopies>,
    /// The memory of the worker.
    pub memory: Arc<MemoryBudget>,
    /// Its time of day.
    pub clock: Arc<dyn Clock>,
    /// Where subtasks run. Not the runtime on which the worker itself runs, which they must not starve.
    pub data_runtime: Handle,
    /// Where the attempts that run can be looked at.
    pub counters: Counters,
}

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Runs a worker until the future is dropped, over a listener on which other workers reach it.
///
/// # Errors
/// Where it cannot begin. A coordinator that cannot be found is waited for.
pub async fn run(options: WorkerOptions, mut listener: Listener) -> Result<(), WorkerError> {
    let WorkerOptions {
        worker,
        cluster,
        coordinators,
        advertise,
        slots,
        compress,
        transport,
        copies,
        memory,
        clock,
        data_runtime,
        counters,
    } = options;
    let data = Arc::new(DataPlane::new(worker.clone(), cluster.clone(), transport.clone(), compress)?);
    let data_address = advertise.unwrap_or_else(|| listener.local_address());
    let offer = WorkerOffer { worker, data_address, slots, draining: false };
    let uplink = Uplink::default();
    let (worker, runtime) = (offer.worker.clone(), data_runtime.clone());
    let of_attempts = AttemptsOptions { worker, copies, memory, clock, data_runtime: runtime, counters };
    let mut attempts = Attempts::new(of_attempts, data.clone(), uplink.clone());
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok(connection) if connection.hello.service == Service::Data => {
                    let (data, peer) = (data.clone(), connection.hello.node.clone());
                    data_runtime.spawn(async move {
                        let reason = data.serve(connection).await;
                        tracing::debug!(peer, reason, "another worker sends no more");
                    });
                }
                Ok(connection) => tracing::warn!(peer = connection.peer, "a worker takes only rows of other workers"),
                Err(error) => return error,
            }
        }
    };
    let telling = async {
        loop {
            let worker = data.unreachable().await;
            tracing::warn!(%worker, "cannot reach another worker");
            uplink.send(FromWorker::Unreachable { worker }).await;
        }
    };
    let following = follow(&coordinators, &cluster, &transport, offer, &uplink, &mut attempts);
    tokio::select! {
        error = accepting => Err(error.into()),
        () = following => Ok(()),
        never = telling => never,
    }
}

/// Stays with the coordinator that leads, whoever that is.
async fn follow(
    coordinators: &[String],
    cluster: &str,
    transport: &Transport,
    mut offer: WorkerOffer,
    uplink: &Uplink,
    attempts: &mut Attempts,
) {
    let mut known: Option<String> = None;
    let mut told = String::new();
    // The leader of a moment ago, and until which turn the others are asked before it: it may be there and not answer.
    let mut lost: Option<(String, usize)> = None;
    for turn in 0_usize.. {
        lost = lost.filter(|(_, until)| turn < *until);
        let is_lost = |address: &String| lost.as_ref().is_some_and(|(lost, _)| lost == address);
        let address = known.take().filter(|address| !is_lost(address));
        let address = address.unwrap_or_else(|| coordinators[turn % coordinators.len()].clone());
        if is_lost(&address) && coordinators.len() > 1 {
            tokio::time::sleep(SEARCH_EVERY / u32::try_from(coordinators.len()).unwrap_or(1)).await;
            continue;
        }
        let session = Session { address: &address, cluster, transport, uplink };
        match session.run(attempts, &mut offer).await {
            Met::Leader { reason } => {
                tracing::warn!(coordinator = address, reason, "lost the coordinator that leads; looking for the next");
                told.clear();
                lost = Some((address, turn + OTHERS_FIRST * coordinators.len()));
                continue;
            }
            // The leader of a moment ago may be gone: not asked twice in a row without a wait.
            Met::Follower { leader } if leader.as_deref() != Some(&address) => known = leader,
            Met::Follower { .. } => {}
            Met::Nobody { reason } => {
                if told != reason {
                    tracing::warn!(coordinator = address, reason, "no coordinator here; going on to look");
                    told = reason;
                }
            }
        }
        if known.is_none() {
            tokio::time::sleep(SEARCH_EVERY / u32::try_from(coordinators.len().max(1)).unwrap_or(1)).await;
        }
    }
}
