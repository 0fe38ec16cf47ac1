//! A process of a Kafka broker.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::support::text;

/// All nodes of a group say so.
const GROUP_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// Ways to a broker beside the one without encryption and names.
#[derive(Default)]
pub(crate) struct Access {
    /// Names of protocols, and the ports on which they are spoken.
    pub(crate) listeners: Vec<(&'static str, u16)>,
    /// Lines for the broker's properties.
    pub(crate) properties: String,
    /// Arguments for the making of its storage.
    pub(crate) users: Vec<String>,
}

/// A node that is broker and controller. Dropping it kills it.
pub(super) struct Node {
    dir: tempfile::TempDir,
    port: u16,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// Makes its storage; does not start it. `controllers`: ports by which the nodes of the group agree, by the nodes' order.
    pub(super) fn prepare(index: usize, port: u16, controllers: &[u16], access: &Access) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (copies, id) = (controllers.len(), index + 1);
        let enough = copies.max(2) - 1;
        let voters: Vec<_> = (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let of_clients = [&[("PLAINTEXT", port)], access.listeners.as_slice()].concat();
        let listening = |(name, port): &(&str, u16)| format!("{name}://127.0.0.1:{port}");
        let advertised = of_clients.iter().map(listening).collect::<Vec<_>>().join(",");
        // Records of the tests are older than a broker keeps them by default, and it looks every five minutes.
        let properties = format!(
            "log.retention.ms=-1\nprocess.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
             listeners={advertised},CONTROLLER://127.0.0.1:{}\nadvertised.listeners={advertised}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor={copies}\noffsets.topic.num.partitions=4\n\
             default.replication.factor={copies}\nmin.insync.replicas={enough}\n\
             transaction.state.log.replication.factor={copies}\ntransaction.state.log.min.isr={enough}\n\
             transaction.state.log.num.partitions=4\nauto.create.topics.enable=false\n\
             broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\n\
             transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n{}",
            voters.join(","),
            controllers[index],
            dir.path().join("logs").display(),
            access.properties
        );
        std::fs::write(dir.path().join("server.properties"), properties).unwrap();
        let mut format = java(dir.path());
        format
            .args(["kafka.tools.StorageTool", "format", "-t", GROUP_ID, "-c", "server.properties"])
            .args(&access.users);
        let formatted = format.output().expect("java runs");
        assert!(formatted.status.success(), "no room for a broker: {}", text(&formatted.stderr));
        Node { dir, port, process: Mutex::new(None) }
    }

    /// Starts the process, which must not run.
    pub(super) fn spawn(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = java(self.dir.path());
        command.args(["kafka.Kafka", "server.properties"]).stdout(log.try_clone().unwrap()).stderr(log);
        command.stdin(Stdio::null());
        *self.process.lock().unwrap() = Some(spawn(command));
    }

    /// Waits until it takes connections.
    pub(super) fn wait(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            assert!(!ended && begun.elapsed() < PATIENCE, "the broker does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills the process with SIGKILL.
    pub(super) fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Java with the broker's jars, which dies with the test.
fn java(directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(jars().join("*")).current_dir(directory);
    command
}

/// Starts a process on a thread that never ends: the death of the thread that has started a process counts as that of the parent.
pub(in crate::support) fn spawn(mut command: Command) -> Child {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap().expect("java runs")
}

/// Where the broker's jars are, fetched if they are not.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-kafka");
        let output = Command::new(script).output().expect("scripts/install-kafka runs");
        assert!(output.status.success(), "Kafka cannot be installed: {}", text(&output.stderr));
        PathBuf::from(text(&output.stdout).lines().last().expect("the directory of the jars"))
    })
}
