//! Who may take part. Each message between members says who sends it, to whom, and which incarnation of a node the sender
//! has met under each id. So a node whose disk was lost and which comes back under its old id is found out as soon as it
//! meets a member that knew it or has heard of it, before its vote or its acknowledgement counts. Whom nobody left alive
//! has met cannot be told from a new node.
//!
//! What is learnt is on disk before it is acted on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::StoreError;
use crate::store::{Identity, Store};

/// Nodes that a cluster has had in its life, those that are gone too: all are told of in every message.
const MET_MAX: usize = 1024;

/// What every message says of its sender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// For whom the message is.
    pub(crate) to: u64,
    /// Who sends it.
    pub(crate) node: u64,
    /// Which incarnation of it.
    pub(crate) incarnation: u64,
    /// With whom the sender's cluster began, where it knows.
    pub(crate) founders: Vec<u64>,
    /// Which incarnations the sender has met.
    pub(crate) met: BTreeMap<u64, u64>,
}

/// Why a message is not acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// It is wrong between the two, and configuration can mend it.
    Refuse(String),
    /// The sender is not the node that it was: it must stop.
    SenderReplaced(String),
    /// This node is not the one that the sender has met: it must stop.
    SelfReplaced(String),
    /// The disk failed.
    Store(String),
}

/// Ends the node, once and with the first reason.
#[derive(Clone)]
pub(crate) struct Stop {
    reason: watch::Sender<Option<String>>,
}

impl Stop {
    pub(crate) fn new() -> Stop {
        Stop { reason: watch::Sender::new(None) }
    }

    pub(crate) fn now(&self, reason: impl Into<String>) {
        self.reason.send_if_modified(|stopped| {
            let first = stopped.is_none();
            if first {
                *stopped = Some(reason.into());
            }
            first
        });
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.reason.subscribe()
    }
}

/// Knows this node and whom it has met.
pub(crate) struct Guard {
    me: Mutex<Identity>,
    met: Mutex<BTreeMap<u64, u64>>,
    /// What was logged last: messages come many times a second, and are refused for the same reason each time.
    complaint: Mutex<String>,
    store: Store,
}

impl Guard {
    pub(crate) async fn load(me: Identity, store: Store) -> Result<Guard, StoreError> {
        let met = store.run(|file| file.peers()).await?;
        Ok(Guard { me: Mutex::new(me), met: Mutex::new(met), complaint: Mutex::default(), store })
    }

    /// What this node says of itself to another.
    pub(crate) fn introduce(&self, to: u64) -> Introduction {
        let me = self.me();
        let founders = me.founders.iter().copied().collect();
        Introduction { to, node: me.node, incarnation: me.incarnation, founders, met: self.met().clone() }
    }

    /// Which incarnation this node is.
    pub(crate) fn incarnation(&self) -> u64 {
        self.me().incarnation
    }

    /// Records with whom the cluster has begun.
    pub(crate) async fn found(&self, founders: impl IntoIterator<Item = u64>) -> Result<(), StoreError> {
        let identity = {
            let mut me = self.me();
            me.founders = founders.into_iter().collect();
            me.clone()
        };
        self.store.run(move |file| file.set_identity(&identity)).await
    }

    /// Whether the cluster has begun with these.
    pub(crate) fn has_founders<'a>(&self, members: impl Iterator<Item = &'a u64>) -> bool {
        self.me().founders.iter().eq(members)
    }

    /// Judges the sender of a message.
    pub(crate) async fn check(&self, sender: &Introduction) -> Result<(), Objection> {
        let me = self.me().clone();
        if sender.to != me.node {
            return Err(Objection::Refuse(format!(
                "the message is for node {}, and this is node {}; check the addresses of the members",
                sender.to, me.node
            )));
        }
        if sender.node == me.node {
            return Err(Objection::Refuse(format!(
                "it comes from a second node {}; each needs an id of its own",
                me.node
            )));
        }
        if sender.met.get(&me.node).is_some_and(|met| *met != me.incarnation) {
            return Err(Objection::SelfReplaced(replaced(me.node, sender.node)));
        }
        let sender_founders = sender.founders.iter().copied().collect();
        if !sender.founders.is_empty() && !me.founders.is_empty() && me.founders != sender_founders {
            return Err(Objection::Refuse(format!(
                "node {} began its cluster with the members {:?}, node {} with {:?}; give all nodes the same members, and \
                 the one that is wrong an empty directory and a new id",
                sender.node, sender_founders, me.node, me.founders
            )));
        }
        let mut news = sender.met.clone();
        news.remove(&me.node);
        self.meet(sender.node, sender.incarnation, news).await
    }

    /// Judges who has answered.
    pub(crate) async fn check_answer(&self, node: u64, incarnation: u64) -> Result<(), Objection> {
        self.meet(node, incarnation, BTreeMap::new()).await
    }

    /// Logs why a member is refused, unless that was said last.
    pub(crate) fn complain(&self, reason: &str) {
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.as_str() != reason {
            tracing::error!(%reason, "a member is refused");
            reason.clone_into(&mut complaint);
        }
    }

    async fn meet(&self, node: u64, incarnation: u64, mut news: BTreeMap<u64, u64>) -> Result<(), Objection> {
        let update = {
            let met = self.met();
            if met.get(&node).is_some_and(|known| *known != incarnation) {
                return Err(Objection::SenderReplaced(replaced(node, self.me().node)));
            }
            news.insert(node, incarnation);
            let mut update = met.clone();
            // What this node has seen itself goes before what it hears.
            learn(&mut update, &news);
            if update.len() > MET_MAX {
                let advice = "take a savepoint of each job and begin a new cluster";
                return Err(Objection::Refuse(format!("more than {MET_MAX} nodes have been met; {advice}")));
            }
            (update != *met).then_some(update)
        };
        let Some(update) = update else { return Ok(()) };
        let on_disk = update.clone();
        self.store
            .run(move |file| {
                // Another message may have been here in the meantime.
                let mut merged = file.peers()?;
                learn(&mut merged, &on_disk);
                file.set_peers(&merged)
            })
            .await
            .map_err(|error| Objection::Store(error.to_string()))?;
        let mut met = self.met();
        learn(&mut met, &update);
        if met.get(&node) == Some(&incarnation) {
            return Ok(());
        }
        Err(Objection::SenderReplaced(replaced(node, self.me().node)))
    }

    fn me(&self) -> MutexGuard<'_, Identity> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds what is not known yet; what is known stays.
fn learn(known: &mut BTreeMap<u64, u64>, news: &BTreeMap<u64, u64>) {
    for (node, incarnation) in news {
        known.entry(*node).or_insert(*incarnation);
    }
}

fn replaced(node: u64, witness: u64) -> String {
    format!(
        "node {node} is not the one that node {witness} knows under this id: its directory was lost or replaced, and with it \
         what it had promised to the others; remove node {node} from the cluster and add one with a new id and an empty \
         directory"
    )
}
