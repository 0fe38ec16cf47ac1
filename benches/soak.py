#!/usr/bin/env python3
"""Runs a cluster for a long time while something is broken all the time, and shows whether anything grows.

    benches/soak.py                                   20 minutes, a fault each 20 seconds
    benches/soak.py --minutes 1.5 --every 8 --seed 7

Three coordinators and three workers, each on a host of its own (a network namespace). A job counts in windows and joins, over
a generator of a fixed rate, with exactly-once files and checkpoints each second. Faults, drawn at random: a node dies by
SIGKILL and is started again two seconds later; a node is stopped for some seconds; a node is cut off from all others, in both
directions or in one; two workers are cut off from each other. The first coordinator and the first worker are never killed, only
stopped and cut off, so that what they hoard shows.

At the end the job must have finished, its output must be that of one undisturbed process, no epoch and no attempt may have
gone back, and nothing may grow: memory, file handles and threads of the two that live throughout; objects in the checkpoint
store; bytes of what coordinators agree on. For each a line is fitted through the second half of the time; for the worker beside a
level for each slot in use, since faults move the job about. What the line gains must be below the tolerance: a tenth of the
mean, or a fixed amount where that is more. The allocator is told to give memory back at once (MIMALLOC_PURGE_DELAY=0) and
to leave huge pages alone (MIMALLOC_ALLOW_THP=0), to which the kernel rounds up what even an idle process holds; so what is seen is
what the nodes hold. Exits with 1 where anything is wrong. Only the standard library is used; see docs/benchmarks.md.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import mainstem
from harness.network import Network, NetworkError, address

COORDINATORS, WORKERS, SLOTS, PARALLELISM = 3, 3, 2, 4
NODES = [f"coordinator-{i + 1}" for i in range(COORDINATORS)] + [f"worker-{i + 1}" for i in range(WORKERS)]
SPARED = {"coordinator-1", "worker-1"}
RESTART_AFTER = 2.0
SAMPLE_EVERY = 2.0
# The job may take so much longer than its rate says, for all its restarts, in seconds for each fault.
SECONDS_A_FAULT = 15

SQL = """
SET 'execution.checkpointing.interval' = '1 s';
CREATE TABLE auction (id BIGINT, seller BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
WITH ('connector' = 'nexmark', 'table' = 'auction', {options});
CREATE TABLE bid (auction BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
WITH ('connector' = 'nexmark', 'table' = 'bid', {options});
CREATE TABLE counts (auction BIGINT, bids BIGINT, highest BIGINT, ended TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'out/counts', 'format' = 'json');
CREATE TABLE first_bids (auction BIGINT, seller BIGINT, bids BIGINT, ended TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'out/first_bids', 'format' = 'json');
INSERT INTO counts
SELECT auction, COUNT(*), MAX(price), window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;
CREATE VIEW soon AS
SELECT a.id, a.seller, b.`dateTime` FROM auction a
JOIN bid b ON a.id = b.auction AND b.`dateTime` BETWEEN a.`dateTime` AND a.`dateTime` + INTERVAL '5' SECOND;
INSERT INTO first_bids
SELECT id, seller, COUNT(*), window_end FROM TABLE(TUMBLE(TABLE soon, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
GROUP BY id, seller, window_start, window_end;
"""

# What must stay flat: unit, and the gain that is always tolerated.
MEASURES = {"memory": ("MB", 12.0), "handles": ("", 10.0), "threads": ("", 4.0), "objects": ("", 40.0), "log": ("MB", 1.0)}


class SoakError(Exception):
    """Something is not as it must be."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="how long (default: 20)")
    parser.add_argument("--every", type=float, default=20, help="seconds from one fault to the next (default: 20)")
    parser.add_argument("--rate", type=int, default=10_000, help="events a second (default: 10000)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; default: another one each time")
    parser.add_argument("--binary", help="a built mainstem; default: builds target/release/mainstem")
    parser.add_argument("--keep", metavar="DIRECTORY", help="copy logs and samples to this directory at the end")
    return parser.parse_args()


def statements(events, rate, is_paced):
    options = {"events.num": events, "first-event.rate": rate, "next-event.rate": rate, "rate.limited": str(is_paced).lower(), "splits": 4}
    return SQL.format(options=", ".join(f"'{key}' = '{value}'" for key, value in options.items()))


class Cluster:
    """Nodes on hosts of their own; what dies is started again by `look_after`. The last host is for commands."""

    def __init__(self, binary, directory):
        self.binary, self.directory = str(binary), directory
        self.network = Network(len(NODES) + 1)
        self.members = [f"{address(i)}:7071" for i in range(COORDINATORS)]
        self.processes, self.start_at = {}, {}
        for name in NODES:
            self.start(name)

    def command(self, host, *words):
        return [*self.network.hosts[host].enter(), self.binary, *words]

    def start(self, name):
        host = NODES.index(name)
        if name.startswith("coordinator"):
            members = ",".join(f"{i + 1}={member}" for i, member in enumerate(self.members))
            words = ["coordinator", f"--id={host + 1}", f"--members={members}", f"--data-dir={self.directory / name}", f"--state-dir={self.directory / 'state'}"]
        else:
            words = ["worker", f"--name={name}", f"--coordinators={','.join(self.members)}", f"--listen={address(host)}:7072", f"--slots={SLOTS}", f"--copies-dir={self.directory / name}"]
        with open(self.directory / f"{name}.log", "ab") as log:
            environment = dict(os.environ, MAINSTEM_LOG="info,openraft=warn", MIMALLOC_PURGE_DELAY="0", MIMALLOC_ALLOW_THP="0")
            self.processes[name] = subprocess.Popen(self.command(host, *words, "--with-parent"), cwd=self.directory, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)

    def look_after(self):
        """Starts again what has died."""
        now = time.monotonic()
        for name, process in self.processes.items():
            if process.poll() is not None:
                if process.returncode != -signal.SIGKILL:
                    raise SoakError(f"{name} has ended by itself with {process.returncode}; see its log")
                if now >= self.start_at.setdefault(name, now + RESTART_AFTER):
                    del self.start_at[name]
                    self.start(name)

    def ask(self, *words):
        command = self.command(len(NODES), *words, f"--coordinators={','.join(self.members)}")
        return subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)

    def jobs(self):
        answer = self.ask("jobs", "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def end(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.network.end()


# --- faults ------------------------------------------------------------------------------------------------


def draw(chance, cluster):
    """A fault: what it is, and what ends it after how long."""
    network, hosts = cluster.network, range(len(NODES))
    name = chance.choice(NODES)
    kind = chance.choice(["kill", "kill", "leader", "stop", "cut", "one way", "pair"])
    if kind == "leader":
        jobs = cluster.jobs()
        if jobs and jobs["leads"]:
            name, kind = NODES[cluster.members.index(jobs["leader"])], "kill"
    if kind in ("kill", "leader") and name in SPARED:
        kind = "stop"
    node = NODES.index(name)
    lasts = chance.uniform(0.5, 8)
    process = cluster.processes[name]
    if kind in ("kill", "leader"):
        process.kill()
        return f"kill {name}", 0, lambda: None
    if kind == "stop":
        process.send_signal(signal.SIGSTOP)
        return f"stop {name} for {lasts:.1f} s", lasts, lambda: process.send_signal(signal.SIGCONT)
    if kind == "pair":
        some, others = map(lambda host: [host], chance.sample(range(COORDINATORS, len(NODES)), 2))
        network.cut_one_way(some, others)
        network.cut_one_way(others, some)
        return f"cut {NODES[some[0]]} from {NODES[others[0]]} for {lasts:.1f} s", lasts, lambda: network.heal(some, others)
    is_deaf = kind == "cut" or chance.random() < 0.5
    if kind == "cut" or not is_deaf:
        network.cut_one_way([node], hosts)
    if is_deaf:
        network.cut_one_way(hosts, [node])
    how = "both ways" if kind == "cut" else "it hears nobody" if is_deaf else "nobody hears it"
    return f"cut {name}, {how}, for {lasts:.1f} s", lasts, lambda: network.heal([node], hosts)


# --- what is measured --------------------------------------------------------------------------------------


def of_process(process):
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    handles = len(os.listdir(f"/proc/{process}/fd"))
    return {"memory": int(fields["VmRSS"].split()[0]) / 1024, "handles": handles, "threads": int(fields["Threads"])}


def files_below(directory):
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue  # deleted meanwhile


def sample(cluster):
    found = {}
    for name in sorted(SPARED):
        for measure, value in of_process(cluster.processes[name].pid).items():
            found[f"{measure} of {name}"] = value
    found["objects in the checkpoint store"] = sum(1 for _ in files_below(cluster.directory / "state"))
    # Raft's log is a file that grows in steps, so one of them says little; the audit trail has a limit of its own.
    directories = [cluster.directory / f"coordinator-{i + 1}" for i in range(COORDINATORS)]
    sizes = [sum(files_below(directory)) - sum(files_below(directory / "audit")) for directory in directories]
    found["log of a coordinator, the median"] = statistics.median(sizes) / 1e6
    return found


def fitted_gain(points):
    """What the line through points (time, slots, value) gains from the first to the last, by least squares over time and
    slots; and the mean value."""
    times, slots, values = ([value - statistics.mean(column) for value in column] for column in zip(*points))
    product = lambda one, other: sum(a * b for a, b in zip(one, other))
    spread = product(times, times) * product(slots, slots) - product(times, slots) ** 2
    if spread > 1e-6:
        slope = (product(times, values) * product(slots, slots) - product(slots, values) * product(times, slots)) / spread
    else:
        slope = product(times, values) / product(times, times)
    return slope * (points[-1][0] - points[0][0]), statistics.mean(value for _, _, value in points)


def report(samples):
    """The table, and what grows."""
    lines = ["| what | at the middle | at the end | mean | gain in the second half | tolerated |", "|---|---:|---:|---:|---:|---:|"]
    growing = []
    half = samples[len(samples) // 2 :]
    for key in samples[0][2]:
        unit, least = MEASURES[key.split()[0]]
        gain, mean = fitted_gain([(at, slots if "worker" in key else 0, found[key]) for at, slots, found in half])
        tolerated = max(mean / 10, least)
        if gain > tolerated:
            growing.append(f"{key} grows: {gain:.1f} {unit} in the second half, {tolerated:.1f} are tolerated")
        shown = [half[0][2][key], half[-1][2][key], mean, gain, tolerated]
        lines.append(f"| {key} {f'({unit}) ' if unit else ''}| " + " | ".join(f"{value:.1f}" for value in shown) + " |")
    return "\n".join(lines), growing


def digest(directory):
    """Number and sum of the hashes of all lines that are visible: equal for equal lines in any order."""
    count, total = 0, 0
    for file in sorted(Path(directory).rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(directory).parts):
            with open(file, "rb") as opened:
                for line in opened:
                    count += 1
                    total += int.from_bytes(hashlib.blake2b(line.strip(), digest_size=16).digest(), "little")
    return count, total % (1 << 128)


# --- the run -----------------------------------------------------------------------------------------------


class Soak:
    def __init__(self, options, cluster, chance):
        self.options, self.cluster, self.chance = options, cluster, chance
        self.samples, self.faults, self.newest = [], [], {"committed": 0, "generation": 0}
        self.heal = None
        # Of the worker that is spared, as last heard.
        self.slots = 0

    def run(self, events):
        self.submit()
        started = time.monotonic()
        fault_at, heal_at, sample_at = started + self.options.every, None, started
        seconds = events / self.options.rate
        deadline = started + seconds + SECONDS_A_FAULT * seconds / self.options.every + 60
        while not self.look():
            now = time.monotonic()
            if now > deadline:
                raise SoakError(f"the job has not ended after {now - started:.0f} s")
            self.cluster.look_after()
            if heal_at is not None and now >= heal_at:
                self.end_fault()
                heal_at = None
            if now >= fault_at and heal_at is None and now < started + self.options.minutes * 60:
                what, lasts, self.heal = draw(self.chance, self.cluster)
                self.faults.append(what)
                print(f"{now - started:7.1f} s  epoch {self.newest['committed']:5}  attempt {self.newest['generation']:3}  {what}", flush=True)
                heal_at, fault_at = now + lasts, fault_at + self.options.every
            if now >= sample_at:
                self.samples.append((now - started, self.slots, sample(self.cluster)))
                sample_at = now + SAMPLE_EVERY
            time.sleep(0.25)
        self.end_fault()

    def end_fault(self):
        if self.heal:
            self.heal()
            self.heal = None

    def submit(self):
        deadline = time.monotonic() + 60
        while True:
            jobs = self.cluster.jobs()
            if jobs and jobs["leads"] and len(jobs["workers"]) == WORKERS:
                break
            if time.monotonic() > deadline:
                raise SoakError("the cluster does not come up")
            time.sleep(0.2)
        submitted = self.cluster.ask("submit", "job.sql", "--parallelism", str(PARALLELISM))
        if submitted.returncode != 0:
            raise SoakError(submitted.stderr)

    def look(self):
        """Checks that nothing goes back; true when the job has ended."""
        jobs = self.cluster.jobs()
        if not jobs or not jobs["leads"]:
            return False
        of_it = [worker["used"] for worker in jobs["workers"] if worker["offer"]["worker"].startswith("worker-1@")]
        self.slots = of_it[0] if of_it else self.slots
        [job] = [job for job in jobs["jobs"] if job["job"] == "job"]
        if not job["active"]:
            if job["end"] != "Finished" and "finished" not in str(job["end"]).lower():
                raise SoakError(f"the job ended: {job['end']}")
            return True
        if job["status"]:
            for field, before in self.newest.items():
                if job[field] < before:
                    raise SoakError(f"{field} {job[field]} after {before}")
                self.newest[field] = job[field]
        return False


def main():
    options = arguments()
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    binary = mainstem.binary(options.binary)
    events = int(options.minutes * 60 * options.rate)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.rate} events a second", flush=True)
    with tempfile.TemporaryDirectory(prefix="mainstem-soak-") as name:
        directory = Path(name)
        (directory / "job.sql").write_text(statements(events, options.rate, True), encoding="utf-8")
        cluster = Cluster(binary, directory)
        soak = Soak(options, cluster, random.Random(options.seed))
        try:
            soak.run(events)
        finally:
            cluster.end()
            if options.keep:
                keep(options.keep, directory, soak)
        problems = check_output(binary, directory, events, options)
        problems += [f"{log.name}: a panic" for log in directory.glob("*.log") if "panicked" in log.read_text(encoding="utf-8", errors="replace")]
    table, growing = report(soak.samples)
    print(f"\n{len(soak.faults)} faults, {soak.newest['generation']} attempts, {soak.newest['committed']} epochs\n\n{table}\n")
    problems += growing
    for problem in problems:
        print(problem, file=sys.stderr)
    print("all is as it must be" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def keep(target, directory, soak):
    Path(target).mkdir(parents=True, exist_ok=True)
    for log in directory.glob("*.log"):
        shutil.copy(log, target)
    Path(target, "samples.json").write_text(json.dumps(soak.samples), encoding="utf-8")


def check_output(binary, directory, events, options):
    alone = directory / "alone"
    alone.mkdir()
    mainstem.run(binary, statements(events, options.rate, False), 2, "10 s", 3600, working_directory=alone)
    problems = []
    for table in ("counts", "first_bids"):
        ours, theirs = digest(directory / "out" / table), digest(alone / "out" / table)
        print(f"{table}: {ours[0]} lines, {'the same as' if ours == theirs else 'not those of'} one undisturbed process")
        if ours != theirs:
            problems.append(f"{table}: {ours[0]} lines differ from the {theirs[0]} of one undisturbed process")
    return problems


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NetworkError, SoakError, mainstem.MainstemError) as error:
        sys.exit(str(error))
