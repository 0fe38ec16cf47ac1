//! openraft's messages on our connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mainstem_net::{Hello, RpcClient, RpcError, Service, Transport};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::{Deserialize, Serialize};

use crate::guard::{Guard, Introduction, Objection, Stop};
use crate::raft_types::{Raft, SnapshotMeta, TypeConfig, Vote};

/// A member that could not be reached is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A message between members.
#[derive(Serialize, Deserialize)]
pub(crate) struct Message {
    from: Introduction,
    request: Request,
}

#[derive(Serialize, Deserialize)]
enum Request {
    /// Only the introduction counts.
    Meet,
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(SnapshotPart),
}

/// A part of a snapshot. Its bytes are JSON cut anywhere, so they travel as hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct SnapshotPart {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    data: String,
    done: bool,
}

/// An answer, and which incarnation of the node gives it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    incarnation: u64,
    answer: Answer,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Met,
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    /// The asking node is not who it was, and must stop.
    Replaced(String),
}

/// How a member is reached.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    node: u64,
    cluster: String,
    transport: Transport,
    /// Addresses that go before those in the log.
    addresses: BTreeMap<u64, String>,
    guard: Arc<Guard>,
    stop: Stop,
    /// One connection for each member, by id and address, whoever asks for it.
    clients: Mutex<BTreeMap<u64, (String, RpcClient)>>,
}

impl Network {
    pub(crate) fn new(
        node: u64,
        cluster: &str,
        transport: Transport,
        addresses: BTreeMap<u64, String>,
        guard: Arc<Guard>,
        stop: Stop,
    ) -> Network {
        let shared =
            Shared { node, cluster: cluster.to_owned(), transport, addresses, guard, stop, clients: Mutex::default() };
        Network { shared: Arc::new(shared) }
    }

    /// The address of a member; `recorded` is what the log says.
    pub(crate) fn address(&self, node: u64, recorded: &str) -> String {
        self.shared.addresses.get(&node).cloned().unwrap_or_else(|| recorded.to_owned())
    }

    /// Makes itself known to a member that the options name; the error is why this node must not run.
    pub(crate) async fn meet(&self, node: u64, time_max: Duration) -> Result<(), String> {
        let mut member = self.member(node, "");
        match member.ask(Request::Meet, time_max, false).await {
            Err(Unanswered { replaced: Some(reason), .. }) => Err(reason),
            // Who is not there, or not yet in order, is met later.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn member(&self, node: u64, recorded: &str) -> Member {
        let address = self.address(node, recorded);
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.get(&node) {
            Some((known, client)) if *known == address => client.clone(),
            _ => {
                let client = self.shared.client(&address);
                clients.insert(node, (address.clone(), client.clone()));
                client
            }
        };
        Member { node, address, client, snapshots: OnceLock::new(), shared: self.shared.clone() }
    }
}

impl Shared {
    fn client(&self, address: &str) -> RpcClient {
        let hello = Hello::new(Service::Raft, format!("coordinator {}", self.node), self.cluster.clone());
        RpcClient::new(self.transport.clone(), address, hello)
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Member;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Member {
        self.member(target, &node.addr)
    }
}

/// The way to one member.
pub(crate) struct Member {
    node: u64,
    address: String,
    client: RpcClient,
    /// Snapshots are large and go beside the heartbeats.
    snapshots: OnceLock<RpcClient>,
    shared: Arc<Shared>,
}

/// A message came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("node {node} at '{address}': {reason}")]
struct Unanswered {
    node: u64,
    address: String,
    reason: String,
    /// The member is not there at all; openraft then waits a little.
    is_unreachable: bool,
    /// The member says that this node is not who it was.
    replaced: Option<String>,
}

impl Unanswered {
    fn into_rpc<E: std::error::Error>(self) -> RPCError<u64, BasicNode, E> {
        if self.is_unreachable { Unreachable::new(&self).into() } else { NetworkError::new(&self).into() }
    }
}

impl Member {
    async fn ask(&mut self, request: Request, time_max: Duration, is_snapshot: bool) -> Result<Answer, Unanswered> {
        let failed = |reason: String, is_unreachable| Unanswered {
            node: self.node,
            address: self.address.clone(),
            reason,
            is_unreachable,
            replaced: None,
        };
        let guard = &self.shared.guard;
        let message = Message { from: guard.introduce(self.node), request };
        let client =
            if is_snapshot { self.snapshots.get_or_init(|| self.shared.client(&self.address)) } else { &self.client };
        let reply: Reply = client
            .call(&message, time_max)
            .await
            .map_err(|error| failed(error.to_string(), matches!(error, RpcError::Unreachable(_))))?;
        if let Answer::Replaced(reason) = reply.answer {
            self.shared.stop.now(reason.clone());
            return Err(Unanswered { replaced: Some(reason.clone()), ..failed(reason, true) });
        }
        // Before the answer counts.
        match guard.check_answer(self.node, reply.incarnation).await {
            Ok(()) => Ok(reply.answer),
            Err(Objection::Store(reason)) => {
                self.shared.stop.now(reason.clone());
                Err(failed(reason, true))
            }
            Err(Objection::Refuse(reason) | Objection::SenderReplaced(reason) | Objection::SelfReplaced(reason)) => {
                guard.complain(&reason);
                Err(failed(reason, true))
            }
        }
    }

    fn remote<E: std::error::Error>(&self, error: E) -> RPCError<u64, BasicNode, E> {
        RPCError::RemoteError(RemoteError::new(self.node, error))
    }

    fn misunderstood<E: std::error::Error>(&self) -> RPCError<u64, BasicNode, E> {
        let reason = format!("node {} gives an answer to another question", self.node);
        NetworkError::new(&AnyError::error(reason)).into()
    }
}

impl RaftNetwork<TypeConfig> for Member {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        match self.ask(Request::Append(rpc), option.hard_ttl(), false).await {
            Ok(Answer::Append(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(self.misunderstood()),
            Err(error) => Err(error.into_rpc()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        match self.ask(Request::Vote(rpc), option.hard_ttl(), false).await {
            Ok(Answer::Vote(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(self.misunderstood()),
            Err(error) => Err(error.into_rpc()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>> {
        let InstallSnapshotRequest { vote, meta, offset, data, done } = rpc;
        let part = SnapshotPart { vote, meta, offset, data: to_hex(&data), done };
        match self.ask(Request::Snapshot(part), option.hard_ttl(), true).await {
            Ok(Answer::Snapshot(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(self.misunderstood()),
            Err(error) => Err(error.into_rpc()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}

/// Answers a message of another member; the error is why it is not acted on.
pub(crate) async fn answer(raft: Raft, guard: Arc<Guard>, stop: Stop, message: Message) -> Result<Reply, String> {
    if let Some(reason) = stop.reason() {
        return Err(format!("the node has stopped: {reason}"));
    }
    let incarnation = guard.incarnation();
    match guard.check(&message.from).await {
        Ok(()) => {}
        Err(Objection::SenderReplaced(reason)) => {
            guard.complain(&reason);
            return Ok(Reply { incarnation, answer: Answer::Replaced(reason) });
        }
        Err(Objection::SelfReplaced(reason) | Objection::Store(reason)) => {
            stop.now(reason.clone());
            return Err(reason);
        }
        Err(Objection::Refuse(reason)) => {
            guard.complain(&reason);
            return Err(reason);
        }
    }
    let answer = match message.request {
        Request::Meet => Answer::Met,
        Request::Append(request) => Answer::Append(raft.append_entries(request).await),
        Request::Vote(request) => Answer::Vote(raft.vote(request).await),
        Request::Snapshot(SnapshotPart { vote, meta, offset, data, done }) => {
            let data = from_hex(&data).ok_or_else(|| "a part of a snapshot is damaged".to_owned())?;
            let request = InstallSnapshotRequest { vote, meta, offset, data, done };
            Answer::Snapshot(raft.install_snapshot(request).await)
        }
    };
    Ok(Reply { incarnation, answer })
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
