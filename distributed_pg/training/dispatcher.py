"""Keeps the workers busy with the schedule's tasks, even when workers fail.

A result is a function of its task: every worker gets the same, every time. So a lost task is
submitted again, and a slow one is also given to an idle worker. The first result counts.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable

from distributed_pg.errors import RunError
from distributed_pg.training.hang_detection import HangDetection
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask, Schedule
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, WorkerLost, WorkerPool

_LOG = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Number of times a task may raise an exception before the run fails."""
MOST_LOSSES = 20
"""Number of workers lost while playing the same task before it is considered the cause."""


class Dispatcher:
    """Submits tasks and collects their results.

    Args:
        schedule: determines the next task.
        pool: the workers.
        backup_after: a task that takes this many times the median of the last 100 is also given to
            an idle worker.
        hang_seconds: a worker that is silent for this long is replaced; see
            :class:`~distributed_pg.training.hang_detection.HangDetection`.
        clock: returns seconds, like :func:`time.monotonic`.
    """

    def __init__(
        self,
        schedule: Schedule,
        pool: WorkerPool,
        *,
        backup_after: float,
        hang_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._pool = pool
        self._hangs = HangDetection(hang_seconds, backup_after)
        self._clock = PolledClock(clock)
        # First episode of a task -> submission time, oldest first.
        self._submitted: dict[int, float] = {}
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    def hand_out(self) -> None:
        """Submit tasks while there are free tasks and workers for them."""
        while self._pool.can_submit(self._schedule.free_tasks):
            task = self._schedule.next_task()
            if task is None:
                break
            self._submitted[task.episode] = self._clock()
            self._pool.submit(task)
        if self._hangs.late_after and self._submitted and self._pool.idle:
            self._back_up()

    def collect(self, timeout: float) -> list[EpisodeDone]:
        """Collect finished tasks; wait at most ``timeout`` seconds for an event.

        Raises:
            RunError: a task failed or lost its worker too often.
        """
        finished = []
        for event in self._pool.poll(timeout, self._hangs.hung_after):
            if isinstance(event, WorkerLost):
                self._lost(event)
            elif isinstance(event, EpisodeFailed):
                self._failed(event)
            elif self._schedule.finish(event.task.episode):
                self._forget(event.task.episode)
                self._hangs.finished(event.seconds)
                finished.append(event)
        self._clock.poll()
        if self._hangs.late_after:
            self._clock.judge_by(self._hangs.late_after)
        return finished

    def _back_up(self) -> None:
        now, limit = self._clock(), self._hangs.late_after
        late = itertools.takewhile(lambda item: now - item[1] > limit, self._submitted.items())
        for episode, _ in list(late):
            if not self._pool.idle:
                return
            task = self._schedule.backup_task(episode)
            if task is not None:
                self._pool.submit(task)
                _LOG.warning(
                    f"{task} takes over {self._hangs.backup_after:g} times the usual "
                    f"{self._hangs.median_seconds:.1f} s: a second worker plays it too"
                )

    def _lost(self, event: WorkerLost) -> None:
        episode = event.task.episode
        self._losses[episode] += episode in self._submitted
        if self._losses[episode] >= MOST_LOSSES:
            raise RunError(f"{_named(event.task)} lost {MOST_LOSSES} workers ({event.reason})")
        if self._schedule.lose(episode):
            del self._submitted[episode]
            _LOG.warning(f"{event.task} is played again ({event.reason})")
        else:
            _LOG.warning(f"{event.task} lost a worker{self._other(episode)} ({event.reason})")

    def _failed(self, event: EpisodeFailed) -> None:
        episode = event.task.episode
        self._failures[episode] += episode in self._submitted
        if self._failures[episode] >= MOST_FAILURES:
            raise RunError(
                f"{_named(event.task)} failed {MOST_FAILURES} times; the last time:\n"
                f"{event.traceback}"
            )
        if self._schedule.lose(episode):
            del self._submitted[episode]
            _LOG.warning(f"{event.task} failed and is tried again ({event.reason})")
        else:
            _LOG.warning(f"{event.task} failed{self._other(episode)} ({event.reason})")

    def _other(self, episode: int) -> str:
        """Say why the task is not submitted again."""
        playing = episode in self._submitted
        return f"; another worker {'is still playing it' if playing else 'has played it'}"

    def _forget(self, episode: int) -> None:
        self._submitted.pop(episode, None)
        self._failures.pop(episode, None)
        self._losses.pop(episode, None)


def _named(task: EpisodeTask) -> str:
    return f"{task} (weights version {task.version})"
