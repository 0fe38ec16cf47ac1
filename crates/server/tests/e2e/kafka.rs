//! Kafka at both ends, with a real broker.

mod clusters;
mod errors;
mod exactly_once;
mod faults;
mod lag;
mod preview;
mod reading;
mod secured;
mod upserts;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Sandbox;
use crate::support::kafka::Broker;

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The options that every table of a broker has.
fn with(broker: &Broker, connector: &str, topic: &str, more: &str) -> String {
    let servers = broker.servers();
    format!(
        "WITH ('connector' = '{connector}', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', {more})"
    )
}

/// A job that runs until it is killed; what it says goes to a file of the sandbox.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(sandbox: &Sandbox, arguments: &[&str]) -> Running {
        Running::spawn(sandbox, sandbox.command(arguments))
    }

    fn spawn(sandbox: &Sandbox, mut command: Command) -> Running {
        let log = std::fs::File::create(sandbox.path("stderr.log")).unwrap();
        Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until something holds; the job must not end meanwhile.
    #[track_caller]
    pub(crate) fn until(&mut self, sandbox: &Sandbox, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let log = || std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("the job ended ({status}) before {what}: {}", log());
            }
            assert!(begun.elapsed() < PATIENCE, "waited too long for: {what}: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often each text occurs.
pub(crate) fn counted<T: Ord>(texts: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    counts
}

/// The newest lag of the only table, if it is known: in all, and of each split.
pub(crate) fn newest_lag(sandbox: &Sandbox) -> Option<(u64, Vec<(String, u64)>)> {
    let log = std::fs::read_to_string(sandbox.path("stderr.log")).unwrap();
    let newest = log.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["event"] == "progress").then_some(line)
    })?;
    let lag = newest["lag"].get(0)?;
    assert_eq!((lag["table"].as_str(), lag["unit"].as_str()), (Some("t"), Some("records")), "{lag}");
    let of = |split: &serde_json::Value| (split["split"].as_str().unwrap().to_owned(), split["lag"].as_u64().unwrap());
    Some((lag["total"].as_u64().unwrap(), lag["splits"].as_array().unwrap().iter().map(of).collect()))
}
