#!/usr/bin/env python3
"""Measures how long a cluster of real processes takes to publish again after a failure.

    benches/recover.py                       three coordinators, three workers; ten kills of each kind
    benches/recover.py --repetitions 3 --binary target/release/mainstem

Runs a windowed count over a generator of a fixed rate with exactly-once files and checkpoints each second. For each kind of
failure (a worker, the coordinator that leads, every process at once; all by SIGKILL) it takes the time from the kill to the
next file that is published. What was complete before the kill and only published after it counts too: it is output that a
user waits for. `mainstem cluster` starts a process again two seconds after its death. Only the standard library is used.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SQL = """
SET 'execution.checkpointing.interval' = '1 s';
CREATE TABLE bid (auction BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
WITH ('connector' = 'nexmark', 'table' = 'bid', 'rate.limited' = 'true', 'first-event.rate' = '{rate}',
      'next-event.rate' = '{rate}', 'splits' = '4', 'events.num' = '1000000000');
CREATE TABLE counts (auction BIGINT, bids BIGINT, ended TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO counts
SELECT auction, COUNT(*), window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND))
GROUP BY auction, window_start, window_end;
"""
# Longest wait for output, in seconds.
PATIENCE = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/mainstem", help="a built mainstem (default: target/release/mainstem)")
    parser.add_argument("--repetitions", type=int, default=10, help="kills of each kind (default: 10)")
    parser.add_argument("--rate", type=int, default=50_000, help="events a second (default: 50000)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of what is killed when (default: 1)")
    return parser.parse_args()


class Cluster:
    """`mainstem cluster` in a directory, with the process of each node."""

    def __init__(self, binary, directory):
        self.binary, self.directory, self.processes = binary, directory, {}
        command = [binary, "cluster", "--with-parent", "--coordinators=3", "--workers=3", "--slots=2"]
        self.process = subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stderr:
            if found := re.fullmatch(r"\s+(\S+)\s+process (\d+)\s*", line):
                self.processes[found[1]] = int(found[2])

    def ask(self, *command):
        return subprocess.run([self.binary, *command], cwd=self.directory, capture_output=True, text=True, check=False)

    def jobs(self):
        answer = self.ask("jobs", "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def wait_until(self, holds):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            jobs = self.jobs()
            if jobs is not None and holds(jobs):
                return
            time.sleep(0.05)
        sys.exit(f"the cluster does not come up; see the logs in {self.directory}/.mainstem-cluster")

    def leader(self):
        layout = json.loads((self.directory / ".mainstem-cluster/cluster.json").read_text())
        return f"coordinator-{layout['coordinators'].index(self.jobs()['leader']) + 1}"

    def kill(self, names):
        for name in names:
            os.kill(self.processes[name], signal.SIGKILL)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def files(directory):
    return {name for name in os.listdir(directory) if not name.startswith(".")}


def time_to_output(directory, kill):
    """Seconds from the kill to the next file that is published."""
    before = files(directory)
    begun = time.monotonic()
    kill()
    # What was being published at the instant of the kill is no recovery.
    before |= files(directory)
    while time.monotonic() < begun + PATIENCE:
        if files(directory) - before:
            return time.monotonic() - begun
        time.sleep(0.002)
    sys.exit(f"no output within {PATIENCE} s")


def main():
    options = arguments()
    chance = random.Random(options.seed)
    binary = str(Path(options.binary).resolve())
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        (directory / "job.sql").write_text(SQL.format(rate=options.rate))
        cluster = Cluster(binary, directory)
        try:
            measure(options, chance, cluster, directory)
        finally:
            cluster.end()


def measure(options, chance, cluster, directory):
    cluster.wait_until(lambda jobs: jobs["leader"] and len(jobs["workers"]) == 3)
    submitted = cluster.ask("submit", "job.sql", "-p", "4")
    if submitted.returncode != 0:
        sys.exit(submitted.stderr)

    def runs(jobs):
        of_it = [job for job in jobs["jobs"] if job["job"] == "job"]
        return len(jobs["workers"]) == 3 and of_it and (of_it[0]["status"] or {}).get("state") == "running"

    def one_worker():
        cluster.kill([chance.choice([name for name in cluster.processes if name.startswith("worker")])])

    def everything():
        cluster.kill(list(cluster.processes))

    print(f"{'killed':<12} {'median':>8} {'worst':>8}   all, in seconds")
    for name, kill in [("worker", one_worker), ("leader", None), ("everything", everything)]:
        times = []
        for _ in range(options.repetitions):
            cluster.wait_until(runs)
            # At any moment between two checkpoints, and not while the last failure is still being dealt with.
            time.sleep(3 + chance.random())
            leader = cluster.leader()
            times.append(time_to_output(directory / "out", kill or (lambda: cluster.kill([leader]))))
        shown = " ".join(f"{seconds:.2f}" for seconds in times)
        print(f"{name:<12} {statistics.median(times):>8.2f} {max(times):>8.2f}   {shown}", flush=True)


if __name__ == "__main__":
    main()
