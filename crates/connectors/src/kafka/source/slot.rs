//! A partition as the thread of its consumer sees it: how far it has come, and what its reader has had no room for yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _, Timestamp};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::error::ConnectorError;

use super::super::decode::{Chunk, Message, Stamp};
use super::lag::Progress;

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Delivery {
    Chunk(Chunk),
    /// The end of the partition, as it was asked for.
    Finished,
    Failed(ConnectorError),
}

/// See the module.
pub(super) struct Slot {
    /// Offset of the next message; what lies before it is not wanted.
    pub(super) next: i64,
    /// Offset before which the partition ends; none: nowhere.
    pub(super) stop: Option<i64>,
    pub(super) progress: Arc<Progress>,
    /// Whether the consumer has been told to give nothing of it.
    pub(super) is_paused: bool,
    reader: mpsc::Sender<Delivery>,
    /// What is handed over as soon as there is room, in order.
    waiting: VecDeque<Delivery>,
    /// Nothing comes behind what waits.
    has_ended: bool,
}

/// What became of what waits for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// The reader has it.
    All,
    /// The reader has no room for some of it.
    Waits,
    /// There is nothing more to do for the partition: its reader has all of it, or has gone.
    Over,
}

/// Messages that were gathered.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) chunks: BTreeMap<i32, Chunk>,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// Partitions that have been read to the end that they have now.
    pub(super) ended: Vec<i32>,
    pub(super) failure: Option<KafkaError>,
}

impl Slot {
    /// A partition of which nothing has come yet.
    pub(super) fn new(next: i64, stop: Option<i64>, progress: Arc<Progress>, reader: mpsc::Sender<Delivery>) -> Slot {
        let waiting = VecDeque::new();
        Slot { next, stop, progress, is_paused: false, reader, waiting, has_ended: false }
    }

    /// Something for the reader, behind what waits for it. After an end nothing follows.
    pub(super) fn push(&mut self, delivery: Delivery) {
        self.has_ended |= !matches!(delivery, Delivery::Chunk(_));
        self.waiting.push_back(delivery);
    }

    /// Whether its end, or why it has none, is among what was pushed.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether something waits for the reader.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives the reader what it has room for.
    pub(super) fn hand_over(&mut self) -> Handed {
        while let Some(delivery) = self.waiting.pop_front() {
            match self.reader.try_send(delivery) {
                Ok(()) => {}
                Err(TrySendError::Full(delivery)) => {
                    self.waiting.push_front(delivery);
                    return Handed::Waits;
                }
                Err(TrySendError::Closed(_)) => return Handed::Over,
            }
        }
        if self.has_ended || self.reader.is_closed() { Handed::Over } else { Handed::All }
    }

    /// A message has come from the consumer.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, with_headers: bool, gathered: &mut Gathered) {
        let offset = message.offset();
        if offset < self.next || self.stop.is_some_and(|stop| offset >= stop) {
            // What lies behind the stop still shows that everything before it has come.
            self.next = self.next.max(offset);
            return;
        }
        self.next = offset + 1;
        self.progress.on_received(offset);
        let chunk = gathered.chunks.entry(message.partition()).or_default();
        let before = chunk.bytes.len();
        let mut part = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| {
                let start = chunk.bytes.len();
                chunk.bytes.extend_from_slice(bytes);
                start..chunk.bytes.len()
            })
        };
        let (key, value) = (part(message.key()), part(message.payload()));
        let stamp = match message.timestamp() {
            Timestamp::NotAvailable => Stamp::None,
            Timestamp::CreateTime(ms) => Stamp::Create(ms),
            Timestamp::LogAppendTime(ms) => Stamp::Append(ms),
        };
        let headers = match message.headers().filter(|_| with_headers) {
            Some(headers) => {
                let owned = |header: rdkafka::message::Header<'_, &[u8]>| {
                    (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
                };
                headers.iter().map(owned).collect()
            }
            None => Vec::new(),
        };
        gathered.messages += 1;
        gathered.bytes += chunk.bytes.len() - before;
        chunk.messages.push(Message { offset, stamp, key, value, headers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_has_no_room_for_waits_in_order() {
        let (sender, mut reader) = mpsc::channel(1);
        let mut slot = Slot::new(0, None, Arc::new(Progress::new(0)), sender);
        assert_eq!(slot.hand_over(), Handed::All);
        let chunk = |text: &str| Delivery::Chunk(Chunk { bytes: text.into(), ..Chunk::default() });
        slot.push(chunk("a"));
        slot.push(chunk("b"));
        assert_eq!((slot.hand_over(), slot.waits()), (Handed::Waits, true));
        slot.push(Delivery::Finished);
        let mut seen = Vec::new();
        let mut handed = Handed::Waits;
        while handed == Handed::Waits {
            seen.push(reader.try_recv().unwrap());
            handed = slot.hand_over();
        }
        seen.push(reader.try_recv().unwrap());
        assert_eq!(handed, Handed::Over);
        let text = |delivery: &Delivery| match delivery {
            Delivery::Chunk(chunk) => String::from_utf8_lossy(&chunk.bytes).into_owned(),
            other => format!("{other:?}"),
        };
        let texts: Vec<_> = seen.iter().map(text).collect();
        assert_eq!(texts, ["a", "b", "Finished"]);
        drop(reader);
        slot.push(Delivery::Finished);
        assert_eq!(slot.hand_over(), Handed::Over);
    }
}
