//! Rows between workers: one connection for each direction of a pair of workers, many channels over each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use mainstem_core::cluster::messages::{AttemptId, WorkerId, WorkerOffer};
use mainstem_core::ids::{Generation, JobId};
use mainstem_net::{Connection, Hello, Service, Transport};

use super::channel::ChannelReceiver;
use super::cut::Cut;
use super::inbox::Inbox;
use super::peer::{Peer, RemoteSender};
use super::wire::ChannelKey;
use crate::error::EngineError;

/// The streams between this worker and the others.
pub struct DataPlane {
    worker: WorkerId,
    cluster: String,
    transport: Transport,
    options: IpcWriteOptions,
    inbox: Inbox,
    /// Connections to other workers.
    peers: Mutex<BTreeMap<WorkerId, Arc<Peer>>>,
    cut: Arc<Cut>,
}

impl DataPlane {
    /// The data plane of a worker, over which nothing flows yet. `compress`: rows are compressed by LZ4, which is
    /// worth it where the network is slower than the cores.
    ///
    /// # Errors
    /// Where this build cannot compress.
    pub fn new(
        worker: WorkerId,
        cluster: String,
        transport: Transport,
        compress: bool,
    ) -> Result<DataPlane, EngineError> {
        let codec = compress.then_some(CompressionType::LZ4_FRAME);
        let options = IpcWriteOptions::default().try_with_compression(codec);
        let options = options.map_err(|error| EngineError::arrow("exchange", &error))?;
        let (inbox, peers, cut) = (Inbox::default(), Mutex::default(), Arc::default());
        Ok(DataPlane { worker, cluster, transport, options, inbox, peers, cut })
    }

    /// Takes in what another worker sends over a connection, until it ends. Gives the reason.
    pub async fn serve(&self, connection: Connection) -> String {
        self.inbox.serve(&self.worker, connection).await
    }

    /// From here on nothing of the job below the generation is taken (I3).
    pub fn fence(&self, job: &JobId, generation: Generation) {
        self.inbox.fence(job, generation);
    }

    /// The attempt has ended on this worker.
    pub fn forget(&self, attempt: &AttemptId) {
        self.inbox.forget(attempt);
    }

    /// Waits for the next worker that this one could not reach. Cancel-safe; for one caller.
    pub async fn unreachable(&self) -> WorkerId {
        self.cut.next().await
    }

    /// The receiving end of a channel from another worker.
    pub(crate) fn receiver(&self, key: ChannelKey) -> ChannelReceiver {
        ChannelReceiver::remote(self.inbox.expect(key))
    }

    /// The sending end of a channel to another worker.
    pub(crate) fn sender(&self, to: &WorkerOffer, key: ChannelKey) -> RemoteSender {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, peer| peer.is_alive());
        let peer = peers.entry(to.worker.clone()).or_insert_with(|| {
            let hello = Hello::new(Service::Data, &self.worker.0, &self.cluster);
            Peer::start(self.transport.clone(), to, hello, self.cut.clone())
        });
        peer.sender(key, self.options.clone())
    }
}
