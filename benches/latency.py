#!/usr/bin/env python3
"""How long a row takes from when it comes to be until the update that it causes reaches the sink.

    benches/latency.py                      at half of the rate that the job can keep up with
    benches/latency.py --rate 1000000       at a given rate

A keyed count with updates, `SELECT k, COUNT(*), MAX(ts) .. GROUP BY k`, from 'datagen' to a 'blackhole' that measures. Rows
are due by the clock at the time that they carry, so a row that the source gives late counts from when it was due. First
the job runs as fast as it can for as many rows, which gives the rate. See docs/benchmarks.md. Only the standard library
is used.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from harness import mainstem

# Until a job has begun.
START_SECONDS = 3

SQL = """
CREATE TABLE rows_made (k BIGINT, ts TIMESTAMP(3)) WITH (
  'connector' = 'datagen', 'number-of-rows' = '{rows}', 'rows-per-second' = '{rate}', 'fields.k.min' = '0',
  'fields.k.max' = '{last_key}'{due}
);
CREATE TABLE counted (k BIGINT, n BIGINT, newest TIMESTAMP(3)) WITH ('connector' = 'blackhole'{measured});
INSERT INTO counted SELECT k, COUNT(*), MAX(ts) FROM rows_made GROUP BY k;
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, help="rows a second (default: half of what the job can do)")
    parser.add_argument("--keys", type=int, default=10_000, help="(default: 10000)")
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of the run that finds the rate (default: 20000000)")
    parser.add_argument("--seconds", type=int, default=15, help="length of a measured run (default: 15)")
    parser.add_argument("--repetitions", type=int, default=3, help="(default: 3)")
    parser.add_argument("--checkpoint", default="1s", help="interval of checkpoints (default: 1s)")
    parser.add_argument("--parallelism", type=int, default=2, help="(default: 2)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


def fastest(program, options):
    """Rows a second when nothing holds the source back; the start of the process counts against it."""
    text = SQL.format(rows=options.rows, rate=0, last_key=options.keys - 1, due="", measured="")
    wall, _, _ = mainstem.run(program, text, options.parallelism, options.checkpoint, 600)
    return options.rows / wall


def latencies(program, options, rate):
    """Rows by milliseconds, and CPU seconds."""
    with tempfile.TemporaryDirectory(prefix="mainstem-latency-") as directory:
        report = Path(directory) / "report"
        begins = int((time.time() + START_SECONDS) * 1000)
        text = SQL.format(
            rows=rate * options.seconds, rate=rate, last_key=options.keys - 1,
            due=f", 'base-time' = '{begins}', 'rows-due-from' = 'base-time'",
            measured=f", 'latency.column' = 'newest', 'latency.report' = '{report}'",
        )
        _, cpu, _ = mainstem.run(program, text, options.parallelism, options.checkpoint, 600)
        counts = {}
        for file in Path(directory).glob("report.*"):
            for ms, rows in json.loads(file.read_text(encoding="utf-8"))["milliseconds"]:
                counts[ms] = counts.get(ms, 0) + rows
        return counts, cpu


def quantile(counts, share):
    wanted = share * sum(counts.values())
    for ms in sorted(counts):
        wanted -= counts[ms]
        if wanted <= 0:
            return ms
    return max(counts)


def main():
    options = arguments()
    program = mainstem.binary(options.binary)
    rate = options.rate
    if rate is None:
        most = statistics.median(fastest(program, options) for _ in range(options.repetitions))
        rate = int(most / 2)
        print(f"as fast as it can: {most:,.0f} rows a second; half of that:")
    runs = []
    for _ in range(options.repetitions):
        counts, cpu = latencies(program, options, rate)
        figures = [quantile(counts, share) for share in (0.5, 0.99, 0.999)] + [max(counts)]
        runs.append(figures)
        shown = "  ".join(f"{name} {ms} ms" for name, ms in zip(("median", "p99", "p99.9", "most"), figures))
        print(f"{rate:,} rows a second: {shown}  ({sum(counts.values()):,} updates, {cpu:.1f} CPU seconds)", flush=True)
    print(f"p99, median of runs: {statistics.median(run[1] for run in runs)} ms")


if __name__ == "__main__":
    main()
