"""Rollout workers as Ray actors: starting them, sending tasks, collecting results."""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError, RuntimeEnvSetupError

from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.determinism import kernel_environment
from distributed_pg.training.rollout_worker import RolloutWorker

MOST_TASKS = 2
"""Maximum number of tasks of a worker: one it plays and one that is queued."""
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}
"""Keeps the memory that an episode frees for the next one. Getting it from the system again, page
by page, would cost 1% of a worker's time."""
INLINE = {
    "RAY_max_direct_call_object_size": str(2**28),
    "RAY_task_rpc_inlined_bytes_limit": str(2**28),
}
"""Makes a process send arguments and results of up to this many bytes, half of Ray's limit, within
its calls and answers. By default, those above 100 KiB go through the object store: there results
must be fetched and are lost with their node, and Ray ends a process whose store dies while it puts
an argument."""

GONE = (ActorDiedError, RuntimeEnvSetupError)
"""Errors of a call to an actor that Ray does not restart: it was killed, or never started."""
START_ATTEMPTS = 5
"""Consecutive failed starts after which the run fails."""

Worker: TypeAlias = ActorHandle[Any]
Reference: TypeAlias = ray.ObjectRef[Any]
Weights: TypeAlias = Policy | Reference
"""The weights to play an episode with, or a reference to them."""
Submit: TypeAlias = Callable[[int, Weights], Reference]
"""Sends an episode's index and its weights to a worker; returns a reference to its EpisodeStats and
its Gradient, or None in place of a gradient."""


def play(worker: Worker) -> Submit:
    """The function that sends training episodes to a worker."""
    return cast("Submit", worker.play.remote)


def worker_environment(kernels: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Ray's ``runtime_env`` for a worker; see :func:`start_worker`."""
    kernels = kernel_environment() if kernels is None else kernels
    return {"env_vars": {**kernels, **_KEEP_MEMORY, **INLINE}}


def start_worker(config: TrainConfig, kernels: dict[str, str] | None = None) -> Worker:
    """Start a worker with one CPU and one thread.

    With a second thread it could play while it returns an episode, which takes 4 ms. But then
    Ray's main thread would interrupt the game a hundred times a second to check for signals, which
    takes longer.

    Args:
        config: the run's settings.
        kernels: environment variables that select numpy's kernels; None: those that give the same
            bits on every machine.

    Returns:
        The handle of its actor.
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
    except RayError:  # does not tell which call failed
        return [_get_one(reference) for reference in references]


def _get_one(reference: Reference) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        return error
