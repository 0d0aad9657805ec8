"""The worker that plays episodes; it runs as a Ray actor."""

import os
import time
from dataclasses import dataclass, replace

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import EpisodeStats, evaluate_episode, rollout
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.system_info import Code, library_versions, own_code, peak_memory


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
    """Plays one episode at a time with the weights it is given."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._env: PongEnv | None = None
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

    def play(self, episode: int, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        """Play one training episode.

        Args:
            episode: index of the episode in the run.
            policy: the weights to play it with.

        Returns:
            The episode's statistics and its gradient.

        Raises:
            FloatingPointError: the gradient is not finite.
        """
        waited = time.perf_counter() - self._idle_since
        result = rollout(self._emulator(), policy, self._config, episode)
        self._idle_since = time.perf_counter()
        if not result.gradient.is_finite:
            raise FloatingPointError("the gradient is not finite")
        stats = replace(
            result.stats,
            gradient_bytes=result.gradient.nbytes,
            waited_seconds=waited,
            worker_memory=peak_memory(),
        )
        return stats, result.gradient

    def evaluate(
        self, episode: int, policy: Policy, seed: int, greedy: bool
    ) -> tuple[EpisodeStats, None]:
        """Play one evaluation episode.

        Args:
            episode: index of the episode in the evaluation.
            policy: the weights to play it with.
            seed: seed of the evaluation.
            greedy: take the most probable action instead of sampling.

        Returns:
            The episode's statistics, and None in place of a gradient.
        """
        stats = evaluate_episode(self._emulator(), policy, seed, episode, greedy=greedy)
        return stats, None

    def _emulator(self) -> PongEnv:
        if self._env is None:
            self._env = PongEnv(**self._config.env_settings())
        return self._env
