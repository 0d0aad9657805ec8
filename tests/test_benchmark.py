"""What the benchmark measures leaves nothing behind that is still being written."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from simulated_cluster import SimulatedCluster

from distributed_pg.benchmark import _watch_training
from distributed_pg.config import TrainConfig
from distributed_pg.env import PongEnv
from distributed_pg.policy import Gradient, Policy
from distributed_pg.ray_cluster import RayCluster
from distributed_pg.rollout import EpisodeStats, rollout
from distributed_pg.run_dir import RunDir
from distributed_pg.schedule import Ticket
from distributed_pg.state import TrainingState

CONFIG = TrainConfig(batch_size=1, frame_limit=80, hidden_units=8, checkpoint_every=1)


class ReadyCluster(SimulatedCluster):
    starting = False


def test_it_waits_for_the_last_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    env = PongEnv(**CONFIG.env_settings())
    begun, saved = [], []
    save = RunDir.save

    def slow_save(self: RunDir, *arguments: Any, **options: Any) -> Path:
        begun.append(self)
        time.sleep(0.5)
        saved.append(save(self, *arguments, **options))
        return saved[-1]

    def play(ticket: Ticket, policy: Policy) -> tuple[EpisodeStats, Gradient]:
        result = rollout(env, policy, CONFIG, ticket.episode)
        return replace(result.stats, seconds=1.0), result.gradient

    monkeypatch.setattr(RunDir, "save", slow_save)
    cluster = cast("RayCluster", ReadyCluster(play, workers=1))
    records = _watch_training(CONFIG, TrainingState.initial(CONFIG), cluster, seconds=0.0)
    assert len(records) == 2
    assert len(begun) == len(saved) > 1
    assert not saved[-1].exists()  # with the folder it was in
