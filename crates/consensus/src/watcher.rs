//! Tells callers what becomes of the node: who leads, and that it has stopped. One task beside Raft's own.

use std::time::Duration;

use openraft::ServerState;
use tokio::sync::watch;

use crate::guard::Stop;
use crate::network::Network;
use crate::options::LOG_BYTES_MAX;
use crate::raft_types::{Metrics, Raft};
use crate::status::Leadership;
use crate::store::Store;

/// What the task works on.
pub(crate) struct Watcher {
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) stop: Stop,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// A leader that has heard of no majority for so long is none.
    pub(crate) silence_max: Duration,
}

impl Watcher {
    /// Runs until the node stops, and then makes Raft stop too.
    pub(crate) async fn run(self) {
        let mut metrics = self.raft.metrics();
        let mut stopped = self.stop.watch();
        loop {
            let now = metrics.borrow_and_update().clone();
            if let Err(fatal) = &now.running_state {
                self.stop.now(fatal.to_string());
                break;
            }
            let leadership = leadership(&now, &self.network, self.silence_max);
            self.leadership.send_if_modified(|known| {
                let is_new = *known != leadership;
                if is_new {
                    *known = leadership;
                }
                is_new
            });
            self.bound_log(&now).await;
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    self.stop.now("Raft has ended");
                    break;
                },
                _ = stopped.wait_for(Option::is_some) => break,
            }
        }
        self.leadership.send_modify(|known| *known = Leadership { term: known.term, ..Leadership::default() });
        // Its tasks have ended where it failed; that is what was wanted.
        let _ = self.raft.shutdown().await;
    }

    /// Few entries may be large: then the log is cut before its time, and to the last entry of the snapshot.
    async fn bound_log(&self, now: &Metrics) {
        if self.store.log_bytes() <= LOG_BYTES_MAX {
            return;
        }
        let trigger = self.raft.trigger();
        // A node that has stopped does neither, and its log grows no more.
        let _ = match now.snapshot {
            Some(snapshot) if now.snapshot > now.purged => trigger.purge_log(snapshot.index).await,
            _ if now.last_applied > now.snapshot => trigger.snapshot().await,
            _ => Ok(()),
        };
    }
}

/// What the numbers say about who leads.
pub(crate) fn leadership(now: &Metrics, network: &Network, silence_max: Duration) -> Leadership {
    let term = now.current_term;
    let leads = now.state == ServerState::Leader;
    let silence = now.millis_since_quorum_ack.map(Duration::from_millis);
    let is_cut_off = leads && silence.is_some_and(|silence| silence > silence_max);
    let is_current = now.last_applied.is_some_and(|id| id.leader_id.term == term);
    let is_leader = leads && !is_cut_off && is_current && silence.is_some();
    let leader = if is_cut_off { None } else { now.current_leader };
    let leader = leader.map(|id| {
        let recorded = now.membership_config.membership().get_node(&id).map_or("", |node| node.addr.as_str());
        (id, network.address(id, recorded))
    });
    Leadership { term, leader, is_leader }
}
