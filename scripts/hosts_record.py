"""Trains on several hosts while they fail and return, and compares the weights.

Uses the hosts of ``scripts/hosts.py``. From one of them, ``ray up`` starts a cluster over SSH: a
head without CPUs and two nodes with one CPU each. While ``distributed-pg train`` runs on the head,
one node's host is cut off briefly and later killed, the other one is cut off until Ray gives it up
and rejoins by itself, and a new host joins. Then the same settings run on one local worker:

    python scripts/hosts_record.py --out docs/results/hosts.json
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from host_rig import Rig

from distributed_pg.errors import RunError
from distributed_pg.own_code import own_command
from distributed_pg.storage.metrics import read_metrics

DEADLINE = 120.0
"""Seconds to wait for any event."""
RAY_AGAIN = 240.0
"""Seconds to wait for the autoscaler to restart Ray on a host, over SSH."""
POLL = 0.02
SETTINGS = "--batch-size 4 --frame-limit 2000 --seed 11"
AT_A_TIME = 2
"""Updates after which every episode in progress has arrived: with a policy lag of 1, workers play
episodes of two batches."""
BETWEEN = 5
"""Updates between two faults."""
HEAD, FIRST, SECOND, DESK, NEW = "h1", "h2", "h3", "h4", "h5"
"""Names of the hosts; ``ray up`` runs on the desk."""
HEALTH = (
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 "
    "RAY_health_check_failure_threshold=3 AUTOSCALER_HEARTBEAT_TIMEOUT_S=10 "
    "AUTOSCALER_UPDATE_INTERVAL_S=1"
)
"""Makes Ray give up a silent host and restart there within seconds instead of a minute."""
RAY_START = "RAY_AUTH_MODE=token ray start --object-store-memory=200000000"
CLUSTER = """\
cluster_name: pong
provider:
  type: local
  head_ip: {head}
  worker_ips: [{first}, {second}]
auth:
  ssh_user: root
  ssh_private_key: ~/.ssh/id_ed25519
file_mounts:
  ~/.ray/auth_token: ~/.ray/auth_token
head_start_ray_commands:
  - ray stop
  # Ray's newer autoscaler takes the head of an on-premise cluster for one of its workers, and
  # starts one too few.
  - >-
    {health} RAY_enable_autoscaler_v2=0
    {start} --head --port=6379 --num-cpus=0 --include-dashboard=false
    --autoscaling-config=~/ray_bootstrap_config.yaml
worker_start_ray_commands:
  - ray stop
  - {start} --address=$RAY_HEAD_IP:6379 --num-cpus=1
"""
WAIT_FOR_NODES = f"""
import sys, time, ray
ray.init(address="auto", log_to_driver=False, logging_level="error")
deadline = time.monotonic() + {DEADLINE}
def nodes():
    return {{node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}}
while nodes() != set(sys.argv[1:]):
    if time.monotonic() > deadline:
        sys.exit(f"waited {DEADLINE:.0f} s, and the nodes are still {{nodes()}}")
    time.sleep({POLL})
"""
"""Waits until the cluster's nodes are exactly those with the given addresses."""


@dataclass
class Cluster:
    """Ray on the hosts of a rig, and one training run on it."""

    rig: Rig
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each step."""

    def __post_init__(self) -> None:
        """Set the paths of the run's files."""
        folder = self.rig.host(HEAD).tmp
        self.log = self.rig.state / "train.log"
        self._metrics = folder / "run/metrics.jsonl"
        self._pid = folder / "train.pid"

    def start(self) -> None:
        """Create the cluster with ``ray up``, over SSH."""
        head, first, second = (self.rig.host(name).address for name in (HEAD, FIRST, SECOND))
        config = self.rig.host(DESK).tmp / "home/cluster.yaml"
        config.write_text(
            CLUSTER.format(head=head, first=first, second=second, health=HEALTH, start=RAY_START)
        )
        begin = time.monotonic()
        self._run(DESK, "ray get-auth-token --generate")
        self._run(DESK, "ray up -y cluster.yaml")
        self.took("ray up: the head runs", begin)
        self._wait_for_nodes(HEAD, FIRST, SECOND)
        self.took("ray up: the workers' hosts are in the cluster", begin)

    def train(self) -> "subprocess.Popen[bytes]":
        """Start the run and wait until both hosts play."""
        command = f"distributed-pg train --address auto --num-workers auto {SETTINGS}"
        command = f"echo $$ > /tmp/train.pid; exec {command} --run-dir /tmp/run"
        begin = time.monotonic()
        with self.log.open("wb") as log:
            process = subprocess.Popen(self.rig.ssh(HEAD, command), stdout=log, stderr=log)
        self._until(lambda: self._plays(FIRST) and self._plays(SECOND), "both hosts to play")
        self.took("train: to the first episode on both hosts", begin)
        self._until_updates(BETWEEN)
        return process

    def cut_off_briefly(self) -> None:
        """Cut off a host until the run continues without it."""
        begin = time.monotonic()
        self.rig.partition(SECOND)
        self._until_updates(AT_A_TIME)
        self.took("cut off briefly: until the run went on without it", begin)
        begin = time.monotonic()
        self.rig.heal(SECOND)
        self._until(lambda: self._plays(SECOND), "the host that was cut off to play")
        self.took("cut off briefly: from healing to an episode there", begin)
        self._until_updates(BETWEEN)

    def kill(self) -> None:
        """Kill a host."""
        begin = time.monotonic()
        self.rig.kill(SECOND)
        self._until_updates(AT_A_TIME)
        self.took("killed: until the run went on without it", begin)
        self._until_updates(BETWEEN)

    def cut_off(self) -> None:
        """Cut off the only remaining host until Ray gives it up."""
        begin = time.monotonic()
        self.rig.partition(FIRST)
        self._wait_for_nodes(HEAD)
        self.took("cut off: until Ray gave it up", begin)
        begin = time.monotonic()
        self.rig.heal(FIRST)
        self._until(lambda: self._plays(FIRST), "the host that was given up to play", RAY_AGAIN)
        self.took("cut off: from healing to an episode there", begin)
        self._until_updates(BETWEEN)

    def add(self) -> None:
        """Add a host to the cluster."""
        begin = time.monotonic()
        self.rig.add()
        self.took("added: until it answered", begin)
        token = self.rig.host(HEAD).tmp / "home/.ray/auth_token"
        copy = self.rig.host(NEW).tmp / "home/.ray/auth_token"
        copy.parent.mkdir()
        copy.write_text(token.read_text())
        begin = time.monotonic()
        self._run(NEW, f"{RAY_START} --address={self.rig.host(HEAD).address}:6379 --num-cpus=1")
        self.took("added: ray start", begin)
        self._until(lambda: self._plays(NEW), "the new host to play")
        self.took("added: from ray start to the first episode there", begin)
        self._until_updates(BETWEEN)

    def stop(self, process: "subprocess.Popen[bytes]") -> list[dict[str, Any]]:
        """Make the run save and stop; return its metrics."""
        begin = time.monotonic()
        self._run(HEAD, f"kill -TERM {self._pid.read_text()}")
        if process.wait(timeout=DEADLINE) != 0:
            raise RunError(f"the training failed:\n{self.log.read_text()}")
        self.took("train: to save and stop", begin)
        return read_metrics(self._metrics)

    def _plays(self, host: str) -> bool:
        """Whether a worker on the host is playing an episode, by the process title Ray sets."""
        return any("RolloutWorker.play" in _command(pid) for pid in self.rig.pids(host))

    def _wait_for_nodes(self, *hosts: str) -> None:
        addresses = [self.rig.host(name).address for name in hosts]
        self._run(HEAD, shlex.join(["python", "-c", WAIT_FOR_NODES, *addresses]))

    def _until_updates(self, count: int) -> None:
        target = len(read_metrics(self._metrics)) + count
        self._until(lambda: len(read_metrics(self._metrics)) >= target, f"{count} more updates")

    def _until(self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RunError(f"waited {seconds:.0f} s for {what}:\n{self._tails()}")
            time.sleep(POLL)

    def _tails(self) -> str:
        """The ends of the logs of the run and of Ray's autoscaler."""
        autoscaler = self.rig.host(HEAD).tmp.glob("ray/session_2*/logs/monitor.*")
        return "\n".join(path.read_text()[-3000:] for path in (self.log, *sorted(autoscaler)))

    def _run(self, host: str, command: str) -> None:
        done = self.rig.run(host, command)
        if done.returncode != 0:
            raise RunError(f"{command!r} on {host}:\n{(done.stdout + done.stderr)[-3000:]}")

    def took(self, what: str, begin: float) -> None:
        """Record the duration of a step that started at ``begin``."""
        self.seconds[what] = round(time.monotonic() - begin, 2)
        print(f"{self.seconds[what]:7.2f} s  {what}", flush=True)


def local_run(run: Path, episodes: int) -> list[dict[str, Any]]:
    """Run the same settings on one local worker; return the metrics."""
    command = own_command("train", *SETTINGS.split())
    command += ["--num-workers", "1", "--run-dir", str(run), "--stop-episodes", str(episodes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"the local run failed:\n{done.stdout + done.stderr}")
    return read_metrics(run / "metrics.jsonl")


def record(state: Path) -> dict[str, Any]:
    """Run everything on a new rig; return the record."""
    rig = Rig(state)
    load = os.getloadavg()[0]
    begin = time.monotonic()
    rig.up(4)
    try:
        cluster = Cluster(rig)
        cluster.took("hosts: four of them up", begin)
        cluster.start()
        process = cluster.train()
        cluster.cut_off_briefly()
        cluster.kill()
        cluster.cut_off()
        cluster.add()
        broken = cluster.stop(process)
        log = cluster.log.read_text()
    finally:
        rig.down()
    whole = local_run(state.parent / "local", broken[-1]["episodes"])
    checksums = [[line["weights_checksum"] for line in lines] for lines in (broken, whole)]
    return {
        "cpus": os.cpu_count(),
        "load_before": round(load, 2),
        "ray": ray.__version__,
        "settings": SETTINGS,
        "ray_settings": HEALTH,
        "seconds": cluster.seconds,
        "episodes_played_again": len(re.findall("is played again", log)),
        "second_workers": len(re.findall("a second worker plays it too", log)),
        "updates": len(broken),
        "episodes": broken[-1]["episodes"],
        "weights_checksum": checksums[0][-1],
        "weights_checksum_of_the_local_run": checksums[1][-1],
        "same_bits_after_every_update": checksums[0] == checksums[1],
    }


def main() -> int:
    """Run everything and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("hosts.json"), help="the record")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
            report = record(Path(folder) / f"rig{os.getpid()}")
    except RunError as error:
        print(f"hosts_record.py: error: {error}", file=sys.stderr)
        return 1
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["same_bits_after_every_update"] else 1


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended just now
        return ""


if __name__ == "__main__":
    sys.exit(main())
