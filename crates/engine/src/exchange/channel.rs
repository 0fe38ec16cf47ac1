//! The way of elements from one subtask to another, in one process or between two. The sender needs credit in
//! bytes for each batch and gets it back when the receiver takes the batch, so that a slow receiver slows its
//! senders down to the source (T3).

use std::task::{Context, Poll};

use super::inbox::RemoteReceiver;
use super::local::{LocalReceiver, LocalSender, local_channel};
use super::peer::RemoteSender;
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

/// Bytes that may be in flight in one channel. A larger batch passes alone.
const CREDIT_BYTES: usize = 4 << 20;
/// Credit is counted in units of so many bytes.
const CREDIT_UNIT_BYTES: usize = 1 << 10;
/// The whole credit of a channel.
pub(super) const CREDIT_UNITS: u32 = (CREDIT_BYTES / CREDIT_UNIT_BYTES) as u32;

/// The credit that a batch takes.
pub(super) fn units(batch: &StreamBatch) -> u32 {
    let bytes = batch.size_bytes().clamp(CREDIT_UNIT_BYTES, CREDIT_BYTES);
    u32::try_from(bytes / CREDIT_UNIT_BYTES).expect("clamped to the credit")
}

/// The sending end. Elements arrive in the order in which they were sent.
pub(crate) enum ChannelSender {
    /// To a subtask of this process.
    Local(LocalSender),
    /// To a subtask of another worker.
    Remote(Box<RemoteSender>),
}

/// The receiving end.
pub(crate) enum ChannelReceiver {
    /// From a subtask of this process.
    Local(LocalReceiver),
    /// From a subtask of another worker.
    Remote(Box<RemoteReceiver>),
}

/// A channel within this process, with its full credit.
pub(crate) fn channel() -> (ChannelSender, ChannelReceiver) {
    let (sender, receiver) = local_channel();
    (ChannelSender::Local(sender), ChannelReceiver::Local(receiver))
}

impl ChannelSender {
    /// Sends an element, when there is credit for it. Not cancel-safe.
    pub(crate) async fn send(&mut self, element: StreamElement) -> Result<(), EngineError> {
        match self {
            ChannelSender::Local(sender) => sender.send(element).await,
            ChannelSender::Remote(sender) => sender.send(element).await,
        }
    }
}

impl ChannelReceiver {
    /// The next element; `None` when the sender is gone. Cancel-safe.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamElement, EngineError>>> {
        match self {
            ChannelReceiver::Local(receiver) => receiver.poll(cx).map(|element| element.map(Ok)),
            ChannelReceiver::Remote(receiver) => receiver.poll(cx),
        }
    }
}
