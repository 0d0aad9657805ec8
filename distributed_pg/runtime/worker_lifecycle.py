"""The life cycle of workers: starting, ready, retried, replaced, gone."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

import ray
from ray.exceptions import RayError, RayTaskError

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.runtime.actor import GONE, START_ATTEMPTS, Reference, Submit, Worker
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.worker_code import check_code
from distributed_pg.system_info import changed_versions
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.rollout_worker import WorkerInfo

_LOG = logging.getLogger(__name__)

START_SECONDS = 120.0
"""Minimum time a worker has to start before it is replaced."""
RETRY_SECONDS = 1.0
"""Delay before a worker that did not start is retried."""
UNREACHABLE_ATTEMPTS = 3
"""Consecutive failed calls after which an unreachable worker is replaced."""
PATIENCE_SECONDS = 30.0
"""Time without a ready worker before a warning."""


class WorkerState(Enum):
    """The state of a worker."""

    STARTING = auto()
    """It has been asked whether it is ready and has not answered; also after a restart by Ray."""
    RETRYING = auto()
    """It did not start and will be asked again."""
    READY = auto()
    """It can play."""
    GONE = auto()
    """It was killed, or died permanently."""


@dataclass(eq=False, slots=True)
class PoolWorker:
    """A worker and the pool's knowledge about it."""

    actor: Worker
    submit: Submit
    silent_since: float
    """Time of its last answer, or of the first request after that, by the pool's clock."""
    state: WorkerState = WorkerState.STARTING
    tasks: int = 0
    """Number of unfinished tasks; it plays the first."""
    failed_starts: int = 0
    """Number of failed starts since it was last ready."""
    differed: int = 0
    """Number of starts in a row with different code, with those of the workers it replaces."""


class WorkerGroup:
    """The workers of a pool.

    Ray restarts a dead worker without limit. It can play again once it reports that it is ready.

    Args:
        config: the run's settings, sent to every worker.
        play: returns the function that sends tasks to a worker.
        start: starts a worker.
        cpus: returns the number of CPUs for workers.
        clock: the pool's clock.
    """

    def __init__(
        self,
        config: TrainConfig,
        play: Callable[[Worker], Submit],
        start: Callable[[TrainConfig], Worker],
        cpus: Callable[[], int],
        clock: PolledClock,
    ) -> None:
        self._config = config
        self._play = play
        self._start = start
        self._cpus = cpus
        self._clock = clock
        self.ready = 0
        """Number of ready workers."""
        self._workers: set[PoolWorker] = set()
        self._retries: deque[tuple[float, PoolWorker]] = deque()
        self._failed_starts = 0
        self._reported_changes: set[str] = set()
        self._none_ready_since = clock()
        self._none_ready_reported = False

    def __len__(self) -> int:
        """Number of workers that are not gone."""
        return len(self._workers)

    def __iter__(self) -> Iterator[PoolWorker]:
        """The workers that are not gone."""
        return iter(self._workers)

    def start(self) -> PoolWorker:
        """Start one more worker."""
        actor = self._start(self._config)
        worker = PoolWorker(actor, self._play(actor), self._clock())
        self._workers.add(worker)
        return worker

    def ask_if_ready(self, worker: PoolWorker) -> Reference:
        """Ask a worker to report when it is ready; return a reference to its WorkerInfo."""
        if worker.failed_starts == 0:
            worker.silent_since = self._clock()
        self._move(worker, WorkerState.STARTING)
        reference: Reference = worker.actor.prepare.remote()
        return reference

    def to_ask_again(self) -> Iterator[PoolWorker]:
        """Yield the workers that did not start and are due for a retry."""
        while self._retries and self._retries[0][0] <= time.monotonic():
            worker = self._retries.popleft()[1]
            if worker.state is WorkerState.RETRYING:  # else it has been replaced
                yield worker

    def started(self, worker: PoolWorker, info: WorkerInfo) -> bool:
        """Record that a worker is ready, unless it runs different code from this process.

        A raylet unpacks the code anew, over that of another on the same host. A worker that reads
        it then finds only some files, so one that differs is replaced.

        Args:
            worker: the worker.
            info: its report.

        Returns:
            Whether it is ready.

        Raises:
            RunError: its replacements, too, run different code.
        """
        try:
            check_code(info)
        except RunError:
            if worker.differed + 1 >= START_ATTEMPTS:
                raise
            self.kill(worker)
            replacement = self.start()
            replacement.differed = worker.differed + 1
            self._retry(replacement)
            return False
        self._move(worker, WorkerState.READY)
        worker.failed_starts = worker.differed = self._failed_starts = 0
        for change in changed_versions(info.versions):
            if change not in self._reported_changes:
                self._reported_changes.add(change)
                _LOG.warning(f"on a worker {change}: the run may not be reproducible bit for bit")
        return True

    def failed_to_start(self, worker: PoolWorker, error: RayError) -> None:
        """Schedule a retry for a worker that did not start, or for its replacement.

        Args:
            worker: the worker.
            error: why it did not start.

        Raises:
            RunError: starts have failed too often, and no worker is ready.
        """
        worker.failed_starts += 1
        if worker.failed_starts == 1:
            _LOG.warning(f"a worker did not start and is retried ({reason_of(error)})")
        if isinstance(error, (*GONE, RayTaskError)):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS and self.ready == 0:
                raise RunError(f"no worker can be started: {reason_of(error)}") from error
        elif worker.failed_starts >= UNREACHABLE_ATTEMPTS:  # its process may hang
            _LOG.warning("a worker cannot be reached and is replaced")
            self.kill(worker)
            worker = self.start()
        self._retry(self.successor(worker, error))

    def successor(self, worker: PoolWorker, error: RayError) -> PoolWorker:
        """The same worker, or a new one if Ray will not restart it.

        Args:
            worker: the failed worker.
            error: its error.
        """
        if not isinstance(error, GONE):
            return worker
        self._remove(worker)
        return self.start()

    def kill(self, worker: PoolWorker) -> None:
        """Kill a worker."""
        ray.kill(worker.actor)
        self._remove(worker)

    def kill_all(self) -> None:
        """Kill all workers when the pool is closed."""
        for worker in self._workers:
            with suppress(RayError):  # Ray is gone, and the workers with it
                ray.kill(worker.actor)

    def is_hung(self, worker: PoolWorker, deadline: float) -> bool:
        """Whether a worker that owes an answer has been silent for too long.

        Args:
            worker: the worker.
            deadline: maximum silence in seconds.
        """
        silent = self._clock() - worker.silent_since
        if worker.state is WorkerState.GONE:
            return False
        if worker.state is WorkerState.READY:
            return worker.tasks > 0 and silent > deadline
        if silent <= max(deadline, START_SECONDS):
            return False
        if self._cpus() < len(self._workers):  # it may be waiting for a CPU: restart its time
            worker.silent_since = self._clock()
            return False
        return True

    def warn_if_none_is_ready(self) -> None:
        """Warn once if no worker has been ready for a while."""
        now = self._clock()
        if self.ready > 0:
            self._none_ready_since, self._none_ready_reported = now, False
        elif now - self._none_ready_since > PATIENCE_SECONDS and not self._none_ready_reported:
            self._none_ready_reported = True
            _LOG.warning(
                f"no worker has been ready for {PATIENCE_SECONDS:.0f} s; each needs a CPU of its "
                f"own, and the cluster has {self._cpus()}"
            )

    def _retry(self, worker: PoolWorker) -> None:
        self._move(worker, WorkerState.RETRYING)
        self._retries.append((time.monotonic() + RETRY_SECONDS, worker))

    def _remove(self, worker: PoolWorker) -> None:
        self._workers.remove(worker)
        self._move(worker, WorkerState.GONE)

    def _move(self, worker: PoolWorker, state: WorkerState) -> None:
        """Change a worker's state; the only place that does."""
        self.ready += (state is WorkerState.READY) - (worker.state is WorkerState.READY)
        worker.state = state
