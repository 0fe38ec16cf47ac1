//! The bank test, after Jamie Brandon's "Internal consistency in streaming systems": money only moves between accounts,
//! so whatever is published must add up to nothing at the end of every epoch, read through joins, aggregates, and
//! aggregates of aggregates, whatever crashes and at whatever parallelism. Several views of the same transfers are
//! written by one job; at each epoch all of them must tell of the same set of transfers.
//!
//! `MAINSTEM_BANK_TRANSFERS=10000000` moves as much money as the original.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::Sandbox;
use crate::support::changelog::{ChangelogFold, files_by_epoch};

/// Transfers where the environment asks for no other number.
const TRANSFERS: u64 = 500_000;
const ACCOUNTS: u64 = 500;
const BANKS: u64 = 7;
/// Files that transfers are read from, side by side.
const FILES: u64 = 4;
const KILLS_MAX: usize = 12;
/// One after the other, from attempt to attempt.
const PARALLELISMS: [&str; 4] = ["2", "3", "1", "2"];

const SQL: &str = "
CREATE TABLE transfers (debtor BIGINT, creditor BIGINT, units BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'in/transfers', 'format' = 'json');
CREATE TABLE accounts (id BIGINT, bank BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'in/accounts', 'format' = 'json');

CREATE VIEW credits AS SELECT creditor AS account, SUM(units) AS units FROM transfers GROUP BY creditor;
CREATE VIEW debits AS SELECT debtor AS account, SUM(units) AS units FROM transfers GROUP BY debtor;
CREATE VIEW balances AS
SELECT COALESCE(c.account, d.account) AS account, COALESCE(c.units, 0) AS credits, COALESCE(d.units, 0) AS debits,
       COALESCE(c.units, 0) - COALESCE(d.units, 0) AS balance
FROM credits c FULL OUTER JOIN debits d ON c.account = d.account;

CREATE TABLE counted (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out/counted', 'format' = 'debezium-json');
INSERT INTO counted SELECT COUNT(*) FROM transfers;

CREATE TABLE total (total BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out/total', 'format' = 'debezium-json');
INSERT INTO total SELECT SUM(balance) FROM balances;

CREATE TABLE each (account BIGINT, credits BIGINT, debits BIGINT, balance BIGINT, PRIMARY KEY (account) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = 'out/each', 'format' = 'upsert-json');
INSERT INTO each SELECT account, credits, debits, balance FROM balances;

-- A join of balances with themselves.
CREATE TABLE pairs (total BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out/pairs', 'format' = 'debezium-json');
INSERT INTO pairs
SELECT SUM(x.credits - y.debits) FROM balances x JOIN balances y ON x.account = y.account;

-- How many accounts have which balance.
CREATE TABLE levels (balance BIGINT, accounts BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/levels', 'format' = 'debezium-json');
INSERT INTO levels SELECT balance, COUNT(*) FROM balances GROUP BY balance;

-- An inner join with another stream.
CREATE TABLE opened (id BIGINT, bank BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/opened', 'format' = 'debezium-json');
INSERT INTO opened SELECT id, bank FROM accounts;
CREATE TABLE banks (bank BIGINT, accounts BIGINT, balance BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'out/banks', 'format' = 'debezium-json');
INSERT INTO banks
SELECT a.bank, COUNT(*), SUM(b.balance) FROM accounts a JOIN balances b ON a.id = b.account GROUP BY a.bank;
";

/// The views that are written as `'format' = 'debezium-json'`.
const VIEWS: [&str; 6] = ["counted", "total", "pairs", "levels", "opened", "banks"];

/// What an account has got and given.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Account {
    credits: i64,
    debits: i64,
}

impl Account {
    fn balance(self) -> i64 {
        self.credits - self.debits
    }
}

/// A bank with a number of random transfers in files, and what they leave in each account.
fn bank(settings: &str, transfers: u64, random: &mut SmallRng) -> (Sandbox, BTreeMap<i64, Account>) {
    let sandbox = Sandbox::new(&format!("{settings}{SQL}"));
    let mut left = BTreeMap::<i64, Account>::new();
    for file in 0..FILES {
        let mut text = String::new();
        for _ in 0..transfers / FILES {
            // Half of the money moves between a few accounts: many changes of one key within a batch.
            let most = if random.random_bool(0.5) { 10 } else { ACCOUNTS };
            let (debtor, creditor) = (random.random_range(0..most) as i64, random.random_range(0..most) as i64);
            left.entry(debtor).or_default().debits += 1;
            left.entry(creditor).or_default().credits += 1;
            writeln!(text, r#"{{"debtor":{debtor},"creditor":{creditor},"units":1}}"#).unwrap();
        }
        sandbox.write(&format!("in/transfers/{file}.json"), text);
    }
    for (name, half) in [("a", 0..ACCOUNTS / 2), ("b", ACCOUNTS / 2..ACCOUNTS)] {
        let lines = half.map(|id| format!("{{\"id\":{id},\"bank\":{}}}\n", id % BANKS));
        sandbox.write(&format!("in/accounts/{name}.json"), lines.collect::<String>());
    }
    (sandbox, left)
}

/// What a reader who takes whole epochs has seen so far.
#[derive(Default)]
struct Reader {
    views: BTreeMap<&'static str, ChangelogFold>,
    each: ChangelogFold,
    /// Changes of the total within an epoch to something else than zero.
    unbalanced: usize,
}

impl Reader {
    fn take(&mut self, view: &'static str, file: &PathBuf) {
        if view == "total" {
            let text = std::fs::read_to_string(file).unwrap();
            self.unbalanced += text.lines().filter(|line| !line.contains("\"after\":{\"total\":0}")).count();
        }
        self.views.entry(view).or_default().take_envelopes(file).unwrap();
    }

    fn rows(&mut self, view: &'static str) -> Vec<Value> {
        let rows = self.views.entry(view).or_default().rows();
        rows.iter().flat_map(|(row, count)| vec![serde_json::from_str(row).unwrap(); *count]).collect()
    }

    fn accounts(&self) -> BTreeMap<i64, Account> {
        let rows = self.each.rows();
        let accounts = rows.keys().map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            let account = Account { credits: number(&row, "credits"), debits: number(&row, "debits") };
            assert_eq!(account.balance(), number(&row, "balance"));
            (number(&row, "account"), account)
        });
        accounts.collect()
    }

    /// All views tell of the same transfers, and no money has been made or lost.
    fn check(&mut self, epoch: u64) {
        let accounts = self.accounts();
        let transfers: Vec<i64> = self.rows("counted").iter().map(|row| number(row, "n")).collect();
        let transfers = match transfers.as_slice() {
            [] => 0,
            [transfers] => *transfers,
            more => panic!("epoch {epoch}: several counts of transfers: {more:?}"),
        };
        assert_eq!(accounts.values().map(|account| account.credits).sum::<i64>(), transfers, "epoch {epoch}, credits");
        assert_eq!(accounts.values().map(|account| account.debits).sum::<i64>(), transfers, "epoch {epoch}, debits");
        for view in ["total", "pairs"] {
            let totals: Vec<i64> = self.rows(view).iter().map(|row| number(row, "total")).collect();
            let expected = if accounts.is_empty() { vec![] } else { vec![0] };
            assert_eq!(totals, expected, "epoch {epoch}, {view}");
        }

        let mut levels = BTreeMap::<i64, i64>::new();
        for account in accounts.values() {
            *levels.entry(account.balance()).or_default() += 1;
        }
        let rows = self.rows("levels");
        let found = rows.iter().map(|row| (number(row, "balance"), number(row, "accounts"))).collect();
        assert_eq!(levels, found, "epoch {epoch}, levels");
        assert_eq!(levels.len(), rows.len(), "epoch {epoch}, levels: {rows:?}");

        let mut banks = BTreeMap::<i64, (i64, i64)>::new();
        for opened in self.rows("opened") {
            if let Some(account) = accounts.get(&number(&opened, "id")) {
                let bank = banks.entry(number(&opened, "bank")).or_default();
                bank.0 += 1;
                bank.1 += account.balance();
            }
        }
        let rows = self.rows("banks");
        let of = |row: &Value| (number(row, "bank"), (number(row, "accounts"), number(row, "balance")));
        assert_eq!(banks, rows.iter().map(of).collect(), "epoch {epoch}, banks");
        assert_eq!(banks.len(), rows.len(), "epoch {epoch}, banks: {rows:?}");
    }
}

fn number(row: &Value, column: &str) -> i64 {
    row[column].as_i64().unwrap_or_else(|| panic!("'{column}' is no number in {row}"))
}

/// Reads the output epoch by epoch; gives the number of epochs and how often a total was off balance within one.
fn read(sandbox: &Sandbox, left: &BTreeMap<i64, Account>) -> (usize, usize) {
    let mut epochs = BTreeMap::<u64, Vec<(&'static str, PathBuf)>>::new();
    for view in VIEWS.into_iter().chain(["each"]) {
        for (epoch, files) in files_by_epoch(&sandbox.path(&format!("out/{view}"))) {
            epochs.entry(epoch).or_default().extend(files.into_iter().map(|file| (view, file)));
        }
    }
    let mut reader = Reader::default();
    for (epoch, files) in &epochs {
        for (view, file) in files {
            match *view {
                "each" => reader.each.take_upserts(file).unwrap(),
                view => reader.take(view, file),
            }
        }
        reader.check(*epoch);
    }
    assert_eq!(reader.accounts(), *left, "at the end");
    (epochs.len(), reader.unbalanced)
}

/// A run with kills at random instants, at changing parallelism.
#[expect(clippy::print_stdout, reason = "tells what the test has seen")]
fn check(name: &str, settings: &str, seed: u64) {
    let transfers = std::env::var("MAINSTEM_BANK_TRANSFERS").map_or(TRANSFERS, |text| text.parse().unwrap());
    let mut random = SmallRng::seed_from_u64(seed);
    let (sandbox, left) = bank(settings, transfers, &mut random);
    let begun = Instant::now();
    let longer = (transfers / TRANSFERS).clamp(1, 5) as usize;
    let mut kills = 0;
    loop {
        let parallelism = PARALLELISMS[kills % PARALLELISMS.len()];
        let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms", "--parallelism", parallelism];
        // By how many epochs it has published, so that a machine of any speed is killed as often; at any instant of the
        // next one.
        let counted = sandbox.path("out/counted");
        let epochs = files_by_epoch(&counted).len() + random.random_range(0..4) * longer;
        let later = Duration::from_millis(random.random_range(0..50));
        let reached = Cell::new(None);
        let is_time = |run_for: Duration| {
            if reached.get().is_none() && files_by_epoch(&counted).len() >= epochs {
                reached.set(Some(run_for + later));
            }
            kills < KILLS_MAX && reached.get().is_some_and(|instant| run_for >= instant)
        };
        if !sandbox.run_and_kill_when(&arguments, is_time) {
            break;
        }
        kills += 1;
    }
    let ran = begun.elapsed();
    let (epochs, unbalanced) = read(&sandbox, &left);
    println!(
        "{name}: {transfers} transfers, {kills} kills, {ran:?}; {epochs} epochs, off balance within one {unbalanced} times"
    );
    assert!(epochs >= 5, "{epochs} epochs");
    assert!(kills >= 2, "{kills} kills");
    // Otherwise a reader in the middle of an epoch would see as much, and the test would show nothing.
    assert!(unbalanced > 0, "no total was ever off balance within an epoch");
}

#[test]
fn no_epoch_ever_makes_or_loses_money() {
    check("each batch", "", 1);
}

#[test]
fn changes_that_are_held_back_do_not_make_or_lose_money() {
    let settings = "SET 'table.exec.mini-batch.enabled' = 'true'; SET 'table.exec.mini-batch.allow-latency' = '30 ms';";
    check("mini-batches", settings, 2);
}
