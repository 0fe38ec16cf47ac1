//! A cluster whose nodes have a host each, between which the network can be cut.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::cluster::{Jobs, story};
use super::known::Forward;
use super::network::Network;
use super::{Sandbox, output_of};

/// Where its logs and state lie, as with `mainstem cluster`.
const DIRECTORY: &str = ".mainstem-cluster";
/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at the jobs.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Coordinators on the first hosts, workers on the next ones, and a host for commands, which is cut off from nobody.
pub(crate) struct HostedCluster<'a> {
    sandbox: &'a Sandbox,
    pub(crate) network: Network,
    nodes: Vec<Child>,
    coordinators: usize,
    workers: usize,
    forward: Forward,
}

impl HostedCluster<'_> {
    /// Starts a cluster, and waits until it has a leader and all workers.
    pub(crate) fn start(sandbox: &Sandbox, coordinators: usize, workers: usize, slots: usize) -> HostedCluster<'_> {
        std::fs::create_dir(sandbox.path(DIRECTORY)).unwrap();
        let state = sandbox.path(DIRECTORY).join("state");
        let network = Network::new(coordinators + workers + 1);
        let forward = Forward::new(&state);
        let mut cluster = HostedCluster { sandbox, network, nodes: Vec::new(), coordinators, workers, forward };
        let members: Vec<String> =
            (0..coordinators).map(|host| format!("{}={}", host + 1, coordinator(host))).collect();
        for host in 0..coordinators {
            let (id, name) = (format!("--id={}", host + 1), format!("coordinator-{}", host + 1));
            let data = format!("--data-dir={}", sandbox.path(DIRECTORY).join(&name).display());
            let (members, state) =
                (format!("--members={}", members.join(",")), format!("--state-dir={}", state.display()));
            cluster.spawn(host, &name, &["coordinator", &id, &members, &data, &state]);
        }
        for host in cluster.worker_hosts() {
            let name = cluster.worker(host);
            let (listen, slots) = (format!("--listen={}:7072", Network::address(host)), format!("--slots={slots}"));
            let copies = format!("--copies-dir={}", sandbox.path(DIRECTORY).join(&name).display());
            cluster.spawn(host, &name, &["worker", &format!("--name={name}"), &listen, &slots, &copies]);
        }
        cluster.until("a leader and workers", PATIENCE, |jobs| jobs.leads() && jobs.workers() == workers);
        cluster
    }

    fn spawn(&mut self, host: usize, name: &str, arguments: &[&str]) {
        let path: PathBuf = self.sandbox.path(DIRECTORY).join(format!("{name}.log"));
        let log = std::fs::File::create(path).unwrap();
        let mut command = self.command(host, arguments);
        command.arg("--with-parent").env("MAINSTEM_LOG", "info,openraft=warn");
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes.push(command.spawn().unwrap());
    }

    /// The binary on a host, where it knows all coordinators.
    fn command(&self, host: usize, arguments: &[&str]) -> Command {
        let mut command = self.network.on(host);
        let coordinators: Vec<String> = (0..self.coordinators).map(coordinator).collect();
        command.arg(env!("CARGO_BIN_EXE_mainstem")).args(arguments).current_dir(self.sandbox.dir.path());
        command.env("MAINSTEM_COORDINATORS", coordinators.join(",")).stdin(Stdio::null());
        command
    }

    /// Runs a command on the host of its own.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        output_of(self.command(self.coordinators + self.workers, arguments))
    }

    /// Runs a command that knows only the coordinator on this host.
    pub(crate) fn run_at(&self, host: usize, arguments: &[&str]) -> Output {
        let only = format!("--coordinators={}", coordinator(host));
        self.run(&[arguments, &[&only]].concat())
    }

    /// Starts a command that knows only the coordinator on this host.
    pub(crate) fn start_at(&self, host: usize, arguments: &[&str]) -> Child {
        let only = format!("--coordinators={}", coordinator(host));
        let mut command = self.command(self.coordinators + self.workers, &[arguments, &[&only]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Hosts of the coordinators.
    pub(crate) fn coordinator_hosts(&self) -> Vec<usize> {
        (0..self.coordinators).collect()
    }

    /// Hosts of the workers.
    pub(crate) fn worker_hosts(&self) -> Vec<usize> {
        (self.coordinators..self.coordinators + self.workers).collect()
    }

    /// Every other node's host.
    pub(crate) fn all_but(&self, some: &[usize]) -> Vec<usize> {
        (0..self.coordinators + self.workers).filter(|host| !some.contains(host)).collect()
    }

    /// The name of the worker on a host.
    pub(crate) fn worker(&self, host: usize) -> String {
        format!("worker-{}", host - self.coordinators + 1)
    }

    /// The host of the coordinator that leads.
    pub(crate) fn leader(&mut self) -> usize {
        let jobs = self.until("a leader", PATIENCE, Jobs::leads);
        let leader = jobs.leader().unwrap();
        (0..self.coordinators).find(|host| coordinator(*host) == leader).unwrap()
    }

    /// Waits until another coordinator leads than the one on this host, which must not think any more that it does.
    #[track_caller]
    pub(crate) fn another_leads(&mut self, than: usize, within: Duration) {
        let before = coordinator(than);
        self.until("another one leads", within, |jobs| {
            jobs.leads() && jobs.leader().is_some_and(|leader| leader != before)
        });
        assert!(!self.jobs_at(than).leads(), "two lead\n{}", self.story());
    }

    /// Hosts of the workers on which jobs have slots.
    pub(crate) fn used_hosts(&mut self) -> Vec<usize> {
        let jobs = self.until("a leader", PATIENCE, Jobs::leads);
        let used = jobs.used_workers();
        self.worker_hosts()
            .into_iter()
            .filter(|host| used.iter().any(|id| id.starts_with(&self.worker(*host))))
            .collect()
    }

    /// What the cluster says of its jobs, which has been checked against what it said before.
    pub(crate) fn jobs(&mut self) -> Option<Jobs> {
        let output = self.run(&["jobs", "--json"]);
        let jobs = output.status.success().then(|| Jobs::parse(&output.stdout));
        self.forward.look(jobs.as_ref());
        jobs
    }

    /// What one coordinator says.
    pub(crate) fn jobs_at(&self, host: usize) -> Jobs {
        let output = self.run_at(host, &["jobs", "--json"]);
        assert!(output.status.success(), "{}", super::text(&output.stderr));
        Jobs::parse(&output.stdout)
    }

    /// Waits until the jobs are as they should be, at most so long.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Jobs) -> bool) -> Jobs {
        let begun = Instant::now();
        loop {
            if let Some(jobs) = self.jobs().filter(|jobs| holds(jobs)) {
                return jobs;
            }
            assert!(begun.elapsed() < within, "{what}: not within {within:?}\n{}", self.story());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until so many more epochs are published than are now.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, epochs: u64, within: Duration) {
        let wanted = self.forward.published + epochs;
        let holds = |jobs: &Jobs| jobs.has_ended("job") || jobs.leads() && jobs.number("job", "committed") >= wanted;
        self.until(&format!("epoch {wanted} is published"), within, holds);
    }

    /// Looks on for a while.
    pub(crate) fn pass(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.jobs();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Attempts and published epochs so far, and how many checkpoints were compared with one before.
    pub(crate) fn progress(&self) -> (u64, u64, u64) {
        (self.forward.attempt, self.forward.published, self.forward.compared)
    }

    /// The end of each node's log.
    pub(crate) fn story(&self) -> String {
        let jobs = self.run(&["jobs", "--json"]);
        super::text(&jobs.stdout) + &story(self.sandbox)
    }
}

fn coordinator(host: usize) -> String {
    format!("{}:7071", Network::address(host))
}

impl Drop for HostedCluster<'_> {
    /// The end of its stdin ends a node.
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| drop(node.stdin.take()));
        for node in &mut self.nodes {
            let begun = Instant::now();
            while node.try_wait().unwrap().is_none() {
                if begun.elapsed() > Duration::from_secs(5) {
                    // Its test has failed already, or will where this matters.
                    let _ = node.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
