"""The learner's interface to the workers that play for it."""

from dataclasses import dataclass
from typing import Any, Protocol

from distributed_pg.algo.policy import Policy
from distributed_pg.episode import EpisodeStats
from distributed_pg.training.schedule import EpisodeTask


@dataclass(frozen=True, slots=True)
class EpisodeDone:
    """A worker finished the task."""

    task: EpisodeTask
    stats: list[EpisodeStats]
    """Statistics of each episode, in order."""
    gradient: Any
    """The Gradient, summed over the episodes; None in an evaluation."""
    seconds: float
    """From when the worker was free to start until its result was collected: playing time plus the
    learner's delay, without time for which the learner stalled."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker was lost while it had the task, which will not finish."""

    task: EpisodeTask
    reason: str


@dataclass(frozen=True, slots=True)
class EpisodeFailed:
    """The task raised an exception; the worker is intact."""

    task: EpisodeTask
    reason: str
    traceback: str


PoolEvent = EpisodeDone | WorkerLost | EpisodeFailed


class WorkerPool(Protocol):
    """Workers that play tasks."""

    @property
    def workers(self) -> int:
        """Number of workers that can play."""

    @property
    def idle(self) -> int:
        """Number of workers without a task."""

    def broadcast(self, version: int, policy: Policy) -> None:
        """Send a version of the weights to the workers; ``policy`` may be modified afterwards."""

    def drop_weights(self, before: int) -> None:
        """Drop all versions of the weights below ``before``."""

    def can_submit(self, free: int) -> bool:
        """Whether to submit a task now, given the number of ``free`` tasks.

        Always if a worker is idle. A task is queued behind a running game only while there are at
        least as many free tasks as workers; otherwise a worker may soon be free to play it at once.
        """

    def submit(self, task: EpisodeTask) -> None:
        """Give the task to a worker."""

    def poll(self, timeout: float, deadline: float) -> list[PoolEvent]:
        """Return the events since the last call; wait at most ``timeout`` seconds for one.

        A worker that has tasks and is silent for ``deadline`` seconds is replaced, and its tasks
        are lost. A stall of the caller does not count as silence.

        Raises:
            RunError: no worker can be started, or a worker lacks what it needs.
        """
