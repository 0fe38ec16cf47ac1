#!/usr/bin/env python3
"""Measures Mainstem, and when asked Flink beside it, on Nexmark-like queries to a blackhole sink.

    benches/nexmark.py                                all queries, Mainstem alone
    benches/nexmark.py --flink q0 q5core q11          some of them, against Flink, in turns on the same input
    benches/nexmark.py --source generator             rows made inside the engine instead of read from JSON files

Each query runs once to warm up and then `--repetitions` times, the engines taking turns; the medians are shown. For
Mainstem the whole process counts, from start to exit; for Flink the running job (wall) and its TaskManager (CPU,
memory), not the start of the cluster, the JobManager or the client. See docs/benchmarks.md. Only the standard
library is used.
"""

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from flink.cluster import Cluster, FlinkError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BID_QUERIES = [
    "q0", "q1", "q2", "q5core", "q7core", "q11", "q12event", "q14", "q15window", "q16window", "q17window", "q22",
]
KEYED_QUERIES = ["keyed100k"]
CHECKPOINT_NEVER = "1 h"


class MainstemError(Exception):
    """Mainstem cannot be built, or a job fails."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", metavar="QUERY", help=f"of {', '.join(BID_QUERIES + KEYED_QUERIES)}; default: all")
    parser.add_argument("--flink", action="store_true", help="run Flink too; benches/flink/setup.sh installs it")
    parser.add_argument("--source", choices=["json", "generator"], default="json", help="where bids come from (default: json)")
    parser.add_argument("--events", type=int, default=10_000_000, help="events of the stream, of which 46 in 50 are bids (default: 10000000)")
    parser.add_argument("--checkpoint", default="1s", help="interval of checkpoints such as 1s, or 'none' (default: 1s)")
    parser.add_argument("--parallelism", type=int, default=2, help="subtasks and slots (default: 2)")
    parser.add_argument("--repetitions", type=int, default=3, help="measured runs of each query (default: 3)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds that one run may take (default: 600)")
    parser.add_argument("--heap", default="4096m", help="task heap of Flink's TaskManager (default: 4096m)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    parser.add_argument("--directory", default=os.environ.get("MAINSTEM_BENCH", str(Path.home() / ".cache" / "mainstem-bench")), help="for data and Flink (default: $MAINSTEM_BENCH or ~/.cache/mainstem-bench)")
    parser.add_argument("--output", help="also write all runs to this file, one JSON object a line")
    options = parser.parse_args()
    unknown = set(options.queries) - set(BID_QUERIES + KEYED_QUERIES)
    if unknown:
        parser.error(f"unknown queries: {', '.join(sorted(unknown))}")
    options.queries = options.queries or BID_QUERIES + KEYED_QUERIES
    return options


def binary(options):
    if options.binary:
        return Path(options.binary).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked", "--package", "mainstem"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "mainstem"


# --- input -------------------------------------------------------------------------------------------------


def filled(name, values):
    return string.Template((HERE / "sql" / f"{name}.sql").read_text(encoding="utf-8")).substitute(values)


def json_bids(options):
    """The directory with the bids as JSON lines, one file a subtask; made by Mainstem when missing."""
    data = Path(options.directory) / "data" / f"bids-{options.events}-{options.parallelism}"
    if not data.exists():
        print(f"writing {options.events} events to {data}", flush=True)
        making = data.with_name(data.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        text = filled("make_bids", {"events": options.events, "data": making})
        mainstem_run(options, text, checkpoint=CHECKPOINT_NEVER)
        making.rename(data)
    # Read once, so that no run pays for the disk.
    for file in sorted(data.rglob("*.json")):
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 22):
                pass
    return data


def sql_of(query, options, data):
    if query in KEYED_QUERIES:
        tables = filled("keyed", {"last": options.events - 1})
    else:
        tables = filled(f"bid_{options.source}", {"events": options.events, "data": data})
    return tables + "\n" + filled(query, {})


def rows_of(query, options):
    """Rows that the query reads."""
    if query in KEYED_QUERIES:
        return options.events
    whole, rest = divmod(options.events, 50)
    return whole * 46 + max(0, rest - 4)


def statements(text):
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]


# --- runs --------------------------------------------------------------------------------------------------


def mainstem_run(options, text, checkpoint):
    """Wall seconds, CPU seconds and peak bytes of one process that runs the SQL to its end."""
    with tempfile.TemporaryDirectory(prefix="mainstem-bench-") as directory:
        file = Path(directory) / "job.sql"
        file.write_text(text, encoding="utf-8")
        command = [
            str(options.mainstem), "run", str(file), "--parallelism", str(options.parallelism),
            "--state-dir", str(Path(directory) / "state"), "--checkpoint-interval", checkpoint,
        ]
        with open(Path(directory) / "log", "w+", encoding="utf-8") as log:
            started = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            watchdog = threading.Timer(options.timeout, process.kill)
            watchdog.start()
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - started
            watchdog.cancel()
            # Reaped above; without this Popen would wait for it again.
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                log.seek(0)
                raise MainstemError(f"mainstem ended with code {process.returncode} after {wall:.0f} s:\n{log.read()[-2000:]}")
        return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def flink_run(options, cluster, text):
    settings = {}
    if options.checkpoint != "none":
        settings = {"execution.checkpointing.interval": options.checkpoint, "execution.checkpointing.mode": "EXACTLY_ONCE"}
    return cluster.run(statements(text), settings, options.timeout)


def measure(options, query, text, engines, output):
    """Medians of `(wall seconds, CPU seconds, peak bytes)` by engine; engines that fail are left out."""
    runs = {name: [] for name, _ in engines}
    for repetition in range(-1, options.repetitions):
        for name, run in engines:
            if runs[name] is None:
                continue
            try:
                result = run(text)
            except (MainstemError, FlinkError) as error:
                print(f"{query}: {name}: {error}", file=sys.stderr, flush=True)
                runs[name] = None
                continue
            record = dict(zip(("wall_seconds", "cpu_seconds", "peak_bytes"), result), query=query, engine=name, repetition=repetition)
            if output:
                output.write(json.dumps(record) + "\n")
                output.flush()
            if repetition >= 0:
                runs[name].append(result)
    return {name: tuple(statistics.median(values) for values in zip(*results)) for name, results in runs.items() if results}


# --- report ------------------------------------------------------------------------------------------------


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")), platform.machine())
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return f"{os.cpu_count()} cores, {model}; mainstem {revision or 'unknown'}"


def table(options, medians):
    lines = ["| query | engine | wall s | CPU s | rows/s | rows/CPU s | peak MB |", "|---|---|---:|---:|---:|---:|---:|"]
    for query, engines in medians.items():
        rows = rows_of(query, options)
        for name, (wall, cpu, peak) in engines.items():
            cells = [f"{wall:.2f}", f"{cpu:.2f}", f"{rows / wall:,.0f}", f"{rows / cpu:,.0f}", f"{peak / 1e6:.0f}"]
            lines.append(f"| {query} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(medians):
    lines = ["| query | Flink / Mainstem, wall | Flink / Mainstem, CPU | Flink / Mainstem, memory |", "|---|---:|---:|---:|"]
    found = []
    for query, engines in medians.items():
        if {"mainstem", "flink"} <= engines.keys():
            found.append([theirs / ours for theirs, ours in zip(engines["flink"], engines["mainstem"])])
            lines.append(f"| {query} | " + " | ".join(f"{ratio:.2f}" for ratio in found[-1]) + " |")
    if not found:
        return ""
    means = [geometric_mean(column) for column in zip(*found)]
    return "\n".join([*lines, "| geometric mean | " + " | ".join(f"{mean:.2f}" for mean in means) + " |"])


def engines_of(options, cluster):
    """What runs the query: name and function from SQL to a measurement."""
    checkpoint = CHECKPOINT_NEVER if options.checkpoint == "none" else options.checkpoint
    engines = [("mainstem", lambda text: mainstem_run(options, text, checkpoint))]
    if cluster:
        engines.append(("flink", lambda text: flink_run(options, cluster, text)))
    return engines


def is_compared(options, query):
    if options.flink and options.source == "generator" and query in BID_QUERIES:
        print(f"{query}: Flink comes without a Nexmark generator; compare it with --source json", file=sys.stderr)
        return False
    return options.flink


def run_all(options, output):
    needs_files = options.source == "json" and set(options.queries) & set(BID_QUERIES)
    data = json_bids(options) if needs_files else None
    medians = {}
    for query in options.queries:
        text = sql_of(query, options, data)
        # A cluster for each query, so that none inherits the heap of the one before.
        with Cluster(options.directory, options.parallelism, options.heap) if is_compared(options, query) else nullcontext() as cluster:
            medians[query] = measure(options, query, text, engines_of(options, cluster), output)
        for name, (wall, cpu, peak) in medians[query].items():
            print(f"{query:10} {name:9} wall {wall:7.2f} s  CPU {cpu:7.2f} s  peak {peak / 1e6:6.0f} MB", flush=True)
    return medians


def main():
    options = arguments()
    output = open(options.output, "a", encoding="utf-8") if options.output else None
    try:
        options.mainstem = binary(options)
        print(f"{machine()}\n{options.events} events, source {options.source}, parallelism {options.parallelism}, checkpoints {options.checkpoint}, medians of {options.repetitions}", flush=True)
        medians = run_all(options, output)
    except (FlinkError, MainstemError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n" + table(options, medians))
    if options.flink:
        print("\n" + ratios(medians))
    return 0 if all("mainstem" in engines for engines in medians.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
