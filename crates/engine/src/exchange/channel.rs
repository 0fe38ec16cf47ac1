//! A bounded channel between two subtasks. The sender needs credit in bytes for each batch and gives it back
//! when the receiver takes the batch, so that a slow receiver slows its senders down to the source (T3).

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::element::StreamElement;
use crate::error::EngineError;

/// Bytes that may be in flight in one channel. A larger batch passes alone.
const CREDIT_BYTES: usize = 4 << 20;
/// Credit is counted in units of so many bytes, so that it fits the semaphore's 32-bit permits.
const CREDIT_UNIT_BYTES: usize = 1 << 10;
/// Elements that may be in flight in one channel, whatever their size.
const ELEMENTS_MAX: usize = 64;

/// The sending end. Elements arrive in the order in which they were sent.
pub(crate) struct ChannelSender {
    elements: mpsc::Sender<(StreamElement, Option<OwnedSemaphorePermit>)>,
    credit: Arc<Semaphore>,
}

/// The receiving end.
pub(crate) struct ChannelReceiver {
    elements: mpsc::Receiver<(StreamElement, Option<OwnedSemaphorePermit>)>,
}

/// A channel with its full credit.
pub(crate) fn channel() -> (ChannelSender, ChannelReceiver) {
    let (sender, receiver) = mpsc::channel(ELEMENTS_MAX);
    let credit = Arc::new(Semaphore::new(CREDIT_BYTES / CREDIT_UNIT_BYTES));
    (ChannelSender { elements: sender, credit }, ChannelReceiver { elements: receiver })
}

impl ChannelSender {
    /// Sends an element, when there is credit for it.
    pub(crate) async fn send(&self, element: StreamElement) -> Result<(), EngineError> {
        let permit = match &element {
            StreamElement::Batch(batch) => {
                let bytes = batch.size_bytes().clamp(CREDIT_UNIT_BYTES, CREDIT_BYTES);
                let units = u32::try_from(bytes / CREDIT_UNIT_BYTES).expect("clamped to the credit");
                Some(self.credit.clone().acquire_many_owned(units).await.map_err(|_| EngineError::PeerGone)?)
            }
            // Small; never waits behind the credit of data that the receiver has not taken.
            _ => None,
        };
        self.elements.send((element, permit)).await.map_err(|_| EngineError::PeerGone)
    }
}

impl ChannelReceiver {
    /// The next element; `None` when the sender is gone. Cancel-safe.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamElement>> {
        // The permit goes back here: the element is now in the receiver's hands.
        self.elements.poll_recv(cx).map(|taken| taken.map(|(element, _permit)| element))
    }
}
