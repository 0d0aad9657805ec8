"""Which worker gets which task: who is idle, who plays, which calls have not returned."""

import time
from collections import OrderedDict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from distributed_pg.runtime.actor import MOST_TASKS, Reference, get_all
from distributed_pg.runtime.worker_group import PoolWorker, WorkerState
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask

_READY = WorkerState.READY  # looked up once: Enum's own look-up is slow


@dataclass(frozen=True, slots=True)
class Call:
    """A call to a worker that has not returned. Without a task: is it ready?"""

    worker: PoolWorker
    task: EpisodeTask | None = None


class TaskRouter:
    """Sends tasks to workers and takes their answers in.

    A worker may have a second task waiting behind its game, so that it need not wait for the
    learner's answer.

    Args:
        clock: the pool's.
    """

    def __init__(self, clock: PolledClock) -> None:
        self._clock = clock
        self.idle: OrderedDict[PoolWorker, None] = OrderedDict()
        """Ready workers without a task; the one that has waited longest comes first."""
        self.playing: OrderedDict[PoolWorker, None] = OrderedDict()
        """Ready workers with room for another task behind their game, ordered likewise."""
        self.calls: dict[Reference, Call] = {}
        """What has not returned, by the reference to the answer; the oldest comes first."""

    def submit(self, task: EpisodeTask, weights: Reference) -> None:
        """Send a task to the worker that is idle for longest, or else plays for longest."""
        queue = self.idle or self.playing
        worker = next(iter(queue))
        if worker.tasks == 0:
            worker.silent_since = self._clock()
        answer = worker.submit(task.episode, weights)
        self.calls[answer] = Call(worker, task)
        worker.tasks += 1
        del queue[worker]
        if worker.tasks < MOST_TASKS:
            self.playing[worker] = None

    def place(self, worker: PoolWorker) -> None:
        """Queue a worker where it belongs now: its state or its tasks have changed."""
        self.idle.pop(worker, None)
        self.playing.pop(worker, None)
        if worker.state is _READY:
            if worker.tasks == 0:
                self.idle[worker] = None
            elif worker.tasks < MOST_TASKS:
                self.playing[worker] = None

    def answers(
        self, pending: list[Reference], most: int, timeout: float
    ) -> Iterator[tuple[Call, Any]]:
        """Up to ``most`` of the pending calls with their results; waits for ``timeout`` seconds.

        A failed call yields its exception.
        """
        if pending:
            ready, _ = ray.wait(pending, num_returns=most, timeout=timeout)
        else:
            time.sleep(timeout)
            ready = []
        self._clock.poll()
        calls = [self.calls.pop(reference) for reference in ready]
        return zip(calls, get_all(ready), strict=True)

    def calls_to(self, workers: Container[PoolWorker]) -> list[Reference]:
        """The calls to these workers that have not returned."""
        return [reference for reference, call in self.calls.items() if call.worker in workers]

    def drop(self, worker: PoolWorker) -> list[EpisodeTask]:
        """Expect nothing more of a worker that is gone; returns the tasks that it had."""
        self.place(worker)
        calls = [self.calls.pop(reference) for reference in self.calls_to([worker])]
        return [call.task for call in calls if call.task is not None]
