"""A cluster in this process: real episodes, cut short, and workers that are lost on request."""

import random
from collections.abc import Sequence

from distributed_pg.cluster import Finished, GradientLost, Lost
from distributed_pg.config import TrainConfig
from distributed_pg.env import PongEnv
from distributed_pg.policy import Gradient, Policy
from distributed_pg.rollout import rollout
from distributed_pg.schedule import Ticket

Event = Finished | Lost


class SimulatedCluster:
    """Implements distributed_pg.cluster.Cluster. Faults come with the given chances, by seed."""

    def __init__(
        self, config: TrainConfig, workers: int, *, loss: float = 0.0, seed: int = 0
    ) -> None:
        self._config = config
        self._capacity = workers
        self._loss = loss
        self._chance = random.Random(seed)
        self._env = PongEnv(**config.env_settings())
        self._weights: dict[int, Policy] = {}
        self._playing: list[Ticket] = []
        self.faults = 0
        self.most_versions = 0

    @property
    def workers(self) -> int:
        return self._capacity

    def publish(self, version: int, policy: Policy) -> None:
        self._weights[version] = policy.copy()
        self.most_versions = max(self.most_versions, len(self._weights))

    def retire(self, before: int) -> None:
        self._weights = {v: policy for v, policy in self._weights.items() if v >= before}

    def has_room(self, free: int) -> bool:
        return free > 0 and len(self._playing) < self._capacity

    def give(self, ticket: Ticket) -> None:
        assert len(self._playing) < self._capacity
        assert ticket.version in self._weights
        self._playing.append(ticket)

    def wait(self, timeout: float) -> list[Event]:
        assert self._playing or timeout == 0.0, "the learner waits, and nobody plays"
        if not self._playing:
            return []
        ticket = self._playing.pop(self._chance.randrange(len(self._playing)))
        if self._fault():
            return [Lost(ticket, "the worker died")]
        policy = self._weights[ticket.version]
        config = self._config
        result = rollout(self._env, policy, config.seed, ticket.episode, config.gamma)
        event = Finished(ticket, result.stats, result.gradient)
        return [event, event] if self._fault() else [event]

    def fetch(self, gradients: Sequence[Gradient]) -> list[Gradient | GradientLost]:
        return [GradientLost("the node died") if self._fault() else g for g in gradients]

    def _fault(self) -> bool:
        fault = self._chance.random() < self._loss
        self.faults += fault
        return fault
