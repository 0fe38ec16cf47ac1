//! A real Kafka broker, and a client that judges what sinks wrote.

mod node;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message as _};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

pub(crate) use self::node::Access;
use self::node::Node;
pub(super) use self::node::spawn;
pub(crate) use self::producer::TestProducer;
use super::ports::free_port;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);

/// A broker, or a group of them, on loopback. Dropping it kills it.
pub(crate) struct Broker {
    nodes: Vec<Node>,
    ports: Vec<u16>,
}

/// A message as readers of committed ones see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Broker {
    /// The broker that tests share while any of them runs.
    pub(crate) fn shared() -> Arc<Broker> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = shared.upgrade() {
            return broker;
        }
        let broker = Arc::new(Broker::start());
        *shared = Arc::downgrade(&broker);
        broker
    }

    /// A broker of one's own.
    pub(crate) fn start() -> Broker {
        Broker::start_with(1, &Access::default())
    }

    /// A group of brokers, each with a copy of every partition; a message is there when all but one have it.
    pub(crate) fn start_group(nodes: usize) -> Broker {
        Broker::start_with(nodes, &Access::default())
    }

    /// A broker that is also spoken to in other ways.
    pub(crate) fn start_secured(access: &Access) -> Broker {
        Broker::start_with(1, access)
    }

    fn start_with(nodes: usize, access: &Access) -> Broker {
        let free = |_| free_port();
        let (ports, controllers): (Vec<_>, Vec<_>) = ((0..nodes).map(free).collect(), (0..nodes).map(free).collect());
        let nodes = ports.iter().enumerate().map(|(index, port)| Node::prepare(index, *port, &controllers, access));
        let broker = Broker { nodes: nodes.collect(), ports };
        broker.go();
        broker
    }

    /// Starts all processes, none of which may run.
    pub(crate) fn go(&self) {
        self.nodes.iter().for_each(Node::spawn);
        self.nodes.iter().for_each(Node::wait);
    }

    /// Kills all processes with SIGKILL.
    pub(crate) fn kill(&self) {
        self.nodes.iter().for_each(Node::kill);
    }

    /// Kills one of a group.
    pub(crate) fn kill_one(&self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts it again, and waits until it has all that the others have.
    pub(crate) fn go_one(&self, index: usize) {
        self.nodes[index].spawn();
        self.nodes[index].wait();
        let consumer: BaseConsumer = self.config().set("group.id", "judge").create().unwrap();
        let begun = Instant::now();
        loop {
            let metadata = consumer.fetch_metadata(None, SECOND);
            let is_whole = |metadata: &rdkafka::metadata::Metadata| {
                let mut partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
                partitions.all(|partition| partition.isr().len() == self.nodes.len())
            };
            if metadata.as_ref().is_ok_and(is_whole) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "broker {index} stays behind:\n{}", self.nodes[index].log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn servers(&self) -> String {
        let servers: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        servers.join(",")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers());
        config
    }

    fn admin<T>(&self, act: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> T {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        futures::executor::block_on(act(&admin, &options))
    }

    pub(crate) fn create(&self, topic: &str, partitions: i32) {
        let begun = Instant::now();
        loop {
            let created = self.admin(async |admin, options| {
                let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.nodes.len() as i32));
                admin.create_topics([&topic], options).await.unwrap().remove(0)
            });
            match created {
                Ok(_) => break,
                // A broker takes connections before its controller counts on it.
                Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) if begun.elapsed() < PATIENCE => {}
                Err(error) => panic!("'{topic}' cannot be made: {error:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.wait_for(topic, partitions as usize);
    }

    /// Waits until clients are told of all partitions.
    fn wait_for(&self, topic: &str, partitions: usize) {
        let consumer: BaseConsumer = self.config().set("group.id", "judge").create().unwrap();
        let begun = Instant::now();
        while partitions_of(&consumer, topic).len() != partitions {
            assert!(begun.elapsed() < PATIENCE, "'{topic}' does not get its {partitions} partitions");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Raises the number of partitions.
    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        self.admin(async |admin, options| {
            for result in admin.create_partitions([&NewPartitions::new(topic, partitions)], options).await.unwrap() {
                result.unwrap();
            }
        });
        self.wait_for(topic, partitions);
    }

    pub(crate) fn producer(&self) -> TestProducer {
        TestProducer(self.config().set("linger.ms", "1").set("enable.idempotence", "true").create().unwrap())
    }

    /// Sends messages in one transaction, each to a partition; commits it or gives it up.
    pub(crate) fn send_together<'a>(
        &self,
        topic: &str,
        commits: bool,
        messages: impl IntoIterator<Item = (i32, &'a str)>,
    ) {
        let mut config = self.config();
        let producer: BaseProducer = config.set("transactional.id", format!("test-{topic}")).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let sender = TestProducer(producer);
        for (partition, value) in messages {
            sender.send(topic, Some(partition), None, Some(value));
        }
        sender.flush();
        match commits {
            true => sender.0.commit_transaction(PATIENCE).unwrap(),
            false => sender.0.abort_transaction(PATIENCE).unwrap(),
        }
    }

    /// A producer of messages of up to so many bytes.
    pub(crate) fn producer_of(&self, bytes_max: &str) -> TestProducer {
        TestProducer(self.config().set("message.max.bytes", bytes_max).create().unwrap())
    }

    /// Sets an option of a topic.
    pub(crate) fn configure(&self, topic: &str, key: &str, value: &str) {
        self.admin(async |admin, options| {
            let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
            for result in admin.alter_configs([&config], options).await.unwrap() {
                result.unwrap();
            }
        });
    }

    /// All messages that readers of committed ones see now, in the order of each partition.
    pub(crate) fn read(&self, topic: &str) -> Vec<Seen> {
        self.read_as(topic, "read_committed")
    }

    pub(crate) fn read_as(&self, topic: &str, isolation: &str) -> Vec<Seen> {
        let mut config = self.config();
        config.set("group.id", "judge").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        // The end is told when nothing has come for so long, which a job with short epochs leaves little time for.
        config.set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer = config.set("isolation.level", isolation).create().unwrap();
        let partitions = partitions_of(&consumer, topic);
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut seen = Vec::new();
        // A partition that goes on has several ends.
        let mut ended = BTreeSet::new();
        let begun = Instant::now();
        while ended.len() < partitions.len() {
            assert!(begun.elapsed() < PATIENCE, "'{topic}' cannot be read to its end");
            match consumer.poll(SECOND) {
                Some(Ok(message)) => seen.push(Seen {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(super::text),
                    value: message.payload().map(super::text),
                    timestamp: message.timestamp().to_millis(),
                    headers: message.headers().map(headers_of).unwrap_or_default(),
                }),
                Some(Err(KafkaError::PartitionEOF(partition))) => _ = ended.insert(partition),
                Some(Err(_)) | None => {}
            }
        }
        seen
    }

    /// Waits until no transaction is open in a topic.
    pub(crate) fn wait_until_settled(&self, topic: &str) {
        let ends = |isolation: &str| -> Vec<i64> {
            let mut config = self.config();
            let consumer: BaseConsumer =
                config.set("group.id", "judge").set("isolation.level", isolation).create().unwrap();
            let metadata = consumer.fetch_metadata(Some(topic), 10 * SECOND).unwrap();
            let partitions = metadata.topics()[0].partitions().iter();
            partitions
                .map(|partition| consumer.fetch_watermarks(topic, partition.id(), 10 * SECOND).unwrap().1)
                .collect()
        };
        let begun = Instant::now();
        while ends("read_committed") != ends("read_uncommitted") {
            assert!(begun.elapsed() < PATIENCE, "a transaction stays open in '{topic}'");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Commits offsets for a group, by partition.
    pub(crate) fn commit(&self, group: &str, topic: &str, offsets: &[i64]) {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// What a group has committed for each partition.
    pub(crate) fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        committed.elements().iter().map(|element| offset(element.offset())).collect()
    }
}

/// The partitions of a topic, once each of them has a leader.
fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let begun = Instant::now();
    loop {
        if let Ok(metadata) = consumer.fetch_metadata(Some(topic), 10 * SECOND) {
            let partitions = metadata.topics()[0].partitions();
            if !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0) {
                return partitions.iter().map(rdkafka::metadata::MetadataPartition::id).collect();
            }
        }
        assert!(begun.elapsed() < PATIENCE, "'{topic}' has no partitions with leaders");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn headers_of(headers: &rdkafka::message::BorrowedHeaders) -> BTreeMap<String, String> {
    headers.iter().map(|header| (header.key.to_owned(), super::text(header.value.unwrap_or_default()))).collect()
}
