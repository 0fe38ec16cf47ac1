"""Asks a node's REST API over one connection, as a page does, and notes how long each answer took."""

import http.client
import json
import math
import random
import time

# What the page asks for while it is open, and what Prometheus asks for.
OF_JOB = (
    "/api/v1/jobs/{job}", "/api/v1/jobs/{job}/graph", "/api/v1/jobs/{job}/checkpoints", "/api/v1/jobs/{job}/commits",
    "/api/v1/jobs/{job}/lag", "/api/v1/jobs/{job}/timeline", "/api/v1/jobs/{job}/exceptions", "/api/v1/jobs/{job}/bad-records",
    "/api/v1/jobs/{job}/lineage", "/api/v1/jobs/{job}/configuration",
)
OF_CLUSTER = ("/api/v1/workers", "/api/v1/coordinators", "/api/v1/audit")
OF_ALL = ("/api/v1/session", "/api/v1/jobs", "/metrics")


class Api:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path):
        """The body of the answer, and milliseconds from the first byte that is sent to the last that has come."""
        began = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        passed = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
        return body, passed

    def json(self, path):
        return json.loads(self.get(path)[0])

    def post(self, path, body):
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"POST {path}: {answer.status} {text[:300]!r}")


def measured(api, routes, times, pause_seconds_max):
    """`{route: (milliseconds of each answer, bytes of the largest)}`, the routes in turns. After a random pause each, so that
    the engine has the cores when the request comes."""
    found = {route: ([], 0) for route in routes}
    for _ in range(times):
        for route in routes:
            time.sleep(random.uniform(0, pause_seconds_max))
            body, passed = api.get(route)
            passes, size = found[route]
            found[route] = ([*passes, passed], max(size, len(body)))
    return found


def quantile(values, share):
    """The least value that this share of all does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def table(found):
    """Markdown."""
    lines = ["| route | median ms | p99 ms | most ms | bytes |", "|---|---:|---:|---:|---:|"]
    for route, (passes, size) in found.items():
        lines.append(f"| `{route}` | {quantile(passes, 0.5):.1f} | {quantile(passes, 0.99):.1f} | {max(passes):.1f} | {size:,} |")
    return "\n".join(lines)
