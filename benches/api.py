#!/usr/bin/env python3
"""How long the REST API takes to answer while the engine uses all cores, and with many jobs.

    benches/api.py                 one job that runs as fast as it can, in a cluster of a coordinator and a worker
    benches/api.py --many          50 small jobs of 10 subtasks each instead
    benches/api.py --run           the one job by `mainstem run`, whose port is in the process that works

Each route that the web page polls, and /metrics, is asked for --times times over one connection, with a random pause of up to --pause
milliseconds before each, so that the engine has the cores meanwhile. Median, p99 and the longest time of each route and the size of
its answer are shown. See docs/benchmarks.md. Only the standard library is used.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import api, mainstem, noise
from harness.cluster import cpu_seconds

sys.path.append(str(mainstem.ROOT / "scripts/support"))
from ports import free_port  # noqa: E402  (found by the path above)

FULL = """
CREATE TABLE made (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'datagen', 'rows-per-second' = '0', 'fields.k.min' = '0', 'fields.k.max' = '99999');
CREATE TABLE counts (k BIGINT, w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT k, window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE made, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end;
"""
SMALL = FULL.replace("'rows-per-second' = '0'", "'rows-per-second' = '10'")
# Two tasks of five subtasks each.
SMALL_PARALLELISM = 5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--many", action="store_true", help="many small jobs")
    kind.add_argument("--run", action="store_true", help="one process")
    parser.add_argument("--jobs", type=int, default=50, help="with --many (default: 50)")
    parser.add_argument("--parallelism", type=int, default=2, help="of the one job (default: 2)")
    parser.add_argument("--times", type=int, default=300, help="how often each route is asked for (default: 300)")
    parser.add_argument("--pause", type=float, default=20, help="milliseconds between two requests, at most (default: 20)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


class Processes:
    """Started by `with`; ends with it. `port` is that of the REST API."""

    def __init__(self, program, directory):
        self.program, self.directory, self.port, self.processes = program, Path(directory), free_port(), []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def start(self, *command):
        log = open(self.directory / f"log-{len(self.processes)}", "wb")
        self.processes.append(subprocess.Popen([self.program, *map(str, command)], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def cluster(self, slots):
        address = f"127.0.0.1:{free_port()}"
        self.start("coordinator", "--id", "1", "--members", f"1={address}", "--data-dir", "data", "--state-dir", self.directory / "state", "--http", self.port)
        self.start("worker", "--coordinators", address, "--slots", slots, "--copies-max", "0", "--http", free_port())

    def run(self, sql, parallelism):
        (self.directory / "job.sql").write_text(sql)
        self.start("run", "job.sql", "-p", parallelism, "--checkpoint-interval", "1 s", "--http", self.port)

    def submit(self, names, sql, parallelism, checkpoint_ms):
        asked = self.api("/api/v1/workers", lambda answer: answer["workers"], "the worker is there")
        for name in names:
            asked.post("/api/v1/jobs", {"sql": sql, "name": name, "parallelism": parallelism, "checkpoint_interval_ms": checkpoint_ms})

    def all_run(self):
        """A connection, once all jobs run."""
        runs = lambda answer: all(job["checkpoint"]["published"] and job["rows_in_per_second"] for job in answer["jobs"])
        return self.api("/api/v1/jobs", runs, "all jobs run and have taken a checkpoint")

    def api(self, path, holds, what):
        """A connection, once what it answers is as wanted."""
        deadline, last = time.monotonic() + 120, None
        while time.monotonic() < deadline:
            try:
                asked = api.Api(self.port)
                last = asked.json(path)
                if holds(last):
                    return asked
            except (OSError, RuntimeError) as error:
                last = error
            time.sleep(0.2)
        logs = "\n".join(log.read_text(errors="replace")[-1000:] for log in self.directory.glob("log-*"))
        raise SystemExit(f"not within 120 s: {what}; last answer: {str(last)[:500]}\n{logs}")

    def cpu(self):
        return sum(cpu_seconds(process.pid) for process in self.processes)


def begin_many(processes, jobs):
    """Runs so many small jobs; a connection, and their names."""
    names = [f"job-{number}" for number in range(jobs)]
    processes.cluster(jobs * SMALL_PARALLELISM)
    processes.submit(names, SMALL, SMALL_PARALLELISM, 10_000)
    return processes.all_run(), names


def begin(processes, options):
    """Runs what is to run; the connection, and the routes to ask for."""
    job = "job"
    if options.run:
        processes.run(FULL, options.parallelism)
        asked = processes.all_run()
    elif options.many:
        asked, names = begin_many(processes, options.jobs)
        job = names[-1]
    else:
        processes.cluster(options.parallelism)
        processes.submit([job], FULL, options.parallelism, 1000)
        asked = processes.all_run()
    routes = [route.format(job=job) for route in api.OF_JOB]
    return asked, [*api.OF_ALL, *routes, *(() if options.run else api.OF_CLUSTER)]


def main():
    options = arguments()
    program = mainstem.binary(options.binary)
    with tempfile.TemporaryDirectory(prefix="mainstem-api-") as directory, Processes(program, directory) as processes:
        asked, routes = begin(processes, options)
        watch, began, before = noise.Watch(processes.cpu), time.monotonic(), processes.cpu()
        found = api.measured(asked, routes, options.times, options.pause / 1000)
        passed, used = time.monotonic() - began, processes.cpu() - before
        graph = asked.json(next(route for route in routes if route.endswith("/graph")))
        jobs = len(asked.json("/api/v1/jobs")["jobs"])
        others = watch.others()
    print(api.table(found))
    all_passes = [ms for passes, _ in found.values() for ms in passes]
    print(f"\nall: median {api.quantile(all_passes, 0.5):.1f} ms, p99 {api.quantile(all_passes, 0.99):.1f} ms; {jobs} jobs, subtasks of the one that was asked for: {subtasks(graph)}")
    print(f"meanwhile ({passed:.0f} s) Mainstem used {used / passed:.2f} cores; the rest of the machine, this script too, {100 * others:.0f} % of all cores")


def subtasks(graph):
    return sum(len(operator["subtasks"]) for operator in graph["operators"])


if __name__ == "__main__":
    main()
