//! Connections between workers and coordinators: what is sent arrives in its order or not at all, and either side may
//! learn of the end much later than the other.

use std::collections::VecDeque;

use super::worker::Session;
use super::world::World;
use crate::cluster::messages::{FromWorker, ToWorker};

pub(super) struct Connection {
    worker: usize,
    /// Which process of the worker.
    life: u64,
    pub(super) coordinator: usize,
    /// Which process of the coordinator.
    boot: u64,
    pub(super) down: VecDeque<ToWorker>,
    pub(super) up: VecDeque<FromWorker>,
    worker_closed: bool,
    pub(super) coordinator_closed: bool,
    /// Nothing gets through, and neither side is told.
    pub(super) cut: bool,
}

impl World {
    /// A worker without a coordinator tries one.
    pub(super) fn connect(&mut self, at: usize) {
        let any = self.random.below(self.coordinators.len());
        let worker = &mut self.workers[at];
        let coordinator = worker.hint.take().unwrap_or(any);
        if !self.raft.members[coordinator].up || self.cut_off[at] {
            return;
        }
        let worker = &mut self.workers[at];
        self.last_connection += 1;
        worker.session = Some(Session { connection: self.last_connection, welcomed: false });
        let connection = Connection {
            worker: at,
            life: worker.life,
            coordinator,
            boot: self.coordinators[coordinator].boot,
            down: VecDeque::new(),
            up: VecDeque::from([FromWorker::Register(worker.offer())]),
            worker_closed: false,
            coordinator_closed: false,
            cut: false,
        };
        self.connections.insert(self.last_connection, connection);
    }

    /// Some connection delivers a message, or its end.
    pub(super) fn connection_turn(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let choice = self.random.below(self.connections.len());
        let number = *self.connections.keys().nth(choice).expect("below their number");
        let connection = self.connections.get_mut(&number).expect("taken from there");
        let (at, coordinator) = (connection.worker, connection.coordinator);
        let worker = &self.workers[at];
        let on_it = worker.session.as_ref().is_some_and(|session| session.connection == number);
        connection.worker_closed |= worker.life != connection.life || !on_it;
        let dead = !self.raft.members[coordinator].up || self.coordinators[coordinator].boot != connection.boot;
        connection.coordinator_closed |= dead;
        connection.cut |= self.cut_off[at];
        if connection.worker_closed && connection.coordinator_closed {
            self.connections.remove(&number);
            return;
        }
        let stalled = self.coordinators[coordinator].stalled_until > self.now;
        // Silence, as the worker measures it.
        if (connection.cut || stalled) && on_it && self.random.one_in(30) {
            self.workers[at].session = None;
            return;
        }
        if connection.cut {
            let taken = !dead && self.is_linked(coordinator, number);
            let connection = self.connections.get_mut(&number).expect("looked at above");
            connection.down.clear();
            connection.up.clear();
            connection.coordinator_closed |= !taken;
            return;
        }
        if self.random.one_in(2) {
            if !worker.listens(number, self.now) {
                return;
            }
            // A process that dies takes with it what it had not sent.
            if connection.coordinator_closed && self.random.one_in(3) {
                connection.down.clear();
            }
            match connection.down.pop_front() {
                Some(message) => self.tell_worker(at, message),
                None if connection.coordinator_closed => self.workers[at].session = None,
                None => {}
            }
        } else if !connection.coordinator_closed && !stalled {
            if connection.worker_closed && self.random.one_in(3) {
                connection.up.clear();
            }
            match connection.up.pop_front() {
                Some(message) => self.hear_worker(coordinator, number, message),
                None if connection.worker_closed => {
                    connection.coordinator_closed = true;
                    self.link_closed(coordinator, number, "its connection was closed");
                }
                None => {}
            }
        }
    }

    /// Sends a message to a worker, unless the connection is closed on this side.
    pub(super) fn send(&mut self, connection: u64, message: ToWorker) {
        if let Some(connection) = self.connections.get_mut(&connection).filter(|c| !c.coordinator_closed) {
            connection.down.push_back(message);
        }
    }
}
