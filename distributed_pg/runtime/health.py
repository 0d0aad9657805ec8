"""Detects that Ray itself is gone, before Ray ends this process because of it.

Ray has one process per machine, the raylet, and one per cluster, the GCS. Without the raylet, Ray
ends a process that uses the object store, which the learner leaves to a holder; see
:mod:`distributed_pg.runtime.weights_holder`. Without the GCS, it ends every process after a while,
with no chance to save, so training checks here.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain

import psutil
import ray
from ray.exceptions import RayError

from distributed_pg.errors import RunError
from distributed_pg.training.polled_clock import PolledClock

LOOK_SECONDS = 0.2
"""Time between checks of Ray's processes."""
ASK_SECONDS = 1.0
"""Time between requests for a cluster's CPUs."""
SAVE_SHARE, END_SHARE = 0.25, 0.6
"""When to save and when to end the run, as fractions of Ray's timeout for a silent GCS."""
_GCS_VARIABLE, _GCS_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
START_GRACE_SECONDS = 45.0
"""Time that Ray has to notice that its GCS has ended; most of its calls time out after 30 s."""
STOPPED_SECONDS = 10.0
"""Maximum time a raylet is stopped; then it is killed, which also ends what waits for it."""
_GCS, _RAYLET = "gcs_server", "raylet"
_DAEMONS = (_RAYLET, _GCS)
_AGENT_SCRIPTS = ("/dashboard/agent.py", "/runtime_env/agent/main.py")
_AGENT_TITLES = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Commands of the raylet's two agents, before and after they give themselves a title; the raylet
exits when one of them ends. A worker's command names their ports, and its title its class, which
may well be called an agent."""
_AGENT_NAME = "raylet's agent"


class RayLostError(RunError):
    """Ray's processes or the cluster's head are gone.

    Args:
        reason: the message.
        ours: whether this process started that Ray.
    """

    def __init__(self, reason: str, *, ours: bool = False) -> None:
        super().__init__(reason)
        self.ours = ours


class RayStartError(RunError):
    """Ray did not start, or did not connect."""


class ProcessWatch:
    """Monitors the raylet of this machine and its agents, and the GCS if it runs here.

    Args:
        ours: whether this process started that Ray.
    """

    def __init__(self, *, ours: bool) -> None:
        self._ours = ours
        self._look_at = 0.0
        node = ray.get_runtime_context().get_node_id()
        self._daemons = list(_daemons(node))
        self._saved = threading.Event()
        if ours:
            self._stop_raylet_with_its_agents()

    def check(self, *, at_once: bool = False) -> None:
        """Check that all of these processes are running.

        Args:
            at_once: check even if that was just done.

        Raises:
            RayLostError: a process has ended.
        """
        now = time.monotonic()
        if now < self._look_at and not at_once:
            return
        self._look_at = now + LOOK_SECONDS
        for process, name in self._daemons:
            if not _runs(process):
                raise RayLostError(
                    f"Ray's process {name} on this machine has ended", ours=self._ours
                )

    def saved(self) -> None:
        """Record that everything is saved, or that Ray is no longer needed."""
        self._saved.set()

    def end(self) -> None:
        """Kill the remaining processes, once everything is saved."""
        self.saved()
        for process, _ in self._daemons:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _stop_raylet_with_its_agents(self) -> None:
        """Act before a raylet that has lost an agent ends this process.

        Such a raylet unregisters and exits. A tenth of a second after that news, Ray looks for the
        lost weights in the object store, which went with the raylet, and ends this process. So a
        thread kills the GCS, which would deliver the news, and stops the raylet, which holds the
        store, until everything is saved.
        """
        if sys.platform != "linux":
            return
        pidfds: dict[str, list[int]] = {name: [] for name in (_GCS, _RAYLET, _AGENT_NAME)}
        try:
            for process, name in self._daemons:
                pidfds[name].append(os.pidfd_open(process.pid))
        except OSError:  # an old kernel, or a process has just ended
            return

        def wait() -> None:
            watched = select.poll()
            for agent in pidfds[_AGENT_NAME]:
                watched.register(agent, select.POLLIN)
            watched.poll()
            # Milliseconds count: nothing here may release the GIL.
            _send(pidfds[_GCS], signal.SIGKILL)
            if not self._saved.is_set():
                _send(pidfds[_RAYLET], signal.SIGSTOP)
                self._saved.wait(STOPPED_SECONDS)
            _send(pidfds[_RAYLET], signal.SIGKILL)
            for pidfd in chain.from_iterable(pidfds.values()):
                os.close(pidfd)

        threading.Thread(target=wait, name="agents", daemon=True).start()


class StartWatch:
    """Ends this process if Ray's GCS ends while Ray is starting in the ``with`` block.

    Ray would wait a minute for its GCS in a call that cannot be interrupted, and then end the
    process with exit code 1 and without our error message. Nothing is lost: before a restart of
    Ray, everything learned is saved.
    """

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="start watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._started.set()
        self._thread.join()

    def _work(self) -> None:
        gcs: psutil.Process | None = None
        while not self._started.wait(LOOK_SECONDS):
            gcs = gcs or _child(_GCS)
            # Ray may notice and raise an exception, which is better.
            if gcs and not _runs(gcs) and not self._started.wait(START_GRACE_SECONDS):
                sys.stderr.write(
                    f"\ndistributed-pg: error: Ray did not start: its process {_GCS} has ended\n"
                )
                sys.stderr.flush()
                os._exit(1)


class ClusterWatch:
    """Asks a cluster for its CPUs in a separate thread, since Ray blocks if the head is gone.

    Silence only counts while :meth:`check` is being called, so a stopped process or a sleeping
    laptop is not mistaken for a silent cluster.
    """

    def __init__(self) -> None:
        self.when_silent: Callable[[], object] = lambda: None
        """Called once when the head has been silent long enough that the run should save."""
        self._cpus = cluster_cpus()
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._clock = PolledClock(time.monotonic)
        self._clock.judge_by(4 * ASK_SECONDS)
        self._answered_at = self._clock()
        self._reported = False
        self._limit = float(os.environ.get(_GCS_VARIABLE, _GCS_SECONDS))
        self._thread = threading.Thread(target=self._work, name="cluster watch", daemon=True)
        self._thread.start()

    @property
    def cpus(self) -> int:
        """CPUs of all nodes at the cluster's last answer."""
        return self._cpus

    def check(self) -> None:
        """Check that the head is answering.

        Raises:
            RayLostError: it has been silent for :data:`END_SHARE` of Ray's timeout.
        """
        self._clock.poll()
        now = self._clock()
        if self._answered.is_set():
            self._answered.clear()
            self._answered_at, self._reported = now, False
        silence = now - self._answered_at
        if silence > END_SHARE * self._limit:
            raise RayLostError(
                f"the head of the Ray cluster has been silent for {silence:.0f} s", ours=False
            )
        if silence > SAVE_SHARE * self._limit and not self._reported:
            self._reported = True
            self.when_silent()

    def end(self) -> None:
        """Stop asking."""
        self._ended.set()
        self._thread.join(2 * ASK_SECONDS)

    def _work(self) -> None:
        while not self._ended.wait(ASK_SECONDS):
            with suppress(RayError, RuntimeError):  # counts as silence
                self._cpus = cluster_cpus()
                self._answered.set()


def cluster_cpus() -> int:
    """Number of CPUs of all nodes now."""
    return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


def _daemons(node: str) -> Iterator[tuple[psutil.Process, str]]:
    """Ray's processes for the node on this machine; their arguments contain its id."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            name = process.name().removesuffix(".exe")
            if name not in _DAEMONS or not any(node in part for part in process.cmdline()):
                continue
            yield process, name
            for child in process.children():
                if is_agent(child.cmdline()):
                    yield child, _AGENT_NAME


def is_agent(command: list[str]) -> bool:
    """Whether a command is that of one of the raylet's agents, and not that of a worker."""
    return command[:1] in ([title] for title in _AGENT_TITLES) or any(
        word.replace("\\", "/").endswith(_AGENT_SCRIPTS) for word in command
    )


def _send(pidfds: list[int], number: int) -> None:
    if sys.platform == "linux":
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)


def _child(name: str) -> psutil.Process | None:
    """The child process with this name, if there is one."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name().removesuffix(".exe") == name:
                return child
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        # A child process remains as a zombie.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
