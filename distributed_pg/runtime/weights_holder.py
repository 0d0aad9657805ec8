"""An actor that puts the weights into the object store, so that the learner does not have to.

Ray ends a process whose raylet dies while the process uses the object store, and everything learned
since the last checkpoint would be lost. So the learner sends the weights within a call to the
holder. The holder returns them, and its result goes to the store, where the workers read it. If the
holder dies, what it put stays there, and Ray restarts it and repeats its unfinished calls. If its
node dies, Ray repeats the calls whose results went with it.
"""

from contextlib import suppress
from typing import cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distributed_pg.algo.policy import Policy
from distributed_pg.determinism import ONE_THREAD
from distributed_pg.runtime.actor import Reference, Worker

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


def start_holder() -> Worker:
    """Start the holder, without a CPU of its own, on this machine; does not wait for it."""
    here = ray.get_runtime_context().get_node_id()
    options = {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True),
        "max_restarts": -1,
        "max_task_retries": -1,
        "runtime_env": {"env_vars": ONE_THREAD | IN_THE_STORE},
    }
    return cast("Worker", ray.remote(WeightsHolder).options(**options).remote())


def hold(holder: Worker, policy: Policy) -> Reference:
    """Send weights to the holder, without waiting; return a reference to them for the workers."""
    return cast("Reference", holder.hold.remote(policy))


def restart_if_it_hangs(holder: Worker, weights: list[Reference]) -> bool:
    """Kill a holder that has not returned all of these weights; Ray restarts it.

    Returns:
        Whether it was killed.
    """
    if not weights:
        return False
    # By default, Ray would fetch them, from the object store.
    _, missing = ray.wait(weights, num_returns=len(weights), timeout=0, fetch_local=False)
    if missing:
        ray.kill(holder, no_restart=False)
    return bool(missing)


def end_holder(holder: Worker) -> None:
    """Kill the holder."""
    with suppress(RayError):  # Ray is gone, and the holder with it
        ray.kill(holder)
