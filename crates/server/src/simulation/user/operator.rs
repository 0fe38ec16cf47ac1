//! What the user does to the cluster itself: drains workers and takes them back; removes coordinators, whose disks may be lost,
//! and adds others in their place, one at a time and each with an id that none ever had.

use std::collections::{BTreeMap, BTreeSet};

use mainstem_coordinator::cluster::WorkerStatus;
use mainstem_core::cluster::messages::WorkerId;

use super::CommandLine;
use crate::cluster::Request;
use crate::simulation::weather::{COORDINATORS, Host};

/// Something to be done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulation) enum Errand {
    /// Its process is ended and started again.
    Restart(Host),
    /// Its disk is lost.
    LoseDisk(Host),
    /// Another coordinator is started in its place, with this id and an empty disk.
    Replace(Host, u64),
}

/// A coordinator that another one takes the place of.
#[derive(Clone, Copy, Debug)]
struct Replacing {
    host: Host,
    old: u64,
    new: u64,
    /// Whether the new one runs, which it does only when the old one is no member any more.
    is_started: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Operator {
    /// The worker that is being drained, and until when the operator waits for it.
    draining: Option<(Host, u64)>,
    /// Those that were started again; another life of one has another id.
    taken_back: BTreeSet<WorkerId>,
    replacing: Option<Replacing>,
    /// Coordinators that have taken the place of others, by host.
    replaced: BTreeMap<Host, u64>,
}

impl Operator {
    /// What is begun and not at its end.
    pub(super) fn pending(&self) -> Option<String> {
        let draining = self.draining.map(|(host, _)| format!("worker {host} is drained"));
        draining.or_else(|| self.replacing.map(|replacing| format!("a coordinator is replaced: {replacing:?}")))
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

    /// Replaces a coordinator now and then. Where its disk is lost first, the two others are all that there is until a new
    /// one is added, so the next one waits for that.
    pub(super) async fn replace(&mut self, desk: &CommandLine, may_begin: bool) {
        let Some(replacing) = self.replacing else {
            if may_begin && desk.draw(0, 14) == 0 {
                self.begin_to_replace(desk).await;
            }
            return;
        };
        let Some(members) = desk.members().await else { return };
        let Replacing { host, old, new, is_started } = replacing;
        if members.contains_key(&new) {
            desk.weather.count("coordinators replaced");
            self.replaced.insert(host, new);
            self.replacing = None;
        } else if members.contains_key(&old) {
            desk.ask(&Request::RemoveMember { id: old }, &format!("remove coordinator {old}")).await;
        } else if !is_started {
            desk.send(Errand::Replace(host, new));
            self.replacing = Some(Replacing { is_started: true, ..replacing });
        } else {
            let request = Request::AddMember { id: new, address: host.address() };
            desk.ask(&request, &format!("add coordinator {new}")).await;
        }
    }

    async fn begin_to_replace(&mut self, desk: &CommandLine) {
        // With one that is missing already it would not be known what is left.
        let Some(members) = desk.members().await.filter(|members| members.len() == COORDINATORS) else { return };
        let host = Host(desk.draw(0, COORDINATORS as u32 - 1) as usize);
        let old = self.replaced.get(&host).copied().unwrap_or(host.0 as u64 + 1);
        let newest = members.keys().chain(self.replaced.values()).max().copied().unwrap_or_default();
        self.replacing = Some(Replacing { host, old, new: newest.max(COORDINATORS as u64) + 1, is_started: false });
        if desk.draw(0, 1) == 0 {
            desk.weather.count("disks that were lost");
            desk.send(Errand::LoseDisk(host));
        }
    }
}
