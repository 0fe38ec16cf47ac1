//! A node of the group, as its process sees it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstem_net::{Connection, NetError, serve_rpc};
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, InitializeError, RaftError};
use openraft::{BasicNode, ServerState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{ConsensusError, ProposeError};
use crate::guard::{Guard, Stop};
use crate::machine::{Machine, SharedState};
use crate::network::{Network, answer};
use crate::options::{COMMAND_BYTES_MAX, Options, PROPOSALS_MAX};
use crate::raft_types::Raft;
use crate::status::{Leadership, RaftStatus, Role};
use crate::store::{Identity, Store};
use crate::watcher::{Watcher, leadership};

/// Raft's threads: one for its core, one for messages that come meanwhile.
const RUNTIME_THREADS: usize = 2;
/// How long a first start waits for the other members to say that they know this node.
const MEET_TIMEOUT: Duration = Duration::from_secs(1);
/// How long tasks may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How the file is opened.
pub(crate) type OpenStore = fn(&Options) -> Result<(Store, Identity), ConsensusError>;

/// What is agreed on. Empty at the beginning; a snapshot is its JSON.
pub trait Replicated: Default + Clone + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// What is proposed. Its JSON stands in the log, and must stay readable for later releases.
    type Command: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What the proposer learns.
    type Reply: Serialize + DeserializeOwned + Send + 'static;

    /// Applies a decided command. Runs on every member, in the same order, and again after a restart: it may depend on the
    /// state, the index and the command only, does nothing outside, and must not panic. `index` grows with each command,
    /// with gaps, and is given to no other one.
    fn apply(&mut self, index: u64, command: Self::Command) -> Self::Reply;

    /// The members with a vote are these from here on, with their addresses. As for [`Replicated::apply`]; a joint majority
    /// on the way from some to others is not told.
    fn on_members(&mut self, members: &BTreeMap<u64, String>) {
        let _ = members;
    }
}

/// A node of the group. Cheap to clone; the node ends with [`Consensus::shutdown`] or with the last clone.
pub struct Consensus<S> {
    pub(crate) inner: Arc<Inner<S>>,
}

impl<S> Clone for Consensus<S> {
    fn clone(&self) -> Self {
        Consensus { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<S> {
    pub(crate) options: Options,
    pub(crate) raft: Raft,
    pub(crate) network: Network,
    pub(crate) stop: Stop,
    /// Changes of members, one at a time.
    pub(crate) membership: tokio::sync::Mutex<()>,
    state: Arc<SharedState<S>>,
    store: Store,
    guard: Arc<Guard>,
    leadership: watch::Receiver<Leadership>,
    proposals: Semaphore,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl<S> Drop for Inner<S> {
    fn drop(&mut self) {
        // Without waiting: a runtime must not be waited for on another one.
        if let Some(runtime) = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

impl<S: Replicated> Consensus<S> {
    /// Starts this node on threads of its own, from what its directory holds; at the first start of a founding member it
    /// begins the cluster. Returns before there is a leader.
    ///
    /// # Errors
    /// Options that do not fit, a directory that is damaged or not this node's, or members that know another node under
    /// its id.
    pub async fn start(options: Options) -> Result<Consensus<S>, ConsensusError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = options.disk.clone() {
            return Consensus::start_simulated(options, disk).await;
        }
        Consensus::start_on(options, |options| Store::open(&options.directory, options.node, &options.cluster)).await
    }

    /// The same with another way to the file.
    pub(crate) async fn start_on(options: Options, open: OpenStore) -> Result<Consensus<S>, ConsensusError> {
        let wrong = |reason| ConsensusError::Options { node: options.node, reason };
        options.validate().map_err(wrong)?;
        let config = Arc::new(options.raft_config().map_err(wrong)?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("consensus")
            .enable_all()
            .build()
            .map_err(|error| wrong(format!("its threads cannot be started: {error}")))?;
        let handle = runtime.handle().clone();
        let node = options.node;
        let started = handle.spawn(Consensus::start_within(options, config, runtime, open));
        match started.await {
            Ok(started) => started,
            Err(error) => Err(ConsensusError::Stopped { node, reason: format!("a bug: {error}") }),
        }
    }

    /// The same on the caller's runtime and a simulated disk.
    #[cfg(feature = "simulation")]
    async fn start_simulated(options: Options, disk: crate::disk::Disk) -> Result<Consensus<S>, ConsensusError> {
        let wrong = |reason| ConsensusError::Options { node: options.node, reason };
        options.validate().map_err(wrong)?;
        let config = Arc::new(options.raft_config().map_err(wrong)?);
        let (store, identity) = Store::simulated(disk, options.node, &options.cluster)?;
        Consensus::start_over(options, config, Background(None), store, identity).await
    }

    async fn start_within(
        options: Options,
        config: Arc<openraft::Config>,
        runtime: Runtime,
        open: OpenStore,
    ) -> Result<Consensus<S>, ConsensusError> {
        // A runtime must not be dropped on its own threads.
        let runtime = Background(Some(runtime));
        let (node, to_open) = (options.node, options.clone());
        let opened = tokio::task::spawn_blocking(move || open(&to_open)).await;
        let stopped = |reason: String| ConsensusError::Stopped { node, reason };
        let (store, identity) = opened.map_err(|error| stopped(error.to_string()))??;
        Consensus::start_over(options, config, runtime, store, identity).await
    }

    async fn start_over(
        options: Options,
        config: Arc<openraft::Config>,
        runtime: Background,
        store: Store,
        identity: Identity,
    ) -> Result<Consensus<S>, ConsensusError> {
        let node = options.node;
        let stopped = |reason: String| ConsensusError::Stopped { node, reason };
        let has_begun = !identity.founders.is_empty();
        let guard = Arc::new(Guard::load(identity, store.clone()).await?);
        let stop = Stop::new();
        let (transport, members) = (options.transport.clone(), options.members.clone());
        let network = Network::new(node, &options.cluster, transport, members, guard.clone(), stop.clone());
        let is_founder = options.members.contains_key(&node);
        if is_founder && !has_begun {
            meet_all(&network, &options).await?;
        }
        let snapshot = store.run(|file| file.snapshot()).await?;
        let state = Arc::new(SharedState::restore(snapshot).map_err(stopped)?);
        let machine = Machine { shared: state.clone(), store: store.clone() };
        let raft = Raft::new(node, config, network.clone(), store.clone(), machine)
            .await
            .map_err(|error| stopped(error.to_string()))?;
        if is_founder && !has_begun {
            guard.found(options.members.keys().copied()).await?;
        }
        if is_founder && guard.has_founders(options.members.keys()) {
            // Also where the first start ended just before this.
            begin(&raft, &options).await.map_err(stopped)?;
        }
        let (leading, leadership) = watch::channel(Leadership::default());
        let watcher = Watcher {
            raft: raft.clone(),
            store: store.clone(),
            network: network.clone(),
            stop: stop.clone(),
            leadership: leading,
            silence_max: options.timing.election_min,
            rest_max: options.timing.election_min,
        };
        let handle = Handle::current();
        handle.spawn(watcher.run());
        let inner = Inner {
            options,
            raft,
            network,
            stop,
            membership: tokio::sync::Mutex::default(),
            state,
            store,
            guard,
            leadership,
            proposals: Semaphore::new(PROPOSALS_MAX),
            handle,
            runtime: Mutex::new(runtime.take()),
        };
        Ok(Consensus { inner: Arc::new(inner) })
    }

    /// Answers the messages of a member that has connected for [`mainstem_net::Service::Raft`], until the connection ends
    /// or the future is dropped. The bytes are read where the connection was accepted, so that must be a runtime whose
    /// tasks do not hog it.
    pub fn serve(&self, connection: Connection) -> impl Future<Output = Result<(), NetError>> + Send + use<S> {
        let Inner { raft, guard, stop, handle, .. } = self.inner.as_ref();
        let (raft, guard, stop, handle) = (raft.clone(), guard.clone(), stop.clone(), handle.clone());
        async move {
            let peer = connection.peer.clone();
            let mut task = JoinSet::new();
            let handler = move |message| answer(raft.clone(), guard.clone(), stop.clone(), message);
            task.spawn_on(serve_rpc(connection, handler), &handle);
            match task.join_next().await {
                Some(Ok(ended)) => ended,
                Some(Err(_)) | None => Err(NetError::Closed { peer, place: "because this node has stopped" }),
            }
        }
    }

    /// Has the command decided and applied, and gives what applying it on this node gave. Only the leader can.
    ///
    /// # Errors
    /// [`ProposeError`], which says whether the command may have been decided.
    pub async fn propose(&self, command: S::Command) -> Result<S::Reply, ProposeError> {
        let inner = &self.inner;
        let refused = |error: serde_json::Error| ProposeError::Refused { reason: error.to_string() };
        let command = serde_json::to_string(&command).map_err(refused)?;
        if command.len() > COMMAND_BYTES_MAX {
            let reason = format!("it has {} bytes, at most {COMMAND_BYTES_MAX} are allowed", command.len());
            return Err(ProposeError::Refused { reason });
        }
        self.check_leads()?;
        let decided = async {
            let _turn = inner.proposals.acquire().await;
            inner.raft.client_write(command).await
        };
        match timeout(inner.options.timing.answer_max, decided).await {
            Ok(Ok(response)) => {
                let reply = response.data.as_deref().unwrap_or("null");
                serde_json::from_str(reply).map_err(|error| ProposeError::NoQuorum {
                    reason: format!("it was decided, but its answer cannot be understood: {error}"),
                })
            }
            Ok(Err(error)) => Err(self.write_error(error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// Looks at the state as it is after everything that was decided before the call. Only the leader can, after it has
    /// heard from a majority.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn read<R>(&self, look: impl FnOnce(&S) -> R) -> Result<R, ProposeError> {
        let inner = &self.inner;
        self.check_leads()?;
        match timeout(inner.options.timing.answer_max, inner.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(inner.state.read(look)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: self.leader_of(forward) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(error)))) => {
                Err(ProposeError::NoQuorum { reason: error.to_string() })
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.has_stopped(&fatal)),
            Err(_) => Err(self.no_answer()),
        }
    }

    /// Looks at the state as this node has it, which may be older than what others have seen.
    pub fn read_stale<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        self.inner.state.read(look)
    }

    /// Who leads, now and from now on.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The index of the last entry in the state, now and from now on; 0 also where there is none.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.state.index()
    }

    /// Why the node has stopped, once it has. Then the process should end: what it would say is old, and it does not come
    /// back by itself.
    #[must_use]
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.inner.stop.watch()
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.inner.options.node
    }

    /// What the node says about itself.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let inner = &self.inner;
        let metrics = inner.raft.metrics().borrow().clone();
        let membership = inner.state.membership();
        let address = |id: u64, node: &BasicNode| (id, inner.network.address(id, &node.addr));
        // Midway through a change, those of before it: until it is through it may come to nothing.
        let voters = membership.get_joint_config().first().cloned().unwrap_or_default();
        let (members, learners): (Vec<_>, Vec<_>) = membership.nodes().partition(|(id, _)| voters.contains(id));
        let role = if inner.stop.reason().is_some() { Role::Stopped } else { metrics.state.into() };
        RaftStatus {
            node: metrics.id,
            role,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed: inner.store.committed(),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            members: members.into_iter().map(|(id, node)| address(*id, node)).collect(),
            learners: learners.into_iter().map(|(id, node)| address(*id, node)).collect(),
        }
    }

    /// Entries in the log, as Raft counts them.
    #[cfg(test)]
    pub(crate) fn log_entries(&self) -> u64 {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let end = metrics.last_log_index.map_or(0, |index| index + 1);
        end - metrics.purged.map_or(0, |id| id.index + 1)
    }

    /// Ends the node in order, and closes its file.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.now("it was shut down");
        let _ = timeout(SHUTDOWN_TIMEOUT, inner.raft.shutdown()).await;
        let runtime = inner.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // Does not run on the node's own threads, which have nothing to do with the caller's.
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(SHUTDOWN_TIMEOUT)).await;
            if ended.is_err() {
                tracing::warn!(node = inner.options.node, "the threads of the node did not end in order");
            }
        }
        inner.store.close(SHUTDOWN_TIMEOUT).await;
    }

    /// Nothing that this node asks of Raft can succeed where another leads.
    pub(crate) fn check_leads(&self) -> Result<(), ProposeError> {
        let inner = &self.inner;
        if let Some(reason) = inner.stop.reason() {
            return Err(ProposeError::Stopped { reason });
        }
        let metrics = inner.raft.metrics().borrow().clone();
        let now = leadership(&metrics, &inner.network, inner.options.timing.election_min);
        if metrics.state != ServerState::Leader {
            return Err(ProposeError::NotLeader { leader: now.leader });
        }
        if now.leader.is_none() {
            // What was proposed now would only fill the log of a leader that is cut off.
            let silence = metrics.millis_since_quorum_ack.unwrap_or_default();
            return Err(ProposeError::NoQuorum {
                reason: format!("this leader has heard of no majority for {silence} ms; nothing was proposed"),
            });
        }
        Ok(())
    }

    pub(crate) fn write_error(&self, error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> ProposeError {
        match error {
            // This node led when it was asked, so its entry may have reached others before it was overruled.
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                ProposeError::NoQuorum { reason: "another node took the lead meanwhile".to_owned() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                ProposeError::Refused { reason: error.to_string() }
            }
            RaftError::Fatal(fatal) => self.has_stopped(&fatal),
        }
    }

    pub(crate) fn no_answer(&self) -> ProposeError {
        match self.inner.stop.reason() {
            Some(reason) => ProposeError::Stopped { reason },
            None => ProposeError::NoQuorum {
                reason: format!("no answer within {:?}", self.inner.options.timing.answer_max),
            },
        }
    }

    fn has_stopped(&self, fatal: &Fatal<u64>) -> ProposeError {
        ProposeError::Stopped { reason: self.inner.stop.reason().unwrap_or_else(|| fatal.to_string()) }
    }

    fn leader_of(&self, forward: ForwardToLeader<u64, BasicNode>) -> Option<(u64, String)> {
        let id = forward.leader_id?;
        let recorded = forward.leader_node.map(|node| node.addr).unwrap_or_default();
        Some((id, self.inner.network.address(id, &recorded)))
    }
}

/// A runtime that is ended without waiting, unless it is taken out.
struct Background(Option<Runtime>);

impl Background {
    fn take(mut self) -> Option<Runtime> {
        self.0.take()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Asks the other members, all at once, whether they know this node as another one.
async fn meet_all(network: &Network, options: &Options) -> Result<(), ConsensusError> {
    let mut asked = JoinSet::new();
    for other in options.members.keys().copied().filter(|id| *id != options.node) {
        let network = network.clone();
        asked.spawn(async move { network.meet(other, MEET_TIMEOUT).await });
    }
    for met in asked.join_all().await {
        met.map_err(|reason| ConsensusError::Identity {
            node: options.node,
            directory: options.directory.display().to_string(),
            reason,
        })?;
    }
    Ok(())
}

/// Begins the cluster with its founding members; each of them does, in the same way.
async fn begin(raft: &Raft, options: &Options) -> Result<(), String> {
    // Asked first, because Raft takes an attempt to begin again for an error and says so in the log.
    if raft.is_initialized().await.map_err(|fatal| fatal.to_string())? {
        return Ok(());
    }
    let members: BTreeMap<u64, BasicNode> =
        options.members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match raft.initialize(members).await {
        // Another member has begun it meanwhile.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
