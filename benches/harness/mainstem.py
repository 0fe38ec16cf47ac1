"""Builds and runs Mainstem, and writes the inputs of `--source json` with it."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness import sql
from harness.queries import BENCHES, EXAMPLES

ROOT = BENCHES.parent
CHECKPOINT_NEVER = "1 h"


class MainstemError(Exception):
    """Mainstem cannot be built, or a job fails."""


def binary(given):
    if given:
        return Path(given).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked", "--package", "mainstem"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "mainstem"


def run(program, text, parallelism, checkpoint, seconds_max, working_directory=None, more=()):
    """Wall seconds, CPU seconds and peak bytes of one process that runs the SQL to its end. `checkpoint` is an
    interval or 'none', `more` are further options of the command."""
    with tempfile.TemporaryDirectory(prefix="mainstem-bench-") as directory:
        file = Path(directory) / "job.sql"
        file.write_text(text, encoding="utf-8")
        command = [
            str(program), "run", str(file), "--parallelism", str(parallelism), "--state-dir", str(Path(directory) / "state"),
            "--checkpoint-interval", CHECKPOINT_NEVER if checkpoint == "none" else checkpoint,
            *more,
        ]
        with open(Path(directory) / "log", "w+", encoding="utf-8") as log:
            started = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=working_directory)
            watchdog = threading.Timer(seconds_max, process.kill)
            watchdog.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            finally:
                watchdog.cancel()
            wall = time.monotonic() - started
            # Reaped above; without this Popen would wait for it again.
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                log.seek(0)
                raise MainstemError(reason(process.returncode, wall, seconds_max, log.read()))
        return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def reason(code, wall, seconds_max, log):
    if wall >= seconds_max:
        return f"the job took more than {seconds_max} s"
    # Lines of progress end with a carriage return.
    lines = [line for line in log.replace("\r", "\n").splitlines() if line.strip()]
    return f"ended with code {code} after {wall:.0f} s: " + "\n".join(lines[-6:])


def made(program, directory, script, path):
    """The directory of an input that a SQL file writes to a relative path; written when missing."""
    data = Path(directory) / "data"
    if not (data / path).exists():
        if not script.is_file():
            raise MainstemError(f"the query reads '{path}', and there is no {script.name} beside it to write it")
        data.mkdir(parents=True, exist_ok=True)
        run(program, script.read_text(encoding="utf-8"), 1, "none", 600, working_directory=data)
    return data / path


def json_events(program, kind, events, parallelism, directory):
    """The directory with the events of a kind as JSON lines, one file a subtask, each over the whole of the event
    time; made when missing."""
    data = Path(directory) / "data" / f"{kind}-{events}-{parallelism}"
    if not data.exists():
        print(f"writing the {kind} events of {events} to {data}", flush=True)
        making = data.with_name(data.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        run(program, copy_to_json(kind, events, making), parallelism, "none", 3600)
        making.rename(data)
    # Read once, so that no run pays for the disk.
    for file in sorted(data.rglob("*.json")):
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 22):
                pass
    return data


def copy_to_json(kind, events, target):
    """SQL that copies the table of a kind, all of its columns, into files."""
    tables = sql.statements((EXAMPLES / "generator.sql").read_text(encoding="utf-8"))
    [table] = [table for table in tables if sql.created(table) == kind]
    source = sql.with_options(table, {**sql.options(table), "events.num": events})
    columns = re.sub(r",\s*WATERMARK FOR.*", "\n)", table, flags=re.DOTALL).replace(f"TABLE {kind}", "TABLE copy")
    sink = f"{columns} WITH ('connector' = 'filesystem', 'path' = '{target}', 'format' = 'json', 'sink.rolling-policy.file-size' = '1 tb')"
    return f"{source};\n{sink};\nINSERT INTO copy SELECT * FROM {kind};\n"
