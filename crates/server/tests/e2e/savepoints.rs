//! Savepoints: taken of a running job or with its end, while the leader is killed in the middle, and another job, in
//! another cluster and at another parallelism, that goes on from them when nothing else of the first one is left.

mod golden;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::cluster::LocalCluster;
use crate::support::known;
use crate::support::{Sandbox, assert_says, text, visible_files};

const EVENTS: u64 = 900_000;
const PER_SECOND: u64 = 40_000;

/// A count by key and window, and sums that change, of the rows that a generator makes at a given rate.
pub(crate) fn sql(limited: bool) -> String {
    known::windows(EVENTS, PER_SECOND, limited, "1 min")
}

/// What one undisturbed process makes of the same rows.
pub(crate) fn undisturbed() -> BTreeMap<String, usize> {
    known::undisturbed(EVENTS, PER_SECOND)
}

/// Lines of several directories together.
pub(crate) fn together(parts: &[BTreeMap<String, usize>]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for (line, count) in parts.iter().flatten() {
        *all.entry(line.clone()).or_default() += count;
    }
    all
}

#[track_caller]
pub(crate) fn assert_same(found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) {
    assert_eq!(known::difference(expected, found), (0, 0), "of {} lines", expected.len());
}

/// The epoch in the name of a visible file, `part-JOB-OPERATOR-gGENERATION-SUBTASK-EPOCH-NUMBER.json`.
fn epoch_of(file: &Path) -> u64 {
    let name = file.file_name().unwrap().to_str().unwrap();
    name.rsplit('-').nth(1).unwrap().parse().unwrap()
}

/// Lines of the files of a sandbox up to an epoch.
fn lines_until(sandbox: &Sandbox, epoch: u64) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for file in visible_files(&sandbox.path("out")).iter().filter(|file| epoch_of(file) <= epoch) {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

/// The directory that a command has printed, and the epoch in its name, `savepoint-JOB-EPOCH-gGENERATION-ID`.
fn printed(output: &[u8]) -> (PathBuf, u64) {
    let path = PathBuf::from(text(output).trim());
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    (path, name.split('-').nth(2).unwrap().parse().unwrap())
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(process: &str) {
    assert!(Command::new("kill").args(["-KILL", process]).status().unwrap().success());
}

#[test]
fn savepoint_outlives_its_leader_its_cluster_and_its_job() {
    let expected = undisturbed();
    let first = Sandbox::new(&sql(true));
    let stopped_at = first.path("leader");
    let failpoint = format!("savepoint-copying:1:{}", stopped_at.display());
    let cluster = LocalCluster::start_with(&first, 3, 3, 2, &[("MAINSTEM_FAILPOINT", &failpoint)]);
    first.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);

    // The leader dies in the middle of it.
    let mut taking = first.command(&["savepoint", "job", "--to", "running"]);
    let taking = taking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let leader = wait_for("the leader copies", || {
        std::fs::read_to_string(&stopped_at).ok().filter(|process| !process.is_empty())
    });
    kill(&leader);
    let taken = taking.wait_with_output().unwrap();
    assert!(taken.status.success(), "{}{}", text(&taken.stderr), cluster.story());
    let (running, running_epoch) = printed(&taken.stdout);
    let left: Vec<_> = std::fs::read_dir(first.path("running")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&running), "one, and nothing unfinished");
    cluster.wait_until("it goes on", |jobs| jobs.number("job", "committed") > running_epoch + 2);
    // Windows may not have closed in so few epochs.
    let is_later = |file: &PathBuf| epoch_of(file) > running_epoch;
    wait_for("rows behind its epoch", || visible_files(&first.path("out")).iter().any(is_later).then_some(()));

    let stopped = first.run_ok(&["stop", "job", "--savepoint", "stopped"]);
    let (stopped, stopped_epoch) = printed(&stopped.stdout);
    let jobs = cluster.jobs().unwrap();
    assert!(jobs.has_ended("job") && jobs.number("job", "rows_in") > 0, "{}", cluster.story());
    assert_eq!((jobs.number("job", "committed"), jobs.number("job", "complete")), (stopped_epoch, stopped_epoch));
    assert_says(&text(&first.run_ok(&["jobs"]).stdout), &["stopped", &stopped_epoch.to_string()]);
    let published = first.lines("out");
    assert_same(&published, &lines_until(&first, stopped_epoch));
    drop(cluster);
    std::fs::remove_dir_all(first.path(".mainstem-cluster")).unwrap();

    // Elsewhere, under another name, at another parallelism.
    let second = Sandbox::new(&sql(true));
    let moved = second.path("moved");
    std::fs::rename(&stopped, &moved).unwrap();
    let cluster = LocalCluster::start(&second, 1, 2, 2);
    second.run_ok(&["submit", "job.sql", "--from-savepoint", "moved", "--job-id", "other", "-p", "3", "--wait"]);
    assert_same(&together(&[published, second.lines("out")]), &expected);
    let shown = text(&second.run_ok(&["status", "other"]).stdout);
    assert_says(&shown, &["finished", "began with   savepoint", "of job 'job' at epoch"]);
    assert!(cluster.jobs().unwrap().number("other", "rows_in") > 0, "counters of a job that has ended");

    // It is known no more when that is asked for, and its name is free.
    second.run_ok(&["remove", "other"]);
    assert_says(&second.run_err(&["status", "other"]), &["there is no job 'other'"]);
    wait_for("its checkpoints go", || (!second.path(".mainstem-cluster/state/jobs/other").exists()).then_some(()));
    second.run_ok(&["submit", "job.sql", "--job-id", "other"]);
    assert_says(&second.run_err(&["remove", "other"]), &["job 'other' runs; stop or cancel it first"]);
    cluster.wait_until("it runs", |jobs| jobs.number("other", "committed") > 0);
    second.run_ok(&["cancel", "other"]);
    drop(cluster);

    // The one of the running job: what came after its epoch comes again, and only where that is wanted.
    let refused = first.run_err(&["run", "job.sql", "--from-savepoint", "running", "--job-id", "again"]);
    assert_says(&refused, &["that job 'job' has published after epoch", "--repeat-output"]);
    let third = Sandbox::new(&sql(true));
    third.run_ok(&["run", "job.sql", "--from-savepoint", running.to_str().unwrap()]);
    assert_same(&together(&[lines_until(&first, running_epoch), third.lines("out")]), &expected);
}

#[test]
fn savepoint_of_one_process_is_checked_before_it_is_used() {
    let expected = undisturbed();
    let first = Sandbox::new(&sql(true));
    let mut run = first.command(&["run", "job.sql", "-p", "2", "--savepoint-on-stop", "saved"]);
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("something is published", || (visible_files(&first.path("out")).len() > 4).then_some(()));
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let stopped = run.wait_with_output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert_says(&text(&stopped.stderr), &["job 'job' stopped", "savepoint: "]);
    std::fs::remove_dir_all(first.path(".mainstem")).unwrap();

    let second = Sandbox::new(&sql(true));
    let saved = first.path("saved");
    let savepoint = std::fs::read_dir(&saved).unwrap().next().unwrap().unwrap().path();
    let from = ["run", "job.sql", "-p", "3", "--from-savepoint", saved.to_str().unwrap()];
    // A changed byte, and a missing file.
    let state = std::fs::read_dir(savepoint.join("state")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&state).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let name = state.file_name().unwrap().to_str().unwrap();
    std::fs::write(&state, changed).unwrap();
    assert_says(&second.run_err(&from), &[name, "is damaged", "copy the savepoint anew"]);
    std::fs::remove_file(&state).unwrap();
    assert_says(&second.run_err(&from), &[name, "is missing", "copy the savepoint anew"]);
    std::fs::write(&state, whole).unwrap();
    assert_says(&second.run_err(&["run", "job.sql", "--from-savepoint", "nowhere"]), &["there is no savepoint in"]);
    // Another query.
    second.write("job.sql", sql(true).replace("SUM(price)", "MAX(price)"));
    assert_says(&second.run_err(&from), &["does not fit", "the state of another query", "does something else"]);
    second.write("job.sql", sql(true).replace("40000", "50000"));
    assert_says(&second.run_err(&from), &["option 'first-event.rate' of table 'bid' is '50000' and was '40000'"]);
    assert!(!second.path("out").exists(), "nothing has run");

    second.write("job.sql", sql(true));
    assert!(second.kill_at(&from, "published", 2), "it takes longer");
    // The same command goes on, from its own checkpoints; another one is refused.
    std::fs::rename(&saved, first.path("away")).unwrap();
    second.run_ok(&from);
    assert_same(&together(&[first.lines("out"), second.lines("out")]), &expected);
    let away = first.path("away");
    let fresh = ["run", "job.sql", "--fresh", "--from-savepoint", away.to_str().unwrap()];
    assert_says(&second.run_err(&fresh), &["that job 'job' has published after epoch", "--repeat-output"]);
}

#[test]
fn savepoint_without_a_place_is_refused_and_a_command_without_a_majority_is_not_known() {
    let sandbox = Sandbox::new(&sql(true));
    let cluster = LocalCluster::start(&sandbox, 3, 2, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", "2"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    let refused = sandbox.run_err(&["stop", "job", "--savepoint", "job.sql/below"]);
    assert_says(&refused, &["no savepoint of job 'job' was taken", "cannot create the directory", "job.sql/below"]);
    let before = cluster.jobs().unwrap().number("job", "committed");
    let jobs = cluster.wait_until("it goes on", |jobs| jobs.number("job", "committed") > before);
    assert!(!jobs.has_ended("job"), "{}", cluster.story());
    assert_says(&text(&sandbox.run_ok(&["status", "job"]).stdout), &["not taken    cannot take the savepoint"]);

    // Once the leader has noticed that it is alone nobody does it, which is said instead.
    let unknown = (0..5).find_map(|_| {
        let jobs = cluster.wait_until("somebody leads", |jobs| jobs.leader().is_some());
        let (leader, address) = (cluster.leader()?, jobs.leader()?);
        let others: Vec<String> = cluster.nodes("coordinator").into_iter().filter(|name| *name != leader).collect();
        others.iter().for_each(|other| cluster.signal(other, "STOP"));
        let failed = sandbox.run_err(&["cancel", "job", "--coordinators", &address]);
        others.iter().for_each(|other| cluster.signal(other, "CONT"));
        (!failed.contains("no coordinator of")).then_some(failed)
    });
    let unknown = unknown.expect("the leader is asked before it has noticed that it is alone");
    assert_says(&unknown, &["unknown whether this was done", "mainstem jobs"]);
}
