"""The versions of the weights that workers may need, and how workers get them."""

from collections.abc import Iterable

from ray.exceptions import RayError

from distributed_pg.algo.policy import Policy
from distributed_pg.runtime.actor import Weights


class SentWeights:
    """Weights that are sent along with each task.

    This is the fastest way for a batch of one task: each version is needed for one task only,
    whose worker waits for it.
    """

    def __init__(self) -> None:
        self._policies: dict[int, Policy] = {}

    def __getitem__(self, version: int) -> Weights:
        """What a worker is sent to play with this version."""
        return self._policies[version]

    def hold(self, version: int, policy: Policy) -> None:
        """Keep a new version; the weights must not change after this."""
        self._policies[version] = policy

    def drop(self, before: int) -> None:
        """Free all versions below ``before``."""
        for version in [v for v in self._policies if v < before]:
            del self._policies[version]

    def replace_if_gone(self, weights: Weights | None, error: RayError) -> None:
        """Nothing but the call holds them."""

    def restart_if_it_hangs(self, versions: Iterable[int]) -> None:
        """Nothing but the call holds them."""

    def end(self) -> None:
        """Free all versions."""
        self._policies.clear()
