//! A savepoint that an earlier build has taken, kept in the repository: this build must still restore it, with the state of
//! each kind of operator in it, and give what one run without it gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{assert_same, together, wait_for};
use crate::support::changelog::{ChangelogFold, files_by_epoch};
use crate::support::{Sandbox, text, visible_files};

/// Set to take the savepoint where it is missing. One that is there is never taken anew.
const WRITE: &str = "MAINSTEM_WRITE_GOLDEN";
/// Tables whose rows never change, and tables whose rows replace each other.
const APPENDED: [&str; 5] = ["windows", "sessions", "pairs", "rising", "same"];
const REPLACED: [&str; 2] = ["totals", "best"];

fn sql(limited: bool) -> String {
    let sink = |name: &str, columns: &str, format: &str| {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'path' = 'out/{name}', 'format' = '{format}');\n"
        )
    };
    let sinks = [
        sink("windows", "item BIGINT, bids BIGINT, ended TIMESTAMP(3)", "json"),
        sink("sessions", "person BIGINT, bids BIGINT, ended TIMESTAMP(3)", "json"),
        sink("pairs", "item BIGINT, low BIGINT, high BIGINT", "json"),
        sink("rising", "item BIGINT, low BIGINT, high BIGINT", "json"),
        sink("same", "price BIGINT, item BIGINT, other BIGINT", "json"),
        sink("totals", "person BIGINT, bids BIGINT, total BIGINT, PRIMARY KEY (person) NOT ENFORCED", "upsert-json"),
        sink("best", "item BIGINT, price BIGINT, place BIGINT, PRIMARY KEY (item, place) NOT ENFORCED", "upsert-json"),
    ];
    format!(
        "SET 'execution.checkpointing.interval' = '2 s';
         CREATE TABLE bid (auction BIGINT, price BIGINT, bidder BIGINT, `dateTime` TIMESTAMP(3),
             WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
         WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '900', 'rate.limited' = '{limited}',
             'first-event.rate' = '220', 'next-event.rate' = '220', 'splits' = '2');
         CREATE VIEW few AS SELECT MOD(auction, 8) AS item, MOD(bidder, 5) AS person, price, `dateTime` FROM bid;
         {}
         INSERT INTO windows SELECT item, COUNT(*), window_end
           FROM TABLE(TUMBLE(TABLE few, DESCRIPTOR(`dateTime`), INTERVAL '500' MILLISECOND))
           GROUP BY item, window_start, window_end;
         INSERT INTO sessions SELECT person, COUNT(*), window_end
           FROM TABLE(SESSION(TABLE few PARTITION BY person, DESCRIPTOR(`dateTime`), INTERVAL '30' MILLISECOND))
           GROUP BY person, window_start, window_end;
         INSERT INTO pairs SELECT a.item, a.price, b.price FROM few a, few b
           WHERE a.item = b.item AND a.person = 1 AND b.person = 2
             AND b.`dateTime` BETWEEN a.`dateTime` AND a.`dateTime` + INTERVAL '20' MILLISECOND;
         INSERT INTO rising SELECT item, low, high FROM few MATCH_RECOGNIZE (
           PARTITION BY item ORDER BY `dateTime` MEASURES A.price AS low, LAST(B.price) AS high
           ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
           PATTERN (A B{{3,}} C) DEFINE B AS B.price > A.price, C AS C.price < A.price);
         INSERT INTO same SELECT a.price, a.item, b.item FROM few a JOIN few b ON MOD(a.price, 300) = MOD(b.price, 300)
           WHERE a.person = 1 AND b.person = 4;
         INSERT INTO totals SELECT person, COUNT(*), SUM(price) FROM few WHERE item = 1 GROUP BY person;
         INSERT INTO best SELECT item, price, place FROM (
           SELECT item, price, ROW_NUMBER() OVER (PARTITION BY item ORDER BY price DESC) AS place FROM few) WHERE place <= 2;",
        sinks.concat()
    )
}

/// Where it is kept: the savepoint, and beside it what the job had published before, a file for each table.
fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/savepoint-1")
}

/// Stops a job in the middle of its input, and keeps its savepoint and what it had published.
fn take(place: &Path) {
    let sandbox = Sandbox::new(&sql(true));
    let mut run = sandbox.command(&["run", "job.sql", "-p", "1", "--savepoint-on-stop", "saved"]);
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("windows are published", || (!visible_files(&sandbox.path("out/windows")).is_empty()).then_some(()));
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let stopped = run.wait_with_output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let saved = std::fs::read_dir(sandbox.path("saved")).unwrap().next().unwrap().unwrap().path();
    for file in visible_files(&saved) {
        let kept = place.join("savepoint").join(file.strip_prefix(&saved).unwrap());
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::copy(&file, kept).unwrap();
    }
    std::fs::create_dir_all(place.join("published")).unwrap();
    for table in APPENDED.iter().chain(&REPLACED) {
        let files = files_by_epoch(&sandbox.path(&format!("out/{table}"))).into_values().flatten();
        let lines: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        std::fs::write(place.join(format!("published/{table}.json")), lines).unwrap();
    }
}

/// The rows of a table at the end: what was published before, and then the files of a job.
fn replaced(before: Option<&Path>, sandbox: &Sandbox, table: &str) -> BTreeMap<String, usize> {
    let mut fold = ChangelogFold::default();
    let files = files_by_epoch(&sandbox.path(&format!("out/{table}"))).into_values().flatten();
    for file in before.map(Path::to_owned).into_iter().chain(files) {
        fold.take_upserts(&file).unwrap();
    }
    fold.rows()
}

#[test]
fn the_savepoint_of_an_earlier_build_is_restored() {
    let place = place();
    if !place.exists() && std::env::var_os(WRITE).is_some() {
        take(&place);
    }
    assert!(place.exists(), "'{}' is missing; {WRITE}=1 takes it", place.display());
    let undisturbed = Sandbox::new(&sql(false));
    undisturbed.run_ok(&["run", "job.sql"]);

    let sandbox = Sandbox::new(&sql(true));
    let savepoint = place.join("savepoint");
    let from = ["run", "job.sql", "-p", "3", "--from-savepoint", savepoint.to_str().unwrap()];
    let output = sandbox.run(&from);
    assert!(
        output.status.success(),
        "this build does not restore what an earlier one has saved: {}\nJobs that run cannot be upgraded to it. Read the state \
         of the version before as well; where that cannot be, raise the version of the table that has changed, refuse the old \
         one by name, say so in docs/upgrade.md, and take a new savepoint in the place of this one ({WRITE}=1).",
        text(&output.stderr)
    );
    for table in APPENDED {
        let published = Sandbox::new("");
        published.write("before/part.json", std::fs::read(place.join(format!("published/{table}.json"))).unwrap());
        let (before, after) = (published.lines("before"), sandbox.lines(&format!("out/{table}")));
        assert!(!before.is_empty() && !after.is_empty(), "{table} has no rows on both sides of the savepoint");
        assert_same(&together(&[before, after]), &undisturbed.lines(&format!("out/{table}")));
    }
    for table in REPLACED {
        let before = place.join(format!("published/{table}.json"));
        let (found, expected) = (replaced(Some(&before), &sandbox, table), replaced(None, &undisturbed, table));
        assert!(!expected.is_empty());
        assert_eq!(found, expected, "{table}");
    }
}
