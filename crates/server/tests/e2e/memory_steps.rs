//! What one step of a job makes, a batch or a single row, has a bound: a join of very many pairs goes on in bounded memory,
//! and a row that is too much ends its own job. The worker and its other jobs notice neither.

use crate::support::cluster::{Jobs, LocalCluster};
use crate::support::{Sandbox, assert_says};

/// What the worker may take at most: its memory, the program with what a build for tests adds to it, and the channels. The pairs
/// of one batch alone would be some gigabytes.
const RESIDENT_BYTES_MAX: u64 = 700 << 20;

fn sequence(table: &str, rows_per_second: u64, rows: u64) -> String {
    let last = rows - 1;
    format!(
        "CREATE TABLE {table} (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{rows_per_second}', \
         'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{last}');\n"
    )
}

/// Submits a job that keeps to what it has, beside which others are tried.
fn submit_good(sandbox: &Sandbox) {
    let sql = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'blackhole');
               INSERT INTO s SELECT COUNT(*) FROM g GROUP BY MOD(n, 10);";
    sandbox.write("good.sql", format!("{}{sql}", sequence("g", 10_000, 1 << 40)));
    submit(sandbox, "good.sql");
}

fn submit(sandbox: &Sandbox, file: &str) {
    sandbox.run_ok(&["submit", file, "--checkpoint-interval", "500 ms", "-p", "1"]);
}

/// The process of the only worker.
fn worker(cluster: &LocalCluster<'_>) -> u32 {
    cluster.process(&cluster.nodes("worker")[0])
}

/// The first attempt of the good job is its last, its epochs go on, and the worker is the process that it was.
fn assert_unharmed(cluster: &LocalCluster<'_>, process: u32) {
    let epoch = cluster.jobs().map_or(0, |jobs| jobs.number("good", "complete"));
    let jobs = cluster.wait_until("the good job goes on", |jobs| jobs.number("good", "complete") > epoch + 2);
    let good = jobs.job("good").unwrap();
    assert_eq!((good["status"]["restarts"].as_u64(), jobs.workers()), (Some(0), 1), "{good}");
    assert_eq!(worker(cluster), process, "{}", cluster.logs());
}

#[test]
fn a_join_of_very_many_pairs_goes_on_in_bounded_memory() {
    let sandbox = Sandbox::new("");
    let tables = sequence("a", 1_000_000, 300_000) + &sequence("b", 100_000, 1 << 40);
    let sql = "CREATE TABLE s (x BIGINT, p STRING) WITH ('connector' = 'blackhole');
               CREATE VIEW c AS SELECT n, LPAD(CAST(n AS STRING), 500, 'x') AS p FROM b;
               INSERT INTO s SELECT a.n, c.p FROM a JOIN c ON MOD(a.n, 1) = MOD(c.n, 1);";
    sandbox.write("pairs.sql", format!("{tables}{sql}"));
    let cluster = LocalCluster::start_as(&sandbox, 1, 1, 3, &[], &["--memory=256 mb"]);
    let process = worker(&cluster);
    submit_good(&sandbox);
    submit(&sandbox, "pairs.sql");
    // More pairs than fit into memory: each has some 500 bytes.
    let pairs_min = 3_000_000;
    let is_many = |jobs: &Jobs| jobs.number("pairs", "rows_out") > pairs_min || jobs.has_ended("pairs");
    cluster.wait_until("there are very many pairs", is_many);
    assert_unharmed(&cluster, process);
    let most = resident_bytes_most(process);
    assert!(most < RESIDENT_BYTES_MAX, "{most} bytes");
}

#[test]
fn a_row_that_is_too_much_ends_its_own_job() {
    let sandbox = Sandbox::new("");
    let sink = "CREATE TABLE s (x STRING) WITH ('connector' = 'blackhole'); INSERT INTO s SELECT ";
    let text = format!("{}{sink} REPEAT('x', CAST(n + 1000000000 AS INT)) FROM g;", sequence("g", 1, 1 << 40));
    sandbox.write("text.sql", text);
    let tables = sequence("a", 1, 1 << 40) + &sequence("b", 1_000_000, 450_000);
    let on = "a LEFT JOIN b ON MOD(a.n, 1) = MOD(b.n, 1)";
    sandbox.write("partners.sql", format!("{tables}{sink} CAST(b.n AS STRING) FROM {on};"));
    let cluster = LocalCluster::start_as(&sandbox, 1, 1, 3, &[], &["--memory=32 mb"]);
    let process = worker(&cluster);
    submit_good(&sandbox);
    submit(&sandbox, "text.sql");
    let end = |job: &str| {
        let jobs = cluster.wait_until("it has failed", |jobs| jobs.has_ended(job));
        jobs.job(job).unwrap()["end"].to_string()
    };
    assert_says(&end("text"), &["REPEAT would make a value of 1000000", "one value may have 67108864"]);
    submit(&sandbox, "partners.sql");
    assert_says(&end("partners"), &["a row has at least 4", "partners", "a fourth of the memory", "--memory"]);
    assert_unharmed(&cluster, process);
}

/// The most that a process has had in memory.
fn resident_bytes_most(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}
