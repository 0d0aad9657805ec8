"""Start Ray here, or connect to a cluster."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import ray_constants
from ray.autoscaler.sdk import request_resources

from distributed_pg.cluster_probe import check_cluster_answers
from distributed_pg.config import NumWorkers
from distributed_pg.errors import RunError, one_line
from distributed_pg.kernels import environment
from distributed_pg.worker_code import code_for_workers

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_OUR_OWN: dict[str, str | None] = {
    # Listen on this machine's loopback address alone. Ray does so by itself on systems where it
    # cannot be a cluster; elsewhere it takes a loopback address for a mistake and listens on all.
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    # A job on a cluster's head inherits that the head has no CPUs.
    "RAY_OVERRIDE_RESOURCES": None,
    # Our workers have an environment of their own. Those that Ray starts in advance have not, so
    # they are waited for at first, and then use a hundredth of a core for nothing.
    "RAY_prestart_worker_first_driver": "0",
    # Look for new log files, which nobody reads, once a minute and not ten times a second.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
}
"""Environment variables of a Ray that is started here."""


@contextmanager
def ray_session(
    address: str | None,
    num_workers: NumWorkers,
    message: Callable[[str], None],
    max_workers: int | None = None,
) -> Iterator[Callable[[], int]]:
    """Ray for the time of the ``with`` block.

    Yields a function that says how many workers there should be now: ``num_workers``, or if that is
    ``"auto"`` one for each CPU that the cluster has at the moment, ``max_workers`` at most.

    Without an address Ray is started on this machine and shut down at the end. A Ray that this
    process is connected to already is used and left running.

    Raises:
        RunError: nobody answers at the address, or Ray cannot be started.
    """
    wanted = always(num_workers) if num_workers != "auto" else partial(_a_cpu_each, max_workers)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield wanted
        return
    if address is not None:
        check_cluster_answers(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with code_for_workers() as code:
            if address is not None:
                ray.init(address=address, runtime_env=code, **_QUIET)
            else:
                cpus = _local_cpus(num_workers, message)
                options = _QUIET | {"runtime_env": code, "num_cpus": cpus}
                with _on_its_own():
                    ray.init(address="local", include_dashboard=False, **options)
    except RunError:
        raise
    # Where its processes do not start in time, Ray raises a bare Exception.
    except Exception as error:
        raise RunError(f"Ray did not start: {one_line(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray sets its own, which exits
    try:
        yield wanted
    finally:
        ray.shutdown()


@contextmanager
def _on_its_own() -> Iterator[None]:
    """Have the Ray that is started within be as :data:`_OUR_OWN` says."""
    enabled = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # what the first variable was read into
    try:
        with environment(_OUR_OWN):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled


def cluster_cpus() -> int:
    """CPUs of all nodes that Ray is connected to now."""
    return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


@contextmanager
def requested_cpus(cpus: int) -> Iterator[None]:
    """Have the cluster's autoscaler provide so many CPUs for the time of the ``with`` block.

    A cluster that does not grow takes no notice.
    """
    request_resources(num_cpus=cpus)
    try:
        yield
    finally:
        request_resources(num_cpus=0)


def always(workers: int) -> Callable[[], int]:
    """A number of workers that stays."""
    return lambda: workers


def _a_cpu_each(max_workers: int | None) -> int:
    # One at least: a cluster that grows on demand may have no CPU for workers yet.
    return min(max(1, cluster_cpus()), max_workers or sys.maxsize)


def _local_cpus(num_workers: NumWorkers, message: Callable[[str], None]) -> int | None:
    """How many CPUs Ray shall believe in, so that every worker gets one; None: count them."""
    if num_workers == "auto":
        return None
    cpus = os.cpu_count() or 1
    if num_workers > cpus:
        message(
            f"num_workers: {num_workers} workers share {cpus} CPUs; more workers than CPUs are "
            "not faster"
        )
    return max(num_workers, cpus)
