//! Workers that this one could not reach, for the coordinator, which may reach both. Without being told it would place the
//! job in the same way again and again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use mainstem_core::cluster::messages::WorkerId;
use mainstem_net::NetError;
use tokio::sync::Notify;

/// What is not told yet.
#[derive(Default)]
pub(super) struct Cut {
    workers: Mutex<BTreeSet<WorkerId>>,
    wake: Notify,
}

impl Cut {
    /// A worker could not be reached.
    pub(super) fn note(&self, worker: WorkerId) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(worker);
        self.wake.notify_one();
    }

    /// Waits for the next one. Cancel-safe; for one caller.
    pub(super) async fn next(&self) -> WorkerId {
        loop {
            let first = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            if let Some(worker) = first {
                return worker;
            }
            self.wake.notified().await;
        }
    }
}

/// How a connection came to its end.
pub(super) enum Ended {
    /// The network between the two failed.
    Cut(String),
    /// By the other side, or by a mistake.
    Closed(String),
}

impl From<NetError> for Ended {
    fn from(error: NetError) -> Ended {
        if error.is_cut() { Ended::Cut(error.to_string()) } else { Ended::Closed(error.to_string()) }
    }
}
