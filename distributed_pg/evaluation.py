"""Evaluates a trained policy over whole games."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.config import NumWorkers, TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.runtime.actor import Submit, Worker
from distributed_pg.runtime.ray_worker_pool import RayWorkerPool
from distributed_pg.runtime.session import ray_session
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.training.dispatcher import Dispatcher
from distributed_pg.training.schedule import Schedule
from distributed_pg.training.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Statistics of whole games. A reward is points won minus points lost, from -21 to 21."""

    episodes: int
    mean: float
    std: float | None
    """Standard deviation of one game's reward; None for a single game."""
    sem: float | None
    """Standard error of the mean; None for a single game."""
    best: float
    worst: float
    won: float
    """Fraction of games won."""
    mean_length: float
    """Mean number of steps in a game."""


def evaluate(
    checkpoint: str | Path,
    episodes: int,
    *,
    greedy: bool = False,
    seed: int = 0,
    num_workers: NumWorkers = "auto",
    address: str | None = None,
    finished: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Play whole games with a trained policy.

    The games are determined by ``seed`` and differ from those of any training run.

    Args:
        checkpoint: the checkpoint; see :func:`distributed_pg.storage.policy_file.load_policy`.
        episodes: number of games, at least 1.
        greedy: take the most probable action instead of sampling.
        seed: seed of the games and the sampling.
        num_workers: games played in parallel; ``"auto"``: one per CPU.
        address: address of a Ray cluster; None: this machine.
        finished: called with the number of games played so far.

    Returns:
        Mean, spread and extremes of the rewards.

    Raises:
        UsageError: there is nothing at ``checkpoint``.
        RunError: the checkpoint cannot be read, or no cluster answers at ``address``.
    """
    loaded = load_policy(checkpoint)
    play = _play(seed, greedy)
    with (
        ray_session(address, num_workers) as session,
        RayWorkerPool(
            loaded.config,
            lambda: min(session.workers(), episodes),
            play,
            check=session.check,
            cpus=session.cpus,
        ) as pool,
    ):
        config, policy = loaded.config, loaded.policy
        stats = _play_all(pool, config, policy, episodes, finished)
    return summary(stats)


def summary(stats: list[EpisodeStats]) -> Evaluation:
    """Summarize the statistics of at least one game."""
    rewards = np.array([game.reward for game in stats], np.float64)
    std = float(rewards.std(ddof=1)) if len(rewards) > 1 else None
    return Evaluation(
        episodes=len(rewards),
        mean=float(rewards.mean()),
        std=std,
        sem=None if std is None else std / math.sqrt(len(rewards)),
        best=float(rewards.max()),
        worst=float(rewards.min()),
        won=float((rewards > 0).mean()),
        mean_length=float(np.mean([game.steps for game in stats])),
    )


def _play(seed: int, greedy: bool) -> Callable[[Worker], Submit]:
    def submit_to(worker: Worker) -> Submit:
        return lambda episode, weights: worker.evaluate.remote(episode, weights, seed, greedy)

    return submit_to


def _play_all(
    pool: WorkerPool,
    config: TrainConfig,
    policy: Policy,
    episodes: int,
    finished: Callable[[int], None],
) -> list[EpisodeStats]:
    """Play the games as one batch without learning."""
    dispatcher = Dispatcher(
        Schedule(batch_size=episodes, policy_lag=0, last_update=1),
        pool,
        backup_after=config.backup_after,
        hang_seconds=config.hang_seconds,
    )
    stats: dict[int, EpisodeStats] = {}
    pool.broadcast(0, policy)
    while len(stats) < episodes:
        dispatcher.hand_out()
        for event in dispatcher.collect(timeout=0.5):
            (stats[event.task.episode],) = event.stats
            finished(len(stats))
    return [stats[episode] for episode in range(episodes)]
