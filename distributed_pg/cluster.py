"""What the learner needs of the machines that play for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distributed_pg.policy import Gradient, Policy
from distributed_pg.rollout import EpisodeStats
from distributed_pg.schedule import Ticket


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker has played the ticket."""

    ticket: Ticket
    stats: EpisodeStats
    gradient: Any
    """What :meth:`Cluster.fetch` takes; the gradient is freed when nobody holds it any more."""


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


@dataclass(frozen=True, slots=True)
class GradientLost:
    """The gradient of a finished episode is gone; the episode has to be played again."""

    reason: str


class Cluster(Protocol):
    """Workers that play tickets, and the store their gradients wait in."""

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
        tickets are lost.

        Raises:
            RunError: no worker can be started, or one lacks what it needs.
        """

    def fetch(self, gradients: Sequence[Any]) -> list[Gradient | GradientLost]:
        """Bring the gradients of finished episodes from the store, in this order."""
