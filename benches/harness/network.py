"""Hosts of their own for the nodes of a cluster: network namespaces on one bridge, between any two of which packets can be
made to vanish in one direction. Needs the right to make user namespaces, or root; leaves nothing behind, since the
namespaces end with the processes that hold them."""

import subprocess


class NetworkError(Exception):
    """Namespaces cannot be made."""


class Namespace:
    def __init__(self, command, in_user_namespace):
        self.in_user_namespace = in_user_namespace
        pipe = subprocess.PIPE
        self.holder = subprocess.Popen([*command, "sh", "-c", "echo ready && exec cat"], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        if self.holder.stdout.readline().strip() != "ready":
            raise NetworkError(f"{' '.join(command)}: {self.holder.communicate()[1].strip()}")

    def enter(self):
        """What stands before a command that shall run within; it becomes the program, with the same process id."""
        user = ["--user", "--preserve-credentials"] if self.in_user_namespace else []
        return ["nsenter", "--target", str(self.holder.pid), "--net", *user, "--"]

    def ip(self, *lines):
        done = subprocess.run([*self.enter(), "ip", "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NetworkError(f"{lines}: {done.stderr.strip()}")

    def end(self):
        self.holder.stdin.close()
        self.holder.wait()


class Network:
    """So many hosts, numbered from 0, all of which reach each other."""

    def __init__(self, hosts):
        self.switch, self.hosts = self.make_switch(), []
        self.switch.ip("link add bridge type bridge", "link set bridge up")
        for number in range(hosts):
            host = Namespace([*self.switch.enter(), "unshare", "--net", "--"], self.switch.in_user_namespace)
            self.hosts.append(host)
            self.switch.ip(
                f"link add port{number} type veth peer name eth0 address {hardware(number)} netns {host.holder.pid}",
                f"link set port{number} master bridge up",
            )
            host.ip(f"addr add {address(number)}/24 dev eth0", "link set lo up", "link set eth0 up")
        self.heal(range(hosts), range(hosts))

    @staticmethod
    def make_switch():
        try:
            return Namespace(["unshare", "--user", "--map-root-user", "--net", "--"], True)
        except NetworkError as by_user:
            try:
                return Namespace(["unshare", "--net", "--"], False)
            except NetworkError as by_root:
                raise NetworkError(f"no network namespaces ({by_user}; {by_root}): allow them to users, or run this as root") from by_root

    def end(self):
        for namespace in [*self.hosts, self.switch]:
            namespace.end()

    def cut_one_way(self, senders, receivers):
        """What these send to those vanishes, without a word to anybody: they are told a hardware address that nobody has."""
        self.point(senders, receivers, lambda _: "02:00:00:00:ff:ff")

    def heal(self, some, others):
        """All of these reach all of those, and the other way round."""
        self.point(some, others, hardware)
        self.point(others, some, hardware)

    def point(self, senders, receivers, hardware_of):
        for sender in senders:
            lines = [f"neigh replace {address(to)} lladdr {hardware_of(to)} dev eth0 nud permanent" for to in receivers if to != sender]
            if lines:
                self.hosts[sender].ip(*lines)


def address(host):
    return f"10.77.0.{host + 1}"


def hardware(host):
    return f"02:00:00:00:00:{host + 1:02x}"
