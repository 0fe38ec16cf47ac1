"""A Flink cluster of one JobManager and one TaskManager on this machine, reachable from this machine only. Used by
`nexmark.py`, `recover.py` and `kafka.py` with `--flink`; the processes are children, and are ended by their own ids."""

import json
import os
import select
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from flink import nexmark_source

HERE = Path(__file__).resolve().parent
REST_PORT = 18081
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 20
# How Nexmark's own configuration sets the planner up, and rows handed from operator to operator without a copy: all of
# it in Flink's favour.
PLANNER_OPTIONS = {
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "2s",
    "table.exec.mini-batch.size": "50000",
    "table.optimizer.distinct-agg.split.enabled": "true",
    "pipeline.object-reuse": "true",
}
# What takes these back to what Flink does when nobody sets anything, and what has state in RocksDB.
DEFAULTS = {"table.exec.mini-batch.enabled": "false", "table.optimizer.distinct-agg.split.enabled": "false", "pipeline.object-reuse": "false"}
ROCKSDB = {"state.backend.type": "rocksdb"}


def configuration(state_directory, parallelism, heap, backend):
    return {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": "16123",
        "jobmanager.bind-host": "localhost",
        "jobmanager.memory.process.size": "1600m",
        "taskmanager.bind-host": "localhost",
        "taskmanager.host": "localhost",
        "taskmanager.numberOfTaskSlots": str(parallelism),
        "taskmanager.memory.task.heap.size": heap,
        "taskmanager.memory.managed.size": "1024m",
        "taskmanager.memory.network.min": "256m",
        "taskmanager.memory.network.max": "256m",
        "taskmanager.memory.jvm-overhead.max": "512m",
        "rest.address": "localhost",
        "rest.bind-address": "localhost",
        "rest.port": str(REST_PORT),
        "state.backend.type": backend,
        "execution.checkpointing.dir": f"file://{state_directory}",
        "execution.checkpointing.incremental": "true",
        "restart-strategy.type": "none",
        "web.submit.enable": "false",
    }


def java_options(home):
    """What the distribution's own configuration opens to Flink in the JVM."""
    for line in (home / "conf" / "config.yaml").read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("all: --add-exports"):
            return line.strip().removeprefix("all: ")
    return ""


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def session_seconds(leaders):
    """User and system time so far of all processes in the sessions of these leaders."""
    total = 0.0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(file.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[3])
            total += cpu_seconds(file.parent.name) if session in leaders else 0.0
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return total


def peak_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class FlinkError(Exception):
    """Flink cannot be started, or refuses a job."""


class Cluster:
    """Start with `with Cluster(...) as cluster`, then `cluster.run(...)` any number of times."""

    def __init__(self, directory, parallelism, heap="4096m", backend="hashmap", options=None, jars=()):
        self.directory = Path(directory)
        self.python = self.directory / "venv" / "bin" / "python"
        packages = list((self.directory / "venv" / "lib").glob("python*/site-packages/pyflink"))
        if not packages:
            raise FlinkError(f"Flink is not in {directory}: run benches/flink/setup.sh first")
        self.home, self.parallelism, self.jars = packages[0], parallelism, jars
        self.run_directory = self.directory / "run"
        self.options = configuration(self.run_directory / "checkpoints", parallelism, heap, backend) | (options or {})
        self.processes, self.runner, self.task_manager = [], None, None

    def __enter__(self):
        shutil.rmtree(self.run_directory, ignore_errors=True)
        for name in ("conf", "log", "checkpoints", "lib"):
            (self.run_directory / name).mkdir(parents=True)
        self.link_libraries()
        for file in (self.home / "conf").glob("log4j*.properties"):
            shutil.copy(file, self.run_directory / "conf")
        lines = dict(self.options, **{"env.java.opts.all": java_options(self.home)})
        text = "".join(f"{key}: {value}\n" for key, value in lines.items())
        (self.run_directory / "conf" / "config.yaml").write_text(text, encoding="utf-8")
        try:
            self.spawn("jobmanager", ["bash", str(self.home / "bin" / "jobmanager.sh"), "start-foreground"])
            self.task_manager = self.start_task_manager()
            self.wait_for_slots()
            self.runner = self.spawn("runner", [str(self.python), str(HERE / "runner.py")], talks=True)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def link_libraries(self):
        """Flink's own jars and the generator, in a directory of their own. On the class path of the cluster, and not
        sent with the job, so that what the JVM has compiled in the first run serves the others too."""
        try:
            jars = [*(self.home / "lib").glob("*.jar"), nexmark_source.jar(self.directory, self.home), *self.jars]
        except nexmark_source.BuildError as error:
            raise FlinkError(str(error)) from error
        for jar in jars:
            (self.run_directory / "lib" / jar.name).symlink_to(jar)

    def start_task_manager(self):
        """A TaskManager with as many slots as the parallelism. More than one can run."""
        return self.spawn("taskmanager", ["bash", str(self.home / "bin" / "taskmanager.sh"), "start-foreground"])

    def spawn(self, name, command, talks=False):
        java_home = Path(os.path.realpath(shutil.which("java"))).parent.parent
        environment = dict(
            os.environ, JAVA_HOME=str(java_home), FLINK_HOME=str(self.home), FLINK_CONF_DIR=str(self.run_directory / "conf"),
            FLINK_LIB_DIR=str(self.run_directory / "lib"), FLINK_LOG_DIR=str(self.run_directory / "log"),
            FLINK_PID_DIR=str(self.run_directory),
        )
        with open(self.run_directory / "log" / f"{name}.console", "ab") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1} if talks else {"stdin": subprocess.DEVNULL, "stdout": log}
            process = subprocess.Popen(command, env=environment, stderr=log, start_new_session=True, **pipes)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                # A session of its own: the group is this process and what it has started.
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self.processes = []

    def rest(self, path, method="GET"):
        request = urllib.request.Request(f"http://localhost:{REST_PORT}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or "{}")

    def wait_for_slots(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                if self.rest("/overview")["slots-available"] >= self.parallelism:
                    return
            except (urllib.error.URLError, OSError, KeyError):
                pass
            time.sleep(0.3)
        raise FlinkError(f"the Flink cluster did not come up; see {self.run_directory / 'log'}")

    def all_cpu_seconds(self):
        """CPU seconds so far of the whole cluster and of the client."""
        return session_seconds({process.pid for process in self.processes})

    def run(self, statements, settings, seconds_max):
        """Runs statements, of which the INSERTs make one job, to the end of the job. Gives wall seconds of the job, CPU
        seconds and peak bytes of the TaskManager; the JobManager and the client are not counted."""
        pid = self.task_manager.pid
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
        cpu_before = cpu_seconds(pid)
        deadline = time.monotonic() + seconds_max
        job = self.wait_for_end(self.submit(statements, settings, seconds_max), deadline, seconds_max)
        return job["duration"] / 1000.0, cpu_seconds(pid) - cpu_before, peak_bytes(pid)

    def submit(self, statements, settings, seconds_max):
        """Starts a job of all INSERTs; gives its id."""
        settings = {
            "execution.target": "remote", "rest.address": "localhost", "rest.port": str(REST_PORT),
            "parallelism.default": str(self.parallelism), "table.local-time-zone": "UTC", **PLANNER_OPTIONS, **settings,
        }
        answer = self.ask({"settings": settings, "statements": statements}, seconds_max)
        if "error" in answer:
            raise FlinkError(answer["error"])
        return answer["job"]

    def ask(self, request, seconds_max):
        try:
            self.runner.stdin.write(json.dumps(request) + "\n")
        except BrokenPipeError:
            return {"error": "the client has died"}
        if not select.select([self.runner.stdout], [], [], seconds_max)[0]:
            return {"error": f"the client took more than {seconds_max} s to plan the query"}
        return json.loads(self.runner.stdout.readline() or '{"error": "the client has died"}')

    def wait_for_end(self, job_id, deadline, seconds_max):
        while time.monotonic() < deadline:
            try:
                job = self.rest(f"/jobs/{job_id}")
                if job["state"] == "FINISHED":
                    return job
                if job["state"] in ("FAILED", "CANCELED"):
                    cause = self.rest(f"/jobs/{job_id}/exceptions").get("root-exception") or ""
                    raise FlinkError(f"the job has {job['state'].lower()}: {root_cause(cause)}")
            except (urllib.error.URLError, OSError) as error:
                if self.processes[0].poll() is not None:
                    raise FlinkError(f"the JobManager has died; see {self.run_directory / 'log'}") from error
            time.sleep(0.25)
        self.rest(f"/jobs/{job_id}?mode=cancel", "PATCH")
        raise FlinkError(f"the job took more than {seconds_max} s")


def root_cause(text):
    """The last cause of a Java stack trace, without the frames."""
    causes = [line for line in text.splitlines() if "Caused by:" in line]
    return (causes[-1] if causes else text)[:500]
