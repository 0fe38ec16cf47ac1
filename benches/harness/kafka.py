"""A Kafka broker of one process on loopback, and Kafka's own client to look at it."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from harness.queries import BENCHES

ROOT = BENCHES.parent
START_SECONDS_MAX = 60
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
log.retention.ms=-1
transaction.max.timeout.ms=3600000
"""


class KafkaError(Exception):
    """The broker does not start, or refuses something."""


class Broker:
    """Started by `with`; ends with it. Its files lie in the directory."""

    def __init__(self, directory):
        self.directory = Path(directory)

    def __enter__(self):
        installed = subprocess.run([ROOT / "scripts" / "install-kafka"], capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            raise KafkaError(f"Kafka cannot be installed: {installed.stderr.strip()}")
        jars = installed.stdout.splitlines()[-1]
        self.java = ["java", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        self.port, controller = free_ports(2)
        self.directory.mkdir(parents=True)
        properties = self.directory / "server.properties"
        properties.write_text(PROPERTIES.format(port=self.port, controller=controller, logs=self.directory / "logs"), encoding="utf-8")
        self.call("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(properties))
        with open(self.directory / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([*self.java, "kafka.Kafka", str(properties)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def servers(self):
        return f"127.0.0.1:{self.port}"

    def wait(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise KafkaError("the broker does not start: " + (self.directory / "log").read_text(encoding="utf-8")[-1000:])

    def call(self, *arguments):
        done = subprocess.run([*self.java, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KafkaError(f"{' '.join(arguments)}: {done.stderr.strip()[-1000:]}")
        return done.stdout.strip()

    def probe(self, *arguments):
        """What `kafka/Probe.java` says."""
        return self.call(*self.probe_arguments(*arguments))

    def start_probe(self, *arguments):
        command = [*self.java, *self.probe_arguments(*arguments)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def probe_arguments(self, command, *arguments):
        return [str(BENCHES / "kafka" / "Probe.java"), self.servers, command, *map(str, arguments)]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
