"""Joining a cluster runs no file of the current folder, and says why it cannot be done."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from command import QUICK, run
from lying_around import INSTALLED, Traps, copy_package, ray_head

TRAIN = ("train", *QUICK, "--stop-episodes", "1", "--quiet")
PRETEND_ANOTHER_VERSION = """
import json, sys, ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init(sys.argv[1], log_to_driver=False)
cluster = json.loads(_internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster"))
cluster["ray_version"] = "2.0.0"
_internal_kv_put(b"CLUSTER_METADATA", json.dumps(cluster).encode(), namespace=b"cluster")
"""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "token" * 10}
NOT_A_NODE = "it answers, but this machine is not one of its nodes; make it one with `ray start "


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Traps:
    return Traps(tmp_path_factory.mktemp("lying"))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A cluster that has another package on its node's path, and in the folder it began in."""
    copy = copy_package(tmp_path_factory.mktemp("copy") / "of")
    with ray_head(copy.parent, PYTHONPATH=str(copy.parent), **TOKEN) as head:
        yield head


def train(
    *prefix: str, address: str, traps: Traps, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Train on the cluster from among the traps."""
    where = ("--address", address, "--run-dir", str(folder / "run"))
    return run(*prefix, str(INSTALLED), *TRAIN, *where, cwd=traps.folder, **TOKEN)


def test_the_learners_code_is_run_whatever_lies_around_there_and_here(
    head: tuple[str, Path], traps: Traps, tmp_path: Path
) -> None:
    trained = train(address=head[0], traps=traps, folder=tmp_path)
    assert (trained.returncode, trained.stderr, traps.sprung) == (0, "", "")


needs_namespaces = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs root on Linux"
)


def apart(sockets: Path, *, processes: bool) -> tuple[str, ...]:
    """What begins a command that sees nothing of the node's sockets, or of its processes."""
    hidden = ("--pid", "--fork", "--mount-proc") if processes else ()
    mount = f'mount -t tmpfs none {sockets} && exec "$@"'
    return ("unshare", "--mount", *hidden, "sh", "-c", mount, "sh")


@needs_namespaces
def test_a_machine_that_is_no_node_is_told_so(
    head: tuple[str, Path], traps: Traps, tmp_path: Path
) -> None:
    address, sockets = head
    there = apart(sockets, processes=False)
    refused = train(*there, address=address, traps=traps, folder=tmp_path)
    assert (refused.returncode, traps.sprung) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith("distributed-pg: error: --address: cannot join the Ray cluster at ")
    assert f"{NOT_A_NODE}--address={address}`" in line
    assert "it runs Ray" not in line


@needs_namespaces
def test_and_of_another_version_if_there_is_one(
    head: tuple[str, Path], traps: Traps, tmp_path: Path
) -> None:
    address, sockets = head
    done = run(sys.executable, "-c", PRETEND_ANOTHER_VERSION, address, cwd=tmp_path, **TOKEN)
    assert done.returncode == 0, done.stderr
    there = apart(sockets, processes=True)  # else Ray says so itself
    refused = train(*there, address=address, traps=traps, folder=tmp_path)
    assert (refused.returncode, traps.sprung) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert f"{NOT_A_NODE}--address={address}`" in line
    assert "it runs Ray 2.0.0 on Python 3." in line
    assert f"this process Ray {ray.__version__} on Python " in line
