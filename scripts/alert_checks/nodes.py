"""Processes of Mainstem with their HTTP ports: coordinators, workers, and jobs in a process of their own."""

import json
import os
import subprocess
import urllib.error
import urllib.request

from ports import free_port

from alert_checks.prometheus import until


class Nodes:
    """A cluster, by the names of its nodes: c1, c2 .. and w1, w2 .. . `targets` are for Prometheus."""

    def __init__(self, binary, directory, coordinators, slots):
        self.binary, self.directory, self.processes, self.http = binary, directory, {}, {}
        directory.mkdir(parents=True)
        self.members = {str(number + 1): f"127.0.0.1:{free_port()}" for number in range(coordinators)}
        for number in self.members:
            self.start_coordinator(number)
        for number, count in enumerate(slots):
            self.start_worker(f"w{number + 1}", count)

    def start_coordinator(self, number):
        members = [f"--members={id}={address}" for id, address in self.members.items()]
        self.start(f"c{number}", "coordinator", "--id", number, *members, "--data-dir", self.directory / f"data-{number}", "--state-dir", self.directory / "state")

    def start_worker(self, name, slots):
        self.start(name, "worker", "--name", name, "--coordinators", ",".join(self.members.values()), "--slots", slots, "--copies-max", 0)

    def start(self, name, *arguments):
        """Again under its old HTTP port where it ran before, as a service would be started."""
        port = self.http.setdefault(name, free_port())
        log = open(self.directory / f"{name}.log", "ab")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAINSTEM_")}
        command = [self.binary, *map(str, arguments), "--http", str(port)]
        self.processes[name] = subprocess.Popen(command, env=environment, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, *names):
        """By SIGKILL."""
        for name in names:
            process = self.processes.pop(name)
            process.kill()
            process.wait()

    def ask(self, path, body=None, method=None):
        """What the first coordinator that answers says. A refusal is an error with its message."""
        data = None if body is None else json.dumps(body).encode()
        last = None
        for name in sorted(name for name in self.processes if name.startswith("c")):
            url = f"http://127.0.0.1:{self.http[name]}/api/v1/{path}"
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return json.loads(answer.read() or b"{}")
            except urllib.error.HTTPError as error:
                text = error.read().decode(errors="replace")
                if error.code not in (503, 504):
                    raise AssertionError(f"{method or 'GET or POST'} {path}: {error.code} {text}") from error
                last = text
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                last = error
        raise LookupError(f"no coordinator answers: {last}")

    def answers(self, path):
        """The same; None where nobody answers at the moment."""
        try:
            return self.ask(path)
        except LookupError:
            return None

    def submit(self, name, sql, parallelism=1):
        """Runs it, and waits until it does."""
        self.ask("jobs", {"sql": sql, "name": name, "parallelism": parallelism, "checkpoint_interval_ms": 1000})
        self.until(lambda: self.runs(name), f"job {name} runs")

    def until(self, holds, what):
        return until(holds, lambda: f"{what}\n{self.logs()}", 60)

    def has_workers(self, count):
        """Whether a coordinator leads, and so many workers have come."""
        return len((self.answers("workers") or {}).get("workers", [])) == count

    def job(self, name):
        return (self.answers(f"jobs/{name}") or {}).get("job")

    def runs(self, name):
        """Whether its newest attempt runs."""
        return (self.job(name) or {}).get("state") == "running"

    def logs(self):
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(self.directory.glob("*.log")))

    def stop(self):
        self.kill(*self.processes)
