"""Start Ray here, or connect to a cluster."""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from distributed_pg.config import NumWorkers
from distributed_pg.determinism import environment
from distributed_pg.errors import RunError, UsageError, one_line
from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.cluster_probe import check_cluster_answers
from distributed_pg.runtime.health import (
    ClusterWatch,
    ProcessWatch,
    RayLostError,
    RayStartError,
    StartWatch,
)
from distributed_pg.runtime.session_folders import (
    SessionFolder,
    check_temporary_folder,
    remove_left_over,
)
from distributed_pg.runtime.worker_code import code_for_workers

_LOG = logging.getLogger(__name__)

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_OUR_OWN: dict[str, str | None] = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # see _ray_private.on_loopback
    # A job on a cluster's head inherits that the head has no CPUs.
    "RAY_OVERRIDE_RESOURCES": None,
    # What goes over the loopback address must not ask a proxy for the way.
    "RAY_grpc_enable_http_proxy": None,
    # Our workers have an environment of their own. Those that Ray starts in advance have not, so
    # they are waited for at first, and then use a hundredth of a core for nothing.
    "RAY_prestart_worker_first_driver": "0",
    # Look for new log files, which nobody reads, once a minute and not ten times a second.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
    "RAY_AUTH_MODE": "token",
}
"""Environment variables of a Ray that is started here."""
LEAVE_SECONDS = 5.0
"""How long a lost cluster may take to be disconnected from."""
_OURS = threading.RLock()
"""Held by the thread whose Ray this process is connected to."""


class RaySession:
    """A Ray that this process is connected to.

    Args:
        num_workers: how many workers there should be, or ``"auto"``.
        max_workers: with ``"auto"``, no more than these.
        cpus: how many CPUs there are; None: as many as the cluster has at the moment.
    """

    def __init__(
        self, num_workers: NumWorkers, max_workers: int | None, cpus: int | None = None
    ) -> None:
        self._num_workers = num_workers
        self._max_workers = max_workers or sys.maxsize
        self._local_cpus = cpus
        self._processes = ProcessWatch(ours=cpus is not None)
        self._cluster = ClusterWatch() if cpus is None else None
        self._lost = False

    def workers(self) -> int:
        """How many workers there should be now: with ``"auto"`` one for each CPU."""
        if self._num_workers != "auto":
            return self._num_workers
        # One at least: a cluster that grows on demand may have no CPU for workers yet.
        return min(max(1, self.cpus()), self._max_workers)

    def cpus(self) -> int:
        """CPUs of all machines, as far as is known now; does not wait."""
        return self._cluster.cpus if self._cluster else self._local_cpus or 0

    def check(self, *, at_once: bool = False) -> None:
        """See to it that Ray is there; call it often, and ``at_once`` before an object is put.

        Raises:
            RayLostError: its processes have ended, or the cluster's head is silent.
        """
        try:
            self._processes.check(at_once=at_once)
            if self._cluster:
                self._cluster.check()
        except RunError:
            self._lost = True
            raise

    def when_silent(self, save: Callable[[], object]) -> None:
        """Have ``save`` called by :meth:`check` when it may soon be too late for that."""
        if self._cluster:
            self._cluster.when_silent = save

    @contextmanager
    def requested_cpus(self, cpus: int) -> Iterator[None]:
        """Have the cluster's autoscaler provide so many CPUs for the time of the ``with`` block.

        A cluster that does not grow takes no notice.
        """
        request_resources(num_cpus=cpus)
        try:
            yield
        finally:
            if not self._lost:  # else nobody would answer
                request_resources(num_cpus=0)

    def end_processes(self) -> None:
        """End what is left of a Ray of our own that is lost; call it when all is saved."""
        self._processes.end()

    def close(self) -> None:
        """Look after nothing any more."""
        self._processes.saved()
        if self._cluster:
            self._cluster.end()


@contextmanager
def ray_session(
    address: str | None,
    num_workers: NumWorkers,
    max_workers: int | None = None,
) -> Iterator[RaySession]:
    """Ray for the time of the ``with`` block.

    Without an address Ray is started on this machine and shut down at the end. A Ray that this
    process is connected to already is used and left running.

    Raises:
        UsageError: another thread of this process uses a Ray of ours, or this process is connected
            to another Ray than that at the address.
        RunError: nobody answers at the address, Ray cannot be started, or it fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not _OURS.acquire(blocking=False):
        raise UsageError(
            "another thread of this process trains or evaluates already; one can at a time: wait "
            "for it, or use another process"
        )
    try:
        if ray.is_initialized():
            _check_is_at(address)
            used: AbstractContextManager[int | None] = nullcontext()
        elif address is not None:
            used = _connected(address)
        else:
            used = _started(num_workers)
        with used as cpus, closing(RaySession(num_workers, max_workers, cpus)) as session:
            yield session
    except RayError as error:
        raise RunError(f"Ray failed: {reason_of(error)}") from error
    finally:
        _OURS.release()


def usable_cpus() -> int:
    """CPUs that this process may use: of the machine, its container or its batch job; at least 1.

    A container may have half a CPU.
    """
    count = os.cpu_count() or 1
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    return max(1, math.floor(min(count, _ray_private.limited_cpus() or count)))


@contextmanager
def _started(num_workers: NumWorkers) -> Iterator[int]:
    """A Ray of our own; yields how many CPUs it believes in: one for each worker at least."""
    check_temporary_folder()
    remove_left_over()
    cpus = usable_cpus()
    if num_workers != "auto" and num_workers > cpus:
        _LOG.warning(
            f"num_workers: {num_workers} workers share {cpus} CPUs; more workers than CPUs are "
            "not faster"
        )
        cpus = num_workers
    try:
        # A token of its own: that in the user's home is for clusters, and there may be no home.
        with environment(_OUR_OWN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            _ray_private.reread_environment()
            with _ray_private.on_loopback(), StartWatch(), _without_hang_ups():
                _start(cpus)
        folder = SessionFolder()
        try:
            yield cpus
        finally:
            ray.shutdown()
            folder.remove()
    finally:
        _ray_private.reread_environment()


@contextmanager
def _without_hang_ups() -> Iterator[None]:
    """Processes that are started within take no notice of a terminal that goes; this one does.

    A signal that a thread blocks stays blocked in what it starts. Our other threads do not block
    it, so it still reaches our handler.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(cpus: int) -> None:
    options: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False}
    try:
        _init("local", **options)
    except RayStartError as error:
        if isinstance(error.__cause__, (OSError, ValueError)):
            raise  # it would be the same again
        _LOG.warning(f"{error}; trying once more")
        ray.shutdown()
        _init("local", **options)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """A cluster that runs already."""
    check_cluster_answers(address)
    _init(address)
    try:
        yield
    except RayLostError as error:
        error.hangs = not _left()
        raise
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _init(address: str, **options: Any) -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with (
            code_for_workers() as code,
            _ray_private.our_sigterm_handler(),
            _ray_private.no_listener(),
        ):
            ray.init(address=address, runtime_env=code, **_QUIET, **options)
    except RunError:
        raise
    # Where its processes do not start in time, Ray raises a bare Exception.
    except Exception as error:
        raise RayStartError(f"Ray did not start: {one_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # another version may have set its own


def _left() -> bool:
    """Disconnect from a cluster whose head may be silent, for which Ray would wait without end."""
    leaving = threading.Thread(target=ray.shutdown, name="leave", daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    return not leaving.is_alive()


def _check_is_at(address: str | None) -> None:
    """Refuse an address that is not of the Ray that this process is connected to."""
    here = ray.get_runtime_context().gcs_address
    if address in (None, "auto", here) or _resolved(str(address)) == _resolved(here):
        return
    raise UsageError(
        f"address: this process is connected to the Ray at {here} already, and cannot use that at "
        f"{address} as well; call ray.shutdown() first"
    )


def _resolved(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host), port
    except OSError:
        return host, port
