//! The way of elements from one subtask to another, in one process or between two. A sender that has sent more than its
//! credit in bytes makes nothing more until the receiver has taken enough, so that a slow receiver slows its senders down
//! to the source (T3). What it has made already goes out at once, and so does a barrier: all that a barrier overtakes lies
//! with the receiver, and is stored there.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use mainstem_core::alignment::BarrierMark;
use tokio::time::Instant;

use super::inbox::RemoteReceiver;
use super::peer::RemoteSender;
use super::queue::{QueueReceiver, QueueSender, queue};
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

/// Bytes that may be in flight in one channel before its sender makes no more; what it has made then passes as a whole.
const CREDIT_BYTES: usize = 4 << 20;
/// Credit is counted in units of so many bytes.
pub(super) const CREDIT_UNIT_BYTES: usize = 1 << 10;
/// The whole credit of a channel.
pub(super) const CREDIT_UNITS: u32 = (CREDIT_BYTES / CREDIT_UNIT_BYTES) as u32;

/// The credit that a batch takes.
pub(super) fn units(batch: &StreamBatch) -> u32 {
    let units = batch.size_bytes().div_ceil(CREDIT_UNIT_BYTES).max(1);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// The sending end. Elements arrive in the order in which they were sent.
pub(crate) enum ChannelSender {
    /// To a subtask of this process.
    Local(LocalSender),
    /// To a subtask of another worker.
    Remote(Box<RemoteSender>),
}

/// The sending end within this process.
pub(crate) struct LocalSender(QueueSender<StreamElement>);

/// The receiving end.
pub(crate) struct ChannelReceiver {
    source: Source,
    /// What has arrived and is not in the source's queue any more, with its credit; none for what a checkpoint gave
    /// back. No barrier is among it.
    arrived: VecDeque<(StreamElement, Option<u32>)>,
}

enum Source {
    Local(QueueReceiver<StreamElement>),
    Remote(Box<RemoteReceiver>),
}

/// A channel within this process.
pub(crate) fn channel() -> (ChannelSender, ChannelReceiver) {
    let (sender, receiver) = queue();
    (ChannelSender::Local(LocalSender(sender)), ChannelReceiver::new(Source::Local(receiver)))
}

impl ChannelSender {
    /// Sends an element, without regard to credit: ask [`ChannelSender::poll_ready`] before making one. Waits at most for
    /// the network. Not cancel-safe.
    pub(crate) async fn send(&mut self, element: StreamElement) -> Result<(), EngineError> {
        match self {
            ChannelSender::Local(LocalSender(queue)) => {
                let (units, mark) = match &element {
                    StreamElement::Batch(batch) => (units(batch), None),
                    StreamElement::Barrier(mark) => (0, Some(*mark)),
                    StreamElement::Watermark(_) | StreamElement::Marker(_) | StreamElement::End => (0, None),
                };
                queue.push(element, units, mark).map(|_| ()).map_err(|_| EngineError::PeerGone)
            }
            ChannelSender::Remote(sender) => sender.send(element).await,
        }
    }

    /// Ready when there is credit for more, or an error that sending will tell. Cancel-safe.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            ChannelSender::Local(LocalSender(queue)) => queue.poll_ready(cx),
            ChannelSender::Remote(sender) => sender.poll_ready(cx),
        }
    }

    /// Ready with the reason when the worker of the receiver is gone or cannot be reached. A receiver of this worker tells
    /// the coordinator itself why it has ended. Cancel-safe.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EngineError> {
        match self {
            ChannelSender::Local(_) => Poll::Pending,
            ChannelSender::Remote(sender) => sender.poll_ended(cx),
        }
    }

    /// Bytes that were sent beyond the credit.
    pub(crate) fn overdraft_bytes(&self) -> u64 {
        let units = match self {
            ChannelSender::Local(LocalSender(queue)) => queue.units().saturating_sub(u64::from(CREDIT_UNITS)),
            ChannelSender::Remote(sender) => sender.overdraft_units(),
        };
        units * CREDIT_UNIT_BYTES as u64
    }
}

/// What a barrier has overtaken in one channel.
#[derive(Default)]
pub(crate) struct Overtaken {
    /// Rows, in order.
    pub(crate) batches: Vec<StreamBatch>,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Whether there was anything, be it only a watermark.
    pub(crate) any: bool,
}

impl Overtaken {
    fn note(&mut self, element: &StreamElement) {
        // It goes on with the rows that it stands behind, and is gone where those are restored.
        if matches!(element, StreamElement::Marker(_)) {
            return;
        }
        self.any = true;
        if let StreamElement::Batch(batch) = element {
            self.bytes += batch.size_bytes() as u64;
            self.batches.push(batch.clone());
        }
    }
}

impl ChannelReceiver {
    fn new(source: Source) -> ChannelReceiver {
        ChannelReceiver { source, arrived: VecDeque::new() }
    }

    /// The receiving end of a channel from another worker.
    pub(super) fn remote(receiver: RemoteReceiver) -> ChannelReceiver {
        ChannelReceiver::new(Source::Remote(Box::new(receiver)))
    }

    /// The next element; `None` when the sender is gone. Where a barrier is owed, what has come just now, after the last
    /// call of [`ChannelReceiver::note_overtaken`], is noted as `overtaken` too. Cancel-safe.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        overtaken: Option<&mut Overtaken>,
    ) -> Poll<Option<Result<StreamElement, EngineError>>> {
        if let Some((element, units)) = self.arrived.pop_front() {
            self.release(units);
            return Poll::Ready(Some(Ok(element)));
        }
        let popped = match &mut self.source {
            Source::Local(queue) => queue.poll_pop(cx).map(|popped| popped.map(Ok)),
            Source::Remote(receiver) => receiver.poll_pop(cx),
        };
        popped.map(|popped| {
            let popped = popped?;
            Some(popped.map(|(element, units)| {
                self.release(Some(units));
                if let Some(overtaken) = overtaken.filter(|_| !matches!(element, StreamElement::Barrier(_))) {
                    overtaken.note(&element);
                }
                element
            }))
        })
    }

    /// Gives the element's credit back: it is in the subtask's hands now.
    fn release(&self, units: Option<u32>) {
        match (&self.source, units) {
            (_, None) => {}
            (Source::Local(queue), Some(units)) => queue.release(units),
            (Source::Remote(receiver), Some(units)) => receiver.release(units),
        }
    }

    /// The first barrier that has come and was not taken, with the time when it came.
    pub(super) fn announced(&self) -> Option<(BarrierMark, Instant)> {
        match &self.source {
            Source::Local(queue) => queue.announced(),
            Source::Remote(receiver) => receiver.announced(),
        }
    }

    /// Has the task woken when something comes.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        match &mut self.source {
            Source::Local(queue) => queue.watch(cx),
            Source::Remote(receiver) => receiver.watch(cx),
        }
    }

    /// Begins to note what a barrier overtakes; goes on as [`ChannelReceiver::note_overtaken`].
    pub(super) fn overtake(&mut self, overtaken: &mut Overtaken) -> Result<Option<BarrierMark>, EngineError> {
        self.arrived.iter().for_each(|(element, _)| overtaken.note(element));
        self.note_overtaken(overtaken)
    }

    /// Notes what has come since, up to the next barrier, which it takes out and gives. The elements stay to be taken in
    /// their turn.
    pub(super) fn note_overtaken(&mut self, overtaken: &mut Overtaken) -> Result<Option<BarrierMark>, EngineError> {
        loop {
            let popped = match &mut self.source {
                Source::Local(queue) => queue.try_pop().map(Ok),
                Source::Remote(receiver) => receiver.try_pop(),
            };
            let Some(popped) = popped else { return Ok(None) };
            let (element, units) = popped?;
            if let StreamElement::Barrier(mark) = element {
                self.release(Some(units));
                return Ok(Some(mark));
            }
            overtaken.note(&element);
            self.arrived.push_back((element, Some(units)));
        }
    }

    /// Puts rows in that a checkpoint has kept; they come before everything else.
    pub(super) fn resume(&mut self, batches: Vec<StreamBatch>) {
        self.arrived.extend(batches.into_iter().map(|batch| (StreamElement::Batch(batch), None)));
    }
}
