//! Changes of a table: the copy and what follows, over kills of the job and of the server, against the table itself.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::sandbox;
use super::server::Server;
use crate::support::certificates::Authority;
use crate::support::{Sandbox, assert_says};

const ACCOUNTS: u64 = 300;
/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Kills, unless more are asked for: half of them at random instants, half while an epoch is published.
const KILLS: usize = 20;

fn job(server: &Server, database: &str) -> String {
    let place = format!("'hostname' = '127.0.0.1', 'port' = '{}', 'database-name' = '{database}'", server.port);
    job_at(&place, database)
}

fn job_at(place: &str, database: &str) -> String {
    let options = |connector: &str| {
        format!(
            "'connector' = '{connector}', {place}, 'username' = '{}', 'password' = '${{file:password}}'",
            super::server::USER
        )
    };
    format!(
        "CREATE TABLE accounts (id INT, region STRING, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED)
           WITH ({}, 'schema-name' = 'public', 'table-name' = 'accounts', 'slot.name' = 'mainstem_{database}',
                 'decoding.plugin.name' = 'pgoutput');
         CREATE TABLE copies (id INT, region STRING, balance BIGINT, PRIMARY KEY (id) NOT ENFORCED)
           WITH ({}, 'table-name' = 'copies');
         CREATE TABLE totals (region STRING, n BIGINT, balance BIGINT, PRIMARY KEY (region) NOT ENFORCED)
           WITH ({}, 'table-name' = 'totals');
         INSERT INTO copies SELECT id, region, balance FROM accounts;
         INSERT INTO totals SELECT region, COUNT(*), SUM(balance) FROM accounts GROUP BY region;",
        options("postgres-cdc"),
        options("postgres"),
        options("postgres"),
    )
}

fn tables() -> String {
    format!(
        "CREATE TABLE accounts (id int PRIMARY KEY, region text NOT NULL, balance bigint NOT NULL, note text);
         CREATE TABLE copies (id int PRIMARY KEY, region text, balance bigint);
         CREATE TABLE totals (region text PRIMARY KEY, n bigint, balance numeric);
         INSERT INTO accounts SELECT n, 'r' || n % 7, 100, 'note' FROM generate_series(1, {ACCOUNTS}) n"
    )
}

/// A few transactions of every kind.
fn change(server: &Server, database: &str, random: &mut SmallRng) {
    let mut sql = String::new();
    for _ in 0..20 {
        let mut account = || random.random_range(1..=ACCOUNTS);
        let (one, other, third) = (account(), account(), account());
        sql += &format!(
            "BEGIN;
             UPDATE accounts SET balance = balance - 5 WHERE id = {one};
             UPDATE accounts SET balance = balance + 5 WHERE id = {other};
             COMMIT;
             DELETE FROM accounts WHERE id = {third};
             INSERT INTO accounts SELECT {third}, 'r{}', 50 WHERE {one} % 3 <> 0 ON CONFLICT DO NOTHING;
             BEGIN; UPDATE accounts SET balance = 0; ROLLBACK;
             UPDATE accounts SET id = id + {ACCOUNTS} WHERE id = {one} AND {other} % 5 = 0
               AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = {one} + {ACCOUNTS});
             UPDATE accounts SET region = 'r{}' WHERE id = {other};\n",
            third % 9,
            one % 9
        );
    }
    server.query(database, &sql);
}

/// Waits until the copies are the table and the totals those of the table.
#[track_caller]
fn wait_for_copies(server: &Server, database: &str) {
    let differences = "SELECT (SELECT COUNT(*) FROM (
         (SELECT id, region, balance FROM accounts EXCEPT SELECT id, region, balance FROM copies) UNION ALL
         (SELECT id, region, balance FROM copies EXCEPT SELECT id, region, balance FROM accounts)) d)
       + (SELECT COUNT(*) FROM (
         (SELECT region, COUNT(*), SUM(balance) FROM accounts GROUP BY region EXCEPT SELECT region, n, balance FROM totals) UNION ALL
         (SELECT region, n, balance FROM totals EXCEPT SELECT region, COUNT(*), SUM(balance) FROM accounts GROUP BY region)) d)";
    let begun = Instant::now();
    loop {
        let found = server.try_query(database, differences).map_or_else(|e| e, |mut rows| rows.remove(0).remove(0));
        if found == "0" {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found} rows differ");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes of the log that are not read yet, if that is known.
fn lag(sandbox: &Sandbox) -> Option<u64> {
    let log = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let newest = lines.into_iter().find(|line| line["event"] == "progress")?;
    let lag = newest["lag"].get(0).filter(|lag| lag["unit"] == "bytes" && lag["table"] == "accounts")?;
    lag["total"].as_u64()
}

const ARGUMENTS: [&str; 6] = ["run", "job.sql", "--checkpoint-interval", "50 ms", "-p", "2"];

fn start(sandbox: &Sandbox) -> std::process::Child {
    let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
    sandbox.command(&[&ARGUMENTS[..], &["--json"]].concat()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A copy has no order: none of its rows is behind another, however old the newest that came before it.
#[test]
fn the_rows_of_a_copy_are_versions_from_their_own_times_on() {
    let server = Server::start();
    // Newest first, and more than a batch.
    let table = server.database(
        "versions",
        "CREATE TABLE rates (k int PRIMARY KEY, rate int, at timestamp NOT NULL); CREATE TABLE joined (id int PRIMARY KEY, rate int);
         INSERT INTO rates SELECT n, n * 3, timestamp '2026-01-05' - n * interval '1 second' FROM generate_series(1, 30000) n",
    );
    let copy =
        table.replace("'connector' = 'postgres'", "'connector' = 'postgres-cdc', 'slot.name' = 'mainstem_versions'");
    let sandbox = sandbox(&format!(
        "CREATE TABLE rates (k INT, rate INT, at TIMESTAMP(3), PRIMARY KEY (k) NOT ENFORCED, WATERMARK FOR at AS at)
           WITH ({copy}, 'table-name' = 'rates');
         CREATE TABLE asked (id INT, k INT, at TIMESTAMP(3), WATERMARK FOR at AS at)
           WITH ('connector' = 'filesystem', 'path' = 'asked.json', 'format' = 'json');
         CREATE TABLE joined (id INT, rate INT, PRIMARY KEY (id) NOT ENFORCED) WITH ({table}, 'table-name' = 'joined');
         INSERT INTO joined SELECT a.id, r.rate FROM asked a
           LEFT JOIN rates FOR SYSTEM_TIME AS OF a.at AS r ON a.k = r.k;"
    ));
    // Half a second after and half a second before the version of their key.
    let asked = server.query(
        "versions",
        "SELECT json_build_object('id', id, 'k', k, 'at', to_char(at, 'YYYY-MM-DD HH24:MI:SS.MS')) FROM (
           SELECT k AS id, k, at + interval '0.5 second' AS at FROM rates WHERE k % 100 = 0
           UNION ALL SELECT -k, k, at - interval '0.5 second' FROM rates WHERE k % 100 = 0) a ORDER BY at",
    );
    sandbox.write("asked.json", asked.concat().join("\n"));
    let mut job = start(&sandbox);
    let all = "SELECT COUNT(*), COUNT(rate), COUNT(*) FILTER (WHERE rate = id * 3) FROM joined";
    wait_for("all rows are joined", || {
        assert!(job.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(sandbox.path("stderr.log")).unwrap());
        server.query("versions", all)[0][0] == "600"
    });
    job.kill().unwrap();
    job.wait().unwrap();
    assert_eq!(server.query("versions", all), [["600", "300", "300"]]);
}

#[test]
fn a_table_and_its_changes_are_followed_over_kills() {
    let mut server = Server::start();
    server.database("follow", &tables());
    let sandbox = sandbox(&job(&server, "follow"));
    let mut random = SmallRng::seed_from_u64(7);
    let (mut kills, mut within) = (0, 0);
    let mut edges = ["transaction-written", "transaction-committed", "epoch-complete", "published"].iter().cycle();
    for round in 0..crate::support::kills(KILLS) {
        // Every other time it dies while it publishes: what was changed meanwhile is enough for some epochs.
        if round % 2 == 1 {
            let edge = edges.next().unwrap();
            assert!(sandbox.kill_at(&ARGUMENTS, edge, random.random_range(1..=2)), "{edge}");
            change(&server, "follow", &mut random);
            within += 1;
            continue;
        }
        kills += 1;
        let mut job = start(&sandbox);
        for _ in 0..random.random_range(1..6) {
            change(&server, "follow", &mut random);
            std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
        }
        if round == 4 {
            wait_for_copies(&server, "follow");
            server.kill();
            server.go_on();
            change(&server, "follow", &mut random);
        }
        if round % 4 == 2 {
            wait_for_copies(&server, "follow");
        }
        job.kill().unwrap();
        job.wait().unwrap();
        // While nobody reads.
        change(&server, "follow", &mut random);
    }
    let mut job = start(&sandbox);
    wait_for_copies(&server, "follow");
    println!("{kills} kills at random instants, {within} while epochs were published");
    assert!(job.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(sandbox.path("stderr.log")).unwrap());
    // What is in checkpoints is not kept by the server.
    let behind = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots";
    let before = server.value("follow", "SELECT pg_current_wal_lsn()::text");
    let mut released = false;
    for _ in 0..1_000 {
        change(&server, "follow", &mut random);
        let passed = format!("SELECT confirmed_flush_lsn >= '{before}' FROM pg_replication_slots");
        released = server.value("follow", &passed) == "t";
        if released {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(released, "{} bytes behind", server.value("follow", behind));
    wait_for_copies(&server, "follow");
    job.kill().unwrap();
    job.wait().unwrap();

    // A slot that is gone is not made anew in silence.
    let drop = "SELECT pg_drop_replication_slot('mainstem_follow')";
    wait_for("a slot that nobody reads", || server.try_query("follow", drop).is_ok());
    let message = sandbox.run_err(&ARGUMENTS);
    assert_says(
        &message,
        &["the slot 'mainstem_follow' of table 'accounts' is not there", "changes since the checkpoint are lost"],
    );
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let server = Server::start();
    server.database("refuse", "CREATE TABLE accounts (id int, region text, balance bigint); CREATE TABLE copies (id int PRIMARY KEY, region text, balance bigint); CREATE TABLE totals (region text PRIMARY KEY, n bigint, balance numeric)");
    let sandbox = sandbox(&job(&server, "refuse"));
    assert_says(
        &sandbox.run_err(&ARGUMENTS),
        &["tell nothing of the old row", "PRIMARY KEY (id)", "REPLICA IDENTITY FULL"],
    );
    server.query("refuse", "ALTER TABLE accounts ADD PRIMARY KEY (id); ALTER TABLE accounts ALTER region SET STORAGE EXTERNAL; INSERT INTO accounts VALUES (1, repeat('x', 9000), 1)");
    let mut running = start(&sandbox);
    wait_for_copies(&server, "refuse");
    server.query("refuse", "UPDATE accounts SET balance = 2");
    let status = running.wait().unwrap();
    let log = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    assert!(!status.success());
    assert_says(&log, &["leaves out the long value of column 'region'", "REPLICA IDENTITY FULL", "--fresh"]);
    server.query("refuse", "ALTER TABLE accounts REPLICA IDENTITY FULL");
    let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
    let mut fresh = sandbox.command(&[&ARGUMENTS[..], &["--fresh"]].concat()).stderr(log).spawn().unwrap();
    wait_for_copies(&server, "refuse");
    server.query("refuse", "UPDATE accounts SET balance = 3");
    wait_for_copies(&server, "refuse");
    fresh.kill().unwrap();
    fresh.wait().unwrap();
}

#[test]
fn changes_come_encrypted_where_that_is_asked_for() {
    let authority = Authority::new("authority of databases");
    let server = Server::start_encrypting(&authority.server("127.0.0.1"));
    server.database("secret", &tables());
    let place = |mode: &str, root: &Authority| {
        let root = root.file();
        let root = root.display();
        format!("'url' = 'postgresql://127.0.0.1:{}/secret?sslmode={mode}&sslrootcert={root}'", server.port)
    };
    let none = "SET 'restart-strategy.type' = 'none';\n";
    let other = Authority::new("somebody else");
    let stranger = sandbox(&format!("{none}{}", job_at(&place("verify-ca", &other), "secret")));
    assert_says(&stranger.run_err(&ARGUMENTS), &["UnknownIssuer", "check sslmode and sslrootcert"]);

    let sandbox = sandbox(&job_at(&place("verify-full", &authority), "secret"));
    let mut random = SmallRng::seed_from_u64(8);
    for round in 0..2 {
        let mut job = start(&sandbox);
        change(&server, "secret", &mut random);
        wait_for_copies(&server, "secret");
        let open = "SELECT COUNT(*) FILTER (WHERE ssl), COUNT(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)";
        wait_for("one encrypted stream", || server.query("secret", open) == [["1", "1"]]);
        if round == 0 {
            wait_for("no lag", || lag(&sandbox) == Some(0));
        }
        job.kill().unwrap();
        job.wait().unwrap();
        change(&server, "secret", &mut random);
    }
    // A server that does not encrypt is no server for who asks for it, and is one for who prefers it.
    server.query("secret", "DELETE FROM copies; DELETE FROM totals");
    server.query("secret", "ALTER SYSTEM SET ssl = off");
    server.query("secret", "SELECT pg_reload_conf()");
    wait_for("no encryption", || server.value("secret", "SHOW ssl") == "off");
    sandbox.write("job.sql", format!("{none}{}", job_at(&place("require", &authority), "secret")));
    let refused = sandbox.run_err(&[&ARGUMENTS[..], &["--job-id", "refused"]].concat());
    assert_says(&refused, &["server does not support TLS", "check sslmode and sslrootcert"]);
    sandbox.write("job.sql", job_at(&place("prefer", &authority), "secret"));
    let mut job = sandbox.command(&[&ARGUMENTS[..], &["--fresh"]].concat()).stderr(Stdio::null()).spawn().unwrap();
    change(&server, "secret", &mut random);
    wait_for_copies(&server, "secret");
    job.kill().unwrap();
    job.wait().unwrap();
}

/// The newest number of this name that the job has told.
fn told(sandbox: &Sandbox, name: &str) -> Option<u64> {
    let log = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.into_iter().find(|line| line["event"] == "progress")?[name].as_u64()
}

#[test]
fn a_truncate_stops_the_job_or_is_passed_over() {
    let server = Server::start();
    server.database("emptied", &tables());
    let strict = sandbox(&job(&server, "emptied"));
    let mut running = start(&strict);
    wait_for_copies(&server, "emptied");
    server.query("emptied", "BEGIN; TRUNCATE accounts; INSERT INTO accounts VALUES (7, 'new', 7, ''); COMMIT");
    assert!(!running.wait().unwrap().success());
    let log = std::fs::read_to_string(strict.path("stderr.log")).unwrap();
    assert_says(
        &log,
        &["table public.accounts was truncated", "committed at 0/", "--fresh", "'scan.truncate' = 'skip'"],
    );

    // Anew, from the table as it is: the copy holds the TRUNCATE that stopped the job.
    server.query("emptied", "DELETE FROM copies; DELETE FROM totals");
    let skipping = job(&server, "emptied").replace("'slot.name'", "'scan.truncate' = 'skip', 'slot.name'");
    let lenient = sandbox(&format!("SET 'pipeline.name' = 'lenient';\n{skipping}"));
    let mut running = start(&lenient);
    wait_for_copies(&server, "emptied");
    let copies = |wanted: &str| {
        let rows = server.query("emptied", "SELECT id, region, balance FROM copies ORDER BY id");
        rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>().join(", ") == wanted
    };
    assert_eq!(told(&lenient, "dropped_records").unwrap_or(0), 0);
    // What came before it in its transaction counts, and what comes after.
    server.query(
        "emptied",
        "BEGIN; UPDATE accounts SET balance = 8; TRUNCATE accounts; INSERT INTO accounts VALUES (9, 'later', 1, ''); COMMIT",
    );
    wait_for("the rows of before and after", || copies("7 new 8, 9 later 1"));
    wait_for("one is counted", || told(&lenient, "dropped_records") == Some(1));
    // Alone in its transaction.
    server.query("emptied", "TRUNCATE accounts");
    wait_for("both are counted", || told(&lenient, "dropped_records") == Some(2));
    running.kill().unwrap();
    running.wait().unwrap();
    let log = std::fs::read_to_string(lenient.path("stderr.log")).unwrap();
    assert_eq!(log.matches("TRUNCATE passed over").count(), 2, "{log}");
    assert_says(&log, &["public.accounts", "0/"]);

    // While nobody reads; the rows that the job keeps change as ever.
    server.query("emptied", "INSERT INTO accounts VALUES (7, 'again', 3, ''); TRUNCATE accounts");
    server.query("emptied", "INSERT INTO accounts VALUES (9, 'last', 4, ''); DELETE FROM accounts WHERE id = 9");
    let mut running = start(&lenient);
    wait_for("all changes", || copies("7 again 3"));
    let totals = "SELECT string_agg(region || ' ' || n || ' ' || balance, ', ') FROM totals";
    wait_for("totals of what is kept", || server.value("emptied", totals) == "again 1 3");
    running.kill().unwrap();
    running.wait().unwrap();
}
