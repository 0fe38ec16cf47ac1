//! `mainstem state`: what it tells of checkpoints and savepoints against rows that are known, in directories and in an object
//! store, and that a changed byte is found wherever it is. Nothing that it looks at changes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::s3::S3;
use crate::support::{Sandbox, assert_says, message_of_failure, text};

/// Counts by key and keeps every row of one side of a join: keys 0 to 9, of which key 7 has most rows.
const SQL: &str = "SET 'execution.checkpointing.interval' = '100 ms';
CREATE TABLE events (id BIGINT, k BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
CREATE TABLE names (k BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'names', 'format' = 'json');
CREATE TABLE counts (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED)
WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'upsert-json');
CREATE TABLE named (id BIGINT, name STRING) WITH ('connector' = 'filesystem', 'path' = 'out/named', 'format' = 'json');
INSERT INTO counts SELECT k, COUNT(*) FROM events GROUP BY k;
INSERT INTO named SELECT e.id, n.name FROM events e JOIN names n ON e.k = n.k;";

/// 300 events: ids 0 to 299, of which each whose id is below 100 has the key 7, and the others id % 10.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(SQL);
    let key = |id: i64| if id < 100 { 7 } else { id % 10 };
    let events: String = (0..300).map(|id| format!("{{\"id\":{id},\"k\":{}}}\n", key(id))).collect();
    sandbox.write("in/a.json", events);
    let names: String = (0..10).map(|k| format!("{{\"k\":{k},\"name\":\"name {k}\"}}\n")).collect();
    sandbox.write("names/a.json", names);
    sandbox
}

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let arguments = [&["state"], arguments, &["--json"]].concat();
    serde_json::from_slice(&sandbox.run_ok(&arguments).stdout).unwrap()
}

/// Every file below a directory with its bytes.
fn contents(directory: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => contents(&entry.path(), found),
            false => {
                found.insert(entry.path().display().to_string(), std::fs::read(entry.path()).unwrap());
            }
        }
    }
}

fn all_of(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    contents(directory, &mut found);
    found
}

/// The table of an operator whose name contains `operator`.
fn table<'a>(content: &'a Value, operator: &str, name: &str) -> &'a Value {
    let operators = content["state"].as_array().unwrap();
    let found = operators.iter().find(|found| found["name"].as_str().unwrap().contains(operator));
    let tables = found.unwrap_or_else(|| panic!("no {operator}: {content}"))["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("no {name}: {content}"))
}

#[test]
fn state_of_a_checkpoint_is_told_and_every_changed_byte_is_found() {
    let sandbox = sandbox();
    sandbox.run_ok(&["run", "job.sql", "-p", "2"]);
    let before = all_of(&sandbox.path(".mainstem"));

    let jobs = json(&sandbox, &["ls"]);
    assert_eq!((&jobs[0]["job"], jobs.as_array().unwrap().len()), (&Value::from("job"), 1), "{jobs}");
    let listed = json(&sandbox, &["ls", "job"]);
    let newest = listed.as_array().unwrap().last().unwrap();
    assert_eq!(newest["complete"], true, "{listed}");

    let content = json(&sandbox, &["inspect", "job"]);
    assert_eq!(content["epoch"], newest["epoch"]);
    let sources = content["sources"].as_array().unwrap();
    assert!(sources.iter().all(|source| source["finished"] == 1 && source["splits"] == 1), "{content}");
    let events = table(&content, "join", "left");
    assert_eq!((&events["rows"], &events["keys"]["keys"]), (&Value::from(300), &Value::from(10)), "{events}");
    let hot = &events["keys"]["hot"][0];
    assert_eq!((&hot["key"][0], &hot["rows"]), (&Value::from("7"), &Value::from(120)), "{events}");
    assert_eq!(table(&content, "join", "right")["keys"]["hot"], Value::Array(vec![]), "each name has one row");
    let groups = table(&content, "aggregate", "groups");
    assert_eq!(groups["keys"]["keys"], 10, "{groups}");
    assert!(groups["spread"]["used"].as_u64().unwrap() <= 10 && groups["spread"]["key_groups"] == 256, "{groups}");

    let shown = text(&sandbox.run_ok(&["state", "inspect", "./.mainstem/jobs/job", "--top", "1"]).stdout);
    assert_says(
        &shown,
        &["of job 'job', attempt 1", "table 'left': 300 rows", "10 keys by (k)", "keys with most rows: (7) 120\n"],
    );
    let verified = text(&sandbox.run_ok(&["state", "verify", "job"]).stdout);
    assert_says(&verified, &["of job 'job', attempt 1: ", "as written"]);
    assert_eq!(all_of(&sandbox.path(".mainstem")), before, "looking changes nothing");

    // A byte of each kind of file.
    let job = sandbox.path(".mainstem/jobs/job");
    let first = |directory: &str| {
        let mut names: Vec<_> =
            std::fs::read_dir(job.join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.pop().unwrap()
    };
    for path in [first("state"), first("manifests"), job.join("log")] {
        let sound = std::fs::read(&path).unwrap();
        let mut changed = sound.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 4;
        std::fs::write(&path, changed).unwrap();
        let output = sandbox.run(&["state", "verify", "job"]);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_says(&message_of_failure(&output), &["error: ", name]);
        if path.parent().unwrap().ends_with("manifests") {
            assert_says(&text(&sandbox.run_ok(&["why", "job"]).stdout), &["damaged      checkpoint file '", name]);
        }
        std::fs::write(&path, &sound).unwrap();
    }
    let gone = first("state");
    std::fs::remove_file(&gone).unwrap();
    assert_says(
        &sandbox.run_err(&["state", "verify", "job"]),
        &[gone.file_name().unwrap().to_str().unwrap(), "missing"],
    );
}

#[test]
fn state_of_a_savepoint_and_of_a_job_that_runs() {
    // Goes on until it is stopped.
    let sandbox = Sandbox::new(
        "SET 'execution.checkpointing.interval' = '100 ms';
         CREATE TABLE t (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '2000', 'fields.k.min' = '1', 'fields.k.max' = '50');
         CREATE TABLE o (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT k, COUNT(*) FROM t GROUP BY k;",
    );
    let mut run = sandbox.command(&["run", "job.sql", "-p", "1", "--savepoint-on-stop", "saved"]);
    let mut run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begun = std::time::Instant::now();
    // While the job holds its lock and writes.
    let keys = |content: &Value| content["state"][0]["tables"][0]["keys"]["keys"].as_u64();
    loop {
        let output = sandbox.run(&["state", "inspect", "job", "--json"]);
        let content: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() && keys(&content) == Some(50) {
            break;
        }
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        assert!(begun.elapsed().as_secs() < 60, "waited in vain: {content} {}", text(&output.stderr));
        assert!(run.try_wait().unwrap().is_none(), "it runs");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let id = run.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let stopped = run.wait_with_output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    std::fs::remove_dir_all(sandbox.path(".mainstem")).unwrap();

    let listed = json(&sandbox, &["ls", "./saved"]);
    let place = listed[0]["place"].as_str().unwrap();
    let content = json(&sandbox, &["inspect", place]);
    assert_eq!(keys(&content), Some(50), "{content}");
    assert_eq!(content["state"][0]["rows"], 50, "{content}");
    assert_says(&text(&sandbox.run_ok(&["state", "verify", "./saved"]).stdout), &["as written"]);
    let files = all_of(&sandbox.path(place).join("state"));
    let (path, bytes) = files.iter().next().unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    let name = Path::new(path).file_name().unwrap().to_str().unwrap();
    assert_says(&sandbox.run_err(&["state", "verify", "./saved"]), &[name, "damaged"]);
    assert_says(&sandbox.run_err(&["state", "inspect", "./saved"]), &[name]);
    // What is not there is not made.
    assert_says(&sandbox.run_err(&["state", "ls"]), &["there is no directory '.mainstem'"]);
    assert_says(&sandbox.run_err(&["state", "inspect", "./in"]), &["./in"]);
    assert!(!sandbox.path(".mainstem").exists());
}

#[test]
fn state_in_an_object_store_is_told_and_verified() {
    let s3 = S3::shared();
    let mut sandbox = sandbox();
    sandbox.environment = s3.environment();
    let state_dir = s3.url("state-commands");
    sandbox.run_ok(&["run", "job.sql", "--state-dir", &state_dir]);
    let keys = s3.keys("state-commands");
    let content = json(&sandbox, &["inspect", "job", "--state-dir", &state_dir]);
    assert_eq!(table(&content, "join", "left")["rows"], 300, "{content}");
    assert_eq!(json(&sandbox, &["ls", &state_dir])[0]["job"], "job");
    let (path, parameters) = state_dir.split_once('?').map_or((state_dir.as_str(), ""), |(path, rest)| (path, rest));
    let question = if parameters.is_empty() { "" } else { "?" };
    let of_job = format!("{path}/jobs/job{question}{parameters}");
    assert_says(&text(&sandbox.run_ok(&["state", "verify", &of_job]).stdout), &["as written"]);
    assert_eq!(s3.keys("state-commands"), keys, "looking changes nothing");
}
