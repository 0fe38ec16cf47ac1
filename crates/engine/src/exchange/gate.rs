//! The inputs of a task as one stream: elements in turn from every input that may deliver, watermarks merged,
//! barriers aligned, or what they overtake noted. The decisions are `core`'s ([`BarrierAligner`], [`WatermarkMerger`]).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use mainstem_core::alignment::{Aligned, Alignment, AlignmentConfig, BarrierAligner};
use mainstem_core::latency::LatencyMarker;
use mainstem_core::protocol::Barrier;
use mainstem_core::time::Timestamp;
use mainstem_core::watermark::WatermarkMerger;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, Sleep};

use super::channel::{ChannelReceiver, Overtaken};
use crate::element::{StreamBatch, StreamElement};
use crate::error::EngineError;
use crate::watermark_alignment::Member;

/// Bytes that one barrier may overtake at a subtask. What lies in the channels when it does is bounded by their credit;
/// this bounds what still comes before the barriers of inputs that are far behind.
const OVERTAKEN_BYTES_MAX: u64 = 1 << 30;

/// What the task sees.
pub(crate) enum GateEvent {
    /// Rows.
    Batch {
        /// Which input of the operator they come from.
        input: usize,
        /// The rows.
        batch: StreamBatch,
    },
    /// A marker, behind the rows of its channel.
    Marker(Box<LatencyMarker>),
    /// The merged watermark has advanced.
    Watermark(Timestamp),
    /// The barrier has come from every input, or has overtaken what is in flight on some.
    Barrier {
        /// The barrier.
        barrier: Aligned,
        /// What it has overtaken, as soon as all of it is there; none where it was aligned.
        overtaken: Option<oneshot::Receiver<Vec<InFlightChannel>>>,
    },
    /// Every input has ended.
    End,
}

/// A channel by its place among all channels to a subtask, the same in every attempt at one parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelPlace {
    /// Position of the edge in the job's graph.
    pub(crate) edge: usize,
    /// Index of the sending subtask.
    pub(crate) sender: u32,
}

/// What a barrier has overtaken in one channel: something, be it without rows.
pub(crate) struct InFlightChannel {
    /// Which channel.
    pub(crate) place: ChannelPlace,
    /// Rows in their order.
    pub(crate) batches: Vec<StreamBatch>,
}

/// A channel from one subtask of an input.
pub(crate) struct GateInput {
    /// Which input of the operator it belongs to.
    pub(crate) input: usize,
    /// Which channel it is.
    pub(crate) place: ChannelPlace,
    /// The source subtask that sends, where others have to know how far it is.
    pub(crate) shows: Option<Member>,
    /// The channel.
    pub(crate) receiver: ChannelReceiver,
}

impl GateInput {
    fn show(&self, watermark: Timestamp) {
        if let Some(sender) = &self.shows {
            sender.heard(watermark);
        }
    }
}

/// All channels into one task.
pub(crate) struct InputGate {
    inputs: Vec<GateInput>,
    aligner: BarrierAligner,
    watermarks: WatermarkMerger,
    /// Where the next poll begins, so that no input starves the others.
    turn: usize,
    /// What the aligner's times count from.
    started: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// What a barrier has overtaken, while some inputs owe it.
    noting: Option<Noting>,
}

struct Noting {
    barrier: Barrier,
    channels: BTreeMap<usize, Overtaken>,
    reply: oneshot::Sender<Vec<InFlightChannel>>,
}

impl InputGate {
    /// A gate over the given channels.
    pub(crate) fn new(inputs: Vec<GateInput>, config: AlignmentConfig) -> Self {
        let count = inputs.len();
        InputGate {
            inputs,
            aligner: BarrierAligner::new(count, config),
            watermarks: WatermarkMerger::new(count),
            turn: 0,
            started: Instant::now(),
            timer: None,
            noting: None,
        }
    }

    /// Puts rows in that a checkpoint has kept of a channel; they come before everything else. False where there is no
    /// such channel.
    pub(crate) fn resume(&mut self, place: ChannelPlace, batches: Vec<StreamBatch>) -> bool {
        let channel = self.inputs.iter_mut().find(|input| input.place == place);
        channel.map(|input| input.receiver.resume(batches)).is_some()
    }

    /// The next event; nothing but a barrier that overtakes where the task `may_take` nothing. Cancel-safe: an element
    /// that was taken is never dropped.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, may_take: bool) -> Poll<Result<GateEvent, EngineError>> {
        'again: loop {
            if let Poll::Ready(event) = self.poll_overtaking(cx, may_take)? {
                return Poll::Ready(Ok(event));
            }
            for step in 0..if may_take { self.inputs.len() } else { 0 } {
                let input = (self.turn + step) % self.inputs.len();
                if !self.aligner.may_take(input) {
                    continue;
                }
                // Something may have come since the look at the channels.
                let noting = self.noting.as_mut().filter(|_| self.aligner.owes(input));
                let overtaken = noting.and_then(|noting| noting.channels.get_mut(&input));
                let Poll::Ready(element) = self.inputs[input].receiver.poll(cx, overtaken) else { continue };
                self.turn = (input + 1) % self.inputs.len();
                let Some(element) = element else { return Poll::Ready(Err(EngineError::PeerGone)) };
                match element.and_then(|element| self.accept(input, element)) {
                    Ok(Some(event)) => return Poll::Ready(Ok(event)),
                    Ok(None) => continue 'again,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if self.poll_deadline(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when a barrier waits that is to overtake: whoever waits for something else in the middle of a step
    /// finishes it and comes back to [`InputGate::poll`]. Cancel-safe.
    pub(crate) fn poll_hurry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.aligner.may_overtake() {
            return Poll::Pending;
        }
        self.watch(cx);
        // An error comes again where it can be told.
        if self.look().is_err() { Poll::Ready(()) } else { self.poll_deadline(cx) }
    }

    /// Moves on what concerns barriers that overtake.
    fn poll_overtaking(&mut self, cx: &mut Context<'_>, may_take: bool) -> Result<Poll<GateEvent>, EngineError> {
        if !self.aligner.may_overtake() {
            return Ok(Poll::Pending);
        }
        if !may_take {
            // Before the look, so that nothing comes unseen in between.
            self.watch(cx);
        }
        self.look()?;
        let now = if self.aligner.deadline().is_some() { self.now() } else { return Ok(Poll::Pending) };
        let Alignment::Overtake { barrier, owing } = self.aligner.overtake(now) else { return Ok(Poll::Pending) };
        let (reply, overtaken) = oneshot::channel();
        let channels = owing.iter().map(|input| (*input, Overtaken::default())).collect();
        self.noting = Some(Noting { barrier: barrier.mark.barrier, channels, reply });
        for input in owing {
            self.note(input, true)?;
        }
        Ok(Poll::Ready(GateEvent::Barrier { barrier, overtaken: Some(overtaken) }))
    }

    /// Has the task woken when something comes to an input that is not delivered.
    fn watch(&mut self, cx: &mut Context<'_>) {
        for (input, channel) in self.inputs.iter_mut().enumerate() {
            if self.aligner.may_take(input) {
                channel.receiver.watch(cx);
            }
        }
    }

    /// Sees which barriers have come and stand behind other elements.
    fn look(&mut self) -> Result<(), EngineError> {
        for input in 0..self.inputs.len() {
            if self.aligner.owes(input) {
                self.note(input, false)?;
            } else if let Some((mark, at)) = self.inputs[input].receiver.announced() {
                let at = self.since_start(at);
                let seen = self.aligner.on_announced(at, input, mark);
                self.resolve(seen)?;
            }
        }
        Ok(())
    }

    /// Notes what has come to an input before the barrier that it owes.
    fn note(&mut self, input: usize, begins: bool) -> Result<(), EngineError> {
        let Some(noting) = &mut self.noting else { return Ok(()) };
        let overtaken = noting.channels.entry(input).or_default();
        let receiver = &mut self.inputs[input].receiver;
        let came = if begins { receiver.overtake(overtaken)? } else { receiver.note_overtaken(overtaken)? };
        if noting.channels.values().map(|overtaken| overtaken.bytes).sum::<u64>() > OVERTAKEN_BYTES_MAX {
            return Err(EngineError::TooMuchInFlight { epoch: noting.barrier.epoch, bytes_max: OVERTAKEN_BYTES_MAX });
        }
        if let Some(mark) = came {
            let now = self.now();
            let answer = self.aligner.on_barrier(now, input, mark);
            self.resolve(answer)?;
        }
        Ok(())
    }

    /// Ready when a barrier may overtake; otherwise the task is woken then.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.aligner.deadline() else {
            self.timer = None;
            return Poll::Pending;
        };
        let deadline = self.started + Duration::from_millis(u64::try_from(deadline.0).unwrap_or(0));
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn now(&self) -> Timestamp {
        self.since_start(Instant::now())
    }

    fn since_start(&self, at: Instant) -> Timestamp {
        Timestamp(i64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX))
    }

    fn accept(&mut self, input: usize, element: StreamElement) -> Result<Option<GateEvent>, EngineError> {
        match element {
            StreamElement::Batch(batch) => Ok(Some(GateEvent::Batch { input: self.inputs[input].input, batch })),
            StreamElement::Watermark(watermark) => {
                self.inputs[input].show(watermark);
                Ok(self.watermarks.update(input, watermark).map(GateEvent::Watermark))
            }
            StreamElement::Marker(marker) => Ok(Some(GateEvent::Marker(marker))),
            StreamElement::Barrier(mark) => {
                let answer = self.aligner.on_barrier(self.now(), input, mark);
                self.resolve(answer)
            }
            StreamElement::End => {
                self.inputs[input].show(Timestamp::MAX);
                let answer = self.aligner.on_end(self.now(), input);
                self.resolve(answer)
            }
        }
    }

    fn resolve(&mut self, answer: Alignment) -> Result<Option<GateEvent>, EngineError> {
        match answer {
            Alignment::Wait => Ok(None),
            Alignment::Complete(barrier) => Ok(Some(GateEvent::Barrier { barrier, overtaken: None })),
            Alignment::Stored(_) => {
                if let Some(noting) = self.noting.take() {
                    let inputs = &self.inputs;
                    let of = |(input, overtaken): (usize, Overtaken)| InFlightChannel {
                        place: inputs[input].place,
                        batches: overtaken.batches,
                    };
                    let channels = noting.channels.into_iter().filter(|(_, overtaken)| overtaken.any).map(of).collect();
                    // Nobody waits for it where the uploader has failed, which the task learns.
                    let _ = noting.reply.send(channels);
                }
                Ok(None)
            }
            Alignment::Ended => Ok(Some(GateEvent::End)),
            Alignment::Violation(barrier) => Err(EngineError::Bug(format!(
                "barrier of epoch {} while another epoch is being aligned",
                barrier.epoch
            ))),
            // Only time brings it about, see `poll_overtaking`.
            Alignment::Overtake { .. } => Err(EngineError::Bug("a barrier overtakes out of turn".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
