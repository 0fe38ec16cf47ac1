//! A group of nodes whose connections can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstem_net::{Listener, Service, Transport};
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};

use super::{Lines, soon, until};
use crate::{Consensus, ConsensusError, Options, ProposeError};

pub(super) const NAME: &str = "test";

/// A node that runs.
struct Running {
    consensus: Consensus<Lines>,
    port: JoinHandle<()>,
}

/// A group of nodes.
pub(super) struct Cluster {
    directories: TempDir,
    pub(super) members: BTreeMap<u64, String>,
    running: BTreeMap<u64, Running>,
    /// Pairs that do not hear each other, as (from, to).
    cuts: Arc<Mutex<BTreeSet<(u64, u64)>>>,
    pub(super) snapshot_after_entries: u64,
    pub(super) catch_up_max: Duration,
}

impl Cluster {
    /// A group of so many founding members, none of which runs yet.
    pub(super) async fn new(size: u64) -> Cluster {
        let mut members = BTreeMap::new();
        for node in 1..=size {
            members.insert(node, free_address().await);
        }
        Cluster {
            directories: TempDir::new().expect("a directory"),
            members,
            running: BTreeMap::new(),
            cuts: Arc::default(),
            snapshot_after_entries: 1000,
            catch_up_max: Duration::from_secs(10),
        }
    }

    /// The same, running.
    pub(super) async fn started(size: u64) -> Cluster {
        let mut cluster = Cluster::new(size).await;
        cluster.start_all().await;
        cluster
    }

    pub(super) async fn start_all(&mut self) {
        for node in self.members.clone().into_keys() {
            self.start(node).await.expect("the node starts");
        }
    }

    pub(super) fn directory(&self, node: u64) -> PathBuf {
        self.directories.path().join(node.to_string())
    }

    pub(super) fn options(&self, node: u64) -> Options {
        let mut options = Options::new(node, self.directory(node), self.members.clone(), NAME, Transport::plain());
        options.snapshot_after_entries = self.snapshot_after_entries;
        options.timing.answer_max = Duration::from_secs(3);
        options.timing.catch_up_max = self.catch_up_max;
        options
    }

    pub(super) async fn start(&mut self, node: u64) -> Result<(), ConsensusError> {
        let address = self.members[&node].clone();
        self.start_with(self.options(node), &address).await
    }

    pub(super) async fn start_with(&mut self, options: Options, address: &str) -> Result<(), ConsensusError> {
        let node = options.node;
        let listener = soon(listen(address)).await;
        let consensus = soon(Consensus::start(options)).await?;
        self.serve(node, consensus, listener);
        Ok(())
    }

    pub(super) fn serve(&mut self, node: u64, consensus: Consensus<Lines>, listener: Listener) {
        let port = tokio::spawn(serve(node, listener, consensus.clone(), self.cuts.clone()));
        self.running.insert(node, Running { consensus, port });
    }

    pub(super) async fn stop(&mut self, node: u64) {
        let Running { consensus, port } = self.running.remove(&node).expect("the node runs");
        port.abort();
        soon(consensus.shutdown()).await;
        // Its connections go with its port.
        let _ = soon(port).await;
    }

    pub(super) async fn stop_all(&mut self) {
        for node in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(node).await;
        }
    }

    pub(super) fn node(&self, node: u64) -> Consensus<Lines> {
        self.running[&node].consensus.clone()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (u64, &Consensus<Lines>)> {
        self.running.iter().map(|(id, running)| (*id, &running.consensus))
    }

    /// Cuts a node off from all others, in both directions, and waits until no message passes any more.
    pub(super) async fn isolate(&self, node: u64) {
        let others = self.members.keys().filter(|other| **other != node);
        let pairs: Vec<_> = others.flat_map(|other| [(node, *other), (*other, node)]).collect();
        self.cuts.lock().expect("no panic").extend(pairs);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(super) fn heal(&self) {
        self.cuts.lock().expect("no panic").clear();
    }

    /// Waits for a node among these that leads.
    pub(super) async fn leader_among(&self, nodes: &[u64]) -> u64 {
        let leads = |node: &&u64| self.running[node].consensus.leadership().borrow().is_leader;
        until("a leader", || nodes.iter().any(|node| leads(&node))).await;
        *nodes.iter().find(leads).expect("it has just been there")
    }

    pub(super) async fn leader(&self) -> u64 {
        let nodes: Vec<u64> = self.running.keys().copied().collect();
        self.leader_among(&nodes).await
    }

    /// Has a line decided, wherever the leader is.
    pub(super) async fn say(&self, line: &str) {
        let said = async {
            loop {
                let leader = self.leader().await;
                match self.node(leader).propose(line.to_owned()).await {
                    Ok(_) => return,
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(error) => panic!("'{line}' is not decided: {error}"),
                }
            }
        };
        soon(said).await;
    }

    /// Waits until all that run have these lines.
    pub(super) async fn all_have(&self, lines: &[String]) {
        for (node, consensus) in self.nodes() {
            let have = || consensus.read_stale(|state| state.lines == lines);
            until(&format!("{} lines on node {node}", lines.len()), have).await;
        }
    }
}

pub(super) fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("line {i}")).collect()
}

/// An address that nothing uses and no other test gets. Below the ports that the system gives to connections, so that
/// none of these takes it while its node is down.
pub(super) async fn free_address() -> String {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(20_000..32_000);
        let is_new = GIVEN.lock().expect("no panic").insert(port);
        let address = format!("127.0.0.1:{port}");
        if is_new && Transport::plain().listen(&address).await.is_ok() {
            return address;
        }
    }
}

/// The port of a node that has just stopped may be free a moment later only.
pub(super) async fn listen(address: &str) -> Listener {
    loop {
        if let Ok(listener) = Transport::plain().listen(address).await {
            return listener.of_cluster(NAME).serving(&[Service::Raft]);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn serve(node: u64, mut listener: Listener, consensus: Consensus<Lines>, cuts: Arc<Mutex<BTreeSet<(u64, u64)>>>) {
    let mut connections = JoinSet::new();
    while let Ok(connection) = listener.accept().await {
        let from: u64 = connection.hello.node.rsplit(' ').next().and_then(|id| id.parse().ok()).expect("a member");
        let cuts = cuts.clone();
        let serving = consensus.serve(connection);
        connections.spawn(async move {
            let cut = async {
                while !cuts.lock().expect("no panic").contains(&(from, node)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                biased;
                () = cut => {}
                _ = serving => {}
            }
        });
    }
}
