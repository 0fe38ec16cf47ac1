"""What goes wrong for each alert of a job. A fault is a generator: up to its first `yield` it brings about something that is healthy;
then it breaks it, and yields what is to be done while the alert is waited for (or None); then it mends it."""

import json
import time
from datetime import datetime, timedelta, timezone

from alert_checks.nats import STREAM

FILES = """
CREATE TABLE lines (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json', 'source.monitor-interval' = '200 ms', 'bad-records' = '{policy}');
CREATE TABLE counts (w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE lines, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
"""
MADE = """
CREATE TABLE made (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
WITH ('connector' = 'datagen', 'rows-per-second' = '50', 'base-time' = '{now}', 'rows-due-from' = 'base-time');
"""
STEADY = MADE + """
CREATE TABLE counts (w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE made, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
"""
HOOK = MADE + """
CREATE TABLE hook (n BIGINT) WITH ('connector' = 'http', 'url' = '{url}', 'format' = 'json', 'batch-size' = '1000',
  'sink.delivery-guarantee' = '{delivery}', 'retry.max' = '2', 'retry.delay-max' = '500 ms');
INSERT INTO hook SELECT n FROM made;
"""
# The aggregation stands between two tasks, so that the first one can wait for room at the second one.
PRESSED = """
SET 'execution.checkpointing.aligned-checkpoint-timeout' = 'none';
CREATE TABLE rows_in (id BIGINT, text STRING)
WITH ('connector' = 'nats', 'url' = '{nats}', 'stream' = '{stream}', 'subjects' = '{name}-a.rows;{name}-b.rows', 'format' = 'json');
CREATE TABLE hook (id BIGINT, text STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'http', 'url' = '{url}',
  'format' = 'upsert-json', 'batch-size' = '1000', 'sink.delivery-guarantee' = 'at-least-once');
INSERT INTO hook SELECT id, MAX(text) FROM rows_in GROUP BY id;
"""


def steady():
    return STEADY.format(now=int(time.time() * 1000))


class Directory:
    """Files that a job reads as they come."""

    def __init__(self, ground, name, policy="drop"):
        self.path, self.number = ground.directory / "in" / name, 0
        self.path.mkdir(parents=True)
        self.sql = FILES.format(path=self.path, policy=policy)

    def add(self, *rows):
        """A file with these lines: texts as they are, and numbers as rows that are so many seconds old."""
        self.number += 1
        now = datetime.now(timezone.utc)
        shown = lambda age: json.dumps({"k": "a", "ts": f"{now - timedelta(seconds=age):%Y-%m-%d %H:%M:%S.000}"})
        new = self.path / f".{self.number}"
        new.write_text("".join((row if isinstance(row, str) else shown(row)) + "\n" for row in rows))
        new.rename(self.path / f"{self.number:04}.json")


def files(ground, name, policy="drop"):
    directory = Directory(ground, name, policy)
    directory.add(2, 1)
    ground.nodes.submit(name, directory.sql)
    ground.nodes.until(lambda: (ground.nodes.job(name) or {}).get("rows_in") == 2, f"job {name} reads its first file")
    return directory


def wrong_record_stops(ground):
    directory = files(ground, "strict", policy="fail")
    yield
    directory.add("{broken")
    yield
    ground.nodes.ask("jobs/strict", method="DELETE")


def wrong_record(ground):
    directory = files(ground, "lenient")
    yield
    directory.add("{broken")
    yield
    # Goes by itself, when no more come.


def wrong_from_the_start(ground):
    yield
    directory = Directory(ground, "wrong")
    directory.add("{broken", 1, 0)
    ground.nodes.submit("wrong", directory.sql)
    yield


def late_row(ground):
    directory = files(ground, "late")
    yield
    directory.add(0, 100)
    yield


def late_from_the_start(ground):
    yield
    directory = Directory(ground, "tardy")
    directory.add(0, 100)
    ground.nodes.submit("tardy", directory.sql)
    yield


def rows_of_long_ago(ground):
    directory = Directory(ground, "old")
    ground.nodes.submit("old", directory.sql)
    yield
    directory.add(1200)
    yield
    directory.add(0)


def sink_that_refuses(ground):
    url = f"{ground.receiver.url}/refuses"
    ground.nodes.submit("refused", HOOK.format(url=url, delivery="exactly-once", now=int(time.time() * 1000)))
    yield
    ground.receiver.statuses["/refuses"] = 503
    yield
    ground.receiver.statuses["/refuses"] = 200


def sink_that_hangs(ground):
    url = f"{ground.receiver.url}/hangs"
    ground.nodes.submit("stuck", HOOK.format(url=url, delivery="at-least-once", now=int(time.time() * 1000)))
    yield
    ground.receiver.statuses["/hangs"] = None
    yield
    ground.receiver.statuses["/hangs"] = 200


def sink_that_is_slow(ground):
    url = f"{ground.receiver.url}/slow"
    ground.nodes.submit("slow", HOOK.format(url=url, delivery="at-least-once", now=int(time.time() * 1000)))
    yield
    ground.receiver.delays["/slow"] = 2.5
    yield
    ground.receiver.delays["/slow"] = 0


class Crowd:
    """Rows that a job of this name reads, as many as wanted."""

    def __init__(self, nats, name):
        self.nats, self.name, self.id = nats, name, 0

    def add(self, rows):
        for split in "ab":
            self.nats.publish(f"{self.name}-{split}.rows", [json.dumps({"id": self.id + n, "text": "x" * 200}) for n in range(rows // 2)])
            self.id += rows // 2


def pressed(ground, name, rows, delay):
    url = f"{ground.receiver.url}/{name}"
    crowd = Crowd(ground.nats, name)
    crowd.add(100)
    # A subtask of the source more than there are splits: it waits for nothing, whatever becomes of the others.
    ground.nodes.submit(name, PRESSED.format(name=name, nats=ground.nats.url, stream=STREAM, url=url), parallelism=3)
    yield
    ground.receiver.delays[f"/{name}"] = delay
    crowd.add(rows)
    yield lambda: crowd.add(500)
    ground.receiver.delays[f"/{name}"] = 0


def receiver_is_slow(ground):
    yield from pressed(ground, "pressed", 60_000, 1.5)


def job_falls_behind(ground):
    # So slow that rows come faster also where the machine is busy.
    yield from pressed(ground, "crowded", 200_000, 3)
