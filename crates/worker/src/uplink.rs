//! The way to the coordinator that leads, while there is one.

use std::sync::{Arc, Mutex, PoisonError};

use mainstem_core::cluster::messages::FromWorker;
use tokio::sync::mpsc;

/// Messages that may wait for the coordinator.
const WAITING_MAX: usize = 4096;

/// Takes messages for the coordinator that leads. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Uplink {
    current: Arc<Mutex<Option<mpsc::Sender<FromWorker>>>>,
}

impl Uplink {
    /// From here on messages come out of what this returns.
    pub(crate) fn connect(&self) -> mpsc::Receiver<FromWorker> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// From here on messages are dropped: whoever leads next begins a new attempt of a job, or is told again what it needs
    /// to go on with the one that runs.
    pub(crate) fn disconnect(&self) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Hands over a message; waits while the coordinator is behind.
    pub(crate) async fn send(&self, message: FromWorker) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(current) = current {
            // Fails where the connection has just ended, which is as if there were none.
            let _ = current.send(message).await;
        }
    }
}
