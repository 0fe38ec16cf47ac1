//! `upsert-kafka` at both ends, the other guarantees of the sink, and what it writes beside the value.

use std::collections::BTreeMap;

use super::{counted, with};
use crate::support::Sandbox;
use crate::support::kafka::{Broker, Seen};

/// What is there by key after all messages.
fn last_by_key(seen: &[Seen]) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for message in seen {
        let key = message.key.clone().unwrap();
        match &message.value {
            Some(value) => rows.insert(key, value.clone()),
            None => rows.remove(&key),
        };
    }
    rows
}

#[test]
fn rows_replace_each_other_by_key_through_two_jobs() {
    let broker = Broker::shared();
    for (topic, partitions) in [("orders", 2), ("totals", 3)] {
        broker.create(topic, partitions);
    }
    let producer = broker.producer();
    // The last of each order counts; every fifth is deleted again.
    for id in 0..50 {
        let key = format!(r#"{{"id":{id}}}"#);
        for amount in [1, 2, 10] {
            let value = format!(r#"{{"id":{id},"customer":"c{}","amount":{amount}}}"#, id % 7);
            producer.send("orders", None, Some(&key), Some(&value));
        }
        if id % 5 == 0 {
            producer.send("orders", None, Some(&key), None);
        }
    }
    producer.flush();
    let formats = "'key.format' = 'json', 'value.format' = 'json'";
    let orders = with(&broker, "upsert-kafka", "orders", &format!("{formats}, 'scan.bounded.mode' = 'latest-offset'"));
    let totals = with(&broker, "upsert-kafka", "totals", formats);
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE orders (id BIGINT, customer STRING, amount BIGINT, PRIMARY KEY (id) NOT ENFORCED) {orders};
         CREATE TABLE totals (customer STRING, n BIGINT, total BIGINT, PRIMARY KEY (customer) NOT ENFORCED) {totals};
         INSERT INTO totals SELECT customer, COUNT(*), SUM(amount) FROM orders WHERE id <> 1 AND id <> 8 OR amount < 5 GROUP BY customer;"
    ));
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "100 ms", "--parallelism", "2"]);
    let mut expected = BTreeMap::<String, (i64, i64)>::new();
    for id in (0..50).filter(|id| id % 5 != 0 && *id != 1 && *id != 8) {
        let total = expected.entry(format!("c{}", id % 7)).or_default();
        *total = (total.0 + 1, total.1 + 10);
    }
    let line = |(customer, (n, total)): (&String, &(i64, i64))| {
        let value = format!(r#"{{"customer":"{customer}","n":{n},"total":{total}}}"#);
        (format!(r#"{{"customer":"{customer}"}}"#), value)
    };
    let seen = broker.read("totals");
    assert_eq!(last_by_key(&seen), expected.iter().map(line).collect());
    // All of a key in one partition, the one that every other client would choose.
    let places = counted(seen.iter().map(|message| (message.key.clone(), message.partition)));
    assert_eq!(places.len(), counted(seen.iter().map(|message| message.key.clone())).len());
}

#[test]
fn messages_carry_keys_times_and_headers() {
    let broker = Broker::shared();
    broker.create("carried", 2);
    let options =
        "'key.format' = 'raw', 'key.fields' = 'id', 'value.format' = 'csv', 'value.fields-include' = 'EXCEPT_KEY'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id STRING, v STRING) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
         CREATE TABLE o (id STRING, v STRING, w BIGINT, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', headers MAP<STRING, BYTES> METADATA,
           o BIGINT METADATA FROM 'offset' VIRTUAL) {};
         INSERT INTO o SELECT id, v, 5, TO_TIMESTAMP_LTZ(1767225600123, 3), MAP['who', CAST(v AS BYTES)] FROM t;",
        with(&broker, "kafka", "carried", options)
    ));
    sandbox.write("in/a.json", "{\"id\":\"one\",\"v\":\"x,\\ny\"}\n{\"id\":\"two\",\"v\":null}\n");
    sandbox.run_ok(&["run", "job.sql"]);
    let mut seen = broker.read("carried");
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!((seen[0].key.as_deref(), seen[0].value.as_deref()), (Some("one"), Some("\"x,\ny\",5")));
    assert_eq!(seen[0].timestamp, Some(1_767_225_600_123));
    assert_eq!(seen[0].headers, BTreeMap::from([("who".to_owned(), "x,\ny".to_owned())]));
    assert_eq!((seen[1].key.as_deref(), seen[1].value.as_deref()), (Some("two"), Some(",5")));
}

#[test]
fn weaker_guarantees_and_partitioners_write_every_row() {
    let broker = Broker::shared();
    for (delivery, partitioner) in [
        ("at-least-once", "round-robin"),
        ("none", "default"),
        ("exactly-once", "fixed"),
        ("exactly-once", "round-robin"),
    ] {
        let topic = format!("by-{delivery}-{partitioner}");
        broker.create(&topic, 3);
        let options = format!(
            "'format' = 'json', 'sink.delivery-guarantee' = '{delivery}', 'sink.partitioner' = '{partitioner}'"
        );
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3000', 'fields.id.kind' = 'sequence',
               'fields.id.start' = '0', 'fields.id.end' = '2999');
             CREATE TABLE o (id BIGINT) {}; INSERT INTO o SELECT id FROM t;",
            with(&broker, "kafka", &topic, &options)
        ));
        sandbox.run_ok(&["run", "job.sql", "--parallelism", "2", "--checkpoint-interval", "100 ms"]);
        let seen = broker.read(&topic);
        let values = counted(seen.iter().map(|message| message.value.clone().unwrap()));
        assert_eq!((seen.len(), values.len()), (3000, 3000), "{topic}");
        let partitions = counted(seen.iter().map(|message| message.partition));
        match partitioner {
            "round-robin" => assert!(partitions.values().all(|n| *n >= 900), "{topic}: {partitions:?}"),
            "fixed" => assert!(partitions.len() <= 2, "{topic}: {partitions:?}"),
            _ => {}
        }
    }
}
