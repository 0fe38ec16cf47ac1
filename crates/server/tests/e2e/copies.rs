//! Local copies of state files on real processes: survivors of a failure read their state from them, what is damaged or
//! missing comes from the store, and the output is that of a run that nobody disturbs.

mod standby;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::{Jobs, LocalCluster};
use crate::support::known::{difference, windows};
use crate::support::{Sandbox, assert_says, text};

/// A count over windows that are long enough for state to stay over many checkpoints.
fn job(limited: bool) -> String {
    windows(900_000, 50_000, limited, "1 min").replace("INTERVAL '500' MILLISECOND", "INTERVAL '6' SECOND")
}

fn undisturbed() -> BTreeMap<String, usize> {
    let sandbox = Sandbox::new(&job(false));
    sandbox.run_ok(&["run", "job.sql"]);
    sandbox.lines("out")
}

/// A cluster of one coordinator and three workers of two slots each, on which the job has state: subtasks 0 and 3 on the
/// first worker, 1 on the second, 2 on the third.
fn start(sandbox: &Sandbox) -> LocalCluster<'_> {
    let cluster = LocalCluster::start(sandbox, 1, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("epochs are published", |jobs| jobs.number("job", "committed") >= 8);
    cluster
}

/// Bytes that the attempt was restored with from copies, and from the store.
fn restored(jobs: &Jobs) -> (u64, u64) {
    (jobs.number("job", "restored_local_bytes"), jobs.number("job", "restored_store_bytes"))
}

/// Waits until an attempt later than this runs; gives its number.
fn wait_for_attempt(cluster: &LocalCluster<'_>, after: u64) -> u64 {
    let jobs = cluster.wait_until("the next attempt runs", |jobs| {
        let runs = jobs.job("job").is_some_and(|job| job["status"]["state"] == "running");
        runs && jobs.number("job", "generation") > after
    });
    jobs.number("job", "generation")
}

/// What a worker has logged of the state that it began an attempt with: bytes from copies, and from the store.
fn restored_by(sandbox: &Sandbox, worker: &str, attempt: u64) -> Option<(u64, u64)> {
    let log = std::fs::read_to_string(sandbox.path(&format!(".mainstem-cluster/{worker}.log"))).unwrap();
    let wanted = format!(" generation={attempt} ");
    let whole = &log[..log.rfind('\n')? + 1];
    let line = whole.lines().find(|line| line.contains("state restored") && line.contains(&wanted))?;
    let number = |key: &str| line.split_once(key).unwrap().1.split(' ').next().unwrap().parse().unwrap();
    Some((number("local_bytes="), number("store_bytes=")))
}

/// The same of several workers, when all of them have.
fn all_restored<const N: usize>(
    (sandbox, cluster): (&Sandbox, &LocalCluster<'_>),
    workers: [&str; N],
    attempt: u64,
) -> [(u64, u64); N] {
    cluster.wait_until("they have their state", |_| {
        workers.iter().all(|worker| restored_by(sandbox, worker, attempt).is_some())
    });
    workers.map(|worker| restored_by(sandbox, worker, attempt).unwrap())
}

/// Every copy of a worker.
fn copies(sandbox: &Sandbox, worker: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|extension| extension == "state") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&sandbox.path(&format!(".mainstem-cluster/{worker}")), &mut found);
    found
}

fn assert_ends_well(sandbox: &Sandbox, cluster: &LocalCluster<'_>, expected: &BTreeMap<String, usize>) {
    cluster.wait_until("the job has ended", |jobs| jobs.has_ended("job"));
    assert_says(&text(&sandbox.run_ok(&["status", "job"]).stdout), &["state        finished"]);
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.story());
    assert_eq!(difference(expected, &sandbox.lines("out")), (0, 0), "of {}\n{}", expected.len(), cluster.story());
}

#[test]
fn copies_are_what_survivors_of_a_killed_worker_go_on_with() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&job(true));
    let cluster = start(&sandbox);
    cluster.signal("worker-2", "KILL");
    let attempt = wait_for_attempt(&cluster, 1);
    // Nothing has moved away from the first worker; the third has taken over what the second had.
    let [first, third] = all_restored((&sandbox, &cluster), ["worker-1", "worker-3"], attempt);
    assert!(first.0 > 0 && first.1 == 0, "{first:?}\n{}", cluster.story());
    assert!(third.0 > 0 && third.1 > 0, "{third:?}\n{}", cluster.story());
    let (local, store) = (first.0 + third.0, first.1 + third.1);
    let jobs = cluster.wait_until("the status shows it", |jobs| restored(jobs) == (local, store));
    let shown = text(&sandbox.run_ok(&["status", "job"]).stdout);
    assert_says(&shown, &[&format!("restored     {local} bytes from local copies, {store} bytes from the store")]);
    // A change of parallelism leaves half of each subtask's key groups where they are.
    let published = jobs.number("job", "committed");
    cluster.wait_until("epochs are published", |jobs| jobs.number("job", "committed") >= published + 3);
    cluster.command_ok(&["rescale", "job", "-p", "2"]);
    let rescaled = wait_for_attempt(&cluster, attempt);
    let [first, third] = all_restored((&sandbox, &cluster), ["worker-1", "worker-3"], rescaled);
    assert!(first.0 > 0 && third.0 > 0, "{first:?} {third:?}\n{}", cluster.story());
    assert_ends_well(&sandbox, &cluster, &expected);
    assert!(!cluster.logs().contains("local copy of a state file cannot"), "{}", cluster.story());
}

#[test]
fn copies_that_are_damaged_are_not_used() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&job(true));
    let cluster = start(&sandbox);
    // Shorter than the silence after which a worker is given up.
    for survivor in ["worker-1", "worker-3"] {
        cluster.signal(survivor, "STOP");
    }
    let damaged = copies(&sandbox, "worker-1");
    assert!(damaged.len() > 2, "{damaged:?}");
    for (index, path) in damaged.iter().enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        match index % 3 {
            0 => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x40;
            }
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes.clear(),
        }
        std::fs::write(path, bytes).unwrap();
    }
    cluster.signal("worker-2", "KILL");
    std::thread::sleep(Duration::from_millis(100));
    for survivor in ["worker-3", "worker-1"] {
        cluster.signal(survivor, "CONT");
    }
    let attempt = wait_for_attempt(&cluster, 1);
    let [(_, store)] = all_restored((&sandbox, &cluster), ["worker-1"], attempt);
    assert!(store > 0, "{}", cluster.story());
    let log = std::fs::read_to_string(sandbox.path(".mainstem-cluster/worker-1.log")).unwrap();
    assert!(log.contains("a local copy of a state file cannot be used and is removed"), "{log}");
    assert_ends_well(&sandbox, &cluster, &expected);
}

#[test]
fn copies_outlive_their_processes() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&job(true));
    let cluster = start(&sandbox);
    for node in cluster.nodes("") {
        cluster.signal(&node, "KILL");
    }
    cluster.wait_until("state comes from copies", |jobs| restored(jobs).0 > 0);
    assert_ends_well(&sandbox, &cluster, &expected);
}

#[test]
fn copies_of_one_process_are_kept_where_it_is_told() {
    let expected = undisturbed();
    let sandbox = Sandbox::new(&job(true));
    let arguments = ["run", "job.sql", "--copies-dir", "copies"];
    assert!(sandbox.kill_at(&arguments, "published", 5));
    let mut second = sandbox.command(&arguments);
    let log = std::fs::File::create(sandbox.path("second.log")).unwrap();
    let status = second.env("MAINSTEM_LOG", "info").stderr(log).status().unwrap();
    let log = std::fs::read_to_string(sandbox.path("second.log")).unwrap();
    assert!(status.success(), "{log}");
    let line = log.lines().find(|line| line.contains("state restored")).unwrap_or_else(|| panic!("{log}"));
    assert!(!line.contains(" local_bytes=0 "), "{line}");
    assert_eq!(difference(&expected, &sandbox.lines("out")), (0, 0));
    let refused = sandbox.run_err(&["run", "job.sql", "--copies-dir", "job.sql"]);
    assert_says(&refused, &["cannot create the directory of local copies 'job.sql'"]);
}
