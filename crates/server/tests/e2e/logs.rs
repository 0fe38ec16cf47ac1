//! What processes log: nothing alarming where nothing is wrong, fields that name what a line is about, and priorities for
//! the journal.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::http::{Answer, Receiver};
use crate::support::ports::free_port;
use crate::support::{Sandbox, assert_says, text};

#[test]
fn logs_of_a_coordinator_that_starts_again_hold_no_warning() {
    let sandbox = Sandbox::new("");
    let member = format!("1=127.0.0.1:{}", free_port());
    let arguments = ["coordinator", "--id=1", "--members", &member, "--data-dir=data", "--state-dir=state"];
    for start in ["first", "second", "third"] {
        let path = sandbox.path(start);
        let log = || std::fs::read_to_string(&path).unwrap();
        let mut command = sandbox.command(&arguments);
        command.env("MAINSTEM_LOG", "info").stderr(File::create(&path).unwrap());
        let mut coordinator = command.spawn().unwrap();
        let begun = Instant::now();
        while !log().contains("this coordinator leads") && begun.elapsed() < Duration::from_secs(180) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").arg(coordinator.id().to_string()).status().unwrap().success());
        assert!(coordinator.wait().unwrap().success(), "{}", log());
        let log = log();
        assert_says(&log, &["coordinator listens id=1", "this coordinator leads"]);
        let alarming: Vec<&str> =
            log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        assert!(alarming.is_empty(), "the {start} start: {alarming:#?}");
    }
}

#[test]
fn logs_name_job_task_attempt_and_epoch_in_fields() {
    let receiver = Receiver::start(|_, _| Answer::Refuse(422, "", "no".to_owned()));
    let sandbox = Sandbox::new("");
    // One sink sends where rows come, in a subtask; the other one sends what an epoch has.
    let warnings = ["at-least-once", "exactly-once"].map(|guarantee| {
        let sql = format!(
            "CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '0', 'number-of-rows' = '3');
             CREATE TABLE hook (id BIGINT) WITH ('connector' = 'http', 'url' = '{}', 'format' = 'json',
                 'on-rejected' = 'drop', 'sink.delivery-guarantee' = '{guarantee}');
             INSERT INTO hook SELECT id FROM numbers;",
            receiver.url()
        );
        sandbox.write(&format!("{guarantee}.sql"), sql);
        let output = sandbox.run_ok(&["run", &format!("{guarantee}.sql"), "-p", "1", "--log-format", "json"]);
        let said = text(&output.stderr);
        let line = said.lines().find(|line| line.contains("a request is dropped")).unwrap_or_else(|| panic!("{said}"));
        serde_json::from_str::<Value>(line).unwrap()
    });
    for warning in &warnings {
        assert_eq!(warning["level"], "WARN");
        assert_eq!(warning["fields"]["table"], "hook");
    }
    let span = |warning: &Value, name: &str| {
        let spans = warning["spans"].as_array().unwrap();
        spans.iter().find(|span| span["name"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {warning}"))
    };
    let subtask = span(&warnings[0], "subtask");
    assert_eq!((&subtask["job"], &subtask["subtask"]), (&"at-least-once".into(), &0.into()));
    assert_eq!((&subtask["task"], &subtask["generation"]), (&"source numbers".into(), &1.into()));
    assert_eq!(span(&warnings[1], "job")["job"], "exactly-once");
    assert_eq!(span(&warnings[1], "publication")["epoch"], 1);
}

#[test]
fn logs_have_priorities_where_the_journal_reads_them() {
    let sandbox = Sandbox::new("SELECT nothing;");
    let said_to = |name: &str, stream: &File| {
        let stream = stream.metadata().unwrap();
        let mut command = sandbox.command(&["run", "job.sql", "--http", "0"]);
        command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino())).env("MAINSTEM_LOG", "info");
        let log = File::options().append(true).open(sandbox.path(name)).unwrap();
        assert!(!command.stdout(Stdio::null()).stderr(log).status().unwrap().success());
        std::fs::read_to_string(sandbox.path(name)).unwrap()
    };
    let journal = File::create(sandbox.path("journal")).unwrap();
    let said = said_to("journal", &journal);
    assert!(said.starts_with("<3>error: ") && said.lines().all(|line| line.starts_with("<3>")), "{said}");
    // The variable of a parent whose stderr is another one.
    File::create(sandbox.path("other")).unwrap();
    let said = said_to("other", &journal);
    assert!(said.starts_with("error: "), "{said}");
}
