"""What goes wrong for each alert of nodes, and those of jobs that take a node's death. Generators as in `faults`."""

import http.client
import re
import resource
import time

from alert_checks.faults import steady

OPEN_FILES_MAX = 160


def all_slots_in_use(ground):
    yield
    ground.nodes.submit("south", steady(), parallelism=2)
    yield
    ground.start_worker("w4")


def workers_killed(ground):
    yield
    ground.nodes.kill("w4", "w2")
    yield
    ground.start_worker("w2")
    ground.start_worker("w4")
    ground.nodes.until(lambda: all(ground.nodes.runs(name) for name in ("north", "south")), "all jobs run again")


def worker_killed_again_and_again(ground):
    yield
    yield killer(ground, "north")
    ground.nodes.until(lambda: ground.nodes.runs("north"), "job north runs again")


def killer(ground, job):
    """Kills the worker that runs the job, each time the job runs again; and starts what was killed."""
    def tick():
        if ground.nodes.runs(job):
            workers = (ground.nodes.answers("workers") or {}).get("workers", [])
            for name in [worker["name"] for worker in workers if job in worker["jobs"] and worker["name"] in ground.nodes.processes]:
                ground.nodes.kill(name)
                ground.start_worker(name)
                time.sleep(0.5)

    return tick


def another_cluster(ground):
    yield
    ground.prometheus.scrape("other", ground.other.http["c1"])
    yield
    ground.prometheus.scrape("other", None)


def majority_killed(ground):
    yield
    leader = ground.nodes.ask("coordinators")["leader"]["id"]
    killed = [str(leader), next(number for number in ground.nodes.members if number != str(leader))]
    ground.nodes.kill(*(f"c{number}" for number in killed))
    yield
    for number in killed:
        ground.nodes.start_coordinator(number)


def connections_without_end(ground):
    """To a process that may have few of them open."""
    name = ground.single
    port = ground.nodes.http[name]
    resource.prlimit(ground.nodes.processes[name].pid, resource.RLIMIT_NOFILE, (OPEN_FILES_MAX, OPEN_FILES_MAX))
    yield
    asked, opened = connection(port), []
    while figure(asked, "process_open_fds") < 0.85 * OPEN_FILES_MAX:
        opened.append(connection(port))
    yield
    for one in [asked, *opened]:
        one.close()


def connection(port):
    """One over which a request has been answered, so that the process has it open for certain."""
    made = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    made.request("GET", "/health")
    made.getresponse().read()
    return made


def figure(asked, name):
    asked.request("GET", "/metrics")
    text = asked.getresponse().read().decode()
    return float(re.search(rf"(?m)^{name} (\S+)$", text)[1])
