"""Runs a Ray cluster of several nodes on this machine and a training on it, for ``chaos.py``."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from faults import (
    HOLDER,
    LOST_AT_MOST,
    TRAIN,
    FaultError,
    descendants,
    last_update,
    lost_updates,
    plays,
    send,
    title,
    until,
)
from ray.cluster_utils import Cluster

WORKERS, NODES = 4, 2
SETTINGS = (
    "--batch-size 4 --frame-limit 1000 --seed 11 --hang-seconds 5 --checkpoint-every 5 "
    f"--num-workers {WORKERS}"
)
ENDLESS = 10**9
"""A number of episodes that is never reached."""


class Machines:
    """A Ray cluster with a head without workers and some worker nodes."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(NODES):
            self.add()

    def address(self) -> str:
        """The cluster's current address."""
        return str(self.cluster.address)

    def add(self) -> None:
        """Add a node."""
        self.cluster.add_node(num_cpus=WORKERS // NODES, object_store_memory=200 * 2**20)

    def replace(self) -> None:
        """Shut down the rest of the cluster and start a new one."""
        for node in list(self.cluster.worker_nodes):
            self.kill_node(node)
        if self.cluster.head_node is not None:
            self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self.shutdown()
        self._start()

    def shutdown(self) -> None:
        """Shut down the cluster."""
        self.cluster.shutdown()  # type: ignore[no-untyped-call]

    def workers(self) -> list[psutil.Process]:
        """The workers that are playing."""
        nodes = list(self.cluster.worker_nodes)
        return [p for node in nodes for p in descendants(_process(node, "raylet")) if plays(p)]

    def holders(self) -> list[psutil.Process]:
        """The processes that hold the weights, which are on the driver's node."""
        children = descendants(_process(self.cluster.head_node, "raylet"))
        return [p for p in children if title(p).startswith(HOLDER)]

    def kill_node(self, node: Any) -> None:
        """Kill a node's raylet, all its descendants and with them its object store."""
        raylet = _process(node, "raylet")
        for process in [raylet, *descendants(raylet)]:
            send(process, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_at_head(self, name: str) -> None:
        """Kill the head's ``raylet``, which is the driver's, or its ``gcs_server``."""
        send(_process(self.cluster.head_node, name), signal.SIGKILL)

    def store_bytes(self) -> int | None:
        """Bytes used in all object stores; None while Ray still queries a dead node."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "memory", "--stats-only"]
        output = subprocess.run(
            [*command, "--address", self.cluster.address],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        used = re.search(r"Plasma memory usage (\d+) MiB", output)
        return int(used.group(1)) * 2**20 if used else None


class Training:
    """The ``distributed-pg train`` command on the cluster, for a new or a resumed run.

    Args:
        address: returns the cluster's current address.
        run: the run's folder.
        episodes: number of episodes after which it stops.
    """

    def __init__(self, address: Callable[[], str], run: Path, episodes: int) -> None:
        self._address = address
        self.run = run
        self.log = run.parent / f"{run.name}.log"
        self.process = self._start(episodes)

    def _start(self, episodes: int) -> subprocess.Popen[bytes]:
        target = ["--resume", str(self.run)]
        if not (self.run / "config.json").exists():
            target = ["--run-dir", str(self.run), *SETTINGS.split()]
        command = [*TRAIN, *target, "--address", self._address(), "--stop-episodes", str(episodes)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def resume(self, episodes: int) -> None:
        """Resume the run after its command has ended."""
        self.process = self._start(episodes)

    def kill(self) -> None:
        """Send SIGKILL to the learner."""
        self.process.kill()
        self.process.wait()

    def end_by(self, number: signal.Signals) -> None:
        """Send a signal that makes the learner save and stop.

        Raises:
            FaultError: it did not end, did not exit with 0, or lost more than one update.
        """
        before = last_update(self.run)
        self.process.send_signal(number)
        self.await_end(before, {0})

    def await_end(self, before: int, codes: set[int]) -> None:
        """Wait for the learner to exit with one of ``codes`` and its last update saved.

        Raises:
            FaultError: it did not.
        """
        until(lambda: self.process.poll() is not None, "the learner to end")
        if self.process.returncode not in codes:
            raise FaultError(f"the learner exited with {self.process.returncode}:\n{self.tail()}")
        if (lost := lost_updates(self.run, before)) > LOST_AT_MOST:
            raise FaultError(f"the learner ended and lost {lost} updates:\n{self.tail()}")

    def finish(self) -> None:
        """Wait for the run to finish.

        Raises:
            FaultError: the run failed.
        """
        if self.process.wait() != 0:
            raise FaultError(f"the training failed:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


def _process(node: Any, name: str) -> psutil.Process:
    return psutil.Process(node.all_processes[name][0].process.pid)
