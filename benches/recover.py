#!/usr/bin/env python3
"""Measures how long a cluster of real processes takes to publish again after a failure.

    benches/recover.py                       three coordinators, three workers; ten kills of each kind
    benches/recover.py --repetitions 3 --binary target/release/mainstem
    benches/recover.py --flink               Flink too, whose TaskManager is killed; benches/flink/setup.sh installs it

Runs a windowed count over a generator of a fixed rate with exactly-once files and checkpoints each second. For each kind of
failure (a worker, the coordinator that leads, every process at once; all by SIGKILL) it takes the time from the kill to the
next file that is published. What was complete before the kill and only published after it counts too: it is output that a
user waits for. `mainstem cluster` starts a process again two seconds after its death. Flink runs the same job, as set by
default and as tuned for quick recovery (`flink/recovery.py`). Only the standard library is used.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from flink import recovery as flink
from flink.cluster import FlinkError
from harness import sql
from harness.cluster import ClusterError, LocalCluster

SQL = """
CREATE TABLE bid (auction BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
WITH ('connector' = 'nexmark', 'table' = 'bid', 'rate.limited' = 'true', 'first-event.rate' = '{rate}',
      'next-event.rate' = '{rate}', 'events.num' = '1000000000');
CREATE TABLE counts (auction BIGINT, bids BIGINT, ended TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO counts
SELECT auction, COUNT(*), window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND))
GROUP BY auction, window_start, window_end;
"""
# Longest wait for output, in seconds.
PATIENCE = 120
PARALLELISM = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/mainstem", help="a built mainstem (default: target/release/mainstem)")
    parser.add_argument("--repetitions", type=int, default=10, help="kills of each kind (default: 10)")
    parser.add_argument("--rate", type=int, default=50_000, help="events a second (default: 50000)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of what is killed when (default: 1)")
    parser.add_argument("--flink", action="store_true", help="kill TaskManagers of Flink too")
    parser.add_argument("--directory", default=os.environ.get("MAINSTEM_BENCH", str(Path.home() / ".cache" / "mainstem-bench")), help="where Flink is (default: $MAINSTEM_BENCH or ~/.cache/mainstem-bench)")
    return parser.parse_args()


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
        (directory / "job.sql").write_text("SET 'execution.checkpointing.interval' = '1 s';\n" + SQL.format(rate=options.rate))
        report = Report(options)
        with LocalCluster(binary, directory) as cluster:
            measure(options, chance, cluster, directory, report)
    if options.flink:
        for name, variant in flink.VARIANTS.items():
            measure_flink(options, chance, name, variant, report)


class Report:
    """A table, written line by line. Each line has its ratio to the death of a worker of Mainstem, the first line."""

    def __init__(self, options):
        self.base = None
        print(f"{options.rate} events a second, {options.repetitions} kills of each kind, seconds to the next output\n")
        print("| killed | median | worst | times Mainstem's | all |\n|---|---:|---:|---:|---|", flush=True)

    def line(self, name, times):
        median = statistics.median(times)
        self.base = self.base or median
        shown = " ".join(f"{seconds:.2f}" for seconds in times)
        print(f"| {name} | {median:.2f} | {max(times):.2f} | {median / self.base:.1f} | {shown} |", flush=True)


def measure_flink(options, chance, name, variant, report):
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        out.mkdir()
        statements = sql.statements(SQL.format(rate=options.rate))
        sink = {"connector": "filesystem", "path": f"file://{out}", "format": "json", **flink.SINK}
        statements = [sql.with_options(s, sink) if sql.created(s) == "counts" else s for s in statements]
        with flink.Recovery(options.directory, variant, statements, PARALLELISM) as job:
            times = []
            for _ in range(options.repetitions):
                job.settle()
                time.sleep(chance.random())
                times.append(time_to_output(out, job.kill))
    report.line(name, times)


def measure(options, chance, cluster, directory, report):
    cluster.must("submit", "job.sql", "-p", str(PARALLELISM))

    def runs(jobs):
        of_it = [job for job in jobs["jobs"] if job["job"] == "job"]
        return len(jobs["workers"]) == 3 and of_it and (of_it[0]["status"] or {}).get("state") == "running"

    def one_worker():
        cluster.kill([chance.choice([name for name in cluster.processes if name.startswith("worker")])])

    def everything():
        cluster.kill(list(cluster.processes))

    for name, kill in [("a worker", one_worker), ("the leader", None), ("everything", everything)]:
        times = []
        for _ in range(options.repetitions):
            cluster.wait_until(runs)
            # At any moment between two checkpoints, and not while the last failure is still being dealt with.
            time.sleep(3 + chance.random())
            leader = cluster.leader()
            times.append(time_to_output(directory / "out", kill or (lambda: cluster.kill([leader]))))
        report.line(f"Mainstem: {name}", times)


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, FlinkError) as error:
        sys.exit(str(error))
