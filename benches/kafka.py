#!/usr/bin/env python3
"""Measures a windowed count from Kafka to Kafka: JSON in and out, exactly-once, checkpoints each 200 ms.

    benches/kafka.py                         throughput over 20 M bids, and the lag of results at a fixed rate
    benches/kafka.py --flink                 Flink too, on the same broker; benches/flink/setup.sh installs it
    benches/kafka.py --events 5000000 --rate 20000 --repetitions 1

A broker of one process runs on loopback beside the engines (`scripts/install-kafka`). Throughput: a topic of four partitions is
written once and then read from its beginning to its end, into another topic for each run; CPU seconds are the engine's alone,
without the broker's. The outputs must count the same bids. Lag: bids are produced at a fixed rate with the time of their
making as event time; a reader of committed messages notes how much later than the end of its window each result is there. All
three share the machine. Needs a JDK; only the standard library is used.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flink.cluster import Cluster, FlinkError
from flink.kafka_connector import ConnectorError, jar
from harness import mainstem, sql
from harness.kafka import Broker, KafkaError

FILL = """
CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING)
WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '{events}');
CREATE TABLE bids (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `at` BIGINT)
WITH ('connector' = 'kafka', 'topic' = 'bids', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json',
      'sink.delivery-guarantee' = 'none', 'sink.partitioner' = 'round-robin');
INSERT INTO bids
SELECT auction, bidder, price, channel, url, TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', `dateTime`) * 1000 FROM bid;
"""
JOB = """
CREATE TABLE bids (auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `at` BIGINT,
  ts AS TO_TIMESTAMP_LTZ(`at`, 3), WATERMARK FOR ts AS ts - INTERVAL '{delay}' SECOND)
WITH ('connector' = 'kafka', 'topic' = '{source}', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json',
      'scan.startup.mode' = '{start}'{bound});
CREATE TABLE counts (auction BIGINT, bids BIGINT, ended BIGINT)
WITH ('connector' = 'kafka', 'topic' = '{sink}', 'properties.bootstrap.servers' = '{servers}', 'format' = 'json',
      'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{sink}');
INSERT INTO counts
SELECT auction, COUNT(*), MAX({ended})
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)) GROUP BY auction, window_start, window_end;
"""
PARTITIONS, PARALLELISM = 4, 2
CHECKPOINT = "200 ms"
# Window and its end as milliseconds, in the terms of the event's own time, which both engines compute alike.
WINDOW_SECONDS = {"throughput": 10, "lag": 1}
SETTLE_SECONDS, KEYS = 10, 1000
SECONDS_MAX = 600


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000, help="events of the generator, of which 92 %% are bids (default: 20000000)")
    parser.add_argument("--rate", type=int, default=50_000, help="bids a second while the lag is measured (default: 50000)")
    parser.add_argument("--seconds", type=int, default=30, help="how long the lag is measured (default: 30)")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each engine over the whole topic (default: 3)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    parser.add_argument("--flink", action="store_true", help="measure Flink too")
    parser.add_argument("--directory", default=os.environ.get("MAINSTEM_BENCH", str(Path.home() / ".cache" / "mainstem-bench")), help="where Flink is (default: $MAINSTEM_BENCH or ~/.cache/mainstem-bench)")
    return parser.parse_args()


class Bench:
    """The broker with its topics, and the engines by name."""

    def __init__(self, options, program, broker, work):
        self.options, self.program, self.broker, self.work = options, program, broker, work
        self.topics = 0

    def topic(self, kind):
        self.topics += 1
        name = f"{kind}-{self.topics}"
        self.broker.probe("create", name, PARTITIONS)
        return name

    def job(self, what, source, sink, start, bound=""):
        size = WINDOW_SECONDS[what]
        ended = f"`at` - MOD(`at`, {size * 1000}) + {size * 1000}"
        delay = "4" if what == "throughput" else "0.001"
        return JOB.format(source=source, sink=sink, start=start, bound=bound, servers=self.broker.servers, size=size, ended=ended, delay=delay)

    def mainstem_throughput(self, text):
        wall, cpu, _ = mainstem.run(self.program, text, PARALLELISM, CHECKPOINT, SECONDS_MAX)
        return wall, cpu

    def flink(self):
        return Cluster(self.options.directory, PARALLELISM, jars=[jar(self.options.directory)])

    def settings(self):
        return {"execution.checkpointing.interval": CHECKPOINT, "execution.checkpointing.mode": "EXACTLY_ONCE"}


def throughput(bench):
    """Medians of wall and CPU seconds by engine; every run must count the same bids."""
    runs, answers = {}, set()

    def measure(name, run):
        sink = bench.topic("counts")
        text = bench.job("throughput", "bids", sink, "earliest-offset", ", 'scan.bounded.mode' = 'latest-offset'")
        result = run(text)
        answers.add(bench.broker.probe("sum", sink))
        return runs.setdefault(name, []).append(result)

    for _ in range(bench.options.repetitions):
        measure("Mainstem", bench.mainstem_throughput)
    if bench.options.flink:
        with bench.flink() as cluster:
            for _ in range(bench.options.repetitions):
                measure("Flink", lambda text: cluster.run(sql.statements(text), bench.settings(), SECONDS_MAX)[:2])
    if len(answers) != 1:
        sys.exit(f"the outputs differ (messages and bids): {sorted(answers)}")
    rows = int(answers.pop().split()[1])
    print(f"\n{rows} bids, medians of {bench.options.repetitions}\n\n| engine | wall s | CPU s | bids a second | times Mainstem's wall, CPU |\n|---|---:|---:|---:|---:|")
    medians = {name: tuple(map(statistics.median, zip(*found))) for name, found in runs.items()}
    for name, (wall, cpu) in medians.items():
        base_wall, base_cpu = medians["Mainstem"]
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {rows / wall:,.0f} | {wall / base_wall:.1f}, {cpu / base_cpu:.1f} |", flush=True)


def lag_under_load(bench, source, sink):
    """Results, median, 99th percentile and worst lag in milliseconds."""
    options = bench.options
    seconds = SETTLE_SECONDS + options.seconds
    producer = bench.broker.start_probe("produce", source, options.rate, seconds + 2, KEYS)
    time.sleep(SETTLE_SECONDS)
    found = bench.broker.probe("lag", sink, options.seconds)
    _, errors = producer.communicate()
    if producer.returncode != 0:
        raise KafkaError(f"the producer fails: {errors.strip()[-500:]}")
    return list(map(int, found.split()))


def lag(bench):
    print(f"\n{bench.options.rate} bids a second, lag of results behind the ends of their windows, in ms\n\n| engine | results | median | p99 | worst |\n|---|---:|---:|---:|---:|")

    def line(name, found):
        print(f"| {name} | {' | '.join(map(str, found))} |", flush=True)

    source, sink = bench.topic("live"), bench.topic("results")
    file = bench.work / "lag.sql"
    file.write_text(bench.job("lag", source, sink, "latest-offset"), encoding="utf-8")
    command = [str(bench.program), "run", str(file), "--parallelism", str(PARALLELISM), "--state-dir", str(bench.work / "state"), "--checkpoint-interval", CHECKPOINT]
    with open(bench.work / "lag.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        time.sleep(3)
        line("Mainstem", lag_under_load(bench, source, sink))
        if process.poll() is not None:
            raise mainstem.MainstemError("it ended: " + (bench.work / "lag.log").read_text(encoding="utf-8")[-1000:])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    if bench.options.flink:
        source, sink = bench.topic("live"), bench.topic("results")
        with bench.flink() as cluster:
            cluster.submit(sql.statements(bench.job("lag", source, sink, "latest-offset")), bench.settings(), SECONDS_MAX)
            time.sleep(SETTLE_SECONDS)
            line("Flink", lag_under_load(bench, source, sink))


def main():
    options = arguments()
    program = mainstem.binary(options.binary)
    with tempfile.TemporaryDirectory(prefix="mainstem-bench-") as directory:
        work = Path(directory)
        with Broker(work / "broker") as broker:
            bench = Bench(options, program, broker, work)
            broker.probe("create", "bids", PARTITIONS)
            # By one subtask, so that each partition is in the order of event time.
            mainstem.run(program, FILL.format(events=options.events, servers=broker.servers), 1, "none", SECONDS_MAX)
            throughput(bench)
            lag(bench)


if __name__ == "__main__":
    try:
        main()
    except (mainstem.MainstemError, FlinkError, KafkaError, ConnectorError) as error:
        sys.exit(str(error))
