"""What the learner needs of the machines that play for it."""

from dataclasses import dataclass
from typing import Any, Protocol

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import EpisodeStats
from distributed_pg.training.schedule import EpisodeTask


@dataclass(frozen=True, slots=True)
class EpisodeDone:
    """A worker has played the task."""

    task: EpisodeTask
    stats: EpisodeStats
    gradient: Any
    """Its Gradient; None in an evaluation."""
    seconds: float
    """From when the worker could turn to the task to when its answer was taken in: its play, and
    what the learner was late. Not the time for which the learner stood still."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker was lost with its task; nothing will come of it."""

    task: EpisodeTask
    reason: str


@dataclass(frozen=True, slots=True)
class EpisodeFailed:
    """The task's episode ended in an exception; the worker is well."""

    task: EpisodeTask
    reason: str
    traceback: str


PoolEvent = EpisodeDone | WorkerLost | EpisodeFailed


class WorkerPool(Protocol):
    """Workers that play tasks."""

    @property
    def workers(self) -> int:
        """Workers that can play now."""

    @property
    def idle(self) -> int:
        """Workers that have no task."""

    def broadcast(self, version: int, policy: Policy) -> None:
        """Make weights available to the workers; ``policy`` may be changed afterwards."""

    def drop_weights(self, before: int) -> None:
        """Forget the weights of the versions below ``before``."""

    def can_submit(self, free: int) -> bool:
        """Whether a task should be given out now, with ``free`` that could be.

        To an idle worker, always. To wait behind a game, only while there are as many as workers:
        otherwise the task may soon find a worker that plays it at once.
        """

    def submit(self, task: EpisodeTask) -> None:
        """Have a worker play the task."""

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """What happened since the last call; wait at most ``timeout`` seconds for something.

        A worker that has tasks and was silent for ``deadline`` seconds is replaced, and its
        tasks are lost. Seconds in which nobody called do not count.

        Raises:
            RunError: no worker can be started, or one lacks what it needs.
        """
