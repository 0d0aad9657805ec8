"""The worker that plays episodes; it runs as a Ray actor."""

import os
import time
from dataclasses import dataclass, replace

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import Play, play
from distributed_pg.compiled.playing import fastest_play
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import EpisodeStats, evaluate_episode, rollout
from distributed_pg.system_info import Code, library_versions, own_code, peak_memory
from distributed_pg.training.gradient_sum import summed


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker reports when it is ready."""

    process: int
    """Process id."""
    versions: dict[str, str]
    """Versions of the libraries that affect its arithmetic."""
    code: Code
    """The code it runs."""


class RolloutWorker:
    """Plays one task at a time with the weights it is given."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._env: PongEnv | None = None
        self._play: Play = play
        self._tasks = 0
        self._idle_since = time.perf_counter()

    def prepare(self) -> WorkerInfo:
        """Load the game ahead of the first episode.

        Returns:
            The worker's process, versions and code.

        Raises:
            RomNotFoundError: the worker's machine has no Pong ROM.
        """
        self._emulator()
        self._idle_since = time.perf_counter()
        return WorkerInfo(os.getpid(), library_versions(), own_code())

    def play(self, first: int, policy: Policy) -> tuple[list[EpisodeStats], Gradient]:
        """Play the training episodes of a task.

        Args:
            first: index of its first episode in the run.
            policy: the weights to play them with.

        Returns:
            The statistics of each episode, and the sum of their gradients, added in order.

        Raises:
            FloatingPointError: the sum is not finite.
        """
        waited = time.perf_counter() - self._idle_since
        episodes = range(first, first + self._config.episodes_per_task)
        env = self._begin_task()
        results = [rollout(env, policy, self._config, e, self._play) for e in episodes]
        gradient = summed(result.gradient for result in results)
        self._idle_since = time.perf_counter()
        if not gradient.is_finite:
            raise FloatingPointError("the gradient is not finite")
        stats = [
            replace(
                result.stats,
                gradient_bytes=gradient.nbytes // len(results),
                waited_seconds=waited / len(results),
                worker_memory=peak_memory(),
            )
            for result in results
        ]
        return stats, gradient

    def evaluate(
        self, episode: int, policy: Policy, seed: int, greedy: bool
    ) -> tuple[list[EpisodeStats], None]:
        """Play one evaluation episode.

        Args:
            episode: index of the episode in the evaluation.
            policy: the weights to play it with.
            seed: seed of the evaluation.
            greedy: take the most probable action instead of sampling.

        Returns:
            The episode's statistics in a list, and None in place of a gradient.
        """
        env = self._begin_task()
        stats = evaluate_episode(env, policy, seed, episode, greedy=greedy, play=self._play)
        return [stats], None

    def _begin_task(self) -> PongEnv:
        """Get ready for a task; return the emulator."""
        self._tasks += 1
        if self._tasks == 2:  # before the first, it would delay the first update
            self._play = fastest_play(self._config.hidden_units)
        return self._emulator()

    def _emulator(self) -> PongEnv:
        if self._env is None:
            self._env = PongEnv(**self._config.env_settings())
        return self._env
