"""The learner's process brings weights to the workers and outlives the object store."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from command import DEADLINE
from ray.cluster_utils import Cluster
from ray_cluster import ray_cluster

BROADCASTS = """
import os
import sys
import traceback
import ray
from distributed_pg.algo.state import TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.runtime.health import _runs
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import ray_session

address = sys.argv[1] if len(sys.argv) > 1 else None
config = TrainConfig(batch_size=4)
policy = TrainingState.initial(config).policy

def in_the_store(pool, version):
    ready, _ = ray.wait([pool._weights[version]], timeout=200, fetch_local=False)
    return bool(ready)

def end(*error):
    traceback.print_exception(*error)
    os._exit(1)  # an exit waits for the head, or for Ray to end this process

ray._private.worker.normal_excepthook = end

with ray_session(address, 1) as session, RayWorkerPool(config, lambda: 0) as pool:
    pool.broadcast(0, policy)  # without a check of Ray, as if it died in this very moment
    assert in_the_store(pool, 0)
    raylet = next(p for p, name in session._processes._daemons if name == "raylet")
    raylet.kill()
    while _runs(raylet):
        pass  # Ray ends this process once the GCS has noticed, which takes it seconds
    for version in range(1, 20):
        pool.broadcast(version, policy)
        pool.drop_weights(version - 1)
    print("alive", flush=True)
    session.end_processes()
"""


def survivor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BROADCASTS, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.exhaustive  # test_ray_gone.py kills the raylet of a local run, too
def test_a_learner_outlives_its_raylet_while_it_broadcasts() -> None:
    done = survivor()
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ray_cluster(head_cpus=0) as cluster:
        yield cluster


def test_a_learner_on_a_head_without_cpus_outlives_the_raylet_there(cluster: Cluster) -> None:
    done = survivor(cluster.address)
    assert done.stdout == "alive\n", done.stderr
    # Ray's own hook would end the process after a minute, without a traceback.
    assert "distributed_pg.runtime.health.RayLostError: Ray's process" in done.stderr
