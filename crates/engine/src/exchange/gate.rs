//! The inputs of a task as one stream: elements in turn from every input that may deliver, watermarks merged,
//! barriers aligned. The decisions are `core`'s ([`BarrierAligner`], [`WatermarkMerger`]).

use std::task::{Context, Poll};

use mainstem_core::alignment::{Alignment, BarrierAligner};
use mainstem_core::protocol::Barrier;
use mainstem_core::time::Timestamp;
use mainstem_core::watermark::WatermarkMerger;

use super::channel::ChannelReceiver;
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;

/// What the task sees.
#[expect(clippy::large_enum_variant, reason = "nearly all events are batches")]
pub(crate) enum GateEvent {
    /// Rows.
    Batch {
        /// Which input of the operator they come from.
        input: usize,
        /// The rows.
        batch: StreamBatch,
    },
    /// The merged watermark has advanced.
    Watermark(Timestamp),
    /// The barrier has come from every input.
    Barrier {
        /// The barrier.
        barrier: Barrier,
        /// Whether the inputs end after it.
        last: bool,
    },
    /// Every input has ended.
    End,
}

/// A channel from one subtask of an input.
pub(crate) struct GateInput {
    /// Which input of the operator it belongs to.
    pub(crate) input: usize,
    /// The channel.
    pub(crate) receiver: ChannelReceiver,
}

/// All channels into one task.
pub(crate) struct InputGate {
    inputs: Vec<GateInput>,
    aligner: BarrierAligner,
    watermarks: WatermarkMerger,
    last: bool,
    /// Where the next poll begins, so that no input starves the others.
    turn: usize,
}

impl InputGate {
    /// A gate over the given channels.
    pub(crate) fn new(inputs: Vec<GateInput>) -> Self {
        let count = inputs.len();
        InputGate {
            inputs,
            aligner: BarrierAligner::new(count),
            watermarks: WatermarkMerger::new(count),
            last: false,
            turn: 0,
        }
    }

    /// The next event. Cancel-safe: an element that was taken is never dropped.
    pub(crate) async fn next(&mut self) -> Result<GateEvent, EngineError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<GateEvent, EngineError>> {
        'again: loop {
            for step in 0..self.inputs.len() {
                let input = (self.turn + step) % self.inputs.len();
                if !self.aligner.may_take(input) {
                    continue;
                }
                let Poll::Ready(element) = self.inputs[input].receiver.poll(cx) else { continue };
                self.turn = (input + 1) % self.inputs.len();
                let Some(element) = element else { return Poll::Ready(Err(EngineError::PeerGone)) };
                match element.and_then(|element| self.accept(input, element)) {
                    Ok(Some(event)) => return Poll::Ready(Ok(event)),
                    Ok(None) => continue 'again,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            return Poll::Pending;
        }
    }

    fn accept(&mut self, input: usize, element: StreamElement) -> Result<Option<GateEvent>, EngineError> {
        match element {
            StreamElement::Batch(batch) => Ok(Some(GateEvent::Batch { input: self.inputs[input].input, batch })),
            StreamElement::Watermark(watermark) => {
                Ok(self.watermarks.update(input, watermark).map(GateEvent::Watermark))
            }
            StreamElement::Barrier { barrier, last } => {
                self.last |= last;
                self.resolve(|aligner| aligner.on_barrier(input, barrier))
            }
            StreamElement::End => self.resolve(|aligner| aligner.on_end(input)),
        }
    }

    fn resolve(&mut self, on: impl FnOnce(&mut BarrierAligner) -> Alignment) -> Result<Option<GateEvent>, EngineError> {
        match on(&mut self.aligner) {
            Alignment::Wait => Ok(None),
            Alignment::Complete(barrier) => Ok(Some(GateEvent::Barrier { barrier, last: self.last })),
            Alignment::Ended => Ok(Some(GateEvent::End)),
            Alignment::Violation(barrier) => Err(EngineError::Bug(format!(
                "barrier of epoch {} while another epoch is being aligned",
                barrier.epoch
            ))),
        }
    }
}
