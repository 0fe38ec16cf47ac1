//! What the user does to the cluster itself: drains workers and takes them back.

use std::collections::BTreeSet;

use mainstem_coordinator::cluster::WorkerStatus;
use mainstem_core::cluster::messages::WorkerId;

use super::CommandLine;
use crate::cluster::Request;
use crate::simulation::weather::Host;

/// Something to be done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulation) enum Errand {
    /// Its process is ended and started again.
    Restart(Host),
}

/// See the module.
#[derive(Default)]
pub(super) struct Operator {
    /// The worker that is being drained, and until when the operator waits for it.
    draining: Option<(Host, u64)>,
    /// Those that were started again; another life of one has another id.
    taken_back: BTreeSet<WorkerId>,
}

impl Operator {
    /// What is begun and not at its end.
    pub(super) fn pending(&self) -> Option<String> {
        self.draining.map(|(host, _)| format!("worker {host} is drained"))
    }

    /// Drains a worker now and then, and takes it back when it is empty, or when that takes too long. One that is drained by
    /// a command that came late is taken back too.
    pub(super) async fn drain(&mut self, desk: &CommandLine, workers: &[WorkerStatus], may_begin: bool) {
        if may_begin && self.draining.is_none() && desk.draw(0, 9) == 0 {
            let all: Vec<Host> = Host::nodes().filter(|host| !host.is_coordinator()).collect();
            let host = all[desk.draw(0, all.len() as u32 - 1) as usize];
            let asked = desk.ask(&Request::Drain { worker: host.to_string() }, &format!("drain {host}")).await;
            if asked.is_done {
                self.draining = Some((host, desk.now_ms() + u64::from(desk.draw(500, 5_000))));
            }
        }
        let is_new = |worker: &&WorkerStatus| worker.offer.draining && !self.taken_back.contains(&worker.offer.worker);
        let drained: Vec<WorkerStatus> = workers.iter().filter(is_new).cloned().collect();
        for WorkerStatus { offer, used } in drained {
            let name = |host: &Host| offer.worker.is_named(&host.to_string());
            let Some(host) = Host::nodes().find(name) else { continue };
            let waits = |(drained, until): (Host, u64)| drained == host && desk.now_ms() < until;
            if used > 0 && self.draining.is_some_and(waits) {
                continue;
            }
            if used == 0 {
                desk.weather.count("workers that were drained");
            }
            desk.send(Errand::Restart(host));
            self.taken_back.insert(offer.worker);
            self.draining.take_if(|(drained, _)| *drained == host);
        }
        // It has been started again by itself, or nobody knows it.
        self.draining.take_if(|(_, until)| *until + 1_000 < desk.now_ms());
    }
}
