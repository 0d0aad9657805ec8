"""A worker pool on Ray: actors play; the weights come with their tasks or from the object store."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from ray.exceptions import RayError, RayTaskError

from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, one_line, plain
from distributed_pg.runtime.actor import Reference, Submit, Worker, play, start_worker
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.health import cluster_cpus
from distributed_pg.runtime.sent_weights import SentWeights
from distributed_pg.runtime.task_router import Call, TaskRouter
from distributed_pg.runtime.weights_holder import HeldWeights
from distributed_pg.runtime.worker_lifecycle import PoolWorker, WorkerGroup, WorkerState
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, PoolEvent, WorkerLost

_LOG = logging.getLogger(__name__)

RESIZE_SECONDS = 1.0
"""Time between checks of the target number of workers."""
_LOOK_SECONDS = 0.5
"""Time between searches for silent workers, and time limit for their late answers."""


class Check(Protocol):
    """Checks that Ray is still there."""

    def __call__(self, *, at_once: bool = False) -> None:
        """Raise RayLostError if Ray is gone; ``at_once``: even if it was just checked."""


def _no_check(*, at_once: bool = False) -> None:
    """No check, for a Ray that is monitored elsewhere."""


class RayWorkerPool:
    """A :class:`distributed_pg.training.worker_pool.WorkerPool` of Ray actors.

    The :class:`WorkerGroup` starts and replaces workers, the :class:`TaskRouter` sends them tasks.
    The pool collects their answers and updates both when the state of a worker changes.

    Args:
        config: the run's settings, sent to every worker.
        target: returns the desired number of workers; called regularly.
        play: returns the function that sends tasks to a worker.
        start: starts a worker.
        check: raises RayLostError if Ray is gone; called with ``at_once`` before a broadcast.
        cpus: returns the number of CPUs for workers.
    """

    def __init__(
        self,
        config: TrainConfig,
        target: Callable[[], int],
        play: Callable[[Worker], Submit] = play,
        start: Callable[[TrainConfig], Worker] = start_worker,
        check: Check = _no_check,
        cpus: Callable[[], int] = cluster_cpus,
    ) -> None:
        self._target = target
        self._check = check
        self._clock = PolledClock(time.monotonic)
        self._group = WorkerGroup(config, play, start, cpus, self._clock)
        self._router = TaskRouter(self._clock)
        self._weights = SentWeights() if config.tasks_per_batch == 1 else HeldWeights()
        self._look_for_hung_at = 0.0
        self._resize_at = 0.0
        self._resize()

    def __enter__(self) -> "RayWorkerPool":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers and free their resources."""
        self._group.kill_all()
        self._weights.end()
        self._router.calls.clear()

    @property
    def workers(self) -> int:
        """Number of workers that can play."""
        return self._group.ready

    @property
    def starting(self) -> bool:
        """Whether a worker is not ready yet."""
        return self._group.ready < len(self._group)

    @property
    def idle(self) -> int:
        """Number of workers without a task."""
        return len(self._router.idle)

    def broadcast(self, version: int, policy: Policy) -> None:
        """Get a new version of the weights to the workers, now or with their tasks.

        Args:
            version: the version of the weights.
            policy: the weights.

        Raises:
            RayLostError: Ray is gone.
        """
        # If the caller has connected this process to Ray, Ray may put the weights here after all,
        # and would end this process if the raylet were gone.
        self._check(at_once=True)
        self._weights.hold(version, policy)

    def drop_weights(self, before: int) -> None:
        """Free all versions of the weights below ``before``."""
        self._weights.drop(before)

    def can_submit(self, free: int) -> bool:
        """Whether to submit one of ``free`` tasks; see :class:`WorkerPool`."""
        router = self._router
        return free > 0 and bool(router.idle or (router.playing and free >= self._group.ready))

    def submit(self, task: EpisodeTask) -> None:
        """Give the task to a worker."""
        self._router.submit(task, self._weights[task.version])

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """Return the events since the last call; see :class:`WorkerPool`."""
        self._check()
        for worker in self._group.to_ask_again():
            self._ask_if_ready(worker)
        self._clock.judge_by(deadline)
        pending = list(self._router.calls)
        # ray.wait scans all calls, so with hundreds of workers it waits for several answers. That
        # leaves no worker idle, since each has a second task.
        events = self._take_in(pending, 1 + len(pending) // 64, timeout)
        # Silence can only be judged after the answers are collected.
        self._group.warn_if_none_is_ready()
        return [*events, *self._resize(), *self._replace_hung(deadline)]

    def _take_in(self, pending: list[Reference], most: int, timeout: float) -> list[PoolEvent]:
        """Turn the answers to these calls into events; see :meth:`TaskRouter.answers`."""
        answers = self._router.answers(pending, most, timeout)
        events = [self._collect(call, answer) for call, answer in answers]
        return [event for event in events if event is not None]

    def _collect(self, call: Call, answer: Any) -> PoolEvent | None:
        """Turn an answer, or the exception of a failed call, into an event."""
        now, worker = self._clock(), call.worker
        seconds = now - worker.silent_since
        worker.silent_since = now
        if isinstance(answer, RayError):
            self._check(at_once=True)  # if the raylet is gone, that is the error to report
        if call.task is None:
            self._started(worker, answer)
            return None
        worker.tasks -= 1
        if isinstance(answer, RayTaskError):
            if not isinstance(answer.cause, RayError):
                return self._failed(call.task, worker, answer)
            # It did not get its weights: their node, the store or the holder failed.
            self._weights.replace_if_gone(call.weights, answer.cause)
            return self._lost(call.task, worker, answer.cause, intact=True)
        if isinstance(answer, RayError):
            return self._lost(call.task, worker, answer, intact=False)
        self._router.place(worker)
        stats, gradient = answer
        return EpisodeDone(call.task, stats, gradient, seconds)

    def _started(self, worker: PoolWorker, answer: Any) -> None:
        """Handle the answer of a worker that was asked whether it is ready."""
        if isinstance(answer, RayTaskError) and not isinstance(answer.cause, (OSError, RayError)):
            raise RunError(f"a worker failed: {_raised(answer)}") from answer
        if isinstance(answer, RayError):
            self._group.failed_to_start(worker, answer)
        elif self._group.started(worker, answer):
            self._router.place(worker)

    def _failed(self, task: EpisodeTask, worker: PoolWorker, error: RayTaskError) -> EpisodeFailed:
        """Handle an exception in the worker's code; the worker itself is intact."""
        reason = _raised(error)
        self._router.place(worker)
        return EpisodeFailed(task, reason, plain(error))

    def _lost(
        self, task: EpisodeTask, worker: PoolWorker, error: RayError, *, intact: bool
    ) -> WorkerLost:
        """Handle a task that will not finish; the worker is lost, too, unless it is ``intact``."""
        if worker.state is WorkerState.READY:  # otherwise its first task was handled already
            self._ask_if_ready(worker if intact else self._group.successor(worker, error))
            self._router.place(worker)
        return WorkerLost(task, reason_of(error))

    def _resize(self) -> list[PoolEvent]:
        """Start or dismiss workers until there are as many as the target says.

        Ready workers are never dismissed: workers whose CPUs are gone are not ready.
        """
        now = time.monotonic()
        if now < self._resize_at:
            return []
        self._resize_at = now + RESIZE_SECONDS
        missing = self._target() - len(self._group)
        for _ in range(missing):
            self._ask_if_ready(self._group.start())
        waiting = [worker for worker in self._group if worker.state is not WorkerState.READY]
        events: list[PoolEvent] = []
        for worker in waiting[: max(0, -missing)]:
            events += self._dismiss(worker, "its CPU is gone")
        return events

    def _replace_hung(self, deadline: float) -> list[PoolEvent]:
        """Kill the workers that have been silent for too long, and start replacements."""
        now = time.monotonic()
        if now < self._look_for_hung_at:
            return []
        self._look_for_hung_at = now + _LOOK_SECONDS
        suspects = [worker for worker in self._group if self._group.is_hung(worker, deadline)]
        if not suspects:
            return []
        # Their answers may have arrived. After a stall, Ray needs a moment to find them.
        pending = self._router.calls_to(suspects)
        events = self._take_in(pending, len(pending), _LOOK_SECONDS)
        hung = [worker for worker in suspects if self._group.is_hung(worker, deadline)]
        tasks = [self._router.calls[call].task for call in self._router.calls_to(hung)]
        # They may be silent because they do not get their weights.
        self._weights.restart_if_it_hangs({task.version for task in tasks if task})
        for worker in hung:
            events += self._replace(worker)
        return events

    def _replace(self, worker: PoolWorker) -> list[WorkerLost]:
        """Kill a silent worker and start another."""
        silent = self._clock() - worker.silent_since
        if worker.state is not WorkerState.READY:
            _LOG.warning(f"a worker did not start in {silent:.0f} s and is replaced")
        lost = self._dismiss(worker, f"its worker was silent for {silent:.0f} s and is replaced")
        self._ask_if_ready(self._group.start())
        return lost

    def _dismiss(self, worker: PoolWorker, reason: str) -> list[WorkerLost]:
        """Kill a worker and drop its calls; its tasks are lost."""
        self._group.kill(worker)
        return [WorkerLost(task, reason) for task in self._router.drop(worker)]

    def _ask_if_ready(self, worker: PoolWorker) -> None:
        self._router.calls[self._group.ask_if_ready(worker)] = Call(worker)


def _raised(error: RayTaskError) -> str:
    """The exception in a worker's code, in one line.

    Raises:
        RunError: that was the exception.
    """
    if isinstance(error.cause, RunError):
        raise error.cause
    return f"{type(error.cause).__name__}: {one_line(error.cause)}"
