//! A disk that is full in earnest: a file system of a few megabytes in a mount namespace of its own, which root may make
//! and, on most systems, ordinary users may too. Where nobody may, a limit on the size of files stands in for it, as it
//! does in a test of its own. Everything on the small disk must be seen from inside, so a shell runs all commands there.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::{Sandbox, assert_says, message_of_failure, output_of, text};

const ROWS: usize = 300_000;
const KEYS: usize = 50_000;

/// What stops files from growing.
#[derive(Clone, Copy)]
struct Obstacle {
    /// Before the shell.
    namespace: &'static [&'static str],
    /// Shell commands that make it and that take it away.
    raise: &'static str,
    lift: &'static str,
    /// The same for a process `$pid` that runs already.
    lift_from_outside: &'static str,
    /// What the system says then, and what the message advises.
    says: &'static str,
    advice: &'static str,
}

const LIMIT: Obstacle = Obstacle {
    namespace: &[],
    // Without the trap the signal would end the process before the call fails.
    raise: "mkdir disk; trap '' XFSZ; ulimit -S -f 40",
    lift: "ulimit -S -f unlimited",
    lift_from_outside: "prlimit --fsize=unlimited --pid $pid; ulimit -S -f unlimited",
    says: "File too large",
    advice: "raise the limit on the size of files",
};

const ROOT_DISK: Obstacle = Obstacle {
    namespace: &["unshare", "--mount"],
    raise: "mkdir disk; mount -t tmpfs -o size=24m tmpfs disk; head -c 24300K /dev/zero > disk/ballast",
    lift: "rm disk/ballast",
    lift_from_outside: "rm disk/ballast",
    says: "No space left on device",
    advice: "free some space",
};

const USER_DISK: Obstacle = Obstacle { namespace: &["unshare", "--user", "--map-root-user", "--mount"], ..ROOT_DISK };

/// The full disk that this process may make.
fn full_disk(sandbox: &Sandbox) -> Obstacle {
    let root = sandbox.dir.path().metadata().unwrap().uid() == 0;
    let disk = if root { ROOT_DISK } else { USER_DISK };
    let probe = shell(sandbox, disk, &format!("{}; {}; umount disk; rmdir disk", disk.raise, disk.lift));
    if output_of(probe).status.success() {
        return disk;
    }
    let _ = std::fs::remove_dir_all(sandbox.path("disk"));
    LIMIT
}

fn shell(sandbox: &Sandbox, obstacle: Obstacle, script: &str) -> Command {
    let words = [obstacle.namespace, &["sh", "-euc", script, "sh", env!("CARGO_BIN_EXE_mainstem")]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(sandbox.dir.path());
    command
}

/// A job whose copies of rows go to the table `s`, and whose counts go to `counts` out of a state of some size.
fn job(settings: &str, copies: &str) -> Sandbox {
    let mut sql = settings.to_owned();
    let last = ROWS - 1;
    write!(sql, "
CREATE TABLE g (n BIGINT, ts AS TO_TIMESTAMP_LTZ(n / 100, 3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'datagen', 'rows-per-second' = '300000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{last}');
CREATE VIEW v AS SELECT MOD(n, {KEYS}) AS k, ts FROM g;
CREATE TABLE s (n BIGINT) WITH ({copies});
CREATE TABLE c (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'json');
INSERT INTO s SELECT n FROM g;
INSERT INTO c SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY k, window_start, window_end;").unwrap();
    Sandbox::new(&sql)
}

const ON_THE_DISK: &str = "'connector' = 'filesystem', 'path' = 'disk/rows', 'format' = 'json'";
const NOWHERE: &str = "'connector' = 'blackhole'";

fn check_copies(sandbox: &Sandbox) {
    let rows = sandbox.lines("copy/rows");
    assert_eq!((rows.len(), rows.values().sum::<usize>()), (ROWS, ROWS));
}

fn check_counts(sandbox: &Sandbox) {
    let lines = sandbox.lines("counts");
    assert_eq!((lines.len(), lines.values().sum::<usize>()), (KEYS, KEYS));
    let each = format!("\"n\":{}}}", ROWS / KEYS);
    assert!(lines.keys().all(|line| line.ends_with(&each)), "{:?}", lines.keys().next());
}

const NO_RESTART: &str = "SET 'restart-strategy.type' = 'none';";
const RUN: &str = "\"$1\" run job.sql --checkpoint-interval '200 ms' -p 2";

/// Runs into the obstacle, looks at the message, lifts the obstacle, runs the same command again.
fn fails_and_goes_on(obstacle: Obstacle, sandbox: &Sandbox, state_dir: &str, place: &str) {
    let run = format!("{RUN} --state-dir {state_dir}");
    let (raise, lift) = (obstacle.raise, obstacle.lift);
    // The first run's status is that of the whole.
    let runs = format!("status=0; {run} || status=$?; {lift}; {run} 2> again || true; cp -r disk copy; exit $status");
    let output = output_of(shell(sandbox, obstacle, &format!("{raise}; {runs}")));
    let again = std::fs::read_to_string(sandbox.path("again")).unwrap_or_default();
    let message = message_of_failure(&output);
    let error = message.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{message}"));
    assert_says(error, &["job 'job' failed: ", "cannot write", place, obstacle.says, obstacle.advice]);
    assert!(!error.contains("gave up"), "{error}");
    assert_says(&again, &["job 'job' finished"]);
}

#[test]
fn output_on_a_full_disk_is_named_and_goes_on_once_there_is_space() {
    let sandbox = job(NO_RESTART, ON_THE_DISK);
    fails_and_goes_on(full_disk(&sandbox), &sandbox, "state", "/disk/rows/.mainstem-tmp/");
    check_copies(&sandbox);
    check_counts(&sandbox);
}

#[test]
fn state_on_a_full_disk_is_named_and_goes_on_once_there_is_space() {
    let sandbox = job(NO_RESTART, NOWHERE);
    fails_and_goes_on(full_disk(&sandbox), &sandbox, "disk/state", "/disk/state/jobs/job/");
    check_counts(&sandbox);
}

#[test]
fn a_limit_on_the_size_of_files_is_named_and_the_job_goes_on_once_it_is_lifted() {
    let sandbox = job(NO_RESTART, ON_THE_DISK);
    fails_and_goes_on(LIMIT, &sandbox, "state", "/.mainstem-tmp/");
    check_copies(&sandbox);
    check_counts(&sandbox);
}

#[test]
fn a_job_waits_for_space_and_goes_on_by_itself() {
    let sandbox = job("", ON_THE_DISK);
    let obstacle = full_disk(&sandbox);
    let (raise, lift) = (obstacle.raise, obstacle.lift_from_outside);
    let wait = "until grep -q 'attempt failed' log; do kill -0 $pid; sleep 0.05; done";
    let script = format!("{raise}; {RUN} 2> log & pid=$!; {wait}; {lift}; wait $pid; cp -r disk copy");
    let output = output_of(shell(&sandbox, obstacle, &script));
    let log = std::fs::read_to_string(sandbox.path("log")).unwrap_or_default();
    assert!(output.status.success(), "{}{log}", text(&output.stderr));
    let parts = ["attempt failed", "/.mainstem-tmp/", obstacle.says, obstacle.advice, "job 'job' finished"];
    assert_says(&log, &parts);
    check_copies(&sandbox);
    check_counts(&sandbox);
}

#[test]
fn attempts_are_counted_as_the_job_asks() {
    let settings = "SET 'restart-strategy.type' = 'fixed-delay'; SET 'restart-strategy.fixed-delay.attempts' = '2';
SET 'restart-strategy.fixed-delay.delay' = '10 ms';";
    let sandbox = job(settings, ON_THE_DISK);
    let output = output_of(shell(&sandbox, LIMIT, &format!("{}; {RUN}", LIMIT.raise)));
    assert_says(&message_of_failure(&output), &["File too large", "(gave up after 3 failures in a row)"]);

    let sandbox = job("SET 'restart-strategy.fixed-delay.attempts' = '2';", NOWHERE);
    let message = sandbox.run_err(&["run", "job.sql"]);
    assert_says(&message, &["'restart-strategy.fixed-delay.attempts' has no effect", "'restart-strategy.type'"]);
}
