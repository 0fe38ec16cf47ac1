#!/usr/bin/env python3
"""Measures queries over files against DuckDB in batch, which is about as fast as the machine can read them.

    benches/files.py                         10 M events of Nexmark as JSON lines and as Parquet; three runs of each query
    benches/files.py --events 1000000 --repetitions 1

Mainstem runs each query as a stream with exactly-once checkpoints, in a process of its own whose start and end count;
DuckDB runs its form of it in a process that is warm, with as many threads. Both must find as many rows; the run that shows
it comes first and is not measured. Needs DuckDB (`pip install duckdb`) and nothing else beyond the standard library.
"""

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import mainstem
from harness.mainstem import MainstemError

COLUMNS = "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING"
WATERMARK = "WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND"
MAKE = """
CREATE TABLE bid ({columns}) WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '{events}');
CREATE TABLE files ({columns})
WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = '{format}', 'sink.rolling-policy.file-size' = '1 tb');
INSERT INTO files SELECT * FROM bid;
"""
JOB = """
CREATE TABLE bid ({columns}, {watermark}) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = '{format}');
CREATE TABLE results ({result}) WITH ('connector' = 'blackhole');
INSERT INTO results {query};
"""
# Name, columns of the result, Mainstem's query, DuckDB's: its number of rows and something that needs all columns.
QUERIES = [
    (
        "all columns", COLUMNS, "SELECT * FROM bid",
        "SELECT count(*), max(auction), max(bidder), max(price), max(channel), max(url), max(dateTime), max(extra) FROM {rows}",
    ),
    (
        "filter", "auction BIGINT, price BIGINT, channel STRING",
        "SELECT auction, price, channel FROM bid WHERE price > 5000000 AND channel = 'Google'",
        "SELECT count(*), max(auction), max(price) FROM {rows} WHERE price > 5000000 AND channel = 'Google'",
    ),
    (
        "count by auction, tumbling 10 s", "auction BIGINT, n BIGINT, `start` TIMESTAMP(3)",
        "SELECT auction, COUNT(*), window_start FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) "
        "GROUP BY auction, window_start, window_end",
        "SELECT count(*), max(n) FROM (SELECT auction, time_bucket(INTERVAL 10 SECOND, dateTime) AS start, count(*) AS n "
        "FROM {rows} GROUP BY ALL)",
    ),
]
DUCKDB_COLUMNS = (
    "{'auction': 'BIGINT', 'bidder': 'BIGINT', 'price': 'BIGINT', 'channel': 'VARCHAR', 'url': 'VARCHAR', "
    "'dateTime': 'TIMESTAMP', 'extra': 'VARCHAR'}"
)
PARALLELISM, SECONDS_MAX = 2, 600


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000, help="events of the generator, of which 92 %% are bids (default: 10000000)")
    parser.add_argument("--repetitions", type=int, default=3, help="measured runs of each query (default: 3)")
    parser.add_argument("--checkpoint", default="1s", help="interval of Mainstem's checkpoints (default: 1s)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


def rows_in(path, kind):
    if kind == "json":
        return f"read_json('{path}/*.json', format = 'newline_delimited', columns = {DUCKDB_COLUMNS})"
    return f"read_parquet('{path}/*.parquet')"


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def by_duckdb(connection, query):
    """Wall and CPU seconds."""
    begin, used = time.monotonic(), cpu_seconds()
    connection.execute(query).fetchall()
    return time.monotonic() - begin, cpu_seconds() - used


def rows_of(program, text):
    """Rows that a job writes, by what it says at its end."""
    with tempfile.TemporaryDirectory(prefix="mainstem-files-") as directory:
        file = Path(directory) / "job.sql"
        file.write_text(text, encoding="utf-8")
        command = [str(program), "run", str(file), "--parallelism", str(PARALLELISM), "--state-dir", str(Path(directory) / "state")]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        said = re.search(r"([0-9]+) rows out", done.stderr + done.stdout)
        if done.returncode != 0 or said is None:
            raise MainstemError(done.stderr[-1000:])
        return int(said.group(1))


def main():
    options = arguments()
    try:
        import duckdb
    except ImportError:
        sys.exit("DuckDB is not there: pip install duckdb")
    program = mainstem.binary(options.binary)
    connection = duckdb.connect()
    connection.execute(f"SET threads = {PARALLELISM}")
    print("| files | query | Mainstem: wall, CPU s | DuckDB: wall, CPU s | times DuckDB's wall, CPU |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="mainstem-files-") as work:
        for kind in ("json", "parquet"):
            path = Path(work) / kind
            mainstem.run(program, MAKE.format(columns=COLUMNS, events=options.events, path=path, format=kind), PARALLELISM, "none", SECONDS_MAX)
            for name, result, query, batch in QUERIES:
                text = JOB.format(columns=COLUMNS, watermark=WATERMARK, path=path, format=kind, result=result, query=query)
                there = connection.execute(batch.format(rows=rows_in(path, kind))).fetchone()[0]
                found = rows_of(program, text)
                if found != there:
                    sys.exit(f"{kind}, {name}: Mainstem finds {found} rows, DuckDB {there}")
                ours = [mainstem.run(program, text, PARALLELISM, options.checkpoint, SECONDS_MAX)[:2] for _ in range(options.repetitions)]
                theirs = [by_duckdb(connection, batch.format(rows=rows_in(path, kind))) for _ in range(options.repetitions)]
                (wall, cpu), (their_wall, their_cpu) = ([statistics.median(column) for column in zip(*runs)] for runs in (ours, theirs))
                ratios = f"{wall / their_wall:.2f}, {cpu / their_cpu:.2f}"
                print(f"| {kind} | {name} | {wall:.2f}, {cpu:.2f} | {their_wall:.2f}, {their_cpu:.2f} | {ratios} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MainstemError as error:
        sys.exit(str(error))
