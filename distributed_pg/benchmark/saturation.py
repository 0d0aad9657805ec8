"""Workers that play nothing, to find how many of them one learner can serve.

A simulated worker waits as long as a real episode took and returns that episode's gradient, of real
size and sparsity, through Ray. A few actor processes stand for all of them, so that a thousand need
neither a thousand processes nor much of the learner's machine.
"""

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import ray

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.rollout import EpisodeResult, EpisodeStats
from distributed_pg.config import TrainConfig
from distributed_pg.runtime.actor import Reference, Submit, Worker, worker_environment
from distributed_pg.system_info import library_versions, own_code
from distributed_pg.training.rollout_worker import WorkerInfo

HOSTS = 2
"""Processes that stand for all simulated workers."""


class WaitingWorkers:
    """An actor that stands for many workers; the episode each would play it only waits for.

    All episodes are as long as the mean of those that were played. So they end in the order in
    which they were given out, and one thread can wait for one after another.
    """

    def __init__(self, played: list[EpisodeResult], workers: int) -> None:
        self._played = played
        self._seconds = statistics.mean(result.stats.seconds for result in played)
        self._free_at = deque([0.0] * workers)  # the worker that is free first comes first

    def prepare(self) -> WorkerInfo:
        """Ready at once."""
        return WorkerInfo(0, library_versions(), own_code())

    def play(self, episode: int, given: float) -> tuple[EpisodeStats, Gradient]:
        """Wait until the worker would have played the episode, ``given`` to it at that time()."""
        end = max(self._free_at.popleft(), given) + self._seconds
        self._free_at.append(end)
        time.sleep(max(0.0, end - time.time()))
        result = self._played[episode % len(self._played)]
        return result.stats, result.gradient


def start_waiting(workers: int, played: list[EpisodeResult]) -> Callable[[TrainConfig], Worker]:
    """What RayWorkerPool starts ``workers`` simulated workers with, spread over a few processes."""
    actor = ray.remote(WaitingWorkers).options(num_cpus=0, runtime_env=worker_environment())
    sizes = [len(range(host, workers, HOSTS)) for host in range(HOSTS)]
    hosts = itertools.cycle([cast("Worker", actor.remote(played, size)) for size in sizes if size])
    return lambda _: next(hosts)


def wait_for(worker: Worker) -> Submit:
    """How a simulated worker is had to play.

    It is not sent the weights: to get them is work for the worker's own machine, and here that is
    the learner's. To send the reference takes the learner no time that could be measured.
    """

    def submit(episode: int, _weights: Reference) -> Reference:
        return cast("Reference", worker.play.remote(episode, time.time()))

    return submit
