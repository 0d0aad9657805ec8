"""Training on a cluster that asks for a token and grows on demand.

The autoscaler is Ray's own; the nodes it starts are processes on this machine.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
from command import until
from learner_runs import checksums
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from distributed_pg.config import TrainConfig
from distributed_pg.presets import as_flags

CPUS = {"CPU": 1, "object_store_memory": 100 * 2**20}
CLUSTER = {
    "cluster_name": "growing",
    "provider": {
        "type": "fake_multinode",
        "head_node_id": FAKE_HEAD_NODE_ID,
        "use_node_id_as_ip": True,  # all nodes have this machine's address
        "disable_node_updaters": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": CPUS, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.05,
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    **{
        name: []
        for name in (
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
        )
    },
}
CONFIG = TrainConfig(seed=7, batch_size=2, frame_limit=1000, hidden_units=8)
TRAIN = ("-m", "distributed_pg", "train", *as_flags(CONFIG.differences(TrainConfig())))
PORT = 6379  # the nodes that the autoscaler starts know no other
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "token" * 10}
WAIT_UNTIL_NO_NODE_HAS_CPUS = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False)
deadline = time.monotonic() + float(sys.argv[2])
while any(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes()):
    assert time.monotonic() < deadline, ray.nodes()
    time.sleep(0.1)
"""
PRETEND_ANOTHER_VERSION = """
import json, sys, ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init(sys.argv[1], log_to_driver=False)
cluster = json.loads(_internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster"))
cluster["ray_version"] = "2.0.0"
_internal_kv_put(b"CLUSTER_METADATA", json.dumps(cluster).encode(), namespace=b"cluster")
"""


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster whose head has no CPU, and which may grow to two workers' nodes."""
    file = tmp_path_factory.mktemp("growing") / "config.json"
    file.write_text(json.dumps(CLUSTER))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={PORT}", "--num-cpus=0", f"--autoscaling-config={file}"]
    command += ["--include-dashboard=false"]
    environment = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", **TOKEN}
    log = file.with_name("log").open("w")
    # What ray.cluster_utils.AutoscalingCluster does; but that stops every other Ray on the machine.
    head = psutil.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    address = f"{_own_address()}:{PORT}"
    try:
        until(lambda: _answers(address), seconds=60)
        yield address
    finally:
        for process in [*head.children(recursive=True), head]:
            process.kill()
        head.wait()


@pytest.mark.slow
def test_nodes_come_for_the_run_and_go_after_it(growing: str, tmp_path: Path) -> None:
    _wait_until_no_node_has_cpus(growing, seconds=0)
    command = [sys.executable, *TRAIN, "--address", growing, "--run-dir", f"{tmp_path}/grown"]
    log = tmp_path / "log"
    environment = os.environ | TOKEN
    del environment["RAY_AUTH_MODE"]  # it is found out that the cluster asks for the token
    training = subprocess.Popen(command, env=environment, stdout=log.open("w"))
    try:
        until(lambda: "workers 2" in log.read_text(), seconds=120)  # both nodes came, and play
        training.terminate()
        assert training.wait(60) == 0
    finally:
        training.kill()
    said = log.read_text()
    (episodes,) = re.findall(r"Stopped on request after (\d+) episodes", said)
    config = replace(CONFIG, stop_episodes=int(episodes))
    assert f"Weights checksum: {checksums(config)[-1]}\n" in said
    _wait_until_no_node_has_cpus(growing, seconds=60)


def test_another_token_is_one_clear_line(growing: str, tmp_path: Path) -> None:
    other = {"RAY_AUTH_TOKEN": "other" * 10}
    run = tmp_path / "run"
    refused = _run(*TRAIN, "--address", growing, "--run-dir", run, environment=other)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "it requires a token, and the one here is missing or wrong" in line


def test_another_version_is_one_clear_line(growing: str, tmp_path: Path) -> None:
    _run("-c", PRETEND_ANOTHER_VERSION, growing).check_returncode()
    refused = _run(*TRAIN, "--address", growing, "--run-dir", tmp_path / "run")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "Version mismatch: The cluster was started with: Ray: 2.0.0" in line
    assert f"Ray: {ray.__version__}" in line


def _run(
    *command: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | TOKEN | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def _wait_until_no_node_has_cpus(address: str, seconds: float) -> None:
    done = _run("-c", WAIT_UNTIL_NO_NODE_HAS_CPUS, address, str(seconds))
    assert done.returncode == 0, done.stderr


def _own_address() -> str:
    """This machine's address as Ray takes it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1", 1))  # sends nothing
        return str(udp.getsockname()[0])


def _answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
