"""The Helm chart: what it renders with several values, what it refuses, and the configuration files in it."""

import re
import shutil
import subprocess
import sys

from .nodes import Cluster, refusal

# Helm's own idea of the cluster depends on how it was built.
KUBERNETES = "1.31.0"
# Versions whose schemas the rendered chart is held against: the oldest and newest that it was tried with.
VALIDATED = ("1.25", "1.37")
NEEDED = ["state.url=s3://streams/state", "http.tokenSecret=tokens"]
ACCEPTED = {
    "least": NEEDED,
    "all": [*NEEDED, "serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true", "tls.issuerRef.name=authority",
            "antiAffinity=required", "envFrom[0].secretRef.name=s3", "workers.memory=2 gb", "workers.disk.storageClassName=fast"],
    "directory": ["state.claim=shared", "http.tokenSecret=tokens", "tls.secret=tls", "workers.disk.persistent=false", "antiAffinity=none"],
    "changed": [*NEEDED, "coordinators.replicas=5", "coordinators.ids.1=6", "podDisruptionBudget.enabled=false", "serviceAccount.create=false"],
    "one": [*NEEDED, "coordinators.replicas=1", "coordinators.founders=1"],
}
REFUSED = {
    "say where checkpoints lie": ["http.tokenSecret=tokens"],
    "exclude each other": [*NEEDED, "state.claim=shared"],
    "is the URL of an object store": ["state.url=/mnt/shared", "http.tokenSecret=tokens"],
    "names the secret with the tokens": ["state.url=s3://streams/state"],
    "is 1, 3 or 5": [*NEEDED, "coordinators.founders=2"],
    "less than coordinators.founders": [*NEEDED, "coordinators.replicas=2"],
    "would take 60 %": [*NEEDED, "workers.resources.limits=null"],
    "antiAffinity is": [*NEEDED, "antiAffinity=sometimes"],
}


def run_helm(helm, chart, what, values):
    options = [part for value in values for part in ("--set", value)]
    command = {"lint": ["lint", "--strict", chart], "template": ["template", "demo", chart, "--namespace", "streams"]}[what]
    return subprocess.run([helm, *command, "--kube-version", KUBERNETES, *options], capture_output=True, text=True)


def files(rendered):
    """The configuration files, by name: literal blocks of the ConfigMap."""
    found = {}
    for name, block in re.findall(r"^  (\S+\.toml): \|\n((?:    .*\n|\n)+)", rendered, re.MULTILINE):
        found[name] = re.sub(r"(?m)^    ", "", block)
    return found


def schemas(validate, rendered, directory):
    """What was rendered against Kubernetes' schemas, by the program kubernetes-validate; kinds of others have none there."""
    for name, text in rendered.items():
        path = directory / f"rendered-{name}.yaml"
        path.write_text(text)
        for version in VALIDATED:
            done = subprocess.run([validate, "--strict", "--kubernetes-version", version, path], capture_output=True, text=True)
            # Nothing looked at is as wrong as something refused.
            if done.returncode or done.stdout.count("passed for resource statefulset/") != 2:
                yield f"chart, {name}, against the schemas of Kubernetes {version}: {done.stdout}{done.stderr}"


def check(helm, chart, binary, directory, docs):
    problems = []
    rendered = {}
    for name, values in ACCEPTED.items():
        for what in ("lint", "template"):
            done = run_helm(helm, chart, what, values)
            if done.returncode:
                problems.append(f"helm {what} with {values}: {done.stdout}{done.stderr}")
        rendered[name] = done.stdout
    for message, values in REFUSED.items():
        done = run_helm(helm, chart, "template", values)
        if done.returncode == 0 or message not in done.stderr:
            problems.append(f"helm template with {values} should say '{message}', and says: {done.stderr[-300:]}")
    if problems:
        return problems
    for name, text in rendered.items():
        found = files(text)
        if not any(file.startswith("demo-mainstem-coordinator-0") for file in found) or "worker.toml" not in found:
            problems.append(f"chart, {name}: no configuration files found in what was rendered: {sorted(found)}")
        for file, content in found.items():
            command = "worker" if file == "worker.toml" else "coordinator"
            if reason := refusal(binary, command, content, directory):
                problems.append(f"chart, {name}, {file}: {reason}")
        problems += names(name, text, found)
    if validate := shutil.which("kubernetes-validate"):
        problems += schemas(validate, rendered, directory)
    for path in set(re.findall(r"path: (/[a-z]+)\b(?!/)", rendered["all"])):
        if f"`GET {path}`" not in docs and f"`{path}`" not in docs and f"GET {path}" not in docs:
            problems.append(f"chart: there is no route {path} in docs/rest.md")
    for rule in re.findall(r"(?m)^.*- alert: .*$", (chart.parent.parent / "prometheus/alerts.yml").read_text()):
        if rule.strip() not in rendered["all"]:
            problems.append(f"chart: '{rule.strip()}' is not in what was rendered")
    if not problems:
        text = files(rendered["least"])
        of_coordinators = [(text[f"demo-mainstem-coordinator-{pod}.toml"], {}) for pod in range(3)]
        with Cluster(binary, directory / "chart", of_coordinators, (text["worker.toml"], {"MAINSTEM_NAME": "demo-mainstem-worker-0"})) as cluster:
            cluster.runs()
    return problems


def names(name, text, found):
    """Members are called by names that Kubernetes gives: POD.SERVICE.NAMESPACE.svc.DOMAIN of a headless service, one for each pod."""
    sets = re.findall(r"kind: StatefulSet\nmetadata:\n  name: (\S+)[\s\S]*?\n  serviceName: (\S+)\n  replicas: (\d+)\n", text)
    known = {f"{pods}-{pod}.{service}.streams.svc.cluster.local" for pods, service, replicas in sets for pod in range(int(replicas))}
    headless = re.findall(r"kind: Service\nmetadata:\n  name: (\S+)\n(?:    .*\n|  labels:\n)*spec:\n  clusterIP: None\n  publishNotReadyAddresses: true\n", text)
    problems = [f"chart, {name}: service {service} is not headless" for _, service, _ in sets if service not in headless]
    if len(sets) != 2:
        problems.append(f"chart, {name}: {len(sets)} StatefulSets found instead of two")
    for file, content in found.items():
        members = re.findall(r"=([^\":]+):7071\"", content)
        problems += [f"chart, {name}, {file}: no pod is called {member}" for member in members if member not in known]
        if not members:
            problems.append(f"chart, {name}, {file}: no members")
        pod = file.removesuffix(".toml")
        if file != "worker.toml" and pod not in {host.split(".")[0] for host in known}:
            problems.append(f"chart, {name}: no pod reads {file}")
    return problems
