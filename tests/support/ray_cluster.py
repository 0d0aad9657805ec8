"""A Ray cluster of several nodes on this machine, for processes that join it by its address."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster
from ray.experimental import internal_kv

from distributed_pg.determinism import environment

NO_IDLE_WORKERS = {"RAY_prestart_worker_first_driver": "0"}
"""Keeps a raylet from starting a worker per CPU for each process that joins, which a test pays for
and does not use: ours have an environment of their own."""


@contextmanager
def ray_cluster(*, head_cpus: int, node_cpus: int | None = None) -> Iterator[Cluster]:
    """A head, and a node if it has CPUs. A Ray that this process has joined is left as it is.

    Ray's ``Cluster`` takes over the process's only client of the head's key-value store as it
    starts, and drops it as it ends; the autoscaler's requests of another Ray would then fail.
    """
    with _own_key_value_store(), environment(NO_IDLE_WORKERS):
        arguments = {"num_cpus": head_cpus, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        if node_cpus:
            cluster.add_node(num_cpus=node_cpus)
    try:
        yield cluster
    finally:
        with _own_key_value_store():
            cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _own_key_value_store() -> Iterator[None]:
    client = internal_kv.internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        internal_kv._internal_kv_reset()  # type: ignore[no-untyped-call]
        if client is not None:
            internal_kv._initialize_internal_kv(client)
