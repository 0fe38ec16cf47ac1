//! `mainstem cluster`: a cluster of real processes on this machine, for trying out. A process that dies is started
//! again, so that what a cluster does about it can be watched.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::cli::ClusterArgs;
use crate::config;

/// The directory of a local cluster unless the user says otherwise.
const DIRECTORY: &str = ".mainstem-cluster";
/// What is known of the cluster in it.
const FILE: &str = "cluster.json";
/// Wait before a process that has died is started again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// Processes have so long to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Ports from here on are tried; those below are known for other services.
const FIRST_PORT: u16 = 10_000;
/// The first port that is given to connections, where the system does not say it: IANA's.
const FIRST_GIVEN: u16 = 49_152;
/// After so many ports that are taken, the system may choose.
const PORT_TRIES: u16 = 100;

/// What must be the same when the cluster is started again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    /// Address of each coordinator, by its id from 1 on.
    coordinators: Vec<String>,
}

/// Addresses of the coordinators of the cluster that was started in this directory; none where there was none.
pub(super) fn coordinators(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join(DIRECTORY).join(FILE)).unwrap_or_default();
    serde_json::from_str::<Layout>(&text).map(|layout| layout.coordinators).unwrap_or_default()
}

/// The directory of the cluster that was started here; none where there was none.
pub(crate) fn started_here() -> Option<PathBuf> {
    (!coordinators(Path::new(".")).is_empty()).then(|| PathBuf::from(DIRECTORY))
}

/// Runs a cluster until it is told to end.
pub(crate) fn cluster(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let runtime = super::control_runtime()?;
    runtime.block_on(run(args))
}

#[expect(clippy::print_stderr, reason = "the command's output")]
async fn run(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let directory = super::directory(&args.dir.clone().unwrap_or_else(|| PathBuf::from(DIRECTORY)))?;
    let layout = layout(&directory, args.coordinators)?;
    let binary = std::env::current_exe().context("cannot find this program")?;
    let members: Vec<String> = (1..).zip(&layout.coordinators).map(|(id, address)| format!("{id}={address}")).collect();
    let mut nodes = JoinSet::new();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let state_dir = match &args.state_dir {
        Some(place) => super::state_dir(place)?,
        None => directory.join("state"),
    };
    let mut start = |name: String, arguments: Vec<String>, variables: Vec<(&'static str, String)>| {
        let node = Node { binary: binary.clone(), name, arguments, variables, directory: directory.clone() };
        nodes.spawn(node.keep_running(stopping.clone()));
    };
    for id in 1..=layout.coordinators.len() {
        let name = format!("coordinator-{id}");
        let mut arguments = vec![
            "coordinator".to_owned(),
            format!("--id={id}"),
            format!("--members={}", members.join(",")),
            format!("--data-dir={}", directory.join(&name).display()),
            format!("--state-dir={}", state_dir.display()),
        ];
        arguments.extend(http_port(args, id).map(|port| format!("--http={port}")));
        start(name, arguments, args.traces.variables());
    }
    for id in 1..=args.workers {
        let name = format!("worker-{id}");
        let mut arguments = vec![
            "worker".to_owned(),
            format!("--name={name}"),
            format!("--coordinators={}", layout.coordinators.join(",")),
            format!("--slots={}", args.slots),
            format!("--memory-shared-by={}", args.workers),
            format!("--copies-dir={}", directory.join(&name).display()),
        ];
        arguments.extend(args.memory.map(|bytes| format!("--memory={bytes}")));
        start(name, arguments, Vec::new());
    }
    eprintln!(
        "cluster of {} coordinators and {} workers with {} slots each",
        args.coordinators, args.workers, args.slots
    );
    if let Some(port) = args.http {
        eprintln!("  web page         http://127.0.0.1:{port}/");
    }
    eprintln!("  state and logs   {}", directory.display());
    eprintln!("  run a job        mainstem submit FILE.sql          (in this directory)");
    eprintln!("  or elsewhere     MAINSTEM_COORDINATORS={}", layout.coordinators.join(","));
    eprintln!("  Ctrl-C ends the cluster; jobs go on when it is started again");
    super::ended(args.with_parent).await;
    stop.send_replace(true);
    let mut outcome = super::done();
    while let Some(ended) = nodes.join_next().await {
        if let Err(error) = ended.context("bug: a process was not looked after").and_then(|ended| ended) {
            outcome = Err(error);
        }
    }
    outcome
}

/// The port of a coordinator for browsers; they are numbered from 1 on.
fn http_port(args: &ClusterArgs, id: usize) -> Option<u16> {
    args.http?.checked_add(u16::try_from(id).ok()?.checked_sub(1)?)
}

/// One process of the cluster.
struct Node {
    binary: PathBuf,
    name: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    directory: PathBuf,
}

impl Node {
    #[expect(clippy::print_stderr, reason = "the command's output")]
    async fn keep_running(self, mut stopping: tokio::sync::watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            let mut child = self.start()?;
            // Held as long as the child shall live; waiting for it would close it.
            let stdin = child.stdin.take();
            let id = child.id().map_or_else(|| "?".to_owned(), |id| id.to_string());
            eprintln!("  {:<16} process {id}", self.name);
            let stop = tokio::select! {
                status = child.wait() => {
                    let status = status.with_context(|| format!("cannot wait for {}", self.name))?;
                    eprintln!("{} has ended ({status}); see {}; it is started again", self.name, self.log().display());
                    false
                }
                _ = stopping.changed() => true,
            };
            drop(stdin);
            if stop {
                return end(child).await;
            }
            tokio::select! {
                () = tokio::time::sleep(RESTART_AFTER) => {}
                _ = stopping.changed() => return Ok(()),
            }
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let path = self.log();
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write '{}'", path.display()))?;
        let output = log.try_clone().context("cannot write a log")?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).arg("--with-parent");
        command.stdin(Stdio::piped()).stdout(output).stderr(log).kill_on_drop(true);
        // What holds for one process, as a port, does not for several.
        for variable in config::variables() {
            command.env_remove(variable);
        }
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        if std::env::var_os("MAINSTEM_LOG").is_none() {
            command.env("MAINSTEM_LOG", "info,openraft=warn");
        }
        command.spawn().with_context(|| format!("cannot start {}", self.name))
    }

    fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

/// Waits for a process to end, for which the end of its stdin is the sign.
async fn end(mut child: Child) -> anyhow::Result<()> {
    if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
        child.kill().await.context("cannot end a process")?;
    }
    Ok(())
}

/// What was decided when the cluster was first started, or is now: a free port for each coordinator.
fn layout(directory: &Path, coordinators: u32) -> anyhow::Result<Layout> {
    let path = directory.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let layout: Layout =
                serde_json::from_str(&text).with_context(|| format!("'{}' is damaged", path.display()))?;
            let known = layout.coordinators.len();
            if known != coordinators as usize {
                bail!(
                    "the cluster in '{}' has {known} coordinators; start it with --coordinators {known}, or another one \
                     with --dir",
                    directory.display()
                );
            }
            Ok(layout)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let address = |listener: TcpListener| Ok(listener.local_addr()?.to_string());
            // All are held until the last one is found, so that none is given twice.
            let ports = (0..coordinators).map(|_| free_port()).collect::<std::io::Result<Vec<_>>>();
            let addresses = ports.and_then(|ports| ports.into_iter().map(address).collect());
            let layout = Layout { coordinators: addresses.context("cannot find a free port")? };
            let text = serde_json::to_string_pretty(&layout).context("bug: the layout cannot be written")?;
            fs::write(&path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
            Ok(layout)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read '{}'", path.display())),
    }
}

/// Holds a port of loopback that is free, and is likely to be free whenever its coordinator is started again: one that the system
/// does not give to connections of anybody who calls out.
fn free_port() -> std::io::Result<TcpListener> {
    let first_given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given = first_given.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(FIRST_GIVEN);
    let ports = FIRST_PORT..first_given;
    let from = RandomState::new().hash_one(0_u8) as u16;
    let tries = (0..PORT_TRIES).map(|n| FIRST_PORT + from.wrapping_add(n) % ports.len() as u16);
    let mut found = tries.take(ports.len()).filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    found.next().map_or_else(|| TcpListener::bind("127.0.0.1:0"), Ok)
}
