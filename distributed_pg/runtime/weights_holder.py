"""An actor that puts the weights into the object store, so that the learner does not have to.

With batches of several tasks, several workers play with the same version of the weights, and
those of one machine share it in its object store. But Ray ends a process whose raylet dies while
the process uses the object store, and everything learned since the last checkpoint would be lost.
So the learner sends the weights within a call to the holder. The holder returns them, and its
result goes to the store, where the workers read it. If the holder dies, what it put stays there,
and Ray restarts it and repeats its unfinished calls. If its node dies, Ray repeats the calls whose
results went with it. Only a holder that does not even start is not restarted by Ray: then another
gets the weights.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distributed_pg.algo.policy import Policy
from distributed_pg.determinism import ONE_THREAD
from distributed_pg.errors import RunError
from distributed_pg.runtime.actor import GONE, START_ATTEMPTS, Reference, Weights, Worker
from distributed_pg.runtime.causes import reason_of
from distributed_pg.runtime.sent_weights import SentWeights

_LOG = logging.getLogger(__name__)

IN_THE_STORE = {
    "RAY_max_direct_call_object_size": str(100 * 2**10),
    "RAY_task_rpc_inlined_bytes_limit": str(10 * 2**20),
}
"""Ray's defaults, for an actor that must not inherit the learner's
:data:`distributed_pg.runtime.actor.INLINE`: results above 100 KiB go to the object store."""


class WeightsHolder:
    """The actor."""

    def hold(self, policy: Policy) -> Policy:
        """Return the weights, which puts them into the object store."""
        return policy


class HeldWeights(SentWeights):
    """Weights in the object store.

    No method waits for the holder.
    """

    def __init__(self) -> None:
        super().__init__()
        self._holder = _start_holder()
        self._references: dict[int, Reference] = {}
        self._failed_starts = 0

    def __getitem__(self, version: int) -> Reference:
        """The reference with which workers get this version."""
        return self._references[version]

    def hold(self, version: int, policy: Policy) -> None:
        """Send a new version to the holder; the weights must not change after this."""
        self._failed_starts = 0  # it is made of episodes that were played with those before it
        super().hold(version, policy)
        self._send(version)

    def drop(self, before: int) -> None:
        """Free all versions below ``before``."""
        super().drop(before)
        self._references = {v: self._references[v] for v in self._policies}

    def replace_if_gone(self, weights: Weights | None, error: RayError) -> None:
        """Start another holder if this one is gone for good, and send it all versions.

        Args:
            weights: the reference with which a worker could not get its weights.
            error: why it could not.

        Raises:
            RunError: too many have failed to start.
        """
        if not isinstance(error, GONE) or weights not in self._references.values():
            return  # the node or the store failed, or another has been started since
        name, reason = "the process that holds the weights", reason_of(error)
        self._failed_starts += 1
        if self._failed_starts >= START_ATTEMPTS:
            raise RunError(f"{name} cannot be started: {reason}") from error
        _LOG.warning(f"{name} is gone and is replaced ({reason})")
        self._holder = _start_holder()
        for held in self._policies:
            self._send(held)

    def restart_if_it_hangs(self, versions: Iterable[int]) -> None:
        """Kill a holder that has not returned all of these versions; Ray restarts it."""
        asked = [self._references[version] for version in versions if version in self._references]
        if not asked:
            return
        # By default, Ray would fetch them, from the object store.
        _, missing = ray.wait(asked, num_returns=len(asked), timeout=0, fetch_local=False)
        if missing:
            ray.kill(self._holder, no_restart=False)
            _LOG.warning("the process that holds the weights was silent and is restarted")

    def end(self) -> None:
        """Kill the holder and free all versions."""
        with suppress(RayError):  # Ray is gone, and the holder with it
            ray.kill(self._holder)
        super().end()
        self._references.clear()

    def _send(self, version: int) -> None:
        self._references[version] = self._holder.hold.remote(self._policies[version])


def _start_holder() -> Worker:
    """Start the holder on this machine, without a CPU of its own."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True),
        "max_restarts": -1,
        "max_task_retries": -1,
        "runtime_env": {"env_vars": ONE_THREAD | IN_THE_STORE},
    }
    return cast("Worker", ray.remote(WeightsHolder).options(**options).remote())
