"""Notices when something else uses the machine while a run is measured: figures of such a run are no figures."""

import os
import time

# The kernel needs some time of its own.
SHARE_MAX = 0.15


def busy_seconds():
    """CPU seconds that all processes of the machine have used so far; 0 where the system does not say."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    except OSError:
        return 0.0
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Watch:
    """Started before a run; `others` says what share of the machine others have used since. `own_seconds` gives the
    CPU seconds so far of all processes that belong to the run."""

    def __init__(self, own_seconds):
        self.own_seconds = own_seconds
        self.started, self.busy = time.monotonic(), busy_seconds() - own_seconds()

    def others(self):
        passed = max(time.monotonic() - self.started, 0.001)
        return max(0.0, busy_seconds() - self.own_seconds() - self.busy) / (passed * os.cpu_count())


def children_seconds():
    """CPU seconds of the children of this process that have ended."""
    times = os.times()
    return times.children_user + times.children_system
