//! Tells callers what becomes of the node: who leads, and that it has stopped. One task beside Raft's own.

use std::time::Duration;

use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

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
    /// For how long a candidate waits at most after an election in vain.
    pub(crate) rest_max: Duration,
}

impl Watcher {
    /// Runs until the node stops, and then makes Raft stop too.
    pub(crate) async fn run(self) {
        let mut metrics = self.raft.metrics();
        let mut stopped = self.stop.watch();
        let mut rest = Rest::default();
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
            let until = rest.after(&now, || Instant::now() + self.rest_max.mul_f64(rand::random()));
            self.raft.runtime_config().elect(until.is_none());
            tokio::select! {
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => rest.is_over = true,
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

/// How long a candidate that was not elected lets others stand before it does so again: a random time after each election.
///
/// openraft 0.9 draws a node's election time-out once, at its start, and looks at it with each tick. So two nodes whose
/// ticks coincide would stand at the same instants for ever, each with its own vote, and nobody would lead. The time-out
/// must be drawn anew for each election (D. Ongaro, J. Ousterhout, "In Search of an Understandable Consensus Algorithm",
/// section 5.2).
#[derive(Debug, Default)]
struct Rest {
    /// The term in which the node stood last, and until when it rests since.
    stood: Option<(u64, Instant)>,
    /// Set once that moment has come.
    is_over: bool,
}

impl Rest {
    /// Until when the node does not stand for election, where it rests; `draw` says until when after a new one.
    fn after(&mut self, now: &Metrics, draw: impl FnOnce() -> Instant) -> Option<Instant> {
        if now.state != ServerState::Candidate {
            *self = Rest::default();
        } else if self.stood.is_none_or(|(term, _)| term != now.current_term) {
            *self = Rest { stood: Some((now.current_term, draw())), is_over: false };
        }
        self.stood.filter(|_| !self.is_over).map(|(_, until)| until)
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
    let group = now.membership_config.membership();
    let address = |id: u64| {
        let recorded = group.get_node(&id).map_or("", |node| node.addr.as_str());
        network.address(id, recorded)
    };
    let is_member = |node: u64| group.voter_ids().any(|id| id == node);
    // One that was removed while it led goes on to name itself.
    let leader = now.current_leader.filter(|leader| !is_cut_off && is_member(*leader));
    let instead = if is_member(now.id) { None } else { group.voter_ids().min().map(address) };
    Leadership { term, leader: leader.map(|id| (id, address(id))), is_leader, instead }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(state: ServerState, term: u64) -> Metrics {
        Metrics { state, current_term: term, ..Metrics::new_initial(1) }
    }

    #[test]
    fn a_candidate_rests_once_after_each_election_and_nobody_else_does() {
        let begun = Instant::now();
        let later = |ms| begun + Duration::from_millis(ms);
        let mut rest = Rest::default();
        assert_eq!(rest.after(&metrics(ServerState::Follower, 1), || unreachable!()), None);
        assert_eq!(rest.after(&metrics(ServerState::Candidate, 2), || later(70)), Some(later(70)));
        assert_eq!(rest.after(&metrics(ServerState::Candidate, 2), || later(9)), Some(later(70)), "still the same one");
        rest.is_over = true;
        assert_eq!(rest.after(&metrics(ServerState::Candidate, 2), || later(9)), None);
        assert_eq!(rest.after(&metrics(ServerState::Candidate, 3), || later(30)), Some(later(30)));
        assert_eq!(rest.after(&metrics(ServerState::Leader, 3), || unreachable!()), None);
        assert_eq!(rest.after(&metrics(ServerState::Follower, 4), || unreachable!()), None);
        assert_eq!(rest.after(&metrics(ServerState::Candidate, 5), || later(0)), Some(later(0)));
    }
}
