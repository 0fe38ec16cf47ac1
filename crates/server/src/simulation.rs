//! A whole cluster in one process and on one thread: three coordinators, three workers, a user, an object store and a system
//! to write to, under faults that are drawn from a seed. Time, network, disks and chance are simulated; all else is what
//! runs in production, from the planner to the sink's committer. The same seed gives the same run, to the single write on
//! a connection.
//!
//! For some time everything goes wrong that can, and whatever happens must be safe ([`checks`], [`sink`]); then nothing
//! goes wrong any more, and the jobs must finish in time with the output of a run without faults.
//!
//! `MAINSTEM_SEED=n` shows one run, `MAINSTEM_SEEDS=n` says how many there are. Each runs in a process of its own, started
//! from this test binary, because chance is taken out of a process as a whole ([`entropy`]).

mod checks;
mod entropy;
mod faults;
mod network;
mod node;
mod objects;
mod run;
mod sink;
mod trace;
mod user;
mod weather;
mod workload;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use mainstem_rt::bug;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Runs unless `MAINSTEM_SEEDS` says otherwise.
const SEEDS: u64 = 100;
/// Runs that are made twice.
const SEEDS_TWICE: u64 = 5;
/// A bug that was put back must be found within so many runs.
const SEEDS_FOR_A_BUG: u64 = 40;
/// No run takes longer by the clock of the machine; most take a second or two.
const RUN_WITHIN: Duration = Duration::from_secs(180);
/// The seed of a run that is made in this process, and the bug that is put back there.
const RUN: &str = "MAINSTEM_RUN";
const BUG: &str = "MAINSTEM_BUG";
/// Begins the line in which a process tells how its run went.
const MARK: &str = "SIMULATED ";
/// Entries of the log are acknowledged before they are safe: put back in crate `consensus`.
const FORGOTTEN_SYNCS: &str = "forgotten-syncs";

/// What a process tells of its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    hash: u64,
    took_ms: u64,
    counts: BTreeMap<String, u64>,
    violation: Option<String>,
}

/// What must have happened in some run of many, or the runs show nothing.
const MUST_HAPPEN: [&str; 19] = [
    "attempts beyond the first",
    "attempts that read local copies",
    "changes by the user",
    "coordinators replaced",
    "disks that were lost",
    "epochs published again",
    "faults of the leader",
    "jobs begun with a savepoint",
    "leaders",
    "local copies that a power cut spoilt",
    "lost answers of the sink",
    "lost answers of the store",
    "power cuts",
    "savepoints refused for output that is there",
    "savepoints taken",
    "slots taken over by who stood by",
    "unaligned epochs",
    "workers that were drained",
    "writes to a full store",
];

#[tokio::test]
async fn a_cluster_is_safe_under_faults_and_heals_afterwards() {
    if run_here() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match (number("MAINSTEM_SEED"), number("MAINSTEM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    };
    let is_single = seeds.len() == 1;
    let mut runs = JoinSet::new();
    for seed in seeds {
        runs.spawn(async move { (seed, simulate(seed, "", is_single).await) });
    }
    let (mut counts, mut broken, mut slowest) = (BTreeMap::<String, u64>::new(), Vec::new(), (0, 0));
    while let Some(run) = runs.join_next().await {
        let (seed, (report, output)) = run.expect("a run does not panic here");
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
        slowest = slowest.max((report.took_ms, seed));
        if let Some(violation) = report.violation {
            broken.push(format!("{output}\nseed {seed}: {violation}\nto see it: {}", command(seed)));
        }
    }
    println!("slowest: {} ms of simulated time with seed {}; {counts:?}", slowest.0, slowest.1);
    assert!(broken.is_empty(), "{}\n{} runs went wrong", broken.join("\n\n"), broken.len());
    for what in MUST_HAPPEN {
        assert!(is_single || counts.contains_key(what), "never happened: {what}; {counts:?}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_run() {
    let mut runs = JoinSet::new();
    for seed in 0..SEEDS_TWICE {
        runs.spawn(async move {
            let (one, other) = tokio::join!(simulate(seed, "", false), simulate(seed, "", false));
            assert_eq!(one.0, other.0, "seed {seed}, twice");
            one.0.hash
        });
    }
    let hashes: std::collections::BTreeSet<u64> = runs.join_all().await.into_iter().collect();
    assert_eq!(hashes.len() as u64, SEEDS_TWICE, "other seeds give other runs");
}

#[tokio::test]
async fn bugs_that_are_put_back_are_found() {
    let bugs = [bug::RECORDED_BY_HOPE, bug::CLEAN_UP_FIRST, bug::PUBLISHED_BY_HOPE, bug::LOSS_UNTOLD, FORGOTTEN_SYNCS];
    let mut runs = JoinSet::new();
    for bug in bugs {
        runs.spawn(async move {
            for seed in 0..SEEDS_FOR_A_BUG {
                if let Some(violation) = simulate(seed, bug, false).await.0.violation {
                    println!("{bug}: found with seed {seed}: {violation}");
                    return;
                }
            }
            panic!("'{bug}' was put back, and {SEEDS_FOR_A_BUG} runs have not found it");
        });
    }
    runs.join_all().await;
}

/// The command that makes a run again.
fn command(seed: u64) -> String {
    format!("MAINSTEM_SEED={seed} cargo test --workspace --bin mainstem a_cluster_is_safe -- --nocapture")
}

/// Makes a run in a process of its own; gives how it went and what it said.
async fn simulate(seed: u64, bug: &str, is_loud: bool) -> (Report, String) {
    static PLACES: OnceLock<Semaphore> = OnceLock::new();
    let places = PLACES.get_or_init(|| Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));
    let _place = places.acquire().await.expect("never closed");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "simulation::a_cluster_is_safe_under_faults_and_heals_afterwards"]);
    command.args(["--nocapture", "--test-threads=1"]).env(RUN, seed.to_string()).env(BUG, bug);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(RUN_WITHIN, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("seed {seed} hangs; {}", self::command(seed))).expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let (log, told) = (String::from_utf8_lossy(&output.stderr), said.split_once(MARK));
    if is_loud {
        eprint!("{log}");
    }
    let report = told.and_then(|(_, rest)| serde_json::from_str(rest.lines().next().unwrap_or_default()).ok());
    let report = report.unwrap_or_else(|| panic!("seed {seed} tells nothing: {said}\n{log}"));
    (report, log.into_owned())
}

/// Makes the run that this process was started for, if it was.
fn run_here() -> bool {
    let Ok(seed) = std::env::var(RUN) else { return false };
    let seed = seed.parse().expect("a number");
    let bug = std::env::var(BUG).unwrap_or_default();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        run::PANICKED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic.to_string());
    }));
    // On a thread of its own: a runtime cannot wait within another one.
    let simulated = std::thread::Builder::new().stack_size(16 << 20).spawn(move || run::run(seed, &bug, is_loud()));
    let outcome = simulated.expect("a thread").join().expect("the simulation itself does not panic");
    if outcome.violation.is_some() {
        outcome.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    let counts = outcome.counts.into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
    let report = Report { hash: outcome.hash, took_ms: outcome.took_ms, counts, violation: outcome.violation };
    println!("{MARK}{}", serde_json::to_string(&report).expect("it is plain"));
    true
}

/// Whether everything that happens is to be shown.
fn is_loud() -> bool {
    std::env::var("MAINSTEM_SEED").is_ok()
}
