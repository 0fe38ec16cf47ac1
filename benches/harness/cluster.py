"""`mainstem cluster` in a directory, with the process of each node."""

import json
import os
import re
import signal
import subprocess
import threading
import time

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class ClusterError(Exception):
    """The cluster does not come up, or does not do what it is asked for."""


class LocalCluster:
    """Started by `with`; ends with it."""

    def __init__(self, binary, directory, coordinators=3, workers=3, slots=2):
        self.binary, self.directory, self.processes = str(binary), directory, {}
        self.command = [self.binary, "cluster", "--with-parent", f"--coordinators={coordinators}", f"--workers={workers}", f"--slots={slots}"]
        self.workers = workers

    def __enter__(self):
        self.process = subprocess.Popen(self.command, cwd=self.directory, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            self.wait_until(lambda jobs: jobs["leader"] and len(jobs["workers"]) == self.workers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # The end of its stdin ends it, and it its nodes.
        self.process.stdin.close()
        self.process.wait()

    def listen(self):
        for line in self.process.stderr:
            if found := re.fullmatch(r"\s+(\S+)\s+process (\d+)\s*", line):
                self.processes[found[1]] = int(found[2])

    def ask(self, *command):
        return subprocess.run([self.binary, *command], cwd=self.directory, capture_output=True, text=True, check=False)

    def must(self, *command):
        answer = self.ask(*command)
        if answer.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {answer.stderr.strip()}")
        return answer

    def jobs(self):
        answer = self.ask("jobs", "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def wait_until(self, holds, seconds_max=60):
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            jobs = self.jobs()
            if jobs is not None and holds(jobs):
                return
            time.sleep(0.05)
        raise ClusterError(f"the cluster does not come up; see the logs in {self.directory}/.mainstem-cluster")

    def leader(self):
        layout = json.loads((self.directory / ".mainstem-cluster/cluster.json").read_text())
        return f"coordinator-{layout['coordinators'].index(self.jobs()['leader']) + 1}"

    def kill(self, names):
        for name in names:
            os.kill(self.processes[name], signal.SIGKILL)

    def cpu_seconds(self):
        """User and system time of its nodes so far, by name."""
        return {name: cpu_seconds(process) for name, process in self.processes.items()}


def cpu_seconds(process):
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
