#!/usr/bin/env python3
"""State of very many keys: memory a key while it changes and is checkpointed, and how long a restart takes to read it back.

    benches/state.py                             50 M keys, 500,000 updates a second, a checkpoint each second
    benches/state.py --keys 10000000
    benches/state.py --binary A --binary B       two builds, one after the other

COUNT and SUM by a BIGINT key: each key is filled once, in order, and random ones are changed all the time. After --seconds the process
is killed by SIGKILL and started again; the restart ends with the first checkpoint after it. Memory is what is resident of the whole process,
median and peak of the last third of the time; "a key" is the median divided by the keys. Only the standard library is used.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import mainstem
from harness.cluster import cpu_seconds

RESTART_MAX = 120
JOB = """
SET 'execution.checkpointing.interval' = '1 s';
CREATE TABLE fill (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '0', 'fields.k.kind' = 'sequence',
    'fields.k.start' = '0', 'fields.k.end' = '{last}', 'fields.v.min' = '0', 'fields.v.max' = '1000');
CREATE TABLE updates (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{updates}',
    'fields.k.min' = '0', 'fields.k.max' = '{last}', 'fields.v.min' = '0', 'fields.v.max' = '1000');
CREATE TABLE results (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'blackhole');
INSERT INTO results SELECT k, COUNT(*), SUM(v) FROM (SELECT * FROM fill UNION ALL SELECT * FROM updates) GROUP BY k;
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=50_000_000, help="(default: 50000000)")
    parser.add_argument("--updates", type=int, default=500_000, help="changes a second (default: 500000)")
    parser.add_argument("--seconds", type=float, default=60, help="until the process is killed (default: 60)")
    parser.add_argument("--parallelism", type=int, default=2, help="(default: 2)")
    parser.add_argument("--binary", action="append", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


def resident(process):
    """Megabytes in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1]) / 1024


def newest_checkpoint(directory):
    return max((path.stat().st_mtime for path in directory.glob(".mainstem/jobs/*/manifests/*.manifest")), default=0)


def start(program, directory, parallelism):
    command = [program, "run", "job.sql", "--parallelism", str(parallelism)]
    with (directory / "log").open("a") as log:
        return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def alive(process, directory):
    if process.poll() is not None:
        sys.exit(f"the job has ended with status {process.returncode}:\n{(directory / 'log').read_text()[-2000:]}")


def measure(program, options):
    with tempfile.TemporaryDirectory(prefix="mainstem-bench-") as name:
        directory = Path(name)
        (directory / "job.sql").write_text(JOB.format(last=options.keys - 1, updates=options.updates))
        process, begun, seen = start(program, directory, options.parallelism), time.monotonic(), []
        try:
            while (passed := time.monotonic() - begun) < options.seconds:
                time.sleep(0.5)
                alive(process, directory)
                if passed > options.seconds * 2 / 3:
                    seen.append(resident(process))
            process.kill()
            process.wait()
            again, begun = time.time(), time.monotonic()
            process = start(program, directory, options.parallelism)
            # What the process of before wrote last may be as young as its death.
            while newest_checkpoint(directory) <= again:
                time.sleep(0.1)
                alive(process, directory)
                if time.monotonic() - begun > RESTART_MAX:
                    sys.exit(f"no checkpoint within {RESTART_MAX} s after the restart")
            seconds, cpu = time.monotonic() - begun, cpu_seconds(process.pid)
        finally:
            process.kill()
            process.wait()
    median = statistics.median(seen)
    return median, max(seen), median * 1024 * 1024 / options.keys, seconds, cpu


def main():
    options = arguments()
    print(f"{'':24} {'resident MB':>12} {'peak MB':>9} {'bytes a key':>12} {'restart s':>10} {'its CPU s':>10}")
    for given in options.binary or [None]:
        program = mainstem.binary(given)
        median, peak, each, seconds, cpu = measure(program, options)
        print(f"{str(program)[-24:]:24} {median:12.0f} {peak:9.0f} {each:12.1f} {seconds:10.1f} {cpu:10.1f}", flush=True)


if __name__ == "__main__":
    main()
