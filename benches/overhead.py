#!/usr/bin/env python3
"""What it costs to be looked at: the same job with its HTTP port and a scrape of /metrics every few seconds, and without the port.

    benches/overhead.py                      q5, seven runs of each kind, a scrape every 5 s
    benches/overhead.py q7 --every 1 --page  another query, more scrapes, and what an open page asks for every 2 s

Both kinds take turns, and which of them begins changes each time. Counting itself cannot be switched off and is in both: what
is compared is the port, gathering figures, and answers. CPU seconds are those of Mainstem's process alone; the wall time also has what
this script takes of the same cores. Shown are medians, their ratio, and the quartiles of the ratios of neighbours, which say how far
it can be trusted. Runs during which other processes used the machine are repeated. Before that, a job that does next to nothing is
scraped very often, which gives the CPU time of one scrape without such noise. Only the standard library is used.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import api, mainstem, noise, queries
from harness.cluster import cpu_seconds

sys.path.append(str(mainstem.ROOT / "scripts/support"))
from ports import free_port  # noqa: E402  (found by the path above)

# Tries at a run that nothing else disturbs.
ATTEMPTS_MAX = 4
PAGE_SECONDS = 2
SCRAPES = 5000
# The operators of a windowed count, with next to nothing to count.
QUIET = """
CREATE TABLE made (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', 'rows-per-second' = '1');
CREATE TABLE counts (k BIGINT, w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT k, window_end, COUNT(*)
FROM TABLE(TUMBLE(TABLE made, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end;
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", nargs="?", default="q5", choices=sorted(queries.known()), metavar="QUERY", help="a name as in nexmark.py (default: q5)")
    parser.add_argument("--events", type=int, default=150_000_000, help="events of the stream (default: 150000000)")
    parser.add_argument("--every", type=float, default=5, help="seconds between two scrapes (default: 5)")
    parser.add_argument("--page", action="store_true", help=f"also ask each {PAGE_SECONDS} s for all that the page of a job may show")
    parser.add_argument("--checkpoint", default="1s", help="interval of checkpoints (default: 1s)")
    parser.add_argument("--parallelism", type=int, default=2, help="(default: 2)")
    parser.add_argument("--repetitions", type=int, default=7, help="measured runs of each kind (default: 7)")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    return parser.parse_args()


class Looker:
    """Asks for these paths every so many seconds while a run lasts. Started by `with`; ends with it."""

    def __init__(self, port, paths, seconds):
        self.port, self.paths, self.seconds, self.answers = port, paths, seconds, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def look(self):
        while not self.ended.wait(self.seconds):
            try:
                asked = api.Api(self.port)
                for path in self.paths:
                    asked.get(path)
                    self.answers += 1
            except OSError:
                # The job has just ended.
                pass


def text_of(options, directory):
    def made(script, path):
        raise queries.QueryError(f"{options.query} reads '{path}', which {script} makes; this benchmark takes queries over the generator only")

    return queries.prepare(options.query, queries.known()[options.query], queries.Settings(options.events, made, output=directory)).text()


def one(program, options, text, looked_at):
    """Wall and CPU seconds of a run that nothing else disturbed, and how many answers there were."""
    for _ in range(ATTEMPTS_MAX):
        watch = noise.Watch(noise.children_seconds)
        run = lambda *more: mainstem.run(program, text, options.parallelism, options.checkpoint, 300, more=more)
        if looked_at:
            port, job = free_port(), [route.format(job="job") for route in api.OF_JOB]
            with Looker(port, ["/metrics"], options.every) as scraper, Looker(port, ["/api/v1/jobs", *job], PAGE_SECONDS if options.page else 1e6) as page:
                wall, cpu, _ = run("--http", str(port))
            answers = scraper.answers, page.answers
            if not scraper.answers:
                raise SystemExit(f"the run took {wall:.1f} s and was never scraped: give more --events")
        else:
            (wall, cpu, _), answers = run(), (0, 0)
        if watch.others() <= noise.SHARE_MAX:
            return wall, cpu, answers
    raise SystemExit(f"in {ATTEMPTS_MAX} tries other processes took more than {100 * noise.SHARE_MAX:.0f} % of the machine")


def main():
    options = arguments()
    program = mainstem.binary(options.binary)
    with tempfile.TemporaryDirectory(prefix="mainstem-overhead-") as directory:
        seconds, size = scrape_seconds(program, options, Path(directory))
        share = seconds / options.every / options.parallelism
        print(f"a scrape of {size:,} bytes takes {1000 * seconds:.2f} ms of CPU: every {options.every:g} s, {share:.4%} of {options.parallelism} cores\n", flush=True)
        compare(program, options, text_of(options, Path(directory)))


def scrape_seconds(program, options, directory):
    """CPU seconds of one scrape, less what the process uses when it is left alone; and bytes of its answer."""
    (directory / "quiet.sql").write_text(QUIET)
    port = free_port()
    command = [program, "run", "quiet.sql", "-p", str(options.parallelism), "--checkpoint-interval", "1 h", "--http", str(port)]
    process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asked = connected(port)
        used = lambda: cpu_seconds(process.pid)
        began, before = time.monotonic(), used()
        bodies = [len(asked.get("/metrics")[0]) for _ in range(SCRAPES)]
        passed, scraped = time.monotonic() - began, used() - before
        before = used()
        time.sleep(passed)
        return (scraped - (used() - before)) / SCRAPES, bodies[-1]
    finally:
        process.kill()
        process.wait()


def connected(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            asked = api.Api(port)
            asked.get("/ready")
            return asked
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise SystemExit("the job does not answer within 30 s") from None
            time.sleep(0.2)


def compare(program, options, text):
    one(program, options, text, False)
    runs = {False: [], True: []}
    for number in range(options.repetitions):
        for looked_at in (False, True) if number % 2 else (True, False):
            wall, cpu, (scrapes, answers) = one(program, options, text, looked_at)
            runs[looked_at].append((wall, cpu))
            print(f"{'looked at' if looked_at else 'alone    '}  {wall:6.2f} s  {cpu:6.2f} CPU s  {scrapes} scrapes, {answers} answers of the API", flush=True)
    print("\n| | alone | looked at | ratio | quartiles of the ratios of neighbours |\n|---|---:|---:|---:|---:|")
    for name, i in (("wall s", 0), ("CPU s", 1)):
        alone, looked = ([run[i] for run in runs[kind]] for kind in (False, True))
        low, _, high = statistics.quantiles([b / a for a, b in zip(alone, looked)], n=4)
        medians = statistics.median(alone), statistics.median(looked)
        print(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[1] / medians[0]:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
