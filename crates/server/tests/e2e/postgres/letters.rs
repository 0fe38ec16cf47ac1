//! Wrong records go to a table of PostgreSQL, with the good rows of their epoch, over kills.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::sandbox;
use super::server::Server;
use crate::bad_records::{Poison, wrong};

const RECORDS: usize = 500_000;
const FILES: usize = 3;
/// Kills, unless more are asked for.
const KILLS: usize = 9;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn dead_letters_in_a_table_are_there_once_over_kills() {
    let server = Server::start();
    let table = server.database(
        "letters",
        "CREATE TABLE good (id bigint NOT NULL);
         CREATE TABLE letters (split text NOT NULL, position bigint NOT NULL, raw bytea, reason text NOT NULL)",
    );
    let sandbox = sandbox(&format!(
        "CREATE TABLE t (id BIGINT NOT NULL, v INT, d DOUBLE, s STRING) WITH ('connector' = 'filesystem', 'path' = 'in',
           'format' = 'json', 'bad-records' = 'dead-letter', 'bad-records.table' = 'letters');
         CREATE TABLE o (id BIGINT NOT NULL) WITH ({table}, 'table-name' = 'good');
         CREATE TABLE letters (split STRING NOT NULL, `position` BIGINT NOT NULL, raw BYTES, reason STRING NOT NULL)
           WITH ({table}, 'table-name' = 'letters');
         INSERT INTO o SELECT id FROM t;"
    ));
    let kinds: Vec<Poison> = wrong().into_iter().filter(|kind| kind.bytes.len() < 1_000).collect();
    let mut files = vec![Vec::<u8>::new(); FILES];
    let mut expected = BTreeSet::new();
    for n in 0..RECORDS {
        let file = &mut files[n % FILES];
        if n % 10 == 3 {
            let bytes = &kinds[n / 10 % kinds.len()].bytes;
            expected.insert((n % FILES, file.len().to_string(), hex(bytes)));
            file.extend_from_slice(bytes);
        } else {
            file.extend_from_slice(format!(r#"{{"id":{n}}}"#).as_bytes());
        }
        file.push(b'\n');
    }
    for (n, content) in files.iter().enumerate() {
        sandbox.write(&format!("in/{n}.json"), content);
    }
    let mut random = SmallRng::seed_from_u64(0x6c65_7474);
    let mut edges = ["transaction-written", "transaction-committed", "epoch-complete"].iter().cycle();
    let (mut kills, mut within) = (0, 0);
    for n in 0..crate::support::kills(KILLS) {
        sandbox.slow_sinks(random.random_range(100..200));
        let parallelism = random.random_range(1..=3).to_string();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", &parallelism];
        if n % 3 == 2 {
            let after = Duration::from_millis(random.random_range(200..600));
            kills += usize::from(sandbox.run_and_kill(&arguments, after));
        } else {
            within += usize::from(sandbox.kill_at(&arguments, edges.next().unwrap(), 1));
        }
    }
    sandbox.slow_sinks(0);
    sandbox.run_ok(&["run", "job.sql"]);
    assert!(within >= 4, "{within} kills while an epoch was published, {kills} others");
    let good = RECORDS - expected.len();
    let found = server.query("letters", "SELECT COUNT(*), COUNT(DISTINCT id) FROM good");
    assert_eq!(found, vec![vec![good.to_string(), good.to_string()]]);
    let letters = server.query("letters", "SELECT split, position, encode(raw, 'hex') FROM letters");
    assert_eq!(letters.len(), expected.len());
    let file_of = |split: &str| (0..FILES).find(|n| split.contains(&format!("in/{n}.json"))).unwrap();
    let letter = |row: &Vec<String>| (file_of(&row[0]), row[1].clone(), row[2].clone());
    assert!(letters.iter().map(letter).collect::<BTreeSet<_>>() == expected, "other letters than those of the input");
    println!("{within} kills while an epoch was published, {kills} at random instants, {} letters", expected.len());
}
