//! Changelogs at both ends of a job, killed and restored at other parallelisms: what is written must fold, without
//! taking away what is not there, to the rows that the same changes leave in a naive model.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::changelog::ChangelogFold;
use crate::support::{Sandbox, text};

/// Files, each with the changes of its own keys: there is no order between files.
const FILES: usize = 3;

#[derive(Clone, PartialEq)]
struct Row {
    id: u64,
    /// Another key, by which several rows can be told apart at most for a moment.
    place: u64,
    note: Option<String>,
}

impl Row {
    fn json(&self) -> String {
        let note = self.note.as_ref().map_or("null".to_owned(), |note| format!("\"{note}\""));
        format!("{{\"id\":{},\"note\":{note},\"place\":{}}}", self.id, self.place)
    }
}

/// Changes in files, in two forms, and the rows that they leave.
struct Changes {
    envelopes: Vec<String>,
    upserts: Vec<String>,
    rows: BTreeMap<u64, Row>,
    /// By place, in the order in which they came there.
    places: BTreeMap<u64, Vec<Row>>,
}

fn changes(random: &mut SmallRng) -> Changes {
    let mut changes = Changes {
        envelopes: vec![String::new(); FILES],
        upserts: vec![String::new(); FILES],
        rows: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    for _ in 0..random.random_range(2_000..30_000) {
        let file = random.random_range(0..FILES);
        let id = random.random_range(0..300) * FILES as u64 + file as u64;
        let old = changes.rows.remove(&id);
        if let Some(old) = &old {
            let place = changes.places.get_mut(&old.place).unwrap();
            let at = place.iter().rposition(|row| row == old).unwrap();
            place.remove(at);
        }
        let new = random.random_bool(0.75).then(|| Row {
            id,
            place: random.random_range(0..40) * FILES as u64 + file as u64,
            note: random.random_bool(0.8).then(|| ["x", "y", "z ä"][random.random_range(0..3)].to_owned()),
        });
        if let Some(new) = &new {
            changes.rows.insert(id, new.clone());
            changes.places.entry(new.place).or_default().push(new.clone());
        }
        let json = |row: &Option<Row>| row.as_ref().map_or("null".to_owned(), Row::json);
        let op = match (&old, &new) {
            (None, None) => continue,
            (None, Some(_)) => "c",
            (Some(_), None) => "d",
            (Some(_), Some(_)) => "u",
        };
        let envelope = format!("{{\"before\":{},\"after\":{},\"op\":\"{op}\"}}", json(&old), json(&new));
        writeln!(changes.envelopes[file], "{envelope}").unwrap();
        writeln!(changes.upserts[file], "{{\"key\":{{\"id\":{id}}},\"value\":{}}}", json(&new)).unwrap();
    }
    changes
}

/// Runs the job over the files, killing it some times.
fn run(sql: &str, files: &[String], random: &mut SmallRng) -> Sandbox {
    let sandbox = Sandbox::new(sql);
    for (number, file) in files.iter().enumerate() {
        sandbox.write(&format!("in/{number}.json"), file);
    }
    let mut killed = true;
    for _ in 0..random.random_range(0..4) {
        let parallelism = random.random_range(1..5).to_string();
        let arguments = ["run", "job.sql", "--checkpoint-interval", "5 ms", "-p", &parallelism];
        killed = killed && sandbox.run_and_kill(&arguments, Duration::from_millis(random.random_range(10..120)));
    }
    let parallelism = random.random_range(1..5).to_string();
    sandbox.run_ok(&["run", "job.sql", "--checkpoint-interval", "5 ms", "-p", &parallelism]);
    sandbox
}

fn expected<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<String, usize> {
    rows.map(|row| (row.json(), 1)).collect()
}

const COLUMNS: &str = "id BIGINT, place BIGINT, note STRING";

#[test]
fn envelopes_pass_through_a_query() {
    for seed in 0..8 {
        let mut random = SmallRng::seed_from_u64(seed);
        let changes = changes(&mut random);
        let key = ["", ", PRIMARY KEY (id) NOT ENFORCED"][random.random_range(0..2)];
        let sql = format!(
            "CREATE TABLE t ({COLUMNS}) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'debezium-json');
             CREATE TABLE o ({COLUMNS}{key}) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'debezium-json');
             INSERT INTO o SELECT id, place, note FROM t WHERE place > 20;"
        );
        let sandbox = run(&sql, &changes.envelopes, &mut random);
        let fold = ChangelogFold::debezium(&sandbox.path("out")).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(fold.rows() == expected(changes.rows.values().filter(|row| row.place > 20)), "seed {seed}");
    }
}

#[test]
fn upserts_pass_through_a_query() {
    for seed in 0..8 {
        let mut random = SmallRng::seed_from_u64(seed);
        let changes = changes(&mut random);
        let sql = format!(
            "CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'upsert-json');
             CREATE TABLE o ({COLUMNS}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
             CREATE TABLE e ({COLUMNS}) WITH ('connector' = 'filesystem', 'path' = 'all', 'format' = 'debezium-json');
             INSERT INTO o SELECT id, place, note FROM t WHERE place > 20;
             INSERT INTO e SELECT id, place, note FROM t;"
        );
        let sandbox = run(&sql, &changes.upserts, &mut random);
        let fold = ChangelogFold::debezium(&sandbox.path("all")).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(fold.rows() == expected(changes.rows.values()), "seed {seed}");
        let fold = ChangelogFold::upserts(&sandbox.path("out")).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(fold.rows() == expected(changes.rows.values().filter(|row| row.place > 20)), "seed {seed}");
    }
}

#[test]
fn rows_are_written_by_another_key_than_their_own() {
    for seed in 0..8 {
        let mut random = SmallRng::seed_from_u64(seed);
        let changes = changes(&mut random);
        let sql = format!(
            "CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'debezium-json');
             CREATE TABLE o ({COLUMNS}, PRIMARY KEY (place) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
             INSERT INTO o SELECT id, place, note FROM t;"
        );
        let sandbox = run(&sql, &changes.envelopes, &mut random);
        let fold = ChangelogFold::upserts(&sandbox.path("out")).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(fold.rows() == expected(changes.places.values().filter_map(|rows| rows.last())), "seed {seed}");
    }
}

#[test]
fn what_comes_and_goes_is_aggregated() {
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let changes = changes(&mut random);
        let by_key = random.random_bool(0.5);
        let format = if by_key { "upsert-json" } else { "debezium-json" };
        let sql = format!(
            "CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = '{format}');
             CREATE TABLE o (place BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (place) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'upsert-json');
             INSERT INTO o SELECT place, COUNT(note), SUM(id) FROM t GROUP BY place;"
        );
        let sandbox = run(&sql, if by_key { &changes.upserts } else { &changes.envelopes }, &mut random);
        let fold = ChangelogFold::upserts(&sandbox.path("out")).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let sums = changes.places.iter().filter(|(_, rows)| !rows.is_empty()).map(|(place, rows)| {
            let (n, s) =
                (rows.iter().filter(|row| row.note.is_some()).count(), rows.iter().map(|row| row.id).sum::<u64>());
            (format!("{{\"n\":{n},\"place\":{place},\"s\":{s}}}"), 1)
        });
        assert!(fold.rows() == sums.collect(), "seed {seed}");
    }
}

#[test]
fn changes_are_printed_with_their_kind() {
    let sandbox = Sandbox::new(
        "CREATE TABLE t (id BIGINT, v BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'upsert-json');
         CREATE TABLE p (id BIGINT, v BIGINT) WITH ('connector' = 'print', 'print-identifier' = 'p');
         INSERT INTO p SELECT id, v FROM t;",
    );
    sandbox.write(
        "in/a.json",
        "{\"key\":{\"id\":1},\"value\":{\"v\":1}}\n{\"key\":{\"id\":2},\"value\":null}\n{\"key\":{\"id\":2},\"value\":{\"v\":5}}\n",
    );
    let output = text(&sandbox.run_ok(&["run", "job.sql", "-p", "2"]).stdout);
    let fold = ChangelogFold::printed(&output, "p> ").unwrap();
    assert_eq!(fold.rows(), BTreeMap::from([("1, 1".to_owned(), 1), ("2, 5".to_owned(), 1)]));
    sandbox.write("job.sql", "CREATE TABLE t (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'cdc', 'format' = 'debezium-json'); SELECT id FROM t;");
    sandbox.write("cdc/a.json", "{\"after\":{\"id\":7},\"op\":\"c\"}\n{\"before\":{\"id\":7},\"op\":\"d\"}\n");
    let output = text(&sandbox.run_ok(&["run", "job.sql", "--fresh"]).stdout);
    assert_eq!(output, " op | id\n----+----\n +I |  7\n -D |  7\n");
}

#[test]
fn a_change_that_cannot_be_read_is_named_or_dropped() {
    let table = |option: &str| {
        format!(
            "CREATE TABLE t (id BIGINT, v BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'debezium-json'{option}); SELECT id, v FROM t;"
        )
    };
    let sandbox = Sandbox::new(&table(""));
    sandbox.write(
        "in/a.json",
        "{\"after\":{\"id\":7,\"v\":1},\"op\":\"c\"}\n{\"before\":null,\"after\":{\"id\":7,\"v\":2},\"op\":\"u\"}\n",
    );
    let error = sandbox.run_err(&["run", "job.sql"]);
    for part in [
        "in/a.json', line 2",
        "an update has no 'before'",
        "REPLICA IDENTITY FULL",
        "'debezium-json.upsert'",
        "'bad-records' = 'drop'",
    ] {
        assert!(error.contains(part), "'{part}' is missing in: {error}");
    }
    sandbox.write("job.sql", table(", 'debezium-json.ignore-parse-errors' = 'true'"));
    let output = sandbox.run_ok(&["run", "job.sql", "--fresh"]);
    assert!(text(&output.stderr).contains("1 dropped"), "{}", text(&output.stderr));
    // With a key, updates need not say what they replace, and deletes only the key.
    sandbox.write(
        "job.sql",
        table(", 'debezium-json.upsert' = 'true'")
            .replace("v BIGINT)", "v BIGINT NOT NULL, PRIMARY KEY (id) NOT ENFORCED)"),
    );
    sandbox.write("in/a.json", "{\"op\":\"u\",\"after\":{\"id\":7,\"v\":1}}\n{\"op\":\"c\",\"after\":{\"id\":8,\"v\":1}}\n{\"op\":\"d\",\"before\":{\"id\":8}}\n{\"op\":\"u\",\"after\":{\"id\":7,\"v\":2}}\n");
    let output = text(&sandbox.run_ok(&["run", "job.sql", "--fresh", "-p", "1"]).stdout);
    let changes = " +I |  7 | 1\n +I |  8 | 1\n -D |  8 | 1\n -U |  7 | 1\n +U |  7 | 2\n";
    assert_eq!(output, format!(" op | id | v\n----+----+---\n{changes}"));
}

/// The versions of a table with their changes in two forms, and what its rows were: by key, each rate with the
/// millisecond from which on it counts, or none.
struct History {
    envelopes: String,
    upserts: String,
    rates: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
}

const VERSIONS: u64 = 20_000;

fn time(ms: u64) -> String {
    format!("2026-01-01 00:{:02}:{:02}.{:03}", ms / 60_000, ms / 1_000 % 60, ms % 1_000)
}

/// An update each ten milliseconds. Some rows are deleted in between.
fn history(random: &mut SmallRng) -> History {
    let (mut envelopes, mut upserts) = (String::new(), String::new());
    let mut rates = BTreeMap::<u64, Vec<(u64, Option<u64>)>>::new();
    let mut rows = BTreeMap::<u64, String>::new();
    for n in 1..=VERSIONS {
        let (k, rate, ms) = (random.random_range(0..50_u64), random.random_range(0..1_000_u64), n * 10);
        let row = format!("{{\"k\":{k},\"rate\":{rate},\"ts\":\"{}\"}}", time(ms));
        let old = rows.insert(k, row.clone());
        let (op, before) = if old.is_some() { ("u", old.as_deref().unwrap()) } else { ("c", "null") };
        writeln!(envelopes, "{{\"before\":{before},\"after\":{row},\"op\":\"{op}\"}}").unwrap();
        writeln!(upserts, "{{\"key\":{{\"k\":{k}}},\"value\":{row}}}").unwrap();
        rates.entry(k).or_default().push((ms, Some(rate)));
        let gone = random.random_range(0..50_u64);
        if random.random_bool(0.1)
            && let Some(row) = rows.remove(&gone)
        {
            writeln!(envelopes, "{{\"before\":{row},\"after\":null,\"op\":\"d\"}}").unwrap();
            writeln!(upserts, "{{\"key\":{{\"k\":{gone}}},\"value\":null}}").unwrap();
            // Behind the watermark.
            rates.entry(gone).or_default().push((ms + 1, None));
        }
    }
    History { envelopes, upserts, rates }
}

/// A join with the version of a time sees every version, however its changes come and whatever stands between: a
/// projection, a filter that takes versions away, another query over the same table.
#[test]
fn a_join_as_of_a_time_meets_the_version_of_that_time() {
    let mut random = SmallRng::seed_from_u64(0x7665_7273);
    let history = history(&mut random);
    let mut left = String::new();
    let (mut plain, mut filtered) = (BTreeMap::new(), BTreeMap::new());
    for id in 0..5_000_u64 {
        let (k, ms) = (random.random_range(0..50_u64), id * VERSIONS * 10 / 5_000 + 3);
        writeln!(left, "{{\"id\":{id},\"k\":{k},\"ts\":\"{}\"}}", time(ms)).unwrap();
        let rates = history.rates.get(&k).map(Vec::as_slice).unwrap_or_default();
        let rate = rates[..rates.partition_point(|(from, _)| *from <= ms)].last().and_then(|(_, rate)| *rate);
        let line = |rate: Option<u64>| {
            format!("{{\"id\":{id},\"rate\":{}}}", rate.map_or("null".to_owned(), |rate| rate.to_string()))
        };
        plain.insert(line(rate), 1_usize);
        filtered.insert(line(rate.filter(|rate| rate % 5 != 0)), 1_usize);
    }
    let mut kills = 0;
    for (format, content) in [
        ("'format' = 'debezium-json'", &history.envelopes),
        ("'format' = 'debezium-json', 'debezium-json.upsert' = 'true'", &history.envelopes),
        ("'format' = 'upsert-json'", &history.upserts),
    ] {
        let join = |table: &str| {
            format!("SELECT l.id, v.rate FROM l LEFT JOIN {table} FOR SYSTEM_TIME AS OF l.ts AS v ON l.k = v.k")
        };
        let sandbox = Sandbox::new(&format!(
            "CREATE TABLE l (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
               WITH ('connector' = 'filesystem', 'path' = 'l.json', 'format' = 'json');
             CREATE TABLE r (k BIGINT, rate BIGINT, ts TIMESTAMP(3), PRIMARY KEY (k) NOT ENFORCED, WATERMARK FOR ts AS ts)
               WITH ('connector' = 'filesystem', 'path' = 'r.json', {format});
             CREATE TABLE plain (id BIGINT, rate BIGINT) WITH ('connector' = 'filesystem', 'path' = 'plain', 'format' = 'json');
             CREATE TABLE filtered (id BIGINT, rate BIGINT) WITH ('connector' = 'filesystem', 'path' = 'filtered', 'format' = 'json');
             CREATE VIEW f AS SELECT k, rate, ts FROM r WHERE MOD(rate, 5) <> 0;
             INSERT INTO plain {}; INSERT INTO filtered {};",
            join("r"),
            join("f"),
        ));
        sandbox.write("l.json", &left);
        sandbox.write("r.json", content);
        for parallelism in ["1", "3"] {
            let arguments = ["run", "job.sql", "--checkpoint-interval", "20 ms", "--parallelism", parallelism];
            kills += i32::from(sandbox.kill_at(&arguments, "published", 1 + random.random_range(0..3)));
        }
        sandbox.run_ok(&["run", "job.sql", "--parallelism", "2"]);
        for (directory, expected) in [("plain", &plain), ("filtered", &filtered)] {
            let found = sandbox.lines(directory);
            let wrong = expected.keys().filter(|line| found.get(*line) != Some(&1)).take(5).collect::<Vec<_>>();
            assert!(found == *expected, "{format}, {directory}: {wrong:?} of {} lines", found.len());
        }
    }
    assert!(kills > 0, "each run was over before it was to be killed");
}

/// What is held back for a moment comes before the end of the input, on which sorts and limits wait.
#[test]
fn mini_batches_come_before_the_end() {
    let sandbox = Sandbox::new(
        "SET 'table.exec.mini-batch.enabled' = 'true'; SET 'table.exec.mini-batch.allow-latency' = '1 s';
         CREATE TABLE t (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '100', 'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '100');
         CREATE TABLE o (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         INSERT INTO o SELECT id % 3, COUNT(*) AS n FROM t GROUP BY id % 3 ORDER BY n DESC, 1;",
    );
    sandbox.run_ok(&["run", "job.sql"]);
    let lines = ["{\"k\":0,\"n\":33}", "{\"k\":1,\"n\":34}", "{\"k\":2,\"n\":33}"];
    assert_eq!(sandbox.lines("out"), lines.map(|line| (line.to_owned(), 1)).into());
}

/// Rows that are told once more, as a new copy of a table does, replace each other at their times as updates do.
#[test]
fn versions_that_come_as_inserts_end_where_the_next_one_begins() {
    let sandbox = Sandbox::new(
        "CREATE TABLE l (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'filesystem', 'path' = 'l.json', 'format' = 'json');
         CREATE TABLE r (k BIGINT, active BOOLEAN, ts TIMESTAMP(3), PRIMARY KEY (k) NOT ENFORCED, WATERMARK FOR ts AS ts)
           WITH ('connector' = 'filesystem', 'path' = 'r.json', 'format' = 'debezium-json', 'debezium-json.upsert' = 'true');
         CREATE TABLE out (id BIGINT, found TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         CREATE VIEW f AS SELECT k, ts FROM r WHERE active;
         INSERT INTO out SELECT l.id, v.ts FROM l LEFT JOIN f FOR SYSTEM_TIME AS OF l.ts AS v ON l.k = v.k;",
    );
    let (mut asked, mut versions, mut expected) = (String::new(), String::new(), BTreeMap::new());
    for (hour, active) in [(10, true), (12, false), (14, true), (16, false)] {
        let at = format!("2026-01-01 {hour}:00:00");
        let row = format!("{{\"k\":1,\"active\":{active},\"ts\":\"{at}\"}}");
        writeln!(versions, "{{\"before\":null,\"after\":{row},\"op\":\"c\"}}").unwrap();
        writeln!(asked, "{{\"id\":{hour},\"k\":1,\"ts\":\"2026-01-01 {hour}:30:00.000\"}}").unwrap();
        let found = if active { format!("\"{at}\"") } else { "null".to_owned() };
        expected.insert(format!("{{\"id\":{hour},\"found\":{found}}}"), 1);
    }
    sandbox.write("l.json", asked);
    sandbox.write("r.json", versions);
    sandbox.run_ok(&["run", "job.sql"]);
    assert_eq!(sandbox.lines("out"), expected);
}
