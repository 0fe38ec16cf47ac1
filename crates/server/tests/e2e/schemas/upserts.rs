//! `upsert-kafka` with keys and values in Avro, by schemas of a registry: messages of others that replace each other and go,
//! and what a job writes for others, over kills.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{framed, long, string};
use crate::support::Sandbox;
use crate::support::kafka::{Broker, Seen};
use crate::support::registry::Registry;

const ORDERS: i64 = 60;

fn with(broker: &Broker, registry: &Registry, topic: &str, more: &str) -> String {
    let (servers, url) = (broker.servers(), registry.url());
    format!(
        "WITH ('connector' = 'upsert-kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}',
           'key.format' = 'avro-confluent', 'key.avro-confluent.url' = '{url}',
           'value.format' = 'avro-confluent', 'value.avro-confluent.url' = '{url}'{more})"
    )
}

const BOUNDED: &str = ", 'scan.bounded.mode' = 'latest-offset'";

/// A text that may be absent.
fn optional(text: Option<&str>) -> Vec<u8> {
    text.map_or_else(|| long(0), |text| [long(1), string(text)].concat())
}

/// The last value of each key, and how many messages took one away. All ids and numbers are small, so bytes are texts.
fn folded(seen: &[Seen]) -> (BTreeMap<String, String>, usize) {
    let mut rows = BTreeMap::new();
    let mut tombstones = 0;
    for message in seen {
        let key = message.key.clone().unwrap();
        match &message.value {
            Some(value) => _ = rows.insert(key, value.clone()),
            None => {
                tombstones += 1;
                rows.remove(&key).expect("what goes was there");
            }
        }
    }
    (rows, tombstones)
}

#[test]
fn keys_and_values_in_avro_replace_each_other_and_go() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    for (topic, partitions) in [("avro-orders", 2), ("avro-sums", 3)] {
        broker.create(topic, partitions);
    }
    // Another program's schemas: the key's field, and a value with a field more and its fields in another order.
    let key = registry.register(
        "avro-orders-key",
        &json!({"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}),
    );
    let fields = json!([{"name": "amount", "type": "int"}, {"name": "customer", "type": ["null", "string"]},
        {"name": "more", "type": "string"}, {"name": "id", "type": "long"}]);
    let value = registry.register("avro-orders-value", &json!({"type": "record", "name": "v", "fields": fields}));
    let producer = broker.producer();
    for id in 0..ORDERS {
        let (partition, key) = ((id % 2) as i32, framed(key, &long(id)));
        let customer = format!("c{}", id % 7);
        for amount in [1, 2, 4] {
            let customer = (id % 6 != 0).then_some(customer.as_str());
            let record = [long(amount), optional(customer), string("x"), long(id)].concat();
            producer.send_bytes("avro-orders", partition, &key, &framed(value, &record));
        }
        if id % 5 == 0 {
            producer.send_tombstone("avro-orders", partition, &key);
        }
    }
    producer.flush();
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE orders (id BIGINT, customer STRING, amount BIGINT, PRIMARY KEY (id) NOT ENFORCED) {};
         CREATE TABLE sums (customer STRING, n BIGINT, total BIGINT, PRIMARY KEY (customer) NOT ENFORCED) {};
         INSERT INTO sums SELECT COALESCE(customer, '-'), COUNT(*), SUM(amount) FROM orders
           WHERE id NOT IN (1, 8, 15, 22, 29, 36, 43, 50, 57) OR amount < 3 GROUP BY COALESCE(customer, '-');",
        with(&broker, &registry, "avro-orders", BOUNDED),
        with(&broker, &registry, "avro-sums", ""),
    ));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", "2"];
    for edge in ["transaction-written", "epoch-complete", "published"] {
        sandbox.kill_at(&arguments, edge, 1);
    }
    sandbox.run_ok(&arguments);

    let mut expected = BTreeMap::<String, (i64, i64)>::new();
    for id in (0..ORDERS).filter(|id| id % 5 != 0 && id % 7 != 1) {
        let customer = if id % 6 == 0 { "-".to_owned() } else { format!("c{}", id % 7) };
        let sum = expected.entry(customer).or_default();
        *sum = (sum.0 + 1, sum.1 + 4);
    }
    // What was registered, as Flink would have it: a key cannot be NULL, all else can.
    let schema = |subject: &str| serde_json::from_str::<Value>(&registry.newest(subject).0).unwrap();
    let of = |subject: &str, name: &str| {
        let schema = schema(subject);
        let field = schema["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).cloned();
        field.unwrap_or_else(|| panic!("{schema}"))["type"].clone()
    };
    assert_eq!(
        (of("avro-sums-key", "customer"), of("avro-sums-value", "n")),
        (json!("string"), json!(["null", "long"]))
    );
    assert_eq!(schema("avro-sums-key")["fields"].as_array().map(Vec::len), Some(1), "nothing but the key");

    // By another job, which reads what the first has written.
    let reading = Sandbox::new(&format!(
        "CREATE TABLE sums (customer STRING, n BIGINT, total BIGINT, PRIMARY KEY (customer) NOT ENFORCED) {};
         CREATE TABLE o (customer STRING, n BIGINT, total BIGINT, PRIMARY KEY (customer) NOT ENFORCED)
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
         INSERT INTO o SELECT customer, n, total FROM sums;",
        with(&broker, &registry, "avro-sums", BOUNDED)
    ));
    reading.run_ok(&["run", "job.sql"]);
    let rows = crate::support::changelog::ChangelogFold::upserts(&reading.path("out")).unwrap().rows();
    let line = |(customer, (n, total)): (&String, &(i64, i64))| {
        (format!(r#"{{"customer":"{customer}","n":{n},"total":{total}}}"#), 1)
    };
    assert_eq!(rows, expected.iter().map(line).collect());

    // By its bytes: the last message of each key is its row, the keys that have gone end in a tombstone.
    let (last, _) = folded(&broker.read("avro-sums"));
    assert_eq!(last.len(), expected.len());
    let texts = last.into_iter().map(|(key, value)| (key.as_bytes()[6..].to_vec(), value));
    for (customer, value) in texts {
        let customer = String::from_utf8(customer).unwrap();
        let (n, total) = expected[&customer];
        let bytes = [string(&customer), long(1), long(n), long(1), long(total)].concat();
        // Behind the head; lossless as long as every byte is below 128.
        assert_eq!(&value.as_bytes()[5..], bytes, "{customer}");
    }
}

#[test]
fn what_goes_is_a_tombstone_with_its_key_in_avro() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    for topic in ["avro-living", "avro-copied"] {
        broker.create(topic, 1);
    }
    let name = |topic: &str| format!("{topic}-key");
    let key = registry.register(
        &name("avro-living"),
        &json!({"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}),
    );
    let fields = json!([{"name": "id", "type": "long"}, {"name": "v", "type": ["null", "string"], "default": null}]);
    let value = registry.register("avro-living-value", &json!({"type": "record", "name": "v", "fields": fields}));
    let producer = broker.producer();
    let send = |id: i64, v: Option<&str>| {
        let record = [long(id), optional(v)].concat();
        producer.send_bytes("avro-living", 0, &framed(key, &long(id)), &framed(value, &record));
    };
    send(1, Some("a"));
    send(2, None);
    send(3, Some("c"));
    producer.flush();
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE living (id BIGINT, v STRING, PRIMARY KEY (id) NOT ENFORCED) {};
         CREATE TABLE copied (id BIGINT, v STRING, PRIMARY KEY (id) NOT ENFORCED) {};
         INSERT INTO copied SELECT id, UPPER(v) FROM living;",
        with(&broker, &registry, "avro-living", ""),
        with(&broker, &registry, "avro-copied", ""),
    ));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
    let mut running = crate::kafka::Running::start(&sandbox, &arguments);
    running.until(&sandbox, "all rows are there", || broker.read("avro-copied").len() == 3);
    running.kill();
    // While nobody reads: one goes, one that never was goes, one comes back.
    producer.send_tombstone("avro-living", 0, &framed(key, &long(1)));
    producer.send_tombstone("avro-living", 0, &framed(key, &long(9)));
    producer.send_tombstone("avro-living", 0, &framed(key, &long(3)));
    send(3, Some("d"));
    producer.flush();
    let mut running = crate::kafka::Running::start(&sandbox, &arguments);
    running.until(&sandbox, "the changes are there", || {
        let (last, tombstones) = folded(&broker.read("avro-copied"));
        tombstones >= 1 && last.len() == 2 && last.values().any(|value| value.ends_with('D'))
    });
    // What came of the key that never was would stand before this one.
    send(4, Some("e"));
    producer.flush();
    running.until(&sandbox, "the last row is there", || {
        broker
            .read("avro-copied")
            .iter()
            .any(|message| message.value.as_ref().is_some_and(|value| value.ends_with('E')))
    });
    running.kill();
    let seen = broker.read("avro-copied");
    let keys: Vec<_> = seen.iter().map(|message| message.key.as_ref().unwrap().as_bytes()[5..].to_vec()).collect();
    assert!(keys.iter().all(|key| [1, 2, 3, 4].map(long).contains(key)), "{keys:?}");
    let (last, _) = folded(&seen);
    let ids: Vec<_> = last.keys().map(|key| key.as_bytes()[5..].to_vec()).collect();
    assert_eq!(ids, [2, 3, 4].map(long));
}
