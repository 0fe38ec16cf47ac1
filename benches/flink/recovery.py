"""The job of `recover.py` on Flink, whose TaskManager is killed by SIGKILL again and again."""

import os
import signal
import time
from dataclasses import dataclass, field

from flink.cluster import Cluster, FlinkError

# What can be set for quick recovery without changing what is guaranteed: silence is noticed sooner, and the job starts
# again at once.
HEARTBEATS = {"heartbeat.interval": "1s", "heartbeat.timeout": "5s"}
RESTART_AT_ONCE = {"restart-strategy.type": "fixed-delay", "restart-strategy.fixed-delay.delay": "0 s", "restart-strategy.fixed-delay.attempts": "1000"}
# Flink publishes the file that it writes when it is rolled over and a checkpoint is complete; this makes it one each second.
SINK = {"sink.rolling-policy.rollover-interval": "1 s", "sink.rolling-policy.check-interval": "200 ms"}
WAIT_SECONDS_MAX = 120


@dataclass
class Variant:
    """How Flink is set up. With `waits`, a second TaskManager with free slots runs already; without, one is started
    when the first has been killed."""

    waits: bool
    options: dict = field(default_factory=dict)


VARIANTS = {
    "Flink, default": Variant(False, {"restart-strategy.type": "exponential-delay"}),
    "Flink, default, a TaskManager waits": Variant(True, {"restart-strategy.type": "exponential-delay"}),
    "Flink, tuned, a TaskManager waits": Variant(True, HEARTBEATS | RESTART_AT_ONCE),
}


class Recovery:
    """A running job; `with Recovery(...) as job`, then `job.settle()` and `job.kill()` in turn."""

    def __init__(self, directory, variant, statements, parallelism):
        self.variant, self.statements = variant, statements
        self.cluster = Cluster(directory, parallelism, heap="1024m", options=variant.options)
        self.parallelism, self.managers, self.job = parallelism, [], None

    def __enter__(self):
        self.cluster.__enter__()
        try:
            self.managers.append(self.cluster.task_manager)
            settings = {"execution.checkpointing.interval": "1s", "execution.checkpointing.mode": "EXACTLY_ONCE"}
            self.job = self.cluster.submit(self.statements, settings, WAIT_SECONDS_MAX)
            # The job has all slots of the first one, so this one waits.
            if self.variant.waits:
                self.managers.append(self.cluster.start_task_manager())
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def __exit__(self, *_):
        self.cluster.stop()

    def settle(self):
        """Waits until the job runs, some checkpoints of this attempt are complete, and what shall wait does."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        first = None
        while time.monotonic() < deadline:
            state = self.cluster.rest(f"/jobs/{self.job}")["state"]
            if state in ("FAILED", "FINISHED", "CANCELED"):
                raise FlinkError(f"the job is {state}; see {self.cluster.run_directory / 'log'}")
            completed = self.cluster.rest(f"/jobs/{self.job}/checkpoints")["counts"]["completed"]
            first = completed if first is None or state != "RUNNING" else first
            free = self.cluster.rest("/overview")["slots-available"]
            if state == "RUNNING" and completed >= first + 5 and free >= (self.parallelism if self.variant.waits else 0):
                return
            time.sleep(0.2)
        raise FlinkError(f"the job does not run; see {self.cluster.run_directory / 'log'}")

    def kill(self):
        """Kills the TaskManager on which the job runs, and starts one in its place."""
        victim = self.managers.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        self.managers.append(self.cluster.start_task_manager())
