"""The worker pool on Ray: actors that play, an object store for the weights."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, one_line, plain
from distributed_pg.runtime.actor import Reference, Submit, Worker, play, start_worker
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.health import cluster_cpus
from distributed_pg.runtime.task_router import Call, TaskRouter
from distributed_pg.runtime.worker_group import PoolWorker, WorkerGroup, WorkerState
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, PoolEvent, WorkerLost

_LOG = logging.getLogger(__name__)

RESIZE_SECONDS = 1.0
"""How often to see whether there should be more workers, or fewer."""
_LOOK_SECONDS = 0.5
"""How often to look for workers that are silent, and how long to wait for their answers then."""


class Check(Protocol):
    """Raises RayLostError where Ray is gone; ``at_once``: looks even if it did just now."""

    def __call__(self, *, at_once: bool = False) -> None:
        """Check."""


def _no_check(*, at_once: bool = False) -> None:
    """For a Ray that somebody else looks after."""


class RayWorkerPool:
    """A :class:`distributed_pg.training.worker_pool.WorkerPool` of Ray actors.

    The :class:`WorkerGroup` starts and replaces workers, the :class:`TaskRouter` sends them tasks.
    The pool takes their answers in and tells both what has become of a worker.

    Args:
        config: the run's settings, sent to every worker.
        target: says how many workers there should be; asked again from time to time.
        play: how a worker is had to play.
        start: makes a worker.
        check: raises RayLostError where Ray is gone; ``at_once``, before an object is put.
        cpus: how many CPUs there are for workers.
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
        self._weights: dict[int, Reference] = {}
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
        """Stop the workers and free what they hold."""
        self._group.kill_all()
        self._router.calls.clear()
        self._weights.clear()

    @property
    def workers(self) -> int:
        """Workers that can play now."""
        return self._group.ready

    @property
    def starting(self) -> bool:
        """Whether a worker has not said yet that it is ready."""
        return self._group.ready < len(self._group)

    @property
    def idle(self) -> int:
        """Workers that have no task."""
        return len(self._router.idle)

    def broadcast(self, version: int, policy: Policy) -> None:
        """Copy the weights to the object store, where workers read them without a copy."""
        self._check(at_once=True)  # without a raylet Ray would end this process
        self._weights[version] = ray.put(policy)

    def drop_weights(self, before: int) -> None:
        """Free the weights of the versions below ``before``."""
        for version in [v for v in self._weights if v < before]:
            del self._weights[version]

    def can_submit(self, free: int) -> bool:
        """Whether to give out one of ``free`` tasks; see :class:`WorkerPool`."""
        router = self._router
        return free > 0 and bool(router.idle or (router.playing and free >= self._group.ready))

    def submit(self, task: EpisodeTask) -> None:
        """Have a worker play the task."""
        self._router.submit(task, self._weights[task.version])

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """What happened since the last call; see :class:`WorkerPool`."""
        self._check()
        for worker in self._group.to_ask_again():
            self._ask_if_ready(worker)
        self._clock.judge_by(deadline)
        pending = list(self._router.calls)
        # ray.wait looks at each call there is, so with hundreds of workers several answers are
        # waited for. Nobody is kept waiting by that: the workers have second tasks.
        events = self._take_in(pending, 1 + len(pending) // 64, timeout)
        # Only now, with the answers taken in, is it known who was silent.
        self._group.warn_if_none_is_ready()
        return [*events, *self._resize(), *self._replace_hung(deadline)]

    def _take_in(self, pending: list[Reference], most: int, timeout: float) -> list[PoolEvent]:
        """What the answers to these calls say; see :meth:`TaskRouter.answers`."""
        answers = self._router.answers(pending, most, timeout)
        events = [self._collect(call, answer) for call, answer in answers]
        return [event for event in events if event is not None]

    def _collect(self, call: Call, answer: Any) -> PoolEvent | None:
        """What an answer, or the exception in its place, says."""
        now, worker = self._clock(), call.worker
        seconds = now - worker.silent_since
        worker.silent_since = now
        if isinstance(answer, RayError):
            self._check(at_once=True)  # workers end with their raylet, and are not the news then
        if isinstance(answer, RayTaskError):
            if not isinstance(answer.cause, RayError):
                return self._failed(call, answer)
            # The worker could not get the weights: its node or the store is in trouble, not it.
            answer = answer.cause
        if call.task is None:
            if isinstance(answer, RayError):
                self._group.failed_to_start(worker, answer)
            else:
                self._group.started(worker, answer)
                self._router.place(worker)
            return None
        worker.tasks -= 1
        if isinstance(answer, RayError):
            if worker.state is WorkerState.READY:  # else this was its second task
                self._ask_if_ready(self._group.successor(worker, answer))
                self._router.place(worker)
            return WorkerLost(call.task, reason_of(answer))
        self._router.place(worker)
        stats, gradient = answer
        return EpisodeDone(call.task, stats, gradient, seconds)

    def _failed(self, call: Call, error: RayTaskError) -> EpisodeFailed:
        """The worker's code raised an exception; the worker itself is well."""
        if isinstance(error.cause, RunError):
            raise error.cause
        reason = f"{type(error.cause).__name__}: {one_line(error.cause)}"
        if call.task is None:
            raise RunError(f"a worker failed: {reason}") from error
        call.worker.tasks -= 1
        self._router.place(call.worker)
        return EpisodeFailed(call.task, reason, plain(error))

    def _resize(self) -> list[PoolEvent]:
        """Have as many workers as there should be.

        Those that are ready stay: where CPUs went, their workers are not ready any more.
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
        """Kill the workers that are silent for too long and start others."""
        now = time.monotonic()
        if now < self._look_for_hung_at:
            return []
        self._look_for_hung_at = now + _LOOK_SECONDS
        suspects = [worker for worker in self._group if self._group.is_hung(worker, deadline)]
        if not suspects:
            return []
        # Their answers may lie here. After a stall, Ray needs a moment to find them.
        pending = self._router.calls_to(suspects)
        events = self._take_in(pending, len(pending), _LOOK_SECONDS)
        for worker in suspects:
            if self._group.is_hung(worker, deadline):
                events += self._replace(worker)
        return events

    def _replace(self, worker: PoolWorker) -> list[WorkerLost]:
        """Kill a worker that is silent and start another."""
        silent = self._clock() - worker.silent_since
        if worker.state is not WorkerState.READY:
            _LOG.warning(f"a worker did not start in {silent:.0f} s and is replaced")
        lost = self._dismiss(worker, f"its worker was silent for {silent:.0f} s and is replaced")
        self._ask_if_ready(self._group.start())
        return lost

    def _dismiss(self, worker: PoolWorker, reason: str) -> list[WorkerLost]:
        """Kill a worker and expect nothing of it any more; its tasks are lost."""
        self._group.kill(worker)
        return [WorkerLost(task, reason) for task in self._router.drop(worker)]

    def _ask_if_ready(self, worker: PoolWorker) -> None:
        self._router.calls[self._group.ask_if_ready(worker)] = Call(worker)
