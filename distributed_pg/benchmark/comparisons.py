"""References for the benchmark: parts of training in isolation, and two common ways to train.

The parts are the bare emulator, and workers without Ray or a learner. The classic reference is one
process with the player in :mod:`distributed_pg.benchmark.classic`. The tutorial reference puts this
player into Ray actors: each holds a dense policy and plays one episode per update, and all wait for
the slowest.

All references except the workers run with the caller's environment variables, which should permit
all of the CPU's instructions: see :func:`distributed_pg.determinism.native_kernels`.
"""

import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import ray
from ale_py import Action

from distributed_pg.algo.policy import Policy
from distributed_pg.benchmark.classic import ClassicPlayer, Dense, add, dense_weights, rmsprop
from distributed_pg.config import TrainConfig
from distributed_pg.determinism import ONE_THREAD, environment
from distributed_pg.envs.pong import load_pong
from distributed_pg.own_code import neutral_folder
from distributed_pg.runtime.actor import worker_environment
from distributed_pg.runtime.weights_holder import IN_THE_STORE
from distributed_pg.training.rollout_worker import RolloutWorker

RAY_WORKER_NICENESS = 15
"""Ray runs workers at this niceness. For a fair comparison, the references use it, too."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What was played in a period of time."""

    episodes: int
    frames: int
    """Emulated frames."""
    seconds: float
    worker_busy: float | None = None
    """Fraction of the workers' time spent playing; None if not measured."""
    gradient_bytes: float | None = None
    """Mean size of a gradient sent to the learner, bytes; None if not measured."""


def emulator_rate(processes: int, seconds: float) -> Rate:
    """Measure ``processes`` bare emulators in parallel, with random actions and nothing else."""
    return _in_processes(_step_emulator, processes, seconds)


def rollout_rate(
    config: TrainConfig, policy: Policy, processes: int, seconds: float, *, compiled: bool = True
) -> Rate:
    """Measure ``processes`` workers in parallel that compute gradients and discard them.

    With ``compiled=False`` they play with numpy alone, even if numba is installed.
    """
    with environment(worker_environment()["env_vars"] | {"NUMBA_DISABLE_JIT": str(1 - compiled)}):
        return _in_processes(partial(_roll_out, config, policy), processes, seconds)


def classic_rate(policy: Policy, frame_skip: int, seconds: float) -> Rate:
    """Measure the classic script: one process on one core, an update every ten episodes."""
    work = partial(_train_classic, dense_weights(policy), frame_skip)
    return _in_processes(work, 1, seconds)


def tutorial_rate(policy: Policy, frame_skip: int, workers: int, seconds: float) -> Rate:
    """Measure the tutorial way on Ray: each actor plays one episode per update."""
    environment = {"env_vars": ONE_THREAD | IN_THE_STORE}
    actor = ray.remote(TutorialWorker).options(num_cpus=1, runtime_env=environment)
    actors: list[Any] = [actor.remote(seed, frame_skip) for seed in range(workers)]
    ray.get([worker.ready.remote() for worker in actors])
    weights = dense_weights(policy)
    caches = [np.zeros_like(array) for array in weights]

    def update() -> tuple[int, int]:
        reference = ray.put(weights)
        results = ray.get([worker.play.remote(reference) for worker in actors])
        total = [np.zeros_like(array) for array in weights]
        for gradient, _ in results:
            add(gradient, total)
        rmsprop(weights, caches, total)
        return len(results), sum(frames for _, frames in results)

    rate = _counted(update, seconds)
    for worker in actors:
        ray.kill(worker)
    return rate


class TutorialWorker:
    """A :class:`ClassicPlayer` as a Ray actor."""

    def __init__(self, seed: int, frame_skip: int) -> None:
        self._player = ClassicPlayer(seed, frame_skip)

    def ready(self) -> None:
        """Return once the game is loaded."""

    def play(self, weights: list[Dense]) -> tuple[list[Dense], int]:
        """Play one episode; return its dense gradient and its emulated frames."""
        return self._player.episode(weights)


def _step_emulator(seconds: float) -> Rate:
    ale = load_pong(frame_limit=108_000, display=False)
    ale.reset_game()
    start = ale.cloneState()
    choices = [(Action.RIGHT, Action.LEFT)[i] for i in np.random.default_rng(0).integers(0, 2, 997)]

    def steps() -> tuple[int, int]:
        games = 0
        for action in choices:
            for _ in range(4):
                ale.act(action)
            if ale.game_over():
                ale.restoreState(start)
                games += 1
        return games, 4 * len(choices)

    return _counted(steps, seconds)


def _roll_out(config: TrainConfig, policy: Policy, seconds: float) -> Rate:
    worker = RolloutWorker(config)
    for warm_up in range(2):  # before the second game, the compiled step is loaded
        worker.play(warm_up, policy)
    episodes = itertools.count(2)
    return _counted(lambda: (1, worker.play(next(episodes), policy)[0][0].frames), seconds)


def _train_classic(weights: list[Dense], frame_skip: int, seconds: float) -> Rate:
    caches = [np.zeros_like(array) for array in weights]
    total = [np.zeros_like(array) for array in weights]
    player = ClassicPlayer(0, frame_skip)
    episodes = itertools.count(1)

    def play() -> tuple[int, int]:
        gradient, frames = player.episode(weights)
        add(gradient, total)
        if next(episodes) % 10 == 0:
            rmsprop(weights, caches, total)
            for summed in total:
                summed.fill(0.0)
        return 1, frames

    return _counted(play, seconds)


def _counted(play: Callable[[], tuple[int, int]], seconds: float) -> Rate:
    """Call ``play`` for ``seconds``; it returns the episodes and frames it has played."""
    episodes = frames = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        more_episodes, more_frames = play()
        episodes += more_episodes
        frames += more_frames
    return Rate(episodes, frames, time.perf_counter() - begin)


def _in_processes(work: Callable[[float], Rate], processes: int, seconds: float) -> Rate:
    """Run ``work(seconds)`` in fresh processes that start together."""
    context = multiprocessing.get_context("spawn")
    pipes, running = [], []
    with neutral_folder():  # or they would import modules from the current folder
        barrier = context.Barrier(processes)
        for _ in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, seconds, barrier, sender))
            process.start()
            sender.close()
            pipes.append(receiver)
            running.append(process)
        rates: list[Rate] = [pipe.recv() for pipe in pipes]
        for process in running:
            process.join()
    return Rate(
        sum(rate.episodes for rate in rates),
        sum(rate.frames for rate in rates),
        statistics.mean(rate.seconds for rate in rates),
    )


def _child(work: Callable[[float], Rate], seconds: float, barrier: Any, sender: Connection) -> None:
    if sys.platform != "win32":
        os.nice(max(0, RAY_WORKER_NICENESS - os.nice(0)))
    barrier.wait()
    sender.send(work(seconds))
