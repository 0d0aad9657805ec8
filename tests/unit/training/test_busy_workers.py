"""Runs shaped for their size keep simulated workers busy, in virtual time."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault_simulation import MemoryDisk, initial_state
from fault_simulation import play as play_in_no_time
from simulated_pool import Clock, SimulatedWorkerPool

from distributed_pg.algo.gradient import Gradient
from distributed_pg.algo.policy import Policy
from distributed_pg.config import TrainConfig
from distributed_pg.episode import EpisodeStats
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.presets import preset
from distributed_pg.training.learner import Learner
from distributed_pg.training.schedule import EpisodeTask

SPREAD = 0.15
"""Standard deviation of the logarithm of a game's length, measured on six policies that learn."""


def share_played(config: TrainConfig, workers: int) -> float:
    """The share of their time that the workers play, until the last game begins."""
    clock = Clock()
    played: list[tuple[float, float]] = []

    def play(task: EpisodeTask, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        stats, gradient = play_in_no_time(task, policy)
        seconds = 10.0 * float(np.random.default_rng(task.episode).lognormal(0.0, SPREAD))
        played.append((clock.now, seconds))
        return replace(stats, seconds=seconds), gradient

    pool = SimulatedWorkerPool(play, workers, clock=clock)
    disk = MemoryDisk(Path(tempfile.gettempdir()), initial_state(config))
    learner = Learner(config, disk.saved, pool, disk, NullReporter(), disk.path, clock)
    assert learner.run(lambda: False)
    end = max(begin for begin, _ in played)
    return sum(min(seconds, end - begin) for begin, seconds in played) / (workers * end)


@pytest.mark.parametrize("workers", [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
def test_workers_of_a_shaped_run_are_busy(workers: int) -> None:
    config = preset("default", shape_for=workers)
    config = replace(config, stop_episodes=100 * config.batch_size)
    assert share_played(config, workers) >= 0.95


@pytest.mark.parametrize(
    ("batch_size", "lag", "workers"), [(1, 1, 2), (1, 2, 3), (2, 4, 9), (4, 1, 5), (16, 1, 17)]
)
def test_as_many_workers_as_are_useful_are_busy(batch_size: int, lag: int, workers: int) -> None:
    config = TrainConfig(batch_size=batch_size, policy_lag=lag, stop_episodes=100 * batch_size)
    assert config.useful_workers == workers
    assert share_played(config, workers) >= 0.95
    assert share_played(config, 2 * workers) < 0.8


def test_without_a_lag_a_batch_is_all_there_is_to_play() -> None:
    assert TrainConfig(batch_size=4, policy_lag=0).useful_workers == 4


def test_workers_beyond_what_a_run_can_use_wait() -> None:
    config = replace(preset("default", shape_for=4), stop_episodes=400)
    assert share_played(config, 16) < 0.6
