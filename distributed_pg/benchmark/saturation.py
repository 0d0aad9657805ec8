"""Simulated workers, to find how many workers one learner can serve.

A simulated worker waits as long as the real episodes of a task take and returns their gradient, of
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
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeResult, EpisodeStats
from distributed_pg.runtime.actor import Reference, Submit, Weights, Worker, worker_environment
from distributed_pg.system_info import library_versions, own_code
from distributed_pg.training.gradient_sum import summed
from distributed_pg.training.rollout_worker import WorkerInfo

HOSTS = 2
"""Processes that host the simulated workers."""

Answer = tuple[list[EpisodeStats], Gradient]
"""A worker's answer to a task: the statistics of its episodes, and the sum of their gradients."""


def answers(played: list[EpisodeResult], episodes_per_task: int) -> list[Answer]:
    """The answers of workers that play these episodes in groups, one for each to begin with."""
    groups = [
        [played[(first + i) % len(played)] for i in range(episodes_per_task)]
        for first in range(len(played))
    ]
    return [([r.stats for r in group], summed(r.gradient for r in group)) for group in groups]


class WaitingWorkers:
    """An actor that hosts many simulated workers, which wait instead of playing.

    Every task takes the mean time of the recorded ones. So tasks end in the order in which they
    were submitted, and a single thread can wait for one after another.
    """

    def __init__(self, recorded: list[Answer], workers: int) -> None:
        self._recorded = recorded
        self._seconds = statistics.mean(
            sum(episode.seconds for episode in stats) for stats, _ in recorded
        )
        self._free_at = deque([0.0] * workers)  # earliest first

    def prepare(self) -> WorkerInfo:
        """Return at once: there is nothing to prepare."""
        return WorkerInfo(0, library_versions(), own_code())

    def play(self, episode: int, submitted: float) -> Answer:
        """Wait until a worker would have finished the task, submitted at time ``submitted``."""
        end = max(self._free_at.popleft(), submitted) + self._seconds
        self._free_at.append(end)
        time.sleep(max(0.0, end - time.time()))
        task = episode // len(self._recorded[0][0])
        return self._recorded[task % len(self._recorded)]


def start_waiting(workers: int, recorded: list[Answer]) -> Callable[[TrainConfig], Worker]:
    """Return the start function of a RayWorkerPool with ``workers`` simulated workers."""
    actor = ray.remote(WaitingWorkers).options(num_cpus=0, runtime_env=worker_environment())
    sizes = [len(range(host, workers, HOSTS)) for host in range(HOSTS)]
    hosts = itertools.cycle(
        [cast("Worker", actor.remote(recorded, size)) for size in sizes if size]
    )
    return lambda _: next(hosts)


def wait_for(worker: Worker) -> Submit:
    """Return the submit function for a simulated worker.

    It leaves out the weights: fetching them is work for the worker's machine, which here is the
    learner's. Sending the reference takes the learner no measurable time.
    """

    def submit(episode: int, _weights: Weights) -> Reference:
        return cast("Reference", worker.play.remote(episode, time.time()))

    return submit
