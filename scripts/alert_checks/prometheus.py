"""A real Prometheus with a copy of the alert rules in which time goes faster, and what it says of alerts."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from ports import free_port

# So many times shorter than in the rules are their ranges, offsets and `for:`. Bounds on values stay as they are.
FASTER = 30
SECONDS = {"s": 1, "m": 60, "h": 3600}
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: mainstem
    honor_labels: true
    file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]
"""


def shortened(rules):
    """The text of the rules with each `for: 5m`, `[10m]` and `offset 10m` a thirtieth as long."""
    def shorter(found):
        milliseconds = int(found[2]) * SECONDS[found[3]] * 1000 // FASTER
        # A range has to hold two scrapes.
        return f"{found[1]}{max(milliseconds, 3000 if found[1] == '[' else 1)}ms{found[4]}"

    return re.sub(r"(for: |\[|offset )(\d+)([smh])(\]|\b)", shorter, rules)


def check(promtool, *paths):
    done = subprocess.run([promtool, "check", "rules", *paths], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"promtool does not take the rules: {done.stdout}{done.stderr}")


class Prometheus:
    """Scrapes `targets`, `{name: port}`, which may be added and left out while it runs."""

    def __init__(self, program, rules, directory, targets):
        self.directory, self.targets, self.port = directory, dict(targets), free_port()
        directory.mkdir(parents=True)
        (directory / "rules.yml").write_text(shortened(rules.read_text()))
        check("promtool", rules, directory / "rules.yml")
        (directory / "prometheus.yml").write_text(CONFIG.format(targets=directory / "targets.json"))
        self.write_targets()
        command = [program, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        log = open(directory / "log", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def write_targets(self):
        found = [{"targets": [f"127.0.0.1:{port}"], "labels": {"node": name}} for name, port in self.targets.items()]
        new = self.directory / "targets.new"
        new.write_text(json.dumps(found))
        new.rename(self.directory / "targets.json")

    def scrape(self, name, port):
        """`port` None: no longer."""
        self.targets.pop(name, None)
        if port is not None:
            self.targets[name] = port
        self.write_targets()

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """`[(labels, value)]`."""
        return [(sample["metric"], float(sample["value"][1])) for sample in self.ask("query", query=expression)["result"]]

    def names(self):
        """Alerts of the rules that it has loaded."""
        return [rule["name"] for group in self.ask("rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"]

    def alerts(self, state=None):
        """Labels of the alerts that are active, or in this state: 'pending' or 'firing'."""
        return [alert["labels"] for alert in self.ask("alerts")["alerts"] if state in (None, alert["state"])]

    def fired(self):
        """Labels of all alerts that fired at any time since it was started."""
        return [labels for labels, _ in self.query('count_over_time(ALERTS{alertstate="firing"}[1h])')]

    def is_ready(self):
        """Whether all targets were scraped."""
        try:
            return sum(value for _, value in self.query("up")) == len(self.targets)
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self):
        self.process.kill()
        self.process.wait()


def until(holds, what, seconds_max, tick=lambda: None):
    """What `holds` answers, once that is true; `tick` is called each time before it is asked. `what` says what is waited for, or is
    asked for that when it has not come."""
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        tick()
        if found := holds():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds_max} s: {what() if callable(what) else what}")
