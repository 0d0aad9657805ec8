"""A worker's life: it starts, becomes ready, is lost, tried again or replaced."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

import ray
from ray.exceptions import ActorDiedError, RayError

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.runtime.actor import Reference, Submit, Worker
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.worker_code import check_code
from distributed_pg.system_info import changed_versions
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.rollout_worker import WorkerInfo

_LOG = logging.getLogger(__name__)

START_SECONDS = 120.0
"""How long a worker may take to start, at least, before another is started in its place."""
RETRY_SECONDS = 1.0
"""How long to wait before a worker that did not start is tried again."""
UNREACHABLE_ATTEMPTS = 3
"""Failed calls in a row after which a worker that cannot be reached is replaced."""
START_ATTEMPTS = 5
"""Failed starts in a row after which the run gives up, if no worker can play."""
PATIENCE_SECONDS = 30.0
"""How long no worker may be ready before the user is told."""


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = auto()
    """It was asked whether it is ready, and has not answered; also after Ray restarted it."""
    RETRYING = auto()
    """It did not start, and will be asked again."""
    READY = auto()
    """It can play."""
    GONE = auto()
    """It was killed, or died for good."""


@dataclass(eq=False, slots=True)
class PoolWorker:
    """A worker and what the pool knows of it."""

    actor: Worker
    submit: Submit
    silent_since: float
    """When it last answered, or was given something to answer, by the pool's clock."""
    state: WorkerState = WorkerState.STARTING
    tasks: int = 0
    """Tasks it was given that have not come back; it plays the first."""
    failed_starts: int = 0
    """How often it failed to start since it was made or last ready."""


class WorkerGroup:
    """The workers of a pool.

    Ray restarts a worker that died, without limit. It may play again when it says that it is ready.

    Args:
        config: the run's settings, sent to every worker.
        play: how a worker is had to play.
        start: makes a worker.
        cpus: how many CPUs there are for workers.
        clock: the pool's.
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
        """Workers that are ready."""
        self._workers: set[PoolWorker] = set()
        self._retries: deque[tuple[float, PoolWorker]] = deque()
        self._failed_starts = 0
        self._reported_changes: set[str] = set()
        self._none_ready_since = clock()
        self._none_ready_reported = False

    def __len__(self) -> int:
        """Workers that are not gone."""
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
        """Have a worker say when it is ready; returns a reference to its WorkerInfo."""
        if worker.failed_starts == 0:
            worker.silent_since = self._clock()
        self._move(worker, WorkerState.STARTING)
        reference: Reference = worker.actor.prepare.remote()
        return reference

    def to_ask_again(self) -> Iterator[PoolWorker]:
        """The workers that did not start and have waited long enough since."""
        while self._retries and self._retries[0][0] <= time.monotonic():
            worker = self._retries.popleft()[1]
            if worker.state is WorkerState.RETRYING:  # it was not replaced meanwhile
                yield worker

    def started(self, worker: PoolWorker, info: WorkerInfo) -> None:
        """A worker is ready.

        Raises:
            RunError: it runs other code than this process.
        """
        check_code(info)
        self._move(worker, WorkerState.READY)
        worker.failed_starts = self._failed_starts = 0
        for change in changed_versions(info.versions):
            if change not in self._reported_changes:
                self._reported_changes.add(change)
                _LOG.warning(f"on a worker {change}: the run may not have the same bits again")

    def failed_to_start(self, worker: PoolWorker, error: RayError) -> None:
        """A worker did not start: it, or another in its place, is asked again in a moment.

        Raises:
            RunError: that was one time too many, and no worker is ready.
        """
        worker.failed_starts += 1
        if worker.failed_starts == 1:
            _LOG.warning(f"a worker did not start and is tried again ({reason_of(error)})")
        if isinstance(error, ActorDiedError):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS and self.ready == 0:
                raise RunError(f"no worker can be started: {reason_of(error)}") from error
        elif worker.failed_starts >= UNREACHABLE_ATTEMPTS:  # its process may hang
            _LOG.warning("a worker cannot be reached and is replaced")
            self.kill(worker)
            worker = self.start()
        again = time.monotonic() + RETRY_SECONDS
        worker = self.successor(worker, error)
        self._move(worker, WorkerState.RETRYING)
        self._retries.append((again, worker))

    def successor(self, worker: PoolWorker, error: RayError) -> PoolWorker:
        """The worker itself, or one in its place if ``error`` says that Ray won't restart it."""
        if not isinstance(error, ActorDiedError):
            return worker
        self._remove(worker)
        return self.start()

    def kill(self, worker: PoolWorker) -> None:
        """Kill a worker."""
        ray.kill(worker.actor)
        self._remove(worker)

    def kill_all(self) -> None:
        """Kill all workers, when the pool is closed."""
        for worker in self._workers:
            with suppress(RayError):  # Ray itself is gone, and its workers with it
                ray.kill(worker.actor)

    def is_hung(self, worker: PoolWorker, deadline: float) -> bool:
        """Whether a worker with something to answer was silent for too long."""
        silent = self._clock() - worker.silent_since
        if worker.state is WorkerState.GONE:
            return False
        if worker.state is WorkerState.READY:
            return worker.tasks > 0 and silent > deadline
        if silent <= max(deadline, START_SECONDS):
            return False
        if self._cpus() < len(self._workers):  # it may wait for a CPU: its time begins anew
            worker.silent_since = self._clock()
            return False
        return True

    def warn_if_none_is_ready(self) -> None:
        """Tell the user, once, that no worker has been ready for a while."""
        now = self._clock()
        if self.ready > 0:
            self._none_ready_since, self._none_ready_reported = now, False
        elif now - self._none_ready_since > PATIENCE_SECONDS and not self._none_ready_reported:
            self._none_ready_reported = True
            _LOG.warning(
                f"no worker has been ready for {PATIENCE_SECONDS:.0f} s; each needs a CPU of its "
                f"own, and the cluster has {self._cpus()}"
            )

    def _remove(self, worker: PoolWorker) -> None:
        self._workers.remove(worker)
        self._move(worker, WorkerState.GONE)

    def _move(self, worker: PoolWorker, state: WorkerState) -> None:
        """Change a worker's state; nothing else does."""
        self.ready += (state is WorkerState.READY) - (worker.state is WorkerState.READY)
        worker.state = state
