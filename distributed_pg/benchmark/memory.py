"""Measures the memory that a worker and a learner need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import (
    EVALUATION,
    Trajectory,
    episode_gradient,
    episode_seed,
    play_episode,
)
from distributed_pg.algo.state import TrainingState
from distributed_pg.benchmark.train_command import train
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.errors import RunError
from distributed_pg.runtime.actor import worker_environment
from distributed_pg.runtime.session import ray_session
from distributed_pg.system_info import peak_memory

LONG_GAME = 10_000
"""Steps; three times the length of a game between equals."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident memory in bytes, including the pages touched in the shared object store."""

    ray_worker: int
    """An idle Ray worker process."""
    worker: int
    """A worker after playing 10000 steps and computing their gradient."""
    learner: int
    """A training process with 2 workers and a batch size of 100."""


class LongGame:
    """An actor that plays one long game by joining several."""

    def play(self, policy: Policy, config: TrainConfig) -> Gradient:
        """Play :data:`LONG_GAME` steps and return their gradient."""
        env = PongEnv()
        games: list[Trajectory] = []
        while sum(len(game.actions) for game in games) < LONG_GAME:
            seed = episode_seed(0, len(games), EVALUATION)
            games.append(play_episode(env, policy, seed))
        joined = Trajectory(
            pixels=np.concatenate([game.pixels for game in games]),
            signs=np.concatenate([game.signs for game in games]),
            frame_starts=np.cumsum([0, *(n for game in games for n in np.diff(game.frame_starts))]),
            hidden=np.concatenate([game.hidden for game in games]),
            outputs=np.concatenate([game.outputs for game in games]),
            actions=[action for game in games for action in game.actions],
            rewards=[reward for game in games for reward in game.rewards],
        )
        del games  # a worker does not have its activations twice either
        return episode_gradient(policy, joined, config)

    def peak_memory(self) -> int:
        """Peak resident memory of this process in bytes."""
        return peak_memory()


def measure_memory(progress: Callable[[str], None] = lambda _: None) -> Memory:
    """Measure on this machine, each in a separate process.

    Args:
        progress: called with the name of each measurement.

    Raises:
        RunError: the training run that is measured failed.
    """
    config = TrainConfig()
    progress("memory of a worker")
    with ray_session(None, 1):
        ray_worker: int = ray.get(ray.remote(peak_memory).options(num_cpus=0).remote())
        actor = ray.remote(LongGame).options(num_cpus=1, runtime_env=worker_environment())
        player: Any = actor.remote()
        policy = TrainingState.initial(config).policy
        ray.get(player.play.remote(policy, config))
        worker: int = ray.get(player.peak_memory.remote())
    progress("memory of a learner, in a run of 200 games")
    return Memory(ray_worker, worker, _learner_memory())


def _learner_memory() -> int:
    flags = ("--num-workers", "2", "--batch-size", "100", "--stop-episodes", "200")
    last = train(*flags, what="the measured training run")
    if last is None:
        raise RunError("the measured training run left no metrics")
    return int(last["learner_memory"])
