//! Wrong messages of Kafka, with a real broker.

use std::collections::BTreeSet;

use super::{COLUMNS, Poison, base64, poison, wrong};
use crate::support::kafka::{Broker, Seen, TestProducer};
use crate::support::{Sandbox, assert_says, text};

fn with(broker: &Broker, topic: &str, more: &str) -> String {
    let servers = broker.servers();
    format!("WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', {more})")
}

/// Copies `in` to `out`; wrong messages may go to `letters`.
fn sql(broker: &Broker, topics: &str, options: &str) -> String {
    format!(
        "CREATE TABLE t ({COLUMNS}) {};
         CREATE TABLE o (id BIGINT) {};
         CREATE TABLE letters (split STRING, `position` BIGINT, raw BYTES, raw_key STRING, reason STRING) {};
         INSERT INTO o SELECT id FROM t;",
        with(
            broker,
            &format!("{topics}-in"),
            &format!("'format' = 'json', 'scan.startup.mode' = 'earliest-offset'{options}")
        ),
        with(broker, &format!("{topics}-out"), "'format' = 'json'"),
        with(broker, &format!("{topics}-letters"), "'format' = 'json'"),
    )
}

const BOUNDED: &str = ", 'scan.bounded.mode' = 'latest-offset'";
const DEAD_LETTER: &str = ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters'";

fn topics(broker: &Broker, name: &str, partitions: i32) {
    broker.create(&format!("{name}-in"), partitions);
    broker.create(&format!("{name}-out"), 1);
    broker.create(&format!("{name}-letters"), 1);
}

/// Poison that a broker takes without being told to.
fn small(kinds: Vec<Poison>) -> Vec<Poison> {
    kinds.into_iter().filter(|kind| kind.bytes.len() < 1 << 20).collect()
}

fn send(producer: &TestProducer, topic: &str, partition: i32, value: &[u8]) {
    producer.send_bytes(topic, partition, b"k", value);
}

fn values(seen: &[Seen]) -> Vec<serde_json::Value> {
    seen.iter().map(|message| serde_json::from_str(message.value.as_deref().unwrap()).unwrap()).collect()
}

#[test]
fn each_kind_under_each_policy_is_counted_exactly() {
    let broker = Broker::shared();
    topics(&broker, "kinds", 1);
    let producer = broker.producer();
    let mut offset = 0;
    let mut expected = BTreeSet::new();
    for kind in small(poison()) {
        send(&producer, "kinds-in", 0, &kind.bytes);
        send(&producer, "kinds-in", 0, br#"{"id":100}"#);
        if kind.reason.is_some() {
            expected.insert((offset, base64(&kind.bytes)));
        }
        offset += 2;
    }
    producer.flush();
    let message = Sandbox::new(&sql(&broker, "kinds", BOUNDED)).run_err(&["run", "job.sql"]);
    assert_says(&message, &["topic 'kinds-in', partition 0, offset 0", "'bad-records' = 'drop'", "job 'job' failed"]);
    assert!(!message.contains("restart"), "{message}");

    let dropping = Sandbox::new(&sql(&broker, "kinds", &format!("{BOUNDED}, 'bad-records' = 'drop'")));
    let said = text(&dropping.run_ok(&["run", "job.sql"]).stderr);
    // One of each pair is good, and that with a key twice.
    let rows = small(poison()).len() + 1;
    assert_says(&said, &[&format!("{rows} rows in"), &format!("{} dropped", expected.len())]);
    assert_eq!(broker.read("kinds-out").len(), rows);

    let keeping = Sandbox::new(&sql(&broker, "kinds", &format!("{BOUNDED}{DEAD_LETTER}")));
    let said = text(&keeping.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &[&format!("{} dead letters", expected.len())]);
    assert_eq!(broker.read("kinds-out").len(), 2 * rows);
    let letters = values(&broker.read("kinds-letters"));
    assert_eq!(letters.len(), expected.len());
    let found: BTreeSet<(i64, String)> =
        letters.iter().map(|l| (l["position"].as_i64().unwrap(), l["raw"].as_str().unwrap().to_owned())).collect();
    assert!(found == expected, "{found:?}");
    assert!(letters.iter().all(|l| l["split"] == "kinds-in/0" && l["raw_key"] == "k"), "{letters:?}");
}

#[test]
fn large_messages_and_wrong_keys_have_letters() {
    let broker = Broker::shared();
    topics(&broker, "keys", 1);
    broker.configure("keys-in", "max.message.bytes", "20000000");
    let producer = broker.producer_of("20000000");
    let large = poison().swap_remove(2).bytes;
    producer.send_bytes("keys-in", 0, br#"{"k":1}"#, &large);
    producer.send_bytes("keys-in", 0, b"broken", br#"{"id":2}"#);
    producer.send_bytes("keys-in", 0, br#"{"k":3}"#, br#"{"id":3}"#);
    producer.flush();
    let key =
        "'key.format' = 'json', 'key.fields' = 'k', 'value.fields-include' = 'EXCEPT_KEY', 'value.format' = 'json'";
    let text_of = sql(&broker, "keys", &format!("{BOUNDED}{DEAD_LETTER}"));
    let text_of = text_of.replacen("'format' = 'json'", key, 1).replacen(COLUMNS, &format!("k INT, {COLUMNS}"), 1);
    let sandbox = Sandbox::new(&text_of);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(values(&broker.read("keys-out")), [serde_json::json!({"id": 3})]);
    let letters = values(&broker.read("keys-letters"));
    assert_eq!(letters.len(), 2, "{}", letters.len());
    let reason = |position: i64| {
        let letter = letters.iter().find(|letter| letter["position"] == position).unwrap();
        letter["reason"].as_str().unwrap().to_owned()
    };
    assert_says(&reason(0), &["(raw holds the first 524288 of 8388"]);
    assert_says(&reason(1), &["the key: "]);
}

#[test]
fn kills_leave_each_row_and_each_letter_once() {
    const MESSAGES: usize = 45_000;
    let broker = Broker::shared();
    topics(&broker, "killed", 3);
    let kinds: Vec<Poison> = wrong().into_iter().filter(|kind| kind.bytes.len() < 1_000).collect();
    let sandbox = Sandbox::new(&sql(&broker, "killed", &format!("{BOUNDED}{DEAD_LETTER}")));
    let producer = broker.producer();
    let mut expected = BTreeSet::new();
    for n in 0..MESSAGES {
        let (partition, offset) = ((n % 3) as i32, (n / 3) as i64);
        // One partition begins with more than a chunk of nothing else.
        if n % 10 == 3 || (partition == 0 && offset < 3_000) {
            let kind = &kinds[n % kinds.len()];
            send(&producer, "killed-in", partition, &kind.bytes);
            expected.insert((format!("killed-in/{partition}"), offset, base64(&kind.bytes)));
        } else {
            send(&producer, "killed-in", partition, format!(r#"{{"id":{n}}}"#).as_bytes());
        }
    }
    producer.flush();
    let kills = sandbox.run_over_kills(0x6b62_6164, 10);
    assert!(kills >= 4, "{kills} kills");
    let rows = values(&broker.read("killed-out"));
    let ids: BTreeSet<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!((rows.len(), ids.len()), (MESSAGES - expected.len(), MESSAGES - expected.len()));
    let letters = values(&broker.read("killed-letters"));
    assert_eq!(letters.len(), expected.len());
    let found: BTreeSet<(String, i64, String)> = letters
        .iter()
        .map(|l| {
            (
                l["split"].as_str().unwrap().to_owned(),
                l["position"].as_i64().unwrap(),
                l["raw"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert!(found == expected, "other letters than those of the input");
    println!("{kills} kills, {} letters", expected.len());
}
