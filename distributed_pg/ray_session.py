"""Start Ray here, or connect to a cluster."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources

from distributed_pg.config import NumWorkers
from distributed_pg.errors import RunError, one_line
from distributed_pg.kernels import environment

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_REFUSED = "Unauthenticated"
"""What Ray says where a cluster does not take the token."""
_ADVICE = (
    "it asks for a token, and the one here is missing or another one; copy the cluster's "
    "~/.ray/auth_token, or set RAY_AUTH_TOKEN"
)
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
ANSWER_SECONDS = 20.0
"""How long a cluster may take to answer before we give up."""


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
        _check_cluster_answers(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None:
            ray.init(address=address, **_QUIET)
        else:
            cpus = _local_cpus(num_workers, message)
            with _on_its_own():
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **_QUIET)
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


def _check_cluster_answers(address: str) -> None:
    """Find out in another process: where nobody answers, ray.init() takes two minutes and exits."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except (OSError, UnicodeError) as error:
            raise RunError(f"address: nobody answers at {address} ({error})") from None
    reason = _reason_not_to_join(address)
    if reason == _ADVICE and _show_token():
        reason = _reason_not_to_join(address)
    if reason is not None:
        raise RunError(f"address: cannot join the Ray cluster at {address}: {reason}")


def _reason_not_to_join(address: str) -> str | None:
    """Have another process join the cluster; why it could not, in one line, or None."""
    connect = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
    command = [sys.executable, "-c", connect, address]
    said = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as probe:  # noqa: S603
        limit = threading.Timer(ANSWER_SECONDS, probe.kill)
        limit.start()
        for line in probe.stderr or ():
            said += line
            if _REFUSED in line:  # Ray would go on trying
                probe.kill()
        limit.cancel()
    if probe.returncode == 0:
        return None
    if _REFUSED not in said and probe.returncode == -signal.SIGKILL:
        return f"no answer within {ANSWER_SECONDS:g} s"
    return _reason_in(said)


def _reason_in(stderr: str) -> str:
    """Why another process could not join a cluster, in one line."""
    if _REFUSED in stderr:
        return _ADVICE
    _, mismatch, versions = stderr.partition("Version mismatch: ")
    if mismatch:
        return one_line(mismatch + versions)
    return (stderr.strip().splitlines() or ["no reason given"])[-1]


def _show_token() -> bool:
    """Authenticate with the user's token from now on; False if there is none that was not shown.

    Ray does so by itself only for "auto". Where a cluster does not ask for it, it must not be done:
    this process would ask the cluster's workers for it.
    """
    has_token = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    if not has_token or "RAY_AUTH_MODE" in os.environ:
        return False
    os.environ["RAY_AUTH_MODE"] = "token"
    Config.initialize("")  # Ray has read its environment already
    return True
