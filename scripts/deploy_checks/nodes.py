"""A cluster of real processes from configuration files that are meant for elsewhere: addresses and directories in them become those
of this machine, everything else stays as it is written."""

import json
import os
import re
import secrets
import subprocess
import time
import tomllib
import urllib.error
import urllib.request

from ports import free_port

SECONDS_MAX = 60


def environment(**variables):
    """That of this process without what would configure nodes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAINSTEM_")} | variables


def refusal(binary, command, text, directory):
    """What the program says against a configuration file; None where it takes it."""
    path = directory / "checked.toml"
    path.write_text(text)
    # The file is read and checked before help is shown.
    found = subprocess.run([binary, command, "--config", path, "--help"], env=environment(), capture_output=True, text=True)
    return None if found.returncode == 0 else found.stderr.strip()


class Cluster:
    """`coordinators`: the text of each one's file and its variables. `worker`: the same for a worker."""

    def __init__(self, binary, directory, coordinators, worker):
        self.binary, self.directory, self.processes = binary, directory, []
        self.coordinators, self.worker = coordinators, worker
        directory.mkdir(parents=True)
        self.token = secrets.token_hex(16)
        (directory / "tokens").write_text(f"check admin {self.token}\n")
        members = tomllib.loads(coordinators[0][0])["members"]
        self.ports = {member.split("=")[1]: free_port() for member in members}

    def __enter__(self):
        self.http = []
        for number, (text, variables) in enumerate(self.coordinators):
            self.http.append(free_port())
            id = str(tomllib.loads(text).get("coordinator", {}).get("id") or variables["MAINSTEM_ID"])
            member = next(m.split("=")[1] for m in tomllib.loads(text)["members"] if m.split("=")[0] == id)
            self.start("coordinator", number, text, variables, self.ports[member], self.http[-1])
        port = free_port()
        self.http.append(free_port())
        self.start("worker", 0, self.worker[0], self.worker[1] | {"MAINSTEM_ADVERTISE": f"127.0.0.1:{port}"}, port, self.http[-1])
        return self

    def start(self, kind, number, text, variables, port, http):
        home = self.directory / f"{kind}-{number}"
        home.mkdir()
        for address, local in self.ports.items():
            text = text.replace(f'={address}"', f'=127.0.0.1:{local}"')
        # Not of this machine alone, as it is written: that demands tokens.
        text = re.sub(r'"0\.0\.0\.0:80[0-9]+"', f'"0.0.0.0:{http}"', text)
        text = re.sub(r'"0\.0\.0\.0:70[0-9]+"', f'"127.0.0.1:{port}"', text)
        text = re.sub(r'"/etc/mainstem/tokens(/tokens)?"', f'"{self.directory}/tokens"', text)
        text = re.sub(r'(?m)^state-dir = .*$', f'state-dir = "{self.directory}/state"', text)
        text = text.replace('"/var/lib/mainstem', f'"{home}')
        (home / "mainstem.toml").write_text(text)
        variables = {name: value for name, value in variables.items() if not name.endswith("_LISTEN")}
        listening = {"MAINSTEM_LISTEN": f"127.0.0.1:{port}", "MAINSTEM_CONFIG": str(home / "mainstem.toml")}
        log = open(home / "log", "wb")
        command = [self.binary, kind]
        self.processes.append(subprocess.Popen(command, env=environment(**variables, **listening), cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def ask(self, port, path):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def runs(self):
        """Waits until every node says that it can do its work, and the coordinators know the worker."""
        for port in self.http:
            for path in ("/health", "/ready", "/metrics"):
                self.until(lambda port=port, path=path: self.ask(port, path))
        workers = self.until(lambda: json.loads(self.ask(self.http[0], "/api/v1/workers"))["workers"])
        members = json.loads(self.ask(self.http[0], "/api/v1/coordinators"))["members"]
        if len(members) != len(self.coordinators):
            raise AssertionError(f"{len(self.coordinators)} coordinators run, and the cluster knows {members}")
        return workers

    def until(self, answer):
        deadline, last = time.monotonic() + SECONDS_MAX, None
        while time.monotonic() < deadline:
            ended = [process.args for process in self.processes if process.poll() is not None]
            if ended:
                raise AssertionError(f"ended: {ended}\n{self.logs()}")
            try:
                last = answer()
                if last:
                    return last
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"the cluster does not run within {SECONDS_MAX} s; last answer: {last}\n{self.logs()}")

    def logs(self):
        return "\n".join(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(self.directory.glob("*/log")))

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
