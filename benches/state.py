#!/usr/bin/env python3
"""State of very many keys: memory a key while it changes and is checkpointed, and how long a restart takes to read it back.

    benches/state.py                             50 M keys, 500,000 updates a second, a checkpoint each second
    benches/state.py --keys 10000000
    benches/state.py --binary A --binary B       two builds, one after the other
    benches/state.py --keys 160000000 --updates 1600000 --memory 30gb --seconds 330 --no-restart
                                                 10 GB of state, a hundredth of which changes each second; half of --memory is for state

COUNT and SUM by a BIGINT key: each key is filled once, in order, and random ones are changed all the time. After --seconds the process
is killed by SIGKILL and started again; the restart ends with the first checkpoint after it. Memory is what is resident of the whole process,
median and peak of the last third of the time; "a key" is the median divided by the keys. Of the same third are how long checkpoints took,
from their start until they were published, rows and CPU seconds of a second. Before the restart twice as much memory is taken and let go as the
process had: a virtual machine may give memory that is free for seconds back to its host, and to get it again takes fifty times as long as
to clear it; that would measure the host. `--cold` leaves it out. Only the standard library is used.
"""

import argparse
import mmap
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import api, mainstem
from harness.cluster import cpu_seconds

sys.path.append(str(mainstem.ROOT / "scripts/support"))
from ports import free_port  # noqa: E402  (found by the path above)

RESTART_MAX = 120
JOB = """
SET 'execution.checkpointing.interval' = '{checkpoint}';
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
    parser.add_argument("--checkpoint", default="1 s", help="interval of checkpoints (default: 1 s)")
    parser.add_argument("--memory", help="of the process, as `run` takes it")
    parser.add_argument("--cold", action="store_true", help="restart with whatever memory the machine has at hand")
    parser.add_argument("--no-restart", action="store_true", help="leave the kill and the restart out")
    parser.add_argument("--binary", action="append", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


def resident(process):
    """Megabytes in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1]) / 1024


def newest_checkpoint(directory):
    return max((path.stat().st_mtime for path in directory.glob(".mainstem/jobs/*/manifests/*.manifest")), default=0)


def start(program, directory, options, port):
    command = [program, "run", "job.sql", "--parallelism", str(options.parallelism), "--http", str(port)]
    command += ["--memory", options.memory] if options.memory else []
    with (directory / "log").open("a") as log:
        return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def alive(process, directory):
    if process.poll() is not None:
        sys.exit(f"the job has ended with status {process.returncode}:\n{(directory / 'log').read_text()[-2000:]}")


def state_rows(asked):
    """Rows that have come to the aggregation."""
    return next(operator["rows_in"] for operator in asked.json("/api/v1/jobs/job/graph")["operators"] if operator["kind"] == "aggregate")


def steady(process, directory, options, port, begun):
    """What is measured in the last third of the time."""
    time.sleep(options.seconds * 2 / 3)
    alive(process, directory)
    asked, seen, checkpoints = api.Api(port), [], {}
    listed = lambda: asked.json("/api/v1/jobs/job/checkpoints")["checkpoints"]
    newest = max((checkpoint["epoch"] for checkpoint in listed()), default=0)
    rows, cpu, began = state_rows(asked), cpu_seconds(process.pid), time.monotonic()
    while time.monotonic() - begun < options.seconds:
        time.sleep(0.5)
        alive(process, directory)
        seen.append(resident(process))
        for checkpoint in listed():
            if checkpoint["state"] == "published" and checkpoint["epoch"] > newest:
                checkpoints[checkpoint["epoch"]] = checkpoint["duration_ms"]
    passed = time.monotonic() - began
    return seen, list(checkpoints.values()), (state_rows(asked) - rows) / passed, (cpu_seconds(process.pid) - cpu) / passed


def touch(size):
    """Takes and lets go so many bytes of memory, in huge pages."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for place in range(0, size, mmap.PAGESIZE):
            memory[place] = 1


def restarted(program, directory, options, peak):
    """Seconds until the first checkpoint after a restart, and the CPU seconds that it took; with so many megabytes at hand."""
    if not options.cold:
        touch(int(2 * peak) << 20)
    again, begun = time.time(), time.monotonic()
    process = start(program, directory, options, free_port())
    try:
        # What the process of before wrote last may be as young as its death.
        while newest_checkpoint(directory) <= again:
            time.sleep(0.1)
            alive(process, directory)
            if time.monotonic() - begun > RESTART_MAX:
                sys.exit(f"no checkpoint within {RESTART_MAX} s after the restart")
        return time.monotonic() - begun, cpu_seconds(process.pid)
    finally:
        process.kill()
        process.wait()


def measure(program, options):
    with tempfile.TemporaryDirectory(prefix="mainstem-bench-") as name:
        directory = Path(name)
        (directory / "job.sql").write_text(JOB.format(last=options.keys - 1, updates=options.updates, checkpoint=options.checkpoint))
        port, begun = free_port(), time.monotonic()
        process = start(program, directory, options, port)
        try:
            seen, checkpoints, rows, cpu = steady(process, directory, options, port, begun)
        finally:
            process.kill()
            process.wait()
        memory = statistics.median(seen)
        return [
            f"{memory:.0f}", f"{max(seen):.0f}", f"{memory * 1024 * 1024 / options.keys:.1f}",
            *(f"{ms:.0f}" if checkpoints else "" for ms in (statistics.median(checkpoints or [0]), max(checkpoints, default=0))),
            f"{rows:,.0f}", f"{cpu:.2f}",
            *([] if options.no_restart else [f"{figure:.1f}" for figure in restarted(program, directory, options, max(seen))]),
        ]


def main():
    options = arguments()
    heads = ["resident MB", "peak MB", "bytes a key", "checkpoint ms", "longest", "rows a second", "CPU s a second"]
    heads += [] if options.no_restart else ["restart s", "its CPU s"]
    print(f"| | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for given in options.binary or [None]:
        program = mainstem.binary(given)
        print(f"| {Path(program).name} | {' | '.join(measure(program, options))} |", flush=True)


if __name__ == "__main__":
    main()
