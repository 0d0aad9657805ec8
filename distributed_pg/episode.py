"""One episode of training or evaluation: played, measured, and its gradient computed."""

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import (
    EVALUATION,
    TRAINING,
    Play,
    Trajectory,
    episode_gradient,
    episode_seed,
    play,
    play_episode,
)
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv


@dataclass(frozen=True, slots=True)
class EpisodeStats:
    """Statistics of an episode."""

    reward: float
    """Points won minus points lost."""
    steps: int
    """Actions taken."""
    frames: int
    """Emulated frames."""
    emulator_seconds: float
    """Time spent in the emulator."""
    seconds: float
    """Time from the reset to the last step, or to the gradient if one is computed."""
    points_won: int
    """Points the policy scored."""
    points_lost: int
    """Points the opponent scored."""
    entropy: float
    """Entropy of the policy in nats, mean over the steps."""
    gradient_bytes: int = 0
    """Size of the gradient."""
    waited_seconds: float = 0.0
    """Time the worker was idle before this episode."""
    worker_memory: int = 0
    """Peak resident memory of the worker in bytes."""


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """The result of one training episode."""

    stats: EpisodeStats
    gradient: Gradient


def rollout(
    env: PongEnv, policy: Policy, config: TrainConfig, episode: int, play: Play = play
) -> EpisodeResult:
    """Play the training episode with this index in the run, and compute its gradient."""
    clock = _Clock(env)
    seed = episode_seed(config.seed, episode, TRAINING)
    repeat_noise = config.repeat_noise_probability
    trajectory = play_episode(env, policy, seed, repeat_noise=repeat_noise, play=play)
    gradient = episode_gradient(policy, trajectory, config)
    return EpisodeResult(clock.stats(trajectory), gradient)


def evaluate_episode(
    env: PongEnv, policy: Policy, seed: int, episode: int, *, greedy: bool, play: Play = play
) -> EpisodeStats:
    """Play the episode with this index in an evaluation with this seed.

    ``greedy`` takes the most probable action instead of sampling.
    """
    clock = _Clock(env)
    own_seed = episode_seed(seed, episode, EVALUATION)
    trajectory = play_episode(env, policy, own_seed, greedy=greedy, play=play)
    return clock.stats(trajectory)


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats, float64 (T,), of each row of probabilities (T, A)."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))  # 0 log 0 is 0
    entropies: NDArray[np.float64] = -(probabilities * logarithms).sum(axis=1)
    return entropies


class _Clock:
    """Measures the time of an episode, and the emulator's part of it."""

    def __init__(self, env: PongEnv) -> None:
        self._env = env
        self._begin = time.perf_counter()
        self._emulator_begin = env.emulator_seconds

    def stats(self, trajectory: Trajectory) -> EpisodeStats:
        rewards = np.array(trajectory.rewards)
        return EpisodeStats(
            reward=math.fsum(trajectory.rewards),
            steps=len(trajectory.actions),
            frames=self._env.emulated_frames,
            emulator_seconds=self._env.emulator_seconds - self._emulator_begin,
            points_won=int(np.count_nonzero(rewards > 0.0)),
            points_lost=int(np.count_nonzero(rewards < 0.0)),
            entropy=float(entropy(trajectory.probabilities).mean()),
            seconds=time.perf_counter() - self._begin,
        )
