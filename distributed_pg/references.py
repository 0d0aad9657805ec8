"""What the benchmark compares training with: the bare emulator, and the two usual ways to train.

The classic way is the 130-line Pong script's: one process, gymnasium's ALE/Pong-v5 with RGB
frames, dense float64 numpy. The tutorial way puts the same player into Ray actors: one dense policy
in each, one episode an actor an update, and all wait for the slowest.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import ale_py
import gymnasium
import numpy as np
import ray
from ale_py import Action
from numpy.typing import NDArray

from distributed_pg.env import load_pong
from distributed_pg.kernels import ONE_THREAD, native_kernels
from distributed_pg.policy import Policy

RAY_WORKER_NICENESS = 15
"""Ray runs its workers at this niceness; so do the references, or the comparison is not fair."""

Dense = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """What was done in a stretch of time."""

    episodes: int
    frames: int
    """Emulated frames."""
    seconds: float
    worker_busy: float | None = None
    """Share of the workers' time spent playing; None where it was not measured."""
    gradient_bytes: float | None = None
    """Size of a gradient that was sent, mean; likewise."""


def emulator_rate(processes: int, seconds: float) -> Rate:
    """``processes`` bare emulators at once, with random actions and nothing else."""
    rates = _in_processes(_step_emulator, processes, seconds)
    return Rate(
        sum(rate.episodes for rate in rates),
        sum(rate.frames for rate in rates),
        max(rate.seconds for rate in rates),
    )


def classic_rate(policy: Policy, seconds: float) -> Rate:
    """The classic script in one process on one core, with an update every ten episodes."""
    (rate,) = _in_processes(partial(_train_classic, dense_weights(policy)), 1, seconds)
    return rate


def tutorial_rate(policy: Policy, workers: int, seconds: float) -> Rate:
    """The tutorial way on Ray actors: one episode an actor an update."""
    actor = ray.remote(TutorialWorker).options(num_cpus=1, runtime_env={"env_vars": ONE_THREAD})
    actors: list[Any] = [actor.remote(seed) for seed in range(workers)]
    ray.get([worker.ready.remote() for worker in actors])
    weights = dense_weights(policy)
    caches = [np.zeros_like(array) for array in weights]
    episodes = frames = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        published = ray.put(weights)
        results = ray.get([worker.play.remote(published) for worker in actors])
        total = [np.zeros_like(array) for array in weights]
        for gradient, _ in results:
            _add(gradient, total)
        _rmsprop(weights, caches, total)
        episodes += len(results)
        frames += sum(played for _, played in results)
    rate = Rate(episodes, frames, time.perf_counter() - begin)
    for worker in actors:
        ray.kill(worker)
    return rate


def dense_weights(policy: Policy) -> list[Dense]:
    """The weights of ``policy`` as the classic script has them: (H, D) and (H,), float64."""
    return [policy.w1.T.astype(np.float64, order="C"), policy.w2[:, 0].astype(np.float64)]


class ClassicPlayer:
    """Plays ALE/Pong-v5 and computes gradients as the classic script does."""

    def __init__(self, seed: int) -> None:
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env = gymnasium.make("ALE/Pong-v5")
        self._random = np.random.default_rng(seed)
        self._screen, _ = self._env.reset(seed=seed)

    def episode(self, weights: list[Dense]) -> tuple[list[Dense], int]:
        """The gradient of one game with ``weights``, and its emulated frames."""
        w1, w2 = weights
        frames, hiddens, errors, rewards = [], [], [], []
        previous: Dense | None = None
        done = False
        while not done:
            current = classic_frame(self._screen)
            x = current - previous if previous is not None else np.zeros_like(current)
            previous = current
            hidden = np.dot(w1, x)
            hidden[hidden < 0] = 0
            p_up = 1.0 / (1.0 + np.exp(-np.dot(w2, hidden)))
            up = self._random.uniform() < p_up
            frames.append(x)
            hiddens.append(hidden)
            errors.append((1.0 if up else 0.0) - p_up)
            self._screen, reward, terminated, truncated, _ = self._env.step(2 if up else 3)
            rewards.append(float(reward))
            done = terminated or truncated
        self._screen, _ = self._env.reset()
        x_all, hidden_all, error_all = np.vstack(frames), np.vstack(hiddens), np.array(errors)
        returns = _discounted(np.array(rewards))
        returns -= returns.mean()
        returns /= returns.std()
        error_all *= returns
        back = np.outer(error_all, w2)
        back[hidden_all <= 0] = 0
        return [np.dot(back.T, x_all), np.dot(hidden_all.T, error_all)], 4 * len(rewards)


class TutorialWorker:
    """A :class:`ClassicPlayer` as a Ray actor."""

    def __init__(self, seed: int) -> None:
        self._player = ClassicPlayer(seed)

    def ready(self) -> None:
        """Return when the game is loaded."""

    def play(self, weights: list[Dense]) -> tuple[list[Dense], int]:
        """One episode: its dense gradient and its emulated frames."""
        return self._player.episode(weights)


def classic_frame(screen: NDArray[np.uint8]) -> Dense:
    """The classic script's 80x80 picture of a 210x160 RGB screen, flattened."""
    frame = screen[35:195][::2, ::2, 0].copy()
    frame[frame == 144] = 0
    frame[frame == 109] = 0
    frame[frame != 0] = 1
    return frame.astype(np.float64).ravel()


def _discounted(rewards: Dense) -> Dense:
    returns = np.zeros_like(rewards)
    following = 0.0
    for step in reversed(range(len(rewards))):
        if rewards[step] != 0:
            following = 0.0
        following = following * 0.99 + rewards[step]
        returns[step] = following
    return returns


def _add(gradient: list[Dense], total: list[Dense]) -> None:
    for summed, array in zip(total, gradient, strict=True):
        summed += array


def _rmsprop(weights: list[Dense], caches: list[Dense], gradient: list[Dense]) -> None:
    for array, cache, grad in zip(weights, caches, gradient, strict=True):
        cache *= 0.99
        cache += 0.01 * grad**2
        array += 1e-12 * grad / (np.sqrt(cache) + 1e-5)


def _step_emulator(seconds: float) -> Rate:
    ale = load_pong(frame_limit=108_000, display=False)
    ale.reset_game()
    start = ale.cloneState()
    choices = [(Action.RIGHT, Action.LEFT)[i] for i in np.random.default_rng(0).integers(0, 2, 997)]
    frames = games = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for action in choices:
            for _ in range(4):
                ale.act(action)
            frames += 4
            if ale.game_over():
                ale.restoreState(start)
                games += 1
    return Rate(games, frames, time.perf_counter() - begin)


def _train_classic(weights: list[Dense], seconds: float) -> Rate:
    caches = [np.zeros_like(array) for array in weights]
    total = [np.zeros_like(array) for array in weights]
    player = ClassicPlayer(seed=0)
    episodes = frames = 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        gradient, played = player.episode(weights)
        _add(gradient, total)
        episodes += 1
        frames += played
        if episodes % 10 == 0:
            _rmsprop(weights, caches, total)
            for summed in total:
                summed.fill(0.0)
    return Rate(episodes, frames, time.perf_counter() - begin)


def _in_processes(work: Callable[[float], Rate], processes: int, seconds: float) -> list[Rate]:
    """``work(seconds)`` in that many fresh processes, begun together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes, running = [], []
    with native_kernels():
        for _ in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, seconds, barrier, sender))
            process.start()
            sender.close()
            pipes.append(receiver)
            running.append(process)
    rates = [pipe.recv() for pipe in pipes]
    for process in running:
        process.join()
    return rates


def _child(work: Callable[[float], Rate], seconds: float, barrier: Any, sender: Connection) -> None:
    os.nice(max(0, RAY_WORKER_NICENESS - os.nice(0)))
    barrier.wait()
    sender.send(work(seconds))
