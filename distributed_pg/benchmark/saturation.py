"""Simulated workers, to find how many workers one learner can serve.

A simulated worker waits as long as a real episode takes and returns that episode's gradient, of
real size and sparsity, through Ray. A few actor processes host all of them, so that a thousand
workers need neither a thousand processes nor much of the learner's machine.
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
from distributed_pg.runtime.actor import Reference, Submit, Weights, Worker, worker_environment
from distributed_pg.system_info import library_versions, own_code
from distributed_pg.training.rollout_worker import WorkerInfo

HOSTS = 2
"""Processes that host the simulated workers."""


class WaitingWorkers:
    """An actor that hosts many simulated workers, which wait instead of playing.

    Every episode takes the mean time of the recorded ones. So episodes end in the order in which
    they were submitted, and a single thread can wait for one after another.
    """

    def __init__(self, played: list[EpisodeResult], workers: int) -> None:
        self._played = played
        self._seconds = statistics.mean(result.stats.seconds for result in played)
        self._free_at = deque([0.0] * workers)  # earliest first

    def prepare(self) -> WorkerInfo:
        """Return at once: there is nothing to prepare."""
        return WorkerInfo(0, library_versions(), own_code())

    def play(self, episode: int, submitted: float) -> tuple[EpisodeStats, Gradient]:
        """Wait until a worker would have finished the episode, submitted at time ``submitted``."""
        end = max(self._free_at.popleft(), submitted) + self._seconds
        self._free_at.append(end)
        time.sleep(max(0.0, end - time.time()))
        result = self._played[episode % len(self._played)]
        return result.stats, result.gradient


def start_waiting(workers: int, played: list[EpisodeResult]) -> Callable[[TrainConfig], Worker]:
    """Return the start function of a RayWorkerPool with ``workers`` simulated workers."""
    actor = ray.remote(WaitingWorkers).options(num_cpus=0, runtime_env=worker_environment())
    sizes = [len(range(host, workers, HOSTS)) for host in range(HOSTS)]
    hosts = itertools.cycle([cast("Worker", actor.remote(played, size)) for size in sizes if size])
    return lambda _: next(hosts)


def wait_for(worker: Worker) -> Submit:
    """Return the submit function for a simulated worker.

    It leaves out the weights: fetching them is work for the worker's machine, which here is the
    learner's. Sending the reference takes the learner no measurable time.
    """

    def submit(episode: int, _weights: Weights) -> Reference:
        return cast("Reference", worker.play.remote(episode, time.time()))

    return submit
