//! A cluster is changed while its job runs: workers are drained, coordinators added and removed, nodes configured by a
//! file.

use std::process::{Child, Command, Stdio};

use super::*;
use crate::support::cluster::Jobs;
use crate::support::ports::free_port;

const EVENTS: u64 = 15 * PER_SECOND;
const PER_SECOND: u64 = 60_000;

/// A job that runs for some seconds, on a cluster.
fn running_job(sandbox: &Sandbox, coordinators: usize, parallelism: u32) -> LocalCluster<'_> {
    let cluster = LocalCluster::start(sandbox, coordinators, 3, 2);
    sandbox.run_ok(&["submit", "job.sql", "-p", &parallelism.to_string()]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    cluster
}

fn assert_right(sandbox: &Sandbox, cluster: &LocalCluster<'_>) {
    cluster.wait_until("it has finished", |jobs| jobs.has_ended("job"));
    assert_says(&text(&sandbox.run_ok(&["status", "job"]).stdout), &["state        finished"]);
    assert!(
        sandbox.lines("out") == undisturbed(EVENTS, PER_SECOND),
        "not the rows of one process\n{}",
        cluster.story()
    );
}

#[test]
fn cluster_workers_are_drained() {
    let sandbox = Sandbox::new(&windows(EVENTS, PER_SECOND, true, "none"));
    let cluster = running_job(&sandbox, 1, 4);
    let drained = sandbox.run_ok(&["drain", "worker-1"]);
    assert_says(&text(&drained.stderr), &["worker 'worker-1' is drained: it runs nothing and can be stopped"]);
    let shown = text(&sandbox.run_ok(&["jobs"]).stdout);
    let line = shown.lines().find(|line| line.starts_with("worker-1@")).unwrap();
    assert!(line.ends_with(" 0  draining"), "{shown}");
    assert_says(&text(&sandbox.run_ok(&["audit"]).stdout), &[" worker-drained worker=worker-1@"]);
    let moved = cluster.jobs().unwrap();
    assert_eq!(moved.number("job", "parallelism"), 4);
    assert_eq!(moved.job("job").unwrap()["status"]["restarts"], 0, "a move is no failure");
    // There is no room for it on the last worker: the job stays where it is, and runs.
    sandbox.run_ok(&["drain", "worker-2", "--no-wait"]);
    assert_says(&sandbox.run_err(&["drain", "worker-7", "--no-wait"]), &["there is no worker 'worker-7'"]);
    assert_right(&sandbox, &cluster);
    let generation = cluster.jobs().unwrap().number("job", "generation");
    assert_eq!(generation, moved.number("job", "generation"), "it did not move to where it has no room");
}

/// A coordinator that the test starts, and ends.
struct Coordinator(Child);

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn cluster_coordinators_are_added_and_removed() {
    let sandbox = Sandbox::new(&windows(EVENTS, PER_SECOND, true, "none"));
    let cluster = running_job(&sandbox, 3, 2);
    let layout: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sandbox.path(".mainstem-cluster/cluster.json")).unwrap()).unwrap();
    let addresses: Vec<String> = serde_json::from_value(layout["coordinators"].clone()).unwrap();
    let members: Vec<String> = (1..).zip(&addresses).map(|(id, address)| format!("\"{id}={address}\"")).collect();
    let port = free_port();
    let config = format!(
        "members = [{}]\nstate-dir = \".mainstem-cluster/state\"\n\n[coordinator]\nlisten = \"127.0.0.1:{port}\"\ndata-dir = \"fourth\"\n",
        members.join(", ")
    );
    sandbox.write("node.toml", config);
    let mut command: Command = sandbox.command(&["coordinator", "--config", "node.toml"]);
    let fourth = command.env("MAINSTEM_ID", "4").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let fourth = Coordinator(fourth.unwrap());
    let added = sandbox.run_ok(&["add-member", &format!("4=127.0.0.1:{port}")]);
    assert_says(&text(&added.stderr), &["coordinator 4 at 127.0.0.1:", "is a member"]);
    assert_says(&sandbox.run_err(&["add-member", &format!("4=127.0.0.1:{port}")]), &["node 4 is a member already"]);
    // Of four, the three that are left are a majority; of three old ones without the leader, two would be.
    let leader = cluster.leader().unwrap();
    let id = leader.strip_prefix("coordinator-").unwrap().to_owned();
    let removed = sandbox.run_ok(&["remove-member", &id]);
    assert_says(&text(&removed.stderr), &["is no member any more"]);
    cluster.wait_until("another one leads", |jobs| {
        jobs.leader().is_some_and(|address| address != addresses[id.parse::<usize>().unwrap() - 1])
    });
    let shown = text(&sandbox.run_ok(&["members"]).stdout);
    assert_eq!(shown.matches("member").count() + shown.matches("leader").count(), 3, "{shown}");
    assert!(shown.lines().any(|line| line.trim_start().starts_with("4 ")), "{shown}");
    let decided = text(&sandbox.run_ok(&["audit"]).stdout);
    let leader_is = format!("coordinator={id}, by ");
    let fourth_is = format!("address=127.0.0.1:{port} coordinator=4, by ");
    for (what, facts) in [
        ("member-added", "coordinator=1, by "),
        ("member-add-asked", fourth_is.as_str()),
        ("member-added", fourth_is.as_str()),
        ("member-remove-asked", leader_is.as_str()),
        ("member-removed", leader_is.as_str()),
    ] {
        let is_said = |line: &str| line.contains(&format!(" {what} ")) && line.contains(facts);
        assert!(decided.lines().any(is_said), "{what} {facts} is missing in\n{decided}");
    }
    // In the end the fourth leads, which those who ask have not on their list; those removed name leaders of old.
    loop {
        let leader = cluster.wait_until("one leads", Jobs::leads).leader();
        let Some(leads) = addresses.iter().position(|address| leader.as_ref() == Some(address)) else {
            assert_eq!(leader, Some(format!("127.0.0.1:{port}")));
            break;
        };
        sandbox.run_ok(&["remove-member", &(leads + 1).to_string()]);
    }
    assert_right(&sandbox, &cluster);
    drop(fourth);
}

#[test]
fn cluster_configuration_files_are_checked() {
    let sandbox = Sandbox::new("SELECT 1;");
    sandbox.write("node.toml", "cluster = \"orders\"\n[worker]\nslotz = 4\n");
    let refused = sandbox.run_err(&["worker", "--config", "node.toml", "--coordinators", "127.0.0.1:1"]);
    assert_says(&refused, &["node.toml: line 3, column 1: there is no option 'worker.slotz'; there are: advertise, "]);
    assert_says(&sandbox.run_err(&["jobs", "--config=none.toml"]), &["cannot read the configuration file 'none.toml'"]);
    let mut command = sandbox.command(&["coordinator", "--id=9", "--members=1=127.0.0.1:1", "--data-dir=d"]);
    let output = command.env("MAINSTEM_STATE_DIR", "s").output().unwrap();
    assert!(!output.status.success());
    assert_says(&text(&output.stderr), &["--id 9 is not among the members [1]", "mainstem add-member 9=HOST:PORT"]);
}
