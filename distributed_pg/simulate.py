"""Workers that play nothing, to find how many of them one learner can serve.

A simulated worker waits as long as a real episode took and returns that episode's gradient, of real
size and sparsity, through Ray. A few actor processes stand for all of them: each is asynchronous,
so a thousand episodes can be waited for at once without a thousand processes.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import cast

import ray

from distributed_pg.config import TrainConfig
from distributed_pg.policy import Gradient, Policy
from distributed_pg.ray_worker import Worker, worker_environment
from distributed_pg.rollout import EpisodeResult, EpisodeStats
from distributed_pg.schedule import Ticket
from distributed_pg.versions import library_versions
from distributed_pg.worker import WorkerInfo

HOSTS = 2
"""Processes that stand for all simulated workers."""


class WaitingWorkers:
    """An actor that stands for many workers; the episode each would play it only waits for."""

    def __init__(self, played: list[EpisodeResult]) -> None:
        self._played = played

    async def prepare(self) -> WorkerInfo:
        """Ready at once."""
        return WorkerInfo(0, library_versions())

    async def play(self, ticket: Ticket, _policy: Policy) -> tuple[EpisodeStats, Gradient]:
        """Wait for the time of one of the played episodes, the next one in turn, and return it."""
        result = self._played[ticket.episode % len(self._played)]
        await asyncio.sleep(result.stats.seconds)
        return result.stats, result.gradient


def start_waiting(workers: int, played: list[EpisodeResult]) -> Callable[[TrainConfig], Worker]:
    """What RayCluster starts ``workers`` simulated workers with, spread over a few processes."""
    options = {
        "num_cpus": 0,
        "max_concurrency": workers // HOSTS + 2,
        "runtime_env": worker_environment(),
    }
    actor = ray.remote(WaitingWorkers).options(**options)
    hosts = itertools.cycle([cast("Worker", actor.remote(played)) for _ in range(HOSTS)])
    return lambda _: next(hosts)
