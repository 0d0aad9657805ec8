"""What the learner needs of the machines that play for it."""

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


class GradientLostError(Exception):
    """The gradient of a finished episode is gone; the episode has to be played again."""


class Cluster(Protocol):
    """Workers that play tickets, and the store their gradients wait in."""

    @property
    def workers(self) -> int:
        """Workers that can play now."""

    def publish(self, version: int, policy: Policy) -> None:
        """Make weights available to the workers; ``policy`` may be changed afterwards."""

    def retire(self, before: int) -> None:
        """Forget the weights of the versions below ``before``."""

    def has_idle(self) -> bool:
        """Whether a worker is waiting for a ticket."""

    def give(self, ticket: Ticket) -> None:
        """Have an idle worker play the ticket."""

    def wait(self, timeout: float) -> list[Finished | Lost]:
        """What happened since the last call; wait at most ``timeout`` seconds for something.

        Raises:
            RunError: an episode failed for a reason of its own, or no worker can be started.
        """

    def fetch(self, gradient: Any) -> Gradient:
        """Bring the gradient of a finished episode from the store.

        Raises:
            GradientLostError: it is gone.
        """
