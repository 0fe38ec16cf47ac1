//! A cluster of real processes, whose processes can be killed, stopped and woken.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Sandbox, text};

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where failpoints are armed, see [`LocalCluster::arm`].
const FAILPOINTS: &str = "failpoints";

/// `mainstem cluster`, in a sandbox.
pub(crate) struct LocalCluster<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    /// The newest process of each node, by its name.
    processes: Arc<Mutex<BTreeMap<String, u32>>>,
}

/// What `mainstem jobs --json` says.
pub(crate) struct Jobs(serde_json::Value);

impl Jobs {
    pub(crate) fn parse(json: &[u8]) -> Jobs {
        Jobs(serde_json::from_slice(json).unwrap())
    }

    /// Whether who answers leads.
    pub(crate) fn leads(&self) -> bool {
        self.0["leads"] == true
    }

    pub(crate) fn leader(&self) -> Option<String> {
        self.0["leader"].as_str().map(str::to_owned)
    }

    pub(crate) fn workers(&self) -> usize {
        self.0["workers"].as_array().map_or(0, Vec::len)
    }

    /// Ids of the workers on which jobs have slots.
    pub(crate) fn used_workers(&self) -> Vec<String> {
        let workers = self.0["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let used = workers.iter().filter(|worker| worker["used"] != 0);
        used.map(|worker| worker["offer"]["worker"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn job(&self, id: &str) -> Option<&serde_json::Value> {
        self.0["jobs"].as_array()?.iter().find(|job| job["job"] == id)
    }

    pub(crate) fn number(&self, id: &str, field: &str) -> u64 {
        self.job(id).and_then(|job| job[field].as_u64()).unwrap_or_default()
    }

    pub(crate) fn has_ended(&self, id: &str) -> bool {
        self.leads() && self.job(id).is_some_and(|job| job["active"] == false)
    }
}

impl LocalCluster<'_> {
    /// Starts a cluster and waits until it has a leader and all workers.
    pub(crate) fn start(sandbox: &Sandbox, coordinators: usize, workers: usize, slots: usize) -> LocalCluster<'_> {
        LocalCluster::start_with(sandbox, coordinators, workers, slots, &[])
    }

    /// As [`LocalCluster::start`], with variables in the environment of all processes.
    pub(crate) fn start_with<'a>(
        sandbox: &'a Sandbox,
        coordinators: usize,
        workers: usize,
        slots: usize,
        environment: &[(&str, &str)],
    ) -> LocalCluster<'a> {
        LocalCluster::start_as(sandbox, coordinators, workers, slots, environment, &[])
    }

    /// The same, with more arguments of `mainstem cluster`.
    pub(crate) fn start_as<'a>(
        sandbox: &'a Sandbox,
        coordinators: usize,
        workers: usize,
        slots: usize,
        environment: &[(&str, &str)],
        more: &[&str],
    ) -> LocalCluster<'a> {
        let (coordinators, slots) = (format!("--coordinators={coordinators}"), format!("--slots={slots}"));
        let arguments = ["cluster", "--with-parent", &coordinators, &format!("--workers={workers}"), &slots];
        let mut command = sandbox.command(&arguments);
        command.args(more).envs(environment.iter().copied());
        command.env("MAINSTEM_FAILPOINTS", sandbox.path(FAILPOINTS));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let processes = Arc::<Mutex<BTreeMap<String, u32>>>::default();
        let (known, said) = (processes.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [name, "process", id] = words.as_slice() {
                    known.lock().unwrap().insert((*name).to_owned(), id.parse().unwrap());
                }
            }
        });
        let cluster = LocalCluster { sandbox, child, processes };
        cluster.wait_until("a leader and workers", |jobs| jobs.leader().is_some() && jobs.workers() == workers);
        cluster
    }

    /// Names of the nodes of a kind: `coordinator` or `worker`.
    pub(crate) fn nodes(&self, kind: &str) -> Vec<String> {
        let processes = self.processes.lock().unwrap();
        processes.keys().filter(|name| name.starts_with(kind)).cloned().collect()
    }

    /// The process of a node.
    pub(crate) fn process(&self, node: &str) -> u32 {
        self.processes.lock().unwrap()[node]
    }

    /// Sends a signal to a node's process.
    pub(crate) fn signal(&self, node: &str, signal: &str) {
        let id = self.processes.lock().unwrap()[node];
        // It may have died of an earlier one; then it is being started again.
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).stderr(Stdio::null()).status();
    }

    /// The process that next gets to a failpoint dies there.
    pub(crate) fn arm(&self, failpoint: &str) {
        self.sandbox.write(&format!("{FAILPOINTS}/{failpoint}"), "");
    }

    /// Whether nobody has died there yet.
    pub(crate) fn is_armed(&self, failpoint: &str) -> bool {
        self.sandbox.path(&format!("{FAILPOINTS}/{failpoint}")).exists()
    }

    /// Waits until somebody has died at a failpoint and somebody leads. False if the job ended before.
    pub(crate) fn leader_dies_at(&self, failpoint: &str) -> bool {
        self.arm(failpoint);
        self.wait_until("the leader dies", |jobs| {
            (!self.is_armed(failpoint) || jobs.has_ended("job")) && jobs.leader().is_some()
        });
        !self.is_armed(failpoint)
    }

    /// Holds up who leads for so long that others go on without it.
    pub(crate) fn leader_wakes_up_too_late(&self) {
        self.wait_until("somebody leads", |jobs| jobs.leader().is_some());
        let leader = self.leader().unwrap();
        self.signal(&leader, "STOP");
        std::thread::sleep(Duration::from_secs(4));
        self.signal(&leader, "CONT");
    }

    /// The name of the coordinator that leads.
    pub(crate) fn leader(&self) -> Option<String> {
        self.leading(&self.jobs()?).map(|(node, _)| node)
    }

    /// The coordinator that leads, and its process: another one where a node that has died was elected again.
    pub(crate) fn leading(&self, jobs: &Jobs) -> Option<(String, u32)> {
        let layout = std::fs::read_to_string(self.sandbox.path(".mainstem-cluster/cluster.json")).unwrap();
        let layout: serde_json::Value = serde_json::from_str(&layout).unwrap();
        let leader = jobs.leader()?;
        let position = layout["coordinators"].as_array()?.iter().position(|address| *address == leader)?;
        let node = format!("coordinator-{}", position + 1);
        let process = self.process(&node);
        Some((node, process))
    }

    /// What the cluster says of its jobs; none where nobody answers.
    pub(crate) fn jobs(&self) -> Option<Jobs> {
        let output = self.sandbox.run(&["jobs", "--json"]);
        output.status.success().then(|| Jobs::parse(&output.stdout))
    }

    /// Waits until the jobs are as they should be.
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Jobs) -> bool) -> Jobs {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(jobs) = self.jobs().filter(|jobs| holds(jobs)) {
                return jobs;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what}: not within {PATIENCE:?}\n{}", self.story());
    }

    /// What is known of the jobs, and the end of each node's log.
    pub(crate) fn story(&self) -> String {
        text(&self.sandbox.run(&["jobs", "--json"]).stdout) + &story(self.sandbox)
    }

    /// Everything that any node has logged.
    pub(crate) fn logs(&self) -> String {
        logs_by_node(self.sandbox).into_values().collect()
    }
}

/// The end of the log of each node of the cluster in a sandbox.
pub(crate) fn story(sandbox: &Sandbox) -> String {
    let mut story = String::new();
    for (node, log) in logs_by_node(sandbox) {
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        story += &format!("\n== {node}\n{end}\n");
    }
    story
}

fn logs_by_node(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(sandbox.path(".mainstem-cluster")).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap_or_default())).collect()
}

impl Drop for LocalCluster<'_> {
    /// The end of its stdin ends the cluster.
    fn drop(&mut self) {
        for node in self.nodes("") {
            self.signal(&node, "CONT");
        }
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl LocalCluster<'_> {
    /// Runs a command that must end well.
    pub(crate) fn command_ok(&self, arguments: &[&str]) -> String {
        text(&self.sandbox.run_ok(arguments).stdout)
    }
}
