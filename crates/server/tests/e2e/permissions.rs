//! Missing permissions, by real permission bits. They mean nothing to root with all its capabilities, so a run by root
//! goes without those that pass over them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Sandbox, assert_says, message_of_failure, output_of, text};

/// What lets root pass over permission bits.
const PASS_OVER: &str = "-dac_override,-dac_read_search";

const SQL: &str = "
CREATE TABLE t (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE s (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO s SELECT id FROM t;";

fn run_without_privilege(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let plain = sandbox.command(arguments);
    if sandbox.dir.path().metadata().unwrap().uid() != 0 {
        return output_of(plain);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--bounding-set={PASS_OVER}"), format!("--inh-caps={PASS_OVER}")]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(sandbox.dir.path());
    output_of(command)
}

fn set_mode(path: &Path, mode: u32) -> u32 {
    let mut permissions = path.metadata().unwrap().permissions();
    let before = permissions.mode();
    permissions.set_mode(mode);
    std::fs::set_permissions(path, permissions).unwrap();
    before
}

/// Runs the job while a file or directory has another mode; gives what it says when it fails.
fn refused(sandbox: &Sandbox, name: &str, mode: u32, arguments: &[&str]) -> String {
    let before = set_mode(&sandbox.path(name), mode);
    let output = run_without_privilege(sandbox, arguments);
    // First of all, so that the directory can be removed whatever the test finds.
    set_mode(&sandbox.path(name), before);
    message_of_failure(&output)
}

#[test]
fn a_missing_permission_is_named_and_once_it_is_there_the_job_runs() {
    let denied = "Permission denied";
    let cases: [(&str, u32, &[&str]); 6] = [
        ("job.sql", 0o000, &["SQL file 'job.sql'", denied]),
        ("in/a.json", 0o000, &["t: cannot open 'in/a.json'", denied, "check its permissions"]),
        ("in", 0o000, &["cannot list 'in'", denied, "check its permissions"]),
        ("out", 0o555, &["s: cannot create", "/out/.mainstem-tmp", denied, "check its permissions"]),
        ("out", 0o000, &["s: cannot create", "/out/.mainstem-tmp", denied, "check its permissions"]),
        ("state", 0o555, &["cannot create", "state/jobs", denied, "check its permissions"]),
    ];
    for (name, mode, parts) in cases {
        let sandbox = Sandbox::new(SQL);
        sandbox.write("in/a.json", "{\"id\":1}\n");
        std::fs::create_dir_all(sandbox.path("out")).unwrap();
        std::fs::create_dir_all(sandbox.path("state")).unwrap();
        let arguments = ["run", "job.sql", "--state-dir", "state"];
        let message = refused(&sandbox, name, mode, &arguments);
        assert_says(&message, parts);
        assert!(!message.contains("gave up"), "no second attempt can help: {message}");
        let again = run_without_privilege(&sandbox, &arguments);
        assert!(again.status.success(), "{name}: {}", text(&again.stderr));
        assert_eq!(sandbox.lines("out").into_iter().collect::<Vec<_>>(), [("{\"id\":1}".to_owned(), 1)]);
    }
}

#[test]
fn a_state_directory_that_becomes_read_only_stops_a_running_job_and_loses_nothing() {
    const ROWS: usize = 60_000;
    let sandbox = Sandbox::new(&format!("
CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '30000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{}');
CREATE TABLE s (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO s SELECT n FROM g;", ROWS - 1));
    let arguments = ["run", "job.sql", "--checkpoint-interval", "50 ms"];
    assert!(sandbox.kill_at(&arguments, "published", 3), "it should still run");
    let manifests = ".mainstem/jobs/job/manifests";
    let message = refused(&sandbox, manifests, 0o555, &arguments);
    assert_says(&message, &["cannot ", manifests, "Permission denied", "check its permissions"]);
    let again = run_without_privilege(&sandbox, &arguments);
    assert!(again.status.success(), "{}", text(&again.stderr));
    let rows = sandbox.lines("out");
    assert_eq!((rows.len(), rows.values().sum::<usize>()), (ROWS, ROWS));
}
