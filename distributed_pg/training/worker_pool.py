"""What the learner needs of the machines that play for it."""

from dataclasses import dataclass
from typing import Any, Protocol

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import EpisodeStats
from distributed_pg.training.schedule import Ticket


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker has played the ticket."""

    ticket: Ticket
    stats: EpisodeStats
    gradient: Any
    """Its Gradient; None in an evaluation."""
    seconds: float
    """From when the worker could turn to the ticket to when its answer was taken in: its play, and
    what the learner was late. Not the time for which the learner stood still."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker was lost with its ticket; nothing will come of it."""

    ticket: Ticket
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The ticket's episode ended in an exception; the worker is well."""

    ticket: Ticket
    reason: str
    traceback: str


class Cluster(Protocol):
    """Workers that play tickets."""

    @property
    def workers(self) -> int:
        """Workers that can play now."""

    @property
    def idle(self) -> int:
        """Workers that have no ticket."""

    def publish(self, version: int, policy: Policy) -> None:
        """Make weights available to the workers; ``policy`` may be changed afterwards."""

    def retire(self, before: int) -> None:
        """Forget the weights of the versions below ``before``."""

    def has_room(self, free: int) -> bool:
        """Whether a ticket should be given out now, with ``free`` that could be.

        To an idle worker, always. To wait behind a game, only while there are as many as workers:
        otherwise the ticket may soon find a worker that plays it at once.
        """

    def give(self, ticket: Ticket) -> None:
        """Have a worker play the ticket."""

    def wait(self, timeout: float, deadline: float) -> list[Finished | Lost | Failed]:
        """What happened since the last call; wait at most ``timeout`` seconds for something.

        A worker that has tickets and was silent for ``deadline`` seconds is replaced, and its
        tickets are lost. Seconds in which nobody called do not count.

        Raises:
            RunError: no worker can be started, or one lacks what it needs.
        """
