//! Writes what jobs read.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::PATIENCE;

/// A producer of messages. What it repeats, since an answer was lost with its broker, is there once.
pub(crate) struct TestProducer(pub(super) BaseProducer);

impl TestProducer {
    /// Sends one message; `partition` none: by its key.
    pub(crate) fn send(&self, topic: &str, partition: Option<i32>, key: Option<&str>, value: Option<&str>) {
        self.send_record(topic, |mut record| {
            record.partition = partition;
            record.key = key;
            record.payload = value;
            record
        });
    }

    /// Sends a message of any bytes.
    pub(crate) fn send_bytes(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) {
        while self.0.send(BaseRecord::to(topic).partition(partition).key(key).payload(value)).is_err() {
            self.0.poll(Duration::from_millis(10));
        }
    }

    /// Sends a key of any bytes that goes: a message without a value.
    pub(crate) fn send_tombstone(&self, topic: &str, partition: i32, key: &[u8]) {
        while self.0.send(BaseRecord::<[u8], [u8]>::to(topic).partition(partition).key(key)).is_err() {
            self.0.poll(Duration::from_millis(10));
        }
    }

    /// Sends a message of one's own making.
    pub(crate) fn send_record<'a>(
        &self,
        topic: &'a str,
        make: impl Fn(BaseRecord<'a, str, str>) -> BaseRecord<'a, str, str>,
    ) {
        while self.0.send(make(BaseRecord::to(topic))).is_err() {
            self.0.poll(Duration::from_millis(10));
        }
    }

    /// Waits until the broker has everything.
    pub(crate) fn flush(&self) {
        self.0.flush(PATIENCE).unwrap();
    }
}
