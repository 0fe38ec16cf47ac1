#!/usr/bin/env python3
"""Measures Mainstem, and when asked Flink beside it, on Nexmark queries.

    benches/nexmark.py                            all queries, Mainstem alone
    benches/nexmark.py --flink                    all queries on both, in turns, with a table of ratios
    benches/nexmark.py --best                     the same beside the best of Flink tuned, as set by default, and on RocksDB
    benches/nexmark.py --flink q0 q5core my.sql   some of them, and one that is not in the list
    benches/nexmark.py --flink --source json q0   the same rows from JSON files instead of from the generator
    benches/nexmark.py --flink --verify           no figures: are the results of both the same rows?

Each query runs `--warmups` times and then `--repetitions` times, the engines taking turns; the medians are shown. A run
during which something else used the machine is repeated. For
Mainstem the whole process counts, from start to exit; for Flink the running job (wall) and its TaskManager (CPU,
memory), not the start of the cluster, the JobManager or the client. A query that fails or takes too long on one
side is reported and does not stop the others. See docs/benchmarks.md. Only the standard library is used.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from flink.cluster import DEFAULTS, ROCKSDB, Cluster, FlinkError
from harness import mainstem, noise, queries, report, results
from harness.mainstem import MainstemError
from harness.queries import QueryError

# Tries at a run that nothing else disturbs.
ATTEMPTS_MAX = 4
FAILURES = (MainstemError, FlinkError, QueryError)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="names (see --list) or SQL files; default: all")
    parser.add_argument("--list", action="store_true", help="show the names of all queries")
    parser.add_argument("--flink", action="store_true", help="run Flink too; benches/flink/setup.sh installs it")
    parser.add_argument("--best", action="store_true", help="as --flink, with three settings of Flink, of which the one counts that needs the least CPU for a query")
    parser.add_argument("--verify", action="store_true", help="with --flink: compare results instead of speed")
    parser.add_argument("--source", choices=["generator", "json"], default="generator", help="where rows come from (default: generator)")
    parser.add_argument("--events", type=int, default=10_000_000, help="events of the stream: of 50, 46 are bids, 3 auctions, 1 a person (default: 10000000)")
    parser.add_argument("--checkpoint", default="1s", help="interval of checkpoints such as 1s, or 'none' (default: 1s)")
    parser.add_argument("--parallelism", type=int, default=2, help="subtasks and slots (default: 2)")
    parser.add_argument("--repetitions", type=int, default=3, help="measured runs of each query (default: 3)")
    parser.add_argument("--warmups", type=int, default=3, help="runs before those that count; a JVM needs some (default: 3)")
    parser.add_argument("--timeout", type=int, default=300, help="seconds that one run may take (default: 300)")
    parser.add_argument("--heap", default="4096m", help="task heap of Flink's TaskManager (default: 4096m)")
    parser.add_argument("--flink-option", action="append", default=[], metavar="KEY=VALUE", help="an option of Flink's job; can be repeated")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    parser.add_argument("--directory", default=os.environ.get("MAINSTEM_BENCH", str(Path.home() / ".cache" / "mainstem-bench")), help="for data and Flink (default: $MAINSTEM_BENCH or ~/.cache/mainstem-bench)")
    parser.add_argument("--markdown", help="write the tables to this file too")
    parser.add_argument("--output", help="append all runs to this file, one JSON object a line")
    options = parser.parse_args()
    options.files = chosen(parser, options.queries)
    options.flink = options.flink or options.best
    options.flinks = {"flink": {}} if options.flink else {}
    if options.best:
        options.flinks |= {"flink by default": DEFAULTS, "flink on RocksDB": ROCKSDB}
    if options.verify and not options.flink:
        parser.error("--verify compares with Flink: add --flink")
    if any("=" not in option for option in options.flink_option):
        parser.error("--flink-option takes KEY=VALUE")
    return options


def chosen(parser, names):
    """The files of the queries, by name."""
    known = queries.known()
    files = {}
    for name in names or known:
        file = known.get(name, Path(name))
        if not file.is_file():
            parser.error(f"unknown query '{name}': neither a file nor one of {', '.join(known)}")
        files[file.stem] = file
    return files


# --- runs --------------------------------------------------------------------------------------------------


def prepared(options, name, output, is_compared=False):
    def made(script, path):
        return mainstem.made(options.program, options.directory, script, path)

    def json_files(kind):
        return mainstem.json_events(options.program, kind, options.events, options.parallelism, options.directory)

    settings = queries.Settings(options.events, made, json_files if options.source == "json" else None, output, is_compared)
    return queries.prepare(name, options.files[name], settings)


def mainstem_run(options, query):
    return mainstem.run(options.program, query.text(), options.parallelism, options.checkpoint, options.timeout)


def flink_run(options, cluster, query, settings):
    settings = {**settings, **dict(option.split("=", 1) for option in options.flink_option)}
    if options.checkpoint != "none":
        settings = {"execution.checkpointing.interval": options.checkpoint, "execution.checkpointing.mode": "EXACTLY_ONCE", **settings}
    return cluster.run(query.for_flink(), settings, options.timeout)


def cluster_of(options):
    """A cluster for each query, so that none inherits the heap of the one before."""
    return Cluster(options.directory, options.parallelism, options.heap)


class Measurement:
    """The runs of one query on the engines; an engine that fails once is left alone."""

    def __init__(self, options, query, directory, output):
        self.options, self.query, self.directory, self.output = options, query, directory, output
        self.runs = {name: [] for name in [*options.flinks, "mainstem"]}
        self.failures = {}
        # Largest share of the machine that others used during a measured run, by engine.
        self.others = dict.fromkeys(self.runs, 0.0)

    def measure(self):
        with ExitStack() as stack:
            cluster = self.attempt("flink", lambda: stack.enter_context(cluster_of(self.options))) if self.options.flink else None
            flinks = self.options.flinks if cluster else {}
            for repetition in range(-self.options.warmups, self.options.repetitions):
                self.measure_run("mainstem", repetition, lambda: mainstem_run(self.options, self.query), noise.children_seconds)
                for engine, settings in flinks.items():
                    self.measure_run(engine, repetition, partial(flink_run, self.options, cluster, self.query, settings), cluster.all_cpu_seconds)
        return {name: tuple(statistics.median(values) for values in zip(*found)) for name, found in self.runs.items() if found and name not in self.failures}

    def measure_run(self, engine, repetition, run, own_seconds):
        """One run, again while others use the machine; the least disturbed one counts."""
        best = None
        for _ in range(ATTEMPTS_MAX if repetition >= 0 else 1):
            shutil.rmtree(self.directory, ignore_errors=True)
            watch = noise.Watch(own_seconds)
            result = self.attempt(engine, run)
            if not result:
                return
            others = watch.others()
            self.record(engine, repetition, result, others)
            best = min(best or (others, result), (others, result))
            if others <= noise.SHARE_MAX:
                break
        if repetition >= 0:
            self.runs[engine].append(best[1])
            self.others[engine] = max(self.others[engine], best[0])

    def attempt(self, engine, action):
        if engine in self.failures:
            return None
        try:
            return action()
        except FAILURES as error:
            self.failures[engine] = str(error)
            print(f"{self.query.name}: {engine} fails: {error}", file=sys.stderr, flush=True)
            return None

    def record(self, engine, repetition, result, others):
        if self.output:
            values = dict(zip(("wall_seconds", "cpu_seconds", "peak_bytes"), result), others=round(others, 3))
            self.output.write(json.dumps({"query": self.query.name, "engine": engine, "repetition": repetition, **values}) + "\n")
            self.output.flush()


def measure_all(options, output):
    """Medians by query and engine, rows by query, failures, disturbances."""
    medians, rows, failures, disturbed = {}, {}, [], []
    for name in options.files:
        medians[name], rows[name] = {}, 0
        with tempfile.TemporaryDirectory(prefix="mainstem-output-") as directory:
            try:
                query = prepared(options, name, Path(directory, "output"))
            except FAILURES as error:
                failures.append(f"{name}: {error}")
                print(failures[-1], file=sys.stderr, flush=True)
                continue
            measurement = Measurement(options, query, Path(directory, "output"), output)
            medians[name], rows[name] = measurement.measure(), query.rows
        failures += [f"{name}: {engine}: {reason}" for engine, reason in measurement.failures.items()]
        for engine, share in measurement.others.items():
            if share > noise.SHARE_MAX:
                disturbed.append(f"{name}: {engine}: other processes took up to {share:.0%} of the machine during a run")
                print(disturbed[-1], file=sys.stderr, flush=True)
        for engine, (wall, cpu, peak) in medians[name].items():
            print(f"{name:10} {engine:16} wall {wall:7.2f} s  CPU {cpu:7.2f} s  peak {peak / 1e6:6.0f} MB", flush=True)
    return medians, rows, failures, disturbed


def verify_all(options):
    """Compares the results of every query; gives what differs or fails."""
    failures = []
    for name in options.files:
        with tempfile.TemporaryDirectory(prefix="mainstem-verify-") as directory:
            try:
                said = verify(options, name, Path(directory))
            except FAILURES as error:
                said = str(error)
                failures.append(f"{name}: {said}")
        print(f"{name:10} {said}", flush=True)
    return failures


def verify(options, name, directory):
    query = prepared(options, name, directory / "mainstem", is_compared=True)
    if query.varies:
        return f"not compared: {query.varies}"
    mainstem_run(options, query)
    with cluster_of(options) as cluster:
        flink_run(options, cluster, prepared(options, name, directory / "flink", is_compared=True), {})
    total = 0
    for sink in query.sinks:
        found, rows = results.difference(directory / "mainstem" / sink, directory / "flink" / sink)
        if found:
            raise QueryError(f"the results differ: {found} (the first is Mainstem)")
        total += rows
    return f"both give the same {total} rows"


def finish(options, text, failures, disturbed):
    if failures:
        text += "\n\nFailures:\n\n" + "\n".join(f"- {failure}" for failure in failures)
    if disturbed:
        text += "\n\nDisturbed, measure again on a quiet machine:\n\n" + "\n".join(f"- {line}" for line in disturbed)
    print("\n" + text)
    if options.markdown:
        Path(options.markdown).write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0


def main():
    options = arguments()
    if options.list:
        print("\n".join(queries.known()))
        return 0
    options.program = mainstem.binary(options.binary)
    head = f"{report.machine(mainstem.ROOT, options.binary)}; {options.events} events, source {options.source}, parallelism {options.parallelism}, checkpoints {options.checkpoint}"
    if options.verify:
        print(head, flush=True)
        failures = verify_all(options)
        return 1 if failures else 0
    head += f", medians of {options.repetitions}"
    print(head, flush=True)
    with open(options.output or os.devnull, "a", encoding="utf-8") as output:
        medians, rows, failures, disturbed = measure_all(options, output)
    table = report.beside(medians) if options.flink else report.alone(medians, rows)
    return finish(options, f"{head}\n\n{table}", failures, disturbed)


if __name__ == "__main__":
    sys.exit(main())
