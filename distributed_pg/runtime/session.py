"""Starts a local Ray or connects to a cluster."""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from distributed_pg.config import NumWorkers
from distributed_pg.determinism import environment
from distributed_pg.errors import RunError, UsageError, one_line
from distributed_pg.runtime import _ray_private
from distributed_pg.runtime.actor import INLINE
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
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # see _ray_private.on_loopback
_OUR_OWN: dict[str, str | None] = {
    **_ON_LOOPBACK,
    # A job on a head node without CPUs inherits this variable.
    "RAY_OVERRIDE_RESOURCES": None,
    # Loopback connections must not go through a proxy.
    "RAY_grpc_enable_http_proxy": None,
    # Our workers need their own environment. Those that Ray prestarts do not have it: they would
    # delay the start and then use a hundredth of a core for nothing.
    "RAY_prestart_worker_first_driver": "0",
    # Look for new log files, which nobody reads, once a minute instead of ten times a second.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
}
"""Environment variables of a local Ray."""
REQUEST_SECONDS = 10.0
"""Time after which an unchanged request for CPUs is repeated."""
LEAVE_SECONDS = 5.0
"""Time limit for a call to a cluster that may be lost."""
_OURS = threading.RLock()
"""Held by the thread that uses the Ray this process is connected to."""


@dataclass(frozen=True)
class _LocalRay:
    """A Ray that this process started."""

    cpus: int
    """Its CPUs, at least one per worker."""
    environment: dict[str, str]
    """Variables that another process needs to join it."""


class RaySession:
    """The Ray that this process is connected to.

    Args:
        num_workers: the desired number of workers, or ``"auto"``.
        max_workers: upper limit with ``"auto"``; None: no limit.
        local: the Ray that this process started; None: Ray is a cluster, whose CPUs are counted.
    """

    def __init__(
        self, num_workers: NumWorkers, max_workers: int | None, local: "_LocalRay | None" = None
    ) -> None:
        self._num_workers = num_workers
        self._max_workers = max_workers or sys.maxsize
        self._local = local
        self._processes = ProcessWatch(ours=local is not None)
        self._cluster = ClusterWatch() if local is None else None
        self._lost = False
        self._request: tuple[int, float] = (0, 0.0)
        self.address = str(ray.get_runtime_context().gcs_address)
        """The address at which other processes of this machine can join."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that another process needs to join."""
        return {} if self._local is None else self._local.environment

    def workers(self) -> int:
        """The desired number of workers now: with ``"auto"`` one per CPU."""
        if self._num_workers != "auto":
            return self._num_workers
        # At least one: a cluster that grows on demand may not have a CPU for workers yet.
        return min(max(1, self.cpus()), self._max_workers)

    def cpus(self) -> int:
        """CPUs of all machines, as last known; does not block."""
        if self._cluster:
            return self._cluster.cpus
        return 0 if self._local is None else self._local.cpus

    def check(self, *, at_once: bool = False) -> None:
        """Check that Ray is still there; must be called often.

        Args:
            at_once: check even if that was just done; required before a broadcast.

        Raises:
            RayLostError: Ray's processes have ended, or the cluster's head is silent.
        """
        try:
            self._processes.check(at_once=at_once)
            if self._cluster:
                self._cluster.check()
        except RunError:
            self._lost = True
            raise

    def when_silent(self, save: Callable[[], object]) -> None:
        """Make :meth:`check` call ``save`` when it may soon be too late to save."""
        if self._cluster:
            self._cluster.when_silent = save

    def request_cpus(self, cpus: int) -> None:
        """Request CPUs from the cluster's autoscaler, until the session ends.

        A cluster without an autoscaler ignores the request. May be called often: Ray is asked when
        the number changes, and now and then since other drivers of the cluster replace each other's
        requests.

        Args:
            cpus: the total number of CPUs.
        """
        before, asked_at = self._request
        now = time.monotonic()
        if self._cluster and (cpus != before or now - asked_at > REQUEST_SECONDS):
            self._request = cpus, now
            request_resources(num_cpus=cpus)

    def end_processes(self) -> None:
        """Kill the remaining processes of a lost local Ray, once everything is saved."""
        self._processes.end()

    def close(self) -> None:
        """Stop monitoring, and withdraw the request for CPUs.

        Raises:
            RayLostError: the cluster is gone, and :meth:`check` has not raised this before.
        """
        self._processes.saved()
        if self._cluster is None:
            return
        try:
            if not self._lost:
                self.check(at_once=True)  # a lost cluster would not answer for a minute
                if self._request[0] and not _in_time(lambda: request_resources(num_cpus=0)):
                    raise RayLostError("the head of the Ray cluster does not answer")
        finally:
            self._cluster.end()


@contextmanager
def ray_session(
    address: str | None, num_workers: NumWorkers, max_workers: int | None = None
) -> Iterator[RaySession]:
    """Provide Ray during the ``with`` block.

    A Ray that this process is already connected to is used and left running.

    Args:
        address: HOST:PORT of a cluster, or ``"auto"`` to find one; None: start Ray on this machine
            and shut it down at the end.
        num_workers: the desired number of workers, or ``"auto"``.
        max_workers: upper limit with ``"auto"``; None: no limit.

    Yields:
        The session.

    Raises:
        UsageError: another thread of this process has a session, or this process is connected to a
            Ray at another address.
        RunError: nothing answers at the address, Ray cannot be started, or it fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not _OURS.acquire(blocking=False):
        raise UsageError(
            "another thread of this process is already training or evaluating; wait for it, or use "
            "another process"
        )
    try:
        if ray.is_initialized():
            _check_is_at(address)
            connection: AbstractContextManager[_LocalRay | None] = nullcontext()
        elif address is not None:
            connection = _connected(address)
        else:
            connection = _started(num_workers)
        with connection as local, closing(RaySession(num_workers, max_workers, local)) as session:
            yield session
    except RayLostError:
        _ray_private.show_exceptions_at_once()
        raise
    except RayError as error:
        raise RunError(f"Ray failed: {reason_of(error)}") from error
    finally:
        _OURS.release()


def usable_cpus() -> int:
    """Number of CPUs that the machine, container or batch job allows this process, at least 1."""
    count = os.cpu_count() or 1
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    # A container may be limited to half a CPU.
    return max(1, math.floor(min(count, _ray_private.limited_cpus() or count)))


@contextmanager
def _started(num_workers: NumWorkers) -> Iterator[_LocalRay]:
    """Start a local Ray with at least one CPU per worker."""
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
        # A separate token: the one in the user's home is for clusters, and there may be no home.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with environment(_OUR_OWN | token):
            _ray_private.reread_environment()
            with (
                _ray_private.on_loopback(),
                _ray_private.without_helpers(),
                _ray_private.without_dashboard_imports(),
                StartWatch(),
                _without_hang_ups(),
            ):
                _start(cpus)
        folder = SessionFolder()
        try:
            yield _LocalRay(cpus, _ON_LOOPBACK | token)
        finally:
            ray.shutdown()
            folder.remove()
    finally:
        _ray_private.reread_environment()


@contextmanager
def _without_hang_ups() -> Iterator[None]:
    """Make processes started in the ``with`` block, but not this one, ignore a closed terminal.

    A signal blocked in a thread stays blocked in the processes it starts. The other threads of this
    process do not block it, so it still reaches our handler.
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
            raise  # a second attempt would fail in the same way
        _LOG.warning(f"{error}; trying once more")
        ray.shutdown()
        _init("local", **options)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a running cluster."""
    check_cluster_answers(address)
    _init(address)
    try:
        yield
    except RayLostError as error:
        error.hangs = not _in_time(ray.shutdown)
        raise
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _init(address: str, **options: Any) -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        # Ray reads its variables again when it connects this process.
        with (
            environment(INLINE),
            code_for_workers() as code,
            _ray_private.our_sigterm_handler(),
            _ray_private.no_listener(),
        ):
            ray.init(address=address, runtime_env=code, **_QUIET, **options)
    except RunError:
        raise
    # Ray raises a bare Exception if its processes do not start in time.
    except Exception as error:
        raise RayStartError(f"Ray did not start: {one_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # another version may have replaced it


def _in_time(call: Callable[[], object]) -> bool:
    """Call Ray in a thread, since Ray may wait forever for a silent head.

    Returns:
        Whether the call ended within :data:`LEAVE_SECONDS`.
    """

    def work() -> None:
        with suppress(RayError):  # the caller needs no answer
            call()

    thread = threading.Thread(target=work, name="leave", daemon=True)
    thread.start()
    thread.join(LEAVE_SECONDS)
    return not thread.is_alive()


def _check_is_at(address: str | None) -> None:
    """Refuse an address other than that of the Ray this process is connected to."""
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
