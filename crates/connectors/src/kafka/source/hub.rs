//! One consumer for each topic that a subtask reads, on a thread of its own, whose partitions share its connections and its
//! bounded queue. Messages are gathered into chunks and handed to the reader of their partition. While readers have no room the
//! thread waits, and librdkafka's queue fills up to its bound; a reader that is held up alone, because its partition is ahead
//! of others, has its partition paused.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::error::{ConnectorError, ErrorKind};
use crate::lag::SplitLag;

use super::super::client::Context;
use super::super::time::{now, pause};
use super::KafkaTable;
use super::lag::{LagBoard, Progress};
use super::slot::{Delivery, Gathered, Handed, Slot};

/// How long the thread waits for a message before it looks for orders.
const POLL: Duration = Duration::from_millis(50);
/// How long messages are gathered after the first.
const GATHER: Duration = Duration::from_millis(5);
/// Messages that are gathered over all partitions.
const GATHERED_MAX: usize = 8_192;
/// Bytes that are gathered over all partitions; one message may exceed it.
const GATHERED_BYTES_MAX: usize = 2 << 20;
/// Chunks that wait for a reader.
const WAITING_MAX: usize = 2;
/// How long a reader may take nothing before the others get on without it.
const HELD_UP: Duration = Duration::from_millis(200);
/// Wait between two looks whether readers have room.
const ROOM_PAUSE: Duration = Duration::from_millis(2);
/// How often the user is told that no broker answers.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(30);

/// The consumers of a subtask, by topic.
pub(super) struct Hubs {
    table: Arc<KafkaTable>,
    orders: Mutex<BTreeMap<String, Sender<Order>>>,
}

/// A partition to read.
struct Order {
    partition: i32,
    slot: Slot,
    /// Where its lag is shown.
    shown: SplitLag,
}

impl Hubs {
    /// No consumers yet.
    pub(super) fn new(table: Arc<KafkaTable>) -> Hubs {
        Hubs { table, orders: Mutex::default() }
    }

    /// Begins to read a partition. The lag is what there is beyond what the reader says to have decoded.
    pub(super) fn open(
        &self,
        (topic, partition): (&str, i32),
        start: i64,
        stop: Option<i64>,
        shown: SplitLag,
    ) -> Result<(mpsc::Receiver<Delivery>, Arc<Progress>), ConnectorError> {
        let (reader, deliveries) = mpsc::channel(WAITING_MAX);
        let progress = Arc::new(Progress::new(start));
        let slot = Slot::new(start, stop, progress.clone(), reader);
        let mut order = Order { partition, slot, shown };
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = orders.get(topic) {
            match sender.send(order) {
                Ok(()) => return Ok((deliveries, progress)),
                // The consumer has failed and gone.
                Err(returned) => order = returned.0,
            }
        }
        let (sender, receiver) = channel();
        let consumer = Arc::new(self.table.options.cluster.consumer()?);
        let hub = Hub {
            table: self.table.clone(),
            topic: topic.to_owned(),
            consumer,
            slots: BTreeMap::new(),
            lags: LagBoard::default(),
            complained: None,
        };
        sender.send(order).expect("the receiver is here");
        let name = format!("kafka-{}", self.table.spec.name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || hub.run(&receiver));
        spawned.map_err(|error| {
            ConnectorError::new(ErrorKind::Transient, format!("cannot start a thread to read topic '{topic}': {error}"))
        })?;
        orders.insert(topic.to_owned(), sender);
        Ok((deliveries, progress))
    }
}

struct Hub {
    table: Arc<KafkaTable>,
    topic: String,
    consumer: Arc<BaseConsumer<Context>>,
    slots: BTreeMap<i32, Slot>,
    lags: LagBoard,
    /// When the user was last told that no broker answers.
    complained: Option<Instant>,
}

impl Hub {
    /// Reads until the last handle of the orders is gone.
    fn run(mut self, orders: &Receiver<Order>) {
        let _watching = self.watch_lags();
        loop {
            let order = match self.slots.is_empty() {
                // Nothing to read: orders are all there is to wait for; librdkafka wants to be asked all the same.
                true => match orders.recv_timeout(Duration::from_secs(1)) {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                false => match orders.try_recv() {
                    Ok(order) => Some(order),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                },
            };
            let done = match order {
                Some(order) => self.begin(order),
                // While everybody has enough, nobody asks for more.
                None if !self.slots.is_empty() && self.slots.values().all(Slot::waits) => self.hand_over(),
                None => {
                    let gathered = self.gather();
                    self.deliver(gathered)
                }
            };
            if let Err(error) = done {
                self.slots.values_mut().for_each(|slot| slot.push(Delivery::Failed(error.clone())));
                while !self.slots.is_empty() {
                    self.slots.retain(|_, slot| slot.hand_over() != Handed::Over);
                    pause(ROOM_PAUSE);
                }
                return;
            }
        }
    }

    /// Has the lag shown until what is given back is dropped. Without a thread it is not shown, and nothing else is missing.
    fn watch_lags(&self) -> Sender<()> {
        let (watching, ended) = channel();
        let (lags, consumer, topic) = (self.lags.clone(), self.consumer.clone(), self.topic.clone());
        let name = format!("kafka-lag-{}", self.table.spec.name);
        let watch = move || lags.watch(&consumer, &topic, &ended);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(watch) {
            tracing::warn!(table = self.table.spec.name, %error, "the lag is not shown");
        }
        watching
    }

    fn begin(&mut self, Order { partition, slot, shown }: Order) -> Result<(), ConnectorError> {
        if self.slots.remove(&partition).is_some() {
            self.forget(partition)?;
        }
        let mut list = TopicPartitionList::new();
        let assigned = list
            .add_partition_offset(&self.topic, partition, Offset::Offset(slot.next))
            .and_then(|()| self.consumer.incremental_assign(&list));
        self.lags.add(partition, slot.progress.clone(), slot.stop, shown);
        self.slots.insert(partition, slot);
        assigned.map_err(|error| self.failed(&error))
    }

    fn forget(&self, partition: i32) -> Result<(), ConnectorError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        self.consumer.incremental_unassign(&list).map_err(|error| self.failed(&error))
    }

    /// Waits for a message and takes what else is there.
    fn gather(&mut self) -> Gathered {
        let mut gathered = Gathered::default();
        let mut until = None;
        let with_headers = self.table.layout.has_headers();
        self.lags.on_asked();
        loop {
            let wait = if until.is_none() { POLL } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                None => return gathered,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    if let Some(slot) = self.slots.get_mut(&partition) {
                        slot.take(&message, with_headers, &mut gathered);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    gathered.ended.push(partition);
                    if let Some(slot) = self.slots.get(&partition) {
                        slot.progress.on_end();
                    }
                }
                Some(Err(error)) => {
                    gathered.failure = Some(error);
                    return gathered;
                }
            }
            let until = *until.get_or_insert_with(|| now() + GATHER);
            let full = gathered.messages >= GATHERED_MAX || gathered.bytes >= GATHERED_BYTES_MAX;
            if full || now() >= until {
                return gathered;
            }
        }
    }

    fn deliver(&mut self, gathered: Gathered) -> Result<(), ConnectorError> {
        for (partition, chunk) in gathered.chunks {
            if let Some(slot) = self.slots.get_mut(&partition) {
                slot.push(Delivery::Chunk(chunk));
            }
        }
        for (partition, slot) in &mut self.slots {
            let at_stop = slot.stop.is_some_and(|stop| slot.next >= stop);
            // What follows the last message of committed transactions are marks that nobody sees. A stop lies at
            // the end of the partition at most, so this end is at or behind it.
            let ended = slot.stop.is_some() && gathered.ended.contains(partition);
            if (at_stop || ended) && !slot.has_ended() {
                slot.push(Delivery::Finished);
            }
        }
        self.hand_over()?;
        match gathered.failure {
            Some(error) => self.judge(&error),
            None => Ok(()),
        }
    }

    /// Gives the readers what waits for them. A reader that takes nothing for a while must not keep the others from what is
    /// theirs, since it may be held up until they get on: meanwhile nothing is fetched of its partition.
    fn hand_over(&mut self) -> Result<(), ConnectorError> {
        let begun = now();
        loop {
            let handed: Vec<(i32, Handed)> = self.slots.iter_mut().map(|(p, slot)| (*p, slot.hand_over())).collect();
            let of =
                |wanted| handed.iter().filter(move |(_, handed)| *handed == wanted).map(|(partition, _)| *partition);
            for partition in of(Handed::Over) {
                self.set_paused(partition, false)?;
                self.slots.remove(&partition);
                self.lags.remove(partition);
                self.forget(partition)?;
            }
            for partition in of(Handed::All) {
                self.set_paused(partition, false)?;
            }
            // Nobody waits for those that are paused, unless there is nobody else.
            let all_wait = of(Handed::All).next().is_none();
            let is_awaited = |partition| all_wait || !self.slots[&partition].is_paused;
            if !of(Handed::Waits).any(is_awaited) {
                return Ok(());
            }
            if begun.elapsed() >= HELD_UP {
                // Where all wait, nobody is kept from anything; to fetch the same once more would be in vain.
                if !all_wait {
                    of(Handed::Waits).try_for_each(|partition| self.set_paused(partition, true))?;
                }
                return Ok(());
            }
            pause(ROOM_PAUSE);
        }
    }

    fn set_paused(&mut self, partition: i32, pauses: bool) -> Result<(), ConnectorError> {
        let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.is_paused != pauses) else { return Ok(()) };
        slot.is_paused = pauses;
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let set = if pauses { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        set.map_err(|error| self.failed(&error))
    }

    /// Whether an error that the consumer reports ends the reading, or passes while librdkafka tries again.
    fn judge(&mut self, error: &KafkaError) -> Result<(), ConnectorError> {
        use RDKafkaErrorCode as Code;
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let table = &self.table.spec.name;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset) => Err(ConnectorError::new(
                ErrorKind::External,
                format!(
                    "table '{table}' cannot go on reading topic '{}': an offset that it needs is not there any more ({}); the topic's retention may have removed it, or the topic was made anew. Start the job afresh, or set 'properties.auto.offset.reset' = 'earliest' to go on with a gap",
                    self.topic,
                    self.positions()
                ),
            )),
            Some(
                Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::SSL,
            ) => Err(self.failed(error)),
            _ if fatal => Err(self.failed(error)),
            _ => {
                let due = self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE);
                if due && matches!(error.rdkafka_error_code(), Some(Code::AllBrokersDown)) {
                    self.complained = Some(now());
                    let error = self.failed(error);
                    tracing::warn!(table, topic = self.topic, %error, "reading goes on when a broker answers");
                }
                Ok(())
            }
        }
    }

    fn positions(&self) -> String {
        let places =
            self.slots.iter().take(5).map(|(partition, slot)| format!("partition {partition} offset {}", slot.next));
        places.collect::<Vec<_>>().join(", ")
    }

    fn failed(&self, error: &KafkaError) -> ConnectorError {
        let what = format!("read topic '{}'", self.topic);
        self.table.options.cluster.failed(&what, error, self.consumer.context())
    }
}
