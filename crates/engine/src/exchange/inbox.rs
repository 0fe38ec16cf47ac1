//! What other workers send to the subtasks of this one. The two ends of a channel come about in any order: whoever
//! is first waits in the [`Inbox`] for the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use mainstem_core::alignment::BarrierMark;
use mainstem_core::cluster::messages::{AttemptId, WorkerId};
use mainstem_core::ids::{Generation, JobId};
use mainstem_net::{Connection, FrameReader, FrameWriter};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::channel::{CREDIT_UNIT_BYTES, CREDIT_UNITS};
use super::cut::Ended;
use super::queue::{QueueReceiver, QueueSender, queue};
use super::wire::{self, ChannelKey, Decoder, Frame, Payload};
use crate::element::StreamElement;
use crate::error::EngineError;

/// Channels that may have been opened by others before this worker has heard of their attempt.
const EARLY_MAX: usize = 100_000;
/// Credit that may lie in one channel. A sender goes beyond its credit by what it has made in one step; one that has
/// sent so much does not keep to it at all.
const UNITS_MAX: u64 = (2 << 30) / CREDIT_UNIT_BYTES as u64;

/// The receiving end of a channel from another worker.
pub(crate) struct RemoteReceiver {
    state: ReceiverState,
    decoder: Decoder,
}

enum ReceiverState {
    Waiting(oneshot::Receiver<Arrival>),
    Linked(Arrival),
    Gone,
}

/// A channel that another worker has opened.
struct Arrival {
    channel: u32,
    elements: QueueReceiver<Payload>,
    answers: Arc<Answers>,
}

enum Meeting {
    /// The subtask is there and waits for the sender.
    Expected(oneshot::Sender<Arrival>),
    /// The sender is there and waits for the subtask.
    Arrived(Arrival),
}

#[derive(Default)]
struct Meetings {
    waiting: BTreeMap<ChannelKey, Meeting>,
    /// The least generation of each job that may send.
    least: BTreeMap<JobId, Generation>,
}

/// Where the two ends of the channels to this worker meet.
#[derive(Default)]
pub(super) struct Inbox {
    meetings: Mutex<Meetings>,
}

/// Answers to the senders of one connection that wait to be written: at most one credit and one refusal a channel.
#[derive(Default)]
struct Answers {
    credit: Mutex<BTreeMap<u32, u32>>,
    refused: Mutex<BTreeMap<u32, String>>,
    wake: Notify,
    /// Set before the channels of the connection end, where the network between the two failed.
    cut: OnceLock<String>,
}

impl Inbox {
    /// The receiving end of a channel.
    pub(super) fn expect(&self, key: ChannelKey) -> RemoteReceiver {
        let mut meetings = self.lock();
        let state = match meetings.waiting.remove(&key) {
            Some(Meeting::Arrived(arrival)) => {
                arrival.answers.give(arrival.channel, CREDIT_UNITS);
                ReceiverState::Linked(arrival)
            }
            _ => {
                let (sender, receiver) = oneshot::channel();
                meetings.waiting.insert(key, Meeting::Expected(sender));
                ReceiverState::Waiting(receiver)
            }
        };
        RemoteReceiver { state, decoder: Decoder::new() }
    }

    /// From here on nothing of the job below the generation is taken.
    pub(super) fn fence(&self, job: &JobId, generation: Generation) {
        let mut meetings = self.lock();
        let least = meetings.least.entry(job.clone()).or_default();
        *least = generation.max(*least);
        let least = *least;
        meetings.waiting.retain(|key, _| key.attempt.job != *job || key.attempt.generation >= least);
    }

    /// The attempt has ended here.
    pub(super) fn forget(&self, attempt: &AttemptId) {
        self.lock().waiting.retain(|key, _| key.attempt != *attempt);
    }

    fn open(&self, key: ChannelKey, arrival: Arrival) -> Result<(), String> {
        let mut meetings = self.lock();
        let least = meetings.least.get(&key.attempt.job).copied().unwrap_or_default();
        if key.attempt.generation < least {
            return Err(format!("{} is older than attempt {least}, which is known here", key.attempt));
        }
        match meetings.waiting.remove(&key) {
            Some(Meeting::Expected(expected)) => {
                let (channel, answers) = (arrival.channel, arrival.answers.clone());
                expected.send(arrival).map_err(|_| format!("the receiver in {} has ended", key.attempt))?;
                answers.give(channel, CREDIT_UNITS);
            }
            _ if meetings.waiting.len() >= EARLY_MAX => {
                return Err("too many channels wait for their receivers".to_owned());
            }
            // A second one replaces the first, whose connection must be gone.
            _ => _ = meetings.waiting.insert(key, Meeting::Arrived(arrival)),
        }
        Ok(())
    }

    /// Forgets what arrived over a connection that is gone.
    fn disconnect(&self, answers: &Arc<Answers>) {
        let of_it = |meeting: &Meeting| matches!(meeting, Meeting::Arrived(a) if Arc::ptr_eq(&a.answers, answers));
        self.lock().waiting.retain(|_, meeting| !of_it(meeting));
    }

    fn lock(&self) -> MutexGuard<'_, Meetings> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what `here` is sent by another worker, until the connection ends; gives the reason.
    pub(super) async fn serve(&self, here: &WorkerId, connection: Connection) -> String {
        let Connection { hello, mut reader, mut writer, .. } = connection;
        let answers = Arc::new(Answers::default());
        let mut channels = BTreeMap::new();
        let ended = tokio::select! {
            ended = self.read(&mut reader, &answers, &mut channels) => ended,
            ended = answer(&mut writer, &answers) => ended,
        };
        let reason = match ended {
            Ended::Cut(reason) => {
                answers.cut.get_or_init(|| format!("{here} hears nothing of {}: {reason}", hello.node)).clone()
            }
            Ended::Closed(reason) => reason,
        };
        drop(channels);
        self.disconnect(&answers);
        reason
    }

    async fn read(
        &self,
        reader: &mut FrameReader,
        answers: &Arc<Answers>,
        channels: &mut BTreeMap<u32, QueueSender<Payload>>,
    ) -> Ended {
        loop {
            let frame = match reader.read().await {
                Ok(Some(bytes)) => Frame::parse(bytes),
                Ok(None) => return Ended::Closed("it was closed by the other side".to_owned()),
                Err(error) => return error.into(),
            };
            let done = match frame {
                Ok(Frame::Open { channel, key }) => {
                    // The end of some may not have been told.
                    channels.retain(|_, sender| !sender.is_closed());
                    let (sender, elements) = queue();
                    channels.insert(channel, sender);
                    let arrival = Arrival { channel, elements, answers: answers.clone() };
                    if let Err(reason) = self.open(key, arrival) {
                        channels.remove(&channel);
                        answers.refuse(channel, reason);
                    }
                    Ok(())
                }
                Ok(Frame::Element { channel, payload, units }) => match channels.get(&channel) {
                    // Refused, or its receiver has ended: the sender learns it.
                    None => Ok(()),
                    Some(sender) => {
                        let mark = payload.mark();
                        match sender.push(payload, units, mark) {
                            Ok(all) if all > UNITS_MAX => Err("it sent far more than its credit".to_owned()),
                            Ok(_) => Ok(()),
                            Err(_) => {
                                channels.remove(&channel);
                                answers.refuse(channel, "the receiving subtask has ended".to_owned());
                                Ok(())
                            }
                        }
                    }
                },
                Ok(Frame::Close { channel }) => {
                    channels.remove(&channel);
                    Ok(())
                }
                Ok(other) => Err(format!("it sent what only a receiver sends: {other:?}")),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = done {
                return Ended::Closed(format!("bug: {reason}; please report it"));
            }
        }
    }
}

impl Answers {
    fn give(&self, channel: u32, units: u32) {
        *self.credit.lock().unwrap_or_else(PoisonError::into_inner).entry(channel).or_default() += units;
        self.wake.notify_one();
    }

    fn refuse(&self, channel: u32, reason: String) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(channel, reason);
        self.wake.notify_one();
    }
}

async fn answer(writer: &mut FrameWriter, answers: &Answers) -> Ended {
    loop {
        answers.wake.notified().await;
        let refused = std::mem::take(&mut *answers.refused.lock().unwrap_or_else(PoisonError::into_inner));
        let credit = std::mem::take(&mut *answers.credit.lock().unwrap_or_else(PoisonError::into_inner));
        let frames = refused.iter().map(|(channel, reason)| wire::refused(*channel, reason));
        let frames = frames.chain(credit.iter().map(|(channel, units)| wire::credit(*channel, *units)));
        for frame in frames {
            if let Err(error) = writer.write(&frame.slices()).await {
                return error.into();
            }
        }
        if let Err(error) = writer.flush().await {
            return error.into();
        }
    }
}

impl RemoteReceiver {
    /// The next element, with its credit, which the caller gives back by [`RemoteReceiver::release`]; none when the
    /// sender is gone. Cancel-safe.
    pub(super) fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(StreamElement, u32), EngineError>>> {
        self.link(cx);
        match &mut self.state {
            ReceiverState::Waiting(_) => Poll::Pending,
            ReceiverState::Linked(arrival) => match std::task::ready!(arrival.elements.poll_pop(cx)) {
                Some((payload, units)) => {
                    Poll::Ready(Some(self.decoder.decode(payload).map(|element| (element, units))))
                }
                None => {
                    let cut = arrival.answers.cut.get().cloned();
                    self.state = ReceiverState::Gone;
                    Poll::Ready(cut.map(|reason| Err(EngineError::Unreachable(reason))))
                }
            },
            ReceiverState::Gone => Poll::Ready(None),
        }
    }

    /// The next element, if it is there.
    pub(super) fn try_pop(&mut self) -> Option<Result<(StreamElement, u32), EngineError>> {
        let ReceiverState::Linked(arrival) = &self.state else { return None };
        let (payload, units) = arrival.elements.try_pop()?;
        Some(self.decoder.decode(payload).map(|element| (element, units)))
    }

    /// An element has been dealt with: gives its credit back.
    pub(super) fn release(&self, units: u32) {
        if let ReceiverState::Linked(arrival) = &self.state {
            arrival.elements.release(units);
            arrival.answers.give(arrival.channel, units);
        }
    }

    /// The first barrier that has come and was not taken, with the time when it came.
    pub(super) fn announced(&self) -> Option<(BarrierMark, Instant)> {
        match &self.state {
            ReceiverState::Linked(arrival) => arrival.elements.announced(),
            ReceiverState::Waiting(_) | ReceiverState::Gone => None,
        }
    }

    /// Has the task woken when something comes.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        self.link(cx);
        if let ReceiverState::Linked(arrival) = &self.state {
            arrival.elements.watch(cx);
        }
    }

    /// Meets the sender, if it is there.
    fn link(&mut self, cx: &mut Context<'_>) {
        if let ReceiverState::Waiting(arrival) = &mut self.state
            && let Poll::Ready(arrival) = std::pin::Pin::new(arrival).poll(cx)
        {
            self.state = arrival.map_or(ReceiverState::Gone, ReceiverState::Linked);
        }
    }
}
