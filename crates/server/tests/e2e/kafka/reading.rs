//! Reading topics: from where, up to where, which columns, new partitions, offsets of the group.

use std::collections::{BTreeMap, BTreeSet};

use super::{Running, with};
use crate::support::Sandbox;
use crate::support::kafka::Broker;

const OUT: &str = "WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json')";

/// 3 partitions with 500 messages each, whose times are 2026-01-01 and as many seconds as their id.
fn filled(broker: &Broker, topic: &str) {
    broker.create(topic, 3);
    let producer = broker.producer();
    for id in 0..1500_i64 {
        let value = format!(r#"{{"id":{id},"k":{},"ts":"2026-01-01 00:{:02}:{:02}"}}"#, id % 7, id / 60, id % 60);
        producer.send_record(topic, |record| {
            let record = record.partition((id % 3) as i32).payload(value.as_str());
            record.timestamp(1_767_225_600_000 + id * 1000)
        });
    }
    producer.flush();
}

fn ids(sandbox: &Sandbox) -> Vec<i64> {
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
    let mut ids: Vec<i64> = sandbox.lines("out").iter().flat_map(|(line, n)| vec![number(line); *n]).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn windows_over_a_topic_are_those_of_its_rows() {
    let broker = Broker::shared();
    filled(&broker, "windows");
    let source = with(
        &broker,
        "kafka",
        "windows",
        "'format' = 'json', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'",
    );
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) {source};
         CREATE TABLE o (k BIGINT, w TIMESTAMP(3), n BIGINT, s BIGINT) {OUT};
         INSERT INTO o SELECT k, window_start, COUNT(*), SUM(id) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
         GROUP BY k, window_start, window_end;"
    ));
    sandbox.run_ok(&["run", "job.sql", "--parallelism", "2", "--checkpoint-interval", "100 ms"]);
    let mut expected = BTreeMap::<(i64, i64), (i64, i64)>::new();
    for id in 0..1500 {
        let window = expected.entry((id % 7, id / 60)).or_default();
        *window = (window.0 + 1, window.1 + id);
    }
    let line = |((k, w), (n, s)): (&(i64, i64), &(i64, i64))| {
        (format!(r#"{{"k":{k},"w":"2026-01-01 00:{w:02}:00","n":{n},"s":{s}}}"#), 1)
    };
    assert_eq!(sandbox.lines("out"), expected.iter().map(line).collect());
}

#[test]
fn a_table_begins_and_ends_where_it_is_told() {
    let broker = Broker::shared();
    filled(&broker, "bounds");
    let run = |options: &str| {
        let source = with(&broker, "kafka", "bounds", &format!("'format' = 'json', {options}"));
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id BIGINT) {source}; CREATE TABLE o (id BIGINT) {OUT}; INSERT INTO o SELECT id FROM t;"
        ));
        sandbox.run_ok(&["run", "job.sql", "--parallelism", "1"]);
        ids(&sandbox)
    };
    let until_now = "'scan.bounded.mode' = 'latest-offset'";
    assert_eq!(run(&format!("'scan.startup.mode' = 'latest-offset', {until_now}")), Vec::<i64>::new());
    let at = 1_767_225_600_000_i64;
    let from = format!("'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '{}'", at + 1_000_000);
    assert_eq!(run(&format!("{from}, {until_now}")), (1000..1500).collect::<Vec<_>>());
    let until = format!("'scan.bounded.mode' = 'timestamp', 'scan.bounded.timestamp-millis' = '{}'", at + 300_000);
    assert_eq!(run(&until), (0..300).collect::<Vec<_>>());
    let offsets = "'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:490;partition:1,offset:500;partition:2,offset:500',
        'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:495'";
    assert_eq!(run(offsets), (490..495).map(|n| n * 3).collect::<Vec<_>>());
}

#[test]
fn keys_and_metadata_are_columns() {
    let broker = Broker::shared();
    broker.create("metadata", 2);
    let producer = broker.producer();
    producer.send_record("metadata", |record| {
        let headers =
            rdkafka::message::OwnedHeaders::new().insert(rdkafka::message::Header { key: "h", value: Some("x") });
        record.partition(1).key(r#"{"id":7}"#).payload(r#"{"v":"a"}"#).timestamp(1_767_225_600_123).headers(headers)
    });
    producer.flush();
    let options = "'key.format' = 'json', 'key.fields' = 'k_id', 'key.fields-prefix' = 'k_', 'value.format' = 'json',
        'value.fields-include' = 'EXCEPT_KEY', 'scan.bounded.mode' = 'latest-offset'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (k_id BIGINT, v STRING, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', topic STRING METADATA VIRTUAL,
           p INT METADATA FROM 'partition' VIRTUAL, o BIGINT METADATA FROM 'offset' VIRTUAL, kind STRING METADATA FROM 'timestamp-type' VIRTUAL,
           headers MAP<STRING, BYTES> METADATA) {};
         CREATE TABLE o (k_id BIGINT, v STRING, at TIMESTAMP_LTZ(3), topic STRING, p INT, o BIGINT, kind STRING, h STRING) {OUT};
         INSERT INTO o SELECT k_id, v, at, topic, p, o, kind, CAST(headers['h'] AS STRING) FROM t;",
        with(&broker, "kafka", "metadata", options)
    ));
    sandbox.run_ok(&["run", "job.sql"]);
    let line = r#"{"k_id":7,"v":"a","at":"2026-01-01 00:00:00.123Z","topic":"metadata","p":1,"o":0,"kind":"CreateTime","h":"x"}"#;
    assert_eq!(sandbox.lines("out"), BTreeMap::from([(line.to_owned(), 1)]));
}

#[test]
fn new_partitions_are_found_and_offsets_are_committed_for_the_group() {
    let broker = Broker::shared();
    broker.create("growing", 1);
    let producer = broker.producer();
    producer.send("growing", Some(0), None, Some("old"));
    producer.flush();
    let options = "'format' = 'raw', 'scan.startup.mode' = 'latest-offset', 'properties.group.id' = 'lag',
        'scan.topic-partition-discovery.interval' = '300 ms', 'properties.topic.metadata.refresh.interval.ms' = '500'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (line STRING) {}; CREATE TABLE o (line STRING) {OUT}; INSERT INTO o SELECT line FROM t;",
        with(&broker, "kafka", "growing", options)
    ));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "100 ms"];
    let mut job = Running::start(&sandbox, &arguments);
    // What is sent before the job has looked is not wanted, so it is sent until it comes.
    let mut probes = 0;
    job.until(&sandbox, "the first row", || {
        probes += 1;
        producer.send("growing", Some(0), None, Some(&format!("probe {probes}")));
        producer.flush();
        std::thread::sleep(std::time::Duration::from_millis(200));
        !sandbox.lines("out").is_empty()
    });
    broker.grow("growing", 2);
    let producer = broker.producer();
    producer.send("growing", Some(1), None, Some("first of a new partition"));
    producer.flush();
    let there = || sandbox.lines("out").contains_key(r#"{"line":"first of a new partition"}"#);
    job.until(&sandbox, "the row of the new partition", there);
    let end = 1 + i64::from(probes);
    job.until(&sandbox, "offsets of the group", || broker.committed("lag", "growing", 2) == [Some(end), Some(1)]);
    job.kill();
    // A partition that came while the job was down is read from its beginning, though the table began at its end.
    broker.grow("growing", 3);
    let producer = broker.producer();
    producer.send("growing", Some(2), None, Some("came while down"));
    producer.flush();
    let before = sandbox.lines("out");
    let mut job = Running::start(&sandbox, &arguments);
    job.until(&sandbox, "the row that came meanwhile", || sandbox.lines("out").len() > before.len());
    assert!(sandbox.lines("out").contains_key(r#"{"line":"came while down"}"#));
}

#[test]
fn several_topics_are_read_and_those_of_a_pattern_also_when_they_come_later() {
    let broker = Broker::shared();
    let send = |topic: &str, line: &str| {
        let producer = broker.producer();
        producer.send(topic, Some(0), None, Some(line));
        producer.flush();
    };
    for topic in ["many-1", "many-2", "not-many-1"] {
        broker.create(topic, 1);
        send(topic, topic);
    }
    let servers = broker.servers();
    let job = |topics: &str, more: &str| {
        Sandbox::new(&format!(
            "CREATE TABLE t (line STRING, topic STRING METADATA VIRTUAL) WITH ('connector' = 'kafka', {topics},
               'properties.bootstrap.servers' = '{servers}', 'format' = 'raw', 'scan.startup.mode' = 'earliest-offset'{more});
             CREATE TABLE o (line STRING, topic STRING) {OUT}; INSERT INTO o SELECT line, topic FROM t;"
        ))
    };
    let rows = |topics: &[&str]| -> BTreeMap<String, usize> {
        topics.iter().map(|topic| (format!(r#"{{"line":"{topic}","topic":"{topic}"}}"#), 1)).collect()
    };
    let bounded = job("'topic' = 'many-2; not-many-1'", ", 'scan.bounded.mode' = 'latest-offset'");
    bounded.run_ok(&["run", "job.sql"]);
    assert_eq!(bounded.lines("out"), rows(&["many-2", "not-many-1"]));

    // The pattern is that of a whole name.
    let sandbox = job("'topic-pattern' = 'many-[0-9]'", ", 'scan.topic-partition-discovery.interval' = '200 ms'");
    let mut job = Running::start(&sandbox, &["run", "job.sql", "--checkpoint-interval", "100 ms"]);
    job.until(&sandbox, "two topics", || sandbox.lines("out") == rows(&["many-1", "many-2"]));
    broker.create("many-3", 1);
    send("many-3", "many-3");
    job.until(&sandbox, "the third topic", || sandbox.lines("out") == rows(&["many-1", "many-2", "many-3"]));
}

#[test]
fn a_group_says_where_to_begin_and_where_to_end() {
    let broker = Broker::shared();
    filled(&broker, "grouped");
    let run = |bounded: &str, more: &str| {
        let options =
            format!("'format' = 'json', 'properties.group.id' = 'beginners', 'scan.bounded.mode' = '{bounded}'{more}");
        let source = with(&broker, "kafka", "grouped", &options);
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE t (id BIGINT) {source}; CREATE TABLE o (id BIGINT) {OUT}; INSERT INTO o SELECT id FROM t;"
        ));
        let output = sandbox.run(&["run", "job.sql"]);
        (output.status.success(), ids(&sandbox), crate::support::text(&output.stderr))
    };
    // Nothing is committed yet.
    let (ended_well, _, said) = run("latest-offset", "");
    assert!(!ended_well && said.contains("the group 'beginners' of table 't' has no committed offset"), "{said}");
    let (_, read, said) = run("latest-offset", ", 'properties.auto.offset.reset' = 'latest'");
    assert_eq!(read, Vec::<i64>::new(), "{said}");
    let ids_from = |offsets: [i64; 3]| -> BTreeSet<i64> {
        (0..).zip(offsets).flat_map(|(partition, from)| (from..500).map(move |n| n * 3 + partition)).collect()
    };
    let (offsets, behind) = ([500, 490, 0], ids_from([500, 490, 0]));
    broker.commit("beginners", "grouped", &offsets);
    let (_, read, said) = run("group-offsets", ", 'scan.startup.mode' = 'earliest-offset'");
    assert_eq!(read, ids_from([0; 3]).difference(&behind).copied().collect::<Vec<_>>(), "{said}");
    // A job commits what it has read itself.
    broker.commit("beginners", "grouped", &offsets);
    let (_, read, said) = run("latest-offset", "");
    assert_eq!(read, behind.into_iter().collect::<Vec<_>>(), "{said}");
}

#[test]
fn messages_of_transactions_that_were_given_up_are_no_rows() {
    let broker = Broker::shared();
    broker.create("given-up", 1);
    for (line, kept) in [("one", true), ("two", false), ("three", true), ("four", false)] {
        broker.send_together("given-up", kept, [(0, line)]);
    }
    let options = "'format' = 'raw', 'scan.bounded.mode' = 'latest-offset'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (line STRING) {}; CREATE TABLE o (line STRING) {OUT}; INSERT INTO o SELECT line FROM t;",
        with(&broker, "kafka", "given-up", options)
    ));
    sandbox.run_ok(&["run", "job.sql"]);
    let rows = ["one", "three"].map(|line| (format!(r#"{{"line":"{line}"}}"#), 1));
    assert_eq!(sandbox.lines("out"), BTreeMap::from(rows));
}

#[test]
fn a_partition_that_gives_nothing_holds_windows_open_until_it_counts_as_idle() {
    let broker = Broker::shared();
    broker.create("half-idle", 2);
    let producer = broker.producer();
    let send = |partition: i32, seconds: i64| {
        let value = format!(r#"{{"ts":"2026-01-01 00:{:02}:{:02}"}}"#, seconds / 60, seconds % 60);
        producer.send("half-idle", Some(partition), None, Some(&value));
        producer.flush();
    };
    let job = |more: &str| {
        let options = format!("'format' = 'json', 'scan.startup.mode' = 'earliest-offset'{more}");
        Sandbox::new(&format!(
            "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS ts) {};
             CREATE TABLE o (w TIMESTAMP(3), n BIGINT) {OUT};
             INSERT INTO o SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
             GROUP BY window_start, window_end;",
            with(&broker, "kafka", "half-idle", &options)
        ))
    };
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", "2"];
    (0..70).for_each(|second| send(0, second));
    let first = BTreeMap::from([(r#"{"w":"2026-01-01 00:00:00","n":60}"#.to_owned(), 1)]);
    let (waiting, idle) = (job(""), job(", 'scan.watermark.idle-timeout' = '500 ms'"));
    let mut one_that_waits = Running::start(&waiting, &arguments);
    let mut one = Running::start(&idle, &arguments);
    one.until(&idle, "the window without the silent partition", || idle.lines("out") == first);
    // The other job has had as long.
    assert_eq!(waiting.lines("out"), BTreeMap::new());
    send(1, 65);
    one_that_waits.until(&waiting, "the window", || waiting.lines("out") == first);
}

#[test]
fn a_partition_that_is_held_because_it_is_ahead_keeps_no_other_from_being_read() {
    const HOURS: i64 = 10;
    let broker = Broker::shared();
    broker.create("aligned", 2);
    let producer = broker.producer();
    // All of the one lies in front of the other: far more than what waits between a consumer and its readers.
    for partition in [0, 1] {
        for second in 0..HOURS * 3600 {
            let (hour, minute) = (second / 3600, second / 60 % 60);
            let value = format!(r#"{{"ts":"2026-01-01 {hour:02}:{minute:02}:{:02}"}}"#, second % 60);
            producer.send("aligned", Some(partition), None, Some(&value));
        }
        producer.flush();
    }
    let options = "'format' = 'json', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
        'scan.watermark.alignment.max-drift' = '10 min'";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS ts) {};
         CREATE TABLE o (w TIMESTAMP(3), n BIGINT) {OUT};
         INSERT INTO o SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
         GROUP BY window_start, window_end;",
        with(&broker, "kafka", "aligned", options)
    ));
    sandbox.run_ok(&["run", "job.sql", "--parallelism", "1", "--checkpoint-interval", "100 ms"]);
    let line = |hour| (format!(r#"{{"w":"2026-01-01 {hour:02}:00:00","n":7200}}"#), 1);
    assert_eq!(sandbox.lines("out"), (0..HOURS).map(line).collect());
}
