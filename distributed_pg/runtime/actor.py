"""A rollout worker as a Ray actor: start it, have it play, read what it answers."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from distributed_pg.config import TrainConfig
from distributed_pg.determinism import kernel_environment
from distributed_pg.training.rollout_worker import RolloutWorker

MOST_TASKS = 2
"""How many tasks a worker may have: one it plays, and one that waits for its turn."""
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}
"""What an episode frees is kept for the next: to take it from the system anew, page by page, would
cost 1% of a worker's time."""
_IN_THE_ANSWER = {
    "RAY_max_direct_call_object_size": str(2**28),
    "RAY_task_rpc_inlined_bytes_limit": str(2**28),
}
"""Bytes that a worker sends in its answer, half of the most that Ray sends at once. Ray would leave
what is larger than 100 KiB in the object store, to be asked for there, or lost with its node."""

Worker: TypeAlias = ActorHandle[Any]
Reference: TypeAlias = ray.ObjectRef[Any]
Submit: TypeAlias = Callable[[int, Reference], Reference]
"""Sends a worker an episode's number and a reference to the weights; returns a reference to the
EpisodeStats and the Gradient, or None where there is none."""


def play(worker: Worker) -> Submit:
    """How training has a worker play."""
    return cast("Submit", worker.play.remote)


def worker_environment(kernels: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Ray's ``runtime_env`` of a worker's process; see :func:`start_worker`."""
    kernels = kernel_environment() if kernels is None else kernels
    return {"env_vars": {**kernels, **_KEEP_MEMORY, **_IN_THE_ANSWER}}


def start_worker(config: TrainConfig, kernels: dict[str, str] | None = None) -> Worker:
    """A worker with a CPU of its own, and one thread.

    With a second one it could play while it returns an episode, which takes 4 ms. But then Ray's
    own would stop the game a hundred times a second to look for signals, which takes longer.

    Its environment variables hold it to kernels that give the same bits everywhere, unless others
    are given.
    """
    options = {
        "num_cpus": 1,
        "scheduling_strategy": "SPREAD",
        "max_restarts": -1,
        "runtime_env": worker_environment(kernels),
    }
    return cast("Worker", ray.remote(RolloutWorker).options(**options).remote(config))


def get_all(references: list[Reference]) -> list[Any]:
    """The results in order; a failed call yields its exception."""
    try:
        return ray.get(references)
    except RayError:  # Ray does not say which call failed
        return [_get_one(reference) for reference in references]


def _get_one(reference: Reference) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        return error
