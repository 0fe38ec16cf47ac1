//! Wrong records in files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{COLUMNS, base64, objects, poison, wrong};
use crate::support::cluster::LocalCluster;
use crate::support::{Sandbox, assert_says, text};

const LETTERS: &str = "CREATE TABLE letters (source STRING NOT NULL, split STRING NOT NULL, `position` BIGINT NOT NULL,
       line BIGINT, reason STRING NOT NULL, raw BYTES, row_schema STRING, rejected_at TIMESTAMP_LTZ(3))
     WITH ('connector' = 'filesystem', 'path' = 'letters', 'format' = 'json');";

/// The letters go to the table `letters`.
const DEAD_LETTER: &str =
    ", 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters', 'bad-records.max-raw-size' = '16 mb'";

fn job(options: &str) -> Sandbox {
    Sandbox::new(&format!(
        "CREATE TABLE t ({COLUMNS}) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json'{options});
         CREATE TABLE o ({COLUMNS}) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         {LETTERS} INSERT INTO o SELECT * FROM t;"
    ))
}

fn good(id: usize) -> Vec<u8> {
    format!(r#"{{"id":{id},"v":{id},"d":0.5,"s":"x"}}"#).into_bytes()
}

fn join(records: &[Vec<u8>]) -> Vec<u8> {
    records.iter().flat_map(|record| [record.as_slice(), b"\n"].concat()).collect()
}

fn ids(sandbox: &Sandbox) -> BTreeSet<i64> {
    objects(&sandbox.lines("out")).iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[test]
fn each_kind_stops_a_job_at_once_with_its_place() {
    for kind in poison() {
        let sandbox = job("");
        sandbox.write("in/a.json", join(&[good(100), kind.bytes.clone(), good(101)]));
        let begun = Instant::now();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
        let Some(reason) = kind.reason else {
            sandbox.run_ok(&arguments);
            continue;
        };
        let message = sandbox.run_err(&arguments);
        assert_says(&message, &["a.json', line 2, byte ", reason, "'bad-records' = 'drop'", "job 'job' failed"]);
        // A restart would wait for half a second at least, and the next one longer.
        assert!(!message.contains("restart") && begun.elapsed() < Duration::from_secs(100), "{}: {message}", kind.name);
        assert!(message.len() < 2_000, "{}: {} bytes", kind.name, message.len());
    }
}

#[test]
fn dropped_records_are_counted_in_both_spellings() {
    for options in [", 'bad-records' = 'drop'", ", 'json.ignore-parse-errors' = 'true'"] {
        let sandbox = job(options);
        let mut records = vec![good(100)];
        records.extend(poison().into_iter().map(|kind| kind.bytes));
        records.push(good(101));
        sandbox.write("in/a.json", join(&records));
        let said = text(&sandbox.run_ok(&["run", "job.sql"]).stderr);
        assert_says(&said, &["3 rows in", &format!("{} dropped", wrong().len())]);
        assert_eq!(ids(&sandbox), [-9, 100, 101].into());
        assert!(sandbox.lines("letters").is_empty());
    }
    let message = job(", 'bad-records' = 'fail', 'json.ignore-parse-errors' = 'true'").run_err(&["run", "job.sql"]);
    assert_says(&message, &["'bad-records' = 'fail' of table 't' contradicts 'json.ignore-parse-errors' = 'true'"]);
}

#[test]
fn dead_letters_hold_the_record_its_place_and_the_reason() {
    let sandbox = job(DEAD_LETTER);
    let mut records = vec![good(100)];
    let mut expected = BTreeMap::new();
    for kind in poison() {
        let position: usize = records.iter().map(|record: &Vec<u8>| record.len() + 1).sum();
        if let Some(reason) = kind.reason {
            expected.insert(position as i64, (records.len() as i64 + 1, base64(&kind.bytes), reason));
        }
        records.push(kind.bytes);
        records.push(good(100 + records.len()));
    }
    sandbox.write("in/a.json", join(&records));
    let said = text(&sandbox.run_ok(&["run", "job.sql", "--parallelism", "2"]).stderr);
    assert_says(&said, &[&format!("{} dead letters", expected.len())]);
    assert_eq!(ids(&sandbox).len(), 14);
    let letters = objects(&sandbox.lines("letters"));
    assert_eq!(letters.len(), expected.len());
    for letter in letters {
        let (line, raw, reason) = &expected[&letter["position"].as_i64().unwrap()];
        assert_eq!((letter["line"].as_i64(), letter["raw"].as_str()), (Some(*line), Some(raw.as_str())));
        assert_says(letter["reason"].as_str().unwrap(), &[reason]);
        assert_eq!(letter["source"], "t");
        assert!(letter["split"].as_str().unwrap().ends_with("in/a.json"), "{letter}");
        assert_eq!(letter["row_schema"], "id BIGINT NOT NULL, v INT, d DOUBLE, s STRING");
        assert!(letter["rejected_at"].as_str().is_some_and(|time| time.starts_with("20")), "{letter}");
    }
    // Of long records only the beginning is kept, which is said.
    let sandbox = job(&DEAD_LETTER.replace("16 mb", "1 kb"));
    sandbox.write("in/a.json", join(&[poison().swap_remove(2).bytes]));
    sandbox.run_ok(&["run", "job.sql"]);
    let letter = objects(&sandbox.lines("letters")).remove(0);
    assert_eq!(letter["raw"].as_str().unwrap().len(), 1368);
    assert_says(letter["reason"].as_str().unwrap(), &["(raw holds the first 1024 of 83886"]);
}

#[test]
fn a_line_without_end_is_one_letter_and_others_follow_it() {
    let sandbox = job(&DEAD_LETTER.replace("16 mb", "1 kb"));
    sandbox.write("in/a.json", join(&[good(1), vec![b'x'; 20 << 20], good(2), b"{".to_vec(), good(3)]));
    let message = job("");
    message.write("in/a.json", join(&[good(1), vec![b'x'; 20 << 20]]));
    assert_says(&message.run_err(&["run", "job.sql"]), &["line 2, byte 31", "has no end within 16 MiB"]);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(ids(&sandbox), [1, 2, 3].into());
    let letters = objects(&sandbox.lines("letters"));
    let lines: BTreeSet<i64> = letters.iter().map(|letter| letter["line"].as_i64().unwrap()).collect();
    assert_eq!((letters.len(), lines), (2, [2, 4].into()));
    let long = letters.iter().find(|letter| letter["line"] == 2).unwrap();
    assert_says(long["reason"].as_str().unwrap(), &["the record has 20971521 bytes, more than 16 MiB"]);
}

#[test]
fn kills_leave_each_row_and_each_letter_once() {
    const ROWS: usize = 240_000;
    const FILES: usize = 3;
    let sandbox = job(DEAD_LETTER);
    let kinds: Vec<_> = wrong().into_iter().filter(|kind| kind.bytes.len() < 1_000).collect();
    let mut expected = BTreeSet::new();
    for file in 0..FILES {
        let mut content = Vec::new();
        for n in 0..ROWS / FILES {
            // One file begins with more than a block of nothing else.
            if n % 20 == 7 || (file == 0 && n < 40_000) {
                let kind = &kinds[n % kinds.len()];
                expected.insert((file, content.len() as i64, base64(&kind.bytes)));
                content.extend_from_slice(&kind.bytes);
            } else {
                content.extend(good(n * FILES + file));
            }
            content.push(b'\n');
        }
        sandbox.write(&format!("in/{file}.json"), content);
    }
    let mut random = SmallRng::seed_from_u64(0x6261_6421);
    let mut kills = 0;
    for _ in 0..14 {
        let parallelism = random.random_range(1..=3).to_string();
        let after = Duration::from_millis(random.random_range(60..450));
        sandbox.slow_sinks(random.random_range(100..200));
        let arguments = ["run", "job.sql", "--checkpoint-interval", "40 ms", "--parallelism", &parallelism];
        kills += usize::from(sandbox.run_and_kill(&arguments, after));
    }
    sandbox.slow_sinks(0);
    sandbox.run_ok(&["run", "job.sql"]);
    assert!(kills >= 5, "{kills} kills");
    assert_eq!(ids(&sandbox).len(), ROWS - expected.len());
    let letters = objects(&sandbox.lines("letters"));
    assert_eq!(letters.len(), expected.len());
    let file = |split: &str| split.rsplit('/').next().unwrap().strip_suffix(".json").unwrap().parse::<usize>().unwrap();
    let found: BTreeSet<_> = letters
        .iter()
        .map(|letter| {
            let raw = letter["raw"].as_str().unwrap().to_owned();
            (file(letter["split"].as_str().unwrap()), letter["position"].as_i64().unwrap(), raw)
        })
        .collect();
    assert!(found == expected, "other letters than those of the input");
    println!("{kills} kills, {} letters", expected.len());
}

#[test]
fn a_cluster_stops_at_a_wrong_record_and_does_not_begin_again() {
    let sandbox = job("");
    sandbox.write("in/a.json", join(&[good(1), b"{".to_vec()]));
    let cluster = LocalCluster::start(&sandbox, 1, 2, 1);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    cluster.wait_until("it has failed", |jobs| jobs.has_ended("job"));
    let status = text(&sandbox.run_ok(&["status", "job"]).stdout);
    assert_says(&status, &["state        failed", "attempt      1", "a.json', line 2"]);
    let sandbox = job(DEAD_LETTER);
    sandbox.write("in/a.json", join(&[good(1), b"{".to_vec()]));
    let cluster = LocalCluster::start(&sandbox, 1, 2, 1);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    cluster.wait_until("it has ended", |jobs| jobs.has_ended("job"));
    assert_eq!((ids(&sandbox).len(), sandbox.lines("letters").len()), (1, 1));
    assert_says(&text(&sandbox.run_ok(&["status", "job"]).stdout), &["state        finished"]);
}

#[test]
fn csv_and_changelogs_have_letters_too() {
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE c (a INT, b STRING) WITH ('connector' = 'filesystem', 'path' = 'c', 'format' = 'csv'{DEAD_LETTER});
         CREATE TABLE g (id INT, n STRING, PRIMARY KEY (id) NOT ENFORCED)
         WITH ('connector' = 'filesystem', 'path' = 'g', 'format' = 'debezium-json'{DEAD_LETTER});
         CREATE TABLE u (id INT, n STRING, PRIMARY KEY (id) NOT ENFORCED)
         WITH ('connector' = 'filesystem', 'path' = 'u', 'format' = 'upsert-json'{DEAD_LETTER});
         CREATE TABLE o (t STRING, n STRING) WITH ('connector' = 'print'); {LETTERS}
         INSERT INTO o SELECT 'c', b FROM c;
         INSERT INTO o SELECT 'g', n FROM g;
         INSERT INTO o SELECT 'u', n FROM u;"
    ));
    sandbox.write("c/1.csv", "1,x\n\"2\n3\",y\nz,z\n4,\"two\nlines\"\n");
    sandbox.write("g/1.json", "{\"op\":\"c\",\"after\":{\"id\":1,\"n\":\"a\"}}\n{\"op\":\"?\"}\n{\"op\":\"d\",\"before\":{\"id\":1,\"n\":\"a\"}}\n");
    sandbox.write(
        "u/1.json",
        "{\"key\":{\"id\":1},\"value\":{\"n\":\"v\"}}\n{\"key\":{}}\n{\"key\":{\"id\":2},\"value\":null}\n",
    );
    let said = text(&sandbox.run_ok(&["run", "job.sql", "--parallelism", "1"]).stderr);
    assert_says(&said, &["4 dead letters"]);
    let letters = objects(&sandbox.lines("letters"));
    let found: BTreeSet<(String, i64, String)> = letters
        .iter()
        .map(|l| {
            (
                l["source"].as_str().unwrap().to_owned(),
                l["line"].as_i64().unwrap(),
                l["raw"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        ("c", 2, base64(b"\"2\n3\",y")),
        ("c", 4, base64(b"z,z")),
        ("g", 2, base64(b"{\"op\":\"?\"}")),
        ("u", 2, base64(b"{\"key\":{}}")),
    ];
    assert_eq!(found, expected.map(|(table, line, raw)| (table.to_owned(), line, raw)).into());
}
