//! Hosts of their own for the nodes of a cluster: network namespaces on one bridge, between any two of which packets can
//! be made to vanish in one direction, without a word to anybody.
//!
//! A user namespace of its own gives the right to all of that, so no root is needed, and nothing is left behind: the
//! namespaces end with the processes that hold them. A packet vanishes because its sender is told a hardware address for
//! the receiver that nobody has. That needs nothing of the kernel but bridges.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

/// A namespace, held by a process that waits for the end of its stdin.
struct Namespace {
    holder: Child,
    /// Whether it lies in a user namespace, which must be entered too.
    in_user_namespace: bool,
}

/// A network of hosts, numbered from 0.
pub(crate) struct Network {
    hosts: Vec<Namespace>,
    /// Holds the bridge.
    _switch: Namespace,
}

impl Namespace {
    /// Starts what makes a namespace and holds it. Gives what it says where it cannot.
    fn hold(mut command: Command, in_user_namespace: bool) -> Result<Namespace, String> {
        command.args(["sh", "-c", "echo ready && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() == "ready" {
            return Ok(Namespace { holder, in_user_namespace });
        }
        let output = holder.wait_with_output().unwrap();
        Err(format!("{command:?}: {}", super::text(&output.stderr).trim()))
    }

    /// A command that runs within. It becomes the program, with the same process id.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string()).arg("--net");
        if self.in_user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--");
        command
    }

    /// Runs lines of `ip` within.
    #[track_caller]
    fn ip(&self, lines: &str) {
        let mut command = self.enter();
        command.args(["ip", "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{lines}: {}", super::text(&output.stderr));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Network {
    /// So many hosts, all of which reach each other.
    pub(crate) fn new(hosts: usize) -> Network {
        let switch = switch();
        switch.ip("link add bridge type bridge\nlink set bridge up\n");
        let hosts: Vec<Namespace> = (0..hosts).map(|_| host(&switch)).collect();
        for (number, host) in hosts.iter().enumerate() {
            let (holder, hardware) = (host.holder.id(), hardware(number));
            switch.ip(&format!(
                "link add port{number} type veth peer name eth0 address {hardware} netns {holder}\n\
                 link set port{number} master bridge up\n"
            ));
            host.ip(&format!("addr add {}/24 dev eth0\nlink set lo up\nlink set eth0 up\n", address(number)));
        }
        let network = Network { hosts, _switch: switch };
        for from in 0..network.hosts.len() {
            (0..network.hosts.len()).filter(|to| *to != from).for_each(|to| network.heal_one_way(from, to));
        }
        network
    }

    /// The address of a host.
    pub(crate) fn address(host: usize) -> Ipv4Addr {
        address(host)
    }

    /// A command that is yet to be given its program, to run on a host.
    pub(crate) fn on(&self, host: usize) -> Command {
        self.hosts[host].enter()
    }

    /// What one host sends to another vanishes from here on; the other direction is left alone.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        self.point(from, to, "02:00:00:00:ff:ff");
    }

    /// What one host sends to another arrives again.
    pub(crate) fn heal_one_way(&self, from: usize, to: usize) {
        self.point(from, to, &hardware(to));
    }

    /// Cuts each host of one group off from each of the other, in both directions.
    pub(crate) fn cut(&self, some: &[usize], others: &[usize]) {
        self.each(some, others, Network::cut_one_way);
    }

    /// Takes [`Network::cut`] back.
    pub(crate) fn heal(&self, some: &[usize], others: &[usize]) {
        self.each(some, others, Network::heal_one_way);
    }

    fn each(&self, some: &[usize], others: &[usize], change: impl Fn(&Network, usize, usize)) {
        for (one, other) in some.iter().flat_map(|one| others.iter().map(move |other| (*one, *other))) {
            if one != other {
                change(self, one, other);
                change(self, other, one);
            }
        }
    }

    fn point(&self, from: usize, to: usize, hardware: &str) {
        let to = address(to);
        self.hosts[from].ip(&format!("neigh replace {to} lladdr {hardware} dev eth0 nud permanent\n"));
    }
}

/// The namespace of the bridge: with the rights of a user namespace, or those of root.
fn switch() -> Namespace {
    let unshare = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).arg("--");
        command
    };
    let as_user = Namespace::hold(unshare(&["--user", "--map-root-user", "--net"]), true);
    let either = as_user.or_else(|by_user| {
        Namespace::hold(unshare(&["--net"]), false).map_err(|by_root| format!("{by_user}; {by_root}"))
    });
    either.unwrap_or_else(|reasons| {
        panic!(
            "this test needs hosts of its own and cannot make network namespaces ({reasons}). Allow them to users \
             (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns) or run the tests as root; \
             the programs unshare and nsenter come with util-linux, ip with iproute2"
        )
    })
}

fn host(switch: &Namespace) -> Namespace {
    let mut command = switch.enter();
    command.args(["unshare", "--net", "--"]);
    Namespace::hold(command, switch.in_user_namespace).unwrap_or_else(|reason| panic!("{reason}"))
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).unwrap())
}

fn hardware(host: usize) -> String {
    format!("02:00:00:00:00:{:02x}", host + 1)
}
