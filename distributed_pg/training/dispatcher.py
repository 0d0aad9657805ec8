"""Keeps the workers busy with the schedule's tasks, whatever becomes of the workers.

An episode is a function of its task: whoever plays it, and however often, gives the same answer.
So what is lost is given out again, and what takes too long is given to an idle worker as well; the
first answer counts.
"""

import logging
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable

from distributed_pg.errors import RunError
from distributed_pg.training.polled_clock import PolledClock
from distributed_pg.training.schedule import EpisodeTask, Schedule
from distributed_pg.training.worker_pool import EpisodeDone, EpisodeFailed, WorkerLost, WorkerPool

_LOG = logging.getLogger(__name__)

MOST_FAILURES = 3
"""How often an episode may fail for a reason of its own."""
MOST_LOSSES = 20
"""How many workers may be lost with the same episode before it is taken for the cause."""
HUNG_EPISODES = 20.0
"""A worker is not taken for hung before it was silent for this many usual episodes."""
_RECENT = 100


class Dispatcher:
    """Gives out tasks and takes in what becomes of them.

    Args:
        schedule: which episode is next.
        pool: the workers.
        backup_after: an episode that takes this many times as long as the median of the last 100
            is given to an idle worker too.
        hang_seconds: a worker that is silent for so long is replaced.
        clock: seconds, as :func:`time.monotonic` gives them.
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
        self._backup_after = backup_after
        self._hang_seconds = hang_seconds
        self._clock = PolledClock(clock)
        self._begun: dict[int, float] = {}  # when an episode was given out; the oldest comes first
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._usual = 0.0  # median of _recent
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    def hand_out(self) -> None:
        """Give out tasks as long as there are some, and room for them."""
        while self._pool.can_submit(self._schedule.free_tasks):
            task = self._schedule.next_task()
            if task is None:
                break
            self._begun[task.episode] = self._clock()
            self._pool.submit(task)
        if self._recent and self._begun and self._pool.idle:
            self._back_up()

    def collect(self, timeout: float) -> list[EpisodeDone]:
        """What workers have finished; wait at most ``timeout`` seconds for something to happen.

        Raises:
            RunError: an episode failed, or its worker was lost, too often.
        """
        finished = []
        deadline = max(self._hang_seconds, HUNG_EPISODES * self._usual)
        for event in self._pool.poll(timeout, deadline):
            if isinstance(event, WorkerLost):
                self._lost(event)
            elif isinstance(event, EpisodeFailed):
                self._failed(event)
            elif self._schedule.finish(event.task.episode):
                self._forget(event.task.episode)
                self._recent.append(event.seconds)
                self._usual = statistics.median(self._recent)
                finished.append(event)
        self._clock.poll()
        if self._usual:
            self._clock.judge_by(self._backup_after * self._usual)
        return finished

    def _back_up(self) -> None:
        now, limit = self._clock(), self._backup_after * self._usual
        for episode, begun in list(self._begun.items()):
            if not self._pool.idle or now - begun <= limit:
                return
            task = self._schedule.backup_task(episode)
            if task is not None:
                self._pool.submit(task)
                _LOG.warning(
                    f"episode {episode} takes over {self._backup_after:g} times the usual "
                    f"{self._usual:.1f} s: a second worker plays it too"
                )

    def _lost(self, event: WorkerLost) -> None:
        episode = event.task.episode
        self._losses[episode] += episode in self._begun
        if self._losses[episode] >= MOST_LOSSES:
            raise RunError(f"{_named(event.task)} lost {MOST_LOSSES} workers ({event.reason})")
        if self._schedule.lose(episode):
            del self._begun[episode]
            _LOG.warning(f"episode {episode} is played again ({event.reason})")
        else:
            _LOG.warning(f"episode {episode} lost a worker{self._other(episode)} ({event.reason})")

    def _failed(self, event: EpisodeFailed) -> None:
        episode = event.task.episode
        self._failures[episode] += episode in self._begun
        if self._failures[episode] >= MOST_FAILURES:
            raise RunError(
                f"{_named(event.task)} failed {MOST_FAILURES} times; the last time:\n"
                f"{event.traceback}"
            )
        if self._schedule.lose(episode):
            del self._begun[episode]
            _LOG.warning(f"episode {episode} failed and is tried again ({event.reason})")
        else:
            _LOG.warning(f"episode {episode} failed{self._other(episode)} ({event.reason})")

    def _other(self, episode: int) -> str:
        """Why the episode need not be given out again."""
        playing = episode in self._begun
        return f"; another worker {'plays it still' if playing else 'has played it'}"

    def _forget(self, episode: int) -> None:
        self._begun.pop(episode, None)
        self._failures.pop(episode, None)
        self._losses.pop(episode, None)


def _named(task: EpisodeTask) -> str:
    return f"episode {task.episode} (weights version {task.version})"
