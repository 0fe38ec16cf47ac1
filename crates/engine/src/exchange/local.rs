//! A bounded channel between two subtasks of one process. The sender needs credit in bytes for each batch and gives it back
//! when the receiver takes the batch, so that a slow receiver slows its senders down to the source (T3).

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::channel::{CREDIT_UNITS, units};
use crate::element::StreamElement;
use crate::error::EngineError;

/// Elements that may be in flight in one channel, whatever their size.
const ELEMENTS_MAX: usize = 64;

/// The sending end. Elements arrive in the order in which they were sent.
pub(crate) struct LocalSender {
    elements: mpsc::Sender<(StreamElement, Option<OwnedSemaphorePermit>)>,
    credit: Arc<Semaphore>,
}

/// The receiving end.
pub(crate) struct LocalReceiver {
    elements: mpsc::Receiver<(StreamElement, Option<OwnedSemaphorePermit>)>,
}

/// A channel with its full credit.
pub(super) fn local_channel() -> (LocalSender, LocalReceiver) {
    let (sender, receiver) = mpsc::channel(ELEMENTS_MAX);
    let credit = Arc::new(Semaphore::new(CREDIT_UNITS as usize));
    (LocalSender { elements: sender, credit }, LocalReceiver { elements: receiver })
}

impl LocalSender {
    /// Sends an element, when there is credit for it.
    pub(super) async fn send(&self, element: StreamElement) -> Result<(), EngineError> {
        let permit = match &element {
            StreamElement::Batch(batch) => {
                Some(self.credit.clone().acquire_many_owned(units(batch)).await.map_err(|_| EngineError::PeerGone)?)
            }
            // Small; never waits behind the credit of data that the receiver has not taken.
            _ => None,
        };
        self.elements.send((element, permit)).await.map_err(|_| EngineError::PeerGone)
    }
}

impl LocalReceiver {
    /// The next element; `None` when the sender is gone. Cancel-safe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamElement>> {
        // The permit goes back here: the element is now in the receiver's hands.
        self.elements.poll_recv(cx).map(|taken| taken.map(|(element, _permit)| element))
    }
}
