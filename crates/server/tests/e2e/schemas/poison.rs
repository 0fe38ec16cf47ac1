//! Wrong messages under each policy, and kills: each good row and each letter exactly once.

use std::collections::BTreeSet;

use serde_json::json;

use super::{BOUNDED, framed, long, registered, string, values, with};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;
use crate::support::{Sandbox, assert_says, text};

/// Copies `in`, of Avro, to `out`; wrong messages may go to `letters`.
fn sql(broker: &Broker, registry: &Registry, topics: &str, options: &str) -> String {
    format!(
        "CREATE TABLE t (id BIGINT, name STRING NOT NULL) {};
         CREATE TABLE o (id BIGINT, name STRING) {};
         CREATE TABLE letters (split STRING, `position` BIGINT, raw BYTES, reason STRING) {};
         INSERT INTO o SELECT id, name FROM t;",
        with(
            broker,
            &format!("{topics}-in"),
            &format!("{}, {BOUNDED}{options}", registered(registry, "avro-confluent"))
        ),
        with(broker, &format!("{topics}-out"), &registered(registry, "avro-confluent")),
        with(broker, &format!("{topics}-letters"), "'format' = 'json'"),
    )
}

/// What a sink of ours wrote, read by a job of ours.
fn read_back(broker: &Broker, registry: &Registry, topics: &str) -> Vec<i64> {
    let copy = format!("{topics}-copy");
    broker.create(&copy, 1);
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT, name STRING) {};
         CREATE TABLE o (id BIGINT, name STRING) {};
         INSERT INTO o SELECT id, name FROM t;",
        with(broker, &format!("{topics}-out"), &format!("{}, {BOUNDED}", registered(registry, "avro-confluent"))),
        with(broker, &copy, "'format' = 'json'"),
    ));
    sandbox.run_ok(&["run", "job.sql"]);
    values(&broker.read(&copy)).iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

const DEAD_LETTER: &str = ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters'";

fn schema() -> serde_json::Value {
    json!({"type": "record", "name": "r", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}]})
}

fn good(id: u32, n: i64) -> Vec<u8> {
    framed(id, &[long(n), vec![2], string("a name")].concat())
}

/// Wrong messages, each with what is said of it.
fn wrong(id: u32) -> Vec<(Vec<u8>, String)> {
    let record = |parts: &[&[u8]]| framed(id, &parts.concat());
    let of = |bytes: Vec<u8>, reason: &str| (bytes, reason.to_owned());
    vec![
        of(vec![1, 0, 0, 0, 1, 2], "the record has the magic byte 1, expected 0"),
        of(br#"{"id":1}"#.to_vec(), "the record has the magic byte 123, expected 0"),
        of(framed(987_654, &[2, 0]), "the schema registry does not know the schema id 987654"),
        of(vec![], "the record is empty"),
        of(vec![0, 0, 0], "3 bytes, too few for the id of a schema"),
        of(record(&[&long(1)]), "the record is cut short"),
        of(record(&[&long(1), &[2], &[9]]), "the length -5"),
        of(record(&[&long(1), &[2], &string("x"), b"more"]), "4 bytes come after the record"),
        of(record(&[&long(1), &[4]]), "column 'name': a value has the branch 2, of 2"),
        of(record(&[&long(1), &[2, 2, 0xff]]), "column 'name': the text is not valid UTF-8"),
        of(record(&[&long(1), &[0]]), "column 'name': NULL in a NOT NULL column"),
        of(record(&[&[0xff; 11]]), "a number is longer than ten bytes"),
    ]
}

#[test]
fn each_kind_under_each_policy_is_counted_exactly() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    for topic in ["avro-in", "avro-out", "avro-letters"] {
        broker.create(topic, 1);
    }
    let id = registry.register("avro-in-value", &schema());
    let producer = broker.producer();
    let kinds = wrong(id);
    for (n, (bytes, _)) in kinds.iter().enumerate() {
        producer.send_bytes("avro-in", 0, b"k", &good(id, n as i64));
        producer.send_bytes("avro-in", 0, b"k", bytes);
    }
    producer.flush();
    let message = Sandbox::new(&sql(&broker, &registry, "avro", "")).run_err(&["run", "job.sql"]);
    assert_says(
        &message,
        &["topic 'avro-in', partition 0, offset 1", &kinds[0].1, "'bad-records' = 'drop'", "job 'job' failed"],
    );
    let dropping = Sandbox::new(&sql(&broker, &registry, "avro", ", 'bad-records' = 'drop'"));
    let said = text(&dropping.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &[&format!("{} rows in", kinds.len()), &format!("{} dropped", kinds.len())]);
    let keeping = Sandbox::new(&sql(&broker, &registry, "avro", DEAD_LETTER));
    let said = text(&keeping.run_ok(&["run", "job.sql"]).stderr);
    assert_says(&said, &[&format!("{} dead letters", kinds.len())]);
    let letters = values(&broker.read("avro-letters"));
    assert_eq!(letters.len(), kinds.len());
    for (n, letter) in letters.iter().enumerate() {
        assert_eq!(letter["position"], 2 * n as i64 + 1);
        assert_says(letter["reason"].as_str().unwrap(), &[&kinds[n].1]);
    }
    let twice: Vec<i64> = (0..2).flat_map(|_| 0..kinds.len() as i64).collect();
    assert_eq!(read_back(&broker, &registry, "avro"), twice);
    assert_eq!(registry.newest("avro-out-value").1, "AVRO");
}

#[test]
fn kills_leave_each_row_and_each_letter_once() {
    const MESSAGES: i64 = 30_000;
    let (broker, registry) = (Broker::shared(), Registry::shared());
    broker.create("avrokill-in", 3);
    broker.create("avrokill-out", 2);
    broker.create("avrokill-letters", 1);
    let first = registry.register("avrokill-in-value", &schema());
    // The same rows by a schema with another order and a field more.
    let second = registry.register(
        "avrokill-in-value",
        &json!({"type": "record", "name": "r", "fields": [{"name": "name", "type": "string"},
            {"name": "extra", "type": {"type": "array", "items": "int"}, "default": []}, {"name": "id", "type": "int"}]}),
    );
    let kinds = wrong(first);
    let producer = broker.producer();
    let mut expected = BTreeSet::new();
    for n in 0..MESSAGES {
        let (partition, offset) = ((n % 3) as i32, n / 3);
        let bytes = match n % 10 {
            3 => {
                let (bytes, reason) = &kinds[n as usize / 10 % kinds.len()];
                expected.insert((format!("avrokill-in/{partition}"), offset, reason.clone()));
                bytes.clone()
            }
            4..=6 => framed(second, &[string("a"), vec![2, 8, 0], long(n)].concat()),
            _ => good(first, n),
        };
        producer.send_bytes("avrokill-in", partition, b"k", &bytes);
    }
    producer.flush();
    let sandbox = Sandbox::new(&sql(&broker, &registry, "avrokill", DEAD_LETTER));
    let kills = sandbox.run_over_kills(0x6176_726f, 8);
    assert!(kills >= 3, "{kills} kills");
    let mut ids = read_back(&broker, &registry, "avrokill");
    ids.sort_unstable();
    assert_eq!(ids, (0..MESSAGES).filter(|n| n % 10 != 3).collect::<Vec<_>>());
    let letters = values(&broker.read("avrokill-letters"));
    assert_eq!(letters.len(), expected.len());
    for letter in &letters {
        let (split, reason) = (letter["split"].as_str().unwrap(), letter["reason"].as_str().unwrap());
        let position = letter["position"].as_i64().unwrap();
        let found = expected.iter().any(|(s, p, part)| s == split && *p == position && reason.contains(part));
        assert!(found, "{letter}");
    }
    println!("{kills} kills, {} letters", letters.len());
}
