//! Two coordinators over loopback, one of which comes so late that it gets a snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mainstem_consensus::Options;
use mainstem_core::cluster::messages::WorkerId;
use mainstem_core::cluster::proposal::Note;
use mainstem_core::cluster::state::Command;
use mainstem_net::Transport;
use mainstem_rt::SystemClock;

use super::super::proposer::Proposer;
use super::*;
use crate::audit_files::{AuditOptions, AuditVerdict, verify};

struct Node {
    directory: tempfile::TempDir,
    address: String,
    consensus: Arc<Consensus<Agreed>>,
    proposer: Proposer,
}

impl Node {
    /// A node that keeps its audit files; the first one is the cluster, others wait to be added.
    async fn start(id: u64, founder: Option<&str>) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let mut listener = Transport::plain().listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let members = BTreeMap::from([(1, founder.unwrap_or(&address).to_owned())]);
        let mut options = Options::new(id, directory.path(), members, "test", Transport::plain());
        options.snapshot_after_entries = 10;
        let consensus = Arc::new(Consensus::<Agreed>::start(options).await.unwrap());
        let serving = consensus.clone();
        tokio::spawn(async move {
            while let Ok(connection) = listener.accept().await {
                tokio::spawn(serving.serve(connection));
            }
        });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let audit = AuditOptions {
            directory: directory.path().join("audit"),
            trail: "cluster test".to_owned(),
            node: id,
            bytes_max: 64 << 20,
        };
        let files = AuditFiles::open(audit).unwrap();
        tokio::spawn(keep_audit_files(consensus.clone(), clock.clone(), files));
        let proposer = Proposer { consensus: consensus.clone(), clock };
        Node { directory, address, consensus, proposer }
    }

    async fn note(&self, count: usize) {
        let drained = |number| Note::WorkerDrained { worker: WorkerId(format!("w{number}")) };
        let notes = (0..count).map(drained).collect();
        self.proposer.propose(Command::Notes { notes }).await.unwrap().unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        let audit: &Path = &self.directory.path().join("audit");
        std::fs::read_dir(audit).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits until the node's files hold all that it has applied, and at least so many decisions.
    async fn written(&self, least: u64) -> AuditVerdict {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let head = self.consensus.read_stale(|state| state.audit.head());
            match verify(&self.files()) {
                Ok(verdicts) if head.seq >= least && verdicts[0].found.head() == head => return verdicts[0].clone(),
                found => assert!(tokio::time::Instant::now() < deadline, "at {head:?}: {found:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_a_snapshot_declares_what_it_has_missed() {
    let first = Node::start(1, None).await;
    let mut leadership = first.consensus.leadership();
    leadership.wait_for(|leadership| leadership.is_leader).await.unwrap();
    // One more than those that are kept; the leader changes with the first.
    first.note(256).await;
    let whole = first.written(257).await;
    assert_eq!((whole.found.gaps(), whole.found.records()), (&[][..], 257));
    first.note(100).await;
    for _ in 0..100 {
        first.proposer.propose(Command::Settle).await.unwrap().unwrap();
    }
    let second = Node::start(2, Some(&first.address)).await;
    first.consensus.add_member(2, second.address.clone()).await.unwrap();
    first.note(3).await;
    let late = second.written(360).await;
    // The record of the leader and the newest 256 of its class were kept.
    assert_eq!(late.found.gaps(), [(2, 101)], "{late:?}");
    first.written(360).await;
    verify(&[first.files(), second.files()].concat()).unwrap();
    for node in [first, second] {
        node.consensus.shutdown().await;
    }
}
