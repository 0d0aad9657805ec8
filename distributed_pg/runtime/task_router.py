"""Assigns tasks to workers and tracks idle workers, playing workers and pending calls."""

import time
from collections import OrderedDict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from distributed_pg.runtime.actor import MOST_TASKS, Reference, Weights, get_all
from distributed_pg.runtime.worker_lifecycle import PoolWorker, WorkerState
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask

_READY = WorkerState.READY  # looked up once: Enum's own look-up is slow


@dataclass(frozen=True, slots=True)
class Call:
    """A pending call to a worker; without a task it asks whether the worker is ready."""

    worker: PoolWorker
    task: EpisodeTask | None = None
    weights: Weights | None = None
    """The weights with which to play the task."""


class TaskRouter:
    """Sends tasks to workers and collects their answers.

    A worker may have a second task queued behind its game, so that it does not wait for the
    learner between games.

    Args:
        clock: the pool's clock.
    """

    def __init__(self, clock: PolledClock) -> None:
        self._clock = clock
        self.idle: OrderedDict[PoolWorker, None] = OrderedDict()
        """Ready workers without a task, longest waiting first."""
        self.playing: OrderedDict[PoolWorker, None] = OrderedDict()
        """Ready workers with room for another task behind their game, longest playing first."""
        self.calls: dict[Reference, Call] = {}
        """Pending calls by the reference to their answer, oldest first."""

    def submit(self, task: EpisodeTask, weights: Weights) -> None:
        """Send a task to the longest idle worker, or else to the longest playing one.

        Args:
            task: the task.
            weights: the weights to play it with.
        """
        queue = self.idle or self.playing
        worker = next(iter(queue))
        if worker.tasks == 0:
            worker.silent_since = self._clock()
        answer = worker.submit(task.episode, weights)
        self.calls[answer] = Call(worker, task, weights)
        worker.tasks += 1
        del queue[worker]
        if worker.tasks < MOST_TASKS:
            self.playing[worker] = None

    def place(self, worker: PoolWorker) -> None:
        """Requeue a worker after a change of its state or its tasks."""
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
        """Wait for answers to pending calls.

        Args:
            pending: references of the calls.
            most: maximum number of answers.
            timeout: seconds to wait for that many.

        Returns:
            The answered calls with their results; a failed call yields its exception.
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
        """References of the pending calls to these workers."""
        return [reference for reference, call in self.calls.items() if call.worker in workers]

    def drop(self, worker: PoolWorker) -> list[EpisodeTask]:
        """Drop the pending calls to a worker that is gone; return its tasks."""
        self.place(worker)
        calls = [self.calls.pop(reference) for reference in self.calls_to([worker])]
        return [call.task for call in calls if call.task is not None]
