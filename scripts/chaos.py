"""Injects every known kind of fault into real training runs on Ray and checks the weights.

Starts a Ray cluster of several nodes on this machine and trains on it with the ``distributed-pg``
command. Meanwhile it kills and stops workers, kills whole nodes with the results they hold, kills
Ray's own processes on the head node, and stops, terminates, kills and resumes the command itself,
also while it writes a checkpoint. Then it runs the same settings without faults and compares the
weights after every update:

    python scripts/chaos.py --faults 1000 --out docs/results/chaos.json

With ``--ends`` it runs many small trainings, each on a local Ray, and ends each at a random moment
in a random way: through its terminal, log, pipe, a signal or Ray. It resumes them and compares the
weights; see ``ends.py``:

    python scripts/chaos.py --ends 300 --keep-going --out docs/results/ends.json
"""

import argparse
import collections
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from ends import Plan, end_runs
from faults import (
    GCS,
    RAYLET,
    FaultError,
    checksums,
    difference,
    is_saving,
    last_update,
    send,
    until,
    write_record,
)
from machines import ENDLESS, NODES, SETTINGS, WORKERS, Machines, Training
from ways import USUAL_WAYS, WAYS

from distributed_pg.storage.metrics import METRICS, read_metrics
from distributed_pg.system_info import library_versions

KINDS = {
    "worker_killed": 740,
    "two_workers_killed": 100,
    "worker_stopped": 40,
    "holder_killed": 20,
    "node_killed": 20,
    "learner_stopped": 20,
    "learner_killed": 20,
    "learner_killed_while_it_saves": 20,
    "learner_terminated": 12,
    "learner_hung_up": 12,
    "learner_warned": 12,
    "head_raylet_killed": 2,
    "gcs_killed": 2,
}
"""The kinds of faults, with their relative frequency."""
ALONE = 3
"""The first faults of each kind, up to this number, are isolated: they start from a healthy run and
measure full recovery, until another update is made and all workers play. All other faults only wait
for another update."""
ALONE_LATER = 0.02
"""The fraction of later faults that are isolated, too."""
STOPPED_SECONDS = 6.0
"""How long the learner is stopped: longer than its hang_seconds."""
SAMPLE_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """An injected fault."""

    kind: str
    second: float
    """Seconds since the start."""
    update: int
    """The last update before it."""
    alone: bool
    """Whether it was isolated: the run was healthy before, and full recovery was awaited."""
    recovery_seconds: float
    """Time to another update and, if isolated, until all workers played."""


@dataclass(frozen=True)
class Sample:
    """Resources of the learner's process at one moment."""

    second: float
    learner: int
    """Process id; changes with each resume."""
    resident_bytes: int
    shared_bytes: int
    """The part of these that are touched pages of the object store."""
    open_files: int
    store_bytes: int | None
    """Bytes used in the object stores of all nodes; None if a node had just gone."""


class Chaos:
    """Injects faults into a training run."""

    def __init__(self, machines: Machines, training: Training, seed: int) -> None:
        self._machines = machines
        self._training = training
        self._chance = random.Random(seed)
        self._begin = self._sampled = self._broken_at = time.monotonic()
        self._done: collections.Counter[str] = collections.Counter()
        self.faults: list[Fault] = []
        self.samples: list[Sample] = []
        self.failures: list[str] = []

    def worker_killed(self) -> None:
        """Send SIGKILL to a worker."""
        send(self._victims(1)[0], signal.SIGKILL)

    def two_workers_killed(self) -> None:
        """Send SIGKILL to two workers at once."""
        for victim in self._victims(2):
            send(victim, signal.SIGKILL)

    def worker_stopped(self) -> None:
        """Send SIGSTOP to a worker, which then hangs."""
        send(self._victims(1)[0], signal.SIGSTOP)

    def holder_killed(self) -> None:
        """Send SIGKILL to the process that puts the weights into the store."""
        for holder in self._machines.holders():
            send(holder, signal.SIGKILL)

    def node_killed(self) -> None:
        """Kill a node and add another."""
        self._machines.kill_node(self._chance.choice(list(self._machines.cluster.worker_nodes)))
        self._machines.add()

    def learner_stopped(self) -> None:
        """Stop the learner for a while, like Ctrl-Z and fg."""
        self._training.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        self._broken_at = time.monotonic()
        self._training.process.send_signal(signal.SIGCONT)

    def learner_killed(self) -> None:
        """Send SIGKILL to the learner at a random moment, then resume."""
        time.sleep(self._chance.uniform(0.0, 2.0))
        self._broken_at = time.monotonic()
        self._training.kill()
        self._training.resume(ENDLESS)

    def learner_killed_while_it_saves(self) -> None:
        """Send SIGKILL to the learner while it writes a checkpoint, then resume."""
        until(lambda: is_saving(self._training.run), "a checkpoint to be written", poll=0.0)
        self._broken_at = time.monotonic()
        self._training.kill()
        self._training.resume(ENDLESS)

    def learner_terminated(self) -> None:
        """Send SIGTERM to the learner, which saves and stops, then resume."""
        self._end_learner(signal.SIGTERM)

    def learner_hung_up(self) -> None:
        """Send SIGHUP to the learner, which saves and stops, then resume."""
        self._end_learner(signal.SIGHUP)

    def learner_warned(self) -> None:
        """Send SIGUSR1 to the learner, which saves and stops, then resume."""
        self._end_learner(signal.SIGUSR1)

    def head_raylet_killed(self) -> None:
        """Send SIGKILL to the raylet of the driver's node, then resume on another cluster."""
        self._lose_cluster(RAYLET)

    def gcs_killed(self) -> None:
        """Send SIGKILL to the cluster's gcs_server, then resume on another cluster."""
        self._lose_cluster(GCS)

    def do(self, kind: str) -> None:
        """Inject a fault and wait for the run to recover.

        Raises:
            FaultError: the run did not recover, or did not end as required.
        """
        alone = self._done[kind] < ALONE or self._chance.random() < ALONE_LATER
        self._done[kind] += 1
        if alone:
            until(self._all_play, "all workers to play")
        self._broken_at = time.monotonic()
        getattr(self, kind)()
        before, at = last_update(self._training.run), self._broken_at
        until(lambda: self._goes_on(before, alone), f"recovery from {kind}")
        recovery = round(time.monotonic() - at, 2)
        self.faults.append(Fault(kind, round(at - self._begin, 2), before, alone, recovery))
        verb = "recovered in" if alone else "continued after"
        print(
            f"{at - self._begin:7.1f} s {len(self.faults):4} {kind:30s} {verb} {recovery:.1f} s",
            flush=True,
        )
        if time.monotonic() - self._sampled > SAMPLE_SECONDS:
            self.sample()
        time.sleep(self._chance.uniform(0.0, 1.0 if alone else 0.3))

    def all(self, kinds: list[str], faults: int, minutes: float, keep_going: bool) -> None:
        """Inject one fault of each kind, then random ones, up to the given number or time."""
        weights = [KINDS[kind] for kind in kinds]
        for number in range(max(faults, len(kinds)) if faults or not minutes else sys.maxsize):
            late = minutes and time.monotonic() - self._begin > 60 * minutes
            if number >= len(kinds) and late:
                return
            kind = kinds[number] if number < len(kinds) else self._chance.choices(kinds, weights)[0]
            try:
                self.do(kind)
            except FaultError as error:
                fault = f"fault {len(self.faults) + len(self.failures) + 1} ({kind})"
                self.failures.append(f"{fault}: {str(error).partition(':')[0]}")
                print(f"FAILED at {fault}: {error}", flush=True)
                if not keep_going:
                    return
                self._training.kill()
                self._machines.replace()
                self._training.resume(ENDLESS)

    def sample(self) -> None:
        """Record the resources of the learner's process."""
        process = psutil.Process(self._training.process.pid)
        memory = process.memory_info()
        second = round(time.monotonic() - self._begin, 1)
        store = self._machines.store_bytes()
        self.samples.append(
            Sample(second, process.pid, memory.rss, memory.shared, process.num_fds(), store)
        )
        self._sampled = time.monotonic()

    def _end_learner(self, number: signal.Signals) -> None:
        time.sleep(self._chance.uniform(0.0, 1.0))
        self._broken_at = time.monotonic()
        self._training.end_by(number)
        self._training.resume(ENDLESS)

    def _lose_cluster(self, name: str) -> None:
        """Kill a process that the cluster needs.

        The learner may end by itself or continue; if it continues, it is stopped.
        """
        training, before = self._training, last_update(self._training.run)
        self._machines.kill_at_head(name)
        until(
            lambda: training.process.poll() is not None or last_update(training.run) > before + 5,
            "the learner to notice",
        )
        training.process.terminate()
        training.await_end(before, {0, 1})
        self._machines.replace()
        training.resume(ENDLESS)

    def _victims(self, most: int) -> list[psutil.Process]:
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = self._machines.workers()
            return bool(found)

        until(look, "a worker that plays")
        return self._chance.sample(found, min(most, len(found)))

    def _all_play(self) -> bool:
        self._check_alive()
        return len(self._machines.workers()) == WORKERS

    def _goes_on(self, before: int, alone: bool) -> bool:
        self._check_alive()
        if last_update(self._training.run) <= before:
            return False
        return self._all_play() if alone else True

    def _check_alive(self) -> None:
        if self._training.process.poll() is not None:
            raise FaultError(f"the learner ended by itself:\n{self._training.tail()}")


def main() -> None:
    """Inject faults, compare the weights, write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--faults", type=int, default=0, help="number of faults (one of each kind)")
    add("--minutes", type=float, default=0.0, help="stop injecting after this time (no limit)")
    add("--kinds", default=",".join(KINDS), help="kinds of faults (all)")
    add("--ends", type=int, default=0, help="end this many small runs instead")
    add("--ways", default=",".join(USUAL_WAYS), help="ways to end them (all but agent_killed)")
    add("--lanes", type=int, default=2, help="number of runs at a time (2)")
    add("--folder", type=Path, help="where to keep failed runs (nowhere)")
    add("--keep-going", action="store_true", help="continue after a failure")
    add("--seed", type=int, default=0, help="seed of the faults, or number of the first run (0)")
    add("--out", type=Path, default=Path("chaos.json"), help="the record")
    arguments = parser.parse_args()
    kinds, ways = arguments.kinds.split(","), arguments.ways.split(",")
    for name in [*kinds, *ways]:
        if name not in KINDS | WAYS:
            parser.error(f"{name}: no such kind or way")
    try:
        if arguments.ends:
            plan = Plan(
                arguments.ends,
                arguments.seed,
                ways,
                arguments.lanes,
                arguments.keep_going,
                arguments.folder,
            )
            sys.exit(0 if end_runs(plan, arguments.out) else 1)
        sys.exit(0 if break_a_run(arguments, kinds) else 1)
    except FaultError as error:
        sys.exit(f"FAILED: {error}")


def break_a_run(arguments: argparse.Namespace, kinds: list[str]) -> bool:
    """Inject faults into a run on a cluster and write the record; return whether all went well."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        machines = Machines()
        broken = Training(machines.address, Path(folder) / "broken", ENDLESS)
        chaos = Chaos(machines, broken, seed=arguments.seed)
        until(lambda: last_update(broken.run) > 3, "the first updates")
        chaos.sample()
        begin = time.monotonic()
        chaos.all(kinds, arguments.faults, arguments.minutes, arguments.keep_going)
        seconds = time.monotonic() - begin
        broken.kill()
        if chaos.failures:
            machines.replace()
        episodes = read_metrics(broken.run / METRICS)[-1]["episodes"]
        # The last checkpoint may be older than the last line; that update is repeated.
        broken.resume(episodes)
        broken.finish()
        whole = Training(machines.address, Path(folder) / "whole", episodes)
        whole.finish()
        machines.shutdown()
        report = summary(chaos, broken, whole, seconds)
    write_record(arguments.out, report, ("faults", "samples"))
    for name, value in report.items():
        if name not in ("faults", "samples"):
            print(f"{name}: {value}")
    return report["difference"] is None and not chaos.failures


def summary(chaos: Chaos, broken: Training, whole: Training, seconds: float) -> dict[str, Any]:
    """The record of a run with faults."""
    found = difference(checksums(broken.run), checksums(whole.run))
    last, last_whole = (read_metrics(t.run / METRICS)[-1] for t in (broken, whole))
    rates = [line["episodes"] / line["wall_seconds"] for line in (last, last_whole)]
    log = broken.log.read_text(errors="replace")
    return {
        "cpus": os.cpu_count(),
        "workers": WORKERS,
        "nodes": NODES,
        "versions": library_versions(),
        "settings": SETTINGS,
        "same_bits": found is None,
        "difference": found,
        "failures": chaos.failures,
        "updates": last["update"],
        "episodes": last["episodes"],
        "weights_checksum": last["weights_checksum"],
        "seconds_with_faults": round(seconds, 1),
        "faults_in_all": len(chaos.faults),
        "recovery_seconds": recoveries(chaos.faults),
        "episodes_played_again": len(re.findall("is played again", log)),
        "second_workers": len(re.findall("a second worker plays it too", log)),
        "episodes_per_second_while_training": {"with": rates[0], "without": rates[1]},
        "throughput_lost": round(1.0 - rates[0] / rates[1], 3),
        "faults": [asdict(fault) for fault in chaos.faults],
        "samples": [asdict(sample) for sample in chaos.samples],
    }


def recoveries(faults: list[Fault]) -> dict[str, dict[str, float]]:
    """The number of faults of each kind, and the recovery times of the isolated ones."""
    found: dict[str, dict[str, float]] = {}
    for kind in sorted({fault.kind for fault in faults}):
        same_kind = [fault for fault in faults if fault.kind == kind]
        times = [fault.recovery_seconds for fault in same_kind if fault.alone]
        found[kind] = {"faults": len(same_kind), "measured_alone": len(times)}
        found[kind] |= {"median": round(statistics.median(times), 2), "worst": max(times)}
    return found


if __name__ == "__main__":
    main()
