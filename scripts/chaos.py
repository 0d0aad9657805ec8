"""Break a real training run, on a real Ray cluster, in every way we know, and check its bits.

Starts a Ray cluster of several nodes on this machine, trains on it with the ``distributed-pg``
command, and meanwhile kills and stops its workers, kills whole nodes with the results they hold,
and kills the command itself, also while it writes a checkpoint, and resumes it. Then it runs the
same settings without faults and compares the weights after every update:

    python scripts/chaos.py --minutes 30 --learner-kills 30 --out docs/results/chaos.json
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from distributed_pg.own_code import own_command
from distributed_pg.run_dir import read_metrics

WORKERS, NODES = 4, 2
DEADLINE = 180.0
"""Seconds in which a run must recover from anything."""
POLL = 0.05
SETTINGS = (
    "--batch-size 8 --frame-limit 2000 --seed 11 --hang-seconds 5 --checkpoint-every 5 "
    f"--num-workers {WORKERS}"
)
WORKER_FAULTS = {"worker_killed": 7, "worker_stopped": 2, "node_killed": 1}
"""What is done to workers, and how often."""
SAMPLE_SECONDS = 20.0
ENDLESS = 10**9
"""Episodes, more than there will be."""


@dataclass(frozen=True)
class Fault:
    """One thing that was broken."""

    kind: str
    second: float
    """Since the beginning."""
    update: int
    """The last update before it."""
    recovery_seconds: float
    """Until another update was made and all workers played again."""


@dataclass(frozen=True)
class Sample:
    """What the learner's process held at one moment."""

    second: float
    learner: int
    """Its process id: another one after each kill."""
    resident_bytes: int
    shared_bytes: int
    """Of these, the pages of the object store that it has looked at."""
    open_files: int
    store_bytes: int | None
    """Used in the object stores of all nodes; None: one had just gone."""


class Machines:
    """A Ray cluster of a head without workers and some nodes."""

    def __init__(self) -> None:
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        for _ in range(NODES):
            self.add()

    def add(self) -> None:
        """Start another node."""
        self.cluster.add_node(num_cpus=WORKERS // NODES, object_store_memory=200 * 2**20)

    def workers(self) -> list[psutil.Process]:
        """The workers that play at this moment."""
        nodes = self.cluster.worker_nodes
        return [p for node in nodes for p in _children(_raylet(node)) if _plays(p)]

    def kill_node(self, node: Any) -> None:
        """The raylet and all that it started end at once, and with them the node's store."""
        raylet = _raylet(node)
        for process in [raylet, *_children(raylet)]:
            _signal(process, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def store_bytes(self) -> int | None:
        """Memory in use in all object stores; None while Ray asks a node that is gone."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "memory", "--stats-only"]
        said = subprocess.run(
            [*command, "--address", self.cluster.address],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        used = re.search(r"Plasma memory usage (\d+) MiB", said)
        return int(used.group(1)) * 2**20 if used else None


class Training:
    """The ``distributed-pg train`` command on the cluster: begun, or gone on with."""

    def __init__(self, address: str, run: Path, episodes: int) -> None:
        self._address = address
        self.run = run
        self._metrics = run / "metrics.jsonl"
        self.log = run.parent / f"{run.name}.log"
        self.process = self._start(episodes)

    def _start(self, episodes: int) -> subprocess.Popen[bytes]:
        here = ["--resume", str(self.run)]
        if not (self.run / "config.json").exists():
            here = ["--run-dir", str(self.run), *SETTINGS.split()]
        here += ["--address", self._address, "--stop-episodes", str(episodes)]
        with self.log.open("ab") as log:
            return subprocess.Popen(own_command("train", *here), stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL to the learner."""
        self.process.kill()
        self.process.wait()

    def resume(self, episodes: int) -> None:
        """Go on after it was killed."""
        self.process = self._start(episodes)

    def finish(self) -> None:
        """Wait for the end of the run."""
        if self.process.wait() != 0:
            raise SystemExit(f"the training failed:\n{self.log.read_text()[-2000:]}")

    def update(self) -> int:
        """The last update in its metrics."""
        if not self._metrics.exists():
            return 0
        with self._metrics.open("rb") as file:
            file.seek(max(0, self._metrics.stat().st_size - 10_000))
            lines = file.read().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["update"]) if lines else 0

    def lines(self) -> list[dict[str, Any]]:
        """All of its metrics that are whole."""
        return read_metrics(self._metrics)


class Chaos:
    """Breaks a training run, again and again."""

    def __init__(self, machines: Machines, training: Training, seed: int) -> None:
        self._machines = machines
        self._training = training
        self._chance = random.Random(seed)
        self._begin = self._sampled = self._broken_at = time.monotonic()
        self.faults: list[Fault] = []
        self.samples: list[Sample] = []

    def worker_killed(self) -> None:
        """SIGKILL to a worker."""
        _signal(self._victim(), signal.SIGKILL)

    def worker_stopped(self) -> None:
        """SIGSTOP to a worker, which hangs from then on."""
        _signal(self._victim(), signal.SIGSTOP)

    def node_killed(self) -> None:
        """A node goes, and another one comes."""
        self._machines.kill_node(self._chance.choice(list(self._machines.cluster.worker_nodes)))
        self._machines.add()

    def learner_killed(self) -> None:
        """SIGKILL to the learner at any moment, then resume."""
        time.sleep(self._chance.uniform(0.0, 2.0))
        self._broken_at = time.monotonic()
        self._training.kill()
        self._training.resume(ENDLESS)

    def learner_killed_while_it_saves(self) -> None:
        """SIGKILL to the learner while it writes a checkpoint, then resume."""
        folder = self._training.run / "checkpoints"
        _until(lambda: any(folder.glob(".*.tmp")), "a checkpoint to be written", poll=0.0)
        self._broken_at = time.monotonic()
        self._training.kill()
        self._training.resume(ENDLESS)

    def do(self, kind: str) -> None:
        """Break something and wait until the run has recovered."""
        self._broken_at = time.monotonic()
        getattr(self, kind)()
        before, at = self._training.update(), self._broken_at
        _until(lambda: self._recovered(before), f"recovery from {kind}")
        recovery = time.monotonic() - at
        self.faults.append(Fault(kind, round(at - self._begin, 2), before, round(recovery, 2)))
        print(f"{at - self._begin:7.1f} s  {kind:30s} recovered in {recovery:.1f} s", flush=True)
        if time.monotonic() - self._sampled > SAMPLE_SECONDS:
            self.sample()
        time.sleep(self._chance.uniform(0.0, 1.0))

    def sample(self) -> None:
        """Look at the learner's process."""
        process = psutil.Process(self._training.process.pid)
        memory = process.memory_info()
        second = round(time.monotonic() - self._begin, 1)
        store = self._machines.store_bytes()
        self.samples.append(
            Sample(second, process.pid, memory.rss, memory.shared, process.num_fds(), store)
        )
        self._sampled = time.monotonic()

    def _victim(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = self._machines.workers()
            return bool(found)

        _until(look, "a worker that plays")
        return self._chance.choice(found)

    def _recovered(self, before: int) -> bool:
        if self._training.process.poll() is not None:
            self._training.finish()
        return self._training.update() > before and len(self._machines.workers()) == WORKERS


def main() -> None:
    """Break, compare, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults in workers (2)")
    parser.add_argument("--learner-kills", type=int, default=4, help="how many after that (4)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (0)")
    parser.add_argument("--out", type=Path, default=Path("chaos.json"), help="the record")
    arguments = parser.parse_args()

    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        machines = Machines()
        broken = Training(machines.cluster.address, Path(folder) / "broken", ENDLESS)
        chaos = Chaos(machines, broken, seed=arguments.seed)
        _until(lambda: broken.update() > 3, "the first updates")
        chaos.sample()
        begin = time.monotonic()
        for kind in WORKER_FAULTS:  # each at least once
            chaos.do(kind)
        while time.monotonic() - begin < 60 * arguments.minutes:
            chaos.do(chance.choices(list(WORKER_FAULTS), list(WORKER_FAULTS.values()))[0])
        chaos.sample()
        for number in range(arguments.learner_kills):
            chaos.do("learner_killed" if number % 2 else "learner_killed_while_it_saves")
        seconds = time.monotonic() - begin
        broken.kill()
        lines = broken.lines()
        # The last checkpoint may be older than the last line: that update is made again.
        broken.resume(lines[-1]["episodes"])
        broken.finish()
        whole = Training(machines.cluster.address, Path(folder) / "whole", lines[-1]["episodes"])
        whole.finish()
        machines.cluster.shutdown()  # type: ignore[no-untyped-call]
        log = broken.log.read_text()
        report = summary(chaos, broken.lines(), whole.lines(), log, seconds)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k not in ("faults", "samples")}, indent=1))
    sys.exit(0 if report["same_bits"] else 1)


def summary(
    chaos: Chaos,
    broken: list[dict[str, Any]],
    whole: list[dict[str, Any]],
    log: str,
    seconds: float,
) -> dict[str, Any]:
    """The record of a run."""
    recovery = collections.defaultdict(list)
    for fault in chaos.faults:
        recovery[fault.kind].append(fault.recovery_seconds)
    checksums = [[line["weights_checksum"] for line in lines] for lines in (broken, whole)]
    rates = [lines[-1]["episodes"] / lines[-1]["wall_seconds"] for lines in (broken, whole)]
    return {
        "cpus": os.cpu_count(),
        "workers": WORKERS,
        "nodes": NODES,
        "settings": SETTINGS,
        "same_bits": checksums[0] == checksums[1],
        "updates": len(broken),
        "episodes": broken[-1]["episodes"],
        "weights_checksum": broken[-1]["weights_checksum"],
        "seconds_with_faults": round(seconds, 1),
        "faults_in_all": len(chaos.faults),
        "recovery_seconds": {
            kind: {
                "faults": len(times),
                "median": round(statistics.median(times), 2),
                "worst": max(times),
            }
            for kind, times in sorted(recovery.items())
        },
        "episodes_played_again": len(re.findall("is played again", log)),
        "second_workers": len(re.findall("a second worker plays it too", log)),
        "episodes_per_second_while_training": {"with": rates[0], "without": rates[1]},
        "throughput_lost": round(1.0 - rates[0] / rates[1], 3),
        "faults": [asdict(fault) for fault in chaos.faults],
        "samples": [asdict(sample) for sample in chaos.samples],
    }


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _plays(process: psutil.Process) -> bool:
    """Whether it is a worker in the middle of an episode: Ray writes that into its name."""
    try:
        stopped = process.status() == psutil.STATUS_STOPPED
        return not stopped and "RolloutWorker.play" in " ".join(process.cmdline())
    except psutil.Error:  # it ended just now
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        print(f"process {process.pid} had ended already")


def _until(condition: Callable[[], bool], what: str, poll: float = POLL) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {DEADLINE:.0f} s for {what}")
        time.sleep(poll)


if __name__ == "__main__":
    main()
