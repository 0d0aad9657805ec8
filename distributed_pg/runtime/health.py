"""Notice that Ray itself is gone, before Ray ends this process for it.

Ray has a process on each machine, the raylet, and one for the whole cluster, the GCS. Where the
raylet is gone, Ray ends a process that puts an object into the store; where the GCS is, it ends
every process after a while. Neither leaves a chance to save, so whoever trains asks here first.
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
"""How often to look after Ray's processes."""
ASK_SECONDS = 1.0
"""How often to ask a cluster for its CPUs."""
SAVE_SHARE, END_SHARE = 0.25, 0.6
"""After which shares of the time that Ray waits for a silent GCS to save, and to end the run."""
_GCS_VARIABLE, _GCS_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
START_GRACE_SECONDS = 45.0
"""How long Ray has to notice by itself that its GCS has ended; most of its calls take 30 s."""
STOPPED_SECONDS = 10.0
"""How long a raylet is stopped at most; then what waits for it is ended with it."""
_GCS, _RAYLET = "gcs_server", "raylet"
_DAEMONS = (_RAYLET, _GCS)
_AGENT = "agent"
"""In the command of the raylet's two helpers; it ends itself when one of them has ended."""
_AGENT_NAME = "raylet's agent"


class RayLostError(RunError):
    """Ray's own processes are gone, or the cluster's head is; ``ours``: we started that Ray."""

    def __init__(self, reason: str, *, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


class RayStartError(RunError):
    """Ray did not start, or did not connect."""


class ProcessWatch:
    """Looks whether the raylet of this machine lives and its agents, and the GCS if it is here.

    Args:
        ours: whether we started this Ray.
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
        """Raise RayLostError where one of them has ended.

        Args:
            at_once: look even if that was done just now.
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
        """All is saved, or nothing is needed of Ray any more."""
        self._saved.set()

    def end(self) -> None:
        """End what is left of them; call it when all is saved."""
        self.saved()
        for process, _ in self._daemons:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _stop_raylet_with_its_agents(self) -> None:
        """Be quicker than a raylet that has lost an agent.

        It signs off, and ends. A tenth of a second after that news, Ray looks for the weights that
        were lost with it, in the store that was lost with it, and ends this process for that. So
        the GCS, which brings the news, is killed, and the raylet, which holds the store, is stopped
        until all is saved.
        """
        if sys.platform != "linux":
            return
        pidfds: dict[str, list[int]] = {name: [] for name in (_GCS, _RAYLET, _AGENT_NAME)}
        try:
            for process, name in self._daemons:
                pidfds[name].append(os.pidfd_open(process.pid))
        except OSError:  # an old kernel, or one has ended just now
            return

        def wait() -> None:
            watched = select.poll()
            for agent in pidfds[_AGENT_NAME]:
                watched.register(agent, select.POLLIN)
            watched.poll()
            # Milliseconds count: nothing here may give up the interpreter's lock.
            _send(pidfds[_GCS], signal.SIGKILL)
            if not self._saved.is_set():
                _send(pidfds[_RAYLET], signal.SIGSTOP)
                self._saved.wait(STOPPED_SECONDS)
            _send(pidfds[_RAYLET], signal.SIGKILL)
            for pidfd in chain.from_iterable(pidfds.values()):
                os.close(pidfd)

        threading.Thread(target=wait, name="agents", daemon=True).start()


class StartWatch:
    """Ends this process where Ray's GCS ends while Ray is being started, in a ``with`` block.

    Ray would wait for its GCS for a minute, deep in a call that nothing interrupts, and then end
    the process itself, with exit code 1 and no word of ours. There is nothing to save yet: what was
    learned before a restart of Ray is saved.
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
            # Ray may notice as well, and raise: that is better.
            if gcs and not _runs(gcs) and not self._started.wait(START_GRACE_SECONDS):
                sys.stderr.write(
                    f"\ndistributed-pg: error: Ray did not start: its process {_GCS} has ended\n"
                )
                sys.stderr.flush()
                os._exit(1)


class ClusterWatch:
    """Asks a cluster for its CPUs, in a thread of its own: without its head, Ray does not answer.

    Silence counts only while :meth:`check` is called, so a process that was stopped, or a laptop
    that slept, does not take that for the cluster's silence.
    """

    def __init__(self) -> None:
        self.when_silent: Callable[[], object] = lambda: None
        """Called once when the head has been silent for so long that it is time to save."""
        self._cpus = cluster_cpus()
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._clock = PolledClock(time.monotonic)
        self._clock.judge_by(4 * ASK_SECONDS)
        self._answered_at = self._clock()
        self._told = False
        self._limit = float(os.environ.get(_GCS_VARIABLE, _GCS_SECONDS))
        self._thread = threading.Thread(target=self._work, name="cluster watch", daemon=True)
        self._thread.start()

    @property
    def cpus(self) -> int:
        """CPUs of all nodes when the cluster answered last."""
        return self._cpus

    def check(self) -> None:
        """Raise RayLostError where the head was silent for nearly as long as Ray waits for it."""
        self._clock.poll()
        now = self._clock()
        if self._answered.is_set():
            self._answered.clear()
            self._answered_at, self._told = now, False
        silence = now - self._answered_at
        if silence > END_SHARE * self._limit:
            raise RayLostError(
                f"the head of the Ray cluster has been silent for {silence:.0f} s", ours=False
            )
        if silence > SAVE_SHARE * self._limit and not self._told:
            self._told = True
            self.when_silent()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join(2 * ASK_SECONDS)

    def _work(self) -> None:
        while not self._ended.wait(ASK_SECONDS):
            with suppress(RayError, RuntimeError):  # it is silence as well
                self._cpus = cluster_cpus()
                self._answered.set()


def cluster_cpus() -> int:
    """CPUs of all nodes that Ray is connected to now."""
    return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


def _daemons(node: str) -> Iterator[tuple[psutil.Process, str]]:
    """Ray's processes on this machine that serve the node, which is named in their arguments."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            name = process.name().removesuffix(".exe")
            if name not in _DAEMONS or not any(node in part for part in process.cmdline()):
                continue
            yield process, name
            for child in process.children():
                if _AGENT in " ".join(child.cmdline()).lower():
                    yield child, _AGENT_NAME


def _send(pidfds: list[int], number: int) -> None:
    if sys.platform == "linux":
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)


def _child(name: str) -> psutil.Process | None:
    """A process that this one has started."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name().removesuffix(".exe") == name:
                return child
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        # One that we started stays as a zombie.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
